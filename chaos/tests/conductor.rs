//! The conductor: what it offers, and that nothing outlives it.

#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_longshore-chaos");

/// The processes whose command line begins with the program.
fn processes(parent: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap();
    let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter(|process: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            // After the name, which is in brackets: state, parent.
            let rest = stat.rsplit(')').next().unwrap_or_default();
            rest.split_whitespace().nth(1) == Some(&parent.to_string())
        })
        .collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_fault_is_listed_and_an_unknown_one_is_refused() {
    let listed = Command::new(PROGRAM).arg("--list").output().unwrap();
    assert!(listed.status.success());
    let listed = String::from_utf8(listed.stdout).unwrap();
    for name in ["none", "mix", "kill-worker", "crash-settle-decided"] {
        assert!(listed.lines().any(|line| line.starts_with(name)), "{name}");
    }
    let refused = Command::new(PROGRAM)
        .args(["--fault", "x"])
        .output()
        .unwrap();
    assert!(!refused.status.success());
}

#[test]
fn no_process_outlives_a_conductor_that_is_killed() {
    let mut conductor = Command::new(PROGRAM)
        .args([
            "--broker",
            "redis",
            "--fault",
            "freeze-worker",
            "--seconds",
            "60",
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Redis and its guardian, the ledger, three workers, two publishers, and the one that would let a
    // frozen worker go on.
    until("all processes run", || processes(conductor.id()).len() >= 9);
    let all = processes(conductor.id());
    conductor.kill().unwrap();
    conductor.wait().unwrap();
    until("they are gone", || {
        all.iter()
            .all(|process| !Path::new(&format!("/proc/{process}")).exists())
    });
}
