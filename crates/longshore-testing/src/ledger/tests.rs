use super::*;

#[test]
fn a_token_below_the_largest_of_its_session_is_stale_and_without_a_session_none_is() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.decide(Some("a"), 2), Effect::Accepted);
    assert_eq!(ledger.decide(Some("a"), 1), Effect::Stale);
    assert_eq!(ledger.decide(Some("a"), 2), Effect::Accepted);
    assert_eq!(ledger.decide(Some("b"), 1), Effect::Accepted);
    assert_eq!(ledger.decide(None, 0), Effect::Accepted);
}
