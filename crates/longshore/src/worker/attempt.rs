//! One start of a handler, from its first poll to its end.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use longshore_core::{
    ErrorKind, Outcome, Receipt, Result, StateWrite,
    chaos::{CrashPoint, Flaw},
};
use tokio::time::Sleep;
use tracing::Span;

use super::{
    conclude::{Ending, panic_text},
    dedup::Dedup,
    desk::Desk,
};
use crate::{
    Context, answer::Answer, handler_error::Next, outbox::Outbox, route::Answered, router::Timing,
};

/// One start of a handler, from its first poll to its end: within its time limit, with panics
/// caught, and with what it published sent before it counts as done.
pub(super) struct Attempt {
    about: Option<About>,
    step: Step,
    limit: Duration,
    blocking: bool,
    /// Set when the handler is first found waiting.
    timer: Option<Pin<Box<Sleep>>>,
    /// The limit has passed for a handler that cannot be dropped.
    late: bool,
    span: Span,
}

/// What is needed to settle it.
pub(super) struct About {
    pub(super) cx: Context,
    pub(super) receipt: Receipt,
    pub(super) desk: Arc<Desk>,
    /// What it wrote to the state of its session, if it succeeds.
    pub(super) state: Option<StateWrite>,
    /// Where the queue has a dedup window.
    pub(super) dedup: Option<Arc<Dedup>>,
    /// On the client's monotonic clock.
    pub(super) begun: Duration,
}

impl About {
    /// What becomes of the state of its session once it is settled.
    fn state_of(&self, outbox: &mut Outbox) -> Option<StateWrite> {
        let value = outbox.state.take()?;
        Some(StateWrite {
            key: self.cx.envelope().key.clone()?,
            message: self.cx.state_message(),
            token: self.desk.tenure.as_ref()?.token,
            value,
        })
    }

    /// Sends what the handler published and answers who asked, in this order: once the answer is
    /// noted as given the handler does not run again.
    fn send(&self, mut outbox: Outbox) -> impl Future<Output = Result<()>> + Send + use<> {
        let client = self.cx.client().clone();
        let (dedup, receipt) = (self.dedup.clone(), self.receipt);
        let state = self.state.clone();
        let scope = self.desk.tenure.as_ref().map(|tenure| tenure.scope.clone());
        let answer = outbox.answer.take().and_then(|answer| {
            let stored = dedup.is_some().then(|| answer.store());
            let out = answer.to(self.cx.envelope(), self.cx.attempt())?;
            Some((out, stored))
        });
        async move {
            outbox.send(&client).await?;
            let Some((out, stored)) = answer else {
                return Ok(());
            };
            if let (Some(dedup), Some(stored)) = (dedup, stored) {
                dedup.note_reply(&receipt, stored, scope.zip(state)).await?;
            }
            client.answer(out).await?;
            CrashPoint::ReplySent.reached();
            Ok(())
        }
    }
}

