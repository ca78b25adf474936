//! Just enough of Redis' protocol for administration commands.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::error::{Error, ErrorKind};

/// What Redis answered to an administration command. An error answer is an [`Error`] instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// No value.
    Nil,
    /// A number.
    Integer(i64),
    /// A status or a string; bytes that are not UTF-8 are replaced.
    Text(String),
    /// A list, possibly nested.
    Array(Vec<Reply>),
}

impl Reply {
    /// The number, where the answer is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, where the answer is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(value) => Some(value),
            _ => None,
        }
    }
}

/// The elements separated by spaces, as for a log line.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("(nil)"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
            Self::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    let space = if index == 0 { "" } else { " " };
                    write!(f, "{space}{element}")?;
                }
                Ok(())
            }
        }
    }
}

/// A connection that sends one command and reads its answer.
#[derive(Debug)]
pub(crate) struct RespConnection {
    stream: BufReader<TcpStream>,
}

impl RespConnection {
    pub(crate) async fn open(addr: impl tokio::net::ToSocketAddrs) -> Result<Self, Error> {
        let stream = TcpStream::connect(addr)
            .await
            .map_err(|error| Error::io("connect to Redis", error))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    pub(crate) async fn call<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Result<Reply, Error> {
        let mut request = format!("*{}\r\n", command.len()).into_bytes();
        for argument in command {
            let argument = argument.as_ref();
            request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            request.extend_from_slice(argument);
            request.extend_from_slice(b"\r\n");
        }
        self.stream
            .write_all(&request)
            .await
            .map_err(|error| Error::io("write to Redis", error))?;
        match read_reply(&mut self.stream)
            .await
            .map_err(|error| Error::io("read from Redis", error))?
        {
            Ok(reply) => Ok(reply),
            Err(refusal) => {
                let name = command
                    .first()
                    .map(|name| String::from_utf8_lossy(name.as_ref()).into_owned());
                Err(Error::new(
                    ErrorKind::Command,
                    format!("Redis refused {}: {refusal}", name.unwrap_or_default()),
                ))
            }
        }
    }
}

/// One command on a connection of its own.
pub(crate) async fn call<A: AsRef<[u8]>>(addr: SocketAddr, command: &[A]) -> Result<Reply, Error> {
    RespConnection::open(addr).await?.call(command).await
}

type ReadReply<'a> = Pin<Box<dyn Future<Output = io::Result<Result<Reply, String>>> + Send + 'a>>;

/// The inner `Err` is Redis' own error text.
fn read_reply(stream: &mut BufReader<TcpStream>) -> ReadReply<'_> {
    Box::pin(async move {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        let number = || {
            rest.parse::<i64>()
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
        };
        Ok(match kind {
            "+" => Ok(Reply::Text(rest.to_owned())),
            "-" => Err(rest.to_owned()),
            ":" => Ok(Reply::Integer(number()?)),
            "$" => match usize::try_from(number()?) {
                Err(_) => Ok(Reply::Nil),
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    stream.read_exact(&mut bytes).await?;
                    bytes.truncate(length);
                    Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
                }
            },
            "*" => match usize::try_from(number()?) {
                Err(_) => Ok(Reply::Nil),
                Ok(length) => {
                    let mut elements = Vec::new();
                    for _ in 0..length {
                        match read_reply(stream).await? {
                            Ok(element) => elements.push(element),
                            Err(refusal) => elements.push(Reply::Text(refusal)),
                        }
                    }
                    Ok(Reply::Array(elements))
                }
            },
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn answer(bytes: &'static [u8]) -> Result<Reply, Error> {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = server.local_addr().expect("bound");
        let serving = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.expect("a client");
            stream.write_all(bytes).await.expect("written");
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.expect("read");
            rest
        });
        let reply = call(addr, &["EVAL", "a b"]).await;
        assert_eq!(
            serving.await.expect("served"),
            b"*2\r\n$4\r\nEVAL\r\n$3\r\na b\r\n"
        );
        reply
    }

    #[tokio::test]
    async fn every_kind_of_reply_is_read() {
        assert_eq!(
            answer(b"+OK\r\n").await.expect("ok"),
            Reply::Text("OK".into())
        );
        assert_eq!(answer(b":-7\r\n").await.expect("ok").integer(), Some(-7));
        assert_eq!(answer(b"$-1\r\n").await.expect("ok"), Reply::Nil);
        let nested = answer(b"*2\r\n$4\r\na\r\nb\r\n*1\r\n:1\r\n")
            .await
            .expect("ok");
        assert_eq!(nested.to_string(), "a\r\nb 1");
    }

    #[tokio::test]
    async fn an_error_reply_is_an_error_with_redis_own_words() {
        let error = answer(b"-ERR unknown command\r\n")
            .await
            .expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Command);
        assert!(error.to_string().contains("unknown command"), "{error}");
    }
}
