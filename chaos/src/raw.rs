//! What no client of Longshore would send: messages of plain clients, and forged replies.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use longshore::{ConnectOptions, Envelope, Error, ErrorKind, Published, Result, Transport};
use longshore_core::{Destination, Name, Outgoing, Part, ReplyAddress};
use tokio::time::Instant;

use crate::plan::{On, Plan};

/// After so long nobody waits for a reply any more.
const OVER: Duration = Duration::from_secs(10);
/// How many requests that are over are remembered.
const REMEMBERED: usize = 1_000;

/// A connection below the client.
pub(crate) struct Raw(Arc<dyn Transport>);

impl Raw {
    /// Connects as everybody else of the plan.
    ///
    /// # Errors
    /// As the transport.
    pub(crate) async fn connect(plan: &Plan) -> Result<Self> {
        let mut options = ConnectOptions::default();
        options.name = "chaos-raw".to_owned();
        options.connect_timeout = Duration::from_secs(2);
        options.confirm_timeout = Duration::from_secs(3);
        options.heartbeat = Duration::from_secs(2);
        let transport = match plan.on {
            On::Amqp => longshore_amqp::connect(&plan.url, options).await?,
            On::Redis => longshore_redis::connect(&plan.url, options).await?,
            On::Memory => longshore_memory::connect(&plan.url, options)?,
        };
        Ok(Self::on(transport))
    }

    /// On a connection that is open.
    pub(crate) fn on(transport: Arc<dyn Transport>) -> Self {
        Self(transport)
    }

    /// Publishes to the queue of this name itself, as a plain client that knows no partitions.
    ///
    /// # Errors
    /// As the transport.
    pub(crate) async fn publish(&self, queue: &str, envelope: Envelope) -> Result<Published> {
        let to = Destination::Queue(Name::new(queue)?, Part::Lane(0));
        self.send(to, envelope).await
    }

    async fn send(&self, to: Destination, envelope: Envelope) -> Result<Published> {
        let outgoing = Outgoing {
            to,
            envelope,
            delay: Duration::ZERO,
            dedup_window: None,
        };
        let nothing = || Err(Error::new(ErrorKind::Unknown, "no answer"));
        let answer = self.0.publish(vec![outgoing]).await.pop();
        answer.unwrap_or_else(nothing)
    }

    /// Ends the connection.
    pub(crate) async fn close(&self) {
        self.0.close(Duration::from_secs(1)).await;
    }
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Raw")
    }
}

/// Sends replies that nobody should take.
#[derive(Debug)]
pub(crate) struct Forger {
    raw: Raw,
    /// Requests answered earlier: when, the address, and what they are known by.
    answered: std::sync::Mutex<VecDeque<(Instant, ReplyAddress, String)>>,
}

impl Forger {
    pub(crate) fn new(raw: Raw) -> Self {
        Self {
            raw,
            answered: std::sync::Mutex::default(),
        }
    }

    /// Ends the connection.
    pub(crate) async fn close(&self) {
        self.raw.close().await;
    }

    /// Sends wrong replies to whoever has sent this request: under a name nobody waits for, under
    /// that of a request which is over, and one that is no reply at all. None of them may be taken
    /// for the reply to this request or another.
    pub(crate) async fn forge(&self, request: &Envelope) {
        let (Some(address), Some(asked)) = (&request.reply_to, &request.correlation_id) else {
            return;
        };
        let wrong = r#"{"number":0,"answer":0}"#;
        let mut forged = vec![
            (address.clone(), format!("{asked}x"), wrong),
            (address.clone(), String::new(), "{"),
        ];
        {
            let lock = std::sync::PoisonError::into_inner;
            let mut answered = self.answered.lock().unwrap_or_else(lock);
            answered.push_back((Instant::now(), address.clone(), asked.to_string()));
            while answered.len() > REMEMBERED {
                answered.pop_front();
            }
            if answered.front().is_some_and(|(at, ..)| at.elapsed() > OVER)
                && let Some((_, address, asked)) = answered.pop_front()
            {
                forged.push((address, asked, wrong));
            }
        }
        for (address, correlation, body) in forged {
            let mut envelope = Envelope::new("question.reply", body);
            envelope.id = format!("forged-{correlation}").into();
            envelope.content_type = "application/json".into();
            envelope.correlation_id =
                Some(correlation.into()).filter(|id: &longshore::Text| !id.is_empty());
            envelope.headers = vec![("longshore-reply".into(), "last".into())];
            // Whoever asked may be gone by now.
            let _ = self.raw.send(Destination::Reply(address), envelope).await;
        }
    }
}
