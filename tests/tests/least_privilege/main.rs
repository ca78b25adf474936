//! What `docs/security.md` tells an operator to grant is enough, and all of it is needed.

#![allow(clippy::unwrap_used)]

mod rabbitmq;
mod redis;
mod roads;
mod walks;

const GUIDE: &str = include_str!("../../../docs/security.md");

/// The words after a command in the guide's examples, quotes taken off.
fn granted(command: &str) -> Vec<String> {
    let mut lines = GUIDE
        .lines()
        .filter_map(|line| line.strip_prefix(command)?.strip_prefix(' '));
    let line = lines.next();
    let line = line.unwrap_or_else(|| panic!("docs/security.md has no \"{command}\""));
    let words = line.split_whitespace();
    words
        .map(|word| word.trim_matches('\'').to_owned())
        .collect()
}
