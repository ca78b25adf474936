//! Reads the dead letters of a queue, oldest first, without taking any away.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use futures_util::{FutureExt, StreamExt};
use lapin::{
    BasicProperties, Channel, Consumer,
    message::Delivery as Message,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::{FieldTable, ShortString},
};
use longshore_core::{Declare, Envelope, Error, ErrorKind, Limits, Name, Result, Text};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    convert::{Native, arrived, short},
    error::{late, told},
    guard::FRAME_MAX,
    headers, names,
    objects::{answered, declare_queue},
    reply_rule::ReplyRule,
    session::{Dialer, SETUP, Session},
};

/// Somebody who holds up to 1,000 dead letters of one queue, alone among all clients, on a
/// connection of its own that may read what no worker may.
///
/// Whatever is not removed goes back in order when it ends. That needs one consumer that takes as
/// many as it can: what is returned goes behind what earlier readers returned, and only the
/// deliveries of one consumer are returned in their order.
pub(crate) struct Reader {
    session: Session,
    channel: Channel,
    consumer: Consumer,
    queue: ShortString,
    /// What there was to begin with.
    ready: u64,
    read: u64,
    removed: u64,
    names: BTreeSet<Text>,
}

/// One dead letter under lock.
pub(crate) struct Found {
    pub(crate) tag: u64,
    /// Its name: the message's id and a hash, and a number among those that are alike.
    pub(crate) id: Text,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

/// So much of a body goes into a name, beside its length.
const NAMED: usize = 64 * 1024;

/// Held at a time.
const MOST: u16 = 1000;
/// Bodies that wait here to be looked at, together.
const ROOM: usize = 64 * 1024 * 1024;
/// How long another reader is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the broker may take to hand out what it holds for us. RabbitMQ 3.10 takes 0.7 s of a free
/// core to write out one header table nested 20,000 deep that it has put `x-death` into.
const SLOW: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
const GLANCE: Duration = Duration::from_millis(5);

/// What an operator may read: whatever lapin can parse without harm.
const LIMITS: Limits = Limits {
    body: Limits::HARD_BODY,
    headers: 16 * 1024,
    header_bytes: FRAME_MAX,
    header_depth: 64,
    name_bytes: 255,
};

impl Reader {
    /// # Errors
    /// [`ErrorKind::Unavailable`] where nobody answers or somebody else keeps reading,
    /// [`ErrorKind::NoSuchQueue`].
    pub(crate) async fn open(dialer: &Dialer, queue: &Name) -> Result<Self> {
        let session = connect(dialer).await?;
        lock(&session, queue).await?;
        let dead = names::dead(queue);
        let none = FieldTable::default();
        let figures = declare_queue(&session, &dead, none, Declare::Verify).await?;
        let channel = session.channel().await?;
        let doing = format!("reading \"{dead}\"");
        let queue = short("queue name", &dead)?;
        let qos = channel.basic_qos(MOST, BasicQosOptions { global: false });
        answered(&doing, &dead, qos).await?;
        let consume = channel.basic_consume(
            queue.clone(),
            "longshore-admin".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = answered(&doing, &dead, consume).await?;
        Ok(Self {
            session,
            channel,
            consumer,
            queue,
            ready: figures.ready,
            read: 0,
            removed: 0,
            names: BTreeSet::new(),
        })
    }

    /// The header by which the guard tells what it found.
    pub(crate) fn marker(&self) -> &str {
        self.session.watch.marker()
    }

    /// The next dead letter, while there is one and not too many are held.
    pub(crate) async fn next(&mut self) -> Result<Option<Found>> {
        if self.read >= self.ready.min(MOST.into()) {
            return Ok(None);
        }
        let message = match self.arrival().await? {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(told("reading dead letters", &error)),
            None => return Ok(None),
        };
        self.read += 1;
        self.session.watch.consumed(message.data.len());
        let id = self.name(&message.properties, &message.data);
        Ok(Some(Found {
            tag: message.delivery_tag,
            id,
            properties: message.properties,
            body: message.data,
        }))
    }

    /// Waits for a delivery. Where none comes a plain client may have taken what was counted, or the
    /// broker is slow: what it has handed to this channel arrives before an answer on it does.
    async fn arrival(&mut self) -> Result<Option<lapin::Result<Message>>> {
        if let Ok(message) = timeout(SETUP, self.consumer.next()).await {
            return Ok(message);
        }
        let asked = self.channel.basic_qos(MOST, BasicQosOptions::default());
        let answer = tokio::select! {
            biased;
            message = self.consumer.next() => return Ok(message),
            answer = timeout(SLOW, asked) => answer,
        };
        match answer {
            Ok(Ok(())) => Ok(self.consumer.next().now_or_never().flatten()),
            Ok(Err(error)) => Err(told("reading dead letters", &error)),
            Err(_) => Err(late("reading dead letters")),
        }
    }

    /// Removes one for ever.
    pub(crate) async fn remove(&mut self, tag: u64) -> Result<()> {
        let acknowledged = self.channel.basic_ack(tag, BasicAckOptions::default());
        answered("removing a dead letter", self.queue.as_str(), acknowledged).await?;
        self.removed += 1;
        Ok(())
    }

    /// Gives back what was not removed and waits until the broker has done what it was asked.
    pub(crate) async fn close(self) -> Result<()> {
        // What is still on its way has to be read, but not kept.
        let nothing = Limits { body: 0, ..LIMITS };
        self.session.watch.limit(self.channel.id(), nothing);
        let closed = async {
            let mut consumer = self.consumer.clone();
            let drain = async {
                while let Some(Ok(message)) = consumer.next().await {
                    self.session.watch.consumed(message.data.len());
                }
            };
            let close = self.channel.close(200, "done".into());
            tokio::join!(drain, close).1
        };
        let result = match timeout(SLOW, closed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(told("closing the dead letters", &error)),
            Err(_) => Err(late("closing the dead letters")),
        };
        if result.is_ok() {
            self.until_returned().await;
        }
        self.session.close(SETUP).await;
        result
    }

    /// A closed channel's messages return a moment after it; the next reader must find them all.
    async fn until_returned(&self) {
        let expected = self.ready.saturating_sub(self.removed);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let name = self.queue.as_str();
            let none = FieldTable::default();
            match declare_queue(&self.session, name, none, Declare::Verify).await {
                Ok(figures) if figures.ready < expected => sleep(GLANCE).await,
                _ => return,
            }
        }
    }

