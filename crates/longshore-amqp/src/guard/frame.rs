//! The octets of AMQP 0-9-1 frames, and the few methods of the server the guard reads.

use std::fmt;

use super::table::{Malformed, Names, Reader, walk};

pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;
pub(super) const END: u8 = 0xce;

/// Class and method of what the server sends.
pub(super) const CONNECTION_START: (u16, u16) = (10, 10);
pub(super) const CONNECTION_CLOSE: (u16, u16) = (10, 50);
pub(super) const CONNECTION_BLOCKED: (u16, u16) = (10, 60);
pub(super) const CHANNEL_CLOSE: (u16, u16) = (20, 40);
pub(super) const BASIC_RETURN: (u16, u16) = (60, 50);
pub(super) const BASIC_DELIVER: (u16, u16) = (60, 60);
pub(super) const BASIC_GET_OK: (u16, u16) = (60, 71);

/// The largest frame this crate negotiates, RabbitMQ's own default. lapin keeps 32 of them per
/// direction, so a server that offers "unlimited" must not be followed.
pub(crate) const MAX: usize = 131_072;

/// What the broker said of itself when the connection began. lapin keeps it to itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Server {
    /// `RabbitMQ`, or what a lookalike calls itself.
    pub(crate) product: String,
    /// Such as `3.10.8`.
    pub(crate) version: String,
}

impl Server {
    /// Major and minor version, where the broker is RabbitMQ and says so.
    pub(crate) fn rabbitmq(&self) -> Option<(u32, u32)> {
        if !self.product.eq_ignore_ascii_case("rabbitmq") {
            return None;
        }
        let mut numbers = self.version.split(['.', '-', '+']);
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (product, version) = (&self.product, &self.version);
        write!(f, "{product} {version}")
    }
}

/// Class and method of a method frame's payload.
pub(super) fn method(payload: &[u8]) -> Result<(u16, u16), Malformed> {
    let mut reader = Reader::new(payload);
    Ok((reader.u16()?, reader.u16()?))
}

/// Reads `connection.start`.
pub(super) fn server(payload: &[u8]) -> Result<Server, Malformed> {
    const DEPTH: usize = 8;
    let mut reader = Reader::new(payload);
    reader.take(6)?;
    let mut server = Server::default();
    let text = |value: &[u8]| {
        let text = value.get(4..).unwrap_or_default();
        longshore_core::printable(&String::from_utf8_lossy(text), 64)
    };
    walk(&mut reader, DEPTH, Names::Octets, |entry| {
        match (entry.name, entry.kind) {
            (b"product", b'S') => server.product = text(entry.value),
            (b"version", b'S') => server.version = text(entry.value),
            _ => {}
        }
    })?;
    Ok(server)
}

/// What a `basic.return` says: the reply code and the routing key.
pub(super) fn returned(payload: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    let mut reader = Reader::new(payload);
    reader.take(4)?;
    let code = reader.u16()?;
    reader.short_bytes()?;
    reader.short_bytes()?;
    Ok((code, reader.short_bytes()?))
}

/// One field of a method, as far as [`mend_texts`] must know it.
enum Field {
    Skip(usize),
    Text,
}

/// Replaces every octet that is no UTF-8 in the short strings of a method by `?`, in place.
///
/// A publisher chooses the routing key of what it sends to a topic, and the broker cuts its reply
/// texts at 255 octets: lapin ends the whole connection over either.
pub(super) fn mend_texts(method: (u16, u16), payload: &mut [u8]) -> Result<(), Malformed> {
    use Field::{Skip, Text};
    let fields: &[Field] = match method {
        BASIC_DELIVER => &[Skip(4), Text, Skip(9), Text, Text],
        BASIC_GET_OK => &[Skip(13), Text, Text],
        CONNECTION_CLOSE | CHANNEL_CLOSE => &[Skip(6), Text],
        CONNECTION_BLOCKED => &[Skip(4), Text],
        _ => return Ok(()),
    };
    let mut at = 0;
    for field in fields {
        match field {
            Skip(n) => at += n,
            Text => {
                let length = usize::from(*payload.get(at).ok_or(Malformed::Length)?);
                at += 1;
                let text = payload.get_mut(at..at + length).ok_or(Malformed::Length)?;
                mend(text);
                at += length;
            }
        }
    }
    Ok(())
}

fn mend(text: &mut [u8]) {
    let mut from = 0;
    while let Some(Err(error)) = text.get(from..).map(std::str::from_utf8) {
        let start = from + error.valid_up_to();
        let end = error.error_len().map_or(text.len(), |n| start + n);
        if let Some(bad) = text.get_mut(start..end) {
            bad.fill(b'?');
        }
        from = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_keep_their_length_and_become_utf8() {
        for (raw, mended) in [
            (&b"orders"[..], "orders"),
            (b"a\xff\xfeb", "a??b"),
            (b"cut \xc3", "cut ?"),
            (b"\xf0\x9f\x98", "???"),
            ("ü".as_bytes(), "ü"),
        ] {
            let mut text = raw.to_vec();
            mend(&mut text);
            assert_eq!(std::str::from_utf8(&text), Ok(mended));
        }
    }

    #[test]
    fn a_version_is_read_from_rabbitmq_only() {
        let server = |product: &str, version: &str| Server {
            product: product.into(),
            version: version.into(),
        };
        assert_eq!(server("RabbitMQ", "3.10.8").rabbitmq(), Some((3, 10)));
        assert_eq!(server("RabbitMQ", "4.0.0-rc.1").rabbitmq(), Some((4, 0)));
        assert_eq!(server("LavinMQ", "2.0.0").rabbitmq(), None);
        assert_eq!(server("RabbitMQ", "").rabbitmq(), None);
    }
}
