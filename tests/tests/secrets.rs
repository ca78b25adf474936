//! Passwords are nowhere to be seen, and never cross a network in the clear unless asked to.

#![allow(clippy::unwrap_used)]

use std::{error::Error as _, time::Duration};

use longshore::{Client, Connect, Error, ErrorKind, HandlerError, Queue};
use longshore_testing::brokers::Broker;
use longshore_tests::{
    certificates::Authority,
    job::publish_jobs,
    logs::Logs,
    unique,
    witness::{Witness, only_dead},
};

/// What must not be found anywhere.
const CANARY: &str = "CANARY";
const PASSWORD: &str = "CANARY p4ss/w@rd:%?#ü";
const ENCODED: &str = "CANARY%20p4ss%2Fw%40rd%3A%25%3F%23%C3%BC";
const USER: &str = "billing";

#[track_caller]
fn silent(what: &str, shown: &str) {
    assert!(
        !shown.contains(CANARY),
        "{what} shows the password: {shown}"
    );
}

#[track_caller]
fn silent_error(what: &str, error: &Error) {
    silent(what, &format!("{error} {error:?} {error:#?}"));
    let mut cause = error.source();
    while let Some(error) = cause {
        silent(what, &format!("{error} {error:?} {error:#?}"));
        cause = error.source();
    }
}

#[track_caller]
fn nothing_is_logged() {
    let lines = Logs::kept().lines_with(CANARY);
    assert!(lines.is_empty(), "{lines:#?}");
}

/// `broker`'s address with these credentials.
fn with_login(url: &str, login: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let host = rest.split_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{login}@{host}")
}

fn connect(url: &str, authority: Option<&Authority>) -> Connect {
    let connect = Connect::new(url).connect_timeout(Duration::from_secs(3));
    match authority {
        Some(authority) => connect.certificate_authorities(authority.pem()),
        None => connect,
    }
}

/// Refused with the wrong password, works with the right one; neither is seen.
async fn keeps_its_password(url: &str, authority: Option<&Authority>) {
    Logs::kept();
    for wrong in ["CANARY-wrong", "CANARY%2Fwrong%40"] {
        let url = with_login(url, &format!("{USER}:{wrong}"));
        silent("Connect", &format!("{:?}", connect(&url, authority)));
        let error = connect(&url, authority)
            .open()
            .await
            .expect_err("the wrong password");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        silent_error("a refused login", &error);
    }
    let right = with_login(url, &format!("{USER}:{ENCODED}"));
    let client = connect(&right, authority).open().await.unwrap();
    works(&client).await;
    silent("Client", &format!("{client:?} {client:#?}"));
    client.close().await;
    let closed = client
        .stats(&Queue::new("closed"))
        .await
        .expect_err("closed");
    silent_error("a closed client", &closed);
    nothing_is_logged();
}

