//! The ledger of one ownership, and its copy on the broker.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use longshore_core::{
    Declare, Error, ErrorKind, Result,
    chaos::{CrashPoint, Flaw},
};

use crate::{
    estate::Estate,
    ledger::Ledger,
    marker::{Marker, Markers},
    session::Session,
};

/// What an owner knows of its partition. Whoever writes writes all of it, so many that wait are
/// done with one marker.
pub(crate) struct Book {
    estate: Arc<Estate>,
    /// The marker queue.
    queue: String,
    declare: Declare,
    pub(crate) token: u64,
    ledger: Mutex<Ledger>,
    /// How many writes were asked for.
    wanted: AtomicU64,
    /// One writes at a time.
    writing: tokio::sync::Mutex<Written>,
}

/// No honest token is so far ahead of the clock, in ms; what is was forged by who may publish, and must not stop
/// a partition: a token grows by one, or to the time.
const AHEAD: u64 = 24 * 60 * 60 * 1000;

#[derive(Default)]
struct Written {
    /// The next marker's number.
    number: u64,
    /// Wishes up to this one are done, or have failed.
    covered: u64,
    failure: Option<(ErrorKind, String)>,
}

impl Book {
    /// Takes over what the last owner left, under its lock: with a higher token, noted before anything
    /// is delivered.
    pub(crate) async fn open(
        estate: &Arc<Estate>,
        session: &Arc<Session>,
        queue: String,
        declare: Declare,
    ) -> Result<Arc<Self>> {
        let now = estate.now();
        let mut markers = Markers::take(session, &queue, now.saturating_add(AHEAD)).await?;
        // No marker at all is no proof of a clean end.
        let last = markers.newest.take().unwrap_or_default();
        let mine = Marker {
            // Never below the time: a store has seen the last one even where its marker is gone.
            token: match Flaw::TokenStays.on() {
                true => last.token.max(1),
                false => last.token.saturating_add(1).max(now),
            },
            clean: false,
            unseen: false,
            number: 0,
            notes: last.notes.clone(),
        };
        estate.write(&queue, &mine, declare).await?;
        CrashPoint::MarkerWritten.reached();
        if let Err(error) = markers.remove().await {
            // They count less than the new one, and fall out in time.
            tracing::debug!(queue, %error, "old markers stay");
        }
        Ok(Arc::new(Self {
            estate: estate.clone(),
            queue,
            declare,
            token: mine.token,
            ledger: Mutex::new(Ledger::new(last.clean, last.unseen, last.notes)),
            wanted: AtomicU64::new(0),
            writing: tokio::sync::Mutex::new(Written {
                number: 1,
                ..Written::default()
            }),
        }))
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes starts that are about to happen. Those that could not be noted must not.
    pub(crate) async fn start(self: &Arc<Self>, starts: &[(u64, u32)]) -> Vec<Result<()>> {
        let noted: Vec<Result<u32>> = {
            let mut ledger = self.ledger();
            let starts = starts.iter();
            starts.map(|(tag, n)| ledger.start(*tag, *n)).collect()
        };
        let written = match noted.iter().any(Result::is_ok) {
            true if !Flaw::AttemptsInMemory.on() => self.write(false).await,
            _ => Ok(()),
        };
        let answers = starts.iter().zip(noted);
        answers
            .map(|((tag, n), noted)| {
                let before = noted?;
                written.as_ref().map_or_else(
                    |error| {
                        self.ledger().undo(*tag, *n, before);
                        Err(error.again())
                    },
                    |()| Ok(()),
                )
            })
            .collect()
    }

    /// The last marker of an owner that goes: whether all it had is settled, and what is kept.
    pub(crate) async fn end(self: &Arc<Self>) -> Result<()> {
        self.write(true).await
    }

    /// Writes the ledger as it is by now, and waits until that is confirmed. On a task of its own: a
    /// caller that goes away leaves no marker half written.
    async fn write(self: &Arc<Self>, last: bool) -> Result<()> {
        let wish = self.wanted.fetch_add(1, Ordering::AcqRel) + 1;
        let book = self.clone();
        let written = tokio::spawn(async move { book.write_turn(wish, last).await });
        // The runtime is going down.
        written
            .await
            .unwrap_or_else(|_| Err(crate::error::closed()))
    }

    async fn write_turn(&self, wish: u64, last: bool) -> Result<()> {
        let mut written = self.writing.lock().await;
        // A last marker says what no other does.
        if last || written.covered < wish {
            let covers = self.wanted.load(Ordering::Acquire);
            let marker = {
                let ledger = self.ledger();
                Marker {
                    token: self.token,
                    number: written.number,
                    clean: last && ledger.is_clean(),
                    unseen: ledger.is_unseen(),
                    notes: ledger.notes(),
                }
            };
            let answer = self.estate.write(&self.queue, &marker, self.declare).await;
            written.number += 1;
            written.covered = covers;
            written.failure = answer.err().map(|e| (e.kind(), e.to_string()));
        }
        match &written.failure {
            None => Ok(()),
            Some((kind, text)) => Err(Error::new(*kind, text.clone())),
        }
    }
}
