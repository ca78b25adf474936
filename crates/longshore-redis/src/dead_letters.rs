//! Dead letters: list, redrive, discard.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use longshore_core::{DeadLetter, Error, ErrorKind, Name, Reason, Result, Text};
use redis::{Cmd, Value};

use crate::{
    convert,
    entry::{Entry, EntryId, Fields, array, entries, int, text},
    failure::{Broken, checked, refused, unexpected, unread},
    link::{Link, Links},
    names::{Keys, reply_prefix},
    scripts::{self, REDRIVE},
    site::{Place, Site},
    spread::spread,
};

mod pages;
mod place;

pub(crate) use place::LetterId;

/// The fields that follow the original ones.
const OURS: [&str; 5] = [
    "dead.reason",
    "dead.detail",
    "dead.attempts",
    "dead.queue",
    "dead.at",
];
/// The field behind ours that holds an original with too many fields.
const PACKED: &str = "dead.packed";

/// The dead letters of every queue.
pub(crate) struct DeadLetters {
    site: Arc<Site>,
    links: Arc<Links>,
}

impl DeadLetters {
    pub(crate) fn new(site: Arc<Site>, links: Arc<Links>) -> Self {
        Self { site, links }
    }

    pub(crate) async fn list(
        &self,
        queue: &Name,
        after: Option<&Text>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        let after = after.map(parse).transpose()?;
        let found = pages::read(self, queue, after, limit).await?;
        let letters = found.into_iter().map(|(id, entry)| self.letter(id, entry));
        Ok(letters.collect())
    }

