//! The replies of RESP2 and RESP3, by their lengths alone.

use super::Step;
use crate::proxy::trap::{Harm, Unit};

#[derive(Debug, Default)]
pub(super) struct Resp {
    /// How many values there still are of the reply. An aggregate is as many as it says, so that no
    /// nesting has to be remembered.
    values: u64,
    /// What is being read of a value.
    part: Part,
    /// The reply is left out.
    lost: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum Part {
    /// The byte that says what it is.
    #[default]
    Kind,
    /// The line of this kind, with the number it says so far, and whether its CR was the last byte.
    Line(Line, bool),
    /// So many bytes of a string, its CR LF included.
    Bytes(u64),
}

#[derive(Debug, Clone, Copy)]
struct Line {
    kind: u8,
    negative: bool,
    number: u64,
}

impl Resp {
    /// Whether a reply can begin so.
    pub(super) fn begins(byte: u8) -> bool {
        b"+-:_#,($!=*~%|>".contains(&byte)
    }

    /// `bytes` is not empty.
    pub(super) fn step(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        catch: &mut impl FnMut(Unit) -> Option<Harm>,
    ) -> Step {
        let (taken, damaged) = match self.part {
            Part::Bytes(left) => {
                let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.string(left - taken as u64);
                (taken, false)
            }
            Part::Kind => {
                let kind = bytes[0];
                if !Self::begins(kind) {
                    return Step::Lost;
                }
                let mut damaged = false;
                if self.values == 0 {
                    self.values = 1;
                    self.lost = false;
                    match (kind != b'>').then(|| catch(Unit::Reply)).flatten() {
                        None => {}
                        Some(Harm::Damage) => damaged = true,
                        Some(Harm::Lose) => self.lost = true,
                        Some(ends) => return Step::Ends(ends),
                    }
                }
                let line = Line {
                    kind,
                    negative: false,
                    number: 0,
                };
                self.part = Part::Line(line, false);
                (1, damaged)
            }
            Part::Line(line, returned) => match self.line(line, returned, bytes[0]) {
                Some(()) => (1, false),
                None => return Step::Lost,
            },
        };
        if damaged {
            out.push(!bytes[0]);
        } else if !self.lost {
            out.extend_from_slice(&bytes[..taken]);
        }
        Step::Took(taken)
    }

    /// One more byte of a line; `None` where it cannot be read.
    fn line(&mut self, mut line: Line, returned: bool, byte: u8) -> Option<()> {
        match (returned, byte) {
            (true, b'\n') => return self.said(line),
            (_, b'\r') => return self.reading(line, true),
            // Texts and numbers that are values themselves say no length.
            _ if b"+-:_#,(".contains(&line.kind) => {}
            (false, b'-') => line.negative = true,
            (false, b'0'..=b'9') => {
                let tens = line.number.checked_mul(10)?;
                line.number = tens.checked_add(u64::from(byte - b'0'))?;
            }
            _ => return None,
        }
        self.reading(line, false)
    }

    fn reading(&mut self, line: Line, returned: bool) -> Option<()> {
        self.part = Part::Line(line, returned);
        Some(())
    }

    /// The line is whole.
    fn said(&mut self, line: Line) -> Option<()> {
        self.part = Part::Kind;
        let more = match line.kind {
            _ if line.negative && b"$!=*~%>".contains(&line.kind) => 0,
            b'$' | b'!' | b'=' => {
                self.part = Part::Bytes(line.number.checked_add(2)?);
                return Some(());
            }
            b'*' | b'~' | b'>' => line.number,
            b'%' => line.number.checked_mul(2)?,
            // An attribute stands before the value it belongs to.
            b'|' => line.number.checked_mul(2)?.checked_add(1)?,
            _ => 0,
        };
        self.values = (self.values - 1).checked_add(more)?;
        Some(())
    }

    fn string(&mut self, left: u64) {
        self.part = match left {
            0 => {
                self.values -= 1;
                Part::Kind
            }
            left => Part::Bytes(left),
        };
    }
}
