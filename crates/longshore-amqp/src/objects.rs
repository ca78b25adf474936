//! Queues, exchanges and bindings, one at a time.

use futures_util::future::join_all;
use lapin::{
    Channel, ExchangeKind,
    options::{
        ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use longshore_core::{Declare, Error, ErrorKind, Result, chaos::Flaw};
use tokio::time::timeout;

use crate::{
    convert::{long, short},
    error::{late, reply_text, told},
    session::{SETUP, Session},
};

/// Practically never: on RabbitMQ 4 a queue without one gives up a message after 20 returns, and
/// `-1` is taken by 3.10 and then drops it at the first.
const DELIVERY_LIMIT: i64 = 1_000_000_000;

/// The arguments every queue of ours has.
pub(crate) fn lasting() -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), long("quorum"));
    table.insert(
        "x-delivery-limit".into(),
        AMQPValue::LongLongInt(DELIVERY_LIMIT),
    );
    table
}

/// Declares one queue on a channel of its own, because a refusal closes the channel.
pub(crate) async fn declare_queue(
    session: &Session,
    name: &str,
    arguments: FieldTable,
    mode: Declare,
) -> Result<Figures> {
    let channel = session.channel().await?;
    declare_queue_on(&channel, name, arguments, mode).await
}

/// See [`declare_queue`]. A refusal closes the channel.
pub(crate) async fn declare_queue_on(
    channel: &Channel,
    name: &str,
    arguments: FieldTable,
    mode: Declare,
) -> Result<Figures> {
    let options = QueueDeclareOptions {
        durable: true,
        passive: mode == Declare::Verify,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(short("queue name", name)?, options, arguments);
    let doing = match mode {
        Declare::Create => format!("declaring the queue \"{name}\""),
        Declare::Verify => format!("looking for the queue \"{name}\""),
    };
    let queue = answered(&doing, name, declared).await?;
    Ok(Figures {
        ready: queue.message_count().into(),
        consumers: queue.consumer_count().into(),
    })
}

/// Looks at queues, all at once, on a channel of its own.
///
/// # Errors
/// [`ErrorKind::NoSuchQueue`] where one is missing.
pub(crate) async fn look(session: &Session, names: &[String]) -> Result<Vec<Figures>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let channel = session.channel().await?;
    let none = FieldTable::default;
    let asked = names
        .iter()
        .map(|name| declare_queue_on(&channel, name, none(), Declare::Verify));
    let mut figures = Vec::with_capacity(names.len());
    let mut failure: Option<Error> = None;
    for answer in join_all(asked).await {
        match answer {
            Ok(found) if Flaw::TwoOwners.on() => figures.push(Figures {
                consumers: 0,
                ..found
            }),
            Ok(found) => figures.push(found),
            // The first one missing closes the channel for all behind it.
            Err(error) if failure.is_none() || error.kind() == ErrorKind::NoSuchQueue => {
                failure = Some(error);
            }
            Err(_) => {}
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(figures),
    }
}

/// What the broker tells of a queue when that is declared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) ready: u64,
    pub(crate) consumers: u64,
}

pub(crate) async fn declare_exchange(
    session: &Session,
    name: &str,
    kind: ExchangeKind,
    arguments: FieldTable,
) -> Result<()> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let channel = session.channel().await?;
    let declared = channel.exchange_declare(short("topic", name)?, kind, options, arguments);
    let doing = format!("declaring the exchange \"{name}\"");
    answered(&doing, name, declared).await
}

/// Whether the exchange of a topic is there.
///
/// # Errors
/// [`ErrorKind::NoSuchQueue`].
pub(crate) async fn verify_topic(session: &Session, topic: &str) -> Result<()> {
    let options = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let channel = session.channel().await?;
    let name = short("topic", topic)?;
    let declared =
        channel.exchange_declare(name, ExchangeKind::Topic, options, FieldTable::default());
    answered(
        &format!("looking for the topic \"{topic}\""),
        topic,
        declared,
    )
    .await
}

