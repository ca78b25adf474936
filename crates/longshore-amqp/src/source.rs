//! Arrivals of one part, as the framework sees them.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use longshore_core::{Delivery, Error, ErrorKind, Receipt, Result, Source, Text};
use tokio::{
    sync::{oneshot, watch},
    task::AbortHandle,
};

use crate::{
    feed::Feed,
    intake::{Intake, Slot},
    intent::Intent,
    link::State,
    plan::Plan,
    publisher::Publisher,
};

/// A lane, and the quarantine while no other lane of this client consumes that.
pub(crate) struct AmqpSource {
    intake: Arc<Intake>,
    intent: watch::Sender<Intent>,
    feeds: [AbortHandle; 2],
}

impl AmqpSource {
    /// Begins to consume, and waits for the first try. `declared` is the connection the topology was
    /// just declared on.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] where the broker refuses to let us read. Whatever else fails is tried
    /// again for as long as the source lives, and so is a refusal that comes later.
    pub(crate) async fn start(
        plan: &Arc<Plan>,
        link: &watch::Receiver<State>,
        copies: &Arc<Publisher>,
        prefetch: u16,
        declared: u64,
    ) -> Result<(Self, Arc<Intake>)> {
        let intake = Arc::new(Intake::behind(plan.gate.clone()));
        let stop = false;
        let intent = watch::Sender::new(Intent { stop, prefetch });
        let mut tries = Vec::new();
        let mut feed = |slot| {
            let (first, told) = oneshot::channel();
            tries.push(told);
            let feed = Feed {
                slot,
                plan: plan.clone(),
                intake: intake.clone(),
                link: link.clone(),
                copies: copies.clone(),
                intent: intent.subscribe(),
                declared,
                first: Some(first),
            };
            tokio::spawn(feed.run()).abort_handle()
        };
        let feeds = [feed(Slot::Lane), feed(Slot::Quarantine)];
        let source = Self {
            intake: intake.clone(),
            intent,
            feeds,
        };
        for told in tries {
            if let Ok(Err(error)) = told.await
                && error.kind() == ErrorKind::Denied
            {
                return Err(error);
            }
        }
        Ok((source, intake))
    }
}

impl Source for AmqpSource {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        self.intake.poll_take(cx, max, into).map(Ok)
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>, into: &mut Vec<Receipt>) -> Poll<()> {
        self.intake.poll_lost(cx, into)
    }

    fn stop(&mut self) {
        self.intake.stop();
        self.intent.send_modify(|intent| intent.stop = true);
    }

    fn set_prefetch(&mut self, prefetch: u16) -> Result<()> {
        check_prefetch(prefetch)?;
        self.intent.send_modify(|intent| intent.prefetch = prefetch);
        Ok(())
    }

    fn trouble(&self) -> Option<Text> {
        self.intake.trouble()
    }
}

/// 0 would mean "as many as there are" to the broker.
///
/// # Errors
/// [`ErrorKind::Invalid`].
pub(crate) fn check_prefetch(prefetch: u16) -> Result<()> {
    match prefetch {
        0 => Err(Error::new(
            ErrorKind::Invalid,
            "the prefetch must be at least 1",
        )),
        _ => Ok(()),
    }
}

/// What is unsettled goes back to the queue, as if the process had died.
impl Drop for AmqpSource {
    fn drop(&mut self) {
        for feed in &self.feeds {
            feed.abort();
        }
        self.intake.close_all();
    }
}
