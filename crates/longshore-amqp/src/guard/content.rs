//! Judges the content header of a message before lapin may parse it.

use std::collections::BTreeSet;

use longshore_core::{Defect, Limits, Reason};

use super::table::{Entry, Malformed, Names, Reader, walk};

/// Headers the broker or this crate adds, which a publisher's limits do not pay for.
const OURS: [&str; 4] = ["x-death", "x-first-death-", "x-last-death-", "longshore-"];
/// What the headers of [`OURS`] may take together: eight hops of the ladder and a dead letter's detail.
const OURS_BYTES: usize = 24 * 1024;
const OURS_COUNT: usize = 64;

/// Class, weight, body size and property flags.
const HEAD: usize = 14;

/// What the filter must know of a content header.
#[derive(Debug, Default)]
pub(super) struct Content<'a> {
    pub(super) body: u64,
    pub(super) message_id: &'a [u8],
    /// How many octets are left where the header table begins, and where it ends.
    table: [usize; 2],
}

/// The declared body size, where the payload is long enough to hold one.
pub(super) fn body_size(payload: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(payload);
    reader.u32().ok()?;
    reader.u64().ok()
}

/// Reads a content header's payload. What it accepts, lapin can parse without deep recursion.
///
/// # Errors
/// The defect to tell instead of the message.
pub(super) fn judge<'a>(payload: &'a [u8], limits: &Limits) -> Result<Content<'a>, Defect> {
    let hostile = |detail: &str| Defect::new(Reason::Hostile, detail);
    let malformed = |why| {
        hostile(match why {
            Malformed::Length => "the properties are cut short or lie about a length",
            Malformed::Text => "a property or header name is no UTF-8",
            Malformed::Type => "a header has a type that does not exist",
            Malformed::Depth => "the headers are nested deeper than the limit",
        })
    };
    let mut weight = Weight::default();
    let add = |entry| weight.add(entry);
    let content = read(payload, limits.header_depth, Names::Text, add).map_err(malformed)?;
    if content.body > limits.body as u64 {
        return Err(Defect::too_large(content.body, limits.body));
    }
    if weight.count > limits.headers || weight.ours_count > OURS_COUNT.max(limits.headers) {
        let may = limits.headers;
        return Err(hostile(&format!(
            "{} headers, the limit is {may}",
            weight.count.max(weight.ours_count)
        )));
    }
    if weight.bytes > limits.header_bytes || weight.ours_bytes > OURS_BYTES.max(limits.header_bytes)
    {
        let may = limits.header_bytes;
        return Err(hostile(&format!(
            "{} bytes of headers, the limit is {may}",
            weight.bytes.max(weight.ours_bytes)
        )));
    }
    if weight.twice {
        return Err(hostile("a header name appears twice"));
    }
    Ok(content)
}

/// How heavy the outermost header table is.
#[derive(Debug, Default)]
struct Weight<'a> {
    count: usize,
    bytes: usize,
    ours_count: usize,
    ours_bytes: usize,
    names: BTreeSet<&'a [u8]>,
    twice: bool,
}

impl<'a> Weight<'a> {
    fn add(&mut self, entry: Entry<'a>) {
        let bytes = entry.name.len() + entry.value.len();
        if OURS
            .iter()
            .any(|ours| entry.name.starts_with(ours.as_bytes()))
        {
            self.ours_count += 1;
            self.ours_bytes += bytes;
        } else {
            self.count += 1;
            self.bytes += bytes;
        }
        // lapin keeps one of two equal names: a copy would not be the message any more.
        self.twice |= !self.names.insert(entry.name);
    }
}

/// AMQP 0-9-1 §4.2.6.1: class, weight, body size, property flags, then the properties present.
fn read<'a>(
    payload: &'a [u8],
    depth: usize,
    names: Names,
    mut visit: impl FnMut(Entry<'a>),
) -> Result<Content<'a>, Malformed> {
    let mut reader = Reader::new(payload);
    reader.u32()?;
    let mut content = Content {
        body: reader.u64()?,
        ..Content::default()
    };
    let flags = reader.u16()?;
    // Bit 0 announces more flags, bit 1 has no property: nobody sends them.
    if flags & 0b11 != 0 {
        return Err(Malformed::Type);
    }
    for bit in (2..16).rev() {
        if flags & (1 << bit) == 0 {
            continue;
        }
        match bit {
            13 => {
                let begin = reader.left();
                walk(&mut reader, depth, names, &mut visit)?;
                content.table = [begin, reader.left()];
            }
            12 | 11 => drop(reader.u8()?),
            6 => drop(reader.u64()?),
            7 => content.message_id = reader.short(names)?,
            _ => drop(reader.short(names)?),
        }
    }
    match reader.left() {
        0 => Ok(content),
        _ => Err(Malformed::Length),
    }
}

