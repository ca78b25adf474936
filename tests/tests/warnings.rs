//! A server that loses what it confirms is told of at the start, loudly.

#![allow(clippy::unwrap_used)]

use longshore::Queue;
use longshore_testing::brokers::{Broker, Fsync};
use longshore_tests::{job::publish_jobs, logs::Logs, unique};

const NOT_DURABLE: &str = "appendonly is off";
const EVICTS: &str = "under memory pressure Redis deletes queues";

fn warnings(text: &str) -> usize {
    let lines = Logs::kept().lines_with(text);
    assert!(
        lines.iter().all(|line| line.contains("WARN")),
        "no warnings: {lines:?}"
    );
    lines.len()
}

/// One test, because one process has one log.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgets_or_evicts_is_warned_of_by_every_client_that_connects() {
    Logs::kept();
    let sound = Broker::redis().start().await.unwrap();
    longshore::connect(&sound.url()).await.unwrap();
    assert_eq!((warnings(NOT_DURABLE), warnings(EVICTS)), (0, 0));

    let forgetful = Broker::redis().fsync(Fsync::NoAppendOnlyFile);
    let mut forgetful = forgetful.start().await.unwrap();
    let client = longshore::connect(&forgetful.url()).await.unwrap();
    assert_eq!((warnings(NOT_DURABLE), warnings(EVICTS)), (1, 0));
    // And it is true.
    let queue = Queue::new(&unique("forgotten"));
    publish_jobs(&client, &queue, 1).await.unwrap();
    forgetful.kill().await.unwrap();
    forgetful.start_again().await.unwrap();
    let client = longshore::connect(&forgetful.url()).await.unwrap();
    client.declare(&queue).await.unwrap();
    assert_eq!(client.stats(&queue).await.unwrap().ready, 0);
    assert_eq!(warnings(NOT_DURABLE), 2);

    let policy = "maxmemory-policy allkeys-lru";
    let evicting = Broker::redis().config(policy).start().await.unwrap();
    longshore::connect(&evicting.url()).await.unwrap();
    let told = Logs::kept().lines_with(EVICTS);
    assert_eq!(warnings(EVICTS), 1);
    assert!(told[0].contains("allkeys-lru"), "{told:?}");
}
