//! The byte stream under lapin: everything the broker sends is read here first.
//!
//! A RabbitMQ client that can only publish decides what lapin must parse, and lapin aborts or gives
//! up the connection over some of it: tables nested thousands of levels deep, names that are no
//! UTF-8. The guard reads the frames of the server iteratively and
//!
//! - replaces the content header of a delivery that breaks a limit by a blank one with a marker
//!   header, and swallows its body, so that it can be set aside by its delivery tag without ever
//!   having been held in memory;
//! - takes `basic.return` off the stream and keeps a note for the publisher;
//! - reads what the broker says of itself, which lapin hides;
//! - puts the credentials into the login, which lapin never learns;
//! - can be cut from outside, so that lapin's thread never outlives our interest in a connection.

mod content;
mod filter;
mod frame;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod login;
mod returns;
mod table;

use std::{
    collections::BTreeMap,
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use longshore_core::Limits;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use self::{filter::Filter, login::Login};
pub(crate) use self::{
    frame::{MAX as FRAME_MAX, Server},
    login::{Credentials, PLACEHOLDER, Secret},
    returns::{Key as ReturnKey, Returns},
};

/// What the guard of one connection and the rest of the crate tell each other.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Publishes that came back unroutable.
    pub(crate) returns: Returns,
    /// What a message may be at most, on channels that have no limits of their own.
    limits: Limits,
    channels: Mutex<BTreeMap<u16, Limits>>,
    /// Octets of bodies that may wait for whoever reads them.
    room: usize,
    waiting: AtomicUsize,
    marker: Box<str>,
    server: Mutex<Server>,
    cut: AtomicBool,
    ended: AtomicBool,
    end: Notify,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Watch {
    /// `nonce` makes the marker header of this connection unguessable, so that no publisher can
    /// forge a defect.
    ///
    /// With `room`, the stream stops while more octets of bodies than that have passed and were not
    /// [`consumed`](Self::consumed): lapin itself buffers whatever arrives.
    pub(crate) fn new(limits: Limits, nonce: u128, room: Option<usize>) -> Self {
        Self {
            room: room.unwrap_or(usize::MAX),
            waiting: AtomicUsize::new(0),
            returns: Returns::default(),
            limits,
            channels: Mutex::default(),
            marker: format!("longshore-defect-{nonce:032x}").into(),
            server: Mutex::default(),
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            end: Notify::new(),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        }
    }

    /// The header that marks a blanked delivery on this connection.
    pub(crate) fn marker(&self) -> &str {
        &self.marker
    }

    /// What the broker said of itself; empty before the connection was opened.
    pub(crate) fn server(&self) -> Server {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.clone()
    }

    /// What deliveries on this channel may be at most, from now on.
    pub(crate) fn limit(&self, channel: u16, limits: Limits) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.insert(channel, limits);
    }

    /// So many octets of bodies are in nobody's way any more.
    pub(crate) fn consumed(&self, octets: usize) {
        self.waiting.fetch_sub(octets, Ordering::AcqRel);
        self.reader.wake();
    }

    fn passed(&self, octets: usize) {
        if self.room < usize::MAX {
            self.waiting.fetch_add(octets, Ordering::AcqRel);
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > self.room
    }

    /// Ends the stream now: lapin sees a broken connection and its thread ends.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.reader.wake();
        self.writer.wake();
        self.note_end();
    }

    /// Waits until the stream has ended, from either side.
    pub(crate) async fn ended(&self) {
        let mut notified = std::pin::pin!(self.end.notified());
        notified.as_mut().enable();
        if !self.ended.load(Ordering::Acquire) {
            notified.await;
        }
    }

    fn limits(&self, channel: u16) -> Limits {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.get(&channel).copied().unwrap_or(self.limits)
    }

    fn introduce(&self, server: Server) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    fn note_end(&self) {
        self.ended.store(true, Ordering::Release);
        self.end.notify_waiters();
    }

    fn check_cut(&self) -> io::Result<()> {
        match self.cut.load(Ordering::Acquire) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

/// Any byte stream the guard can sit on: TCP or TLS.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Wire for T {}

/// The stream lapin reads and writes.
pub(crate) struct Guarded {
    wire: Box<dyn Wire>,
    watch: Arc<Watch>,
    filter: Filter,
    login: Option<Login>,
    input: Box<[u8]>,
    passed: Out,
    outgoing: Out,
}

/// Octets on their way to one side.
#[derive(Default)]
struct Out {
    octets: Vec<u8>,
    at: usize,
}

impl Out {
    fn rest(&self) -> &[u8] {
        self.octets.get(self.at..).unwrap_or_default()
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
        if self.at >= self.octets.len() {
            self.at = 0;
            self.octets.clear();
        }
    }
}

/// How much is read from the socket at once.
const READ: usize = 64 * 1024;

impl Guarded {
    pub(crate) fn new(wire: Box<dyn Wire>, watch: Arc<Watch>, credentials: Credentials) -> Self {
        Self {
            wire,
            filter: Filter::new(watch.clone()),
            watch,
            login: Some(Login::new(credentials)),
            input: vec![0; READ].into(),
            passed: Out::default(),
            outgoing: Out::default(),
        }
    }

    /// Reads until something passes the filter; the end of the stream passes as 0.
    fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.reader.register(cx.waker());
        self.watch.check_cut()?;
        while self.passed.rest().is_empty() {
            if self.watch.is_full() {
                return Poll::Pending;
            }
            let mut buffer = ReadBuf::new(&mut self.input);
            std::task::ready!(Pin::new(&mut self.wire).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                self.watch.note_end();
                return Poll::Ready(Ok(()));
            }
            self.filter
                .feed(buffer.filled(), &mut self.passed.octets)
                .inspect_err(|error| tracing::error!(%error, "the connection cannot go on"))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what the login has rewritten, before anything else.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.writer.register(cx.waker());
        self.watch.check_cut()?;
        while !self.outgoing.rest().is_empty() {
            let wire = Pin::new(&mut self.wire);
            match std::task::ready!(wire.poll_write(cx, self.outgoing.rest()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.outgoing.consume(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = &result {
            self.watch.note_end();
        }
        result
    }
}

impl futures_io::AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = self.poll_passed(cx);
        std::task::ready!(self.note(read))?;
        let passed = &mut self.passed;
        let taken = into.len().min(passed.rest().len());
        if let (Some(to), Some(from)) = (into.get_mut(..taken), passed.rest().get(..taken)) {
            to.copy_from_slice(from);
        }
        passed.consume(taken);
        Poll::Ready(Ok(taken))
    }
}

impl futures_io::AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        written: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = self.poll_outgoing(cx);
        std::task::ready!(self.note(sent))?;
        if let Some(login) = self.login.as_mut() {
            let (out, done) = login.feed(written)?;
            self.outgoing.octets.extend(out);
            if done {
                self.login = None;
            }
            // What does not fit the socket now goes out with the next write or flush.
            if let Poll::Ready(Err(error)) = self.poll_outgoing(cx) {
                return self.note(Poll::Ready(Err(error)));
            }
            return Poll::Ready(Ok(written.len()));
        }
        let result = Pin::new(&mut self.wire).poll_write(cx, written);
        self.note(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.poll_outgoing(cx);
        std::task::ready!(self.note(sent))?;
        let result = Pin::new(&mut self.wire).poll_flush(cx);
        self.note(result)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.note_end();
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}
