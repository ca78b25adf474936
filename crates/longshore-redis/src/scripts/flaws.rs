//! The flaws of the fault harness that lie in a script. See [`longshore_core::chaos`].

use longshore_core::chaos::Flaw;

use super::{
    ACQUIRE, CLAIM, COMPLETE, COMPLETE_PARTITION, DEAD_LETTER, DELAY, INHERIT, PUBLISH, REDRIVE,
    RETRY, SETTLE_PARTITION, Script,
};

/// Which flaw, in which script, what it says, and what it says instead.
#[rustfmt::skip]
static FLAWS: &[(Flaw, &Script, &str, &str)] = &[
    (Flaw::TokenStays, &ACQUIRE, "math.max(now, last + 1)", "math.max(1, last)"),
    (Flaw::UnfencedSettle, &COMPLETE, "seen[2] ~= ARGV[2]", "false"),
    (Flaw::UnfencedSettle, &DEAD_LETTER, "seen[2] ~= ARGV[2]", "false"),
    (Flaw::UnfencedSettle, &RETRY, "seen[2] ~= ARGV[2]", "false"),
    (Flaw::UnfencedSettle, &COMPLETE_PARTITION, "redis.call('GET', KEYS[2]) == ARGV[2]", "true"),
    (Flaw::UnfencedSettle, &SETTLE_PARTITION, "redis.call('GET', KEYS[2]) ~= ARGV[2]", "false"),
    (Flaw::TakeOverCounts, &CLAIM, "'RETRYCOUNT', set,", "'RETRYCOUNT', set + 1,"),
    (Flaw::TakeOverCounts, &INHERIT, "'RETRYCOUNT', ARGV[i + 2],", "'RETRYCOUNT', ARGV[i + 2] + 1,"),
    (Flaw::DeadLetterLost, &DEAD_LETTER, "redis.call('XADD', dead, '*', unpack(fields))", ""),
    (Flaw::DeadLetterLost, &SETTLE_PARTITION, "redis.call('XADD', dead, '*', unpack(fields))", ""),
    (Flaw::DeadLetterCut, &DEAD_LETTER, "fields[#fields + 1] = stored[i + 1]", CUT),
    (Flaw::DeadLetterCut, &SETTLE_PARTITION, "fields[#fields + 1] = stored[i + 1]", CUT),
    (Flaw::HalfTheDelay, &DELAY, "now + tonumber(ARGV[1])", "now + tonumber(ARGV[1]) / 2"),
    (Flaw::HalfTheDelay, &PUBLISH, "now + wait", "now + wait / 2"),
    (Flaw::HalfTheDelay, &RETRY, "now + wait", "now + wait / 2"),
    (Flaw::RedriveLosesKey, &REDRIVE, "stored[i] ~= 'redriven'", "stored[i] ~= 'redriven' and stored[i] ~= 'key'"),
];

const CUT: &str = "fields[#fields + 1] = stored[i] == 'body' and string.sub(stored[i + 1], 1, -2) or stored[i + 1]";

/// The text of a script that has a flaw just now.
pub(super) fn broken(script: &Script) -> Option<String> {
    let mut flaws = FLAWS
        .iter()
        .filter(|(flaw, of, ..)| flaw.on() && of.text == script.text);
    flaws
        .next()
        .map(|(_, _, says, instead)| script.text.replace(says, instead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flaw_is_in_its_script() {
        for (flaw, script, says, instead) in FLAWS {
            assert!(script.text.contains(says), "{flaw:?}: {says}");
            assert_ne!(says, instead);
        }
    }
}
