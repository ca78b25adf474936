//! What happened to the messages of sessions, in a file that survives the death of any process, and
//! what must hold of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// An append-only file of what happened; one `write` each, so its order is the order in which it
/// happened, over all processes of a machine.
#[derive(Debug)]
pub struct History(File);

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// `start`, `end` (the handler has returned or was dropped), `done` (it succeeded), or `kill`
    /// (the process is about to be killed).
    pub what: String,
    /// Of which session.
    pub key: u64,
    /// Which message of it, from 0.
    pub number: u64,
    /// Which start of it.
    pub attempt: u32,
    /// Under which fencing token.
    pub token: u64,
    /// In which process.
    pub process: u32,
}

impl History {
    /// Opens or creates it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(file))
    }

    /// Adds something.
    ///
    /// # Errors
    /// What the file system says.
    pub fn add(&self, happened: &Happened) -> io::Result<()> {
        let Happened {
            what,
            key,
            number,
            attempt,
            token,
            process,
        } = happened;
        let line = format!("{what} {key} {number} {attempt} {token} {process}\n");
        (&self.0).write_all(line.as_bytes())
    }

    /// Notes that a process is about to be killed.
    ///
    /// # Errors
    /// What the file system says.
    pub fn kill(&self, process: u32) -> io::Result<()> {
        self.add(&Happened {
            what: "kill".to_owned(),
            key: 0,
            number: 0,
            attempt: 0,
            token: 0,
            process,
        })
    }
}

/// Everything so far, in order.
///
/// # Errors
/// What the file system says, or a line that is none.
pub fn read(path: &Path) -> io::Result<Vec<Happened>> {
    let torn = || io::Error::new(io::ErrorKind::InvalidData, "a torn line");
    let parse = |line: &str| -> Option<Happened> {
        let mut words = line.split(' ');
        let what = words.next()?.to_owned();
        let mut number = || words.next()?.parse::<u64>().ok();
        Some(Happened {
            what,
            key: number()?,
            number: number()?,
            attempt: u32::try_from(number()?).ok()?,
            token: number()?,
            process: u32::try_from(number()?).ok()?,
        })
    };
    let text = std::fs::read_to_string(path)?;
    text.lines()
        .map(|line| parse(line).ok_or_else(torn))
        .collect()
}

/// What a history says against the promises of sessions.
#[derive(Debug, Default)]
pub struct Verdict {
    /// A message started before one that was published earlier to its session had started at all.
    pub inversions: Vec<Happened>,
    /// A message of a session started while another start of it went on in a living process.
    pub overlaps: Vec<Happened>,
    /// A message started again after a later one of its session had.
    pub replays: Vec<Happened>,
    /// A start under a smaller fencing token than an earlier one of its session.
    pub stale: Vec<Happened>,
    /// An attempt number that a message had twice, or above the most allowed.
    pub attempts: Vec<Happened>,
    /// What was done at least once.
    pub done: BTreeSet<(u64, u64)>,
    /// How many starts there were.
    pub starts: usize,
    /// Under how many different ownerships.
    pub ownerships: usize,
}

/// Looks through a history once.
pub fn judge(history: &[Happened], max_attempts: u32) -> Verdict {
    let mut verdict = Verdict::default();
    let mut next = BTreeMap::<u64, u64>::new();
    let mut tokens = BTreeMap::<u64, u64>::new();
    let mut running = BTreeMap::<u64, Vec<(u64, u32)>>::new();
    let mut attempts = BTreeMap::<(u64, u64), BTreeSet<u32>>::new();
    let mut ownerships = BTreeSet::new();
    let mut dying = BTreeSet::new();
    for happened in history {
        let &Happened {
            key,
            number,
            attempt,
            token,
            process,
            ..
        } = happened;
        match happened.what.as_str() {
            "start" => {
                verdict.starts += 1;
                let next = next.entry(key).or_default();
                match number.cmp(next) {
                    std::cmp::Ordering::Equal => *next += 1,
                    std::cmp::Ordering::Greater => verdict.inversions.push(happened.clone()),
                    std::cmp::Ordering::Less if number + 1 < *next => {
                        verdict.replays.push(happened.clone());
                    }
                    std::cmp::Ordering::Less => {}
                }
                let running = running.entry(key).or_default();
                if !running.is_empty() {
                    verdict.overlaps.push(happened.clone());
                }
                // It gets no further, and nobody will see it end.
                if !dying.contains(&process) {
                    running.push((number, process));
                }
                let highest = tokens.entry(key).or_default();
                if token < *highest {
                    verdict.stale.push(happened.clone());
                }
                *highest = token.max(*highest);
                ownerships.insert((key, token));
                let fresh = attempts.entry((key, number)).or_default().insert(attempt);
                if !fresh || attempt > max_attempts {
                    verdict.attempts.push(happened.clone());
                }
            }
            "end" => {
                let running = running.entry(key).or_default();
                running.retain(|run| *run != (number, process));
            }
            "done" => {
                verdict.done.insert((key, number));
            }
            _ => {
                dying.insert(process);
                for running in running.values_mut() {
                    running.retain(|(_, of)| *of != process);
                }
            }
        }
    }
    verdict.ownerships = ownerships.len();
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(lines: &str) -> Vec<Happened> {
        let folder = std::env::temp_dir();
        let file = folder.join(crate::unique("history"));
        std::fs::write(&file, lines.replace(", ", "\n")).expect("written");
        let read = read(&file).expect("read");
        std::fs::remove_file(&file).expect("removed");
        read
    }

    fn found(lines: &str) -> [usize; 5] {
        let v = judge(&history(lines), 3);
        [
            v.inversions.len(),
            v.overlaps.len(),
            v.replays.len(),
            v.stale.len(),
            v.attempts.len(),
        ]
    }

    #[test]
    fn every_kind_of_wrong_is_found_and_what_is_right_is_not() {
        assert_eq!(
            found("start 1 0 1 1 9, end 1 0 1 1 9, start 1 1 1 1 9, start 2 0 1 1 9"),
            [0; 5]
        );
        assert_eq!(
            found("start 1 0 1 1 9, kill 0 0 0 0 9, start 1 0 2 2 8"),
            [0; 5]
        );
        assert_eq!(
            found("kill 0 0 0 0 9, start 1 0 1 1 9, start 1 0 2 2 8"),
            [0; 5]
        );
        assert_eq!(found("start 1 1 1 1 9"), [1, 0, 0, 0, 0]);
        assert_eq!(found("start 1 0 1 1 9, start 1 1 1 1 9"), [0, 1, 0, 0, 0]);
        assert_eq!(
            found(
                "start 1 0 1 1 9, end 1 0 1 1 9, start 1 1 1 1 9, end 1 1 1 1 9, start 1 0 2 1 9"
            ),
            [0, 0, 1, 0, 0]
        );
        assert_eq!(
            found("start 1 0 1 2 9, end 1 0 1 2 9, start 1 0 2 1 9"),
            [0, 0, 0, 1, 0]
        );
        assert_eq!(
            found("start 1 0 1 1 9, end 1 0 1 1 9, start 1 0 1 1 9"),
            [0, 0, 0, 0, 1]
        );
        assert_eq!(found("start 1 0 4 1 9"), [0, 0, 0, 0, 1]);
    }
}
