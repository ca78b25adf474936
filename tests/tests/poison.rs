//! A message that kills its process is set aside and harms nobody; a restart costs nobody anything.

#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, time::Duration};

use longshore::{Client, Queue, Reason, Worker};
use longshore_testing::brokers::{self, Broker, BrokerKind};
use longshore_tests::{
    job::{Job, publish_jobs},
    journal,
    service::{Service, terminate},
    unique,
    waiting::until,
};

const SERVICE: &str = env!("CARGO_BIN_EXE_service");

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_a_job_that_aborts_its_process_is_dead_after_5_starts_and_999_others_complete()
{
    poison(&brokers::amqp_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_a_job_that_aborts_its_process_is_dead_after_5_starts_and_999_others_complete() {
    poison(&brokers::redis_url().unwrap()).await;
}

async fn poison(url: &str) {
    const JOBS: u64 = 1_000;
    const POISON: u64 = 321;
    let name = unique("poison");
    let journal = journal_file(&name);
    let client = longshore::connect(url).await.unwrap();
    let queue = Queue::new(&name);
    publish_jobs(&client, &queue, JOBS).await.unwrap();

    let service = Service::new(
        SERVICE,
        &[
            ("url", url),
            ("queue", &name),
            ("journal", journal.to_str().unwrap()),
            ("poison", &POISON.to_string()),
            ("prefetch", "64"),
            ("busy-ms", "5"),
            ("lock-ms", "2000"),
        ],
    );
    let supervisors = [
        service.supervise(),
        service.supervise(),
        service.supervise(),
    ];
    until(
        "all jobs are completed or dead",
        Duration::from_secs(180),
        async || {
            let done = journal::attempts(&journal::read(&journal).ok()?, "done");
            let dead = client.stats(&queue).await.ok()?.dead;
            (done.len() as u64 == JOBS - 1 && dead > 0).then_some(())
        },
    )
    .await;
    let crashes: u32 = supervisors.iter().map(|s| s.crashes()).sum();
    for supervisor in supervisors {
        supervisor.stop().await.unwrap();
    }

    let events = journal::read(&journal).unwrap();
    let mut starts = journal::attempts(&events, "start");
    let of_poison = starts.remove(&POISON).unwrap();
    println!("the poison started as attempts {of_poison:?}; {crashes} crashes");
    assert!(of_poison.len() <= 5, "{of_poison:?}");
    assert!(
        of_poison.windows(2).all(|pair| pair[0] < pair[1]),
        "{of_poison:?}"
    );
    assert_eq!(crashes as usize, of_poison.len(), "only the poison kills");

    let dead = client.dead_letters(&queue).list(None, 100).await.unwrap();
    let ids: Vec<&str> = dead.iter().map(|letter| &*letter.envelope.id).collect();
    assert_eq!(ids, [format!("job-{POISON}")]);
    assert_eq!(dead[0].reason, Reason::Crashed);
    assert!(!journal::attempts(&events, "done").contains_key(&POISON));
    for (job, attempts) in &starts {
        let mut distinct = attempts.clone();
        distinct.dedup();
        assert_eq!(
            &distinct, attempts,
            "no attempt number of job {job} repeats"
        );
        assert!(attempts.len() <= 5, "job {job}: {attempts:?}");
    }
    let stats = client.stats(&queue).await.unwrap();
    assert_eq!(stats.ready, 0, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_a_clean_restart_with_10000_jobs_in_flight_costs_nobody_an_attempt() {
    clean_restart(&brokers::amqp_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_a_clean_restart_with_10000_jobs_in_flight_costs_nobody_an_attempt() {
    clean_restart(&brokers::redis_url().unwrap()).await;
}

/// Ten services hold 1,000 jobs each; all are told to stop; what had not started then runs as
/// attempt 1.
async fn clean_restart(url: &str) {
    const JOBS: u64 = 10_000;
    let name = unique("restart");
    let journal = journal_file(&name);
    let client = longshore::connect(url).await.unwrap();
    let queue = Queue::new(&name);
    publish_jobs(&client, &queue, JOBS).await.unwrap();
    let slow = Service::new(
        SERVICE,
        &[
            ("url", url),
            ("queue", &name),
            ("journal", journal.to_str().unwrap()),
            ("prefetch", "1000"),
            ("concurrency", "4"),
            ("busy-ms", "1500"),
            // RabbitMQ before 3.12 takes back what is unsettled for 30 minutes.
            ("limit-ms", "5000"),
        ],
    );
    let mut children: Vec<_> = (0..10).map(|_| slow.spawn().unwrap()).collect();
    until(
        "everything is in flight",
        Duration::from_secs(60),
        async || {
            let started = journal::attempts(&journal::read(&journal).ok()?, "start").len();
            let stats = client.stats(&queue).await.ok()?;
            (stats.ready == 0 && started >= 40).then_some(())
        },
    )
    .await;
    for child in &children {
        terminate(child).await.unwrap();
    }
    for child in &mut children {
        assert!(child.wait().await.unwrap().success());
    }
    let before = journal::read(&journal).unwrap();
    let started = journal::attempts(&before, "start");
    assert!(
        started.len() < JOBS as usize / 2,
        "most were waiting: {}",
        started.len()
    );
    assert_eq!(
        started.len(),
        journal::attempts(&before, "done").len(),
        "what ran was allowed to finish"
    );

    let fast = Service::new(
        SERVICE,
        &[
            ("url", url),
            ("queue", &name),
            ("journal", journal.to_str().unwrap()),
            ("prefetch", "500"),
            ("concurrency", "500"),
        ],
    );
    let supervisor = fast.supervise();
    until("all jobs are done", Duration::from_secs(120), async || {
        let done = journal::attempts(&journal::read(&journal).ok()?, "done");
        (done.len() as u64 == JOBS).then_some(())
    })
    .await;
    supervisor.stop().await.unwrap();
    let starts = journal::attempts(&journal::read(&journal).unwrap(), "start");
    for (job, attempts) in &starts {
        assert_eq!(attempts, &[1], "job {job}");
    }
    assert_eq!(client.stats(&queue).await.unwrap().dead, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_restart_with_10000_jobs_in_flight_sends_none_through_quarantine() {
    broker_restart(BrokerKind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_restart_with_10000_jobs_in_flight_loses_none() {
    broker_restart(BrokerKind::Redis).await;
}

/// Ten workers hold 1,000 jobs each when the broker is restarted.
async fn broker_restart(kind: BrokerKind) {
    const JOBS: u64 = 10_000;
    let mut broker = Broker::start(kind).await.unwrap();
    let name = unique("outage");
    let journal = journal_file(&name);
    let url = broker.url();
    let client = longshore::connect(&url).await.unwrap();
    let queue = Queue::new(&name);
    publish_jobs(&client, &queue, JOBS).await.unwrap();

    let (release, released) = tokio::sync::watch::channel(false);
    let mut workers = Vec::new();
    for _ in 0..10 {
        let client = longshore::connect(&url).await.unwrap();
        workers.push((
            waiting_worker(&client, &queue, &journal, released.clone()).await,
            client,
        ));
    }
    until(
        "everything is in flight",
        Duration::from_secs(60),
        async || (client.stats(&queue).await.ok()?.ready == 0).then_some(()),
    )
    .await;
    broker.stop().await.unwrap();
    broker.start_again().await.unwrap();
    release.send(true).unwrap();
    until("all jobs are done", Duration::from_secs(180), async || {
        let done = journal::attempts(&journal::read(&journal).ok()?, "done");
        (done.len() as u64 == JOBS).then_some(())
    })
    .await;
    let starts = journal::attempts(&journal::read(&journal).unwrap(), "start");
    let deepest = starts.values().flatten().max();
    println!("deepest attempt after one restart: {deepest:?}");
    for (job, attempts) in &starts {
        // Quarantine counts both returns that lead there, so what has been in it starts as 3.
        assert!(
            attempts.iter().all(|&attempt| attempt <= 2),
            "job {job}: {attempts:?}"
        );
    }
    for (worker, _) in workers {
        worker.stop().await;
    }
    assert_eq!(client.stats(&queue).await.unwrap().dead, 0);
}

async fn waiting_worker(
    client: &Client,
    queue: &Queue,
    journal: &std::path::Path,
    released: tokio::sync::watch::Receiver<bool>,
) -> longshore::WorkerHandle {
    let journal = std::sync::Arc::new(journal::Journal::open(journal).unwrap());
    let router = longshore::Router::new().handle_fn(move |job: Job, cx: longshore::Context| {
        let (journal, mut released) = (journal.clone(), released.clone());
        async move {
            journal.note("start", job.number, cx.attempt())?;
            released.wait_for(|released| *released).await?;
            journal.note("done", job.number, cx.attempt())?;
            Ok::<_, longshore::HandlerError>(())
        }
    });
    Worker::new(client, queue, router)
        .prefetch(1_000)
        .concurrency(40)
        .start()
        .await
        .unwrap()
}

fn journal_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}
