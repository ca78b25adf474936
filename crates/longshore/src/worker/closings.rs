//! Partitions that are being given up.

use std::sync::Arc;

use longshore_core::chaos::Flaw;
use tokio::sync::oneshot;

use super::holding::Holding;

/// Partitions of one driver that are being given up, until nothing of them is unsettled.
#[derive(Default)]
pub(super) struct Closings(Vec<Closing>);

struct Closing {
    holding: Arc<Holding>,
    done: Option<oneshot::Sender<()>>,
    /// Its source has handed over everything.
    handed_over: bool,
}

impl Closings {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `done` is told once nothing of it is unsettled.
    pub(super) fn add(&mut self, holding: Arc<Holding>, done: Option<oneshot::Sender<()>>) {
        self.0.push(Closing {
            holding,
            done,
            handed_over: false,
        });
    }

    pub(super) fn handed_over(&mut self, holding: &Arc<Holding>) {
        for closing in &mut self.0 {
            closing.handed_over |= Arc::ptr_eq(&closing.holding, holding);
        }
    }

    /// Lets go what nothing is left of. Of one that has lost its source nothing can be settled any
    /// more, but something may still be `running`.
    pub(super) fn let_go(&mut self, running: impl Fn(&Arc<Holding>) -> bool) {
        self.0.retain_mut(|closing| {
            let holding = &closing.holding;
            let over = match holding.is_gone() {
                true => !running(holding),
                false if Flaw::ReleaseWhileRunning.on() => closing.handed_over,
                false => closing.handed_over && holding.desk.unsettled() == 0,
            };
            if over {
                holding.drop_source();
                closing.done.take().map(|done| done.send(()));
            }
            !over
        });
    }
}

impl Drop for Closings {
    fn drop(&mut self) {
        for closing in &self.0 {
            closing.holding.drop_source();
        }
    }
}
