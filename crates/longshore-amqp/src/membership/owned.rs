//! What one membership owns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_core::{Claim, Ownership};

use tokio::sync::watch;

use crate::{
    link::State,
    tenure::{Losses, Tenure},
};

/// Ends with its membership.
#[derive(Default)]
pub(super) struct Owned {
    tenures: Mutex<Vec<Arc<Tenure>>>,
    pub(super) losses: Arc<Losses>,
}

impl Owned {
    pub(super) fn add(&self, tenure: Arc<Tenure>) {
        let mut tenures = self.tenures();
        tenures.retain(|tenure| !tenure.has_ended());
        tenures.push(tenure);
    }

    pub(super) fn remove(&self, ownership: Ownership) -> Option<Arc<Tenure>> {
        let mut tenures = self.tenures();
        let at = tenures.iter().position(|t| t.ownership == ownership)?;
        Some(tenures.swap_remove(at))
    }

    pub(super) fn has(&self, claim: Claim) -> bool {
        let tenures = self.tenures();
        let mut live = tenures.iter().filter(|tenure| !tenure.is_over());
        live.any(|tenure| tenure.ownership.claim == claim)
    }

    /// Loses what was owned on connections before the one that is up now.
    pub(super) fn lose_dead(&self, link: &watch::Receiver<State>) {
        let up = match &*link.borrow() {
            State::Up(session) if session.is_live() => Some(session.epoch),
            _ => None,
        };
        for tenure in &*self.tenures() {
            if up != Some(tenure.session.epoch) {
                tenure.lose();
            }
        }
    }

    pub(super) fn abandon(&self) {
        for tenure in self.tenures().drain(..) {
            tenure.abandon();
        }
    }

    fn tenures(&self) -> MutexGuard<'_, Vec<Arc<Tenure>>> {
        self.tenures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