    /// Once: the script removes the dead letter in the step that writes the copy.
    pub(crate) async fn redrive(&self, queue: &Name, id: &Text) -> Result<()> {
        let id = parse(id)?;
        let keys = id.place.keys(&self.site.options, queue);
        let id = id.entry;
        let mut command = REDRIVE.call(&[&keys.dead(), &keys.stream, &keys.meta()]);
        command
            .arg(id.to_string())
            .arg(&*keys.scope)
            .arg(keys.base());
        let limit = self.site.options.confirm_timeout;
        let reply = scripts::run(&self.links, keys.slot, command, limit).await;
        match int(&checked(reply.map_err(Broken::into_error)?)?) {
            Some(1) => Ok(()),
            Some(0) => Err(gone()),
            Some(-1) => Err(Error::new(
                ErrorKind::NoSuchQueue,
                format!("there is no queue {queue}"),
            )),
            Some(-2) => self.redrive_packed(&keys, id).await,
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn discard(&self, queue: &Name, ids: &[Text]) -> Vec<Result<()>> {
        let commands: Vec<(u16, Cmd)> = ids
            .iter()
            .map(|id| {
                // An id that is none deletes nothing.
                let none = LetterId {
                    entry: EntryId { ms: 0, sequence: 0 },
                    place: place::Place::Lanes,
                };
                let id = parse(id).unwrap_or(none);
                let keys = id.place.keys(&self.site.options, queue);
                let mut command = redis::cmd("XDEL");
                command.arg(keys.dead()).arg(id.entry.to_string());
                (keys.slot, command)
            })
            .collect();
        let replies = spread(&self.links, &commands, self.site.options.confirm_timeout).await;
        let answers = replies.into_iter().map(|reply| {
            let reply = checked(reply.map_err(Broken::into_error)?)?;
            match int(&reply) {
                Some(1) => Ok(()),
                _ => Err(gone()),
            }
        });
        answers.collect()
    }

    /// The same for what does not fit a script: watched, on a connection of its own.
    async fn redrive_packed(&self, keys: &Keys, id: EntryId) -> Result<()> {
        let link = Link::new(Arc::clone(&self.site), Place::Slot(keys.slot), "redrive");
        let limit = self.site.options.confirm_timeout;
        for _ in 0..10 {
            let mut look = redis::pipe();
            look.cmd("WATCH").arg(keys.dead());
            look.cmd("XRANGE")
                .arg(keys.dead())
                .arg(id.to_string())
                .arg(id.to_string());
            look.cmd("HKEYS").arg(keys.meta());
            let mut replies = link.exchange(&look, limit).await.map_err(unread)?;
            let parts = checked(replies.pop().unwrap_or(Value::Nil))?;
            let found = entries(checked(replies.pop().unwrap_or(Value::Nil))?).pop();
            let (original, ours) = split(found.ok_or_else(gone)?.fields);
            let stream = stream_of(keys, &ours, parts);
            let mut swap = redis::pipe();
            // Creating a stream that has just gone is better than losing the message with it.
            swap.cmd("MULTI").cmd("XADD").arg(stream).arg("*");
            for (name, value) in original.iter().filter(|(name, _)| name != "redriven") {
                swap.arg(&name[..]).arg(&value[..]);
            }
            swap.arg("redriven").arg("1");
            swap.cmd("XDEL")
                .arg(keys.dead())
                .arg(id.to_string())
                .cmd("EXEC");
            let mut replies = link
                .exchange(&swap, limit)
                .await
                .map_err(Broken::into_error)?;
            let done = replies.pop().unwrap_or(Value::Nil);
            if let Some(Value::ServerError(error)) =
                replies.iter().find(|r| matches!(r, Value::ServerError(_)))
            {
                return Err(refused(error));
            }
            if !array(checked(done)?).is_empty() {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the dead letters change too fast just now; nothing was sent back",
        ))
    }

    fn letter(&self, id: LetterId, entry: Entry) -> DeadLetter {
        let id = Text::from(id.to_string());
        let (original, ours) = split(entry.fields);
        let envelope =
            convert::read_unjudged(&original, &reply_prefix(&self.site.options.key_prefix));
        let value = |name: &str| {
            let (_, value) = ours.iter().find(|(n, _)| n == name.as_bytes())?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let reason = Reason::parse(value("dead.reason").as_deref().unwrap_or("unknown"));
        let mut letter = DeadLetter::new(id, envelope, reason);
        letter.detail = value("dead.detail").unwrap_or_default();
        letter.attempts = value("dead.attempts")
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        letter.at = value("dead.at")
            .and_then(|ms| ms.parse().ok())
            .and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
        letter
    }
}

/// The original fields, unpacked, and ours. Ours are the last, by place: a publisher may have used
/// the same names.
pub(crate) fn split(mut fields: Fields) -> (Fields, Fields) {
    if let [ours @ .., (name, packed)] = &fields[..]
        && name == PACKED.as_bytes()
        && are_ours(ours)
        && let Some(original) = unpacked(packed)
    {
        fields.truncate(OURS.len());
        return (original, fields);
    }
    let cut = fields.len().saturating_sub(OURS.len());
    let ours = if cut > 0 && are_ours(&fields[cut..]) {
        fields.split_off(cut)
    } else {
        Vec::new()
    };
    (fields, ours)
}

/// The stream of the lane it came from, where the queue still has it.
fn stream_of(keys: &Keys, ours: &[(Bytes, Bytes)], parts: Value) -> String {
    let from = ours.iter().find(|(name, _)| name == "dead.queue");
    let part = from.and_then(|(_, from)| {
        let from = std::str::from_utf8(from).ok()?;
        from.strip_prefix(&*keys.scope)?.strip_prefix('.')
    });
    let mut parts = array(parts).into_iter().filter_map(text);
    match part {
        Some(part) if parts.any(|known| known == part) => {
            format!("{}{part}:stream", keys.base())
        }
        _ => keys.stream.clone(),
    }
}

fn are_ours(fields: &[(Bytes, Bytes)]) -> bool {
    let names = fields.iter().map(|(name, _)| &name[..]);
    names.eq(OURS.map(str::as_bytes))
}

fn unpacked(packed: &Bytes) -> Option<Fields> {
    let values = convert::unpack(packed)?;
    let pairs = values.chunks_exact(2);
    let whole = !values.is_empty() && pairs.remainder().is_empty();
    whole.then(|| {
        pairs
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect()
    })
}

fn parse(id: &Text) -> Result<LetterId> {
    LetterId::parse(id).ok_or_else(gone)
}

fn gone() -> Error {
    Error::new(ErrorKind::Stale, "there is no dead letter of this id")
}
