//! One start of a handler, from its first poll to its end.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use longshore_core::{Outcome, Receipt, Result};
use tokio::time::Sleep;
use tracing::Span;

use super::{
    conclude::{Ending, panic_text},
    intake::Desk,
};
use crate::{Context, HandlerError, route::Answered, router::Timing};

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
    /// On the client's monotonic clock.
    pub(super) begun: Duration,
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
        if self.blocking {
            return None;
        }
        self.finish(&about);
        Some((about, Ending::Stopped))
    }

    /// Drops the handler and seals its context. A panic while dropping is the handler's, not ours.
    fn finish(&mut self, about: &About) {
        let step = std::mem::replace(&mut self.step, Step::Ended);
        let span = &self.span;
        let _ = catch_unwind(AssertUnwindSafe(|| span.in_scope(|| drop(step))));
        about.cx.seal();
    }

    fn poll_step(&mut self, task: &mut TaskContext<'_>) -> Poll<Ending> {
        loop {
            match &mut self.step {
                Step::Handling(handling) => {
                    let span = &self.span;
                    let polled = catch_unwind(AssertUnwindSafe(|| {
                        span.in_scope(|| handling.as_mut().poll(task))
                    }));
                    let answered = match polled {
                        Err(panic) => return Poll::Ready(Ending::Panicked(panic_text(&*panic))),
                        Ok(Poll::Pending) => return Poll::Pending,
                        Ok(Poll::Ready(answered)) => answered,
                    };
                    let Some(about) = &self.about else {
                        return Poll::Pending;
                    };
                    let outbox = about.cx.seal();
                    if outbox.is_empty() || !matches!(answered, Ok(Outcome::Complete)) {
                        return Poll::Ready(Ending::Answered(answered));
                    }
                    let client = about.cx.client().clone();
                    self.step =
                        Step::Publishing(Box::pin(async move { outbox.send(&client).await }));
                }
                Step::Publishing(publishing) => {
                    return publishing.as_mut().poll(task).map(|sent| {
                        Ending::Answered(match sent {
                            Ok(()) => Ok(Outcome::Complete),
                            Err(error) => Err(HandlerError::from(format!(
                                "what the handler published was not accepted: {error}"
                            ))),
                        })
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
        if !self.blocking {
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
