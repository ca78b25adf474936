//! The runtime lapin sees: tokio, with the guarded stream in the place of its TCP stream.

use std::{
    future::{self, Future},
    io::{self, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use async_rs::{
    Tokio,
    traits::{Executor, Reactor, RuntimeKit},
    util::Task,
};
use futures_util::Stream;

use crate::guard::Guarded;

/// Tokio's executor and timers. Streams are made by [`session`](crate::session), never by lapin.
#[derive(Debug, Clone)]
pub(crate) struct Kit(Tokio);

impl Kit {
    /// Bound to the runtime this is called in.
    pub(crate) fn current() -> Self {
        Self(Tokio::current())
    }
}

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, f: F) -> T {
        self.0.block_on(f)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        f: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn(f)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        f: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(f)
    }
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "streams are made outside lapin")
}

impl Reactor for Kit {
    type TcpStream = Guarded;
    type Sleep = <Tokio as Reactor>::Sleep;

    #[allow(refining_impl_trait)]
    fn register<H: Read + Write + Send + 'static>(&self, _: H) -> io::Result<Guarded> {
        Err(unsupported())
    }

    fn sleep(&self, dur: Duration) -> Self::Sleep {
        self.0.sleep(dur)
    }

    fn interval(&self, dur: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(dur)
    }

    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        future::ready(Err(unsupported()))
    }
}
