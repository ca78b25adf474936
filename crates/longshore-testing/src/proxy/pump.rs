//! The pump that moves the bytes of one direction.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::counters::Tally;
use super::flow::{Direction, Flow};

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

/// Moves bytes from one side to the other until the stream has ended in this direction.
///
/// # Errors
/// How the whole connection has to end, where this direction decides that.
pub(super) async fn pump(
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut flows: watch::Receiver<Flow>,
    tally: &Tally,
) -> Result<(), End> {
    let mut flow = *flows.borrow_and_update();
    let mut left = flow.left();
    let mut held: VecDeque<Held> = VecDeque::new();
    let mut held_bytes = 0;
    let mut finished = false;
    let mut lost = false;
    let mut paced = Instant::now();
    let mut buffer = vec![0; CHUNK];
    loop {
        let frozen = flow == Flow::Freeze;
        let passes = !frozen && flow != Flow::Discard;
        if passes && lost {
            return Err(End::Reset);
        }
        if passes && held.is_empty() {
            if left == Some(0) {
                return Err(End::Close);
            }
            if finished {
                let _ = to.shutdown().await;
                return Ok(());
            }
        }
        let room = read_limit(flow, left);
        tokio::select! {
            biased;
            changed = flows.changed() => {
                // The proxy is gone.
                changed.map_err(|_| End::Close)?;
                flow = *flows.borrow_and_update();
                left = flow.left();
                paced = Instant::now();
                if flow == Flow::Discard && !held.is_empty() {
                    tally.discarded(direction, held_bytes);
                    held.clear();
                    held_bytes = 0;
                    lost = true;
                }
                if !matches!(flow, Flow::Delay(_) | Flow::Rate(_)) {
                    held.iter_mut().for_each(|held| held.due = paced);
                }
            }
            written = write_due(&mut to, held.front()), if !frozen && !held.is_empty() => {
                let written = written.map_err(|_| End::Reset)?;
                tally.forwarded(direction, written);
                held_bytes -= written;
                if let Some(front) = held.front_mut() {
                    front.written += written;
                    if front.written == front.bytes.len() {
                        held.pop_front();
                    }
                }
            }
            read = from.read(&mut buffer[..room]), if !frozen && !finished && room > 0 && held_bytes < WINDOW => {
                let read = read.map_err(|_| End::Reset)?;
                finished = read == 0;
                if flow == Flow::Discard {
                    tally.discarded(direction, read);
                    lost |= read > 0;
                } else if read > 0 {
                    let due = due(flow, &mut paced, read);
                    held.push_back(Held { due, bytes: buffer[..read].to_vec(), written: 0 });
                    held_bytes += read;
                    left = left.map(|left| left - read as u64);
                }
            }
        }
    }
}

/// Cancel safe: an unfinished write has written nothing.
async fn write_due(to: &mut WriteHalf<'_>, front: Option<&Held>) -> std::io::Result<usize> {
    let Some(front) = front else { return Ok(0) };
    if front.due > Instant::now() {
        tokio::time::sleep_until(front.due).await;
    }
    to.write(&front.bytes[front.written..]).await
}

/// Small steps where the pace is limited, no more than is left where the stream is cut.
fn read_limit(flow: Flow, left: Option<u64>) -> usize {
    let limit = match flow {
        Flow::Rate(rate) => (rate / 50).max(1),
        _ => CHUNK as u64,
    };
    usize::try_from(limit.min(left.unwrap_or(limit))).map_or(CHUNK, |limit| limit.min(CHUNK))
}

fn due(flow: Flow, paced: &mut Instant, bytes: usize) -> Instant {
    let now = Instant::now();
    match flow {
        Flow::Delay(delay) => now + delay,
        Flow::Rate(rate) => {
            *paced = (*paced).max(now) + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            *paced
        }
        _ => now,
    }
}
