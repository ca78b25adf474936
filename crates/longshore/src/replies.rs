//! Where replies come in, and who gets them.

use std::{
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use longshore_core::{Envelope, ReplyAddress, Result, Source, Text, Transport, chaos::Flaw};
use metrics::Counter;
use tokio::{
    sync::mpsc::{self, OwnedPermit, Receiver, Sender},
    task::AbortHandle,
    time::Sleep,
};

use crate::{
    Fault, Request, RequestError,
    answer::{NUMBER, REPLY},
    codec, telemetry,
};

/// Replies to one request that wait to be taken.
const WAITING: usize = 1024;
/// Replies taken from the transport at a time.
const BATCH: usize = 64;

/// Where the replies to one client come in: one inbox, opened with the first request.
pub(crate) struct Inbox {
    desk: Arc<Desk>,
    opening: tokio::sync::Mutex<()>,
}

/// Who waits for which reply.
struct Desk {
    state: Mutex<State>,
    /// Late, repeated, or never asked for.
    dropped: Counter,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    serial: u64,
    asked: BTreeMap<Text, Asked>,
}

struct Open {
    address: ReplyAddress,
    serial: u64,
    task: AbortHandle,
}

/// One request that is out.
struct Asked {
    /// Of the inbox its replies come to.
    serial: u64,
    /// The number of the last reply; parts are handed on only where they are wanted.
    number: u64,
    parts: Option<Sender<Event>>,
    end: OwnedPermit<Event>,
}

enum Event {
    Part(Envelope),
    Last(Envelope),
    Fault(Envelope),
    Lost(RequestError),
}

impl Inbox {
    pub(crate) fn new(system: &'static str) -> Self {
        Self {
            desk: Arc::new(Desk {
                state: Mutex::default(),
                dropped: telemetry::dropped_replies(system),
            }),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Expects replies under this correlation id, and answers where they have to be sent.
    pub(crate) async fn expect<R: Request>(
        &self,
        transport: &Arc<dyn Transport>,
        correlation_id: Text,
        timeout: Duration,
        parts: bool,
    ) -> Result<(ReplyAddress, Replies<R>)> {
        let (sender, receiver) = mpsc::channel(WAITING + 1);
        let end = sender.clone().try_reserve_owned();
        let end = end.expect("a new channel has room: this is a bug in longshore");
        // Held until the request is registered, so that the inbox cannot be replaced meanwhile.
        let _opening = self.opening.lock().await;
        if self.desk.state().open.is_none() {
            let (address, source) = transport.inbox().await?;
            self.open(address, source);
        }
        let mut state = self.desk.state();
        let Some(open) = &state.open else {
            // It ended at once.
            return Err(longshore_core::Error::new(
                longshore_core::ErrorKind::Unavailable,
                "the inbox for replies was lost as it was opened; ask again",
            ));
        };
        let (address, serial) = (open.address.clone(), open.serial);
        let asked = Asked {
            serial,
            number: 0,
            parts: parts.then_some(sender),
            end,
        };
        state.asked.insert(correlation_id.clone(), asked);
        drop(state);
        let replies = Replies {
            receiver,
            timeout,
            timer: Box::pin(tokio::time::sleep(timeout)),
            ended: false,
            _waiting: Waiting {
                desk: Arc::clone(&self.desk),
                correlation_id,
            },
            answers: PhantomData,
        };
        Ok((address, replies))
    }

    fn open(&self, address: ReplyAddress, source: Box<dyn Source>) {
        let mut state = self.desk.state();
        state.serial += 1;
        let serial = state.serial;
        let task = tokio::spawn(read(Arc::clone(&self.desk), source, serial)).abort_handle();
        state.open = Some(Open {
            address,
            serial,
            task,
        });
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let open = self.desk.state().open.take();
        if let Some(open) = open {
            open.task.abort();
        }
    }
}

/// Hands on what arrives until the source ends, and then tells everybody who still waited.
async fn read(desk: Arc<Desk>, mut source: Box<dyn Source>, serial: u64) {
    let mut batch = Vec::new();
    while let Ok(1..) = poll_fn(|cx| source.poll_receive(cx, BATCH, &mut batch)).await {
        for delivery in batch.drain(..) {
            match delivery.defect {
                None => desk.deliver(delivery.envelope, serial),
                Some(_) => desk.dropped.increment(1),
            }
        }
    }
    desk.lose(serial);
}

impl Desk {
    fn deliver(&self, envelope: Envelope, serial: u64) {
        if self.hand_on(envelope, serial).is_none() {
            self.dropped.increment(1);
        }
    }

    /// `None`: nobody waits for it.
    fn hand_on(&self, envelope: Envelope, serial: u64) -> Option<()> {
        let mut id = envelope.correlation_id.clone()?;
        let mut state = self.state();
        if Flaw::ReplyToAnother.on() {
            id = state.asked.keys().next()?.clone();
        }
        let asked = state.asked.get_mut(&id)?;
        if asked.serial != serial {
            return None;
        }
        // A service that is not ours says neither.
        let number = envelope.header(NUMBER).and_then(|n| n.parse().ok());
        if number.is_some_and(|number| number <= asked.number) {
            return None;
        }
        asked.number = number.unwrap_or(asked.number);
        let event = match envelope.header(REPLY) {
            Some("part") => {
                let Some(parts) = &asked.parts else {
                    return Some(());
                };
                if parts.try_send(Event::Part(envelope)).is_ok() {
                    return Some(());
                }
                Event::Lost(RequestError::Overrun)
            }
            Some("fault") => Event::Fault(envelope),
            _ => Event::Last(envelope),
        };
        let asked = state.asked.remove(&id)?;
        drop(state);
        asked.end.send(event);
        Some(())
    }

    /// The inbox is gone, and with it perhaps what was in it.
    fn lose(&self, serial: u64) {
        let mut state = self.state();
        if state
            .open
            .as_ref()
            .is_some_and(|open| open.serial == serial)
        {
            state.open = None;
        }
        let asked = std::mem::take(&mut state.asked);
        let (lost, others): (BTreeMap<_, _>, _) = asked
            .into_iter()
            .partition(|(_, asked)| asked.serial == serial);
        state.asked = others;
        drop(state);
        for asked in lost.into_values() {
            asked.end.send(Event::Lost(RequestError::ConnectionLost));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replies to one request, the last one last. Dropping it drops what still comes.
pub struct Replies<R> {
    receiver: Receiver<Event>,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    ended: bool,
    _waiting: Waiting,
    answers: PhantomData<fn() -> R>,
}

struct Waiting {
    desk: Arc<Desk>,
    correlation_id: Text,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.desk.state().asked.remove(&self.correlation_id);
    }
}

impl<R: Request> Replies<R> {
    /// The next reply; `None` after the last. An error ends the stream too.
    pub async fn next(&mut self) -> Option<Result<R::Reply, RequestError>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The last reply.
    pub(crate) async fn last(mut self) -> Result<R::Reply, RequestError> {
        let mut last = Err(RequestError::ConnectionLost);
        while let Some(reply) = self.next().await {
            last = reply;
        }
        last
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<R::Reply, RequestError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = match self.receiver.poll_recv(cx) {
            Poll::Ready(event) => event,
            Poll::Pending if self.timer.as_mut().poll(cx).is_ready() => {
                Some(Event::Lost(RequestError::TimedOut(self.timeout)))
            }
            Poll::Pending => return Poll::Pending,
        };
        let answer = match event {
            Some(Event::Part(envelope)) => {
                let next = tokio::time::Instant::now() + self.timeout;
                self.timer.as_mut().reset(next);
                let part = decode::<R>(&envelope);
                self.ended = part.is_err();
                return Poll::Ready(Some(part));
            }
            Some(Event::Last(envelope)) => decode::<R>(&envelope),
            Some(Event::Fault(envelope)) => Err(match Fault::read(&envelope.body) {
                Ok(fault) => RequestError::Fault(fault),
                Err(why) => RequestError::Undecodable(why),
            }),
            Some(Event::Lost(error)) => Err(error),
            None => Err(RequestError::ConnectionLost),
        };
        self.ended = true;
        Poll::Ready(Some(answer))
    }
}

fn decode<R: Request>(envelope: &Envelope) -> Result<R::Reply, RequestError> {
    codec::decode(envelope, "reply to this request").map_err(RequestError::Undecodable)
}

impl<R: Request> Stream for Replies<R> {
    type Item = Result<R::Reply, RequestError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(cx)
    }
}

impl<R> fmt::Debug for Replies<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies")
            .field("correlation_id", &self._waiting.correlation_id)
            .field("ended", &self.ended)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use longshore_core::ConnectOptions;
    use longshore_memory::MemoryBroker;

    use super::*;
    use crate::Message;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Ask;
    impl Message for Ask {
        const TYPE: &'static str = "ask";
    }
    impl Request for Ask {
        type Reply = u8;
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_leaves_nothing_behind_and_all_share_one_address() {
        let transport = MemoryBroker::new(&ConnectOptions::default()).open();
        let inbox = Inbox::new("memory");
        let mut expected = Vec::new();
        for id in ["a", "b"] {
            let wait = Duration::from_secs(60);
            let asked = inbox.expect::<Ask>(&transport, id.into(), wait, false);
            expected.push(asked.await.expect("an inbox"));
        }
        assert_eq!(expected[0].0, expected[1].0);
        assert_eq!(inbox.desk.state().asked.len(), 2);
        drop(expected);
        assert!(inbox.desk.state().asked.is_empty());
    }
}
