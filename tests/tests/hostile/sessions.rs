//! Keys nobody expects, and forged notes among those that owners of partitions leave for each other.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use longshore::{
    Backoff, Client, Connect, Context, ErrorKind, HandlerError, Health, Queue, Reason, Result,
    Router, Worker, WorkerHandle,
};
use longshore_testing::brokers;
use longshore_tests::{
    job::Job,
    plain,
    raw_amqp::{
        Properties,
        Property::{Headers, Type},
        RawAmqp, RawMessage, entry, long, nested_arrays, text_entry,
    },
    unique,
    waiting::until,
    witness::dead,
};
use serde_json::{Value, json};

use crate::{key, with_headers};

/// Sums up the numbers of each session in its state, and remembers key, sum and token of every job
/// that is done.
#[derive(Clone, Default)]
struct Sums(Arc<Mutex<Vec<(String, u64, u64)>>>);

impl Sums {
    async fn worker(&self, client: &Client, queue: &Queue) -> WorkerHandle {
        self.start(client, queue).await.unwrap()
    }

    async fn start(&self, client: &Client, queue: &Queue) -> Result<WorkerHandle> {
        let sums = Arc::clone(&self.0);
        let router = Router::new().handle_fn(move |job: Job, cx: Context| {
            let sums = Arc::clone(&sums);
            async move {
                let session = cx.session();
                let sum = session.state::<u64>().await?.unwrap_or_default() + job.number;
                session.set_state(&sum)?;
                let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
                sums.push((session.key().to_owned(), sum, session.token()));
                Ok::<_, HandlerError>(())
            }
        });
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(50));
        let worker = Worker::new(client, queue, router).lock(Duration::from_secs(2));
        let worker = worker.backoff(backoff).time_limit(Duration::from_secs(3));
        worker.max_attempts(2).start().await
    }

    fn seen(&self) -> Vec<(String, u64, u64)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for so many jobs, and answers the last sum of each key.
    async fn reach(&self, count: usize) -> BTreeMap<String, u64> {
        until(
            &format!("{count} jobs"),
            Duration::from_secs(30),
            async || (self.seen().len() >= count).then_some(()),
        )
        .await;
        let seen = self.seen();
        assert_eq!(seen.len(), count, "{seen:?}");
        seen.into_iter().map(|(key, sum, _)| (key, sum)).collect()
    }

    /// The tokens of a key, in the order of its jobs.
    fn tokens(&self, of: &str) -> Vec<u64> {
        let seen = self.seen().into_iter();
        seen.filter(|(key, ..)| key == of)
            .map(|(_, _, token)| token)
            .collect()
    }
}

async fn with_sessions(url: &str, name: &str) -> (Client, Queue) {
    let client = longshore::connect(url).await.unwrap();
    let queue = Queue::new(&unique(name)).sessions(4);
    client.declare(&queue).await.unwrap();
    (client, queue)
}

async fn publish(client: &Client, queue: &Queue, key: &str, number: u64) {
    client
        .publish(queue, &Job { number })
        .key(key.to_owned())
        .await
        .unwrap();
}

/// Keys that look like something else, each of which is a key like any other.
fn odd_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        " ",
        ".",
        "*",
        "#",
        "*.#",
        "{}",
        "}:state:a",
        "{orders}",
        "a:b",
        "a'b\"c\\",
        "ünï – code",
        "🦀",
        "a\u{202e}b",
        "%s%n",
        "../../etc",
        "null",
    ]
    .map(str::to_owned)
    .into();
    keys.push("k".repeat(128));
    keys.push("ü".repeat(64));
    keys
}

