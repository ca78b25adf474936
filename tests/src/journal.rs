//! What happened, in a file that survives the death of any process that writes it.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// An append-only file of events; one `write` each, so processes can share it and `kill -9` tears
/// nothing.
#[derive(Debug)]
pub struct Journal(File);

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `start` or `done`.
    pub what: String,
    /// Which job.
    pub number: u64,
    /// The attempt number the handler saw.
    pub attempt: u32,
    /// Which process.
    pub process: u32,
}

impl Journal {
    /// Opens or creates it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(file))
    }

    /// Appends one event.
    ///
    /// # Errors
    /// What the file system says.
    pub fn note(&self, what: &str, number: u64, attempt: u32) -> io::Result<()> {
        let line = format!("{what} {number} {attempt} {}\n", std::process::id());
        (&self.0).write_all(line.as_bytes())
    }
}

/// Everything noted so far, in order.
///
/// # Errors
/// What the file system says, or a line that is none.
pub fn read(path: &Path) -> io::Result<Vec<Event>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(parse).collect()
}

/// The attempt numbers of one kind of event, by job.
pub fn attempts(events: &[Event], what: &str) -> BTreeMap<u64, Vec<u32>> {
    let mut attempts = BTreeMap::<u64, Vec<u32>>::new();
    for event in events.iter().filter(|event| event.what == what) {
        attempts
            .entry(event.number)
            .or_default()
            .push(event.attempt);
    }
    attempts
}

fn parse(line: &str) -> io::Result<Event> {
    let mut words = line.split(' ');
    let mut next = || words.next().ok_or_else(|| torn(line));
    Ok(Event {
        what: next()?.to_owned(),
        number: next()?.parse().map_err(|_| torn(line))?,
        attempt: next()?.parse().map_err(|_| torn(line))?,
        process: next()?.parse().map_err(|_| torn(line))?,
    })
}

fn torn(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("torn line: {line}"))
}
