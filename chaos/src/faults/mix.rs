//! One fault after the other, drawn from all that apply to the broker.

use super::{Evidence, Fault, all, strike as one};
use crate::{Failure, scene::Scene};

/// In 30 s some seven faults begin.
pub(super) const EVIDENCE: Evidence = Evidence {
    strikes: 0,
    kills: 0,
    crashes: 0,
    aborts: 0,
    stops: 0,
    redeliveries: 50,
    unknown: 3,
    owner_changes: 1,
};

pub(super) async fn strike(scene: &mut Scene) -> Result<(), Failure> {
    let on = scene.plan.on;
    let fits = |fault: &Fault| fault.mixes && fault.on.contains(&on);
    let faults: Vec<Fault> = all().into_iter().filter(fits).collect();
    let fault = scene.random.pick(&faults).clone();
    one(&fault, scene).await
}
