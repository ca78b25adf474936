//! Puts the credentials into `connection.start-ok` on its way to the broker.
//!
//! lapin is given placeholders, so no log, error or `Debug` of it can ever hold a password.

use std::{fmt, io};

use super::table::{Malformed, Reader};

/// What stands in for the real response inside lapin.
pub(crate) const PLACEHOLDER: &str = "\0-\0-";

/// User name and password. Shows neither.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: Secret,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

impl Credentials {
    /// The initial response of SASL PLAIN (RFC 4616).
    fn response(&self) -> Vec<u8> {
        let (user, password) = (&self.user, &self.password.0);
        format!("\0{user}\0{password}").into_bytes()
    }
}

/// Watches the first frames a client writes. Everything after `start-ok` passes untouched.
#[derive(Debug)]
pub(super) struct Login {
    credentials: Credentials,
    held: Vec<u8>,
}

const PROTOCOL_HEADER: usize = 8;
/// Far above any `start-ok` lapin writes.
const LONGEST: usize = 64 * 1024;

impl Login {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            held: Vec::new(),
        }
    }

    /// Takes what lapin wrote; answers what goes out now, and whether the login is done.
    pub(super) fn feed(&mut self, written: &[u8]) -> io::Result<(Vec<u8>, bool)> {
        self.held.extend_from_slice(written);
        let mut out = Vec::new();
        // The protocol header goes out at once: the broker answers it.
        if self.held.starts_with(b"A") {
            if self.held.len() < PROTOCOL_HEADER {
                return Ok((out, false));
            }
            out.extend(self.held.drain(..PROTOCOL_HEADER));
        }
        let Some(length) = self.held.get(3..7).map(|l| Reader::new(l).u32()) else {
            return Ok((out, false));
        };
        let length = length.unwrap_or_default() as usize;
        let whole = 7 + length + 1;
        if whole > LONGEST {
            return Err(io::Error::other(
                "the login frame is larger than any can be",
            ));
        }
        if self.held.len() < whole {
            return Ok((out, false));
        }
        let rest = self.held.split_off(whole);
        let frame = rewrite(&self.held, &self.credentials.response())
            .map_err(|_| io::Error::other("the login frame is not a start-ok"))?;
        self.held.fill(0);
        out.extend(frame);
        out.extend(rest);
        Ok((out, true))
    }
}

/// `start-ok`: client properties, mechanism, response, locale.
fn rewrite(frame: &[u8], response: &[u8]) -> Result<Vec<u8>, Malformed> {
    let payload = frame
        .get(7..frame.len().saturating_sub(1))
        .ok_or(Malformed::Length)?;
    let mut reader = Reader::new(payload);
    if (reader.u16()?, reader.u16()?) != (10, 11) {
        return Err(Malformed::Type);
    }
    reader.long_bytes()?;
    reader.short_bytes()?;
    let before = payload.len() - reader.left();
    reader.long_bytes()?;
    let after = payload.len() - reader.left();

    let (head, tail) = (payload.get(..before), payload.get(after..));
    let (head, tail) = head.zip(tail).ok_or(Malformed::Length)?;
    let length = head.len() + 4 + response.len() + tail.len();
    let mut out = Vec::with_capacity(8 + length);
    out.extend_from_slice(frame.get(..3).ok_or(Malformed::Length)?);
    out.extend((length as u32).to_be_bytes());
    out.extend_from_slice(head);
    out.extend((response.len() as u32).to_be_bytes());
    out.extend_from_slice(response);
    out.extend_from_slice(tail);
    out.push(super::frame::END);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_ok(response: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 10, 0, 11, 0, 0, 0, 0];
        payload.extend(b"\x05PLAIN");
        payload.extend((response.len() as u32).to_be_bytes());
        payload.extend_from_slice(response);
        payload.extend(b"\x05en_US");
        let mut frame = vec![1, 0, 0];
        frame.extend((payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        frame.push(super::super::frame::END);
        frame
    }

    fn login() -> Login {
        Login::new(Credentials {
            user: "me".into(),
            password: Secret("canary".into()),
        })
    }

    #[test]
    fn the_response_is_replaced_however_the_writes_are_split() {
        let mut written = b"AMQP\0\0\x09\x01".to_vec();
        written.extend(start_ok(PLACEHOLDER.as_bytes()));
        written.extend(b"tune-ok and more");
        let mut expected = b"AMQP\0\0\x09\x01".to_vec();
        expected.extend(start_ok(b"\0me\0canary"));
        expected.extend(b"tune-ok and more");
        for split in 0..written.len() {
            let mut login = login();
            let (mut sent, mut done) = (Vec::new(), false);
            for part in [&written[..split], &written[split..]] {
                if done {
                    sent.extend_from_slice(part);
                    continue;
                }
                let (out, now) = login.feed(part).expect("a login");
                sent.extend(out);
                done = now;
            }
            assert!(done);
            assert_eq!(sent, expected, "split at {split}");
        }
    }

    #[test]
    fn neither_part_of_the_credentials_is_shown() {
        let shown = format!("{:?}", login());
        assert!(
            !shown.contains("canary") && !shown.contains("me\""),
            "{shown}"
        );
    }
}
