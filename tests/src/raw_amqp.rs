//! An AMQP 0-9-1 client that sends whatever bytes it is told to, and shows the bytes it gets.
//!
//! Ordinary clients refuse to build what a hostile one would send. Blocking, one channel, no
//! heartbeats: for tests alone.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// A property of a message, in the order in which they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Property {
    ContentType,
    ContentEncoding,
    Headers,
    DeliveryMode,
    Priority,
    CorrelationId,
    ReplyTo,
    Expiration,
    MessageId,
    Timestamp,
    Type,
    UserId,
    AppId,
    ClusterId,
}

use Property::{
    AppId, ClusterId, ContentEncoding, ContentType, CorrelationId, DeliveryMode, Expiration,
    Headers, MessageId, Priority, ReplyTo, Timestamp, Type, UserId,
};

const ALL: [Property; 14] = [
    ContentType,
    ContentEncoding,
    Headers,
    DeliveryMode,
    Priority,
    CorrelationId,
    ReplyTo,
    Expiration,
    MessageId,
    Timestamp,
    Type,
    UserId,
    AppId,
    ClusterId,
];

/// The properties of a message: the octets of each, without the length in front of strings and
/// tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties(pub BTreeMap<Property, Vec<u8>>);

/// A message, bytes only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawMessage {
    /// Its properties.
    pub properties: Properties,
    /// Its body.
    pub body: Vec<u8>,
}

impl Properties {
    /// Sets one.
    #[must_use]
    pub fn with(mut self, property: Property, octets: impl AsRef<[u8]>) -> Self {
        self.0.insert(property, octets.as_ref().to_vec());
        self
    }

    /// The same with every table sorted by name: the order in a table means nothing.
    ///
    /// # Panics
    /// When a table is malformed.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        if let Some(table) = self.0.get_mut(&Headers) {
            *table = sorted(table, SORTED_LEVELS);
        }
        self
    }

    /// As a redrive sends them back: with the one header that says so, and in canonical order.
    #[must_use]
    pub fn redriven(mut self) -> Self {
        let table = self.0.entry(Headers).or_default();
        table.extend(entry(b"longshore-redriven", b't', &[1]));
        self.canonical()
    }

    /// Removes the headers whose names are accepted; no header left is no table.
    ///
    /// # Panics
    /// When the table is malformed.
    #[must_use]
    pub fn without_headers(mut self, mut which: impl FnMut(&str) -> bool) -> Self {
        let Some(table) = self.0.remove(&Headers) else {
            return self;
        };
        let mut kept = Vec::new();
        for (name, kind, value) in entries(&table) {
            if !which(&String::from_utf8_lossy(&name)) {
                kept.extend(entry(&name, kind, &value));
            }
        }
        if !kept.is_empty() {
            self.0.insert(Headers, kept);
        }
        self
    }

    fn encode(&self) -> Vec<u8> {
        let mut flags = 0_u16;
        let mut octets = Vec::new();
        for (property, value) in &self.0 {
            flags |= 1 << (15 - *property as u16);
            match property {
                Headers => octets.extend(long(value)),
                DeliveryMode | Priority | Timestamp => octets.extend(value),
                _ => octets.extend(short(value)),
            }
        }
        [flags.to_be_bytes().as_slice(), &octets].concat()
    }

    fn decode(octets: &[u8]) -> Self {
        let (flags, mut rest) = octets.split_at(2);
        let flags = u16::from_be_bytes([flags[0], flags[1]]);
        let mut found = BTreeMap::new();
        for property in ALL {
            if flags & (1 << (15 - property as u16)) == 0 {
                continue;
            }
            let value = match property {
                Headers => take_long(&mut rest),
                DeliveryMode | Priority => take(&mut rest, 1),
                Timestamp => take(&mut rest, 8),
                _ => take_short(&mut rest),
            };
            found.insert(property, value);
        }
        assert!(rest.is_empty(), "octets after the properties");
        Self(found)
    }
}

/// One entry of a table: a name, a type octet and the value as the type wants it.
pub fn entry(name: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
    [&short(name), [kind].as_slice(), value].concat()
}

/// One entry of a table that is a string.
pub fn text_entry(name: &str, value: &[u8]) -> Vec<u8> {
    entry(name.as_bytes(), b'S', &long(value))
}

/// A long string, table or array: four octets of length and the octets.
///
/// # Panics
/// Above 4 GiB.
pub fn long(octets: &[u8]) -> Vec<u8> {
    let length = u32::try_from(octets.len()).expect("fits a long string");
    [length.to_be_bytes().as_slice(), octets].concat()
}

