//! A right that one connection has at a time: an exclusive queue into which nobody publishes.
//!
//! It vanishes with its connection. One that is half open keeps it until the broker has missed its
//! heartbeats, for three times their interval; the client that holds it gives up after two.

use std::{sync::Arc, time::Duration};

use lapin::{
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::{FieldTable, ShortString},
};
use longshore_core::{Error, ErrorKind, Result, chaos::Flaw};
use tokio::time::{sleep, timeout};

use crate::{
    convert::short,
    error::{is_locked, late, told},
    objects::answered,
    session::{SETUP, Session},
};

/// How long after it could not be given back that is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// A right this client has.
#[derive(Debug)]
pub(crate) struct Lock {
    session: Arc<Session>,
    name: ShortString,
}

impl Lock {
    /// Takes the right of this name; `None`: another connection has it. The broker lets one connection
    /// take it twice.
    ///
    /// Must be polled to its end.
    pub(crate) async fn take(session: &Arc<Session>, name: &str) -> Result<Option<Self>> {
        let lock = Self {
            session: session.clone(),
            name: short("queue name", name)?,
        };
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        // A refusal closes the channel.
        let channel = session.channel().await?;
        let doing = format!("taking \"{name}\"");
        let declared = channel.queue_declare(lock.name.clone(), options, FieldTable::default());
        match timeout(SETUP, declared).await {
            Ok(Ok(_)) => Ok(Some(lock)),
            Ok(Err(error)) if is_locked(&error) && Flaw::TwoOwners.on() => Ok(Some(lock)),
            Ok(Err(error)) if is_locked(&error) => Ok(None),
            Ok(Err(error)) => Err(told(&doing, &error)),
            Err(_) => {
                // It may yet become ours, and would be for as long as the connection lives.
                tokio::spawn(lock.give_back());
                Err(Error::new(ErrorKind::Unavailable, late(&doing).to_string()))
            }
        }
    }

    /// Gives it back, however long that takes while the connection lives.
    pub(crate) async fn give_back(self) {
        while self.session.is_live() {
            match self.delete().await {
                Ok(()) => return,
                Err(error) => {
                    let lock = self.name.as_str();
                    tracing::debug!(lock, %error, "cannot give a lock back yet");
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn delete(&self) -> Result<()> {
        let channel = self.session.channel().await?;
        let options = QueueDeleteOptions::default();
        let deleted = channel.queue_delete(self.name.clone(), options);
        answered("giving a lock back", self.name.as_str(), deleted)
            .await
            .map(drop)
    }
}
