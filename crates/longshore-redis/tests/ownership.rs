//! Who owns what: exclusive over processes, fenced, and free again when it should be.
#![allow(clippy::unwrap_used)]

mod server;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use longshore_core::{
    Claim, Declare, Destination, ErrorKind, Name, Outgoing, Part, Reason, Topology, Transport,
    Verdict, partition_of,
};
use longshore_testing::{
    brokers::Broker,
    proxy::{Direction, Flow, Proxy},
};
use server::{
    Server, body,
    member::{Member, Owner, P0, keyed, publish_keyed, sessions},
    message, options, queue, until,
};

const LOCK: Duration = Duration::from_secs(2);
const CLAIMS: [Claim; 3] = [P0, Claim::Seat(0), Claim::Forwarder];

#[tokio::test(flavor = "multi_thread")]
async fn no_two_own_the_same_and_tokens_grow() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 2);
    let owned: Arc<Mutex<BTreeMap<Claim, usize>>> = Arc::default();
    let tokens: Arc<Mutex<Vec<u64>>> = Arc::default();
    let mut tasks = Vec::new();
    for who in 0..4 {
        let transport = server.connect().await;
        let member = Member::join(&transport, &topology, LOCK).await;
        let (owned, tokens) = (Arc::clone(&owned), Arc::clone(&tokens));
        tasks.push(tokio::spawn(async move {
            for round in 0..60 {
                let claim = CLAIMS[(round + who) % 3];
                let Some(ownership) = member.try_own(claim).await else {
                    continue;
                };
                assert_eq!(
                    owned.lock().unwrap().insert(claim, who),
                    None,
                    "two own {claim:?}"
                );
                if claim == P0 {
                    tokens.lock().unwrap().push(ownership.token);
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
                assert_eq!(owned.lock().unwrap().remove(&claim), Some(who));
                member.release(ownership).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let tokens = tokens.lock().unwrap();
    assert!(tokens.len() > 5, "{}", tokens.len());
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_grow_over_restarts_and_over_the_loss_of_the_last_one() {
    let mut server = Server::start(&["appendonly yes", "appendfsync always"]).await;
    let topology = sessions("q", 1);
    let mut last = 0;
    for lost in [false, false, true] {
        let transport = server.connect().await;
        let member = Member::join(&transport, &topology, LOCK).await;
        let ownership = member.own(P0).await;
        assert!(ownership.token > last, "{} after {last}", ownership.token);
        last = ownership.token;
        member.release(ownership).await.unwrap();
        drop(member);
        transport.close(Duration::from_secs(1)).await;
        if lost {
            server.query::<u64>("DEL ls:{q.s1.0}:token");
        } else {
            server.broker.kill().await.unwrap();
            server.broker.start_again().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_living_and_the_free_are_counted() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 4);
    let (here, there) = (server.connect().await, server.connect().await);
    let one = Member::join(&here, &topology, LOCK).await;
    assert_eq!(one.membership.live().await.unwrap(), 1);
    assert_eq!(one.membership.free().await.unwrap(), [0, 1, 2, 3]);
    let two = Owner::of(&there, &topology, LOCK).await;
    let seat = two.member.own(Claim::Seat(0)).await;
    assert_eq!(one.membership.live().await.unwrap(), 2);
    assert_eq!(one.membership.free().await.unwrap(), [1, 2, 3]);
    for claim in [seat.claim, P0] {
        assert!(one.try_own(claim).await.is_none());
    }
    let died = Instant::now();
    drop(two);
    // The seat is given back as a courtesy; the partition may still be worked on.
    one.own(Claim::Seat(0)).await;
    assert!(died.elapsed() < LOCK, "{:?}", died.elapsed());
    one.own(P0).await;
    assert!(
        died.elapsed() < LOCK + Duration::from_secs(1),
        "{:?}",
        died.elapsed()
    );
    assert_eq!(one.membership.live().await.unwrap(), 1);
    assert_eq!(one.membership.free().await.unwrap(), [1, 2, 3]);
    let wrong = one.membership.acquire(Claim::Partition(4)).await;
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_cannot_renew_is_told_before_anybody_else_can_own() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 1);
    let proxy = Proxy::start(server.broker.addr(0)).await.unwrap();
    let cut_off = longshore_redis::connect(&proxy.url(&server.url()), options())
        .await
        .unwrap();
    let direct = server.connect().await;
    let mut owner = Owner::of(&cut_off, &topology, LOCK).await;
    publish_keyed(&direct, &topology, "k", ["0".to_owned()]).await;
    let held = owner.consumer.one().await;
    // Half open: nothing comes, nothing goes, nothing ends.
    proxy.set_both(Flow::Discard);
    let other = Member::join(&direct, &topology, LOCK).await;
    let told = owner.member.lost_within(LOCK + Duration::from_secs(2));
    let gone = async {
        other.own(P0).await;
        Instant::now()
    };
    let told = async { (told.await, Instant::now()) };
    let ((lost, told), gone) = tokio::join!(told, gone);
    assert_eq!(lost, Some(owner.ownership));
    assert!(told < gone, "told {:?} too late", told - gone);
    assert_eq!(
        owner.consumer.lost_within(Duration::from_secs(1)).await,
        [held.receipt]
    );
    let ended = owner
        .consumer
        .receive_within(1, Duration::from_secs(1))
        .await;
    assert!(ended.is_empty());
    let answer = owner.consumer.settle(held, Verdict::Complete).await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Stale);
    // No subscription without the right to it.
    let again = cut_off
        .subscribe(owner.member.subscription(owner.ownership))
        .await;
    assert_eq!(again.err().unwrap().kind(), ErrorKind::Stale);
    proxy.pass().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_lock_counts_even_where_nobody_answers_that_it_does() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 1);
    let proxy = Proxy::start(server.broker.addr(0)).await.unwrap();
    let url = proxy.url(&server.url());
    let transport = longshore_redis::connect(&url, options()).await.unwrap();
    let mut member = Member::join(&transport, &topology, 10 * LOCK).await;
    let ownership = member.own(P0).await;
    let lasts = || server.query::<i64>("PTTL ls:{q.s1.0}:lease");
    assert!(lasts() > 20_000, "the default");
    let owner = member.consuming(ownership).await;
    assert!(
        (15_000..=20_000).contains(&lasts()),
        "as the subscription says"
    );
    member = owner.release().await;
    let ownership = member.own(P0).await;
    assert!(
        (15_000..=20_000).contains(&lasts()),
        "as the one before said"
    );
    proxy.set(Direction::ToClient, Flow::Discard);
    member.lock = LOCK;
    let owner = member.consuming(ownership).await;
    let told = owner.member.lost_within(LOCK).await;
    assert_eq!(told, Some(ownership));
    let left = server.query::<i64>("PTTL ls:{q.s1.0}:lease");
    assert!((1..=LOCK.as_millis() as i64).contains(&left), "{left}");
    proxy.pass().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_blocks_its_thread_keeps_its_partition() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 1);
    let transport = server.connect().await;
    let mut owner = Owner::of(&transport, &topology, Duration::from_millis(600)).await;
    publish_keyed(&transport, &topology, "k", ["0".to_owned()]).await;
    let held = owner.consumer.one().await;
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(
        owner.member.lost_within(Duration::from_millis(50)).await,
        None
    );
    assert_eq!(owner.member.membership.live().await.unwrap(), 1);
    owner
        .consumer
        .settle(held, Verdict::Complete)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_refused_until_the_first_are_empty() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let (few, many, none) = (sessions("q", 16), sessions("q", 32), sessions("q", 0));
    transport.declare(&few, Declare::Create).await.unwrap();
    let refused = transport.declare(&many, Declare::Verify).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TopologyDiffers);
    publish_keyed(&transport, &few, "k", ["0".to_owned()]).await;
    for other in [&many, &none] {
        let refused = transport.declare(other, Declare::Create).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TopologyDiffers, "{refused}");
        assert!(refused.to_string().contains("16"), "{refused}");
    }
    let index = partition_of(&"k".into(), 16);
    let member = Member::join(&transport, &few, LOCK).await;
    let ownership = member.own(Claim::Partition(index)).await;
    let mut consumer = member.consume(ownership).await;
    let delivery = consumer.one().await;
    let dead = Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: String::new(),
    };
    consumer.settle(delivery, dead).await.unwrap();
    let refused = transport.declare(&many, Declare::Create).await;
    assert_eq!(
        refused.unwrap_err().kind(),
        ErrorKind::TopologyDiffers,
        "dead letters"
    );
    let admin = transport.admin();
    let letters = admin.dead_letters(&few.queue, None, 10).await.unwrap();
    admin
        .discard(&few.queue, &[letters[0].id.clone()])
        .await
        .pop()
        .unwrap()
        .unwrap();
    let refused = transport.declare(&many, Declare::Create).await.unwrap_err();
    assert!(refused.to_string().contains("1 workers"), "{refused}");
    drop((consumer, member));
    let from = Instant::now();
    while let Err(refused) = transport.declare(&many, Declare::Create).await {
        assert_eq!(refused.kind(), ErrorKind::TopologyDiffers);
        assert!(from.elapsed() < LOCK * 5, "{refused}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Whoever did not notice is told.
    let late = transport
        .publish(vec![keyed(&few, "k", "late")])
        .await
        .pop()
        .unwrap();
    assert_eq!(late.unwrap_err().kind(), ErrorKind::NoSuchQueue);
    publish_keyed(&transport, &many, "k", ["0".to_owned()]).await;
    for partitions in [3, 512] {
        let wrong = transport
            .declare(&sessions("r", partitions), Declare::Create)
            .await;
        assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_are_declared_at_once_and_verifying_creates_none() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let topology = sessions("q", 256);
    let missing = transport.declare(&topology, Declare::Verify).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NoSuchQueue);
    assert_eq!(server.query::<u64>("DBSIZE"), 0);
    let from = Instant::now();
    transport.declare(&topology, Declare::Create).await.unwrap();
    assert!(
        from.elapsed() < Duration::from_secs(2),
        "{:?}",
        from.elapsed()
    );
    transport.declare(&topology, Declare::Verify).await.unwrap();
    assert_eq!(
        server.query::<u64>("DBSIZE"),
        258,
        "streams, the plain one, what it is made of"
    );
    server.query::<u64>("DEL ls:{q.s256.017}:stream");
    let missing = transport
        .declare(&topology, Declare::Verify)
        .await
        .unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NoSuchQueue);
    assert!(missing.to_string().contains("q.s256.017"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forwarded_keeps_its_order_over_the_death_of_the_forwarder() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 2);
    let transport = server.connect().await;
    transport.declare(&topology, Declare::Create).await.unwrap();
    let batch = (0..20).map(|n| message("q", n.to_string())).collect();
    assert!(transport.publish(batch).await.iter().all(Result::is_ok));
    let numbers = |from: u32, to: u32| (from..to).map(|n| n.to_string()).collect::<Vec<_>>();
    let member = Member::join(&transport, &topology, LOCK).await;
    let ownership = member.own(Claim::Forwarder).await;
    let mut owner = member.consuming(ownership).await;
    let mut held = owner.consumer.receive(20).await;
    assert!(
        owner
            .consumer
            .complete(held.drain(..5).collect())
            .await
            .iter()
            .all(Result::is_ok)
    );
    drop(owner);
    let batch = (20..25).map(|n| message("q", n.to_string())).collect();
    assert!(transport.publish(batch).await.iter().all(Result::is_ok));
    let member = Member::join(&transport, &topology, LOCK).await;
    let ownership = member.own(Claim::Forwarder).await;
    let mut owner = member.consuming(ownership).await;
    let held = owner.consumer.receive(20).await;
    assert_eq!(held.iter().map(body).collect::<Vec<_>>(), numbers(5, 25));
    // Somebody else is granted it: the source ends.
    server.query::<u64>("DEL ls:{q}:forwarder");
    assert_eq!(
        owner.member.lost_within(Duration::from_secs(5)).await,
        Some(ownership)
    );
    let answers = owner.consumer.complete(held).await;
    assert!(
        answers
            .into_iter()
            .all(|a| a.unwrap_err().kind() == ErrorKind::Stale)
    );
    assert_eq!(server.query::<u64>("XLEN ls:{q}:stream"), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_partition_is_made_again_by_its_owner() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 1);
    let transport = server.connect().await;
    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    server.query::<u64>("DEL ls:{q.s1.0}:stream");
    until("it is there again", || {
        server.query::<bool>("EXISTS ls:{q.s1.0}:stream")
    })
    .await;
    publish_keyed(&transport, &topology, "k", ["0".to_owned()]).await;
    let delivery = owner.consumer.one().await;
    owner
        .consumer
        .settle(delivery, Verdict::Complete)
        .await
        .unwrap();
}

/// Everything sessions do, once.
async fn whole_road(transport: &Arc<dyn Transport>, topic: &Name) {
    let mut topology = Topology::new(queue("q"));
    topology.partitions = 8;
    topology.topics = vec![topic.clone()];
    let topology = Arc::new(topology);
    let member = Member::join(transport, &topology, LOCK).await;
    assert_eq!(member.membership.live().await.unwrap(), 1);
    for claim in [Claim::Seat(0), Claim::Forwarder] {
        let ownership = member.own(claim).await;
        member.release(ownership).await.unwrap();
    }
    let keys = ["a", "b", "c", "d", "e"];
    let copy = |key: &str| Outgoing {
        to: Destination::Topic(topic.clone()),
        ..keyed(&topology, key, key)
    };
    let mut batch: Vec<_> = keys.iter().map(|key| copy(key)).collect();
    batch.extend(keys.iter().map(|key| keyed(&topology, key, *key)));
    let mut late = keyed(&topology, "a", "late");
    late.delay = Duration::from_millis(100);
    batch.push(late);
    assert!(transport.publish(batch).await.iter().all(Result::is_ok));
    let mut left = 11;
    for index in 0..8 {
        let ownership = member.own(Claim::Partition(index)).await;
        let mut consumer = member.consume(ownership).await;
        let due = keys
            .iter()
            .filter(|key| partition_of(&(**key).into(), 8) == index);
        let due = due.count() * 2 + usize::from(partition_of(&"a".into(), 8) == index);
        for delivery in consumer.receive(due).await {
            let part = Part::Partition { index, of: 8 };
            assert_eq!(delivery.part, part);
            assert!(consumer.settler.start(&[(delivery.receipt, 2)]).await[0].is_ok());
            let dead = Verdict::DeadLetter {
                reason: Reason::Permanent,
                detail: String::new(),
            };
            consumer.settle(delivery, dead).await.unwrap();
            left -= 1;
        }
        drop(consumer);
        member.release(ownership).await.unwrap();
    }
    assert_eq!(left, 0);
    let admin = transport.admin();
    let letters = admin
        .dead_letters(&topology.queue, None, 100)
        .await
        .unwrap();
    assert!(letters.is_sorted_by_key(|letter| letter.at), "oldest first");
    let ids: Vec<_> = letters.iter().map(|letter| letter.id.clone()).collect();
    assert_eq!(ids.len(), 11);
    assert!(
        admin
            .redrive(&topology.queue, &ids)
            .await
            .iter()
            .all(Result::is_ok)
    );
    let stats = admin.stats(&topology.queue).await.unwrap();
    assert_eq!((stats.ready, stats.dead, stats.in_flight), (11, 0, Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_spread_over_a_cluster() {
    let broker = Broker::redis().cluster(3).start().await.unwrap();
    let transport = longshore_redis::connect(&broker.url(), options())
        .await
        .unwrap();
    whole_road(&transport, &queue("t")).await;
    let sizes: Vec<u64> = {
        let mut sizes = Vec::new();
        for node in 0..3 {
            let addr = broker.addr(node);
            let client = redis::Client::open(format!("redis://{addr}")).unwrap();
            let mut connection = client.get_connection().unwrap();
            sizes.push(redis::cmd("DBSIZE").query(&mut connection).unwrap());
        }
        sizes
    };
    assert!(sizes.iter().all(|size| *size > 0), "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_permissions_are_enough_for_sessions() {
    let server = Server::start(&[]).await;
    let folder = env!("CARGO_MANIFEST_DIR");
    let text = std::fs::read_to_string(format!("{folder}/../../docs/security.md")).unwrap();
    let rules = text
        .lines()
        .find(|line| line.starts_with("ACL SETUSER"))
        .unwrap();
    server.query::<String>(&rules.replace("PASSWORD", "pw"));
    let url = format!("redis://billing:pw@{}", server.broker.addr(0));
    let transport = longshore_redis::connect(&url, options()).await.unwrap();
    whole_road(&transport, &queue("t")).await;
}
