//! What is caught on its way by what it says, not by when it comes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::flow::Direction;

/// One AMQP method, by its numbers in the specification (AMQP 0-9-1, 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// The class: 60 is `basic`.
    pub class: u16,
    /// The method within its class.
    pub method: u16,
}

impl Method {
    /// A message on its way to the broker, with its properties and body.
    pub const BASIC_PUBLISH: Self = Self::basic(40);
    /// A message on its way to a consumer, with its properties and body.
    pub const BASIC_DELIVER: Self = Self::basic(60);
    /// To the server: a settlement. To the client: a confirm.
    pub const BASIC_ACK: Self = Self::basic(80);
    /// To the server: a settlement. To the client: a message that was not stored.
    pub const BASIC_NACK: Self = Self::basic(120);

    const fn basic(method: u16) -> Self {
        Self { class: 60, method }
    }
}

/// What becomes of what a trap caught, and of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Harm {
    /// It is left out, and everything else passes. AMQP peers bear that for confirms and settlements. A
    /// lost publish makes both sides count their confirms differently, and a client of Redis takes the
    /// next reply for the lost one: there, reset the connection.
    Lose,
    /// It is left out, and its connection is reset.
    LoseThenReset,
    /// It is left out with everything that follows in its direction for so long, while the other
    /// direction passes; then its connection is reset. The request was done, the answer is lost, and the
    /// client learns that late.
    LoseThenHold(Duration),
    /// Its first byte is inverted, so that no peer can read it; everything else passes.
    Damage,
}

/// What to catch, and what to do with it: of the methods or replies that come from now on, over all
/// connections, the first one only unless told otherwise.
///
/// A proxy reads frame headers and the lengths of replies, from the first byte of a connection on, and
/// keeps no body. What it cannot read (TLS, another protocol, a stream that has been damaged) passes
/// unread and springs no trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trap {
    what: What,
    at: u64,
    again: bool,
    harm: Harm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Method(Direction, Method),
    Reply,
}

/// What the framing has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Method(Method),
    Reply,
}

impl Trap {
    /// Catches an AMQP method with its properties and body, where it has them.
    pub fn method(direction: Direction, method: Method, harm: Harm) -> Self {
        Self::new(What::Method(direction, method), harm)
    }

    /// Catches a reply of a Redis server, RESP2 or RESP3. A push of RESP3 is none; a message of a RESP2
    /// subscription looks like one.
    pub fn reply(harm: Harm) -> Self {
        Self::new(What::Reply, harm)
    }

    fn new(what: What, harm: Harm) -> Self {
        Self {
            what,
            at: 1,
            again: false,
            harm,
        }
    }

    /// Only the n-th, counted from 1. 0 counts as 1.
    #[must_use]
    pub fn nth(self, n: u64) -> Self {
        let at = n.max(1);
        Self {
            at,
            again: false,
            ..self
        }
    }

    /// Each n-th, until the proxy [passes](super::Proxy::pass). 0 counts as 1.
    #[must_use]
    pub fn every(self, n: u64) -> Self {
        Self {
            again: true,
            ..self.nth(n)
        }
    }
}

impl What {
    fn is(self, from: Direction, unit: Unit) -> bool {
        match (self, unit) {
            (Self::Method(direction, wanted), Unit::Method(method)) => {
                direction == from && wanted == method
            }
            (Self::Reply, Unit::Reply) => true,
            _ => false,
        }
    }
}

/// The traps of one proxy.
#[derive(Debug, Default)]
pub(super) struct Traps {
    armed: Mutex<Vec<Armed>>,
    /// Spares every frame the lock while there are none.
    any: AtomicBool,
}

#[derive(Debug)]
struct Armed {
    trap: Trap,
    only: Option<u64>,
    seen: u64,
}

impl Traps {
    /// Arms one, for all connections or for `only` one.
    pub(super) fn arm(&self, trap: Trap, only: Option<u64>) {
        let mut armed = self.lock();
        armed.push(Armed {
            trap,
            only,
            seen: 0,
        });
        self.any.store(true, Ordering::Release);
    }

    pub(super) fn disarm(&self) {
        let mut armed = self.lock();
        armed.clear();
        self.any.store(false, Ordering::Release);
    }

    /// What is to happen to this one. Every trap counts it; the oldest that is due has it.
    pub(super) fn catch(&self, connection: u64, from: Direction, unit: Unit) -> Option<Harm> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut harm = None;
        let mut armed = self.lock();
        armed.retain_mut(|armed| {
            let meant = armed.only.is_none_or(|only| only == connection);
            if !meant || !armed.trap.what.is(from, unit) {
                return true;
            }
            armed.seen += 1;
            if armed.seen < armed.trap.at || harm.is_some() {
                return true;
            }
            armed.seen = 0;
            harm = Some(armed.trap.harm);
            armed.trap.again
        });
        self.any.store(!armed.is_empty(), Ordering::Release);
        harm
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
