//! A consumer of the members queue for as long as its membership lives.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{Channel, Consumer, options::BasicConsumeOptions, types::FieldTable};
use longshore_core::{Declare, Error, ErrorKind, Result, Topology};
use tokio::{sync::watch, task::AbortHandle, time::sleep};

use super::owned::Owned;
use crate::{
    convert::short,
    error::closed,
    estate::Estate,
    held::hang_up,
    link::{State, live},
    names,
    objects::answered,
    prepared::is_missing,
    session::{SETUP, Session},
};

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// How often a connection is looked at, in case nobody told of its end.
const LOOK: Duration = Duration::from_secs(1);

/// This worker among the consumers of the members queue, and whatever it owns under watch.
pub(super) struct Presence {
    present: watch::Receiver<Option<Arc<Session>>>,
    task: AbortHandle,
}

/// One consumer. Nothing is ever published to it.
struct Seat {
    session: Arc<Session>,
    channel: Channel,
    consumer: Consumer,
}

struct Attendance {
    estate: Arc<Estate>,
    queue: Arc<Topology>,
    declare: Declare,
    owned: Arc<Owned>,
    present: watch::Sender<Option<Arc<Session>>>,
}

impl Presence {
    /// Becomes present, and stays it over the loss of the connection.
    pub(super) async fn begin(
        estate: &Arc<Estate>,
        queue: &Arc<Topology>,
        declare: Declare,
        owned: &Arc<Owned>,
    ) -> Result<Self> {
        estate.declare(queue, declare).await?;
        let attendance = Attendance {
            estate: estate.clone(),
            queue: queue.clone(),
            declare,
            owned: owned.clone(),
            present: watch::Sender::new(None),
        };
        let session = estate.session().await?;
        let seat = attendance.sit(session).await?;
        Ok(Self {
            present: attendance.present.subscribe(),
            task: tokio::spawn(attendance.run(seat)).abort_handle(),
        })
    }

    /// The connection this worker is counted on, now or soon.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`].
    pub(super) async fn session(&self) -> Result<Arc<Session>> {
        let mut present = self.present.clone();
        let counted = present.wait_for(|session| session.as_ref().is_some_and(|s| s.is_live()));
        match tokio::time::timeout(SETUP, counted).await {
            Ok(Ok(session)) => session.clone().ok_or_else(closed),
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                "this worker is not counted among the live ones: the broker cannot be reached",
            )),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Attendance {
    async fn run(self, first: Seat) {
        let mut wait = SHORTEST;
        let mut seat: Result<Seat> = Ok(first);
        loop {
            match seat {
                Ok(mut seat) => {
                    wait = SHORTEST;
                    self.present.send_replace(Some(seat.session.clone()));
                    self.attend(&mut seat).await;
                    self.present.send_replace(None);
                }
                Err(error) if error.kind() == ErrorKind::Closed => break,
                Err(error) => {
                    let (queue, retry_in) = (&*self.queue.queue, wait);
                    tracing::warn!(queue, %error, ?retry_in, "cannot join the live workers");
                }
            }
            let mut link = self.estate.link();
            self.owned.lose_dead(&link);
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST);
            let session = live(&mut link, SETUP).await;
            // A consumer may end a moment before its connection is known to be gone.
            self.owned.lose_dead(&link);
            seat = match session {
                Ok(session) => self.sit(session).await,
                Err(error) => Err(error),
            };
        }
    }

    async fn sit(&self, session: Arc<Session>) -> Result<Seat> {
        match self.sit_down(&session).await {
            Err(error) if is_missing(&error) => {
                let (queue, declare) = (&self.queue, self.declare);
                self.estate.declare_again(queue, declare).await?;
                self.sit_down(&session).await
            }
            seat => seat,
        }
    }

    async fn sit_down(&self, session: &Arc<Session>) -> Result<Seat> {
        let members = names::members(&self.queue);
        let channel = session.channel().await?;
        let consumer = channel.basic_consume(
            short("queue name", &members)?,
            "longshore-member".into(),
            BasicConsumeOptions {
                no_ack: true,
                ..BasicConsumeOptions::default()
            },
            FieldTable::default(),
        );
        let consumer = answered("joining the live workers", &members, consumer).await?;
        Ok(Seat {
            session: session.clone(),
            channel,
            consumer,
        })
    }

    /// Until the consumer or its connection is lost.
    async fn attend(&self, seat: &mut Seat) {
        let mut link = self.estate.link();
        let mut look = tokio::time::interval(LOOK);
        loop {
            let session = &seat.session;
            let lost = |state: &State| match state {
                State::Up(up) => up.epoch != session.epoch || !up.is_live(),
                State::Down(_) | State::Closed => true,
            };
            tokio::select! {
                biased;
                _ = link.wait_for(lost) => return,
                // What a stranger publishes there is nobody's.
                message = seat.consumer.next() => if !matches!(message, Some(Ok(_))) {
                    return;
                },
                _ = look.tick() => if !session.is_live() || !seat.channel.status().connected() {
                    return;
                },
            }
        }
    }
}

/// A worker that goes is counted no longer.
impl Drop for Seat {
    fn drop(&mut self) {
        hang_up(&self.channel);
    }
}
