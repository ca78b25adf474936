//! Where one message of a protocol ends and the next begins, in a stream that comes in pieces.

mod amqp;
mod resp;
#[cfg(test)]
mod tests;

use super::flow::Direction;
use super::trap::{Harm, Unit};
use amqp::Amqp;
use resp::Resp;

/// How far a framing has come with the bytes it was given.
enum Step {
    /// It has taken so many.
    Took(usize),
    /// It has caught what harms the connection itself: nothing more passes.
    Ends(Harm),
    /// They are not what it can read. It has taken none of them.
    Lost,
}

/// The framing of one direction of one connection, which lets pass what no trap catches.
#[derive(Debug)]
pub(super) struct Framing {
    direction: Direction,
    protocol: Protocol,
}

#[derive(Debug)]
enum Protocol {
    Unknown,
    Amqp(Amqp),
    Resp(Resp),
    /// Nothing more is read here.
    Opaque,
}

impl Framing {
    pub(super) fn new(direction: Direction) -> Self {
        let protocol = Protocol::Unknown;
        Self {
            direction,
            protocol,
        }
    }

    /// Adds to `out` what passes. `catch` is asked once for each method or reply. What it answers that
    /// ends the connection is returned, and what followed is not looked at.
    pub(super) fn pass(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        mut catch: impl FnMut(Unit) -> Option<Harm>,
    ) -> Option<Harm> {
        while let Some(first) = bytes.first() {
            let step = match &mut self.protocol {
                Protocol::Unknown => {
                    self.protocol = Protocol::of(self.direction, *first);
                    continue;
                }
                Protocol::Amqp(amqp) => amqp.step(bytes, out, &mut catch),
                Protocol::Resp(resp) => resp.step(bytes, out, &mut catch),
                Protocol::Opaque => {
                    out.extend_from_slice(bytes);
                    return None;
                }
            };
            match step {
                Step::Took(taken) => bytes = &bytes[taken..],
                Step::Ends(harm) => return Some(harm),
                Step::Lost => {
                    self.rest(out);
                    self.protocol = Protocol::Opaque;
                }
            }
        }
        None
    }

    /// Adds what was kept because it was not yet known whether it passes: nothing more will come.
    pub(super) fn rest(&mut self, out: &mut Vec<u8>) {
        if let Protocol::Amqp(amqp) = &mut self.protocol {
            amqp.rest(out);
        }
    }
}

impl Protocol {
    fn of(direction: Direction, first: u8) -> Self {
        match (direction, first) {
            (Direction::ToServer, b'A') => Self::Amqp(Amqp::after_greeting()),
            // The first frame of a server is a method.
            (Direction::ToClient, 1) => Self::Amqp(Amqp::default()),
            (Direction::ToClient, first) if Resp::begins(first) => Self::Resp(Resp::default()),
            _ => Self::Opaque,
        }
    }
}
