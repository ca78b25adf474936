//! Clients that are not ours: pika and redis-py, as small Python programs.

use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use longshore_testing::brokers;
use serde_json::{Value, json};

/// Runs operations with pika: `{"to": queue, "body": …, "properties": {…}}` publishes,
/// `{"from": queue}` looks at the head, and with `"take": true` takes it; `{"declare": name,
/// "arguments": {…}}` declares a queue, and with `"exchange_type": …` an exchange; `{"ask": queue,
/// "inbox": …, "messages": […], "replies": 2}` asks and waits for so many replies; `{"serve": queue,
/// "answers": [[…], …]}` answers requests, each with a list of replies.
///
/// # Panics
/// When the client fails.
pub async fn amqp(url: &str, operations: &[Value]) -> Vec<Value> {
    run("amqp.py", url, operations).await
}

/// Runs operations with redis-py: `[command, argument, …]`, or `{"serve": stream, "answers": [[…], …]}`,
/// which answers requests, each with a list of replies.
///
/// # Panics
/// When the client fails.
pub async fn redis(url: &str, commands: &[Value]) -> Vec<Value> {
    run("redis_commands.py", url, commands).await
}

/// The command that adds an entry of these fields.
pub fn add(key: &str, fields: &[(&str, &str)]) -> Value {
    let fields = fields.iter().flat_map(|(name, value)| [*name, *value]);
    ["XADD", key, "*"].into_iter().chain(fields).collect()
}

/// The fields of an entry, by name.
pub fn fields(entry: &Value) -> BTreeMap<String, String> {
    let fields = entry[1].as_array().map_or(&[][..], Vec::as_slice);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs = fields
        .chunks(2)
        .map(|pair| (text(&pair[0]), text(&pair[1])));
    pairs.collect()
}

/// Fields, name and value in turn, as a redrive sends them back: followed by the one that says so.
pub fn redriven(fields: &Value) -> Value {
    let fields = fields.as_array().cloned().unwrap_or_default();
    let mark = ["redriven", "1"].map(Value::from);
    fields.into_iter().chain(mark).collect()
}

/// The entries of a stream: each a list of its id and its fields, name and value in turn.
///
/// # Panics
/// When the client fails.
pub async fn stream(url: &str, key: &str) -> Vec<Value> {
    let replies = redis(url, &[json!(["XRANGE", key, "-", "+"])]).await;
    replies[0].as_array().cloned().unwrap_or_default()
}

/// Bytes that are no text, for either client.
pub fn bytes(octets: &[u8]) -> Value {
    json!({ "$bytes": base64(octets) })
}

/// Runs a program with pika at hand, and answers what it printed.
///
/// # Panics
/// When it fails.
pub async fn python(program: &str) -> String {
    let mut command = interpreter();
    command.arg("-");
    String::from_utf8(output(command, program.to_owned()).await).expect("text")
}

async fn run(script: &str, url: &str, input: &[Value]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("python")
        .join(script);
    let mut command = interpreter();
    command.arg(script).arg(url);
    let input = Value::from(input.to_vec()).to_string();
    serde_json::from_slice(&output(command, input).await).expect("a JSON list")
}

fn interpreter() -> Command {
    Command::new(brokers::python().expect("a Python with pika and redis"))
}

async fn output(mut command: Command, input: String) -> Vec<u8> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    });
    let output = output.await.expect("not cancelled").expect("Python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the plain client failed: {said}");
    output.stdout
}

fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in octets.chunks(3) {
        let digit = |at: usize| group.get(at).copied().unwrap_or_default();
        let bits = u32::from_be_bytes([0, digit(0), digit(1), digit(2)]);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place)) & 63;
            text.push(if place <= group.len() {
                char::from(DIGITS[six as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_that_of_rfc_4648() {
        let encoded =
            ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|t| super::base64(t.as_bytes()));
        assert_eq!(
            encoded,
            [
                "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"
            ]
        );
    }
}
