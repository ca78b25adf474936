//! The name of a queue, lane or topic.

use std::{fmt, ops::Deref, sync::Arc};

use crate::{Error, ErrorKind, Result, printable};

/// The name of a queue, lane or topic: 1 to 128 characters of `[A-Za-z0-9._-]`. Cheap to clone.
///
/// What transports add for their physical queues is refused, so that no two queues can collide: the
/// endings `.dlq`, `.quarantine`, `.marker`, `.lock`, `.p`, `.p.<lane>`, `.s<count>.<partition>` and
/// `.s<count>.members`, and the beginnings `longshore.` and `amq.`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

const LONGEST: usize = 128;
// `.p`, because the dead letters of `a.p` would be where the lane `dlq` of `a` is.
const RESERVED_ENDINGS: [&str; 5] = [".dlq", ".quarantine", ".marker", ".lock", ".p"];
const RESERVED_BEGINNINGS: [&str; 2] = ["longshore.", "amq."];

impl Name {
    /// Checks and keeps a name.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with the rule that was broken.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        let invalid = |why: String| {
            let shown = printable(name, 64);
            Err(Error::new(
                ErrorKind::Invalid,
                format!("the name \"{shown}\" {why}"),
            ))
        };
        if name.is_empty() || name.len() > LONGEST {
            return invalid(format!("must have 1 to {LONGEST} characters"));
        }
        if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        {
            return invalid("may hold only letters, digits, '.', '_' and '-'".into());
        }
        for ending in RESERVED_ENDINGS {
            if name.ends_with(ending) {
                return invalid(format!("must not end with the reserved \"{ending}\""));
            }
        }
        for beginning in RESERVED_BEGINNINGS {
            if name.starts_with(beginning) {
                return invalid(format!("must not begin with the reserved \"{beginning}\""));
            }
        }
        if is_part(name) {
            return invalid("ends like a lane or a partition of another queue".into());
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `<queue>.p.<lane>`, `<queue>.s<count>.<partition>` or `<queue>.s<count>.members`.
fn is_part(name: &str) -> bool {
    let mut words = name.rsplit('.');
    let (Some(last), Some(kind), Some(_)) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let sessions = || kind.strip_prefix('s').is_some_and(number);
    kind == "p" || sessions() && (number(last) || last == "members")
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass_and_hostile_ones_do_not() {
        let long = "x".repeat(128);
        for good in [
            "orders",
            "eu.orders",
            "a-b_c.9",
            "p",
            "p.high",
            "s16.03",
            "s16.members",
            "orders.members",
            "a.s16.x",
            &long,
        ] {
            assert_eq!(
                Name::new(good).map(|n| n.to_string()).ok().as_deref(),
                Some(good)
            );
        }
        for bad in [
            "",
            &"x".repeat(129),
            "a b",
            "a\n",
            "{a}",
            "a*",
            "a#",
            "ü",
            "a\u{1b}[0m",
            "orders.dlq",
            "orders.quarantine",
            "longshore.delay",
            "amq.topic",
            "orders.p.high",
            "orders.p",
            "eu.orders.s16.03",
            "eu.orders.s16.members",
        ] {
            let error = Name::new(bad).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(!error.to_string().contains(['\n', '\u{1b}']), "{error}");
        }
    }
}
