//! The ledger's own process.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

use super::{
    Ledger,
    wire::{self, Request},
};
use crate::history::{Event, Recorder};

/// The decisions, and the history they are written to. One lock over both: the lines are in the order
/// of the decisions.
struct Books {
    ledger: Mutex<Ledger>,
    recorder: Recorder,
}

/// Listens at a socket and decides, until it is dropped. A socket left there by another is replaced.
///
/// Whatever a client sends or fails to send ends its own connection only.
///
/// # Errors
/// The socket cannot be bound, or the history cannot be written: then nothing more is decided.
pub async fn serve(path: impl AsRef<Path>, recorder: Recorder) -> io::Result<()> {
    let path = path.as_ref();
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let books = Arc::new(Books {
        ledger: Mutex::new(Ledger::new()),
        recorder,
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = connections.join_next() => {
                // Only what the history says ends the ledger: an answer without its line is a lie.
                if let Ok(Err(error)) = ended {
                    return Err(error);
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(attend(stream, Arc::clone(&books)))),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            },
        }
    }
}

/// One client. Its own mistakes end it without an error.
async fn attend(mut stream: UnixStream, books: Arc<Books>) -> io::Result<()> {
    while let Ok(Some(request)) = Request::read(&mut stream).await {
        let effect = books.decide(&request)?;
        if stream.write_u8(wire::answer(effect)).await.is_err() {
            break;
        }
    }
    Ok(())
}

impl Books {
    fn decide(&self, request: &Request) -> io::Result<crate::history::Effect> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let effect = ledger.decide(request.key.as_deref(), request.token);
        self.recorder.add(Event::Effect {
            message: request.message,
            token: request.token,
            effect,
        })?;
        Ok(effect)
    }
}
