//! Which server answers at an address, and in which version.

use std::fmt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};

use super::error::{Error, ErrorKind};
use super::resp::RespConnection;

/// A server's product and version, displayed as `RabbitMQ 3.10.8` or `Valkey 8.1.1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    /// `RabbitMQ`, `Redis` or `Valkey`.
    pub product: &'static str,
    /// The number as the server gives it.
    pub number: String,
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.product, self.number)
    }
}

/// Asks the server at an `amqp://` or `redis://` URL for its version, logging in to Redis where the
/// URL has credentials.
///
/// # Errors
/// [`ErrorKind::NotConfigured`] for another scheme (TLS ones included), otherwise what the connection
/// said. The URL's credentials are in no error text.
pub async fn server_version(url: &str) -> Result<ServerVersion, Error> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (credentials, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let with_port = |default: u16| match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:{default}"),
    };
    match scheme {
        "amqp" => rabbitmq_version(with_port(5672)).await,
        "redis" => redis_version(with_port(6379), credentials.split_once(':')).await,
        _ => Err(Error::new(
            ErrorKind::NotConfigured,
            format!("the version can be asked at amqp:// and redis://, not at {scheme}://"),
        )),
    }
}

/// RabbitMQ tells its version in the first frame, before anybody has logged in.
pub(crate) async fn rabbitmq_version(addr: impl ToSocketAddrs) -> Result<ServerVersion, Error> {
    let io = |error| Error::io("read RabbitMQ's greeting", error);
    let mut stream = TcpStream::connect(addr)
        .await
        .map_err(|error| Error::io("connect to RabbitMQ", error))?;
    stream.write_all(b"AMQP\0\0\x09\x01").await.map_err(io)?;
    let mut header = [0; 7];
    stream.read_exact(&mut header).await.map_err(io)?;
    let length = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
    if header[0] != 1 || length > 64 * 1024 {
        return Err(Error::new(
            ErrorKind::Command,
            "the server does not speak AMQP 0-9-1",
        ));
    }
    let mut frame = Vec::new();
    (&mut stream)
        .take(u64::from(length))
        .read_to_end(&mut frame)
        .await
        .map_err(io)?;
    long_string(&frame, b"\x07version")
        .map(|number| ServerVersion {
            product: "RabbitMQ",
            number,
        })
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Command,
                "the server's greeting carries no version",
            )
        })
}

/// The long string that follows a field name in an AMQP table.
fn long_string(frame: &[u8], name: &[u8]) -> Option<String> {
    let at = frame
        .windows(name.len())
        .position(|window| window == name)?
        + name.len();
    let length = frame.get(at..at + 5)?.strip_prefix(b"S")?;
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
    let text = frame.get(at + 5..)?.get(..length)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Answers only once the data is loaded.
pub(crate) async fn redis_version(
    addr: impl ToSocketAddrs,
    login: Option<(&str, &str)>,
) -> Result<ServerVersion, Error> {
    let mut connection = RespConnection::open(addr).await?;
    match login {
        Some(("", password)) => drop(connection.call(&["AUTH", password]).await?),
        Some((user, password)) => drop(connection.call(&["AUTH", user, password]).await?),
        None => {}
    }
    connection.call(&["PING"]).await?;
    let info = connection.call(&["INFO", "server"]).await?.to_string();
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_owned())
    };
    if let Some(number) = field("valkey_version:") {
        return Ok(ServerVersion {
            product: "Valkey",
            number,
        });
    }
    field("redis_version:")
        .map(|number| ServerVersion {
            product: "Redis",
            number,
        })
        .ok_or_else(|| Error::new(ErrorKind::Command, "the server's INFO carries no version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_a_table_and_a_cut_table_is_harmless() {
        let frame = b"\x07versionS\0\0\0\x063.10.8\x08platform";
        assert_eq!(
            long_string(frame, b"\x07version").as_deref(),
            Some("3.10.8")
        );
        for cut in 0..18 {
            assert_eq!(long_string(&frame[..cut], b"\x07version"), None);
        }
    }

    #[tokio::test]
    async fn an_unknown_scheme_is_refused_without_printing_the_credentials() {
        let error = server_version("rediss://user:secret@host")
            .await
            .expect_err("TLS is not spoken here");
        assert_eq!(error.kind(), ErrorKind::NotConfigured);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