pub(crate) async fn bind(session: &Session, queue: &str, exchange: &str, key: &str) -> Result<()> {
    let channel = session.channel().await?;
    bind_on(&channel, queue, exchange, key).await
}

pub(crate) async fn bind_on(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    key: &str,
) -> Result<()> {
    let bound = channel.queue_bind(
        short("queue name", queue)?,
        short("exchange name", exchange)?,
        short("binding", key)?,
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    answered(
        &format!("binding \"{queue}\" to \"{exchange}\""),
        queue,
        bound,
    )
    .await
}

/// Passes on what an exchange gets with this key to another.
pub(crate) async fn bind_exchange(
    session: &Session,
    to: &str,
    from: &str,
    key: &str,
) -> Result<()> {
    let channel = session.channel().await?;
    let bound = channel.exchange_bind(
        short("exchange name", to)?,
        short("exchange name", from)?,
        short("binding", key)?,
        ExchangeBindOptions::default(),
        FieldTable::default(),
    );
    answered(&format!("binding \"{to}\" to \"{from}\""), to, bound).await
}

/// Undoes [`bind`]. What was not bound is no error.
pub(crate) async fn unbind(
    session: &Session,
    queue: &str,
    exchange: &str,
    key: &str,
) -> Result<()> {
    let channel = session.channel().await?;
    let unbound = channel.queue_unbind(
        short("queue name", queue)?,
        short("exchange name", exchange)?,
        short("binding", key)?,
        FieldTable::default(),
    );
    let doing = format!("unbinding \"{queue}\" from \"{exchange}\"");
    answered(&doing, queue, unbound).await
}

/// Undoes [`bind_exchange`]. What was not bound is no error.
pub(crate) async fn unbind_exchange(
    session: &Session,
    to: &str,
    from: &str,
    key: &str,
) -> Result<()> {
    let channel = session.channel().await?;
    let unbound = channel.exchange_unbind(
        short("exchange name", to)?,
        short("exchange name", from)?,
        short("binding", key)?,
        ExchangeUnbindOptions::default(),
        FieldTable::default(),
    );
    let doing = format!("unbinding \"{to}\" from \"{from}\"");
    answered(&doing, to, unbound).await
}

/// Waits for an answer and tells a refusal in words.
pub(crate) async fn answered<T>(
    doing: &str,
    name: &str,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T> {
    let error = match timeout(SETUP, answer).await {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => error,
        Err(_) => return Err(Error::new(ErrorKind::Unavailable, late(doing).to_string())),
    };
    let told = told(doing, &error);
    let reply = reply_text(&error).unwrap_or_default();
    Err(match told.kind() {
        ErrorKind::TopologyDiffers => Error::new(ErrorKind::TopologyDiffers, differs(name, &reply)),
        _ if reply.starts_with("RESOURCE_LOCKED") => Error::new(
            ErrorKind::TopologyDiffers,
            format!("\"{name}\" belongs to another connection alone: {reply}"),
        ),
        _ => told,
    })
}

/// `inequivalent arg 'x' for queue 'q' in vhost '/': received the value 'a' of type 'longstr' but
/// current is none` in words a reader can act on.
fn differs(name: &str, reply: &str) -> String {
    let parse = || {
        let (_, rest) = reply.split_once("inequivalent arg '")?;
        let (argument, rest) = rest.split_once('\'')?;
        let (_, rest) = rest.split_once(": received ")?;
        let (wanted, found) = rest.split_once(" but current is ")?;
        Some(format!(
            "\"{name}\" exists with another {argument}: it has {found}, Longshore declares \
             {wanted}; move its messages elsewhere and delete it, or use another name",
        ))
    };
    parse().unwrap_or_else(|| format!("\"{name}\" exists with other arguments: {reply}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_differs() {
        let reply = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'orders' in \
                     vhost '/': received the value 'quorum' of type 'longstr' but current is none";
        let said = differs("orders", reply);
        assert!(said.starts_with("\"orders\" exists with another x-queue-type: it has none, Longshore declares the value 'quorum'"), "{said}");
        let other = differs("orders", "PRECONDITION_FAILED - something new");
        assert!(other.contains("something new"));
    }
}
