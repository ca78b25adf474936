//! A TCP proxy that breaks connections in the ways networks do.
//!
//! Put it between a client and a broker, and switch it while both run:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use longshore_testing::proxy::{Direction, Flow, Harm, Method, Proxy, Trap};
//!
//! let proxy = Proxy::start("127.0.0.1:5672").await?;
//! let url = proxy.url("amqp://guest:guest@127.0.0.1:5672"); // for the client under test
//! proxy.set_both(Flow::Freeze); // half-open: sockets stay, nothing passes
//! proxy.set(Direction::ToClient, Flow::Discard); // answers are lost, requests arrive
//! proxy.reset_all().await; // RST on every connection
//! proxy.connections()[0].set_both(Flow::Freeze); // the oldest connection alone
//! proxy.trap(Trap::method(Direction::ToClient, Method::BASIC_ACK, Harm::Lose).nth(3)); // a lost confirm
//! proxy.pass().await?; // all well again
//! # Ok(())
//! # }
//! ```

mod connection;
mod counters;
mod flow;
mod framing;
mod link;
mod pump;
#[cfg(test)]
mod tests;
mod trap;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use connection::Connection;
use counters::Tally;
use link::{Flows, Live};
use pump::End;
use trap::Traps;

pub use counters::Counters;
pub use flow::{Direction, Flow};
pub use link::Link;
pub use trap::{Harm, Method, Trap};

/// A listening proxy on a free port of 127.0.0.1, in front of one upstream address.
///
/// What is set applies to existing and to new connections alike, and to every byte sent after the setting
/// call has returned. It must be used within the tokio runtime it was started on. Dropping it closes its
/// listener and all its connections.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    // Bound and never listening: keeps the port ours while new connections are refused.
    _reservation: TcpSocket,
    accepting: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    links: Mutex<Links>,
    traps: Traps,
    tally: Tally,
}

#[derive(Debug)]
struct Links {
    live: BTreeMap<u64, Live>,
    /// What a new connection begins with, by direction.
    flows: [Flow; 2],
}

