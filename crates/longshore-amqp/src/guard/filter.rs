//! The frames of the server, one octet after another, without recursion and without trust.

use std::{collections::BTreeMap, io, sync::Arc};

use longshore_core::{Defect, Limits, Reason};

use super::{
    Watch,
    content::{blank_frame, body_size, fingerprint, judge},
    frame::{
        BASIC_DELIVER, BASIC_GET_OK, BASIC_RETURN, BODY, CONNECTION_START, END, HEADER, HEARTBEAT,
        MAX, METHOD, mend_texts, method, returned, server,
    },
    returns::Key,
};

/// Turns the octets the broker sent into those lapin may read.
#[derive(Debug)]
pub(super) struct Filter {
    watch: Arc<Watch>,
    stage: Stage,
    head: [u8; 7],
    /// The payload of the method or header frame being read; never more than [`MAX`].
    payload: Vec<u8>,
    /// Channels in the middle of a message.
    channels: BTreeMap<u16, Message>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Nothing read yet: a server that does not speak 0-9-1 answers with its protocol header.
    First,
    /// `have` octets of a frame's head are read.
    Head { have: usize },
    /// The payload is collected, to be judged whole.
    Collect { left: usize },
    /// The payload passes, or is swallowed.
    Body { left: usize, pass: bool },
    /// The end octet is next.
    End { pass: bool },
    /// A protocol header: lapin tells what it means.
    Foreign,
}

/// Where a channel is between a content method and the end of its body.
#[derive(Debug)]
enum Message {
    Delivered,
    Returned { code: u16, routing_key: Box<[u8]> },
    Swallow { left: u64 },
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

impl Filter {
    pub(super) fn new(watch: Arc<Watch>) -> Self {
        Self {
            watch,
            stage: Stage::First,
            head: [0; 7],
            payload: Vec::new(),
            channels: BTreeMap::new(),
        }
    }

    /// Reads `input` and appends to `out` what may pass.
    ///
    /// # Errors
    /// The server breaks the framing: the connection cannot go on.
    pub(super) fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        while let Some(&first) = input.first() {
            match self.stage {
                Stage::First => {
                    self.stage = match first {
                        b'A' => Stage::Foreign,
                        _ => Stage::Head { have: 0 },
                    };
                }
                Stage::Foreign => {
                    out.extend_from_slice(input);
                    return Ok(());
                }
                Stage::Head { have } => {
                    let (taken, rest) = split(input, self.head.len() - have);
                    for (to, from) in self.head.iter_mut().skip(have).zip(taken) {
                        *to = *from;
                    }
                    input = rest;
                    let have = have + taken.len();
                    self.stage = Stage::Head { have };
                    if have == self.head.len() {
                        self.stage = self.begin(out)?;
                    }
                }
                Stage::Collect { left } => {
                    let (taken, rest) = split(input, left);
                    self.payload.extend_from_slice(taken);
                    input = rest;
                    self.stage = match left - taken.len() {
                        0 => Stage::End {
                            pass: self.decide(out)?,
                        },
                        left => Stage::Collect { left },
                    };
                }
                Stage::Body { left, pass } => {
                    let (taken, rest) = split(input, left);
                    if pass {
                        self.watch.passed(taken.len());
                        out.extend_from_slice(taken);
                    }
                    input = rest;
                    self.stage = match left - taken.len() {
                        0 => Stage::End { pass },
                        left => Stage::Body { left, pass },
                    };
                }
                Stage::End { pass } => {
                    if first != END {
                        return Err(refused("the server ended a frame with a wrong octet"));
                    }
                    if pass {
                        out.push(END);
                    }
                    input = input.get(1..).unwrap_or_default();
                    self.stage = Stage::Head { have: 0 };
                }
            }
        }
        Ok(())
    }

    #[cfg(feature = "fuzzing")]
    pub(super) fn held(&self) -> usize {
        self.payload.capacity()
    }

