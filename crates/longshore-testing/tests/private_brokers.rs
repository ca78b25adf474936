//! Private brokers, really started, killed, frozen and restarted. Needs the servers' binaries.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use longshore_testing::brokers::{Broker, BrokerKind, Error, ErrorKind, Fsync, TlsFiles};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn accepts_connections(addr: SocketAddr) -> bool {
    TcpStream::connect_timeout(&addr, Duration::from_secs(1)).is_ok()
}

/// Polls until `condition` holds; the failure names what was awaited. A sentinel that was not given the
/// processor for two seconds does nothing for the next thirty, hence the patience.
async fn eventually<F: Future<Output = bool>>(awaited: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition().await {
        assert!(Instant::now() < deadline, "still not: {awaited}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn role(broker: &Broker, node: usize) -> Result<String, Error> {
    Ok(broker
        .redis_command_on(node, &["INFO", "replication"])
        .await?
        .to_string())
}

#[tokio::test]
async fn a_rabbitmq_killed_with_its_whole_group_comes_back_with_its_data_on_the_same_port()
-> Outcome {
    let mut broker = Broker::start(BrokerKind::RabbitMq).await?;
    assert_eq!(broker.version().product, "RabbitMQ");
    broker.rabbitmqctl(&["add_vhost", "survivor"]).await?;
    let (url, addr) = (broker.url(), broker.addr(0));

    broker.kill().await?;
    assert!(!accepts_connections(addr));
    assert_eq!(broker.process_group(0), None);
    broker.start_again().await?;
    assert_eq!(broker.url(), url);
    assert!(
        broker
            .rabbitmqctl(&["list_vhosts"])
            .await?
            .contains("survivor")
    );

    broker.stop().await?;
    assert!(!accepts_connections(addr));
    broker.start_again().await?;
    assert!(
        broker
            .rabbitmqctl(&["list_vhosts"])
            .await?
            .contains("survivor")
    );
    Ok(())
}

#[tokio::test]
async fn several_rabbitmqs_run_at_once_and_do_not_know_each_other() -> Outcome {
    let (one, other) = tokio::try_join!(
        Broker::start(BrokerKind::RabbitMq),
        Broker::start(BrokerKind::RabbitMq)
    )?;
    assert_ne!(one.url(), other.url());
    one.rabbitmqctl(&["add_vhost", "mine"]).await?;
    assert!(!other.rabbitmqctl(&["list_vhosts"]).await?.contains("mine"));
    Ok(())
}

#[tokio::test]
async fn rabbitmqs_own_words_are_in_the_error_of_a_refused_command() -> Outcome {
    let broker = Broker::rabbitmq().config("heartbeat = 7").start().await?;
    let heartbeat = broker
        .rabbitmqctl(&["eval", "application:get_env(rabbit, heartbeat)."])
        .await?;
    assert_eq!(heartbeat.trim(), "{ok,7}");
    let error = broker
        .rabbitmqctl(&["delete_vhost", "nowhere"])
        .await
        .expect_err("there is no such vhost");
    assert_eq!(error.kind(), ErrorKind::Command);
    assert!(error.to_string().contains("nowhere"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_configuration_rabbitmq_refuses_is_an_error_with_the_tail_of_its_log() {
    let error = Broker::rabbitmq()
        .config("no_such_setting = 1")
        .start()
        .await
        .expect_err("RabbitMQ refuses it");
    assert_eq!(error.kind(), ErrorKind::Exited);
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn a_redis_killed_and_restarted_has_what_it_confirmed() -> Outcome {
    let mut broker = Broker::redis().fsync(Fsync::Always).start().await?;
    broker.redis_command(&["SET", "a key", "a value"]).await?;
    let addr = broker.addr(0);
    broker.kill().await?;
    assert!(!accepts_connections(addr));
    broker.start_again().await?;
    assert_eq!(broker.addr(0), addr);
    assert_eq!(
        broker.redis_command(&["GET", "a key"]).await?.text(),
        Some("a value")
    );
    broker.stop().await?;
    broker.start_again().await?;
    assert_eq!(
        broker.redis_command(&["GET", "a key"]).await?.text(),
        Some("a value")
    );
    Ok(())
}

#[tokio::test]
async fn a_redis_without_append_only_file_forgets() -> Outcome {
    let mut broker = Broker::redis()
        .fsync(Fsync::NoAppendOnlyFile)
        .start()
        .await?;
    broker.redis_command(&["SET", "key", "value"]).await?;
    broker.kill().await?;
    broker.start_again().await?;
    assert_eq!(
        broker.redis_command(&["EXISTS", "key"]).await?.integer(),
        Some(0)
    );
    Ok(())
}

#[tokio::test]
async fn a_frozen_broker_answers_only_once_it_is_thawed() -> Outcome {
    let broker = Broker::start(BrokerKind::Redis).await?;
    broker.freeze().await?;
    let asked = broker.redis_command(&["PING"]);
    tokio::pin!(asked);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut asked)
            .await
            .is_err(),
        "it answered while frozen"
    );
    broker.thaw().await?;
    assert_eq!(asked.await?.text(), Some("PONG"));
    Ok(())
}

#[tokio::test]
async fn a_redis_cluster_serves_all_slots_also_after_a_node_was_killed_and_restarted() -> Outcome {
    let mut broker = Broker::redis().cluster(3).start().await?;
    assert_eq!((broker.nodes(), broker.url().matches(',').count()), (3, 2));
    broker.kill_node(1).await?;
    broker.start_again().await?;
    let info = broker
        .redis_command_on(1, &["CLUSTER", "INFO"])
        .await?
        .to_string();
    assert!(info.contains("cluster_slots_ok:16384"), "{info}");
    Ok(())
}

#[tokio::test]
async fn a_sentinel_promotes_the_replica_when_the_primary_is_killed() -> Outcome {
    let mut broker = Broker::redis().sentinel(1).start().await?;
    assert!(role(&broker, 0).await?.contains("role:master"));
    broker.kill_node(0).await?;
    eventually("the replica is promoted", async || {
        role(&broker, 1)
            .await
            .is_ok_and(|role| role.contains("role:master"))
    })
    .await;
    broker.start_again().await?;
    eventually("the old primary follows", async || {
        role(&broker, 0)
            .await
            .is_ok_and(|role| role.contains("role:slave"))
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_broker_with_certificates_listens_for_tls_beside_the_plain_port() -> Outcome {
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let folder =
        std::env::temp_dir().join(format!("longshore-certificates-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let files = TlsFiles {
        ca: folder.join("ca.pem"),
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    std::fs::write(&files.ca, made.cert.pem())?;
    std::fs::write(&files.cert, made.cert.pem())?;
    std::fs::write(&files.key, made.signing_key.serialize_pem())?;
    let redis = Broker::redis().tls(files.clone()).start().await?;
    let rabbitmq = Broker::rabbitmq().tls(files).start().await?;
    std::fs::remove_dir_all(&folder)?;
    for (broker, scheme) in [(redis, "rediss://"), (rabbitmq, "amqps://guest:guest@")] {
        let url = broker.tls_url()?;
        let authority = url.strip_prefix(scheme).expect("the scheme says TLS");
        let port: u16 = authority
            .strip_prefix("localhost:")
            .expect("by name")
            .parse()?;
        assert!(speaks_tls(port).await?, "no TLS at {url}");
        assert!(
            !speaks_tls(broker.addr(0).port()).await?,
            "the plain port speaks TLS"
        );
    }
    Ok(())
}

/// Whether the answer to garbage in a TLS record is a TLS alert.
async fn speaks_tls(port: u16) -> std::io::Result<bool> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream
        .write_all(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00\r\n")
        .await?;
    let mut first = [0];
    // A plain Redis waits for more of what looks like a command: no answer is no TLS either.
    let answer = tokio::time::timeout(Duration::from_secs(3), stream.read(&mut first)).await;
    Ok(matches!(answer, Ok(Ok(1))) && first[0] == 0x15)
}

#[tokio::test]
async fn a_dropped_broker_leaves_no_listener_and_no_data() -> Outcome {
    for kind in [BrokerKind::Redis, BrokerKind::RabbitMq] {
        let broker = Broker::start(kind).await?;
        let (addr, folder) = (broker.addr(0), broker.data_folder().to_owned());
        assert!(folder.is_dir());
        drop(broker);
        assert!(!accepts_connections(addr), "{kind:?} still listens");
        assert!(
            !Path::new(&folder).exists(),
            "{kind:?} left {}",
            folder.display()
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_outlives_neither_its_test_process_nor_a_kill_of_it() -> Outcome {
    // This test binary runs itself as the process to be killed.
    if std::env::var_os("LONGSHORE_TEST_BE_KILLED").is_some() {
        let broker = Broker::start(BrokerKind::Redis).await?;
        std::fs::write(
            std::env::var("LONGSHORE_TEST_BE_KILLED")?,
            broker.addr(0).port().to_string(),
        )?;
        std::future::pending::<()>().await;
    }
    let note = std::env::temp_dir().join(format!("longshore-port-{}", std::process::id()));
    let mut child = std::process::Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "a_broker_outlives_neither_its_test_process_nor_a_kill_of_it",
        ])
        .env("LONGSHORE_TEST_BE_KILLED", &note)
        .spawn()?;
    let port = || std::fs::read_to_string(&note).ok()?.parse::<u16>().ok();
    eventually("the child has a broker", async || port().is_some()).await;
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port().expect("written")));
    assert!(accepts_connections(addr));
    child.kill()?;
    child.wait()?;
    eventually("its broker is gone", async || !accepts_connections(addr)).await;
    std::fs::remove_file(&note)?;
    Ok(())
}
