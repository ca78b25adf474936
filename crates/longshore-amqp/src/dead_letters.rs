//! Reads the dead letters of a queue, oldest first, without taking any away.

use std::{collections::BTreeSet, time::Duration};

use lapin::{
    BasicProperties, Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions},
    types::{FieldTable, ShortString},
};
use longshore_core::{Declare, Error, ErrorKind, Limits, Name, Result, Text};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    convert::{Native, ReplyRule, arrived, short},
    error::told,
    guard::FRAME_MAX,
    names,
    session::{Dialer, SETUP, Session},
    topology::{answered, declare_queue},
};

/// Somebody who holds up to 1,000 dead letters of one queue, alone among all clients, on a
/// connection of its own that may read what no worker may.
///
/// Whatever is not removed goes back in order when it ends.
pub(crate) struct Reader {
    session: Session,
    channel: Channel,
    queue: ShortString,
    read: usize,
    removed: usize,
    /// What the broker had left after the last one was read.
    left: u64,
    names: BTreeSet<Text>,
}

/// One dead letter under lock.
pub(crate) struct Found {
    pub(crate) tag: u64,
    /// Its name: the message's id, a hash where it has none, and a number where several share it.
    pub(crate) id: Text,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

/// Held at a time; they come back in order only while they are few.
const MOST: usize = 1000;
/// How long another reader is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
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
        let channel = session.channel().await?;
        Ok(Self {
            queue: short("queue name", &names::dead(queue))?,
            session,
            channel,
            read: 0,
            removed: 0,
            left: 0,
            names: BTreeSet::new(),
        })
    }

    /// The header by which the guard tells what it found.
    pub(crate) fn marker(&self) -> &str {
        self.session.watch.marker()
    }

    /// The next dead letter, while there is one and not too many are held.
    pub(crate) async fn next(&mut self) -> Result<Option<Found>> {
        let Some(message) = self.get().await? else {
            return Ok(None);
        };
        let id = self.name(&message.properties, &message.data);
        Ok(Some(Found {
            tag: message.delivery_tag,
            id,
            properties: message.properties,
            body: message.data,
        }))
    }

    async fn get(&mut self) -> Result<Option<Delivery>> {
        if self.read >= MOST {
            return Ok(None);
        }
        let get = self
            .channel
            .basic_get(self.queue.clone(), BasicGetOptions::default());
        let name = self.queue.as_str();
        let doing = format!("reading \"{name}\"");
        let Some(got) = answered(&doing, name, get).await? else {
            return Ok(None);
        };
        self.read += 1;
        self.left = got.message_count.into();
        Ok(Some(got.delivery))
    }

    /// Removes one for ever.
    pub(crate) async fn remove(&mut self, tag: u64) -> Result<()> {
        let acknowledged = self.channel.basic_ack(tag, BasicAckOptions::default());
        answered("removing a dead letter", self.queue.as_str(), acknowledged).await?;
        self.removed += 1;
        Ok(())
    }

    /// Gives back what was not removed and waits until the broker has done what it was asked.
    ///
    /// What is returned goes behind what earlier readers returned, so each must take as much as the
    /// one before, or the dead letters would change their order by being looked at.
    pub(crate) async fn close(mut self) -> Result<()> {
        let nothing = Limits { body: 0, ..LIMITS };
        self.session.watch.limit(self.channel.id(), nothing);
        while self.get().await?.is_some() {}
        let closed = self.channel.close(200, "done".into());
        let result = match timeout(SETUP, closed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(told("closing the dead letters", &error)),
            Err(_) => Err(crate::error::late("closing the dead letters")),
        };
        if result.is_ok() {
            self.until_returned().await;
        }
        self.session.close(SETUP).await;
        result
    }

    /// A closed channel's messages return a moment after it; the next reader must find them all.
    async fn until_returned(&self) {
        let held = self.read.saturating_sub(self.removed) as u64;
        let until = Instant::now() + SETUP;
        while held > 0 && Instant::now() < until {
            let name = self.queue.as_str();
            let none = FieldTable::default();
            match declare_queue(&self.session, name, none, Declare::Verify).await {
                Ok(figures) if figures.ready < self.left + held => sleep(GLANCE).await,
                _ => return,
            }
        }
    }

    /// Two dead letters can share an id, and `after` must tell them apart: later ones are numbered.
    fn name(&mut self, properties: &BasicProperties, body: &[u8]) -> Text {
        let nobody = ReplyRule { prefix: None };
        let now = std::time::UNIX_EPOCH;
        let read = arrived(properties.clone(), Vec::new(), self.marker(), &nobody, now);
        let blanked = Native::of(&read.envelope).and_then(|native| native.blanked.clone());
        let base = match blanked {
            Some(fingerprint) => Text::from(format!("unreadable-{fingerprint}")),
            None if read.envelope.id.is_empty() => {
                let mut envelope = read.envelope;
                envelope.body = body.to_vec().into();
                longshore_core::content_id(&envelope)
            }
            None => read.envelope.id,
        };
        let mut name = base.clone();
        let mut number = 1;
        while self.names.contains(&name) {
            number += 1;
            name = format!("{base}~{number}").into();
        }
        self.names.insert(name.clone());
        name
    }
}

async fn connect(dialer: &Dialer) -> Result<Session> {
    let mut refusal = None;
    for host in &dialer.address.hosts {
        match dialer.dial(host, "admin", LIMITS).await {
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
