//! `cargo xtask mutants`: breaks one promise after the other, and sees that the harness notices.

mod shown;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use longshore_core::chaos::{CRASH_VARIABLE, FLAW_VARIABLE, Flaw};
use tokio::process::Command;

use self::shown::shown_by;
use crate::interrupt::{self, Interrupt};
use crate::supply::provide_binaries;
use crate::{Failure, chaos, root};

const SIMULATION: &str = "longshore-simulation";
/// Seeds of the simulation that are tried for each flaw: so many at first, then three times as many.
const SEEDS: u64 = 2_000;
const FIRST_SEEDS: u64 = 50;
/// Chaos runs of one kind that are tried, each with a seed of its own.
const RUNS: u64 = 2;
/// What takes longer than this has caught nothing.
const PATIENCE: Duration = Duration::from_secs(900);

/// Turns on one flaw after the other. Each must be caught: by a seed of the simulation, or by a chaos
/// run with a fault that is known to show it. Both must pass where nothing is broken on purpose.
///
/// # Errors
/// The arguments cannot be understood, or something could not be built or run. Flaws that nothing has
/// caught, by name.
pub(crate) async fn run(arguments: &[&str]) -> Result<ExitCode, Failure> {
    let asked = Asked::read(arguments)?;
    let mut interrupt = Interrupt::listen()?;
    tokio::select! {
        biased;
        () = interrupt.wished() => Ok(ExitCode::from(interrupt::EXIT_CODE)),
        done = all(&asked) => done,
    }
}

async fn all(asked: &Asked) -> Result<ExitCode, Failure> {
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root())
        .args(["build", "--quiet", "--package", SIMULATION])
        .status()
        .await?;
    if !built.success() {
        return Err("the simulation cannot be built".into());
    }
    let mut simulation = std::env::current_exe()?;
    simulation.set_file_name(SIMULATION);
    let mut hunt = Hunt {
        simulation,
        seeds: asked.seeds,
        has_chaos: false,
        healthy: BTreeMap::new(),
    };
    let mut missed = Vec::new();
    println!(
        "{:28} {:40} {:>5}  what it breaks",
        "flaw", "caught by", "s"
    );
    for flaw in &asked.flaws {
        let begun = Instant::now();
        let caught = hunt.catch(*flaw).await?;
        let took = begun.elapsed().as_secs();
        let by = caught.as_deref().unwrap_or("NOTHING");
        let says = flaw.says().trim();
        println!("{:28} {by:40} {took:>5}  {says}", flaw.name());
        if caught.is_none() {
            missed.push(flaw.name());
        }
    }
    match missed.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(format!("not caught: {}", missed.join(", ")).into()),
    }
}

/// What the command line asks for.
struct Asked {
    flaws: Vec<Flaw>,
    seeds: u64,
}

impl Asked {
    fn read(arguments: &[&str]) -> Result<Self, Failure> {
        let mut asked = Self {
            flaws: Vec::new(),
            seeds: SEEDS,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or(format!("{word} wants a value"))?;
            match *word {
                "--only" => {
                    let flaw = Flaw::ALL.iter().find(|flaw| flaw.name() == *value);
                    let flaw = flaw.ok_or(format!("there is no flaw \"{value}\""))?;
                    asked.flaws.push(*flaw);
                }
                "--seeds" => asked.seeds = value.parse()?,
                _ => return Err(format!("\"{word}\" is no option").into()),
            }
        }
        if asked.flaws.is_empty() {
            asked.flaws = Flaw::ALL.to_vec();
        }
        Ok(asked)
    }
}

/// One kind of chaos run: a broker and a fault.
type Chaos = (&'static str, &'static str);

/// The search for something that catches a flaw.
struct Hunt {
    /// The program.
    simulation: PathBuf,
    /// How many seeds of it are tried.
    seeds: u64,
    /// What runs chaos is built; not every flaw needs it.
    has_chaos: bool,
    /// Which chaos runs pass where nothing is broken on purpose, by seed.
    healthy: BTreeMap<(Chaos, u64), bool>,
}