enum Step {
    Handling(BoxFuture<'static, Answered>),
    Publishing(BoxFuture<'static, Result<()>>),
    Ended,
}

impl Attempt {
    pub(super) fn new(
        about: About,
        handling: BoxFuture<'static, Answered>,
        timing: Timing,
        limit: Duration,
        span: Span,
    ) -> Self {
        Self {
            about: Some(about),
            step: Step::Handling(handling),
            limit,
            blocking: timing.blocking,
            timer: None,
            late: false,
            span,
        }
    }

    pub(super) fn receipt(&self) -> Option<Receipt> {
        self.about.as_ref().map(|about| about.receipt)
    }

    pub(super) fn context(&self) -> Option<&Context> {
        self.about.as_ref().map(|about| &about.cx)
    }

    /// Ends it where it stands. `None` for a handler on the blocking pool: it cannot be dropped, so
    /// its lock is left to lapse.
    pub(super) fn abandon(mut self) -> Option<(About, Ending)> {
        let about = self.about.take()?;
        about.cx.cancel();
        if self.is_on_a_thread() {
            about.cx.seal();
            return None;
        }
        self.finish(&about);
        Some((about, Ending::Stopped))
    }

    /// A handler on the blocking pool runs on whatever happens here.
    fn is_on_a_thread(&self) -> bool {
        self.blocking && matches!(self.step, Step::Handling(_))
    }

    /// Drops the handler and seals its context.
    fn finish(&mut self, about: &About) {
        // It has its ending already, so a panic while it is dropped changes nothing.
        let _ = self.drop_step();
        about.cx.seal();
    }

    fn drop_step(&mut self) -> Result<(), String> {
        let step = std::mem::replace(&mut self.step, Step::Ended);
        guarded(&self.span, || drop(step))
    }

    fn poll_step(&mut self, task: &mut TaskContext<'_>) -> Poll<Ending> {
        loop {
            match &mut self.step {
                Step::Handling(handling) => {
                    let polled = guarded(&self.span, || handling.as_mut().poll(task).map(heard));
                    let (ending, fault) = match polled {
                        Ok(Poll::Pending) => return Poll::Pending,
                        Ok(Poll::Ready(heard)) => heard,
                        Err(text) => return Poll::Ready(Ending::Panicked(text)),
                    };
                    if let Err(text) = self.drop_step() {
                        return Poll::Ready(Ending::Panicked(text));
                    }
                    let Some(about) = &mut self.about else {
                        return Poll::Pending;
                    };
                    let cx = &about.cx;
                    let mut outbox = cx.seal();
                    if !matches!(ending, Ending::Answered(Outcome::Complete)) {
                        outbox = Outbox::default();
                        outbox.answer = fault.filter(|_| cx.envelope().reply_to.is_some());
                    }
                    about.state = about.state_of(&mut outbox);
                    if outbox.is_empty() {
                        return Poll::Ready(ending);
                    }
                    self.step = Step::Publishing(Box::pin(about.send(outbox)));
                }
                Step::Publishing(publishing) => {
                    let span = &self.span;
                    let sending = span.in_scope(|| publishing.as_mut().poll(task));
                    return sending.map(|sent| match sent {
                        Ok(()) => Ending::Answered(Outcome::Complete),
                        Err(error) => Ending::Failed(
                            match error.kind() {
                                ErrorKind::Invalid => Next::Never,
                                _ => Next::Backoff,
                            },
                            format!("what the handler published was not accepted: {error}"),
                        ),
                    });
                }
                Step::Ended => return Poll::Pending,
            }
        }
    }

    /// Whether the time limit ends it now.
    fn poll_limit(&mut self, task: &mut TaskContext<'_>) -> Poll<()> {
        if self.late {
            return Poll::Pending;
        }
        let limit = self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if timer.as_mut().poll(task).is_pending() {
            return Poll::Pending;
        }
        if !self.is_on_a_thread() {
            return Poll::Ready(());
        }
        self.late = true;
        if let Some(about) = &self.about {
            about.cx.cancel();
        }
        Poll::Pending
    }
}

impl Future for Attempt {
    type Output = (About, Ending);

    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let ending = match this.poll_step(task) {
            Poll::Ready(ending) => ending,
            Poll::Pending => match this.poll_limit(task) {
                Poll::Ready(()) => Ending::TimeLimit(this.limit),
                Poll::Pending => return Poll::Pending,
            },
        };
        let Some(about) = this.about.take() else {
            return Poll::Pending;
        };
        if matches!(ending, Ending::TimeLimit(_)) {
            about.cx.cancel();
        }
        this.finish(&about);
        Poll::Ready((about, ending))
    }
}

/// How the handler ended, and the fault it raised. Asks its error, which is code of the user's.
fn heard(answered: Answered) -> (Ending, Option<Answer>) {
    let error = answered.as_ref().err();
    let fault = error.and_then(|error| error.raised().map(Answer::fault));
    (Ending::of(answered), fault)
}

/// Runs code of the user's: what it panics with is the handler's ending and nobody else's.
fn guarded<T>(span: &Span, run: impl FnOnce() -> T) -> Result<T, String> {
    if Flaw::PanicEscapes.on() {
        return Ok(span.in_scope(run));
    }
    catch_unwind(AssertUnwindSafe(|| span.in_scope(run))).map_err(|panic| {
        let text = panic_text(&*panic);
        // The payload is the user's as well, and so is what dropping it does.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            std::mem::forget(again);
        }
        text
    })
}
