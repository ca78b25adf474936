//! Asking the ledger, from handlers.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::UnixStream, time::timeout};

use super::wire::{self, Request};
use crate::history::Effect;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many idle connections are kept.
const IDLE: usize = 64;

/// A way to the ledger, for any number of handlers at once.
///
/// A request that is dropped or times out takes its connection with it, so no answer ever reaches
/// another request.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
}

impl Client {
    /// Connects to the socket that [`serve`](super::serve) listens at.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        let stream = timeout(PATIENCE, UnixStream::connect(&path)).await??;
        let idle = Mutex::new(vec![stream]);
        Ok(Self { path, idle })
    }

    /// Lets a message take effect, and says whether it did. `key` is `None` and `token` 0 outside
    /// sessions; a key is at most 1,024 bytes and names its queue too where several have sessions.
    ///
    /// # Errors
    /// No answer within 5 s, or a broken connection: the message may have taken effect. A handler
    /// returns it as its own error.
    pub async fn effect(&self, message: u64, key: Option<&str>, token: u64) -> io::Result<Effect> {
        let request = Request {
            message,
            token,
            key: key.map(str::to_owned),
        };
        timeout(PATIENCE, self.ask(&request)).await?
    }

    async fn ask(&self, request: &Request) -> io::Result<Effect> {
        let kept = self.idle().pop();
        let mut stream = match kept {
            Some(stream) => stream,
            None => UnixStream::connect(&self.path).await?,
        };
        request.write(&mut stream).await?;
        let effect = wire::answered(stream.read_u8().await?)?;
        let mut idle = self.idle();
        if idle.len() < IDLE {
            idle.push(stream);
        }
        Ok(effect)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<UnixStream>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
