//! The cases, a file for each promise or duty.

mod attempts;
mod cancellation;
mod closing;
mod dead_letters;
mod dedup;
mod dedup_scopes;
mod delays;
mod fan_out;
mod figures;
mod hostile;
mod lanes;
mod locks;
mod lost_ownership;
mod order;
mod outages;
mod ownership;
mod partitions;
mod poison;
mod prefetch;
mod publishing;
mod redrive;
mod release;
mod replies;
mod session_queues;
mod session_state;
mod settlement;
mod standing;
mod stopping;
mod topology;
mod traffic;
mod unprocessable;

use super::case::Case;

/// Every case, in the order of the promises.
pub(super) fn all() -> impl Iterator<Item = &'static Case> {
    [
        topology::CASES,
        publishing::CASES,
        traffic::CASES,
        cancellation::CASES,
        locks::CASES,
        settlement::CASES,
        attempts::CASES,
        poison::CASES,
        unprocessable::CASES,
        dead_letters::CASES,
        redrive::CASES,
        delays::CASES,
        prefetch::CASES,
        lanes::CASES,
        session_queues::CASES,
        ownership::CASES,
        lost_ownership::CASES,
        partitions::CASES,
        order::CASES,
        session_state::CASES,
        release::CASES,
        dedup::CASES,
        dedup_scopes::CASES,
        standing::CASES,
        replies::CASES,
        stopping::CASES,
        closing::CASES,
        fan_out::CASES,
        hostile::CASES,
        figures::CASES,
        outages::CASES,
    ]
    .into_iter()
    .flatten()
}
