//! Every example runs and prints what its header says.

#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command};

use longshore_testing::brokers;
use longshore_tests::unique;

/// The lines after the command in the first code block of an example's header.
fn expected(example: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(format!("{example}.rs"));
    let source = std::fs::read_to_string(file).unwrap();
    let header = source.lines().map_while(|line| line.strip_prefix("//!"));
    let block = header
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .skip_while(|line| *line != "```text")
        .skip(1)
        .take_while(|line| *line != "```");
    block
        .filter(|line| !line.starts_with("$ "))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// Runs an example that `cargo test --workspace --all-features` has built beside this test.
fn run(example: &str, arguments: &[&str]) -> String {
    let this = std::env::current_exe().unwrap();
    let program = this.parent().unwrap().join("../examples").join(example);
    assert!(
        program.exists(),
        "{} is missing; build it with `cargo build --examples --all-features --workspace`",
        program.display()
    );
    let output = Command::new(program).args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn hello_prints_what_its_header_says() {
    assert_eq!(run("hello", &[]), expected("hello"));
}

#[test]
fn retry_dead_letter_prints_what_its_header_says() {
    assert_eq!(run("retry_dead_letter", &[]), expected("retry_dead_letter"));
}

#[test]
fn delayed_prints_what_its_header_says() {
    assert_eq!(run("delayed", &[]), expected("delayed"));
}

/// Inside the process, and on each broker, which may differ in these lines.
fn everywhere(example: &str, on_rabbitmq: &[(&str, &str)]) {
    let wanted = expected(example);
    assert_eq!(run(example, &[]), wanted, "in memory");
    let on_redis = run(example, &["--url", &brokers::redis_url().unwrap()]);
    assert_eq!(on_redis, wanted, "on Redis");
    let told = on_rabbitmq
        .iter()
        .fold(wanted, |text, (here, there)| text.replace(here, there));
    let on_rabbitmq = run(example, &["--url", &brokers::amqp_url().unwrap()]);
    assert_eq!(on_rabbitmq, told, "on RabbitMQ");
}

#[test]
fn sessions_prints_what_its_header_says_on_every_transport() {
    everywhere("sessions", &[]);
}

#[test]
fn priorities_prints_what_its_header_says_on_every_transport() {
    everywhere("priorities", &[]);
}

#[test]
fn dedup_prints_what_its_header_says_on_every_transport() {
    everywhere("dedup", &[("Duplicate", "Accepted")]);
}

#[test]
fn request_reply_prints_what_its_header_says_on_every_transport() {
    everywhere("request_reply", &[]);
}

fn produce_and_consume(url: &str) {
    let queue = unique("orders");
    let arguments = ["--url", url, "--queue", &queue, "--count", "3"];
    let named = |text: String| text.replace(&queue, "orders");
    assert_eq!(named(run("producer", &arguments)), expected("producer"));
    assert_eq!(named(run("consumer", &arguments)), expected("consumer"));
}

#[test]
fn producer_and_consumer_print_what_their_headers_say_over_rabbitmq() {
    produce_and_consume(&brokers::amqp_url().unwrap());
}

#[test]
fn producer_and_consumer_print_what_their_headers_say_over_redis() {
    produce_and_consume(&brokers::redis_url().unwrap());
}
