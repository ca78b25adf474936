//! The channel of the task that publishes.

use std::{sync::Arc, time::Duration};

use lapin::{
    Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use longshore_core::{
    Result,
    chaos::{CrashPoint, Flaw},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::Letter;
use crate::{
    error::{late, told},
    guard::ReturnKey,
    link::{State, live},
    session::{SETUP, Session},
};

/// How long after a channel could not be opened it is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a channel that was refused something is kept.
const WORN: Duration = Duration::from_secs(2);

/// A channel in confirm mode.
pub(super) struct Line {
    pub(super) session: Arc<Session>,
    pub(super) channel: Channel,
    pub(super) blocked: watch::Receiver<bool>,
    /// When the broker first refused a message here.
    since: Option<Instant>,
}

impl Line {
    /// The broker refused a message.
    pub(super) fn refused(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// Whether this channel has met a refusal so long ago that another may fare better: where an operator
    /// lifts the length limit of a queue, RabbitMQ does not tell the channels that met it.
    pub(super) fn is_worn(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= WORN)
    }
}

/// Opens a channel on the live connection, `again` after a pause.
pub(super) async fn open(mut link: watch::Receiver<State>, again: bool) -> Result<Line> {
    if again {
        sleep(PAUSE).await;
    }
    let session = live(&mut link, SETUP).await?;
    let channel = session.channel().await?;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    match timeout(SETUP, select).await {
        Ok(Ok(())) => Ok(Line {
            blocked: session.blocked(),
            session,
            channel,
            since: None,
        }),
        Ok(Err(error)) => Err(told("asking for confirms", &error)),
        Err(_) => Err(late("asking for confirms")),
    }
}

/// Waits for the broker to take messages again, or to stop; for ever without a channel.
pub(super) async fn unblocked(line: Option<&mut Line>) -> Option<()> {
    match line {
        Some(line) => match line.blocked.changed().await {
            Ok(()) => Some(()),
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Publishes and waits for the confirmation. All frames are queued by the first poll.
pub(super) async fn fly(
    channel: Channel,
    letter: Letter,
    sent: CrashPoint,
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions {
        mandatory: letter.mandatory,
        immediate: false,
    };
    let written = channel
        .basic_publish(
            letter.exchange,
            letter.routing_key,
            options,
            &letter.body,
            letter.properties,
        )
        .await;
    sent.reached();
    match written {
        Ok(_) if Flaw::NoConfirms.on() => Ok(Confirmation::Ack(None)),
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    }
}

/// How a note that this letter came back names it.
pub(super) fn key(channel: &Channel, letter: &Letter) -> ReturnKey {
    let id = letter.properties.message_id().as_ref();
    ReturnKey {
        channel: channel.id(),
        message_id: id
            .map(ShortString::as_str)
            .unwrap_or_default()
            .as_bytes()
            .into(),
        routing_key: letter.routing_key.as_str().as_bytes().into(),
    }
}
