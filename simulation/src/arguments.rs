//! What the command line asks for.

use std::ops::Range;

/// How the command is used.
pub const USAGE: &str = "\
Usage: simulate [--seeds N] [--first S] [--seed S [--history]]

  --seeds N   as many simulations, each of a seed of its own; 2,000 unless said
  --first S   the first seed; 0 unless said
  --seed S    this one alone
  --history   and everything that happened in it, a line each
";

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// Which simulations.
    pub seeds: Range<u64>,
    /// Whether the history of the only one is printed.
    pub history: bool,
}

impl Arguments {
    /// Reads them, without the name of the program.
    ///
    /// # Errors
    /// What cannot be understood, for a person to read.
    pub fn read(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let (mut count, mut first, mut only, mut history) = (2_000, 0, None, false);
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, String> {
                let value = words.next().unwrap_or_default();
                let wrong = |_| format!("{word} needs a number, not \"{value}\"");
                value.parse().map_err(wrong)
            };
            match word.as_str() {
                "--seeds" => count = number()?,
                "--first" => first = number()?,
                "--seed" => only = Some(number()?),
                "--history" => history = true,
                other => return Err(format!("\"{other}\" is no argument")),
            }
        }
        let (first, count) = match only {
            Some(seed) => (seed, 1),
            None if history => return Err("--history needs --seed".to_owned()),
            None => (first, count),
        };
        let seeds = first..first.saturating_add(count);
        Ok(Self { seeds, history })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_or_one() {
        let read = |line: &str| Arguments::read(line.split_whitespace().map(str::to_owned));
        let seeds = |line| read(line).map(|arguments| arguments.seeds);
        assert_eq!(seeds(""), Ok(0..2_000));
        assert_eq!(seeds("--seeds 10 --first 5"), Ok(5..15));
        assert_eq!(seeds("--seed 4711 --history"), Ok(4711..4712));
        for wrong in ["--seeds", "--seeds x", "--history", "--what"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
