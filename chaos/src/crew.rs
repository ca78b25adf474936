//! The processes of a run: started, watched, started again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use longshore_core::chaos::CrashPoint;
use longshore_testing::history::{Event, Recorder};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{sync::Notify, task::JoinHandle};

use crate::{Failure, slot};

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
        let task = tokio::spawn(slot::keep(Arc::clone(&shared)));
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

/// All processes of a run.
#[derive(Debug)]
pub(crate) struct Crew {
    /// Those that handle messages.
    pub(crate) workers: Vec<Slot>,
    /// Those that publish them.
    pub(crate) publishers: Vec<Slot>,
    /// The one that decides what took effect. Nothing is done to it.
    pub(crate) ledger: Slot,
    /// The one that sends dead letters back, while it does.
    pub(crate) redriver: Slot,
    tally: Arc<Mutex<Tally>>,
}

impl Crew {
    /// All of them, none running.
    pub(crate) fn new(
        folder: &Path,
        history: &Arc<Recorder>,
        workers: usize,
        publishers: usize,
        may_abort: bool,
    ) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let slot = |role, number| {
            Slot::start(Shared {
                role,
                number,
                folder: folder.to_owned(),
                history: Arc::clone(history),
                tally: Arc::clone(&tally),
                state: Mutex::default(),
                changed: Notify::new(),
                may_abort,
            })
        };
        Self {
            workers: (0..workers).map(|n| slot(Role::Worker, n)).collect(),
            publishers: (0..publishers).map(|n| slot(Role::Publisher, n)).collect(),
            ledger: slot(Role::Ledger, 0),
            redriver: slot(Role::Redriver, 0),
            tally,
        }
    }

    /// What became of them so far.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// No process dies by itself any more: those that would are killed now.
    pub(crate) fn disarm(&self) -> Result<(), Failure> {
        let all = self.workers.iter().chain(&self.publishers);
        for slot in all.chain([&self.redriver]) {
            slot.arm(None);
            let armed = slot.shared.state().crash.is_some();
            if armed {
                slot.kill()?;
            }
        }
        Ok(())
    }
}
