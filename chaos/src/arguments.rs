//! What the conductor is asked to do.

use std::path::PathBuf;

use crate::{Failure, plan::On};

/// What the conductor is asked to do.
#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    /// On these brokers.
    pub(crate) on: Vec<On>,
    /// These faults.
    pub(crate) faults: Vec<String>,
    /// For so many seconds each.
    pub(crate) seconds: u64,
    /// From this seed on.
    pub(crate) seed: u64,
    /// With so many workers.
    pub(crate) workers: usize,
    /// So often, with one seed after the other.
    pub(crate) runs: u64,
    /// Where each run is told to programs.
    pub(crate) json: Option<PathBuf>,
    /// Only say which faults there are.
    pub(crate) list: bool,
}

impl Arguments {
    /// Reads a command line.
    ///
    /// # Errors
    /// It cannot be understood.
    pub(crate) fn read(words: impl IntoIterator<Item = String>) -> Result<Self, Failure> {
        let mut read = Self {
            on: Vec::new(),
            faults: Vec::new(),
            seconds: 30,
            seed: 1,
            workers: 3,
            runs: 1,
            json: None,
            list: false,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match &*word {
                "--broker" => {
                    let name = value()?;
                    let on = On::ALL.iter().find(|on| on.name() == name);
                    read.on
                        .push(*on.ok_or(format!("there is no broker \"{name}\""))?);
                }
                "--fault" => read.faults.push(value()?),
                "--seconds" => read.seconds = value()?.parse()?,
                "--seed" => read.seed = value()?.parse()?,
                "--workers" => read.workers = value()?.parse()?,
                "--runs" => read.runs = value()?.parse()?,
                "--json" => read.json = Some(value()?.into()),
                "--list" => read.list = true,
                _ => return Err(format!("\"{word}\" is no option").into()),
            }
        }
        if read.on.is_empty() {
            read.on = On::SERVERS.to_vec();
        }
        if read.faults.is_empty() {
            read.faults.push("mix".to_owned());
        }
        Ok(read)
    }
}
