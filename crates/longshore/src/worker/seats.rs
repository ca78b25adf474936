//! The places of those that own a partition more than others.

use std::sync::Arc;

use longshore_core::{Claim, Membership, Ownership, Result};

/// How many are tried at a time.
const TRIED: u16 = 8;

/// Takes one of so many seats, wherever one is found free from `begin` on. `None`: those that were
/// tried are taken.
pub(super) async fn sit(
    membership: Arc<dyn Membership>,
    seats: u16,
    begin: usize,
) -> Result<Option<Ownership>> {
    for nth in 0..seats.min(TRIED) {
        let seat = (begin + usize::from(nth)) % usize::from(seats);
        let seat = Claim::Seat(u16::try_from(seat).unwrap_or_default());
        if let Some(seat) = membership.acquire(seat).await? {
            return Ok(Some(seat));
        }
    }
    Ok(None)
}

/// Gives a seat back. One that cannot be ends with the membership.
pub(super) async fn stand(membership: Arc<dyn Membership>, seat: Ownership) {
    let _ = membership.release(seat).await;
}
