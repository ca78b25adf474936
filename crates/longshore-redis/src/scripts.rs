//! The Lua scripts: static, sent by their hash, loaded where the server does not have them.

mod flaws;

use std::{borrow::Cow, sync::LazyLock, time::Duration};

use redis::{Cmd, Pipeline, Value};

use crate::{failure::Broken, link::Links};

/// One script, its text and its hash.
pub(crate) struct Script {
    text: &'static str,
    hash: LazyLock<String>,
}

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $($file:literal)+;)*) => {
        $($(#[$doc])* pub(crate) static $name: Script = Script {
            text: concat!($(include_str!(concat!("scripts/", $file))),+),
            hash: LazyLock::new(|| redis::Script::new(&$name.text()).get_hash().to_owned()),
        };)*
        static ALL: &[&Script] = &[$(&$name),*];
    };
}

scripts! {
    /// Takes a claim that nobody has.
    ACQUIRE = "acquire.lua";
    /// Says that a worker is alive.
    BEAT = "beat.lua";
    /// Takes pending entries over.
    CLAIM = "claim.lua";
    /// Removes entries that are still ours.
    COMPLETE = "parts/mark.lua" "complete.lua";
    /// Removes entries of a partition.
    COMPLETE_PARTITION = "complete_partition.lua";
    /// Sets an entry aside.
    DEAD_LETTER = "parts/mark.lua" "parts/dead.lua" "dead_letter.lua";
    /// Stores a message until its time.
    DELAY = "delay.lua";
    /// Takes over what an earlier owner of a partition left.
    INHERIT = "inherit.lua";
    /// Lets a claim last.
    KEEP = "keep.lua";
    /// Raises a fencing token.
    GRANT = "parts/token.lua" "grant.lua";
    /// Lets leases on ids last longer.
    KEEP_MARKS = "keep_marks.lua";
    /// Deletes consumers that hold nothing.
    LEAVE = "leave.lua";
    /// Gives a claim back.
    LET_GO = "let_go.lua";
    /// Stores a message and takes its id.
    PUBLISH = "publish.lua";
    /// Moves what is due.
    PROMOTE = "promote.lua";
    /// Reads from a partition.
    READ_PARTITION = "read_partition.lua";
    /// Sends a dead letter back.
    REDRIVE = "redrive.lua";
    /// Gives entries back.
    RELEASE = "parts/mark.lua" "release.lua";
    /// Renews locks.
    RENEW = "renew.lua";
    /// Deletes an empty partition.
    RETIRE = "retire.lua";
    /// Replaces an entry by its next attempt.
    RETRY = "parts/mark.lua" "retry.lua";
    /// Writes the state of a session.
    SAVE = "parts/token.lua" "parts/session.lua" "save.lua";
    /// Sets a session aside or brings it back.
    SET_ASIDE = "parts/token.lua" "parts/session.lua" "set_aside.lua";
    /// Settles an entry of a partition with everything that belongs to it.
    SETTLE_PARTITION = "parts/token.lua" "parts/mark.lua" "parts/session.lua" "parts/dead.lua" "settle_partition.lua";
    /// Notes starts.
    START = "start.lua";
    /// Notes starts in a partition.
    START_PARTITION = "start_partition.lua";
    /// Takes ids for starts.
    TAKE = "take.lua";
    /// Changes the marks of ids.
    WRITE_MARKS = "parts/mark.lua" "write_marks.lua";
}

impl Script {
    /// The command that runs it; further arguments follow the keys.
    pub(crate) fn call(&self, keys: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.hash.as_str()).arg(keys.len()).arg(keys);
        command
    }

    /// What the server runs.
    fn text(&self) -> Cow<'static, str> {
        flaws::broken(self).map_or(Cow::Borrowed(self.text), Cow::Owned)
    }
}

/// Calls that follow each other on one server. The text of a script travels with its first call, so
/// that none is unknown and the others keep their order.
#[derive(Default)]
pub(crate) struct Calls {
    sent: Vec<&'static str>,
}

impl Calls {
    /// As [`Script::call`].
    pub(crate) fn call(&mut self, script: &'static Script, keys: &[&str]) -> Cmd {
        if self.sent.contains(&script.text) {
            return script.call(keys);
        }
        self.sent.push(script.text);
        let mut command = redis::cmd("EVAL");
        command.arg(&*script.text()).arg(keys.len()).arg(keys);
        command
    }
}

/// Whether the server does not have the script: nothing happened, see [`load`].
pub(crate) fn is_unknown(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// Gives the server all scripts. A restart, a failover or SCRIPT FLUSH forgets them.
pub(crate) async fn load(links: &Links, slot: u16, limit: Duration) -> Result<(), Broken> {
    let mut pipeline = redis::pipe();
    for script in ALL {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(&*script.text());
    }
    links.exchange(slot, &pipeline, limit).await.map(|_| ())
}

/// Runs one script. Where the server does not have it, that is repaired first.
pub(crate) async fn run(
    links: &Links,
    slot: u16,
    command: Cmd,
    limit: Duration,
) -> Result<Value, Broken> {
    let mut pipeline = Pipeline::new();
    pipeline.add_command(command);
    let mut reply = once(links, slot, &pipeline, limit).await?;
    if is_unknown(&reply) {
        load(links, slot, limit).await?;
        reply = once(links, slot, &pipeline, limit).await?;
    }
    Ok(reply)
}

async fn once(
    links: &Links,
    slot: u16,
    pipeline: &Pipeline,
    limit: Duration,
) -> Result<Value, Broken> {
    let replies = links.exchange(slot, pipeline, limit).await?;
    Ok(replies.into_iter().next().unwrap_or(Value::Nil))
}
/// A time as scripts and commands take it, rounded up: never early.
pub(crate) fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
