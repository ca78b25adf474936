//! TLS, credentials, clusters and sentinels.
#![allow(clippy::unwrap_used)]

mod server;

use std::{sync::Arc, time::Duration};

use longshore_core::{
    Destination, ErrorKind, Mark, MarkChange, MarkWrite, Part, Published, Reason, Settlement,
    Standing, Subscription, Take, Topology, Transport, Verdict, mark_name,
};
use longshore_testing::brokers::{Broker, TlsFiles};
use server::{Consumer, Server, body, message, options, publish, queue, subscription};

const LOCK: Duration = Duration::from_secs(3);

/// A message through everything: publish, retry later, dead letter, redrive, complete.
async fn whole_road(transport: &Arc<dyn Transport>, name: &str) {
    let mut consumer = Consumer::new(transport, subscription(name, 8, LOCK)).await;
    publish(transport, name, ["x".to_owned()]).await;
    let delivery = consumer.one().await;
    consumer
        .settle(
            delivery,
            Verdict::Retry {
                after: Duration::from_millis(50),
            },
        )
        .await
        .unwrap();
    let delivery = consumer.one().await;
    assert_eq!(delivery.attempt, 2);
    let verdict = Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: String::new(),
    };
    consumer.settle(delivery, verdict).await.unwrap();
    let admin = transport.admin();
    let dead = admin.dead_letters(&queue(name), None, 10).await.unwrap();
    admin
        .redrive(&queue(name), &[dead[0].id.clone()])
        .await
        .pop()
        .unwrap()
        .unwrap();
    let delivery = consumer.one().await;
    assert_eq!((delivery.attempt, body(&delivery)), (1, "x".into()));
    assert!(consumer.complete(vec![delivery]).await[0].is_ok());
    assert_eq!(admin.stats(&queue(name)).await.unwrap().ready, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_verifies_the_chain_and_the_host_name() {
    let folder = std::env::temp_dir().join(format!("longshore-redis-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let cert = cert.signed_by(&key, &issuer).unwrap();
    let files = TlsFiles {
        ca: folder.join("ca.pem"),
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    std::fs::write(&files.ca, ca.pem()).unwrap();
    std::fs::write(&files.cert, cert.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    let broker = Broker::redis().tls(files).start().await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();

    let url = broker.tls_url().unwrap();
    let mut trusting = options();
    trusting.certificate_authorities = Some(ca.pem().into_bytes());
    let transport = longshore_redis::connect(&url, trusting.clone())
        .await
        .unwrap();
    whole_road(&transport, "q").await;

    let wrong_name = url.replace("localhost", "127.0.0.1");
    let refused = longshore_redis::connect(&wrong_name, trusting)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    let refused = longshore_redis::connect(&url, options())
        .await
        .err()
        .unwrap();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_log_in_and_are_never_shown() {
    let server = Server::start(&[]).await;
    // What the documentation asks for and no more: neither CONFIG nor ROLE nor KEYS.
    server.query::<String>("ACL SETUSER alice on >canary%#1 ~ls:* +@all -@dangerous");
    server.query::<String>("ACL SETUSER default off");
    let host = server.broker.addr(0);
    let url = format!("redis://alice:canary%25%231@{host}");
    let transport = longshore_redis::connect(&url, options()).await.unwrap();
    whole_road(&transport, "q").await;
    let mut shown = format!("{:?}", transport.capabilities());
    for url in [
        format!("redis://alice:canary-wrong@{host}"),
        format!("redis://:canary-wrong@{host}"),
        format!("redis://{host}"),
    ] {
        let refused = longshore_redis::connect(&url, options())
            .await
            .err()
            .unwrap();
        assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
        shown += &format!("{refused} {refused:?}");
    }
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_carry_the_name_of_the_client() {
    let server = Server::start(&[]).await;
    let mut named = options();
    named.name = "billing service\n".into();
    let transport = server.connect_with(named).await;
    let _consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    publish(&transport, "q", ["x".to_owned()]).await;
    server::until("every connection has its name", || {
        let list: String = server.query("CLIENT LIST");
        ["publish", "settle", "read", "delay"]
            .iter()
            .all(|role| list.contains(&format!("name=billing_service_:{role}")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_used_slot_by_slot() {
    let mut broker = Broker::redis().cluster(3).start().await.unwrap();
    let transport = longshore_redis::connect(&broker.url(), options())
        .await
        .unwrap();
    assert!(!transport.capabilities().atomic_topics);
    // Slots of different nodes, in one batch and in one topic.
    let names = ["a", "b", "c", "d"];
    for name in names {
        whole_road(&transport, name).await;
        let mut topology = Topology::new(queue(name));
        topology.topics = vec![queue("everybody")];
        transport
            .declare(&topology, Default::default())
            .await
            .unwrap();
    }
    let batch = names.iter().map(|name| message(name, *name)).collect();
    assert!(transport.publish(batch).await.iter().all(Result::is_ok));
    let mut copy = message("x", "copy");
    copy.to = Destination::Topic(queue("everybody"));
    let mut later = copy.clone();
    later.delay = Duration::from_millis(100);
    assert!(
        transport
            .publish(vec![copy, later])
            .await
            .iter()
            .all(Result::is_ok)
    );
    for name in names {
        let mut consumer = Consumer::new(&transport, subscription(name, 8, LOCK)).await;
        let mut bodies: Vec<_> = consumer.receive(3).await.iter().map(body).collect();
        bodies.sort();
        let mut expected = [name, "copy", "copy"];
        expected.sort_unstable();
        assert_eq!(bodies, expected);
    }
    // A node that was away, with everything on it.
    broker.kill().await.unwrap();
    broker.start_again().await.unwrap();
    let mut left = 4;
    while left > 0 {
        left = 0;
        for name in names {
            let answer = transport
                .publish(vec![message(name, "after")])
                .await
                .pop()
                .unwrap();
            left += usize::from(answer.is_err());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_ids_and_replies_keep_to_their_slots_on_a_cluster() {
    let broker = Broker::redis().cluster(3).start().await.unwrap();
    let transport = longshore_redis::connect(&broker.url(), options())
        .await
        .unwrap();
    let store = transport.store().unwrap();
    for name in ["a", "b", "c", "d"] {
        let mut topology = Topology::new(queue(name));
        topology.lanes = vec![queue("high")];
        topology.topics = vec![queue("everybody")];
        topology.dedup_window = Some(LOCK);
        let subscription = Subscription {
            topology: Arc::new(topology),
            part: Part::Lane(1),
            ..subscription(name, 8, LOCK)
        };
        let mut high = Consumer::new(&transport, subscription).await;
        let mut urgent = message(name, "x");
        urgent.to = Destination::Queue(queue(name), Part::Lane(1));
        urgent.envelope.priority = Some("high".into());
        urgent.dedup_window = Some(LOCK);
        urgent.delay = Duration::from_millis(50);
        let twice = transport.publish(vec![urgent.clone(), urgent]).await;
        let twice: Vec<_> = twice.into_iter().map(Result::unwrap).collect();
        assert_eq!(twice, [Published::Accepted, Published::Duplicate]);
        let delivery = high.one().await;
        let mark = mark_name(None, &delivery.envelope.id);
        let mut dead = Settlement::new(
            delivery.receipt,
            1,
            Verdict::DeadLetter {
                reason: Reason::Permanent,
                detail: String::new(),
            },
            delivery.envelope,
        );
        dead.mark = Some(MarkWrite {
            name: mark.clone(),
            owner: "".into(),
            change: MarkChange::Released,
        });
        assert!(high.settler.settle(vec![dead]).await[0].is_ok());
        let admin = transport.admin();
        let letters = admin.dead_letters(&queue(name), None, 10).await.unwrap();
        let sent = admin.redrive(&queue(name), &[letters[0].id.clone()]).await;
        assert!(sent[0].is_ok());
        let back = high.one().await;
        assert_eq!(back.standing, Standing::Exempt);
        assert!(high.complete(vec![back]).await[0].is_ok());
        let take = Take {
            name: mark,
            owner: "me".into(),
            attempt: 1,
            lease: LOCK,
            sole: false,
        };
        let taken = store.take(&name.into(), &[take]).await.unwrap();
        assert_eq!(taken, [Mark::Taken]);

        let (address, mut source) = transport.inbox().await.unwrap();
        let mut reply = message(name, "reply");
        reply.to = Destination::Reply(address);
        transport.publish(vec![reply]).await.remove(0).unwrap();
        let mut got = Vec::new();
        let came = std::future::poll_fn(|cx| source.poll_receive(cx, 1, &mut got));
        let came = tokio::time::timeout(Duration::from_secs(20), came).await;
        assert_eq!((came.unwrap().unwrap(), body(&got[0])), (1, "reply".into()));
    }
    // Each queue by itself: what one of them lacks is completed, and nobody gets a second.
    let mut copy = message("x", "copy");
    copy.envelope.id = "copy".into();
    copy.to = Destination::Topic(queue("everybody"));
    for expected in [Published::Accepted, Published::Duplicate] {
        let answer = transport.publish(vec![copy.clone()]).await.remove(0);
        assert_eq!(answer.unwrap(), expected);
    }
    assert_eq!(transport.admin().stats(&queue("c")).await.unwrap().ready, 1);
}

/// A node that says that another machine holds every slot.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_cannot_send_the_password_to_another_machine_in_the_clear() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let node = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = node.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = node.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut asked).await {
                    let asked = String::from_utf8_lossy(&asked[..n]).to_uppercase();
                    let mut answer = String::new();
                    if asked.contains("HELLO") {
                        answer.push_str("%1\r\n$5\r\nproto\r\n:3\r\n");
                    }
                    if asked.contains("SLOTS") {
                        // 192.0.2.0/24 is nobody's (RFC 5737).
                        let master = "*3\r\n$9\r\n192.0.2.1\r\n:6379\r\n$1\r\nx\r\n";
                        answer.push_str("*1\r\n*3\r\n:0\r\n:16383\r\n");
                        answer.push_str(master);
                    }
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    let url = format!("redis+cluster://billing:secret@{host}");
    let refused = longshore_redis::connect(&url, options()).await.err();
    let refused = refused.expect("a node elsewhere");
    assert_eq!(
        refused.kind(),
        ErrorKind::Invalid,
        "it was tried: {refused}"
    );
    let text = refused.to_string();
    assert!(
        text.contains("192.0.2.1") && !text.contains("secret"),
        "{text}"
    );
    let mut allowed = options();
    allowed.allow_plaintext = true;
    allowed.connect_timeout = Duration::from_millis(500);
    let tried = longshore_redis::connect(&url, allowed).await.err();
    assert_eq!(tried.expect("nobody").kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_sentinels_the_new_master_is_found() {
    let mut broker = Broker::redis().sentinel(1).start().await.unwrap();
    let transport = longshore_redis::connect(&broker.url(), options())
        .await
        .unwrap();
    whole_road(&transport, "q").await;
    let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    publish(&transport, "q", ["before".to_owned()]).await;
    let held = consumer.one().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    broker.kill_node(0).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(40);
    while transport
        .publish(vec![message("q", "after")])
        .await
        .pop()
        .unwrap()
        .is_err()
    {
        assert!(tokio::time::Instant::now() < deadline, "no new master");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let next = consumer.one().await;
    assert_eq!(body(&next), "after");
    for answer in consumer.complete(vec![held, next]).await {
        answer.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_transport_answers_closed_and_leaves_no_connection() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    publish(&transport, "q", ["x".to_owned()]).await;
    let _held = consumer.one().await;
    let asked = tokio::time::Instant::now();
    transport.close(Duration::from_secs(5)).await;
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    let answer = transport
        .publish(vec![message("q", "x")])
        .await
        .pop()
        .unwrap();
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Closed);
    server::until("nobody is connected", || {
        let list: String = server.query("CLIENT LIST");
        !list.contains("name=test:")
    })
    .await;
}