impl Proxy {
    /// Listens and passes everything on to `upstream`, which need not be up yet. A name is resolved once, now.
    ///
    /// # Errors
    /// The upstream's name does not resolve, or no port can be bound.
    pub async fn start(upstream: impl ToSocketAddrs) -> io::Result<Self> {
        let unresolved = || {
            io::Error::new(
                io::ErrorKind::NotFound,
                "the upstream's name has no address",
            )
        };
        let upstream = tokio::net::lookup_host(upstream)
            .await?
            .next()
            .ok_or_else(unresolved)?;
        let reservation = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let addr = reservation.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            links: Mutex::new(Links {
                live: BTreeMap::new(),
                flows: [Flow::Pass; 2],
            }),
            traps: Traps::default(),
            tally: Tally::default(),
        });
        let proxy = Self {
            addr,
            _reservation: reservation,
            accepting: Mutex::default(),
            shared,
        };
        proxy.accept_new()?;
        Ok(proxy)
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A broker's URL with its (single) host and port replaced by the proxy's; credentials and path stay.
    pub fn url(&self, of: &str) -> String {
        let (scheme, rest) = of.split_once("://").unwrap_or(("", of));
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let credentials = authority.rfind('@').map_or("", |at| &authority[..=at]);
        format!("{scheme}://{credentials}{}{path}", self.addr)
    }

    /// Changes what happens to the bytes of one direction.
    pub fn set(&self, direction: Direction, flow: Flow) {
        let mut links = lock(&self.shared.links);
        links.flows[direction as usize] = flow;
        for live in links.live.values() {
            live.flows.set(direction, flow);
        }
    }

    /// Changes what happens to the bytes of one direction of every connection that is made from now on.
    pub fn set_new(&self, direction: Direction, flow: Flow) {
        lock(&self.shared.links).flows[direction as usize] = flow;
    }

    /// Changes what happens to the bytes of both directions.
    pub fn set_both(&self, flow: Flow) {
        self.set(Direction::ToServer, flow);
        self.set(Direction::ToClient, flow);
    }

    /// Catches what comes from now on, on any connection. Several traps may be set at once, each counts for
    /// itself; [`pass`](Self::pass) removes those that have not sprung for the last time.
    pub fn trap(&self, trap: Trap) {
        self.shared.traps.arm(trap, None);
    }

    /// Back to normal: both directions of every connection pass, new connections are accepted, and there
    /// are no traps.
    ///
    /// # Errors
    /// The port cannot be listened on again.
    pub async fn pass(&self) -> io::Result<()> {
        self.shared.traps.disarm();
        self.set_both(Flow::Pass);
        self.accept_new()
    }

    /// Refuses new connections from now on (`ECONNREFUSED`); existing ones go on. [`pass`](Self::pass) ends it.
    pub async fn refuse_new(&self) {
        let accepting = lock(&self.accepting).take();
        if let Some(task) = accepting {
            task.abort();
            // Awaited, because the listener is closed when the task is dropped, not when it is told to be.
            let _ = task.await;
        }
    }

    /// Cuts every connection with an RST to both sides; returns their number once they are cut.
    pub async fn reset_all(&self) -> usize {
        self.end_all(End::Reset).await
    }

    /// Closes every connection with a FIN to both sides; returns their number once they are closed.
    pub async fn close_all(&self) -> usize {
        self.end_all(End::Close).await
    }

    /// The connections that are open now, the oldest first.
    pub fn connections(&self) -> Vec<Link> {
        let link = |id: &u64| Link {
            id: *id,
            shared: Arc::clone(&self.shared),
        };
        lock(&self.shared.links).live.keys().map(link).collect()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        let live = lock(&self.shared.links).live.len();
        self.shared.tally.read(live)
    }

    async fn end_all(&self, end: End) -> usize {
        let ended = std::mem::take(&mut lock(&self.shared.links).live);
        let count = ended.len();
        for live in ended.into_values() {
            live.end(end).await;
        }
        count
    }

    fn accept_new(&self) -> io::Result<()> {
        let mut accepting = lock(&self.accepting);
        if accepting.is_none() {
            let listener = bound(self.addr)?.listen(1024)?;
            *accepting = Some(tokio::spawn(accept(listener, Arc::clone(&self.shared))));
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.accepting).take() {
            task.abort();
        }
        for live in std::mem::take(&mut lock(&self.shared.links).live).into_values() {
            let _ = live.end.send(End::Close);
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: others get a chance to give some back.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let id = shared.tally.accepted();
        let (end, ended) = oneshot::channel();
        // Registered under the lock before the task can look for itself.
        let mut links = lock(&shared.links);
        let flows = Flows::new(links.flows);
        let serve = serve(client, id, ended, flows.subscribe(), Arc::clone(&shared));
        let task = tokio::spawn(serve);
        links.live.insert(id, Live { end, task, flows });
    }
}

async fn serve(
    client: TcpStream,
    id: u64,
    mut ended: oneshot::Receiver<End>,
    flows: [watch::Receiver<Flow>; 2],
    shared: Arc<Shared>,
) {
    tokio::select! {
        biased;
        end = &mut ended => {
            if end == Ok(End::Reset) {
                let _ = client.set_zero_linger();
            }
        }
        connected = TcpStream::connect(shared.upstream) => match connected {
            Ok(server) => {
                let connection = Connection::new(id, client, server);
                connection.run(ended, flows, &shared.traps, &shared.tally).await;
            }
            Err(_) => {
                shared.tally.upstream_failed();
                let _ = client.set_zero_linger();
            }
        },
    }
    lock(&shared.links).live.remove(&id);
}

/// Two sockets may be bound to one port as long as at most one of them listens.
fn bound(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

/// Every critical section leaves the value whole, so a panic elsewhere does not make it unusable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
