//! The sub-command `conductor`: runs what is asked for and says what came of it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use longshore_testing::checker::Verdict;

use crate::{
    Failure,
    arguments::Arguments,
    faults::{self, Fault},
    json,
    order::Order,
    row,
    run::{self, Outcome},
    summary::Summary,
};

/// Runs everything that was asked for.
///
/// # Errors
/// What keeps a run from being made.
pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let all = faults::all();
    if arguments.list {
        for fault in &all {
            let on: Vec<_> = fault.on.iter().map(|on| on.name()).collect();
            println!(
                "{:26} {:5} {:18} {}",
                fault.name,
                fault.row,
                on.join(" "),
                fault.says
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    for name in &arguments.faults {
        if name != "all" && all.iter().all(|fault| fault.name != name) {
            return Err(format!("there is no fault \"{name}\": see --list").into());
        }
    }
    let wanted = |fault: &Fault| {
        let named = |name: &String| name == fault.name || name == "all";
        arguments.faults.iter().any(named)
    };
    for on in &arguments.on {
        if !all
            .iter()
            .any(|fault| wanted(fault) && fault.on.contains(on))
        {
            let on = on.name();
            return Err(format!("none of these faults can be done to {on}: see --list").into());
        }
    }
    let folder = folder()?;
    let mut failed = false;
    let mut summary = Summary::default();
    row::head();
    for on in &arguments.on {
        for fault in &all {
            if !wanted(fault) || !fault.on.contains(on) {
                continue;
            }
            for turn in 0..arguments.runs {
                let order = Order {
                    on: *on,
                    fault: fault.clone(),
                    seconds: arguments.seconds,
                    seed: arguments.seed + turn,
                    workers: arguments.workers,
                };
                let outcome = one(&order, &folder).await?;
                failed |= outcome.verdict() != Verdict::Passed;
                summary.add(&order, &outcome);
                if let Some(file) = &arguments.json {
                    json::add(file, &order, &outcome)?;
                }
            }
        }
    }
    if arguments.runs > 1 {
        summary.print();
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn one(order: &Order, folder: &Path) -> Result<Outcome, Failure> {
    let name = format!(
        "{}-{}-{}-{}",
        order.on.name(),
        order.fault.name,
        order.seed,
        std::process::id()
    );
    let outcome = run::run(order, &folder.join(name)).await?;
    row::row(order, &outcome);
    match outcome.verdict() {
        Verdict::Passed => std::fs::remove_dir_all(&outcome.folder)?,
        _ => row::why(order, &outcome),
    }
    Ok(outcome)
}

/// Under the target folder, beside this program.
fn folder() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?;
    let beside = program.parent().ok_or("the program is in no folder")?;
    Ok(beside.join("chaos"))
}
