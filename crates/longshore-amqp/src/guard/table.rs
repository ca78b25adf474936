//! Walks an AMQP field table without recursion and without copying.
//!
//! lapin parses tables recursively, so a table nested 5,000 deep overflows its thread's stack and
//! aborts the process. Nothing reaches lapin that this walk has not accepted.

/// Why a piece of a frame must not be parsed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// It ends too early, or says a length its surroundings do not have.
    Length,
    /// A name or short string is no UTF-8.
    Text,
    /// A value of a type nobody has defined.
    Type,
    /// Tables and arrays nest deeper than allowed.
    Depth,
}

/// What names and short strings must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// UTF-8, as lapin reads them.
    Text,
    /// Any octets, as the broker takes them.
    Octets,
}

impl Names {
    pub(crate) fn check(self, name: &[u8]) -> Result<(), Malformed> {
        match self == Self::Octets || std::str::from_utf8(name).is_ok() {
            true => Ok(()),
            false => Err(Malformed::Text),
        }
    }
}

/// One entry of the outermost table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// The entry's name.
    pub(crate) name: &'a [u8],
    /// The type octet.
    pub(crate) kind: u8,
    /// The value's octets, the length of a string or table included.
    pub(crate) value: &'a [u8],
}

/// Reads big-endian fields from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(Malformed::Length)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Length)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn short_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    pub(crate) fn short(&mut self, names: Names) -> Result<&'a [u8], Malformed> {
        let short = self.short_bytes()?;
        names.check(short).map(|()| short)
    }

    pub(crate) fn long_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| Malformed::Length)?)
    }
}

/// Walks the table at the front of `reader` and shows each of its own entries to `visit`, in order.
///
/// The table itself is depth 1. Work is linear in its size and memory is bounded by `depth`.
pub(crate) fn walk<'a>(
    reader: &mut Reader<'a>,
    depth: usize,
    names: Names,
    mut visit: impl FnMut(Entry<'a>),
) -> Result<(), Malformed> {
    let mut table = Reader::new(reader.long_bytes()?);
    if depth == 0 {
        return Err(Malformed::Depth);
    }
    while table.left() > 0 {
        let name = table.short(names)?;
        let kind = table.u8()?;
        let before = table;
        check_value(kind, &mut table, depth, names)?;
        let value = Reader::new(before.rest).take(before.left() - table.left())?;
        visit(Entry { name, kind, value });
    }
    Ok(())
}

/// What is still open above the value being checked.
struct Open<'a> {
    rest: Reader<'a>,
    named: bool,
}

/// Moves past one value at the front of `reader`, checking everything inside it.
fn check_value<'a>(
    kind: u8,
    reader: &mut Reader<'a>,
    depth: usize,
    names: Names,
) -> Result<(), Malformed> {
    let mut open: Vec<Open<'a>> = Vec::new();
    let enter = |open: &mut Vec<Open<'a>>, kind: u8, inside: &'a [u8]| {
        // The walked table is depth 1, so `open` may hold one less than the limit.
        if open.len() + 1 >= depth {
            return Err(Malformed::Depth);
        }
        open.push(Open {
            rest: Reader::new(inside),
            named: kind == b'F',
        });
        Ok(())
    };
    match kind {
        b'F' | b'A' => enter(&mut open, kind, reader.long_bytes()?)?,
        _ => check_scalar(kind, reader)?,
    }
    while let Some(innermost) = open.last_mut() {
        if innermost.rest.left() == 0 {
            open.pop();
            continue;
        }
        if innermost.named {
            innermost.rest.short(names)?;
        }
        let kind = innermost.rest.u8()?;
        match kind {
            b'F' | b'A' => {
                let inside = innermost.rest.long_bytes()?;
                enter(&mut open, kind, inside)?;
            }
            _ => check_scalar(kind, &mut innermost.rest)?,
        }
    }
    Ok(())
}