/// Tells one unreadable message from another, the same at every delivery: a 64-bit FNV-1a hash of
/// what its publisher set, without what the broker counts there and in whatever order the broker
/// puts the headers when it does.
pub(super) fn fingerprint(payload: &[u8]) -> u64 {
    let mut headers = 0_u64;
    let content = read(payload, usize::MAX, Names::Octets, |entry| {
        let Entry { name, kind, value } = entry;
        if !matches!(name, b"x-delivery-count" | b"x-acquired-count") {
            let mut hash = Fnv::default();
            hash.add(&[u8::try_from(name.len()).unwrap_or(u8::MAX)]);
            hash.add(name);
            hash.add(&[kind]);
            hash.add(value);
            headers = headers.wrapping_add(hash.0);
        }
    });
    let mut hash = Fnv::default();
    match content {
        Ok(content) => {
            let [begin, end] = content.table.map(|left| payload.len() - left);
            hash.add(&content.body.to_be_bytes());
            hash.add(&headers.to_be_bytes());
            // The flags tell whether there are headers, and those the broker adds.
            hash.add(payload.get(HEAD..begin).unwrap_or_default());
            hash.add(payload.get(end..).unwrap_or_default());
        }
        // RabbitMQ itself refuses to hand on what it cannot read.
        Err(_) => hash.add(payload),
    }
    hash.0
}

struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = (self.0 ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// A content header frame that stands for a message nobody may parse: no body, and one header
/// named `marker` that tells the defect and the message's fingerprint.
pub(super) fn blank_frame(
    channel: u16,
    marker: &str,
    defect: &Defect,
    fingerprint: u64,
) -> Vec<u8> {
    let (reason, detail) = (defect.reason.as_str(), &defect.detail);
    let told = format!("{reason}\n{fingerprint:016x}\n{detail}");
    let mut table = Vec::with_capacity(64 + told.len());
    table.push(u8::try_from(marker.len()).unwrap_or(u8::MAX));
    table.extend(marker.bytes().take(usize::from(u8::MAX)));
    table.push(b'S');
    table.extend((told.len() as u32).to_be_bytes());
    table.extend(told.bytes());

    let mut payload = Vec::with_capacity(18 + table.len());
    payload.extend(60_u16.to_be_bytes());
    payload.extend(0_u16.to_be_bytes());
    payload.extend(0_u64.to_be_bytes());
    payload.extend((1_u16 << 13).to_be_bytes());
    payload.extend((table.len() as u32).to_be_bytes());
    payload.extend(table);

    let mut frame = Vec::with_capacity(8 + payload.len());
    frame.push(super::frame::HEADER);
    frame.extend(channel.to_be_bytes());
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(super::frame::END);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(body: u64, flags: u16, rest: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 60, 0, 0];
        out.extend(body.to_be_bytes());
        out.extend(flags.to_be_bytes());
        out.extend_from_slice(rest);
        out
    }

    fn table(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut inside = Vec::new();
        for (name, value) in entries {
            inside.push(name.len() as u8);
            inside.extend(name.bytes());
            inside.push(b'S');
            inside.extend((value.len() as u32).to_be_bytes());
            inside.extend_from_slice(value);
        }
        let mut out = (inside.len() as u32).to_be_bytes().to_vec();
        out.extend(inside);
        out
    }

    fn limits(body: usize) -> Limits {
        Limits {
            body,
            ..Limits::default()
        }
    }

    fn verdict(payload: &[u8]) -> Option<Reason> {
        judge(payload, &limits(100)).err().map(|d| d.reason)
    }

    #[test]
    fn every_property_is_read_in_the_order_of_its_flag() {
        let mut rest = Vec::new();
        rest.extend(b"\x02ct");
        rest.extend(b"\x02ce");
        rest.extend(table(&[("a", b"1")]));
        rest.extend([2, 9]);
        rest.extend(b"\x01c\x01r\x0210\x03mid");
        rest.extend([0; 8]);
        rest.extend(b"\x01t\x01u\x01a\x01i");
        let payload = header(7, 0b1111_1111_1111_1100, &rest);
        assert_eq!(
            judge(&payload, &limits(100)).map(|read| (read.body, read.message_id)),
            Ok((7, b"mid".as_slice()))
        );
        for cut in 0..payload.len() {
            assert_eq!(verdict(&payload[..cut]), Some(Reason::Hostile), "cut {cut}");
        }
        let mut longer = payload.clone();
        longer.push(0);
        assert_eq!(verdict(&longer), Some(Reason::Hostile));
    }

    #[test]
    fn what_breaks_a_limit_has_its_reason() {
        assert_eq!(verdict(&header(100, 0, &[])), None);
        assert_eq!(verdict(&header(101, 0, &[])), Some(Reason::TooLarge));
        assert_eq!(verdict(&header(1, 1, &[])), Some(Reason::Hostile));
        let not_utf8 = header(1, 1 << 7, &[2, 0xff, 0xfe]);
        assert_eq!(verdict(&not_utf8), Some(Reason::Hostile));

        let names: Vec<String> = (0..65).map(|n| format!("h{n}")).collect();
        let many: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b""[..])).collect();
        assert_eq!(verdict(&header(1, 1 << 13, &table(&many[..64]))), None);
        assert_eq!(
            verdict(&header(1, 1 << 13, &table(&many))),
            Some(Reason::Hostile)
        );
        let heavy = vec![b'v'; 33 * 1024];
        assert_eq!(
            verdict(&header(1, 1 << 13, &table(&[("h", &heavy)]))),
            Some(Reason::Hostile)
        );
        let twice = table(&[("h", b"1"), ("h", b"2")]);
        assert_eq!(verdict(&header(1, 1 << 13, &twice)), Some(Reason::Hostile));
    }

    #[test]
    fn what_the_broker_adds_does_not_count_against_the_publisher() {
        let names: Vec<String> = (0..64).map(|n| format!("h{n}")).collect();
        let mut many: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b""[..])).collect();
        let death = vec![b'd'; 8 * 1024];
        many.push(("x-death", &death));
        many.push(("longshore-dead-detail", &death));
        assert_eq!(verdict(&header(1, 1 << 13, &table(&many))), None);
        let bomb = vec![b'd'; 33 * 1024];
        let abused = table(&[("longshore-x", &bomb)]);
        assert_eq!(verdict(&header(1, 1 << 13, &abused)), Some(Reason::Hostile));
    }

    #[test]
    fn a_fingerprint_ignores_what_the_broker_counts_and_nothing_else() {
        let with = |entries: &[(&str, &[u8])]| fingerprint(&header(9, 1 << 13, &table(entries)));
        let one = with(&[("a", b"1")]);
        assert_eq!(one, with(&[("a", b"1"), ("x-delivery-count", b"7")]));
        assert_ne!(one, with(&[("a", b"2")]));
        assert_ne!(one, with(&[("b", b"1")]));
        assert_ne!(fingerprint(b"cut"), fingerprint(b"shorter"));
    }

    #[test]
    fn a_fingerprint_of_what_is_no_text_ignores_the_count_and_the_order_too() {
        let raw = |counted: bool, first: bool| {
            let count = b"\x10x-delivery-countb\x07";
            let name = b"\x01\xff\x53\0\0\0\x01v";
            let mut inside = Vec::new();
            let parts: [&[u8]; 3] = [
                if counted && first { count } else { b"" },
                name,
                if counted && !first { count } else { b"" },
            ];
            parts.iter().for_each(|part| inside.extend_from_slice(part));
            let mut rest = (inside.len() as u32).to_be_bytes().to_vec();
            rest.extend(inside);
            rest.extend(b"\x02\xff\xfe");
            fingerprint(&header(9, 1 << 13 | 1 << 7, &rest))
        };
        let bare = raw(false, false);
        assert_eq!(bare, raw(true, false));
        assert_eq!(bare, raw(true, true));
    }

    #[test]
    fn a_blank_frame_is_itself_acceptable() {
        let frame = blank_frame(3, "longshore-defect-1", &Defect::too_large(9, 4), 7);
        let payload = &frame[7..frame.len() - 1];
        assert!(judge(payload, &limits(0)).is_ok_and(|read| read.body == 0));
        assert_eq!(frame[3..7], (payload.len() as u32).to_be_bytes());
    }
}