/// A table of one entry that holds arrays inside arrays, so many levels deep with the table.
pub fn nested_arrays(levels: usize) -> Vec<u8> {
    let mut value = Vec::new();
    for level in 1..levels {
        value = long(&value);
        if level + 1 < levels {
            value.insert(0, b'A');
        }
    }
    entry(b"bomb", b'A', &value)
}

/// A table of one entry that holds tables inside tables, so many levels deep with the table.
pub fn nested_tables(levels: usize) -> Vec<u8> {
    let mut value = Vec::new();
    for level in 1..levels {
        value = long(&value);
        if level + 1 < levels {
            value = [b"\x01t\x46".as_slice(), &value].concat();
        }
    }
    entry(b"bomb", b'F', &value)
}

/// The entries of a table as name, type octet and value.
///
/// # Panics
/// When the table is malformed.
pub fn entries(mut table: &[u8]) -> Vec<(Vec<u8>, u8, Vec<u8>)> {
    let mut found = Vec::new();
    while !table.is_empty() {
        let name = take_short(&mut table);
        let (kind, value) = take_value(&mut table);
        found.push((name, kind, value));
    }
    found
}

/// A connection with one channel in confirm mode.
#[derive(Debug)]
pub struct RawAmqp {
    stream: TcpStream,
    frame_max: usize,
}

struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

