//! The frames of AMQP 0-9-1 (2.3.5): type, channel, size, payload, end.

use std::collections::BTreeSet;

use super::Step;
use crate::proxy::trap::{Harm, Method, Unit};

const GREETING: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// Type, channel and size.
const HEADER: usize = 7;
/// The header, and the class and number of a method.
const METHOD: usize = HEADER + 4;
const METHOD_FRAME: u8 = 1;
const CONTENT_FRAMES: [u8; 2] = [2, 3];
const HEARTBEAT_FRAME: u8 = 8;
const FRAME_END: u8 = 0xCE;

#[derive(Debug, Default)]
pub(super) struct Amqp {
    /// How much of the greeting is still to come.
    greeting: usize,
    /// What there is of the frame's beginning, until it is known whether it passes.
    begun: Vec<u8>,
    /// How much of the frame is still to come, its end included.
    left: u64,
    /// The frame is left out.
    lost: bool,
    /// The channels whose content frames are left out until their next method. At most 65,536.
    muted: BTreeSet<u16>,
}

impl Amqp {
    pub(super) fn after_greeting() -> Self {
        Self {
            greeting: GREETING.len(),
            ..Self::default()
        }
    }

    pub(super) fn rest(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.begun);
    }

    /// `bytes` is not empty.
    pub(super) fn step(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        catch: &mut impl FnMut(Unit) -> Option<Harm>,
    ) -> Step {
        if self.greeting > 0 {
            if bytes[0] != GREETING[GREETING.len() - self.greeting] {
                return Step::Lost;
            }
            self.greeting -= 1;
            out.push(bytes[0]);
            return Step::Took(1);
        }
        if self.left > 0 {
            return self.go_on(bytes, out);
        }
        let wanted = match self.begun.first() {
            Some(&METHOD_FRAME) if self.begun.len() >= HEADER => METHOD,
            _ => HEADER,
        };
        let taken = bytes.len().min(wanted - self.begun.len());
        self.begun.extend_from_slice(&bytes[..taken]);
        match self.begun.len() == wanted && !(wanted == HEADER && self.begun[0] == METHOD_FRAME) {
            true => self.decide(taken, out, catch),
            false => Step::Took(taken),
        }
    }

    fn go_on(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Step {
        let taken = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.left -= taken as u64;
        if self.left == 0 && bytes[taken - 1] != FRAME_END {
            return Step::Lost;
        }
        if !self.lost {
            out.extend_from_slice(&bytes[..taken]);
        }
        Step::Took(taken)
    }

    /// The beginning of a frame is whole, with the last `taken` bytes.
    fn decide(
        &mut self,
        taken: usize,
        out: &mut Vec<u8>,
        catch: &mut impl FnMut(Unit) -> Option<Harm>,
    ) -> Step {
        let number = |at: usize| u16::from_be_bytes([self.begun[at], self.begun[at + 1]]);
        let (kind, channel) = (self.begun[0], number(1));
        let size = u64::from(number(3)) << 16 | u64::from(number(5));
        let read = (self.begun.len() - HEADER) as u64;
        let known =
            kind == METHOD_FRAME || kind == HEARTBEAT_FRAME || CONTENT_FRAMES.contains(&kind);
        if !known || size < read {
            // The bytes of this step are given back.
            self.begun.truncate(self.begun.len() - taken);
            return Step::Lost;
        }
        self.left = size - read + 1;
        self.lost = CONTENT_FRAMES.contains(&kind) && self.muted.contains(&channel);
        if kind == METHOD_FRAME {
            let (class, method) = (number(HEADER), number(HEADER + 2));
            self.muted.remove(&channel);
            match catch(Unit::Method(Method { class, method })) {
                None => {}
                Some(Harm::Damage) => self.begun[0] = !self.begun[0],
                Some(Harm::Lose) => {
                    self.lost = true;
                    self.muted.insert(channel);
                }
                Some(ends) => return Step::Ends(ends),
            }
        }
        match self.lost {
            true => self.begun.clear(),
            false => out.append(&mut self.begun),
        }
        Step::Took(taken)
    }
}
