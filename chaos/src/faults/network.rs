//! Connections that break, fall silent, slow down, lose and garble what they carry.

use std::time::Duration;

use futures_util::FutureExt;
use longshore_testing::proxy::{Counters, Direction, Flow, Harm, Method, Proxy, Trap};
use tokio::time::sleep;

use super::{Act, Evidence, Fault, Once};
use crate::{Failure, plan::On, random::Random, scene::Scene};

const BOTH: [Direction; 2] = [Direction::ToServer, Direction::ToClient];
/// How long a trap waits for what it is to catch.
const TRAP: std::ops::RangeInclusive<u64> = 1_000..=3_000;

pub(super) fn all() -> Vec<Fault> {
    vec![
        fault(
            ("reset", "10", "connections end with an RST: all, or one"),
            |scene| reset(scene).boxed(),
            (200..=2_000, 8),
        ),
        fault(
            (
                "half-open",
                "11",
                "nothing passes for 6 s, on all connections or on half of those there are",
            ),
            |scene| half_open(scene, &BOTH).boxed(),
            (500..=2_000, 3),
        ),
        fault(
            (
                "half-open-to-server",
                "12",
                "nothing reaches the broker for 6 s",
            ),
            |scene| half_open(scene, &[Direction::ToServer]).boxed(),
            (500..=2_000, 3),
        ),
        fault(
            (
                "half-open-to-client",
                "12",
                "nothing comes from the broker for 6 s",
            ),
            |scene| half_open(scene, &[Direction::ToClient]).boxed(),
            (500..=2_000, 3),
        ),
        fault(
            ("delay", "10-12", "every byte is 20 to 500 ms late, for 3 s"),
            |scene| delay(scene).boxed(),
            (200..=2_000, 4),
        ),
        fault(
            (
                "slow",
                "10-12",
                "connections carry 4 to 64 kB a second, for 3 s",
            ),
            |scene| slow(scene).boxed(),
            (200..=2_000, 4),
        ),
        Fault {
            evidence: evidence(10),
            ..Fault::new(
                "lose-confirms",
                "5/7",
                "answers to publishes are lost, with or without their connection",
                Act::Once(|scene| lose_confirms(scene).boxed()),
            )
        },
        Fault {
            evidence: evidence(4),
            ..Fault::new(
                "lose-settlement-replies",
                "3",
                "settlements are lost with their connection, or done and never answered",
                Act::Once(|scene| lose_settlements(scene).boxed()),
            )
        },
        Fault {
            on: &[On::Amqp],
            evidence: evidence(4),
            ..Fault::new(
                "lose-publishes",
                "7",
                "publishes are lost with their connection",
                Act::Once(|scene| lose_publishes(scene).boxed()),
            )
        },
        fault(
            (
                "truncate",
                "10",
                "connections end with a FIN in the middle of what they carry",
            ),
            |scene| truncate(scene).boxed(),
            (200..=2_000, 4),
        ),
        Fault {
            evidence: evidence(6),
            ..Fault::new(
                "corrupt",
                "10",
                "frames, replies and greetings begin with a byte that is wrong",
                Act::Once(|scene| corrupt(scene).boxed()),
            )
        },
    ]
}

fn fault(
    (name, row, says): (&'static str, &'static str, &'static str),
    once: Once,
    (rest, strikes): (std::ops::RangeInclusive<u64>, u64),
) -> Fault {
    Fault {
        rest,
        evidence: evidence(strikes),
        ..Fault::new(name, row, says, Act::Once(once))
    }
}

fn evidence(strikes: u64) -> Evidence {
    Evidence {
        strikes,
        ..Evidence::default()
    }
}

/// The proxy before the broker, or sometimes the one before the store.
fn somewhere<'a>(scene: &'a Scene, random: &mut Random) -> &'a Proxy {
    match &scene.store {
        Some(store) if random.happens(250) => &store.proxy,
        _ => &scene.proxy,
    }
}

async fn reset(scene: &mut Scene) -> Result<(), Failure> {
    let mut random = scene.random.split();
    let proxy = somewhere(scene, &mut random);
    let links = proxy.connections();
    let cut = match random.happens(500) || links.is_empty() {
        true => proxy.reset_all().await as u64,
        false => u64::from(random.pick(&links).reset().await),
    };
    scene.strikes += u64::from(cut > 0);
    Ok(())
}

async fn half_open(scene: &mut Scene, directions: &[Direction]) -> Result<(), Failure> {
    let mut random = scene.random.split();
    // What is lost for good, or what the network delivers when it is back.
    let flow = *random.pick(&[Flow::Freeze, Flow::Discard]);
    let proxy = somewhere(scene, &mut random);
    let links = proxy.connections();
    let all = random.happens(500);
    for direction in directions {
        if all {
            proxy.set(*direction, flow);
            continue;
        }
        for link in links.iter().step_by(2) {
            link.set(*direction, flow);
        }
    }
    sleep(Duration::from_secs(6)).await;
    proxy.pass().await?;
    scene.strikes += 1;
    Ok(())
}

async fn delay(scene: &mut Scene) -> Result<(), Failure> {
    let mut random = scene.random.split();
    let delay = Flow::Delay(random.millis(20..=500));
    for_a_while(scene, &mut random, delay).await
}

