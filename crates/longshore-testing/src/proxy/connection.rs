//! One proxied connection: two sockets, two pumps, one end.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

use super::counters::Tally;
use super::flow::{Direction, Flow};
use super::pump::{End, Pump};
use super::trap::Traps;

#[derive(Debug)]
pub(super) struct Connection {
    id: u64,
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    pub(super) fn new(id: u64, client: TcpStream, server: TcpStream) -> Self {
        // Small frames must not wait for each other: the delay is ours to choose.
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        Self { id, client, server }
    }

    /// Runs until both sides have finished, one has broken, a flow or a trap ends it, or `ended` says so
    /// (or its sender is dropped).
    pub(super) async fn run(
        mut self,
        ended: oneshot::Receiver<End>,
        [to_server, to_client]: [watch::Receiver<Flow>; 2],
        traps: &Traps,
        tally: &Tally,
    ) {
        let end = {
            let (client_reads, client_writes) = self.client.split();
            let (server_reads, server_writes) = self.server.split();
            let pump = |direction| Pump::new(self.id, direction, traps, tally);
            let up = pump(Direction::ToServer).run(client_reads, server_writes, to_server);
            let down = pump(Direction::ToClient).run(server_reads, client_writes, to_client);
            let both = async {
                match tokio::try_join!(up, down) {
                    Ok(_) => End::Close,
                    Err(end) => end,
                }
            };
            tokio::select! {
                biased;
                end = ended => end.unwrap_or(End::Close),
                end = both => end,
            }
        };
        match end {
            End::Reset => {
                let _ = self.client.set_zero_linger();
                let _ = self.server.set_zero_linger();
            }
            End::Close => {
                let _ = self.client.shutdown().await;
                let _ = self.server.shutdown().await;
            }
        }
    }
}
