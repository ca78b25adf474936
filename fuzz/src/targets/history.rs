//! The lines of a history, and who judges them.

use longshore_testing::{
    checker::{Checker, Rules},
    history::Record,
};

/// A line is a record that is written as it was read, or none; and whatever a history says, judging it
/// ends in a verdict.
pub fn history(octets: &[u8]) {
    let mut checker = Checker::new(Rules::default());
    for line in octets.split(|octet| *octet == b'\n') {
        let Ok(record) = serde_json::from_slice::<Record>(line) else {
            continue;
        };
        let written = serde_json::to_vec(&record).expect("written");
        assert!(!written.contains(&b'\n'), "one line");
        let again: Record = serde_json::from_slice(&written).expect("read again");
        assert_eq!(again, record);
        checker.observe(&record);
    }
    let _ = checker.finish().verdict();
}
