//! One fault for every crash point.

use std::time::Duration;

use longshore_core::chaos::CrashPoint;
use tokio::time::Instant;

use super::{Act, Evidence, Fault};
use crate::{Failure, plan::On, scene::Scene, slot::Slot};

/// How long a process that dies at a crash point may live in a mix.
const PATIENCE: Duration = Duration::from_secs(4);

/// Whose point it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Whoever handles messages.
    Workers,
    /// Whoever publishes, handlers included.
    Publishers,
    /// Whoever sends dead letters back.
    Redriver,
}

/// All that is to know of a point.
struct Crash {
    point: CrashPoint,
    name: &'static str,
    row: &'static str,
    on: &'static [On],
    whose: Whose,
    /// A process dies at the latest after so many passings.
    most: u64,
}

const fn crash(point: CrashPoint, name: &'static str, row: &'static str, most: u64) -> Crash {
    Crash {
        point,
        name,
        row,
        on: On::SERVERS,
        whose: Whose::Workers,
        most,
    }
}

/// RabbitMQ copies a message and acknowledges its source in two steps; Redis has one script for both.
const AMQP: &[On] = &[On::Amqp];
/// RabbitMQ promotes by itself.
const REDIS: &[On] = &[On::Redis];

const CRASHES: &[Crash] = &[
    Crash {
        whose: Whose::Publishers,
        ..crash(CrashPoint::PublishSent, "crash-publish-sent", "5", 60)
    },
    Crash {
        on: AMQP,
        ..crash(CrashPoint::LockTaken, "crash-lock-taken", "15", 8)
    },
    Crash {
        on: AMQP,
        ..crash(CrashPoint::MarkerWritten, "crash-marker-written", "15", 8)
    },
    crash(CrashPoint::ClaimGranted, "crash-claim-granted", "15", 4),
    Crash {
        on: REDIS,
        ..crash(CrashPoint::TakenOver, "crash-taken-over", "1", 3)
    },
    Crash {
        on: AMQP,
        ..crash(CrashPoint::MarkTaken, "crash-mark-taken", "31", 20)
    },
    crash(CrashPoint::StartNoted, "crash-start-noted", "1", 10),
    crash(CrashPoint::OutboxSent, "crash-outbox-sent", "2", 10),
    crash(CrashPoint::ReplySent, "crash-reply-sent", "2", 15),
    crash(CrashPoint::SettleDecided, "crash-settle-decided", "2", 100),
    Crash {
        on: AMQP,
        ..crash(CrashPoint::BooksWritten, "crash-books-written", "31", 40)
    },
    Crash {
        on: AMQP,
        ..crash(CrashPoint::CopySent, "crash-copy-sent", "5", 40)
    },
    Crash {
        on: AMQP,
        ..crash(CrashPoint::RetryCopied, "crash-retry-copied", "4", 8)
    },
    Crash {
        on: AMQP,
        ..crash(
            CrashPoint::DeadLetterCopied,
            "crash-dead-letter-copied",
            "4",
            3,
        )
    },
    Crash {
        on: AMQP,
        ..crash(CrashPoint::SuspectCopied, "crash-suspect-copied", "27", 8)
    },
    crash(CrashPoint::SettleSent, "crash-settle-sent", "3", 60),
    crash(CrashPoint::Settled, "crash-settled", "3", 60),
    Crash {
        on: REDIS,
        ..crash(CrashPoint::Promoting, "crash-promoting", "6", 20)
    },
    Crash {
        on: REDIS,
        ..crash(CrashPoint::Promoted, "crash-promoted", "6", 20)
    },
    Crash {
        on: AMQP,
        whose: Whose::Redriver,
        ..crash(CrashPoint::RedriveCopied, "crash-redrive-copied", "6", 5)
    },
    crash(CrashPoint::Forwarded, "crash-forwarded", "1", 10),
    crash(CrashPoint::ClaimDrained, "crash-claim-drained", "15", 4),
    Crash {
        on: AMQP,
        ..crash(
            CrashPoint::LastMarkerWritten,
            "crash-last-marker-written",
            "15",
            4,
        )
    },
];

