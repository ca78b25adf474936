//! A consumer as cases use it: takes one delivery at a time and settles by hand.

use std::{collections::VecDeque, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use longshore_core::{
    Declare, Delivery, ErrorKind, Limits, Part, Receipt, Result, Settlement, Settler, Source,
    Subscription, Topology, Transport, Unsettled, Verdict,
};

use super::{
    must::Must,
    stage::{PATIENCE, Stage},
};

/// A source and its settler. Dropping it is the death of its process.
pub(crate) struct Consumer {
    pub(crate) source: Box<dyn Source>,
    pub(crate) settler: Arc<dyn Settler>,
}

/// A subscription to the normal lane as the suite makes it.
pub(crate) fn subscription(stage: &Stage, topology: &Topology) -> Subscription {
    Subscription {
        topology: Arc::new(topology.clone()),
        declare: Declare::Create,
        part: Part::Lane(0),
        ownership: None,
        prefetch: 64,
        lock: stage.lock(),
        suspect_returns: 2,
        limits: Limits::default(),
    }
}

impl Consumer {
    /// Consumes the normal lane over the first transport.
    pub(crate) async fn of(stage: &Stage, topology: &Topology) -> Self {
        Self::on(&*stage.transport, subscription(stage, topology)).await
    }

    /// The same with another prefetch.
    pub(crate) async fn with_prefetch(stage: &Stage, topology: &Topology, prefetch: u16) -> Self {
        let subscription = Subscription {
            prefetch,
            ..subscription(stage, topology)
        };
        Self::on(&*stage.transport, subscription).await
    }

    /// Consumes over this transport.
    pub(crate) async fn on(transport: &dyn Transport, subscription: Subscription) -> Self {
        let (source, settler) = transport.subscribe(subscription).await.must("subscribing");
        Self { source, settler }
    }

    /// 1 to `max` deliveries; none once it was stopped and is drained; `None` where nothing comes.
    pub(crate) async fn batch(
        &mut self,
        max: usize,
        within: Duration,
    ) -> Option<Result<Vec<Delivery>>> {
        // A source that is always ready must not keep the time limit of the case from being seen.
        tokio::task::consume_budget().await;
        let mut into = Vec::new();
        let received = poll_fn(|cx| self.source.poll_receive(cx, max, &mut into));
        let count = match tokio::time::timeout(within, received).await.ok()? {
            Ok(count) => count,
            Err(error) => return Some(Err(error)),
        };
        assert_eq!(count, into.len(), "the answer is the number of deliveries");
        assert!(
            count <= max,
            "{count} deliveries where {max} were asked for"
        );
        Some(Ok(into))
    }

    /// One delivery if it comes in time.
    pub(crate) async fn maybe(&mut self, within: Duration) -> Option<Delivery> {
        let mut batch = self.batch(1, within).await?.must("receiving");
        Some(
            batch
                .pop()
                .must("a delivery of a source that was not stopped"),
        )
    }

    /// The next delivery, which has to come.
    pub(crate) async fn next(&mut self) -> Delivery {
        self.maybe(PATIENCE).await.must("the next delivery")
    }

    /// The delivery with this body; completes what comes before it.
    pub(crate) async fn until(&mut self, body: &str) -> Delivery {
        loop {
            let delivery = self.next().await;
            if delivery.envelope.body == body {
                return delivery;
            }
            self.complete(delivery).await;
        }
    }

    /// Exactly so many deliveries, unsettled.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let missing = count - taken.len();
            let batch = self.batch(missing, PATIENCE).await;
            let batch = batch
                .must(format!("{missing} more deliveries of {count}"))
                .must("receiving");
            assert!(!batch.is_empty(), "the source ended by itself");
            taken.extend(batch);
        }
        taken
    }

    /// Ends the case if anything comes.
    pub(crate) async fn silent(&mut self, within: Duration) {
        if let Some(delivery) = self.maybe(within).await {
            panic!("this must not come: {delivery:?}");
        }
    }

    /// Completes what has to be completable.
    pub(crate) async fn complete(&self, delivery: Delivery) {
        self.complete_all(vec![delivery]).await;
    }

    /// Completes a batch.
    pub(crate) async fn complete_all(&self, deliveries: Vec<Delivery>) {
        let batch = deliveries
            .iter()
            .map(|d| Settlement::complete(d.receipt, d.attempt));
        let answers = self.settler.settle(batch.collect()).await;
        assert_eq!(
            answers.len(),
            deliveries.len(),
            "one answer for each settlement"
        );
        for answer in answers {
            answer.must("completing");
        }
    }

    /// Settles one delivery.
    pub(crate) async fn settle(
        &self,
        delivery: Delivery,
        verdict: Verdict,
    ) -> Result<(), Unsettled> {
        self.settle_with(settlement(delivery, verdict)).await
    }

    /// Settles one delivery with everything that belongs to it.
    pub(crate) async fn settle_with(&self, settlement: Settlement) -> Result<(), Unsettled> {
        let mut answers = self.settler.settle(vec![settlement]).await;
        assert_eq!(answers.len(), 1, "one answer for each settlement");
        answers.pop().must("an answer")
    }

    /// Settles for another attempt.
    pub(crate) async fn retry(&self, delivery: Delivery, after: Duration) {
        self.settle(delivery, Verdict::Retry { after })
            .await
            .must("retrying");
    }

    /// Gives back what never started.
    pub(crate) async fn release(&self, delivery: Delivery) {
        self.settle(
            delivery,
            Verdict::Release {
                after: Duration::ZERO,
            },
        )
        .await
        .must("releasing");
    }

    /// Notes that a delivery starts, as a worker does for suspects.
    pub(crate) async fn start(&self, delivery: &Delivery) {
        if delivery.suspect {
            let mut answers = self
                .settler
                .start(&[(delivery.receipt, delivery.attempt)])
                .await;
            assert_eq!(answers.len(), 1, "one answer for each suspect");
            answers.pop().must("an answer").must("noting a start");
        }
    }

    /// Notes that a delivery starts with this number, as a worker does for another start in place.
    pub(crate) async fn start_again(&self, delivery: &Delivery, attempt: u32) -> Result<()> {
        let mut answers = self.settler.start(&[(delivery.receipt, attempt)]).await;
        assert_eq!(answers.len(), 1, "one answer for each start");
        answers.pop().must("an answer")
    }

    /// Takes and completes until every one of `wanted` has come; answers how often each came.
    pub(crate) async fn drain(&mut self, count: usize) -> Vec<Delivery> {
        let mut done = VecDeque::new();
        while done.len() < count {
            let batch = self.batch(count - done.len(), PATIENCE).await;
            let batch = batch
                .must(format!("{} of {count}", count - done.len()))
                .must("receiving");
            assert!(!batch.is_empty(), "the source ended by itself");
            let receipts = batch
                .iter()
                .map(|d| Settlement::complete(d.receipt, d.attempt));
            for answer in self.settler.settle(receipts.collect()).await {
                answer.must("completing");
            }
            done.extend(batch);
        }
        done.into()
    }

    /// Ends the case unless the source ends by itself and reports exactly these locks as lost.
    pub(crate) async fn loses(&mut self, held: &[Receipt]) {
        let mut lost = Vec::new();
        loop {
            let batch = self.batch(64, PATIENCE).await;
            lost.extend(self.lost().await);
            match batch.must("the end of a source without its ownership") {
                Ok(late) if late.is_empty() => break,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        let mut wanted = held.to_vec();
        lost.retain(|receipt| wanted.contains(receipt));
        wanted.sort();
        lost.sort();
        assert_eq!(lost, wanted, "each lock that was lost is reported once");
    }

    /// Locks lost so far, without waiting.
    pub(crate) async fn lost(&mut self) -> Vec<Receipt> {
        let mut lost = Vec::new();
        poll_fn(|cx| {
            while self.source.poll_lost(cx, &mut lost).is_ready() {}
            Poll::Ready(())
        })
        .await;
        lost
    }

    /// Stops it and gives back what had arrived, as a worker does whose time is up.
    pub(crate) async fn stop_then_release(&mut self) {
        self.source.stop();
        loop {
            let left = self
                .batch(64, PATIENCE)
                .await
                .must("the end of a stopped source");
            let left = left.must("receiving");
            if left.is_empty() {
                return;
            }
            for delivery in left {
                self.release(delivery).await;
            }
        }
    }

    /// Stops it and ends the case unless it ends without giving out any more.
    pub(crate) async fn stop_empty(&mut self) {
        self.source.stop();
        self.ended().await;
    }

    /// Ends the case unless the source says that nothing more will come.
    pub(crate) async fn ended(&mut self) {
        let last = self
            .batch(64, PATIENCE)
            .await
            .must("the end of a stopped source");
        assert!(last.must("receiving").is_empty(), "a stopped source ends");
    }
}

/// A settlement with this verdict.
pub(crate) fn settlement(delivery: Delivery, verdict: Verdict) -> Settlement {
    match verdict {
        Verdict::Complete => Settlement::complete(delivery.receipt, delivery.attempt),
        other => Settlement::new(delivery.receipt, delivery.attempt, other, delivery.envelope),
    }
}

/// Ends the case unless a settlement was refused as stale and not given back.
#[track_caller]
pub(crate) fn assert_stale(answer: Result<(), Unsettled>) {
    match answer {
        Ok(()) => panic!("a settlement without a lock was accepted"),
        Err(unsettled) => {
            assert_eq!(
                unsettled.error.kind(),
                ErrorKind::Stale,
                "{}",
                unsettled.error
            );
            assert!(
                unsettled.settlement.is_none(),
                "a stale settlement must not be tried again"
            );
        }
    }
}