/// Moves past one value that holds no others. The types are those of lapin and RabbitMQ.
fn check_scalar(kind: u8, reader: &mut Reader<'_>) -> Result<(), Malformed> {
    let width = match kind {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'U' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'L' | b'l' | b'd' | b'T' => 8,
        b'S' | b'x' => return reader.long_bytes().map(drop),
        _ => return Err(Malformed::Type),
    };
    reader.take(width).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(bytes: &[u8]) -> Vec<u8> {
        let mut out = (bytes.len() as u32).to_be_bytes().to_vec();
        out.extend_from_slice(bytes);
        out
    }

    fn entry(name: &str, kind: u8, value: &[u8]) -> Vec<u8> {
        let mut out = vec![name.len() as u8];
        out.extend_from_slice(name.as_bytes());
        out.push(kind);
        out.extend_from_slice(value);
        out
    }

    fn nested(levels: usize) -> Vec<u8> {
        let mut inside = Vec::new();
        for _ in 0..levels {
            let mut around = vec![b'A'];
            around.extend(long(&inside));
            inside = around;
        }
        let mut table = entry("a", inside.remove(0), &[]);
        table.extend(inside);
        long(&table)
    }

    fn names(table: &[u8], depth: usize) -> Result<Vec<String>, Malformed> {
        let mut names = Vec::new();
        let mut reader = Reader::new(table);
        walk(&mut reader, depth, Names::Text, |e| {
            names.push(String::from_utf8(e.name.to_vec()).expect("text"));
        })?;
        assert_eq!(reader.left(), 0);
        Ok(names)
    }

    #[test]
    fn every_known_type_is_passed_with_its_exact_length() {
        let mut table = Vec::new();
        for (kind, width) in [
            (b'V', 0),
            (b't', 1),
            (b'b', 1),
            (b'B', 1),
            (b's', 2),
            (b'U', 2),
            (b'u', 2),
            (b'I', 4),
            (b'i', 4),
            (b'f', 4),
            (b'D', 5),
            (b'L', 8),
            (b'l', 8),
            (b'd', 8),
            (b'T', 8),
        ] {
            table.extend(entry(&char::from(kind).to_string(), kind, &vec![7; width]));
        }
        table.extend(entry("S", b'S', &long(b"text")));
        table.extend(entry("x", b'x', &long(&[0xff, 0])));
        table.extend(entry("F", b'F', &long(&entry("in", b'S', &long(b"side")))));
        assert_eq!(names(&long(&table), 2).map(|n| n.len()), Ok(18));
        let short = &long(&table)[..table.len()];
        assert_eq!(names(short, 2), Err(Malformed::Length));
        assert_eq!(
            names(&long(&entry("z", b'z', &[])), 2),
            Err(Malformed::Type)
        );
        assert_eq!(
            names(&long(&[1, 0xff, b'V']), 2),
            Err(Malformed::Text),
            "a name that is no UTF-8 ends lapin's connection"
        );
    }

    #[test]
    fn depth_is_counted_exactly_and_20_000_levels_need_no_stack() {
        assert!(names(&nested(7), 8).is_ok());
        assert_eq!(names(&nested(8), 8), Err(Malformed::Depth));
        let bomb = nested(20_000);
        assert_eq!(names(&bomb, 8), Err(Malformed::Depth));
        assert!(names(&bomb, 30_000).is_ok());
    }

    #[test]
    fn an_inner_length_never_reaches_beyond_its_table() {
        let table = long(&entry("a", b'S', &[0, 0, 0, 200]));
        let mut bytes = table.clone();
        bytes.extend([0; 200]);
        let mut reader = Reader::new(&bytes);
        assert_eq!(
            walk(&mut reader, 8, Names::Text, |_| ()),
            Err(Malformed::Length)
        );
        let huge = long(&entry("a", b'F', &[0xff, 0xff, 0xff, 0xff]));
        assert_eq!(names(&huge, 8), Err(Malformed::Length));
    }

    #[test]
    fn any_cut_or_flipped_byte_is_answered_without_panic() {
        let mut table = entry("S", b'S', &long(b"text"));
        table.extend(entry("F", b'F', &long(&entry("in", b'A', &long(b"tx")))));
        let whole = long(&table);
        for cut in 0..whole.len() {
            assert!(names(&whole[..cut], 8).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let _ = walk(&mut Reader::new(&bytes), 8, Names::Text, |_| ());
            }
        }
    }
}
