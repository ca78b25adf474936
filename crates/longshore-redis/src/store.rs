//! Dedup marks and session state on the server, by its clock: everything passes by expiry alone.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use longshore_core::{
    ConnectOptions, Error, ErrorKind, Mark, MarkWrite, Result, Session, StateWrite, Store, Take,
    Text, chaos::Flaw,
};
use redis::{Cmd, Value};

use crate::{
    address::Address,
    entry::{array, bytes, int},
    failure::{checked, unexpected, unread},
    link::Links,
    mark::{add_change, expiry_ms},
    names::{Keys, check_prefix},
    scripts::{self, GRANT, KEEP_MARKS, SAVE, SET_ASIDE, Script, TAKE, WRITE_MARKS},
    server,
    site::{Site, patience},
};

/// Marks in one script: a server does nothing else meanwhile.
const CHUNK: usize = 500;
/// The largest state of a session.
const MOST_BYTES: usize = 256 * 1024;
/// How long somebody else's mark is said to last where the server does not say it.
const UNKNOWN: Duration = Duration::from_secs(60);

/// The store beside the queues of a transport, or by itself.
pub(crate) struct RedisStore {
    site: Arc<Site>,
    links: Links,
}

impl RedisStore {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        Self {
            links: Links::new(Arc::clone(&site), "store"),
            site,
        }
    }

    /// A store of its own.
    pub(crate) async fn open(url: &str, mut options: ConnectOptions) -> Result<Self> {
        let address = Address::parse(url, &options)?;
        check_prefix(&options.key_prefix)?;
        // Nothing of it has the name of anything of a queue.
        options.key_prefix.push_str(":store");
        let store = Self::new(Arc::new(Site::new(address, options)?));
        store.links.link(0).await?.ensure().await?;
        server::inspect(&store.site, &store.links).await?;
        Ok(store)
    }

    pub(crate) fn close(&self) {
        self.links.close();
    }

    fn keys(&self, scope: &Text) -> Keys {
        Keys::new(&self.site.options.key_prefix, scope)
    }

    /// One script. Every call can be repeated, so what got no answer is no more than unavailable.
    async fn run(&self, slot: u16, command: Cmd) -> Result<Value> {
        if self.site.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "the client was closed"));
        }
        let limit = patience(&self.site.options);
        let reply = scripts::run(&self.links, slot, command, limit).await;
        checked(reply.map_err(unread)?)
    }
}

/// A script over the marks of these names.
fn over<'a>(script: &Script, keys: &Keys, names: impl Iterator<Item = &'a Text>) -> Cmd {
    let marks: Vec<String> = names.map(|name| keys.mark_named(name)).collect();
    let marks: Vec<&str> = marks.iter().map(String::as_str).collect();
    script.call(&marks)
}

#[async_trait]
impl Store for RedisStore {
    fn shared(&self) -> bool {
        true
    }

    async fn take(&self, scope: &Text, takes: &[Take]) -> Result<Vec<Mark>> {
        let keys = self.keys(scope);
        let mut marks = Vec::with_capacity(takes.len());
        for chunk in takes.chunks(CHUNK) {
            let mut command = over(&TAKE, &keys, chunk.iter().map(|take| &take.name));
            for take in chunk {
                command.arg(&*take.owner).arg(take.attempt);
                command.arg(expiry_ms(take.lease));
                command.arg(i64::from(take.sole));
            }
            let answers = array(self.run(keys.slot, command).await?);
            if answers.len() != chunk.len() {
                return Err(unexpected());
            }
            for answer in answers {
                marks.push(mark(answer)?);
            }
        }
        Ok(marks)
    }

