//! The frames between client and ledger: a fixed head, then the key. Both sides are of one build.
//!
//! ```text
//! request: message u64 | token u64 | key length u16 | key (UTF-8), all big endian; a length of
//!          65,535 is no key
//! answer:  one byte
//! ```

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::history::Effect;

/// Far above the 128 bytes of a key and the 128 of a queue.
pub(super) const LONGEST_KEY: usize = 1_024;
const HEAD: usize = 18;
const NO_KEY: u16 = u16::MAX;

/// What a client asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) message: u64,
    pub(super) token: u64,
    pub(super) key: Option<String>,
}

impl Request {
    /// Writes it with one call, so that it arrives whole or not at all.
    pub(super) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let key = self.key.as_deref().unwrap_or_default().as_bytes();
        let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "the key is too long");
        if key.len() > LONGEST_KEY {
            return Err(too_long());
        }
        let length = match &self.key {
            Some(_) => u16::try_from(key.len()).map_err(|_| too_long())?,
            None => NO_KEY,
        };
        let mut frame = Vec::with_capacity(HEAD + key.len());
        frame.extend_from_slice(&self.message.to_be_bytes());
        frame.extend_from_slice(&self.token.to_be_bytes());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(key);
        stream.write_all(&frame).await
    }

    /// The next one, or `None` where the client has closed between two.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let message = match stream.read_u64().await {
            Ok(message) => message,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        let token = stream.read_u64().await?;
        let key = match stream.read_u16().await? {
            NO_KEY => None,
            length if usize::from(length) > LONGEST_KEY => {
                return Err(invalid("the key is too long"));
            }
            length => {
                let mut key = vec![0; usize::from(length)];
                stream.read_exact(&mut key).await?;
                Some(String::from_utf8(key).map_err(|_| invalid("the key is not UTF-8"))?)
            }
        };
        Ok(Some(Self {
            message,
            token,
            key,
        }))
    }
}

/// The byte that answers.
pub(super) fn answer(effect: Effect) -> u8 {
    match effect {
        Effect::Accepted => b'a',
        Effect::Stale => b's',
    }
}

/// What the byte means.
pub(super) fn answered(byte: u8) -> io::Result<Effect> {
    match byte {
        b'a' => Ok(Effect::Accepted),
        b's' => Ok(Effect::Stale),
        _ => Err(invalid("the ledger gave an answer that is none")),
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
