//! Keeps one process running.

use std::{
    fs::OpenOptions,
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use longshore_core::chaos::{CRASH_VARIABLE, CrashPoint};
use longshore_testing::history::{Event, Recorder};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    sync::Notify,
    task::JoinHandle,
};

use crate::{Failure, random::Random, worker::TERMINATED};

/// What a process of a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Handles messages.
    Worker,
    /// Publishes them.
    Publisher,
    /// Decides what took effect.
    Ledger,
    /// Sends dead letters back.
    Redriver,
}

impl Role {
    /// The sub-command.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Publisher => "publisher",
            Self::Ledger => "ledger",
            Self::Redriver => "redriver",
        }
    }
}

/// What became of the processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// How often a process was kept from running.
    pub(crate) stalls: u64,
    /// Faults struck that the broker or the network felt.
    pub(crate) strikes: u64,
    /// Killed from outside.
    pub(crate) kills: u64,
    /// Died at a crash point.
    pub(crate) crashes: u64,
    /// Died of a message that is meant to do that.
    pub(crate) aborts: u64,
    /// Ended after SIGTERM.
    pub(crate) stops: u64,
    /// How a process ended that had no reason to.
    pub(crate) unexpected: Vec<String>,
}

/// A process that is kept running.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What the one who keeps it running knows.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) role: Role,
    pub(crate) number: usize,
    pub(crate) folder: PathBuf,
    pub(crate) history: Arc<Recorder>,
    pub(crate) tally: Arc<Mutex<Tally>>,
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Notify,
    /// Whether a message may take its process with it.
    pub(crate) may_abort: bool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) wanted: bool,
    pub(crate) process: Option<u32>,
    /// It was killed, and is not dead yet.
    pub(crate) doomed: bool,
    /// It was asked to stop.
    pub(crate) asked: bool,
    pub(crate) boots: u64,
    /// Where the next one dies, and at the latest after how many passings.
    pub(crate) next_crash: Option<(CrashPoint, u64)>,
    /// Where the present one dies.
    pub(crate) crash: Option<CrashPoint>,
}

impl Slot {
    pub(crate) fn start(shared: Shared) -> Self {
        let shared = Arc::new(shared);
        let task = tokio::spawn(keep(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// The process, while there is one.
    pub(crate) fn process(&self) -> Option<u32> {
        self.shared.state().process
    }

    /// What its processes write to their standard error.
    pub(crate) fn log(&self) -> PathBuf {
        self.shared.log()
    }

    /// Starts it, and again whenever it ends.
    pub(crate) fn want(&self) {
        self.shared.state().wanted = true;
        self.shared.changed.notify_one();
    }

    /// Where its processes die from the next one on, and at the latest after how many passings.
    pub(crate) fn arm(&self, crash: Option<(CrashPoint, u64)>) {
        self.shared.state().next_crash = crash;
    }

    /// `kill -9`; it is started again.
    pub(crate) fn kill(&self) -> Result<(), Failure> {
        let mut state = self.shared.state();
        let Some(victim) = state.process else {
            return Ok(());
        };
        self.shared.history.add(Event::Killed { victim })?;
        state.doomed = true;
        signal(victim, Signal::KILL)?;
        Ok(())
    }

    /// Sends a signal that does not end it.
    pub(crate) fn signal(&self, which: Signal) -> Result<(), Failure> {
        match self.process() {
            Some(process) => Ok(signal(process, which)?),
            None => Ok(()),
        }
    }

    /// Asks it to stop; it is started again.
    pub(crate) fn ask_to_stop(&self) -> Result<(), Failure> {
        let mut state = self.shared.state();
        state.asked = true;
        match state.process {
            Some(process) => Ok(signal(process, Signal::TERM)?),
            None => Ok(()),
        }
    }

    /// Asks it to stop, for good, and waits until it has.
    pub(crate) async fn stop(&self, within: Duration) -> Result<(), Failure> {
        self.shared.state().wanted = false;
        self.ask_to_stop()?;
        self.gone(within).await
    }

    /// Waits until there is no process.
    pub(crate) async fn gone(&self, within: Duration) -> Result<(), Failure> {
        let begun = tokio::time::Instant::now();
        while self.process().is_some() {
            if begun.elapsed() > within {
                let (role, number) = (self.shared.role.name(), self.shared.number);
                return Err(format!("{role} {number} did not end within {within:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Slot {
    /// Whether the present process dies at a crash point.
    pub(crate) fn is_armed(&self) -> bool {
        self.shared.state().crash.is_some()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    pub(crate) fn log(&self) -> PathBuf {
        let name = format!("{}-{}.log", self.role.name(), self.number);
        self.folder.join(name)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn signal(process: u32, signal: Signal) -> io::Result<()> {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    let process = process.ok_or_else(|| io::Error::other("not the number of a process"))?;
    match kill_process(process, signal) {
        // It has just died by itself.
        Err(rustix::io::Errno::SRCH) => Ok(()),
        sent => Ok(sent?),
    }
}

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