/// Each twice, by us: what one leaves in its state the other finds, and no other key does.
async fn odd_keys_are_sessions(url: &str) {
    let (client, queue) = with_sessions(url, "odd").await;
    let keys = odd_keys();
    let sums = Sums::default();
    let worker = sums.worker(&client, &queue).await;
    for (n, key) in (1..).zip(&keys) {
        publish(&client, &queue, key, n).await;
        publish(&client, &queue, key, n * 1000).await;
    }
    let found = sums.reach(keys.len() * 2).await;
    worker.stop().await;
    let expected = (1..).zip(&keys).map(|(n, key)| (key.clone(), n * 1001));
    assert_eq!(found, expected.collect());
    for key in [
        "k".repeat(129),
        "ü".repeat(65),
        "a\nb".into(),
        "a\0b".into(),
        String::new(),
    ] {
        let refused = client
            .publish(&queue, &Job { number: 1 })
            .key(key.clone())
            .await;
        let refused = refused.map_err(|error| error.kind());
        assert_eq!(refused.unwrap_err(), ErrorKind::Invalid, "{key:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_keys_are_keys_like_any_other_on_rabbitmq() {
    odd_keys_are_sessions(&brokers::amqp_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_keys_are_keys_like_any_other_on_redis() {
    odd_keys_are_sessions(&brokers::redis_url().unwrap()).await;
}

/// What no key may be.
fn no_keys() -> [(&'static str, Vec<u8>); 6] {
    [
        ("129 bytes", vec![b'k'; 129]),
        ("a newline", b"a\nb".to_vec()),
        ("a NUL", b"a\0b".to_vec()),
        ("an escape sequence", b"a\x1b[31m".to_vec()),
        ("a separator of ours", b"1\x1fab".to_vec()),
        ("no UTF-8", b"\xff\xfe".to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_key_may_be_is_hostile_in_sessions_on_rabbitmq() {
    let url = brokers::amqp_url().unwrap();
    let (client, queue) = with_sessions(&url, "keys").await;
    let mut raw = RawAmqp::connect(&url).unwrap();
    let sums = Sums::default();
    let worker = sums.worker(&client, &queue).await;
    let places = [queue.name().to_owned(), format!("{}.s4.1", queue.name())];
    let mut expected = BTreeMap::<String, usize>::new();
    let mut count = |reason: Reason| *expected.entry(reason.to_string()).or_default() += 1;
    for place in &places {
        for (_, octets) in no_keys() {
            let table = entry(b"longshore-key", b'S', &long(&octets));
            raw.publish(place, &with_headers(table)).unwrap();
            count(Reason::Hostile);
        }
        // Neither is anything that is no text.
        for table in [
            entry(b"longshore-key", b'l', &7_i64.to_be_bytes()),
            entry(b"longshore-key", b'F', &long(&text_entry("a", b"b"))),
            entry(b"longshore-key", b'V', b""),
        ] {
            raw.publish(place, &with_headers(table)).unwrap();
            count(Reason::KeyMissing);
        }
        raw.publish(place, &with_headers(nested_arrays(5_000)))
            .unwrap();
        count(Reason::Hostile);
    }
    publish(&client, &queue, "good", 1).await;
    assert_eq!(sums.reach(1).await["good"], 1);
    let letters = dead(&client, &queue, expected.values().sum()).await;
    worker.stop().await;
    let mut found = BTreeMap::<String, usize>::new();
    for letter in &letters {
        assert_eq!(letter.attempts, 0, "{letter:?}");
        *found.entry(letter.reason.to_string()).or_default() += 1;
    }
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_key_may_be_is_hostile_in_sessions_on_redis() {
    let url = brokers::redis_url().unwrap();
    let (client, queue) = with_sessions(&url, "keys").await;
    let sums = Sums::default();
    let worker = sums.worker(&client, &queue).await;
    let places = [
        key(&queue, "stream"),
        format!("ls:{{{}.s4.1}}:stream", queue.name()),
    ];
    let mut adds = Vec::new();
    for place in &places {
        for (_, octets) in no_keys() {
            adds.push(json!([
                "XADD",
                place,
                "*",
                "type",
                "job",
                "body",
                "{\"number\":1}",
                "key",
                plain::bytes(&octets)
            ]));
        }
        adds.push(json!([
            "XADD",
            place,
            "*",
            "type",
            "job",
            "body",
            "{\"number\":1}",
            "key",
            "a",
            "key",
            "b"
        ]));
    }
    plain::redis(&url, &adds).await;
    publish(&client, &queue, "good", 1).await;
    assert_eq!(sums.reach(1).await["good"], 1);
    for letter in dead(&client, &queue, adds.len()).await {
        assert_eq!(
            (&letter.reason, letter.attempts),
            (&Reason::Hostile, 0),
            "{letter:?}"
        );
    }
    worker.stop().await;
}

/// A marker as its owner writes it, with this token and number.
fn marker(token: Vec<u8>, number: Vec<u8>) -> RawMessage {
    let table = [
        token,
        number,
        entry(b"clean", b't', &[1]),
        entry(
            b"started",
            b'F',
            &long(&entry(b"a", b'l', &i64::MAX.to_be_bytes())),
        ),
        entry(
            b"returned",
            b'F',
            &long(&entry(b"a", b'l', &i64::MAX.to_be_bytes())),
        ),
    ];
    let properties = Properties::default().with(Type, "longshore.marker");
    RawMessage {
        properties: properties.with(Headers, table.concat()),
        body: Vec::new(),
    }
}

fn integer(name: &[u8], n: i64) -> Vec<u8> {
    entry(name, b'l', &n.to_be_bytes())
}

/// What somebody might put into the queue where the owners of a partition leave their markers.
fn poison() -> Vec<(&'static str, Vec<RawMessage>)> {
    let token = |n| integer(b"token", n);
    let number = |n| integer(b"number", n);
    let nothing = RawMessage::default();
    vec![
        ("nothing", vec![nothing.clone()]),
        ("so much that no marker is left", vec![nothing; 20]),
        (
            "a body",
            vec![RawMessage {
                body: vec![b'x'; 1 << 20],
                ..marker(token(1), number(1))
            }],
        ),
        ("a bomb", vec![with_headers(nested_arrays(20_000))]),
        (
            "a token that is text",
            vec![marker(text_entry("token", b"many"), number(1))],
        ),
        ("a token below zero", vec![marker(token(-1), number(-1))]),
        (
            "the largest token",
            vec![marker(token(i64::MAX), number(i64::MAX))],
        ),
        (
            "a larger one still",
            vec![marker(
                entry(b"token", b'T', &u64::MAX.to_be_bytes()),
                entry(b"number", b'T', &u64::MAX.to_be_bytes()),
            )],
        ),
        (
            "the largest tokens alone",
            vec![marker(token(i64::MAX), number(i64::MAX)); 20],
        ),
    ]
}

/// Poisons the marker of the key's partition while it has no owner, each time in another way.
async fn poisoned_markers(connect: Connect, url: &str) {
    let client = connect.open().await.unwrap();
    let queue = Queue::new(&unique("marker")).sessions(1);
    let marker = format!("{}.s1.0.marker", queue.name());
    let mut raw = RawAmqp::connect(url).unwrap();
    let sums = Sums::default();
    let mut jobs = 0;
    for (what, messages) in [("no poison", Vec::new())].into_iter().chain(poison()) {
        for message in &messages {
            raw.publish(&marker, message).unwrap();
        }
        println!("{what}");
        let worker = sums.worker(&client, &queue).await;
        for _ in 0..2 {
            jobs += 1;
            publish(&client, &queue, "a", 1).await;
        }
        // The state is written, so its token was not taken for an old one.
        assert_eq!(sums.reach(jobs).await["a"], jobs as u64, "{what}");
        worker.stop().await;
    }
    let tokens = sums.tokens("a");
    println!("{tokens:?}");
    assert!(tokens.iter().all(|token| *token > 0));
    assert!(tokens.is_sorted(), "a token has shrunk: {tokens:?}");
    let changes = tokens.chunks(2).map(|pair| pair[0]).collect::<Vec<_>>();
    assert!(
        changes.is_sorted_by(|a, b| a < b),
        "a token was given out twice: {changes:?}"
    );
    assert_eq!(client.stats(&queue).await.unwrap().dead, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn poisoned_markers_stop_no_partition_and_shrink_no_token() {
    let url = brokers::amqp_url().unwrap();
    poisoned_markers(Connect::new(&url), &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poisoned_markers_stop_no_partition_whose_state_is_on_redis() {
    let url = brokers::amqp_url().unwrap();
    let store = brokers::redis_url().unwrap();
    poisoned_markers(Connect::new(&url).store(store), &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_a_marker_or_a_fence_among_messages_holds_up_nothing() {
    let url = brokers::amqp_url().unwrap();
    let (client, queue) = with_sessions(&url, "fence").await;
    let mut raw = RawAmqp::connect(&url).unwrap();
    let sums = Sums::default();
    let worker = sums.worker(&client, &queue).await;
    let fence = RawMessage {
        properties: Properties::default().with(Type, "longshore.fence"),
        body: b"?".to_vec(),
    };
    for place in [queue.name().to_owned(), format!("{}.s4.0", queue.name())] {
        for message in [&fence, &marker(integer(b"token", 9), integer(b"number", 9))] {
            for _ in 0..100 {
                raw.publish(&place, message).unwrap();
            }
        }
    }
    for n in 0..8 {
        publish(&client, &queue, &format!("key-{n}"), 1).await;
    }
    sums.reach(8).await;
    // A fence is nothing to anybody; a marker is a message without a key.
    let letters = dead(&client, &queue, 200).await;
    assert!(
        letters
            .iter()
            .all(|letter| letter.reason == Reason::KeyMissing)
    );
    until("nothing is left", Duration::from_secs(10), async || {
        (client.stats(&queue).await.unwrap().ready == 0).then_some(())
    })
    .await;
    assert_eq!(client.stats(&queue).await.unwrap().dead, 200);
    worker.stop().await;
}

/// Garbage under a key of a partition of Redis, and whether a worker starts and goes on there.
fn garbage() -> [(&'static str, Value, Outcome); 8] {
    use Outcome::{Dead, Handled, Refused, Waits};
    [
        ("token", json!(["SET", "KEY", "many"]), Handled),
        (
            "token",
            json!(["SET", "KEY", u64::MAX.to_string()]),
            Handled,
        ),
        ("token", json!(["SET", "KEY", "9".repeat(1000)]), Handled),
        ("token", json!(["RPUSH", "KEY", "x"]), Refused),
        // Somebody has it, for all that can be seen.
        ("lease", json!(["SET", "KEY", "somebody"]), Waits),
        (
            "lease",
            json!(["HSET", "KEY", "owner", "somebody"]),
            Refused,
        ),
        // Nobody can say what the state is; the worker says so.
        ("state:a", json!(["SET", "KEY", "x"]), Waits),
        (
            "state:a",
            json!(["HSET", "KEY", "now", "{{", "aside", "?"]),
            Dead,
        ),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Handled,
    Refused,
    Waits,
    Dead,
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_under_the_keys_of_a_partition_on_redis_stops_no_other() {
    let url = brokers::redis_url().unwrap();
    for (what, command, outcome) in garbage() {
        println!("{what} {outcome:?}");
        let (client, queue) = with_sessions(&url, "garbage").await;
        // "a" is in partition 0 of 4, "b" to "d" are in the others.
        let poisoned = format!("ls:{{{}.s4.0}}:{what}", queue.name());
        let words = command.as_array().unwrap().iter();
        let words = words.map(|word| match word.as_str() {
            Some("KEY") => json!(poisoned),
            _ => word.clone(),
        });
        plain::redis(&url, &[words.collect()]).await;
        let sums = Sums::default();
        if outcome == Outcome::Refused {
            let refused = sums.start(&client, &queue).await.map(drop);
            assert_eq!(
                refused.unwrap_err().kind(),
                ErrorKind::TopologyDiffers,
                "{what}"
            );
            continue;
        }
        let worker = sums.worker(&client, &queue).await;
        for key in ["a", "b", "c", "d"] {
            publish(&client, &queue, key, 1).await;
        }
        match outcome {
            Outcome::Handled => drop(sums.reach(4).await),
            Outcome::Waits => {
                assert!(!sums.reach(3).await.contains_key("a"));
                if what != "lease" {
                    let says = async || match worker.health() {
                        Health::NotReady(why) => why.contains("WRONGTYPE").then_some(()),
                        _ => None,
                    };
                    until("the worker says why", Duration::from_secs(10), says).await;
                }
                plain::redis(&url, &[json!(["DEL", poisoned])]).await;
                sums.reach(4).await;
            }
            _ => {
                assert!(!sums.reach(3).await.contains_key("a"));
                let letter = dead(&client, &queue, 1).await.remove(0);
                assert_eq!(letter.envelope.key.as_deref(), Some("a"), "{letter:?}");
                assert_eq!(letter.attempts, 2, "{letter:?}");
            }
        }
        worker.stop().await;
    }
}
