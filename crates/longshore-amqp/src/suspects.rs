//! Messages that came back too often without a word.
//!
//! Each may have killed the process that held it. They go to the quarantine, where every message has
//! a consumer to itself: nobody else is in the buffer when one of them kills the process again.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use lapin::types::ShortString;
use longshore_core::{
    ErrorKind, Result,
    chaos::{CrashPoint, Flaw},
};
use tokio::{sync::watch, time::sleep};

use crate::{
    convert::{Arrived, Native, short},
    copy::again,
    held::{End, Held},
    link::{State, live},
    plan::Plan,
    prepared::is_missing,
    publisher::{Letter, Publisher},
    session::SETUP,
    topology::declare,
};

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Whether this delivery of a lane must not reach a handler there.
pub(crate) fn is_suspect(plan: &Plan, arrived: &Arrived) -> bool {
    // What the guard has blanked no handler will see, and there is nothing to copy.
    let blanked = Native::of(&arrived.envelope).is_some_and(|native| native.blanked.is_some());
    plan.suspect_returns > 0 && arrived.returns >= plan.suspect_returns && !blanked
}

/// What it takes to move suspects of one feed.
pub(crate) struct Diversion {
    pub(crate) plan: Arc<Plan>,
    pub(crate) copies: Arc<Publisher>,
    pub(crate) link: watch::Receiver<State>,
}

impl Diversion {
    /// Moves a suspect with its returns counted as starts: copy, confirm, acknowledge. Tries until
    /// it succeeds or the channel is lost, and then the message is somebody else's to move.
    pub(crate) fn start(
        mut self,
        held: Arc<Held>,
        tag: u64,
        arrived: &Arrived,
    ) -> BoxFuture<'static, ()> {
        let letter = self.letter(arrived);
        async move {
            let how = match letter {
                Ok(letter) => self.publish(&held, letter).await,
                Err(_) => Some(End::Reject),
            };
            let Some(how) = how else { return };
            CrashPoint::SuspectCopied.reached();
            if held.begin(tag).is_ok() {
                let _ = held.end(&[tag], how).await;
            }
        }
        .boxed()
    }

    fn letter(&self, arrived: &Arrived) -> Result<Letter> {
        // Returns beyond the threshold were deaths while this very move was under way: nothing
        // starts in the lane at the threshold, so they cost no attempt and both copies agree.
        let returns = arrived.returns.min(self.plan.suspect_returns);
        let used = arrived.attempts.saturating_add(returns);
        let to = match Flaw::SuspectsAreDead.on() {
            true => &self.plan.dead,
            false => &self.plan.quarantine,
        };
        Ok(Letter {
            exchange: ShortString::default(),
            routing_key: short("queue name", to)?,
            mandatory: true,
            properties: again(&arrived.envelope, used)?,
            body: arrived.envelope.body.clone(),
        })
    }

    async fn publish(&mut self, held: &Held, letter: Letter) -> Option<End> {
        let queue = &self.plan.quarantine;
        let mut wait = SHORTEST;
        while held.is_live() {
            match self.copies.publish(vec![letter.clone()]).await.pop() {
                Some(Ok(())) => return Some(End::Acknowledge),
                // Too heavy for a copy: the broker moves it whole.
                Some(Err(error)) if error.kind() == ErrorKind::Invalid => return Some(End::Reject),
                Some(Err(error)) => {
                    tracing::warn!(queue, %error, "a suspect cannot be moved yet");
                    if is_missing(&error)
                        && let Ok(session) = live(&mut self.link, SETUP).await
                    {
                        // Whatever stands in the way shows again at the next try.
                        let _ = declare(&session, &self.plan.topology, self.plan.declare).await;
                    }
                }
                None => return None,
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST);
        }
        None
    }
}
