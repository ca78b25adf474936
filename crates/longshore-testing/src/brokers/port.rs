//! Ports that nobody else on this machine takes while we hold them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::{Error, ErrorKind};

/// Below Linux's ephemeral range, so that no outgoing connection is given one of our ports between a
/// kill and a restart.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// A TCP port of 127.0.0.1, reserved among all launchers of this machine until it is dropped.
///
/// The reservation is the UDP socket of the same number: brokers do not use it, the operating system
/// frees it when the process dies, and it stays taken while the broker is down.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _reservation: UdpSocket,
}

impl Port {
    pub(crate) fn reserve() -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(u32::MAX);
        if NEXT.load(Ordering::Relaxed) == u32::MAX {
            let _ = NEXT.compare_exchange(
                u32::MAX,
                scattered_start(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
        for _ in 0..COUNT {
            let candidate = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            let number = u16::try_from(candidate)
                .expect("the range ends below 65,536: this is a bug in longshore");
            if let Ok(reservation) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) {
                let port = Self {
                    number,
                    _reservation: reservation,
                };
                if port.is_free() {
                    return Ok(port);
                }
            }
        }
        Err(Error::new(
            ErrorKind::Io,
            format!("no free TCP port between {FIRST} and {}", FIRST + COUNT),
        ))
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }

    /// Whether nothing listens on it, so that a server could.
    pub(crate) fn is_free(&self) -> bool {
        TcpListener::bind(self.addr()).is_ok()
    }
}

/// Processes that start together begin at different places, which only saves failed attempts.
fn scattered_start() -> u32 {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    std::process::id().wrapping_mul(7_919).wrapping_add(nanos) % COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_out_twice() {
        let held: Vec<Port> = (0..50)
            .map(|_| Port::reserve().expect("a free port"))
            .collect();
        let mut numbers: Vec<u16> = held.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), held.len());
        assert!(
            UdpSocket::bind(held[0].addr()).is_err(),
            "another process could take it"
        );
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_free() {
        let port = Port::reserve().expect("a free port");
        assert!(port.is_free());
        let _listener =
            TcpListener::bind(port.addr()).expect("the reserved port can be listened on");
        assert!(!port.is_free());
    }
}
