//! What to run.

use std::fmt;

/// How to call the program.
pub(crate) const USAGE: &str = "\
Usage: cargo xtask bench [--broker amqp|redis|memory]… [--mode consume|publish|latency]… [--only TEXT]…
                         [--messages N] [--rounds N]

  --broker    which transports; all without it
  --mode      consume: a full queue is emptied; publish: an empty one is filled;
              latency: 2,000 messages a second, from the publish call to the handler; all without it
  --only      only contestants whose name contains this
  --messages  how many in each run; by default 100,000 on RabbitMQ, 500,000 elsewhere.
              One-by-one loops do a twentieth of it, and latency at most 10,000
  --rounds    how often each contestant runs; 3 without it";

/// What to run.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) brokers: Vec<Broker>,
    pub(crate) modes: Vec<Mode>,
    pub(crate) only: Vec<String>,
    pub(crate) messages: Option<u32>,
    pub(crate) rounds: u32,
}

/// Which transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broker {
    Amqp,
    Redis,
    Memory,
}

/// Which work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Consume,
    Publish,
    Latency,
}

impl Arguments {
    /// Reads a command line.
    ///
    /// # Errors
    /// The first mistake, as a sentence for the user.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words = words.peekable();
        let mut parsed = Self {
            brokers: Vec::new(),
            modes: Vec::new(),
            only: Vec::new(),
            messages: None,
            rounds: 3,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--broker" => parsed.brokers.push(match value()?.as_str() {
                    "amqp" => Broker::Amqp,
                    "redis" => Broker::Redis,
                    "memory" => Broker::Memory,
                    other => return Err(format!("\"{other}\" is no broker")),
                }),
                "--mode" => parsed.modes.push(match value()?.as_str() {
                    "consume" => Mode::Consume,
                    "publish" => Mode::Publish,
                    "latency" => Mode::Latency,
                    other => return Err(format!("\"{other}\" is no mode")),
                }),
                "--only" => parsed.only.push(value()?),
                "--messages" => parsed.messages = Some(number(&word, &value()?, 100)?),
                "--rounds" => parsed.rounds = number(&word, &value()?, 1)?,
                _ => return Err(format!("\"{word}\" is no option")),
            }
        }
        if parsed.brokers.is_empty() {
            parsed.brokers = vec![Broker::Amqp, Broker::Redis, Broker::Memory];
        }
        if parsed.modes.is_empty() {
            parsed.modes = vec![Mode::Consume, Mode::Publish, Mode::Latency];
        }
        Ok(parsed)
    }
}

fn number(option: &str, value: &str, least: u32) -> Result<u32, String> {
    match value.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(format!(
            "{option} needs a number of at least {least}, not \"{value}\""
        )),
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amqp => "RabbitMQ",
            Self::Redis => "Redis",
            Self::Memory => "memory",
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consume => "consume",
            Self::Publish => "publish",
            Self::Latency => "latency",
        })
    }
}
