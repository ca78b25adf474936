//! Moves what plain clients publish to a queue with sessions into its partitions.

use std::{
    collections::{BTreeSet, VecDeque},
    future::poll_fn,
    sync::Arc,
    time::Duration,
};

use longshore_core::{
    Delivery, Destination, Error, ErrorKind, Outgoing, Part, Result, Settlement, Source,
    Subscribed, Text, Topology, Verdict,
    chaos::{CrashPoint, Flaw},
    partition_of, printable,
};

use tokio_util::sync::CancellationToken;

use super::{SharedRef, conclude, desk::Desk, intake::CLOSING, settle::settle, trouble::Of};

/// How many are moved at a time.
const BATCH: usize = 64;
/// Pauses while a partition takes nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Moves messages until it has to end: each is published to the partition of its key and completed
/// once that is confirmed, in the order of its key. One without a key becomes a dead letter.
pub(super) async fn run(
    shared: &SharedRef,
    topology: &Topology,
    leave: &CancellationToken,
    (mut source, settler): Subscribed,
) -> Result<()> {
    let desk = Arc::new(Desk::new(settler));
    let mut moving = Moving {
        shared,
        topology,
        desk: &desk,
        line: VecDeque::new(),
    };
    let ended = loop {
        let mut batch = Vec::new();
        let received = tokio::select! {
            biased;
            () = leave.cancelled() => break Ok(()),
            received = poll_fn(|cx| source.poll_receive(cx, BATCH, &mut batch)) => received,
        };
        match received {
            Ok(n) if n > 0 => moving.line.extend(batch),
            Ok(_) => break Err(Error::new(ErrorKind::Unavailable, "the source ended")),
            Err(error) => break Err(error),
        }
        moving.all(leave).await;
    };
    shared.trouble.set(Of::Forwarder, None);
    moving.give_back(source.as_mut()).await;
    ended
}

struct Moving<'a> {
    shared: &'a SharedRef,
    topology: &'a Topology,
    desk: &'a Arc<Desk>,
    /// What has not been moved yet.
    line: VecDeque<Delivery>,
}

impl Moving<'_> {
    /// Moves everything, for as long as that takes and it has not to end.
    async fn all(&mut self, leave: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !self.line.is_empty() && !leave.is_cancelled() {
            match self.round().await {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) => {
                    let why: Text = printable(&error.to_string(), 256).into();
                    tracing::warn!(queue = %self.topology.queue, %why, "cannot move messages into their partitions");
                    self.shared.trouble.set(Of::Forwarder, Some(why));
                    let _ = tokio::time::timeout(pause, leave.cancelled()).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        self.shared.trouble.set(Of::Forwarder, None);
    }

    /// Moves the first message of every key. The next of a key is moved only then: of two on their
    /// way at a time the first alone could fail.
    async fn round(&mut self) -> Result<()> {
        let wall = self.shared.client.clock().wall();
        let mut keys = BTreeSet::new();
        let (mut batch, mut first, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        for mut delivery in std::mem::take(&mut self.line) {
            let key = delivery.envelope.key.clone().unwrap_or_default();
            if key.is_empty() {
                let missing = || Box::new(conclude::key_missing());
                delivery.defect.get_or_insert_with(missing);
            }
            let refused = conclude::refusal(&mut delivery, u32::MAX, wall);
            if let Some(verdict) = refused {
                let (receipt, envelope) = (delivery.receipt, delivery.envelope);
                settled.push(Settlement::new(receipt, 0, verdict, envelope));
            } else if keys.insert(key.clone()) {
                batch.push(self.outgoing(&delivery, &key));
                first.push(delivery);
            } else {
                self.line.push_back(delivery);
            }
        }
        let answers = self.shared.client.send_batch(batch).await;
        let mut failed = None;
        for (delivery, answer) in first.into_iter().zip(answers).rev() {
            match answer {
                Ok(_) => {
                    CrashPoint::Forwarded.reached();
                    settled.push(Settlement::complete(delivery.receipt, 0));
                }
                Err(_) if Flaw::ForwardUnconfirmed.on() => {
                    settled.push(Settlement::complete(delivery.receipt, 0));
                }
                Err(error) => {
                    failed = Some(error);
                    self.line.push_front(delivery);
                }
            }
        }
        self.desk.took(settled.len());
        settle(Arc::clone(self.shared), Arc::clone(self.desk), settled).await;
        failed.map_or(Ok(()), Err)
    }

    fn outgoing(&self, delivery: &Delivery, key: &Text) -> Outgoing {
        let Topology {
            queue,
            partitions,
            dedup_window,
            ..
        } = self.topology;
        let mut envelope = delivery.envelope.clone();
        if envelope.id.is_empty() {
            // Drawn, not made from the content: equal messages are different ones to a dedup window and
            // to the state of their session.
            envelope.id = self.shared.client.ids().text();
        }
        let part = Part::Partition {
            index: partition_of(key, *partitions),
            of: *partitions,
        };
        Outgoing {
            to: Destination::Queue(queue.clone(), part),
            // A request that is repeated is answered again, and for that it has to arrive.
            dedup_window: dedup_window.filter(|_| envelope.reply_to.is_none()),
            envelope,
            delay: Duration::ZERO,
        }
    }

    /// Hands back what was not moved.
    async fn give_back(mut self, source: &mut dyn Source) {
        source.stop();
        let drained = async {
            let mut rest = Vec::new();
            while let Ok(1..) = poll_fn(|cx| source.poll_receive(cx, usize::MAX, &mut rest)).await {
                self.line.extend(rest.drain(..));
            }
        };
        let _ = tokio::time::timeout(CLOSING, drained).await;
        let after = Duration::ZERO;
        let release = |d: Delivery| {
            Settlement::new(d.receipt, d.attempt, Verdict::Release { after }, d.envelope)
        };
        let batch: Vec<_> = self.line.drain(..).map(release).collect();
        self.desk.took(batch.len());
        settle(Arc::clone(self.shared), Arc::clone(self.desk), batch).await;
    }
}
