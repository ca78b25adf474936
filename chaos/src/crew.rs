//! The processes of a run: started, watched, started again.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use longshore_testing::history::Recorder;
use tokio::sync::Notify;

use crate::{
    Failure,
    slot::{Role, Shared, Slot, Tally},
};

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
            let armed = slot.is_armed();
            if armed {
                slot.kill()?;
            }
        }
        Ok(())
    }
}
