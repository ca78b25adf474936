//! Processes that are killed, frozen, and asked to stop.

use std::time::Duration;

use futures_util::FutureExt;
use rustix::process::Signal;

use super::{Act, Evidence, Fault};
use crate::{Failure, lifeline, scene::Scene};

/// How long a process may take to stop.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn all() -> Vec<Fault> {
    vec![
        Fault {
            evidence: Evidence {
                kills: 8,
                redeliveries: 20,
                owner_changes: 5,
                ..Evidence::default()
            },
            only_ends_processes: true,
            ..Fault::new(
                "kill-worker",
                "1",
                "kill -9 of a worker, which is started again",
                Act::Once(|scene| kill_worker(scene).boxed()),
            )
        },
        Fault {
            evidence: Evidence {
                kills: 8,
                ..Evidence::default()
            },
            only_ends_processes: true,
            ..Fault::new(
                "kill-publisher",
                "7",
                "kill -9 of a publisher, which goes on with new messages",
                Act::Once(|scene| kill_publisher(scene).boxed()),
            )
        },
        Fault {
            evidence: Evidence {
                redeliveries: 20,
                owner_changes: 2,
                ..Evidence::default()
            },
            ..Fault::new(
                "freeze-worker",
                "15",
                "a worker stands still for three locks, then goes on as if it owned what it had",
                Act::Once(|scene| freeze_worker(scene).boxed()),
            )
        },
        Fault {
            plan: |plan| {
                plan.slow = (20, 2_500);
                plan.stop_deadline = Duration::from_secs(1);
            },
            evidence: Evidence {
                stops: 8,
                owner_changes: 5,
                ..Evidence::default()
            },
            rest: 100..=1_500,
            only_ends_processes: true,
            ..Fault::new(
                "terminate",
                "32",
                "SIGTERM while handlers run past the deadline, now and then a second one",
                Act::Once(|scene| terminate(scene).boxed()),
            )
        },
        Fault {
            evidence: Evidence {
                stops: 5,
                owner_changes: 5,
                ..Evidence::default()
            },
            rest: 100..=1_500,
            only_ends_processes: true,
            ..Fault::new(
                "leave-and-join",
                "32",
                "a worker leaves for a while and joins again",
                Act::Once(|scene| leave_and_join(scene).boxed()),
            )
        },
        Fault {
            evidence: Evidence {
                kills: 5,
                ..Evidence::default()
            },
            rest: 0..=100,
            only_ends_processes: true,
            ..Fault::new(
                "kill-redriver",
                "6",
                "dead letters are sent back, by a process that is killed",
                Act::Once(|scene| kill_redriver(scene).boxed()),
            )
        },
    ]
}

async fn kill_worker(scene: &mut Scene) -> Result<(), Failure> {
    let victim = scene.any_worker();
    scene.crew.workers[victim].kill()
}

async fn kill_publisher(scene: &mut Scene) -> Result<(), Failure> {
    let publishers = scene.crew.publishers.len() as u64;
    let victim = usize::try_from(scene.random.below(publishers))?;
    scene.crew.publishers[victim].kill()
}

async fn freeze_worker(scene: &mut Scene) -> Result<(), Failure> {
    let victim = scene.any_worker();
    let Some(process) = scene.crew.workers[victim].process() else {
        return Ok(());
    };
    let mut thaw = lifeline::thaw_with_us(process)?;
    scene.crew.workers[victim].signal(Signal::STOP)?;
    tokio::time::sleep(scene.plan.lock * 3).await;
    // Its end of input is what it waits for.
    drop(thaw.stdin.take());
    thaw.wait()?;
    Ok(())
}

async fn terminate(scene: &mut Scene) -> Result<(), Failure> {
    let worker = scene.any_worker();
    let process = scene.crew.workers[worker].process();
    scene.crew.workers[worker].ask_to_stop()?;
    if scene.random.happens(250) {
        scene.pause(10..=1_000).await;
        // The next one has not been asked yet.
        if scene.crew.workers[worker].process() == process {
            scene.crew.workers[worker].ask_to_stop()?;
        }
    }
    Ok(())
}

async fn leave_and_join(scene: &mut Scene) -> Result<(), Failure> {
    let worker = scene.any_worker();
    scene.crew.workers[worker].stop(PATIENCE).await?;
    scene.pause(200..=3_000).await;
    scene.crew.workers[worker].want();
    Ok(())
}

async fn kill_redriver(scene: &mut Scene) -> Result<(), Failure> {
    scene.crew.redriver.want();
    scene.pause(50..=800).await;
    scene.crew.redriver.kill()
}