impl Hunt {
    /// What catches this flaw.
    async fn catch(&mut self, flaw: Flaw) -> Result<Option<String>, Failure> {
        if let Some(seed) = self.seed(flaw).await? {
            return Ok(Some(format!("simulation, seed {seed}")));
        }
        if !std::mem::replace(&mut self.has_chaos, true) {
            provide_binaries();
            chaos::build().await?;
        }
        for (broker, fault) in shown_by(flaw) {
            for seed in 1..=RUNS {
                let run = ((*broker, *fault), seed);
                if self.chaos(run, Some(flaw)).await? != Verdict::Failed {
                    continue;
                }
                if !self.healthy.contains_key(&run) {
                    let passed = self.chaos(run, None).await? == Verdict::Passed;
                    self.healthy.insert(run, passed);
                }
                match self.healthy.get(&run) {
                    Some(true) => return Ok(Some(format!("{fault} on {broker}, seed {seed}"))),
                    _ => eprintln!("xtask: {fault} on {broker} does not pass without a flaw"),
                }
            }
        }
        Ok(None)
    }

    /// The first seed of the simulation that fails with this flaw and passes without.
    async fn seed(&self, flaw: Flaw) -> Result<Option<u64>, Failure> {
        let (mut first, mut seeds) = (0, FIRST_SEEDS);
        while first < self.seeds {
            seeds = seeds.min(self.seeds - first);
            for seed in self.failed(first, seeds, Some(flaw)).await? {
                if self.failed(seed, 1, None).await?.is_empty() {
                    return Ok(Some(seed));
                }
                eprintln!("xtask: seed {seed} of the simulation fails without a flaw");
            }
            (first, seeds) = (first + seeds, seeds * 3);
        }
        Ok(None)
    }

    /// Which seeds of the simulation fail.
    async fn failed(
        &self,
        first: u64,
        seeds: u64,
        flaw: Option<Flaw>,
    ) -> Result<Vec<u64>, Failure> {
        let (first, seeds) = (first.to_string(), seeds.to_string());
        let mut program = Command::new(&self.simulation);
        program.args(["--first", &first, "--seeds", &seeds]);
        let said = said(program, flaw).await?;
        if flaw.is_none() && !said.contains("seeds a minute") {
            return Err("the simulation does not come to its end".into());
        }
        let failed = |line: &str| -> Option<Vec<u64>> {
            let seeds = line.strip_prefix("failed seeds: [")?.strip_suffix(']')?;
            seeds.split(", ").map(|seed| seed.parse().ok()).collect()
        };
        let mut failed = said.lines().find_map(failed).unwrap_or_default();
        failed.sort_unstable();
        Ok(failed)
    }

    /// What comes of a chaos run.
    async fn chaos(
        &self,
        ((broker, fault), seed): (Chaos, u64),
        flaw: Option<Flaw>,
    ) -> Result<Verdict, Failure> {
        let mut program = chaos::harness()?;
        program.args(["--broker", broker, "--fault", fault]);
        program.args(["--seed", &seed.to_string()]);
        let said = said(program, flaw).await?;
        let has = |word| said.lines().any(|line| line.contains(word));
        Ok(match (has(" FAILED: "), has(" passed")) {
            (true, _) => Verdict::Failed,
            (false, true) => Verdict::Passed,
            (false, false) => Verdict::Neither,
        })
    }
}

/// What comes of a chaos run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    /// It saw too little, or could not be made.
    Neither,
}

/// What a program says until it ends, or until the patience with it does.
async fn said(mut program: Command, flaw: Option<Flaw>) -> Result<String, Failure> {
    program
        .current_dir(root())
        .env_remove(CRASH_VARIABLE)
        .env_remove(FLAW_VARIABLE)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if let Some(flaw) = flaw {
        program.env(FLAW_VARIABLE, flaw.name());
    }
    match tokio::time::timeout(PATIENCE, program.output()).await {
        Ok(output) => Ok(String::from_utf8_lossy(&output?.stdout).into_owned()),
        Err(_) => Ok(String::new()),
    }
}
