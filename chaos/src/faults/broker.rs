//! Brokers that die, restart, freeze, refuse, and lose what they had.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::sleep;

use super::{Act, Evidence, Fault, Once};
use crate::{Failure, plan::On, scene::Scene};

const AMQP: &[On] = &[On::Amqp];
const REDIS: &[On] = &[On::Redis];
/// How long a broker is short of something.
const SHORT: std::ops::RangeInclusive<u64> = 3_000..=6_000;

pub(super) fn all() -> Vec<Fault> {
    vec![
        Fault {
            ends_broker: true,
            rest: 2_000..=5_000,
            ..fault(
                (
                    "kill-broker",
                    "8",
                    "kill -9 of the broker, up again after up to 5 s",
                ),
                |scene| kill(scene).boxed(),
                1,
            )
        },
        Fault {
            ends_broker: true,
            rest: 2_000..=5_000,
            ..fault(
                (
                    "restart-broker",
                    "9",
                    "the broker stops as it should and starts again",
                ),
                |scene| restart(scene).boxed(),
                1,
            )
        },
        fault(
            ("freeze-broker", "14", "SIGSTOP of the broker for 3 s"),
            |scene| freeze(scene, Duration::from_secs(3)).boxed(),
            4,
        ),
        Fault {
            on: AMQP,
            ..fault(
                (
                    "freeze-broker-long",
                    "14",
                    "SIGSTOP of the broker for 12 s, longer than any heartbeat",
                ),
                |scene| freeze(scene, Duration::from_secs(12)).boxed(),
                1,
            )
        },
        Fault {
            on: AMQP,
            ..fault(
                (
                    "kill-store",
                    "8",
                    "kill -9 of the store beside RabbitMQ, up again after up to 5 s",
                ),
                |scene| kill_store(scene).boxed(),
                2,
            )
        },
        Fault {
            on: AMQP,
            ..fault(
                (
                    "freeze-store",
                    "14",
                    "SIGSTOP of the store beside RabbitMQ for 3 s",
                ),
                |scene| freeze_store(scene).boxed(),
                3,
            )
        },
        fault(
            (
                "close-connections",
                "10",
                "an operator closes all connections",
            ),
            |scene| close_connections(scene).boxed(),
            4,
        ),
        Fault {
            on: AMQP,
            ..fault(
                ("memory-alarm", "21", "the broker has no memory left"),
                |scene| memory_alarm(scene).boxed(),
                2,
            )
        },
        Fault {
            on: AMQP,
            ..fault(
                (
                    "disk-alarm",
                    "22",
                    "the broker has no disk left to its mind",
                ),
                |scene| disk_alarm(scene).boxed(),
                2,
            )
        },
        Fault {
            on: REDIS,
            ..fault(
                (
                    "redis-full",
                    "19",
                    "the server has no memory left and evicts nothing",
                ),
                |scene| redis_full(scene).boxed(),
                3,
            )
        },
        Fault {
            on: AMQP,
            ..fault(
                (
                    "dead-letters-full",
                    "24",
                    "the queues for dead letters refuse them",
                ),
                |scene| dead_letters_full(scene).boxed(),
                2,
            )
        },
        Fault {
            on: AMQP,
            plan: |plan| plan.time_limit = Duration::from_secs(6),
            mixes: false,
            ..fault(
                (
                    "consumer-timeout",
                    "25",
                    "the broker closes channels that hold a message for 3 s",
                ),
                |scene| consumer_timeout(scene).boxed(),
                1,
            )
        },
    ]
}

