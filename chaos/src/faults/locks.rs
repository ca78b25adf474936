//! Inside one process: locks and partitions that are lost, and workers that leave.

use std::time::Duration;

use futures_util::FutureExt;
use longshore_core::Name;

use super::{Act, Evidence, Fault};
use crate::{
    Failure,
    interior::Inside,
    plan::{Kind, On, Plan},
};

const MEMORY: &[On] = &[On::Memory];

pub(super) fn all() -> Vec<Fault> {
    vec![
        Fault {
            on: MEMORY,
            evidence: Evidence {
                redeliveries: 20,
                owner_changes: 5,
                ..Evidence::default()
            },
            ..Fault::new(
                "lose-locks",
                "10",
                "every lock and every ownership ends at once",
                Act::Inside(|inside| lose_locks(inside).boxed()),
            )
        },
        Fault {
            on: MEMORY,
            evidence: Evidence {
                owner_changes: 5,
                ..Evidence::default()
            },
            rest: 50..=500,
            ..Fault::new(
                "lose-ownership",
                "15",
                "one partition is taken from its owner",
                Act::Inside(|inside| lose_ownership(inside).boxed()),
            )
        },
        Fault {
            on: MEMORY,
            plan: |plan| {
                plan.slow = (20, 2_500);
                plan.stop_deadline = Duration::from_secs(1);
            },
            evidence: Evidence {
                stops: 5,
                owner_changes: 5,
                ..Evidence::default()
            },
            rest: 100..=1_500,
            only_ends_processes: true,
            ..Fault::new(
                "stop-worker",
                "32",
                "a worker is stopped while handlers run past the deadline, and started again",
                Act::Inside(|inside| stop_worker(inside).boxed()),
            )
        },
    ]
}

async fn lose_locks(inside: &mut Inside) -> Result<(), Failure> {
    inside.broker.lose_locks();
    Ok(())
}

async fn lose_ownership(inside: &mut Inside) -> Result<(), Failure> {
    let partition = inside.random.below(Plan::PARTITIONS.into());
    let queue = Name::new(Kind::Sessions.name())?;
    inside
        .broker
        .lose_ownership(&queue, u16::try_from(partition)?);
    Ok(())
}

async fn stop_worker(inside: &mut Inside) -> Result<(), Failure> {
    let workers = inside.workers.len() as u64;
    let worker = usize::try_from(inside.random.below(workers))?;
    inside.stop(worker).await?;
    let away = inside.random.millis(0..=1_000);
    tokio::time::sleep(away + Duration::from_millis(1)).await;
    inside.start(worker).await
}