async fn slow(scene: &mut Scene) -> Result<(), Failure> {
    let mut random = scene.random.split();
    let rate = Flow::Rate(random.within(4_000..=64_000));
    for_a_while(scene, &mut random, rate).await
}

async fn for_a_while(scene: &mut Scene, random: &mut Random, flow: Flow) -> Result<(), Failure> {
    let proxy = somewhere(scene, random);
    proxy.set_both(flow);
    sleep(Duration::from_secs(3)).await;
    proxy.pass().await?;
    scene.strikes += 1;
    Ok(())
}

async fn truncate(scene: &mut Scene) -> Result<(), Failure> {
    let mut random = scene.random.split();
    let proxy = somewhere(scene, &mut random);
    let before = proxy.counters().accepted;
    let bytes = random.within(0..=30_000);
    proxy.set(*random.pick(&BOTH), Flow::Truncate(bytes));
    sleep(random.millis(500..=1_500)).await;
    proxy.pass().await?;
    // Whoever lost its connection has opened another one.
    scene.strikes += u64::from(proxy.counters().accepted > before);
    Ok(())
}

/// Sets a trap for a while; adds to the strikes what it has caught.
async fn trap(scene: &mut Scene, proxy: fn(&Scene) -> &Proxy, trap: Trap) -> Result<(), Failure> {
    let caught =
        |counters: Counters| counters.lost_methods + counters.lost_replies + counters.damaged;
    let time = scene.random.millis(TRAP);
    let proxy = proxy(scene);
    let before = caught(proxy.counters());
    proxy.trap(trap);
    sleep(time).await;
    proxy.pass().await?;
    scene.strikes += caught(proxy.counters()) - before;
    Ok(())
}

/// What a trap does to a connection.
fn harm(random: &mut Random) -> Harm {
    match random.happens(500) {
        true => Harm::LoseThenReset,
        false => Harm::LoseThenHold(random.millis(500..=2_000)),
    }
}

async fn lose_confirms(scene: &mut Scene) -> Result<(), Failure> {
    let every = scene.random.within(5..=50);
    let harm = harm(&mut scene.random);
    let lost = match scene.plan.on {
        // A broker may also never answer: a queue without its majority.
        On::Amqp if scene.random.happens(500) => confirm(Harm::Lose),
        On::Amqp => confirm(harm),
        _ => Trap::reply(harm),
    };
    trap(scene, |scene| &scene.proxy, lost.every(every)).await
}

fn confirm(harm: Harm) -> Trap {
    Trap::method(Direction::ToClient, Method::BASIC_ACK, harm)
}

async fn lose_settlements(scene: &mut Scene) -> Result<(), Failure> {
    let every = scene.random.within(20..=200);
    let harm = harm(&mut scene.random);
    match scene.plan.on {
        On::Amqp if scene.random.happens(700) => {
            let lost = Trap::method(Direction::ToServer, Method::BASIC_ACK, harm);
            trap(scene, |scene| &scene.proxy, lost.every(every)).await
        }
        On::Amqp => trap(scene, store, Trap::reply(harm).every(every)).await,
        _ => trap(scene, |scene| &scene.proxy, Trap::reply(harm).every(every)).await,
    }
}

/// Where settlements are written first, if there is such a place.
fn store(scene: &Scene) -> &Proxy {
    scene
        .store
        .as_ref()
        .map_or(&scene.proxy, |store| &store.proxy)
}

async fn lose_publishes(scene: &mut Scene) -> Result<(), Failure> {
    let every = scene.random.within(20..=200);
    // Without a reset both sides would count their confirms differently, which no network does.
    let lost = Trap::method(
        Direction::ToServer,
        Method::BASIC_PUBLISH,
        harm(&mut scene.random),
    );
    trap(scene, |scene| &scene.proxy, lost.every(every)).await
}

/// Only what a reader can notice: no checksum guards a body, and no broker promises one.
async fn corrupt(scene: &mut Scene) -> Result<(), Failure> {
    if scene.random.happens(300) {
        return corrupt_greeting(scene).await;
    }
    let every = scene.random.within(20..=200);
    let damage = |direction, method| Trap::method(direction, method, Harm::Damage);
    let garbled = match scene.plan.on {
        On::Amqp => *scene.random.pick(&[
            damage(Direction::ToClient, Method::BASIC_DELIVER),
            damage(Direction::ToClient, Method::BASIC_ACK),
            damage(Direction::ToServer, Method::BASIC_ACK),
            damage(Direction::ToServer, Method::BASIC_PUBLISH),
        ]),
        _ => Trap::reply(Harm::Damage),
    };
    trap(scene, |scene| &scene.proxy, garbled.every(every)).await
}

/// Every connection is made anew, with a wrong byte in the first frame or reply.
async fn corrupt_greeting(scene: &mut Scene) -> Result<(), Failure> {
    let direction = *scene.random.pick(&BOTH);
    let at = Flow::Corrupt(scene.random.within(0..=3));
    let time = scene.random.millis(500..=1_500);
    let proxy = &scene.proxy;
    let before = proxy.counters().damaged;
    // Those there are would get it in the middle, where no reader may notice.
    proxy.set_new(direction, at);
    proxy.reset_all().await;
    sleep(time).await;
    proxy.pass().await?;
    scene.strikes += u64::from(proxy.counters().damaged > before);
    Ok(())
}
