//! Where a case of a store plays: two processes, a scope of its own, and short words for its calls.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use longshore_core::{
    ErrorKind, Mark, MarkChange, MarkWrite, Result, Session, StateWrite, Store, Take, Text,
};
use tokio::time::Instant;

use crate::conformance::must::Must;

/// A lease or window that is not meant to end within its case.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// One that is.
pub(crate) const SHORT: Duration = Duration::from_millis(600);
/// How much later than due an end may show, with room for a slow machine.
pub(crate) const SLACK: Duration = Duration::from_secs(10);

/// What a case has at hand.
pub(crate) struct StoreStage {
    pub(crate) one: Arc<dyn Store>,
    pub(crate) other: Arc<dyn Store>,
    pub(crate) scope: Text,
}

/// Asks for an id, for a first start and a long lease.
pub(crate) fn take(name: &str, owner: &str) -> Take {
    Take {
        name: name.into(),
        owner: owner.into(),
        attempt: 1,
        lease: LONG,
        sole: false,
    }
}

/// What `owner` writes to a mark.
pub(crate) fn mark(name: &str, owner: &str, change: MarkChange) -> MarkWrite {
    MarkWrite {
        name: name.into(),
        owner: owner.into(),
        change,
    }
}

/// Completed, for a long window.
pub(crate) fn done(reply: Option<&'static [u8]>) -> MarkChange {
    MarkChange::Done {
        window: LONG,
        reply: reply.map(Bytes::from_static),
    }
}

/// Waiting for this attempt, for long.
pub(crate) fn waiting(attempt: u32) -> MarkChange {
    MarkChange::Waiting {
        attempt,
        at_most: LONG,
    }
}

impl StoreStage {
    /// Asks for one id in the first process.
    pub(crate) async fn take(&self, take: Take) -> Mark {
        let mut marks = self.take_all(&[take]).await;
        marks.remove(0)
    }

    /// Asks for ids in the first process.
    pub(crate) async fn take_all(&self, takes: &[Take]) -> Vec<Mark> {
        let marks = self.one.take(&self.scope, takes).await.must("taking ids");
        assert_eq!(marks.len(), takes.len(), "one answer each");
        marks
    }

    /// Asks for one id in the second process.
    pub(crate) async fn take_elsewhere(&self, take: Take) -> Mark {
        let marks = self.other.take(&self.scope, &[take]).await;
        let mut marks = marks.must("taking an id");
        assert_eq!(marks.len(), 1, "one answer each");
        marks.remove(0)
    }

    /// Ends the case unless the id is the asker's now.
    #[track_caller]
    pub(crate) fn assert_taken(mark: &Mark) {
        assert_eq!(*mark, Mark::Taken);
    }

    /// Ends the case unless another has the id, for at most this long.
    pub(crate) fn assert_held(mark: &Mark, longest: Duration) {
        match mark {
            // Brokers round to what their clocks have.
            Mark::Held { at_most } => assert!(
                *at_most <= longest + Duration::from_millis(2) && !at_most.is_zero(),
                "held for {at_most:?}, not at most {longest:?}"
            ),
            other => panic!("{other:?}, not held"),
        }
    }

    /// Asks again and again until the id is the asker's; answers how long that took. Another owner
    /// may be asked for each time.
    pub(crate) async fn until_taken(&self, name: &str, owner: &str, longest: Duration) -> Duration {
        let from = Instant::now();
        loop {
            match self.take_elsewhere(take(name, owner)).await {
                Mark::Taken => return from.elapsed(),
                other => assert!(from.elapsed() < longest + SLACK, "still {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Writes to one mark in the first process.
    pub(crate) async fn write(&self, mark: MarkWrite) {
        self.write_all(&[mark]).await;
    }

    /// Writes to marks in the first process.
    pub(crate) async fn write_all(&self, marks: &[MarkWrite]) {
        let written = self.one.write(&self.scope, marks).await;
        written.must("writing marks");
    }

    /// Renews leases in the first process.
    pub(crate) async fn renew(&self, leases: &[(&str, &str)], lease: Duration) -> Vec<bool> {
        let leases: Vec<(Text, Text)> = leases
            .iter()
            .map(|&(name, owner)| (name.into(), owner.into()))
            .collect();
        let renewed = self.one.renew(&self.scope, &leases, lease).await;
        let renewed = renewed.must("renewing leases");
        assert_eq!(renewed.len(), leases.len(), "one answer each");
        renewed
    }

    /// Writes the state of a session in the first process.
    pub(crate) async fn save(
        &self,
        key: &str,
        message: &str,
        token: u64,
        value: Option<&[u8]>,
    ) -> Result<()> {
        let write = StateWrite {
            key: key.into(),
            message: message.into(),
            token,
            value: value.map(Bytes::copy_from_slice),
        };
        self.one.save(&self.scope, &write).await
    }

    /// The session as a message of it sees it in the second process.
    pub(crate) async fn load(&self, key: &str, message: &str) -> Session {
        let (key, message) = (key.into(), message.into());
        let loaded = self.other.load(&self.scope, &key, &message).await;
        loaded.must("loading a session")
    }

    /// Its state alone.
    pub(crate) async fn state(&self, key: &str, message: &str) -> Option<Vec<u8>> {
        self.load(key, message).await.state.map(Vec::from)
    }

    /// A partition was granted with this token.
    pub(crate) async fn grant(&self, token: u64) {
        let granted = self.one.grant(&self.scope, token).await;
        granted.must("granting");
    }
}

/// Ends the case unless a write under an old token was refused.
#[track_caller]
pub(crate) fn assert_fenced(answer: Result<()>) {
    let error = answer.err().must("a write under an old token");
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
}