    /// A frame's head is complete.
    fn begin(&mut self, out: &mut Vec<u8>) -> io::Result<Stage> {
        let [kind, c0, c1, l0, l1, l2, l3] = self.head;
        let channel = u16::from_be_bytes([c0, c1]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX {
            return Err(refused("the server sent a frame larger than agreed"));
        }
        self.payload.clear();
        match kind {
            METHOD | HEADER if length > 0 => Ok(Stage::Collect { left: length }),
            BODY => {
                let pass = !self.swallow(channel, length as u64);
                if pass {
                    out.extend_from_slice(&self.head);
                }
                Ok(match length {
                    0 => Stage::End { pass },
                    left => Stage::Body { left, pass },
                })
            }
            HEARTBEAT if length == 0 => {
                out.extend_from_slice(&self.head);
                Ok(Stage::End { pass: true })
            }
            _ => Err(refused("the server sent a frame of no known kind")),
        }
    }

    /// Whether this much body belongs to a message that does not pass.
    fn swallow(&mut self, channel: u16, length: u64) -> bool {
        let Some(Message::Swallow { left }) = self.channels.get_mut(&channel) else {
            return false;
        };
        *left = left.saturating_sub(length);
        if *left == 0 {
            self.channels.remove(&channel);
        }
        true
    }

    /// A method or content header is complete: writes what passes of it. Answers whether its end
    /// octet passes too.
    fn decide(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let [kind, c0, c1, ..] = self.head;
        let channel = u16::from_be_bytes([c0, c1]);
        match kind {
            METHOD => self.decide_method(channel, out),
            _ => self.decide_header(channel, out),
        }
    }

    fn decide_method(&mut self, channel: u16, out: &mut Vec<u8>) -> io::Result<bool> {
        let broken = |_| refused("the server sent a method that is cut short");
        let method = method(&self.payload).map_err(broken)?;
        match method {
            CONNECTION_START => {
                let told = server(&self.payload)
                    .map_err(|_| refused("the server describes itself in an unreadable way"))?;
                self.watch.introduce(told);
            }
            BASIC_RETURN => {
                let (code, routing_key) = returned(&self.payload).map_err(broken)?;
                let routing_key = routing_key.into();
                let message = Message::Returned { code, routing_key };
                self.channels.insert(channel, message);
                return Ok(false);
            }
            BASIC_DELIVER | BASIC_GET_OK => {
                self.channels.insert(channel, Message::Delivered);
            }
            _ => {
                self.channels.remove(&channel);
            }
        }
        mend_texts(method, &mut self.payload).map_err(broken)?;
        out.extend_from_slice(&self.head);
        out.extend_from_slice(&self.payload);
        Ok(true)
    }

    fn decide_header(&mut self, channel: u16, out: &mut Vec<u8>) -> io::Result<bool> {
        let body = body_size(&self.payload)
            .ok_or_else(|| refused("the server sent a content header that is cut short"))?;
        let judged = match self.channels.remove(&channel) {
            Some(Message::Returned { code, routing_key }) => {
                let watch = &self.watch;
                // What came back is what this process published: only its id is of interest.
                let limits = Limits {
                    body: usize::MAX,
                    ..watch.limits
                };
                let id = judge(&self.payload, &limits)
                    .map(|content| content.message_id)
                    .unwrap_or_default();
                let key = Key {
                    channel,
                    message_id: id.into(),
                    routing_key,
                };
                watch.returns.note(key, code);
                self.skip_body(channel, body);
                return Ok(false);
            }
            Some(Message::Delivered) => judge(&self.payload, &self.watch.limits(channel)).map(drop),
            Some(Message::Swallow { .. }) | None => Err(Defect::new(
                Reason::Hostile,
                "a content header that no delivery announced",
            )),
        };
        match judged {
            Ok(()) => {
                out.extend_from_slice(&self.head);
                out.extend_from_slice(&self.payload);
                Ok(true)
            }
            Err(defect) => {
                let print = fingerprint(&self.payload);
                out.extend(blank_frame(channel, self.watch.marker(), &defect, print));
                self.skip_body(channel, body);
                Ok(false)
            }
        }
    }

    fn skip_body(&mut self, channel: u16, body: u64) {
        if body > 0 {
            let message = Message::Swallow { left: body };
            self.channels.insert(channel, message);
        }
    }
}

fn split(input: &[u8], at: usize) -> (&[u8], &[u8]) {
    input.split_at_checked(at).unwrap_or((input, &[]))
}

#[cfg(test)]
mod tests;
