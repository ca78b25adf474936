//! Text that came from a message, made safe to show.

/// `text` with control characters and direction overrides escaped and at most `longest` bytes long,
/// so that a message can neither forge a log line nor steer a terminal.
///
/// A cut text ends with `…`. Use it for every string a publisher can choose before it reaches a
/// log, an error or an operator.
pub fn printable(text: &str, longest: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(longest));
    for c in text.chars() {
        let before = shown.len();
        if c.is_control() || is_direction(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        if shown.len() > longest {
            shown.truncate(before);
            while shown.len() + '…'.len_utf8() > longest && shown.pop().is_some() {}
            if '…'.len_utf8() <= longest {
                shown.push('…');
            }
            break;
        }
    }
    shown
}

/// Characters that reorder or hide what follows them (Unicode UAX #9 and zero-width marks).
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_length_is_bounded() {
        assert_eq!(
            printable("a\r\nb\u{1b}[31m\u{202e}x", 100),
            "a\\r\\nb\\u{1b}[31m\\u{202e}x"
        );
        assert_eq!(printable("plain ünïcode", 100), "plain ünïcode");
        for longest in 0..40 {
            let shown = printable(&"ä\u{7}".repeat(1000), longest);
            assert!(shown.len() <= longest, "{longest}: {shown}");
        }
        assert!(printable(&"x".repeat(300), 256).ends_with('…'));
    }
}
