//! One connection through a proxy, as its test sees it.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::flow::{Direction, Flow};
use super::pump::End;
use super::trap::Trap;
use super::{Shared, lock};

/// One connection through a [`Proxy`](super::Proxy), for what must not happen to all of them. Where it has
/// ended meanwhile, nothing happens.
#[derive(Debug)]
pub struct Link {
    pub(super) id: u64,
    pub(super) shared: Arc<Shared>,
}

impl Link {
    /// Its place among all connections the proxy has accepted, counted from 0.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Changes what happens to the bytes of one direction, until that is changed for it or for all.
    /// `false` if it has ended.
    pub fn set(&self, direction: Direction, flow: Flow) -> bool {
        let links = lock(&self.shared.links);
        let live = links.live.get(&self.id);
        live.map(|live| live.flows.set(direction, flow)).is_some()
    }

    /// Changes what happens to the bytes of both directions. `false` if it has ended.
    pub fn set_both(&self, flow: Flow) -> bool {
        self.set(Direction::ToServer, flow) && self.set(Direction::ToClient, flow)
    }

    /// Catches what comes here alone.
    pub fn trap(&self, trap: Trap) {
        self.shared.traps.arm(trap, Some(self.id));
    }

    /// Cuts it with an RST to both sides; `false` if it has ended before.
    pub async fn reset(&self) -> bool {
        self.end(End::Reset).await
    }

    /// Closes it with a FIN to both sides; `false` if it has ended before.
    pub async fn close(&self) -> bool {
        self.end(End::Close).await
    }

    async fn end(&self, end: End) -> bool {
        let live = lock(&self.shared.links).live.remove(&self.id);
        match live {
            Some(live) => {
                live.end(end).await;
                true
            }
            None => false,
        }
    }
}

/// What switches both directions.
#[derive(Debug)]
pub(super) struct Flows([watch::Sender<Flow>; 2]);

impl Flows {
    pub(super) fn new(flows: [Flow; 2]) -> Self {
        Self(flows.map(watch::Sender::new))
    }

    pub(super) fn set(&self, direction: Direction, flow: Flow) {
        self.0[direction as usize].send_replace(flow);
    }

    pub(super) fn subscribe(&self) -> [watch::Receiver<Flow>; 2] {
        [self.0[0].subscribe(), self.0[1].subscribe()]
    }
}

/// A connection that has not ended.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) end: oneshot::Sender<End>,
    pub(super) task: JoinHandle<()>,
    pub(super) flows: Flows,
}

impl Live {
    /// Ends it, and waits until it has.
    pub(super) async fn end(self, end: End) {
        let _ = self.end.send(end);
        let _ = self.task.await;
    }
}
