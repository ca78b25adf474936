//! Runs targets over mutations of their corpus, for as long as asked.
//!
//! An input that breaks a target is written to `artifacts/<target>/`, and so is one that ends this
//! process.

// A command-line tool talks to its user.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    fs, io,
    os::unix::fs::FileExt,
    panic,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use longshore_fuzz::{Mutations, TARGETS, Target, artifacts, corpus};

const USAGE: &str = "Usage: longshore-fuzz [--target NAME]… [--seconds S] [--seed N] [FILE]…";

struct Arguments {
    targets: Vec<Target>,
    time: Duration,
    seed: u64,
    files: Vec<String>,
}

fn main() -> ExitCode {
    let Some(arguments) = Arguments::read() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut broken = false;
    for target in &arguments.targets {
        let ran = match arguments.files.is_empty() {
            true => fuzz(target, &arguments),
            false => replay(target, &arguments.files),
        };
        match ran {
            Ok(held) => broken |= !held,
            Err(error) => {
                eprintln!("{}: {error}", target.name);
                broken = true;
            }
        }
    }
    ExitCode::from(u8::from(broken))
}

impl Arguments {
    fn read() -> Option<Self> {
        let mut read = Self {
            targets: Vec::new(),
            time: Duration::from_secs(60),
            seed: 1,
            files: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--target" => {
                    let name = words.next()?;
                    let target = TARGETS.iter().find(|target| target.name == name)?;
                    read.targets.push(*target);
                }
                "--seconds" => read.time = Duration::from_secs(words.next()?.parse().ok()?),
                "--seed" => read.seed = words.next()?.parse().ok()?,
                file if !file.starts_with('-') => read.files.push(word),
                _ => return None,
            }
        }
        if read.targets.is_empty() {
            read.targets = TARGETS.to_vec();
        }
        Some(read)
    }
}

/// Whether the target held.
fn fuzz(target: &Target, arguments: &Arguments) -> io::Result<bool> {
    let seeds = corpus(target.name)?.into_iter().map(|(_, octets)| octets);
    let mutations = Mutations::new(seeds.collect(), arguments.seed);
    let folder = artifacts(target.name)?;
    // Written before each run: an overflow of the stack leaves no time for it.
    let current = folder.join("current");
    let kept = fs::File::create(&current)?;
    let begun = Instant::now();
    let (mut runs, mut slowest) = (0, Duration::ZERO);
    while begun.elapsed() < arguments.time {
        let input = mutations.get(runs);
        kept.set_len(input.len() as u64)?;
        kept.write_all_at(&input, 0)?;
        let before = Instant::now();
        if !holds(target, &input) {
            let path = folder.join(format!("seed-{}-{runs}", arguments.seed));
            fs::rename(&current, &path)?;
            println!("{}: broken by {}", target.name, path.display());
            return Ok(false);
        }
        slowest = slowest.max(before.elapsed());
        runs += 1;
    }
    fs::remove_file(&current)?;
    println!(
        "{}: {runs} inputs, the slowest took {slowest:?}",
        target.name
    );
    Ok(true)
}

fn replay(target: &Target, files: &[String]) -> io::Result<bool> {
    let mut all = true;
    for file in files {
        let held = holds(target, &fs::read(Path::new(file))?);
        println!(
            "{}: {file} {}",
            target.name,
            if held { "holds" } else { "is broken" }
        );
        all &= held;
    }
    Ok(all)
}

fn holds(target: &Target, input: &[u8]) -> bool {
    panic::catch_unwind(|| (target.run)(input)).is_ok()
}
