//! Much of it at a time.

use std::time::Duration;

use longshore::{Client, Draft, HandlerError, Queue, Reason};
use longshore_testing::brokers;
use longshore_tests::{
    scene::Scene,
    unique,
    waiting::until,
    witness::{Witness, dead},
};

use crate::{MIB, on_rabbitmq, on_redis};

async fn long_error_text(client: &Client) {
    let queue = Queue::new(&unique("error"));
    let witness = Witness::default();
    let worker = witness
        .worker(client, &queue, |job, _| match job.number {
            0 => Err(HandlerError::permanent("é\u{1b}\n".repeat(MIB / 4))),
            1 => panic!("{}", "ü".repeat(MIB)),
            _ => Ok(()),
        })
        .await
        .unwrap();
    longshore_tests::job::publish_jobs(client, &queue, 3)
        .await
        .unwrap();
    let letter = until("the first is dead", Duration::from_secs(20), async || {
        client.dead_letters(&queue).peek().await.unwrap()
    })
    .await;
    assert_eq!(letter.reason, Reason::Permanent);
    assert!(
        (3_000..=4_096).contains(&letter.detail.len()),
        "{}",
        letter.detail.len()
    );
    assert!(!letter.detail.chars().any(char::is_control));
    let letters = dead(client, &queue, 2).await;
    assert_eq!(letters[1].reason, Reason::Exhausted, "the panic");
    assert!(
        (3_000..=4_096).contains(&letters[1].detail.len()),
        "{}",
        letters[1].detail.len()
    );
    assert!(
        witness.seen().iter().any(|sight| sight.number == 2),
        "the neighbour"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_text_of_1_mib_is_cut_and_its_dead_letter_arrives_on_rabbitmq() {
    long_error_text(
        &longshore::connect(&brokers::amqp_url().unwrap())
            .await
            .unwrap(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_text_of_1_mib_is_cut_and_its_dead_letter_arrives_on_redis() {
    long_error_text(
        &longshore::connect(&brokers::redis_url().unwrap())
            .await
            .unwrap(),
    )
    .await;
}

/// 20,000 undecodable messages among 2,000 good ones.
async fn poison_flood(mut scene: Scene) {
    const ROUNDS: u64 = 20;
    let before = scene.peak_kib();
    for _ in 0..ROUNDS {
        let bad = (0..1_000).map(|_| Draft::raw("job", "application/json", "{\"number\":"));
        for answer in scene.client.publish_all(&scene.queue, bad).await {
            answer.unwrap();
        }
        scene.send(100).await;
    }
    scene.done(scene.sent()).await;
    let stats = until(
        "all of the bad are dead",
        Duration::from_secs(120),
        async || {
            let stats = scene.client.stats(&scene.queue).await.ok()?;
            (stats.ready == 0 && stats.dead >= ROUNDS * 1_000).then_some(stats)
        },
    )
    .await;
    assert_eq!(stats.dead, ROUNDS * 1_000, "{stats:?}");
    let page = scene
        .client
        .dead_letters(&scene.queue)
        .list(None, 100)
        .await
        .unwrap();
    assert!(
        page.len() == 100
            && page
                .iter()
                .all(|letter| letter.reason == Reason::Undecodable)
    );
    scene.works().await;
    let warnings = scene
        .logged()
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .count();
    let grown = scene.peak_kib() - before;
    println!("{warnings} warnings, {grown} KiB more");
    assert!(warnings < 500, "{warnings} lines at WARN and above");
    assert!(grown < 64 * 1024, "the service grew by {grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_20000_undecodable_messages_holds_up_no_good_one_on_rabbitmq() {
    poison_flood(on_rabbitmq("flood").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_20000_undecodable_messages_holds_up_no_good_one_on_redis() {
    poison_flood(on_redis("flood").await).await;
}