fn fault(
    (name, row, says): (&'static str, &'static str, &'static str),
    once: Once,
    strikes: u64,
) -> Fault {
    let evidence = Evidence {
        strikes,
        ..Evidence::default()
    };
    Fault {
        evidence,
        ..Fault::new(name, row, says, Act::Once(once))
    }
}

async fn kill(scene: &mut Scene) -> Result<(), Failure> {
    scene.broker.kill().await?;
    scene.pause(0..=5_000).await;
    scene.broker.start_again().await?;
    scene.strikes += 1;
    Ok(())
}

async fn restart(scene: &mut Scene) -> Result<(), Failure> {
    if scene.plan.on == On::Amqp && scene.random.happens(500) {
        scene.broker.rabbitmqctl(&["stop_app"]).await?;
        scene.broker.rabbitmqctl(&["start_app"]).await?;
    } else {
        scene.broker.stop().await?;
        scene.broker.start_again().await?;
    }
    scene.strikes += 1;
    Ok(())
}

async fn freeze(scene: &mut Scene, time: Duration) -> Result<(), Failure> {
    scene.broker.freeze().await?;
    sleep(time).await;
    scene.broker.thaw().await?;
    scene.strikes += 1;
    Ok(())
}

async fn kill_store(scene: &mut Scene) -> Result<(), Failure> {
    let down = scene.random.millis(0..=5_000);
    let Some(store) = &mut scene.store else {
        return Ok(());
    };
    store.broker.kill().await?;
    sleep(down).await;
    store.broker.start_again().await?;
    scene.strikes += 1;
    Ok(())
}

async fn freeze_store(scene: &mut Scene) -> Result<(), Failure> {
    let Some(store) = &mut scene.store else {
        return Ok(());
    };
    store.broker.freeze().await?;
    sleep(Duration::from_secs(3)).await;
    store.broker.thaw().await?;
    scene.strikes += 1;
    Ok(())
}

async fn close_connections(scene: &mut Scene) -> Result<(), Failure> {
    match scene.plan.on {
        On::Amqp => {
            let close = ["close_all_connections", "maintenance"];
            scene.broker.rabbitmqctl(&close).await?;
        }
        _ => {
            let kill = ["CLIENT", "KILL", "TYPE", "normal"];
            scene.broker.redis_command(&kill).await?;
        }
    }
    scene.strikes += 1;
    Ok(())
}

async fn memory_alarm(scene: &mut Scene) -> Result<(), Failure> {
    let raise = ["set_vm_memory_high_watermark", "absolute", "1MB"];
    scene.broker.rabbitmqctl(&raise).await?;
    scene.pause(SHORT).await;
    let clear = ["set_vm_memory_high_watermark", "0.6"];
    scene.broker.rabbitmqctl(&clear).await?;
    scene.strikes += 1;
    Ok(())
}

async fn disk_alarm(scene: &mut Scene) -> Result<(), Failure> {
    let raise = ["set_disk_free_limit", "100000000000000"];
    scene.broker.rabbitmqctl(&raise).await?;
    scene.pause(SHORT).await;
    let clear = ["set_disk_free_limit", "50000000"];
    scene.broker.rabbitmqctl(&clear).await?;
    scene.strikes += 1;
    Ok(())
}

async fn redis_full(scene: &mut Scene) -> Result<(), Failure> {
    scene.configure("maxmemory", "1mb").await?;
    scene.pause(SHORT).await;
    scene.configure("maxmemory", "0").await?;
    scene.strikes += 1;
    Ok(())
}

async fn dead_letters_full(scene: &mut Scene) -> Result<(), Failure> {
    let full = r#"{"max-length":1,"overflow":"reject-publish"}"#;
    let set = [
        "set_policy",
        "full",
        r"\.dlq$",
        full,
        "--apply-to",
        "queues",
    ];
    scene.broker.rabbitmqctl(&set).await?;
    scene.pause(SHORT).await;
    scene.broker.rabbitmqctl(&["clear_policy", "full"]).await?;
    scene.strikes += 1;
    Ok(())
}

/// Channels take the time-out with them when they are opened, and look at it once a tick.
async fn consumer_timeout(scene: &mut Scene) -> Result<(), Failure> {
    set_timeout(scene, 3_000, 250).await?;
    scene.pause(10_000..=10_000).await;
    set_timeout(scene, 1_800_000, 60_000).await?;
    scene.strikes += 1;
    Ok(())
}

async fn set_timeout(scene: &mut Scene, timeout: u64, tick: u64) -> Result<(), Failure> {
    let set = format!(
        "application:set_env(rabbit, consumer_timeout, {timeout}), application:set_env(rabbit, channel_tick_interval, {tick})."
    );
    scene.broker.rabbitmqctl(&["eval", &set]).await?;
    scene.proxy.reset_all().await;
    Ok(())
}
