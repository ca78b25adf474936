//! Where replies may go.

use longshore_core::Text;

/// The addresses a reply may be written to, whoever asks for it.
#[derive(Debug, Clone)]
pub(crate) struct ReplyRule {
    /// Queues of this prefix besides the broker's own reply addresses.
    pub(crate) prefix: Option<Text>,
}

const DIRECT: &str = "amq.rabbitmq.reply-to.";
const SERVER_NAMED: &str = "amq.gen-";

impl ReplyRule {
    /// A reply written anywhere else would be written with our permissions at a stranger's word.
    pub(crate) fn allows(&self, address: &str) -> bool {
        let own = self.prefix.as_deref().filter(|prefix| !prefix.is_empty());
        address.strip_prefix(DIRECT).is_some_and(is_direct)
            || address.strip_prefix(SERVER_NAMED).is_some_and(is_guid)
            || own.is_some_and(|prefix| {
                let queue = address.starts_with(prefix) && !address.starts_with(DIRECT);
                queue && !address.chars().any(char::is_control)
            })
    }
}

/// Whether this is the broker's own name of a client that waits for direct replies, and no queue.
pub(crate) fn is_direct_reply(address: &str) -> bool {
    address.starts_with(DIRECT)
}

/// What the broker puts behind its prefix.
fn is_guid(suffix: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !suffix.is_empty() && suffix.bytes().all(fits)
}

/// `<process>.<key>`, both in base 64. RabbitMQ closes the connection of whoever publishes to what it
/// cannot decode (seen on 3.10.8: 541 INTERNAL_ERROR).
fn is_direct(suffix: &str) -> bool {
    let Some((process, key)) = suffix.split_once('.') else {
        return false;
    };
    let in_alphabet = |byte: u8| byte == b'=' || sextet(byte).is_some();
    let is_key = !key.is_empty() && key.bytes().all(in_alphabet);
    is_key && decoded(process).is_some_and(|octets| is_process(&octets))
}

/// A process of node `reply@<hash>` in Erlang's external format
/// (<https://www.erlang.org/doc/apps/erts/erl_ext_dist.html>), as RabbitMQ writes it.
fn is_process(octets: &[u8]) -> bool {
    let (rest, numbers) = match octets {
        [131, 88, rest @ ..] => (rest, 12),
        [131, 103, rest @ ..] => (rest, 9),
        _ => return false,
    };
    let (length, rest) = match rest {
        [118, high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]), rest),
        [119, length, rest @ ..] => (u16::from(*length), rest),
        _ => return false,
    };
    let Some((node, rest)) = rest.split_at_checked(length.into()) else {
        return false;
    };
    let hash = node.strip_prefix(b"reply@").unwrap_or_default();
    (1..=9).contains(&hash.len()) && hash.iter().all(u8::is_ascii_digit) && rest.len() == numbers
}

/// Base 64 with its padding (RFC 4648, 4).
fn decoded(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let mut octets = Vec::with_capacity(bytes.len());
    for (at, four) in bytes.chunks(4).enumerate() {
        let last = (at + 1) * 4 == bytes.len();
        let padding = match four {
            [_, _, b'=', b'='] if last => 2,
            [_, _, _, b'='] if last => 1,
            [_, _, _, _] => 0,
            _ => return None,
        };
        let digits = four.get(..4 - padding)?;
        let bits = digits.iter().try_fold(0_u32, |bits, digit| {
            Some(bits << 6 | u32::from(sextet(*digit)?))
        })?;
        let whole = (bits << (6 * padding)).to_be_bytes();
        octets.extend_from_slice(whole.get(1..4 - padding)?);
    }
    Some(octets)
}

fn sextet(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA3ODYxMzA3NgAAIAMAAAAHawAcew==.13nTvnTMlw3zuefM/zsRNw==";

    #[test]
    fn only_what_a_broker_names_and_the_prefix_may_be_written_to() {
        let none = ReplyRule { prefix: None };
        let own = ReplyRule {
            prefix: Some("answers.".into()),
        };
        for (address, anyway, by_prefix) in [
            (REAL, true, true),
            ("amq.gen-JzTY20BRgKO-HjmUJj0wLg", true, true),
            ("amq.gen-", false, false),
            ("amq.gen-x\norders", false, false),
            ("answers.mine", false, true),
            ("answers.\0", false, false),
            ("orders", false, false),
            ("", false, false),
            ("amq.rabbitmq.reply-to", false, false),
            ("amq.rabbitmq.reply-to.", false, false),
            ("amq.rabbitmq.reply-to.forged.key", false, false),
        ] {
            assert_eq!(none.allows(address), anyway, "{address}");
            assert_eq!(own.allows(address), by_prefix, "{address}");
        }
        let everything = ReplyRule {
            prefix: Some("".into()),
        };
        assert!(!everything.allows("orders"));
        let pseudo = ReplyRule {
            prefix: Some("amq.".into()),
        };
        assert!(!pseudo.allows("amq.rabbitmq.reply-to.forged.key"));
    }

    #[test]
    fn an_address_the_broker_cannot_decode_is_forged() {
        let (head, key) = REAL.rsplit_once('.').expect("a key");
        let (_, process) = head.rsplit_once('.').expect("a process");
        assert!(is_direct(&format!("{process}.{key}")));
        for forged in [
            process.to_owned(),
            format!("{process}."),
            format!(".{key}"),
            format!("{process}.{key}.{key}"),
            format!("{process}.ä"),
            format!("{process}A.{key}"),
            format!("AAAA{process}.{key}"),
            format!("{process}AAAA.{key}"),
            format!("{}.{key}", &process[..process.len() - 4]),
            format!("{}!{}.{key}", &process[..8], &process[9..]),
            // The atom of another node, and a list instead of a process.
            format!("g1h3Cm90aGVyQDEyMzQAAAABAAAAAAAAAAE=.{key}"),
            format!("g2wAAAABYQFq.{key}"),
        ] {
            assert!(!is_direct(&forged), "{forged}");
        }
    }

    #[test]
    fn base_64_is_read_as_published() {
        // RFC 4648, 10.
        for (text, octets) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decoded(text).as_deref(), Some(octets.as_bytes()), "{text}");
        }
        for wrong in ["Z", "Zg=", "Zg==Zg==", "=m9v", "Zm9v=", "Zm 9"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
