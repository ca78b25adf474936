//! Writing and reading a history.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::event::{Event, Record};

/// The end of a history file, for one process among those that write it.
#[derive(Debug)]
pub struct Recorder {
    file: File,
    process: u32,
}

impl Recorder {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_as(path, std::process::id())
    }

    /// Opens the file, or creates it, for one of several parts of this process that stand for
    /// processes of their own.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open_as(path: impl AsRef<Path>, process: u32) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, process })
    }

    /// Adds what happens now. When it returns, the line outlives this process.
    ///
    /// # Errors
    /// What the file system says.
    pub fn add(&self, event: Event) -> io::Result<()> {
        self.add_at(now(), event)
    }

    /// Adds what happened at this time and is only known now.
    ///
    /// # Errors
    /// What the file system says.
    pub fn add_at(&self, at: Duration, event: Event) -> io::Result<()> {
        let record = Record {
            at,
            process: self.process,
            event,
        };
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        // One call, or the lines of two processes could mix.
        match (&self.file).write(&line)? {
            written if written == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

/// The machine's monotonic clock, the same in all its processes.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}

/// The lines of a history so far, in the order in which they happened. A last line without its end
/// is left out: it is being written.
///
/// # Errors
/// What the file system says, now; for each line, that it is none.
pub fn read(path: impl AsRef<Path>) -> io::Result<impl Iterator<Item = io::Result<Record>>> {
    let mut lines = BufReader::new(File::open(path)?);
    let mut line = String::new();
    Ok(std::iter::from_fn(move || {
        line.clear();
        match lines.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => Some(serde_json::from_str(&line).map_err(Into::into)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Ending, Fate, Publish};

    #[test]
    fn what_was_recorded_is_read_back_and_a_torn_last_line_is_not() {
        let path = std::env::temp_dir().join(format!("longshore-history-{}", std::process::id()));
        let recorder = Recorder::open(&path).expect("created");
        let events = [
            Event::Publish(Publish {
                message: 1,
                queue: "orders".to_owned(),
                key: Some(7),
                seq: 0,
                dedup: None,
                delay: Duration::from_millis(1_500),
                fate: Fate::Fail(2),
            }),
            Event::Answered {
                message: 1,
                answer: Answer::Unknown,
            },
            Event::End {
                message: 1,
                attempt: 2,
                how: Ending::Panicked,
            },
            Event::Healed,
        ];
        for event in &events {
            recorder.add(event.clone()).expect("written");
        }
        (&recorder.file).write_all(b"{\"at\":").expect("written");
        let back: Vec<Record> = read(&path)
            .expect("opened")
            .collect::<io::Result<_>>()
            .expect("whole lines");
        std::fs::remove_file(&path).expect("removed");
        assert!(back.is_sorted_by_key(|record| record.at), "{back:?}");
        assert!(
            back.iter()
                .all(|record| record.process == std::process::id())
        );
        let back: Vec<Event> = back.into_iter().map(|record| record.event).collect();
        assert_eq!(back, events);
    }
}