async fn works(client: &Client) {
    let queue = Queue::new(&unique("secret"));
    let witness = Witness::default();
    let answer = |job: &longshore_tests::job::Job, cx: &longshore::Context| {
        silent("Context", &format!("{cx:?}"));
        match (job.number, cx.attempt()) {
            (0, 1) => Err(HandlerError::retry_after(
                Duration::from_millis(60),
                "again",
            )),
            (1, _) => Err(HandlerError::permanent("no")),
            _ => Ok(()),
        }
    };
    let worker = witness.worker(client, &queue, answer).await.unwrap();
    silent(
        "WorkerHandle",
        &format!("{worker:?} {worker:#?} {:?}", worker.health()),
    );
    publish_jobs(client, &queue, 2).await.unwrap();
    witness.starts(3).await;
    let letter = only_dead(client, &queue).await;
    silent("DeadLetter", &format!("{letter:?}"));
    silent("DeadLetters", &format!("{:?}", client.dead_letters(&queue)));
    client
        .dead_letters(&queue)
        .discard(&letter.id)
        .await
        .unwrap();
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_password_is_never_seen_with_or_without_tls() {
    let authority = Authority::new(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let broker = Broker::rabbitmq()
        .tls(authority.server(&["localhost"]))
        .start()
        .await
        .unwrap();
    broker
        .rabbitmqctl(&["add_user", USER, PASSWORD])
        .await
        .unwrap();
    broker
        .rabbitmqctl(&["set_permissions", USER, ".*", ".*", ".*"])
        .await
        .unwrap();
    keeps_its_password(&broker.url(), None).await;
    keeps_its_password(&broker.tls_url().unwrap(), Some(&authority)).await;

    // Nor when the connection is lost and made again, or refused the second time.
    let url = with_login(&broker.url(), &format!("{USER}:{ENCODED}"));
    let client = connect(&url, None).open().await.unwrap();
    let queue = Queue::new(&unique("lost"));
    client.declare(&queue).await.unwrap();
    broker
        .rabbitmqctl(&["change_password", USER, "another"])
        .await
        .unwrap();
    broker
        .rabbitmqctl(&["close_all_connections", "maintenance"])
        .await
        .unwrap();
    let error =
        longshore_tests::waiting::until("publishing fails", Duration::from_secs(20), async || {
            publish_jobs(&client, &queue, 1).await.err()
        })
        .await;
    silent_error("a publish after the password was changed", &error);
    nothing_is_logged();
}

async fn add_redis_user(broker: &Broker, nodes: usize) {
    let password = format!(">{PASSWORD}");
    for node in 0..nodes {
        let add = ["ACL", "SETUSER", USER, "on", &password, "~*", "&*", "+@all"];
        broker.redis_command_on(node, &add).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_password_is_never_seen_with_or_without_tls() {
    let authority = Authority::new(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let broker = Broker::redis()
        .tls(authority.server(&["localhost"]))
        .start()
        .await
        .unwrap();
    add_redis_user(&broker, 1).await;
    keeps_its_password(&broker.url(), None).await;
    keeps_its_password(&broker.tls_url().unwrap(), Some(&authority)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_a_redis_cluster_is_never_seen() {
    let broker = Broker::redis().cluster(3).start().await.unwrap();
    add_redis_user(&broker, 3).await;
    keeps_its_password(&broker.url(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_a_redis_behind_a_sentinel_is_never_seen() {
    let broker = Broker::redis().sentinel(1).start().await.unwrap();
    add_redis_user(&broker, 2).await;
    keeps_its_password(&broker.url(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_for_a_broker_that_is_not_there_is_never_seen() {
    Logs::kept();
    for url in [
        "amqp://billing:CANARY@127.0.0.1:1",
        "amqps://billing:CANARY@127.0.0.1:1/vhost",
        "amqps://billing:CANARY@no-such-host.invalid",
        "redis://billing:CANARY@127.0.0.1:1",
        "redis://:CANARY@127.0.0.1:1/3",
        "rediss://billing:CANARY@127.0.0.1:1",
        "rediss://billing:CANARY@no-such-host.invalid",
        "redis+cluster://billing:CANARY@127.0.0.1:1,127.0.0.1:2",
        "rediss+cluster://billing:CANARY@127.0.0.1:1",
        "redis+sentinel://billing:CANARY@127.0.0.1:1/main",
    ] {
        let authority = Authority::new(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let error = connect(url, Some(&authority)).open().await.expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{url}: {error}");
        silent_error(url, &error);
    }
    nothing_is_logged();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_a_mistake_is_refused_without_showing_the_password() {
    Logs::kept();
    for url in [
        "amqp:/billing:CANARY@localhost",
        "amqp:billing:CANARY@localhost",
        "amqp://billing:CANARY@",
        "amqp://billing:CANARY@localhost:port",
        "amqp://billing:CANARY@localhost:99999",
        "amqp://billing:CANARY@[::1",
        "amqp://billing:CANARY@local host",
        "amqp://billing:CANARY@localhost/a/b",
        "amqp://billing:CANARY%ff@localhost",
        "amqp://billing:CANARY%00@localhost",
        "amqp://CANARY@localhost",
        "amqp://billing:CANARY@localhost#fragment",
        "amqp://billing:CANARY/pass@localhost",
        "amqp://billing:CANARY#pass@localhost",
        "amqp://billing:CANARY?pass@localhost",
        "amqp://billing:CANARY@pass@local host",
        "redis:/billing:CANARY@localhost",
        "redis:billing:CANARY@localhost",
        "redis://billing:CANARY@",
        "redis://billing:CANARY@localhost:port",
        "redis://billing:CANARY@[::1",
        "redis://billing:CANARY@localhost/database",
        "redis://billing:CANARY@localhost/-1",
        "redis://billing:CANARY%ff@localhost",
        "redis://billing:CANARY/pass@localhost",
        "redis://billing:CANARY#pass@localhost",
        "redis://billing:CANARY?pass@localhost",
        "redis://billing:CANARY@one,two",
        "redis+cluster://billing:CANARY@localhost/1",
        "redis+sentinel://billing:CANARY@localhost",
        "redis+sentinel://billing:CANARY@localhost/main/x",
        "rabbitmq://billing:CANARY@localhost",
        "CANARY",
    ] {
        silent(url, &format!("{:?}", connect(url, None)));
        let error = connect(url, None).open().await.expect_err(url);
        let kind = error.kind();
        assert!(
            matches!(kind, ErrorKind::Invalid | ErrorKind::Unsupported),
            "{url}: {error:?}"
        );
        silent_error(url, &error);
    }
    nothing_is_logged();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_for_another_machine_are_refused_without_tls() {
    for url in [
        "amqp://billing:secret@broker.example.org",
        "amqp://broker.example.org",
        "amqp://billing:secret@10.0.0.7:5672/vhost",
        "amqp://billing:secret@localhost,broker.example.org",
        "amqp://billing:secret@localhost.example.org",
        "amqp://billing:secret@127.0.0.1.example.org",
        "amqp://billing:secret@[2001:db8::1]",
        "amqp://billing:secret@0.0.0.0",
        "redis://billing:secret@broker.example.org",
        "redis://:secret@10.0.0.7",
        "redis://:secret@[2001:db8::1]:6379",
        "redis://:secret@localhost.example.org",
        "redis+cluster://:secret@127.0.0.1,broker.example.org",
        "redis+sentinel://:secret@broker.example.org/main",
    ] {
        let begun = std::time::Instant::now();
        let error = connect(url, None).open().await.expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}: {error}");
        let text = error.to_string();
        assert!(
            text.contains("unencrypted") && text.contains("allow_plaintext"),
            "{url}: {text}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{url}: something was tried"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_for_another_machine_are_sent_without_tls_where_that_is_allowed() {
    // 192.0.2.0/24 is nobody's (RFC 5737), so going there is all that can be seen.
    for url in [
        "amqp://billing:secret@192.0.2.1",
        "redis://:secret@192.0.2.1",
    ] {
        let connect = Connect::new(url).connect_timeout(Duration::from_millis(300));
        let error = connect.allow_plaintext().open().await.expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{url}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_cannot_send_the_credentials_to_another_machine_in_the_clear() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // A sentinel that names a master elsewhere, whatever it is asked.
    let sentinel = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = sentinel.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = sentinel.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut asked).await {
                    let asked = String::from_utf8_lossy(&asked[..n]).to_uppercase();
                    let mut answer = String::new();
                    if asked.contains("HELLO") {
                        answer.push_str("%1\r\n$5\r\nproto\r\n:3\r\n");
                    }
                    if asked.contains("GET-MASTER-ADDR-BY-NAME") {
                        answer.push_str("*2\r\n$9\r\n192.0.2.1\r\n$4\r\n6379\r\n");
                    }
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    let url = format!("redis+sentinel://billing:secret@127.0.0.1:{port}/main");
    let error = connect(&url, None)
        .open()
        .await
        .expect_err("a master elsewhere");
    assert_eq!(error.kind(), ErrorKind::Invalid, "it was tried: {error}");
    assert!(error.to_string().contains("unencrypted"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_an_address_that_nobody_knows_are_refused_by_name_or_altogether() {
    for (url, said) in [
        ("amqp://localhost?cacertfile=/etc/passwd", "cacertfile"),
        ("amqps://localhost/vhost?verify=verify_none", "verify"),
        ("amqp://localhost?heartbeat=0", "heartbeat"),
        ("amqp://localhost?heartbeat=many", "heartbeat"),
        ("amqp://localhost?auth_mechanism=external", "auth_mechanism"),
        ("amqp://localhost?a\u{1b}[31m=1", "option"),
        ("redis://localhost?protocol=resp2", "query"),
        ("rediss://localhost#insecure", "fragment"),
        ("redis+cluster://localhost?read_from_replicas=true", "query"),
    ] {
        let error = connect(url, None).open().await.expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}: {error}");
        let text = error.to_string();
        assert!(
            text.contains(said) && !text.contains('\u{1b}'),
            "{url}: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_carries_the_password_to_a_server_that_only_listens_is_not_logged() {
    Logs::kept();
    // It says nothing, then ends the connection: the client gives up in the middle of its login.
    for scheme in ["redis", "amqp"] {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = server.accept().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
                drop(stream);
            }
        });
        let url = format!("{scheme}://billing:{ENCODED}@127.0.0.1:{port}");
        let error = connect(&url, None).open().await.expect_err("no broker");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        silent_error(scheme, &error);
    }
    nothing_is_logged();
}
