//! Replies: a queue of this connection alone, gone with it, and what arrives there.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, task::AtomicWaker};
use lapin::{
    Channel, Consumer,
    message::Delivery as Message,
    options::{BasicConsumeOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use longshore_core::{
    Clock, Delivery, Error, ErrorKind, Limits, Part, Receipt, ReplyAddress, Result, Source, Text,
};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{interval, timeout},
};

use crate::{
    convert::{Native, arrived},
    error::closed,
    headers,
    held::hang_up,
    link::State,
    objects::answered,
    reply_rule::ReplyRule,
    session::{SETUP, Session},
};

/// Replies that wait to be taken at most, here and in the queue; beyond that they are dropped.
const MOST: usize = 10_000;
/// Their bodies, together.
const ROOM: usize = 64 * 1024 * 1024;
/// How often the connection is looked at, in case nobody told of its end.
const LOOK: Duration = Duration::from_secs(1);
/// What a reply may be at most: whoever asked for a large one knows what to expect.
fn limits() -> Limits {
    Limits {
        body: Limits::HARD_BODY,
        ..Limits::default()
    }
}

/// Arrivals at one reply address, which lives as long as this. Nothing is settled: what the broker
/// has sent it has forgotten.
pub(crate) struct Inbox {
    mail: Arc<Mail>,
    open: Arc<Open>,
    task: AbortHandle,
}

/// A channel that is closed in so many words.
struct Open(Channel);

impl Drop for Open {
    fn drop(&mut self) {
        hang_up(&self.0);
    }
}

/// Between the task that reads and whoever takes.
#[derive(Default)]
struct Mail {
    inner: Mutex<Inner>,
    arrival: AtomicWaker,
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<Delivery>,
    bytes: usize,
    dropped: u64,
    end: Option<End>,
}

/// Why nothing more will come.
#[derive(Debug, Clone, Copy)]
enum End {
    Stopped,
    Lost,
    Closed,
}

/// What it takes to read a reply.
struct Reader {
    session: Arc<Session>,
    link: watch::Receiver<State>,
    replies: ReplyRule,
    clock: Arc<dyn Clock>,
    mail: Arc<Mail>,
}

impl Inbox {
    /// Makes a queue that the broker names and begins to read it.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] where this user may not, [`ErrorKind::Unavailable`].
    pub(crate) async fn open(
        session: Arc<Session>,
        link: watch::Receiver<State>,
        replies: ReplyRule,
        clock: Arc<dyn Clock>,
    ) -> Result<(ReplyAddress, Self)> {
        let channel = session.channel().await?;
        session.watch.limit(channel.id(), limits());
        let open = Arc::new(Open(channel));
        let (address, consumer) = consume(&open.0).await?;
        let mail = Arc::new(Mail::default());
        let reader = Reader {
            session,
            link,
            replies,
            clock,
            mail: mail.clone(),
        };
        let task = tokio::spawn(reader.run(consumer)).abort_handle();
        Ok((address, Self { mail, open, task }))
    }
}

async fn consume(channel: &Channel) -> Result<(ReplyAddress, Consumer)> {
    let doing = "making a queue for replies";
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    for (name, most) in [("x-max-length", MOST), ("x-max-length-bytes", ROOM)] {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        arguments.insert(name.into(), AMQPValue::LongLongInt(most));
    }
    let declared = channel.queue_declare(ShortString::default(), options, arguments);
    let queue = answered(doing, "", declared).await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    let consumer = channel.basic_consume(
        queue.name().clone(),
        "longshore-replies".into(),
        options,
        FieldTable::default(),
    );
    let consumer = answered(doing, queue.name().as_str(), consumer).await?;
    Ok((ReplyAddress::checked(queue.name().as_str()), consumer))
}

impl Reader {
    /// Reads until the connection or the queue is gone.
    async fn run(self, mut consumer: Consumer) {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                biased;
                message = consumer.next() => match message {
                    Some(Ok(message)) => self.arrive(message),
                    Some(Err(_)) | None => break,
                },
                () = self.session.watch.ended() => break,
                _ = look.tick() => {
                    if !self.session.is_live() {
                        break;
                    }
                }
            }
        }
        let mail = self.mail.clone();
        mail.end(self.why().await);
    }

    fn arrive(&self, message: Message) {
        let tag = message.delivery_tag;
        let marker = self.session.watch.marker();
        let (properties, body) = (message.properties, message.data);
        let now = self.clock.wall();
        let mut arrived = arrived(properties, body, marker, None, &self.replies, now);
        // Here alone they are not a stranger's words about our affairs: they are what was asked for.
        if let Some(native) = Native::of(&arrived.envelope)
            && native.blanked.is_none()
        {
            let table = native.properties.headers().iter().flatten();
            let table = table.filter(|(name, _)| headers::is_replys(name.as_str()));
            let read = table.map(|(name, value)| {
                let value = headers::readable(value);
                (name.as_str().into(), value.into())
            });
            arrived.envelope.headers.extend(read);
        }
        let receipt = Receipt {
            scope: self.session.epoch,
            tag: [tag, 0],
        };
        let delivery = arrived.delivery(receipt, Part::Lane(0), &limits());
        self.mail.push(delivery);
    }

    /// Whether this client ended it, or lost it.
    async fn why(mut self) -> End {
        if self.session.is_live() {
            return End::Lost;
        }
        let epoch = self.session.epoch;
        let over = self.link.wait_for(|state| match state {
            State::Up(session) => session.epoch != epoch,
            _ => true,
        });
        match timeout(SETUP, over).await {
            Ok(Ok(state)) if matches!(&*state, State::Closed) => End::Closed,
            Ok(Err(_)) => End::Closed,
            _ => End::Lost,
        }
    }
}

impl Mail {
    fn push(&self, delivery: Delivery) {
        let mut inner = self.lock();
        let bytes = delivery.envelope.body.len();
        if inner.ready.len() >= MOST || inner.bytes + bytes > ROOM {
            inner.dropped += 1;
            if inner.dropped == 1 {
                tracing::warn!("replies arrive faster than they are taken; some are dropped");
            }
            return;
        }
        inner.bytes += bytes;
        inner.ready.push_back(delivery);
        drop(inner);
        self.arrival.wake();
    }

    fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.arrival.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take(&mut self, max: usize, into: &mut Vec<Delivery>) -> usize {
        let count = self.ready.len().min(max);
        for delivery in self.ready.drain(..count) {
            self.bytes -= delivery.envelope.body.len();
            into.push(delivery);
        }
        if self.dropped > 0 && self.ready.is_empty() {
            let dropped = std::mem::take(&mut self.dropped);
            tracing::warn!(dropped, "replies were dropped");
        }
        count
    }
}

impl Source for Inbox {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        self.mail.arrival.register(cx.waker());
        let mut inner = self.mail.lock();
        match (inner.take(max, into), inner.end) {
            (0, None) if max > 0 => Poll::Pending,
            (0, Some(End::Lost)) => Poll::Ready(Err(Error::new(
                ErrorKind::Unavailable,
                "the connection was lost, and perhaps replies with it",
            ))),
            (0, Some(End::Closed)) => Poll::Ready(Err(closed())),
            (count, _) => Poll::Ready(Ok(count)),
        }
    }

    /// There are no locks to lose.
    fn poll_lost(&mut self, _: &mut Context<'_>, _: &mut Vec<Receipt>) -> Poll<()> {
        Poll::Pending
    }

    fn stop(&mut self) {
        self.task.abort();
        hang_up(&self.open.0);
        self.mail.end(End::Stopped);
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

impl Drop for Inbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}