    async fn renew(
        &self,
        scope: &Text,
        leases: &[(Text, Text)],
        lease: Duration,
    ) -> Result<Vec<bool>> {
        let keys = self.keys(scope);
        let mut renewed = Vec::with_capacity(leases.len());
        for chunk in leases.chunks(CHUNK) {
            let mut command = over(&KEEP_MARKS, &keys, chunk.iter().map(|(name, _)| name));
            command.arg(expiry_ms(lease));
            for (_, owner) in chunk {
                command.arg(&**owner);
            }
            let answers = array(self.run(keys.slot, command).await?);
            if answers.len() != chunk.len() {
                return Err(unexpected());
            }
            renewed.extend(answers.iter().map(|answer| int(answer) == Some(1)));
        }
        Ok(renewed)
    }

    async fn write(&self, scope: &Text, marks: &[MarkWrite]) -> Result<()> {
        let keys = self.keys(scope);
        for chunk in marks.chunks(CHUNK) {
            let mut command = over(&WRITE_MARKS, &keys, chunk.iter().map(|mark| &mark.name));
            for mark in chunk {
                add_change(&mut command, mark);
            }
            self.run(keys.slot, command).await?;
        }
        Ok(())
    }

    async fn grant(&self, scope: &Text, token: u64) -> Result<()> {
        let keys = self.keys(scope);
        let mut command = GRANT.call(&[&keys.token()]);
        command.arg(token);
        self.run(keys.slot, command).await.map(|_| ())
    }

    async fn load(&self, scope: &Text, key: &Text, message: &Text) -> Result<Session> {
        let keys = self.keys(scope);
        let mut command = redis::cmd("HMGET");
        command.arg(keys.state(key));
        command.arg(&["now", "before", "message", "aside"]);
        let mut fields = array(self.run(keys.slot, command).await?).into_iter();
        let mut next = || fields.next().and_then(bytes);
        let (now, before, last, aside) = (next(), next(), next(), next());
        let own = !message.is_empty() && last.is_some_and(|last| last == message.as_bytes());
        Ok(Session {
            state: if own { before } else { now },
            set_aside: aside.is_some(),
        })
    }

    async fn save(&self, scope: &Text, write: &StateWrite) -> Result<()> {
        let size = write.value.as_ref().map_or(0, Bytes::len);
        if size > MOST_BYTES {
            let text = format!("a session state of {size} bytes is larger than {MOST_BYTES}");
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let keys = self.keys(scope);
        let mut command = SAVE.call(&[&keys.state(&write.key), &keys.token()]);
        match Flaw::UnfencedState.on() {
            true => command.arg(u64::MAX),
            false => command.arg(write.token),
        };
        command.arg(&*write.message);
        if let Some(value) = &write.value {
            command.arg(&value[..]);
        }
        fenced(&self.run(keys.slot, command).await?)
    }

    async fn set_aside(
        &self,
        scope: &Text,
        key: &Text,
        aside: bool,
        token: Option<u64>,
    ) -> Result<()> {
        let keys = self.keys(scope);
        let mut command = SET_ASIDE.call(&[&keys.state(key), &keys.token()]);
        command.arg(i64::from(aside));
        command.arg(token.map(|token| token.to_string()).unwrap_or_default());
        fenced(&self.run(keys.slot, command).await?)
    }
}

pub(crate) fn mark(answer: Value) -> Result<Mark> {
    let mut answer = array(answer).into_iter();
    let kind = answer.next().as_ref().and_then(int);
    let more = answer.next();
    match kind {
        Some(1) => Ok(Mark::Taken),
        Some(0) => {
            let ms = more.as_ref().and_then(int);
            let at_most = ms.and_then(|ms| u64::try_from(ms).ok());
            let at_most = at_most.map_or(UNKNOWN, Duration::from_millis);
            Ok(Mark::Held { at_most })
        }
        Some(2) => Ok(Mark::Done {
            reply: more.and_then(bytes),
        }),
        _ => Err(unexpected()),
    }
}

fn fenced(answer: &Value) -> Result<()> {
    match int(answer) {
        Some(1) => Ok(()),
        Some(0) => Err(Error::new(
            ErrorKind::Stale,
            "the partition was granted to another owner since; nothing was written",
        )),
        _ => Err(unexpected()),
    }
}
