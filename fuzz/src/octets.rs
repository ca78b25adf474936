//! Makes structure of arbitrary octets.

/// Reads values from the front of an input. An input that is used up is all zeros.
#[derive(Debug, Clone)]
pub(crate) struct Octets<'a> {
    rest: &'a [u8],
    room: usize,
}

/// What all strings that repeat one octet may have together.
const ROOM: usize = 256 * 1024;

impl<'a> Octets<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self {
            rest: octets,
            room: ROOM,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(n.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    pub(crate) fn octet(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub(crate) fn number<const N: usize>(&mut self) -> [u8; N] {
        let mut octets = [0; N];
        for (to, from) in octets.iter_mut().zip(self.take(N)) {
            *to = *from;
        }
        octets
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.number())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.number())
    }

    /// A string behind its length. Few octets can ask for a long one, which repeats its first.
    pub(crate) fn string(&mut self) -> Vec<u8> {
        match self.octet() {
            255 => {
                let length = usize::from(self.u16()).min(self.room);
                self.room -= length;
                vec![self.octet(); length]
            }
            length => self.take(usize::from(length)).to_vec(),
        }
    }

    /// A string behind one octet of length, as AMQP has it.
    pub(crate) fn string_behind_its_length(&mut self) -> &'a [u8] {
        let length = self.octet();
        self.take(usize::from(length))
    }

    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.string()).into_owned()
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.octet()) % from.len()]
    }
}
