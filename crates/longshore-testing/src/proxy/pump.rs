//! The pump that moves the bytes of one direction.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::counters::Tally;
use super::flow::{Direction, Flow};
use super::framing::Framing;
use super::trap::{Harm, Traps};

/// Bytes on their way in one direction of one connection; beyond it the sender is slowed down by TCP.
const WINDOW: usize = 256 * 1024;
const CHUNK: usize = 16 * 1024;

/// How a connection ends, on both sides alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// FIN. Where a peer had sent bytes that nobody read, the system follows it with an RST.
    Close,
    /// RST.
    Reset,
}

/// Bytes that were read and not yet written.
#[derive(Debug)]
struct Held {
    due: Instant,
    bytes: Vec<u8>,
    written: usize,
}

/// One direction of one connection.
#[derive(Debug)]
pub(super) struct Pump<'a> {
    connection: u64,
    direction: Direction,
    traps: &'a Traps,
    tally: &'a Tally,
    framing: Framing,
    flow: Flow,
    /// How many more bytes the flow lets pass before it does what it is for.
    left: u64,
    /// When the latest byte of a limited rate is due.
    paced: Instant,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// The sender has sent its last byte.
    finished: bool,
    /// Bytes were thrown away.
    lost: bool,
    /// When a trap ends the connection. Nothing more passes.
    doomed: Option<Instant>,
}

impl<'a> Pump<'a> {
    pub(super) fn new(
        connection: u64,
        direction: Direction,
        traps: &'a Traps,
        tally: &'a Tally,
    ) -> Self {
        Self {
            connection,
            direction,
            traps,
            tally,
            framing: Framing::new(direction),
            flow: Flow::Pass,
            left: 0,
            paced: Instant::now(),
            held: VecDeque::new(),
            held_bytes: 0,
            finished: false,
            lost: false,
            doomed: None,
        }
    }

    /// Moves bytes from one side to the other until the stream has ended in this direction.
    ///
    /// # Errors
    /// How the whole connection has to end, where this direction decides that.
    pub(super) async fn run(
        mut self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        mut flows: watch::Receiver<Flow>,
    ) -> Result<(), End> {
        let mut buffer = vec![0; CHUNK];
        self.switch(*flows.borrow_and_update());
        loop {
            let frozen = self.flow == Flow::Freeze;
            let written_out = !frozen && self.held.is_empty();
            let passes = !frozen && self.flow != Flow::Discard;
            if passes && self.lost {
                return Err(End::Reset);
            }
            if passes && written_out && self.doomed.is_none() {
                if matches!(self.flow, Flow::Truncate(_)) && self.left == 0 {
                    return Err(End::Close);
                }
                if self.finished {
                    let _ = to.shutdown().await;
                    return Ok(());
                }
            }
            let room = self.room();
            tokio::select! {
                biased;
                changed = flows.changed() => {
                    // The proxy is gone.
                    changed.map_err(|_| End::Close)?;
                    self.switch(*flows.borrow_and_update());
                }
                () = due(self.doomed), if written_out && self.doomed.is_some() => {
                    return Err(End::Reset);
                }
                written = write_due(&mut to, self.held.front()), if !frozen && !self.held.is_empty() => {
                    self.wrote(written.map_err(|_| End::Reset)?);
                }
                read = from.read(&mut buffer[..room]), if !frozen && !self.finished && room > 0 => {
                    let read = read.map_err(|_| End::Reset)?;
                    self.take(&buffer[..read]);
                }
            }
        }
    }

    fn switch(&mut self, flow: Flow) {
        self.flow = flow;
        self.paced = Instant::now();
        self.left = match flow {
            Flow::Truncate(bytes) | Flow::Corrupt(bytes) => bytes,
            _ => 0,
        };
        if flow == Flow::Discard && !self.held.is_empty() {
            self.throw_away(self.held_bytes);
            self.held.clear();
            self.held_bytes = 0;
        }
        if !matches!(flow, Flow::Delay(_) | Flow::Rate(_)) {
            self.held.iter_mut().for_each(|held| held.due = self.paced);
        }
    }

    /// How much may be read at once: small steps where the pace is limited, no more than is left where
    /// the stream is cut.
    fn room(&self) -> usize {
        if self.held_bytes >= WINDOW {
            return 0;
        }
        let room = match self.flow {
            Flow::Rate(rate) => (rate / 50).max(1),
            Flow::Truncate(_) => self.left,
            _ => CHUNK as u64,
        };
        usize::try_from(room).map_or(CHUNK, |room| room.min(CHUNK))
    }

    /// What was read; nothing where the sender has finished.
    fn take(&mut self, read: &[u8]) {
        self.finished = read.is_empty();
        if self.doomed.is_some() {
            return self.tally.discarded(self.direction, read.len());
        }
        if self.flow == Flow::Discard {
            return self.throw_away(read.len());
        }
        let mut bytes = Vec::with_capacity(read.len());
        let harm = self.framing.pass(read, &mut bytes, |unit| {
            let harm = self.traps.catch(self.connection, self.direction, unit)?;
            self.tally.caught(unit, harm);
            Some(harm)
        });
        self.doomed = harm.map(|harm| match harm {
            Harm::LoseThenHold(time) => Instant::now() + time,
            _ => Instant::now(),
        });
        if let Flow::Truncate(_) = self.flow {
            self.left -= read.len() as u64;
        }
        let last = matches!(self.flow, Flow::Truncate(_)) && self.left == 0;
        if self.finished || last {
            self.framing.rest(&mut bytes);
        }
        if let Flow::Corrupt(_) = self.flow {
            self.corrupt(&mut bytes);
        }
        self.hold(bytes);
    }

    /// Inverts the byte whose turn it is. From then on the flow is as any other.
    fn corrupt(&mut self, bytes: &mut [u8]) {
        match usize::try_from(self.left) {
            Ok(at) if at < bytes.len() => {
                bytes[at] = !bytes[at];
                self.tally.damaged();
                self.flow = Flow::Pass;
            }
            _ => self.left -= bytes.len() as u64,
        }
    }

    fn hold(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let now = Instant::now();
        let due = match self.flow {
            Flow::Delay(delay) => now + delay,
            Flow::Rate(rate) => {
                let takes = bytes.len() as f64 / rate.max(1) as f64;
                self.paced = self.paced.max(now) + Duration::from_secs_f64(takes);
                self.paced
            }
            _ => now,
        };
        self.held_bytes += bytes.len();
        self.held.push_back(Held {
            due,
            bytes,
            written: 0,
        });
    }

    fn wrote(&mut self, bytes: usize) {
        self.tally.forwarded(self.direction, bytes);
        self.held_bytes -= bytes;
        if let Some(front) = self.held.front_mut() {
            front.written += bytes;
            if front.written == front.bytes.len() {
                self.held.pop_front();
            }
        }
    }

    fn throw_away(&mut self, bytes: usize) {
        self.tally.discarded(self.direction, bytes);
        self.lost |= bytes > 0;
    }
}

async fn due(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

/// Cancel safe: an unfinished write has written nothing.
async fn write_due(to: &mut WriteHalf<'_>, front: Option<&Held>) -> io::Result<usize> {
    let Some(front) = front else { return Ok(0) };
    if front.due > Instant::now() {
        due(Some(front.due)).await;
    }
    to.write(&front.bytes[front.written..]).await
}