    /// Two dead letters can share a message id, so a name holds a hash of all else too: it stays the
    /// same whatever becomes of the others. Only letters that are alike in everything are numbered,
    /// and it does not matter which of those is taken.
    fn name(&mut self, properties: &BasicProperties, body: &[u8]) -> Text {
        let base = name(properties, body, self.marker());
        let mut name = base.clone();
        let mut number = 1;
        while !self.names.insert(name.clone()) {
            number += 1;
            name = format!("{base}~{number}").into();
        }
        name
    }
}

/// A connection of an operator, to whichever host lets one in.
pub(crate) async fn connect(dialer: &Dialer) -> Result<Session> {
    let mut refusal = None;
    for host in &dialer.address.hosts {
        match dialer.dial(host, "admin", LIMITS, Some(ROOM)).await {
            Ok(session) => return Ok(session),
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "no host to connect to")))
}

/// Two readers would each see half of the dead letters. An exclusive queue is a lock that dies with
/// its connection.
async fn lock(session: &Session, queue: &Name) -> Result<()> {
    let name = names::lock(queue);
    let until = Instant::now() + PATIENCE;
    loop {
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let channel = session.channel().await?;
        let declared =
            channel.queue_declare(short("queue name", &name)?, options, FieldTable::default());
        match answered("locking the dead letters", &name, declared).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::TopologyDiffers && Instant::now() < until => {
                sleep(PAUSE).await;
            }
            Err(error) if error.kind() == ErrorKind::TopologyDiffers => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("somebody else is reading the dead letters of \"{queue}\"; try later"),
                ));
            }
            Err(error) => return Err(error),
        }
    }
}

/// What a dead letter is called among others that are not altogether like it.
fn name(properties: &BasicProperties, body: &[u8], marker: &str) -> Text {
    let nobody = ReplyRule { prefix: None };
    let now = std::time::UNIX_EPOCH;
    let read = arrived(properties.clone(), Vec::new(), marker, None, &nobody, now);
    if let Some(native) = Native::of(&read.envelope)
        && let Some(fingerprint) = &native.blanked
    {
        return format!("unreadable-{fingerprint}").into();
    }
    let mut all = Envelope::new(
        printed(properties),
        body.get(..NAMED).unwrap_or(body).to_vec(),
    );
    all.key = Some(body.len().to_string().into());
    let hash = longshore_core::content_id(&all);
    match &*read.envelope.id {
        "" => hash,
        id => format!("{id}~{}", hash.get(..16).unwrap_or(&hash)).into(),
    }
}

/// Everything that was published beside the body and the broker does not change while it lies here.
fn printed(properties: &BasicProperties) -> String {
    let mut all = String::new();
    let mut print = |name: &str, value: &[u8]| {
        let _ = writeln!(all, "{}={}", name.escape_debug(), value.escape_ascii());
    };
    for (name, text) in [
        ("content-type", properties.content_type()),
        ("content-encoding", properties.content_encoding()),
        ("correlation-id", properties.correlation_id()),
        ("reply-to", properties.reply_to()),
        ("expiration", properties.expiration()),
        ("message-id", properties.message_id()),
        ("type", properties.kind()),
        ("user-id", properties.user_id()),
        ("app-id", properties.app_id()),
        ("cluster-id", properties.cluster_id()),
    ] {
        if let Some(text) = text {
            print(name, text.as_str().as_bytes());
        }
    }
    let octet = |octet: &Option<u8>| octet.map(u64::from);
    for (name, number) in [
        ("delivery-mode", octet(properties.delivery_mode())),
        ("priority", octet(properties.priority())),
        ("timestamp", *properties.timestamp()),
    ] {
        if let Some(number) = number {
            print(name, &number.to_be_bytes());
        }
    }
    for (name, value) in properties.headers().iter().flatten() {
        if !headers::COUNTERS.contains(&name.as_str()) {
            print(name.as_str(), &headers::readable(value));
        }
    }
    all
}