impl RawAmqp {
    /// Connects to `amqp://user:password@host:port[/vhost]`, nothing fancier.
    ///
    /// # Errors
    /// The connection was refused or broke.
    ///
    /// # Panics
    /// When the address or what the broker says is not understood.
    pub fn connect(url: &str) -> io::Result<Self> {
        let rest = url.strip_prefix("amqp://").expect("an amqp URL");
        let (login, rest) = rest.split_once('@').unwrap_or(("guest:guest", rest));
        let (host, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let vhost = if vhost.is_empty() { "/" } else { vhost };
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut raw = Self {
            stream,
            frame_max: 131_072,
        };
        raw.stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        raw.expect(10, 10)?;
        let response = format!("\0{}", login.replacen(':', "\0", 1));
        let start_ok = [
            long(b""),
            short(b"PLAIN"),
            long(response.as_bytes()),
            short(b"en_US"),
        ];
        raw.method(0, 10, 11, &start_ok.concat())?;
        let tune = raw.expect(10, 30)?;
        let frame_max = u32::from_be_bytes(tune[2..6].try_into().expect("four octets"));
        raw.frame_max = frame_max as usize;
        raw.method(0, 10, 31, &[&tune[..6], &[0, 0]].concat())?;
        raw.method(
            0,
            10,
            40,
            &[short(vhost.as_bytes()), short(b""), vec![0]].concat(),
        )?;
        raw.expect(10, 41)?;
        raw.method(1, 20, 10, &short(b""))?;
        raw.expect(20, 11)?;
        raw.method(1, 85, 10, &[0])?;
        raw.expect(85, 11)?;
        Ok(raw)
    }

    /// Publishes to a queue and waits until the broker has taken it.
    ///
    /// # Errors
    /// The broker refused it or closed the connection.
    pub fn publish(&mut self, queue: &str, message: &RawMessage) -> io::Result<()> {
        let to = [vec![0, 0], short(b""), short(queue.as_bytes()), vec![0]];
        self.method(1, 60, 40, &to.concat())?;
        let mut header = [0, 60, 0, 0].to_vec();
        header.extend((message.body.len() as u64).to_be_bytes());
        header.extend(message.properties.encode());
        self.frame(2, 1, &header)?;
        for piece in message.body.chunks(self.frame_max - 8) {
            self.frame(3, 1, piece)?;
        }
        self.expect(60, 80).map(drop)
    }

    /// The message at the head of a queue, without the counter the broker adds to what it delivers.
    /// It is back once this connection is dropped.
    ///
    /// # Errors
    /// The connection broke.
    pub fn get(&mut self, queue: &str) -> io::Result<Option<RawMessage>> {
        let from = [vec![0, 0], short(queue.as_bytes()), vec![0]];
        self.method(1, 60, 70, &from.concat())?;
        let frame = self.read()?;
        match (frame.kind, &frame.payload[..4]) {
            (1, [0, 60, 0, 71]) => {}
            (1, [0, 60, 0, 72]) => return Ok(None),
            _ => return Err(unexpected(&frame)),
        }
        let header = self.read()?.payload;
        let size = u64::from_be_bytes(header[4..12].try_into().map_err(io::Error::other)?);
        let counter = |name: &str| name == "x-delivery-count";
        let properties = Properties::decode(&header[12..]).without_headers(counter);
        let mut body = Vec::new();
        while (body.len() as u64) < size {
            body.extend(self.read()?.payload);
        }
        Ok(Some(RawMessage { properties, body }))
    }

    fn method(
        &mut self,
        channel: u16,
        class: u16,
        method: u16,
        arguments: &[u8],
    ) -> io::Result<()> {
        let head = [class.to_be_bytes(), method.to_be_bytes()].concat();
        self.frame(1, channel, &[&head, arguments].concat())
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) -> io::Result<()> {
        let mut octets = vec![kind];
        octets.extend(channel.to_be_bytes());
        octets.extend(long(payload));
        octets.push(0xce);
        self.stream.write_all(&octets)
    }

    fn expect(&mut self, class: u16, method: u16) -> io::Result<Vec<u8>> {
        let frame = self.read()?;
        let wanted = [class.to_be_bytes(), method.to_be_bytes()].concat();
        match frame.payload.strip_prefix(&wanted[..]) {
            Some(arguments) if frame.kind == 1 => Ok(arguments.to_vec()),
            _ => Err(unexpected(&frame)),
        }
    }

    /// Heartbeats are passed over.
    fn read(&mut self) -> io::Result<Frame> {
        loop {
            let mut head = [0; 7];
            self.stream.read_exact(&mut head)?;
            let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
            let mut payload = vec![0; length + 1];
            self.stream.read_exact(&mut payload)?;
            payload.pop();
            if head[0] != 8 {
                return Ok(Frame {
                    kind: head[0],
                    payload,
                });
            }
        }
    }
}

fn unexpected(frame: &Frame) -> io::Error {
    let shown =
        String::from_utf8_lossy(&frame.payload[..frame.payload.len().min(300)]).into_owned();
    io::Error::other(format!("frame {}: {shown:?}", frame.kind))
}

fn short(octets: &[u8]) -> Vec<u8> {
    let length = u8::try_from(octets.len()).expect("fits a short string");
    [[length].as_slice(), octets].concat()
}

fn take(rest: &mut &[u8], n: usize) -> Vec<u8> {
    let (taken, left) = rest.split_at(n);
    *rest = left;
    taken.to_vec()
}

fn take_short(rest: &mut &[u8]) -> Vec<u8> {
    let length = take(rest, 1)[0];
    take(rest, usize::from(length))
}

fn take_long(rest: &mut &[u8]) -> Vec<u8> {
    let length = take(rest, 4);
    take(
        rest,
        u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize,
    )
}

/// Type octet and value, the length in front of the value kept.
fn take_value(rest: &mut &[u8]) -> (u8, Vec<u8>) {
    let kind = take(rest, 1)[0];
    let value = match kind {
        b'V' => Vec::new(),
        b't' | b'b' | b'B' => take(rest, 1),
        b's' | b'U' | b'u' => take(rest, 2),
        b'I' | b'i' | b'f' => take(rest, 4),
        b'D' => take(rest, 5),
        b'L' | b'l' | b'd' | b'T' => take(rest, 8),
        b'S' | b'x' | b'A' | b'F' => long(&take_long(rest)),
        other => panic!("type octet {other}"),
    };
    (kind, value)
}

/// Deeper than this nothing is sorted any more: tests nest deeper than any stack.
const SORTED_LEVELS: usize = 16;

fn sorted(table: &[u8], levels: usize) -> Vec<u8> {
    let mut found = entries(table);
    found.sort();
    let sorted_entry = |(name, kind, value): (Vec<u8>, u8, Vec<u8>)| {
        entry(&name, kind, &sorted_value(kind, value, levels))
    };
    found.into_iter().flat_map(sorted_entry).collect()
}

fn sorted_value(kind: u8, value: Vec<u8>, levels: usize) -> Vec<u8> {
    let Some(levels) = levels.checked_sub(1) else {
        return value;
    };
    match kind {
        b'F' => long(&sorted(&value[4..], levels)),
        b'A' => {
            let mut rest = &value[4..];
            let mut items = Vec::new();
            while !rest.is_empty() {
                let (kind, value) = take_value(&mut rest);
                items.push(kind);
                items.extend(sorted_value(kind, value, levels));
            }
            long(&items)
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_as_they_were_written() {
        let headers = [
            entry(b"b", b'I', &7_i32.to_be_bytes()),
            nested_tables(5),
            nested_arrays(5),
        ];
        let properties = Properties::default()
            .with(Headers, headers.concat())
            .with(DeliveryMode, [2])
            .with(MessageId, b"\xff\x00id")
            .with(Timestamp, 9_u64.to_be_bytes());
        let read = Properties::decode(&properties.encode());
        assert_eq!(read, properties);
        let names: Vec<Vec<u8>> = entries(&read.canonical().0[&Headers])
            .into_iter()
            .map(|(name, _, _)| name)
            .collect();
        assert_eq!(names, [b"b".to_vec(), b"bomb".to_vec(), b"bomb".to_vec()]);
    }
}