pub(super) fn all() -> Vec<Fault> {
    CRASHES
        .iter()
        .map(|crash| Fault {
            on: crash.on,
            plan: match crash.point {
                // A noted start counts though its handler never ran: without more of them everything dies.
                CrashPoint::StartNoted => |plan| plan.max_attempts = 12,
                // A copy that a crash leaves is a second message without a window.
                CrashPoint::Forwarded => |plan| plan.known_in_sessions = true,
                _ => |_| {},
            },
            evidence: Evidence {
                crashes: 3,
                ..Evidence::default()
            },
            only_ends_processes: true,
            rest: 0..=0,
            ..Fault::new(
                crash.name,
                crash.row,
                crash.point.says(),
                Act::Crash(crash.point),
            )
        })
        .collect()
}

/// From now on the processes whose point it is die there, whenever they are started.
pub(crate) fn arm(point: CrashPoint, scene: &Scene) {
    let Some(crash) = of(point) else { return };
    for slot in slots(crash, scene) {
        slot.arm(Some((point, crash.most)));
    }
}

/// Sees to it that the point is passed: what leads there does not happen by itself.
pub(crate) async fn stir(point: CrashPoint, scene: &mut Scene) -> Result<(), Failure> {
    match point {
        CrashPoint::RedriveCopied => {
            scene.crew.redriver.want();
            scene.pause(200..=600).await;
        }
        CrashPoint::ClaimDrained | CrashPoint::LastMarkerWritten => {
            let worker = scene.any_worker();
            scene.crew.workers[worker].ask_to_stop()?;
            scene.pause(300..=1_000).await;
        }
        // What a dead worker owned is free once its lease has ended.
        CrashPoint::ClaimGranted => {
            let worker = scene.any_worker();
            scene.crew.workers[worker].kill()?;
            scene.pause(2_500..=4_000).await;
        }
        CrashPoint::LockTaken
        | CrashPoint::MarkerWritten
        | CrashPoint::TakenOver
        | CrashPoint::SuspectCopied
        | CrashPoint::StartNoted => {
            let worker = scene.any_worker();
            scene.crew.workers[worker].kill()?;
            scene.pause(500..=1_500).await;
        }
        _ => scene.pause(200..=500).await,
    }
    Ok(())
}

/// In a mix: until one process has died there.
pub(super) async fn strike(point: CrashPoint, scene: &mut Scene) -> Result<(), Failure> {
    let Some(crash) = of(point) else {
        return Ok(());
    };
    let before = scene.crew.tally().crashes;
    arm(point, scene);
    let chosen = scene.random.below(slots(crash, scene).len() as u64);
    if let Some(slot) = slots(crash, scene).get(usize::try_from(chosen).unwrap_or_default()) {
        slot.kill()?;
    }
    let begun = Instant::now();
    while scene.crew.tally().crashes == before && begun.elapsed() < PATIENCE {
        stir(point, scene).await?;
    }
    scene.crew.disarm()
}

fn of(point: CrashPoint) -> Option<&'static Crash> {
    CRASHES.iter().find(|crash| crash.point == point)
}

fn slots<'a>(crash: &Crash, scene: &'a Scene) -> &'a [Slot] {
    match crash.whose {
        Whose::Workers => &scene.crew.workers,
        Whose::Publishers => &scene.crew.publishers,
        Whose::Redriver => std::slice::from_ref(&scene.crew.redriver),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crash_point_is_a_fault_named_after_it() {
        for point in CrashPoint::ALL {
            let crash = of(*point).expect("a row");
            assert_eq!(crash.name, format!("crash-{}", point.name()));
        }
        assert_eq!(CRASHES.len(), CrashPoint::ALL.len());
    }
}
