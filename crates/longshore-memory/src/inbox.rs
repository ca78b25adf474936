//! Arrivals at one address for replies.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use longshore_core::{
    Delivery, Error, ErrorKind, Part, Receipt, ReplyAddress, Result, Source, Standing, Text,
};

use crate::{reply, state::Shared};

/// Takes what has arrived straight from the shared state. The address lives as long as it does.
pub(crate) struct InboxSource {
    shared: Arc<Shared>,
    address: ReplyAddress,
    scope: u64,
    taken: u64,
}

impl InboxSource {
    /// Opens an address of a transport.
    pub(crate) fn open(shared: &Arc<Shared>, client: u64) -> (ReplyAddress, Box<dyn Source>) {
        let address = reply::address(&*shared.ids);
        let scope = shared.change(|state, _| {
            state.inboxes.open(&address, client);
            state.serial()
        });
        let source = Self {
            shared: shared.clone(),
            address: address.clone(),
            scope,
            taken: 0,
        };
        (address, Box::new(source))
    }
}

impl Source for InboxSource {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        let Self {
            shared,
            address,
            scope,
            taken,
        } = self;
        shared.change(|state, _| {
            let Some(inbox) = state.inboxes.get(address) else {
                return Poll::Ready(Ok(0));
            };
            let count = inbox.replies.len().min(max.max(1));
            if count > 0 {
                into.extend(inbox.replies.drain(..count).map(|envelope| {
                    *taken += 1;
                    delivery(envelope, *scope, *taken)
                }));
                return Poll::Ready(Ok(count));
            }
            match inbox.ended {
                Some(why) => Poll::Ready(Err(ended(why))),
                None if inbox.stopped => Poll::Ready(Ok(0)),
                None => {
                    inbox.waiting = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    }

    /// There are no locks to lose.
    fn poll_lost(&mut self, _: &mut Context<'_>, _: &mut Vec<Receipt>) -> Poll<()> {
        Poll::Pending
    }

    fn stop(&mut self) {
        self.shared.change(|state, wakers| {
            if let Some(inbox) = state.inboxes.get(&self.address) {
                inbox.stopped = true;
                wakers.extend(inbox.waiting.take());
            }
        });
    }

    fn set_prefetch(&mut self, _: u16) -> Result<()> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "replies are not settled, so they have no prefetch",
        ))
    }

    fn trouble(&self) -> Option<Text> {
        None
    }
}

impl Drop for InboxSource {
    fn drop(&mut self) {
        self.shared
            .change(|state, _| state.inboxes.close(&self.address));
    }
}

fn delivery(envelope: longshore_core::Envelope, scope: u64, tag: u64) -> Delivery {
    Delivery {
        envelope,
        receipt: Receipt {
            scope,
            tag: [tag, 0],
        },
        part: Part::Lane(0),
        attempt: 1,
        suspect: false,
        alone: false,
        standing: Standing::Unknown,
        defect: None,
    }
}

fn ended(why: ErrorKind) -> Error {
    let text = match why {
        ErrorKind::Closed => "the client was closed",
        _ => "the connection was cut, and replies may have been lost with it",
    };
    Error::new(why, text)
}
