//! What `cargo xtask test` tells the tests through the environment.

use std::path::PathBuf;

use super::error::{Error, ErrorKind};

/// The environment variable with the URL of the shared RabbitMQ.
pub const AMQP_URL_VARIABLE: &str = "LONGSHORE_TEST_AMQP_URL";
/// The environment variable with the URL of the shared Redis.
pub const REDIS_URL_VARIABLE: &str = "LONGSHORE_TEST_REDIS_URL";
/// The environment variable with the Python that has `pika` and `redis` installed.
pub const PYTHON_VARIABLE: &str = "LONGSHORE_TEST_PYTHON";

/// The URL of the RabbitMQ that all tests of a run share. Use unique queue names on it.
///
/// # Errors
/// [`ErrorKind::NotConfigured`] where the variable is unset: a test fails then, it is never skipped.
pub fn amqp_url() -> Result<String, Error> {
    required(AMQP_URL_VARIABLE)
}

/// The URL of the Redis that all tests of a run share. Use unique queue names on it.
///
/// # Errors
/// [`ErrorKind::NotConfigured`] where the variable is unset: a test fails then, it is never skipped.
pub fn redis_url() -> Result<String, Error> {
    required(REDIS_URL_VARIABLE)
}

/// The Python interpreter that can import `pika` and `redis`.
///
/// # Errors
/// [`ErrorKind::NotConfigured`] where the variable is unset: a test fails then, it is never skipped.
pub fn python() -> Result<PathBuf, Error> {
    required(PYTHON_VARIABLE).map(PathBuf::from)
}

fn required(variable: &str) -> Result<String, Error> {
    match std::env::var(variable) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(Error::new(
            ErrorKind::NotConfigured,
            format!("{variable} is not set: run `cargo xtask test`, which provides it"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unset_variable_is_an_error_that_names_the_command_to_run() {
        let error = required("LONGSHORE_TEST_SURELY_UNSET").expect_err("it is unset");
        assert_eq!(error.kind(), ErrorKind::NotConfigured);
        assert!(error.to_string().contains("cargo xtask test"), "{error}");
    }
}
