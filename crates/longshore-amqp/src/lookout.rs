//! A connection for looking at what may be missing, or somebody else's.
//!
//! Each such look uses up a channel of its connection (see [`Session::channel`]). One that does nothing
//! else is renewed before they run out, and nobody notices.

use std::{sync::Arc, time::Duration};

use lapin::{options::QueueDeclareOptions, types::FieldTable};
use longshore_core::{Result, chaos::Flaw};
use tokio::sync::Mutex;

use crate::{
    convert::short,
    dead_letters::connect,
    error::{is_locked, kind, late, told},
    session::{Dialer, SETUP, Session},
};

/// Opened once there is something to look at.
pub(crate) struct Lookout {
    dialer: Dialer,
    current: Mutex<Option<Arc<Session>>>,
}

impl Lookout {
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self {
            dialer,
            current: Mutex::default(),
        }
    }

    /// The connection to look on.
    ///
    /// # Errors
    /// As [`Dialer::dial`].
    pub(crate) async fn session(&self) -> Result<Arc<Session>> {
        let mut current = self.current.lock().await;
        let good = |session: &&Arc<Session>| session.is_live() && !session.is_worn();
        if let Some(session) = current.as_ref().filter(good) {
            return Ok(session.clone());
        }
        let session = Arc::new(connect(&self.dialer).await?);
        *current = Some(session.clone());
        Ok(session)
    }

    /// Whether another connection has a lock.
    ///
    /// # Errors
    /// Nobody can be asked.
    pub(crate) async fn is_taken(&self, lock: &str) -> Result<bool> {
        if Flaw::TwoOwners.on() {
            return Ok(false);
        }
        let session = self.session().await?;
        let channel = session.channel().await?;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let doing = format!("looking for the lock \"{lock}\"");
        let name = short("queue name", lock)?;
        let looked = channel.queue_declare(name, options, FieldTable::default());
        match tokio::time::timeout(SETUP, looked).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) if is_locked(&error) => Ok(true),
            Ok(Err(error)) if kind(&error) == longshore_core::ErrorKind::NoSuchQueue => Ok(false),
            Ok(Err(error)) => Err(told(&doing, &error)),
            Err(_) => Err(late(&doing)),
        }
    }

    /// Ends the connection it looked on.
    pub(crate) async fn close(&self, within: Duration) {
        if let Some(session) = self.current.lock().await.take() {
            session.close(within).await;
        }
    }
}
