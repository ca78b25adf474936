//! Keeps one process running.

use std::{
    fs::OpenOptions,
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use longshore_core::chaos::CRASH_VARIABLE;
use longshore_testing::history::Event;
use rustix::process::Signal;
use tokio::process::{Child, Command};

use crate::{
    crew::{Role, Shared},
    random::Random,
    worker::TERMINATED,
};

/// Starts it whenever it is wanted and not there.
pub(crate) async fn keep(shared: Arc<Shared>) {
    loop {
        if !shared.state().wanted {
            shared.changed.notified().await;
            continue;
        }
        let mut child = match spawn(&shared) {
            Ok(child) => child,
            Err(error) => {
                let text = format!("{} cannot be started: {error}", shared.role.name());
                shared.tally().unexpected.push(text);
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            }
        };
        // Kept out of its hands: waiting would close it, and that ends the process.
        let lifeline = child.stdin.take();
        let ended_as = child.wait().await;
        drop(lifeline);
        if let Ok(status) = ended_as {
            ended(&shared, status);
        }
    }
}

fn spawn(shared: &Shared) -> io::Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(shared.log())?;
    let mut state = shared.state();
    state.boots += 1;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(shared.role.name())
        .args([shared.number.to_string(), state.boots.to_string()])
        .current_dir(&shared.folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .env_remove(CRASH_VARIABLE)
        // Panics are part of the load, and what they say is not worth a core.
        .env("RUST_BACKTRACE", "0")
        .kill_on_drop(true);
    state.crash = state.next_crash.map(|(point, _)| point);
    if let Some((point, most)) = state.next_crash {
        let mut random = Random::of(state.boots, shared.number as u64);
        let passing = random.within(1..=most);
        command.env(CRASH_VARIABLE, format!("{}:{passing}", point.name()));
    }
    let child = command.spawn()?;
    state.process = child.id();
    state.doomed = false;
    state.asked = false;
    Ok(child)
}

fn ended(shared: &Shared, status: ExitStatus) {
    let mut state = shared.state();
    let process = state.process.take().unwrap_or_default();
    let aborted = status.signal() == Some(Signal::ABORT.as_raw());
    let at_point = aborted && state.crash.is_some();
    let of_message = aborted && shared.may_abort && shared.role == Role::Worker;
    // Whoever kills says so before, and so does who dies at a crash point or of a message.
    if !status.success() && !state.doomed && !at_point && !of_message {
        let _ = shared.history.add(Event::Killed { victim: process });
    }
    let mut tally = shared.tally();
    match () {
        () if state.doomed => tally.kills += 1,
        () if status.success() && (state.asked || shared.role == Role::Redriver) => {
            tally.stops += 1;
        }
        // It was asked before it listened, or twice.
        () if state.asked && status.signal() == Some(Signal::TERM.as_raw()) => tally.stops += 1,
        () if state.asked && status.code() == Some(TERMINATED) => tally.stops += 1,
        () if at_point => tally.crashes += 1,
        () if of_message => tally.aborts += 1,
        () => {
            let (role, number) = (shared.role.name(), shared.number);
            let text = format!("{role} {number}, process {process}, ended by itself: {status}");
            tally.unexpected.push(text);
        }
    }
    if shared.role == Role::Redriver && status.success() {
        state.wanted = false;
    }
}
