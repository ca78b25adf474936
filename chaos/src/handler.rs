//! What handlers do: what their message says, with everything noted.

use std::{sync::Arc, time::Duration};

use longshore::{Context, HandlerError, Queue, Reply};
use longshore_testing::{
    history::{Effect, Ending, Event, Fate, Recorder},
    ledger,
};
use serde::{Deserialize, Serialize};

use crate::{
    item::{Item, Question, Work},
    plan::Plan,
    raw::Forger,
};

/// What handlers need.
#[derive(Debug)]
pub(crate) struct Hands {
    /// What all agree on.
    pub(crate) plan: Plan,
    /// What happens.
    pub(crate) history: Arc<Recorder>,
    /// Who sends false replies.
    pub(crate) forger: Forger,
    /// Who decides what took effect.
    pub(crate) ledger: ledger::Client,
    /// Where handlers publish on.
    pub(crate) dedup: Queue,
}

/// What the handlers of a session leave for the next one.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct State {
    /// The number of the last one that succeeded.
    last: u64,
}

impl Hands {
    /// Handles a message.
    ///
    /// # Errors
    /// Where its fate says so.
    pub(crate) async fn handle(
        self: Arc<Self>,
        work: Work,
        cx: Context,
    ) -> Result<(), HandlerError> {
        let item = Item::new(&self.plan, work.number);
        let end = self.begin(&item, &cx)?;
        if item.key.is_some() {
            let state: Option<State> = cx.session().state().await?;
            self.history.add(Event::Saw {
                message: item.number,
                last: state.map(|state| state.last),
            })?;
        }
        self.live(&item, &cx, &end).await?;
        if item.key.is_some() {
            cx.session().set_state(&State { last: item.number })?;
        }
        let next = item.follow_up(&self.plan);
        let how = match next {
            Some(_) => Ending::SucceededIfSent,
            None => Ending::Succeeded,
        };
        if let Some(next) = next {
            self.history.add(Event::Publish(next.publish()))?;
            let body: Work = next.read().ok_or("a follow-up can be read")?;
            let mut publish = cx.publish(&self.dedup, &body);
            for (name, value) in next.headers() {
                publish = publish.header(name, value);
            }
            publish.await?;
        }
        end.how(how)?;
        Ok(())
    }

    /// Handles a request.
    ///
    /// # Errors
    /// Where its fate says so.
    pub(crate) async fn answer(
        self: Arc<Self>,
        question: Question,
        cx: Context,
    ) -> Result<Reply<crate::item::Reply>, HandlerError> {
        let item = Item::new(&self.plan, question.number);
        let end = self.begin(&item, &cx)?;
        if question.about.is_multiple_of(16) {
            self.forger.forge(cx.envelope()).await;
        }
        self.live(&item, &cx, &end).await?;
        end.how(Ending::SucceededIfSent)?;
        Ok(Reply(question.reply()))
    }

    fn begin(self: &Arc<Self>, item: &Item, cx: &Context) -> std::io::Result<End> {
        self.history.add(Event::Start {
            message: item.number,
            attempt: cx.attempt(),
            token: cx.session().token(),
            lane: cx.envelope().priority.as_ref().map(ToString::to_string),
            intact: item.is_intact(cx.envelope()),
        })?;
        Ok(End {
            hands: Arc::clone(self),
            message: item.number,
            attempt: cx.attempt(),
            noted: false.into(),
        })
    }

    /// What shares this thread stands still: locks, and whatever else wants to run.
    fn block(&self, busy: Duration) -> std::io::Result<()> {
        let fault = || "block".to_owned();
        self.history.add(Event::FaultBegins { fault: fault() })?;
        std::thread::sleep(busy);
        self.history.add(Event::FaultEnds { fault: fault() })?;
        Ok(())
    }

    /// Up to its effect.
    async fn live(&self, item: &Item, cx: &Context, end: &End) -> Result<(), HandlerError> {
        match self.plan.blocks && item.busy.as_millis() == u128::from(self.plan.slow.1) {
            true => self.block(item.busy)?,
            false => tokio::time::sleep(item.busy).await,
        }
        let complaint = || "x".repeat(usize::try_from(self.plan.complaint).unwrap_or_default());
        match item.fate {
            Fate::Fail(times) if cx.attempt() > times => {}
            Fate::Fail(_) | Fate::FailAlways => {
                end.how(Ending::Failed)?;
                return Err(complaint().into());
            }
            Fate::Refuse => {
                end.how(Ending::Refused)?;
                return Err(HandlerError::permanent(complaint()));
            }
            Fate::Panic => panic!("{}", complaint()),
            Fate::Hang => std::future::pending().await,
            Fate::Abort => {
                let victim = std::process::id();
                self.history.add(Event::Killed { victim })?;
                die(item.number)
            }
            _ => {}
        }
        let token = cx.session().token();
        let effect = self.ledger.effect(item.number, cx.key(), token).await?;
        if effect == Effect::Stale {
            end.how(Ending::Failed)?;
            return Err("the effect is that of a former owner".into());
        }
        Ok(())
    }
}

/// Takes the process with it in one of the ways a handler can.
fn die(number: u64) -> ! {
    match number / 10 % 3 {
        0 => drop(Vec::<u8>::with_capacity(1 << 46)),
        1 => drop(deeper(number)),
        _ => {}
    }
    std::process::abort()
}

/// Ends with the stack.
fn deeper(number: u64) -> u64 {
    let pad = std::hint::black_box([number; 1_000]);
    match pad[0] {
        0 => 0,
        number => deeper(std::hint::black_box(number)).wrapping_add(pad[999]),
    }
}

/// Notes the end of a start also where its future is dropped.
struct End {
    hands: Arc<Hands>,
    message: u64,
    attempt: u32,
    noted: std::sync::atomic::AtomicBool,
}

impl End {
    fn how(&self, how: Ending) -> std::io::Result<()> {
        if self.noted.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Ok(());
        }
        self.hands.history.add(Event::End {
            message: self.message,
            attempt: self.attempt,
            how,
        })
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let how = match std::thread::panicking() {
            true => Ending::Panicked,
            false => Ending::Cancelled,
        };
        let _ = self.how(how);
    }
}
