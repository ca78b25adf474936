//! A client that speaks AMQP by hand, to send what no library would.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A connection with one open channel.
pub(crate) struct Raw(TcpStream);

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0xce);
    out
}

/// A header table `{h: [[[…]]]}`.
pub(crate) fn nested(levels: usize) -> Vec<u8> {
    let mut table = b"\x01h".to_vec();
    for level in (0..levels).rev() {
        table.push(b'A');
        table.extend((5 * level as u32).to_be_bytes());
    }
    table
}

impl Raw {
    pub(crate) async fn connect(url: &str) -> Self {
        let address = url.rsplit('@').next().expect("a host");
        let mut raw = Self(TcpStream::connect(address).await.expect("a connection"));
        raw.0.write_all(b"AMQP\0\0\x09\x01").await.expect("written");
        raw.until(10, 10).await;
        let mut start_ok = vec![0, 10, 0, 11, 0, 0, 0, 0];
        start_ok.extend(b"\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US");
        raw.send(&frame(1, 0, &start_ok)).await;
        let tune = raw.until(10, 30).await;
        let mut tune_ok = vec![0, 10, 0, 31];
        tune_ok.extend(&tune[4..10]);
        tune_ok.extend([0, 0]);
        raw.send(&frame(1, 0, &tune_ok)).await;
        raw.send(&frame(1, 0, &[0, 10, 0, 40, 1, b'/', 0, 0])).await;
        raw.until(10, 41).await;
        raw.send(&frame(1, 1, &[0, 20, 0, 10, 0])).await;
        raw.until(20, 11).await;
        raw
    }

    /// Publishes with this property list (flags and values) and waits until the broker has it.
    pub(crate) async fn publish(
        &mut self,
        exchange: &str,
        routing_key: &[u8],
        flags: u16,
        properties: &[u8],
        body: &[u8],
    ) {
        let mut publish = vec![0, 60, 0, 40, 0, 0];
        publish.push(exchange.len() as u8);
        publish.extend(exchange.bytes());
        publish.push(routing_key.len() as u8);
        publish.extend_from_slice(routing_key);
        publish.push(0);
        let mut header = vec![0, 60, 0, 0];
        header.extend((body.len() as u64).to_be_bytes());
        header.extend(flags.to_be_bytes());
        header.extend_from_slice(properties);
        let mut out = frame(1, 1, &publish);
        out.extend(frame(2, 1, &header));
        for part in body.chunks(100_000) {
            out.extend(frame(3, 1, part));
        }
        self.send(&out).await;
        // A synchronous method behind it: once answered, the message was taken.
        self.send(&frame(1, 1, &[0, 60, 0, 10, 0, 0, 0, 0, 0, 1, 0]))
            .await;
        self.until(60, 11).await;
    }

    /// Publishes with a header table and no other property.
    pub(crate) async fn publish_with_table(&mut self, queue: &str, table: &[u8], body: &[u8]) {
        let mut properties = (table.len() as u32).to_be_bytes().to_vec();
        properties.extend_from_slice(table);
        self.publish("", queue.as_bytes(), 1 << 13, &properties, body)
            .await;
    }

    /// Declares a durable classic queue.
    pub(crate) async fn declare_classic(&mut self, queue: &str) {
        let mut declare = vec![0, 50, 0, 10, 0, 0, queue.len() as u8];
        declare.extend(queue.bytes());
        declare.extend([0b10, 0, 0, 0, 0]);
        self.send(&frame(1, 1, &declare)).await;
        self.until(50, 11).await;
    }

    /// Begins to consume a queue. What is delivered is never read.
    pub(crate) async fn consume(&mut self, queue: &str) {
        let mut consume = vec![0, 60, 0, 20, 0, 0, queue.len() as u8];
        consume.extend(queue.bytes());
        consume.extend([0, 0, 0, 0, 0, 0]);
        self.send(&frame(1, 1, &consume)).await;
        self.until(60, 21).await;
    }

    async fn send(&mut self, octets: &[u8]) {
        self.0.write_all(octets).await.expect("written");
    }

    async fn until(&mut self, class: u16, method: u16) -> Vec<u8> {
        loop {
            let mut head = [0; 7];
            self.0.read_exact(&mut head).await.expect("a frame");
            let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
            let mut payload = vec![0; length as usize + 1];
            self.0.read_exact(&mut payload).await.expect("a payload");
            let found = (
                u16::from_be_bytes([payload[0], payload[1]]),
                u16::from_be_bytes([payload[2], payload[3]]),
            );
            if head[0] == 1 && found == (class, method) {
                return payload;
            }
            let text = String::from_utf8_lossy(&payload);
            assert!(!matches!(found, (10, 50) | (20, 40)), "closed: {text}");
        }
    }
}
