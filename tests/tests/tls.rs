//! TLS verifies chain and host name, and nothing falls back to plain text.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use longshore::{Connect, ErrorKind, HandlerError, Queue};
use longshore_testing::brokers::{Broker, BrokerKind};
use longshore_tests::{
    certificates::Authority,
    job::publish_jobs,
    unique,
    witness::{Witness, only_dead},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

const LIMIT: Duration = Duration::from_secs(3);

async fn broker(kind: BrokerKind, authority: &Authority, name: &str) -> Broker {
    let files = authority.server(&[name]);
    match kind {
        BrokerKind::RabbitMq => Broker::rabbitmq().tls(files).start().await.unwrap(),
        _ => Broker::redis().tls(files).start().await.unwrap(),
    }
}

fn connect(url: &str, authority: &Authority) -> Connect {
    let connect = Connect::new(url).connect_timeout(LIMIT);
    connect.certificate_authorities(authority.pem())
}

/// The kind of the refusal, which must come in time.
async fn refused(what: &str, connect: Connect) -> ErrorKind {
    let begun = Instant::now();
    let error = connect.open().await.expect_err(what);
    let took = begun.elapsed();
    println!("{what}: {:?} after {took:?}: {error}", error.kind());
    assert!(
        took < LIMIT + Duration::from_secs(1),
        "{what}: after {took:?}"
    );
    error.kind()
}

async fn verified(kind: BrokerKind) {
    let folder = env!("CARGO_TARGET_TMPDIR");
    let (ours, foreign) = (
        Authority::new(folder).unwrap(),
        Authority::new(folder).unwrap(),
    );
    let broker = broker(kind, &ours, "localhost").await;
    let url = broker.tls_url().unwrap();

    let client = connect(&url, &ours).open().await.unwrap();
    let queue = Queue::new(&unique("tls"));
    let witness = Witness::default();
    let worker = witness
        .worker(&client, &queue, |job, cx| {
            match (job.number, cx.attempt()) {
                (0, 1) => Err("once more".into()),
                (1, _) => Err(HandlerError::permanent("no")),
                _ => Ok(()),
            }
        })
        .await
        .unwrap();
    publish_jobs(&client, &queue, 3).await.unwrap();
    witness.starts(4).await;
    only_dead(&client, &queue).await;
    worker.stop().await;
    client.close().await;

    let unknown = refused("an unknown authority", connect(&url, &foreign)).await;
    assert_eq!(unknown, ErrorKind::Denied);
    let system = Connect::new(&url).connect_timeout(LIMIT);
    assert_eq!(
        refused("the system's authorities", system).await,
        ErrorKind::Denied
    );
    let elsewhere = url.replace("localhost", "127.0.0.1");
    let wrong_name = refused("another host name", connect(&elsewhere, &ours)).await;
    assert_eq!(wrong_name, ErrorKind::Denied);

    // The plain port of the same broker, where falling back would succeed.
    let plain = url.rsplit_once(':').unwrap().0.to_owned() + &format!(":{}", broker.addr(0).port());
    refused("TLS to the plain port", connect(&plain, &ours)).await;
    // And the other way round.
    let port = url.rsplit_once(':').unwrap().1;
    let (scheme, login) = match kind {
        BrokerKind::RabbitMq => ("amqp", "guest:guest@"),
        _ => ("redis", ""),
    };
    let plain = format!("{scheme}://{login}localhost:{port}");
    refused("plain text to the TLS port", connect(&plain, &ours)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_rabbitmq_works_with_the_right_authority_and_host_name_alone() {
    verified(BrokerKind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_redis_works_with_the_right_authority_and_host_name_alone() {
    verified(BrokerKind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_is_refused_whatever_the_server_is_called() {
    let authority = Authority::new(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let broker = broker(BrokerKind::Redis, &authority, "broker.example.org").await;
    let url = broker.tls_url().unwrap();
    assert_eq!(
        refused("localhost", connect(&url, &authority)).await,
        ErrorKind::Denied
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_given_up_within_the_connection_time_out() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut kept: Vec<TcpStream> = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            kept.push(stream);
        }
    });
    let authority = Authority::new(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for scheme in [
        "amqp",
        "amqps",
        "redis",
        "rediss",
        "redis+cluster",
        "rediss+cluster",
    ] {
        let url = format!("{scheme}://localhost:{port}");
        assert_eq!(
            refused(scheme, connect(&url, &authority)).await,
            ErrorKind::Unavailable
        );
    }
    for scheme in ["redis+sentinel", "rediss+sentinel"] {
        let url = format!("{scheme}://localhost:{port}/main");
        assert_eq!(
            refused(scheme, connect(&url, &authority)).await,
            ErrorKind::Unavailable,
            "{scheme}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_asked_for_not_one_octet_goes_out_in_plain_text() {
    let authority = Authority::new(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for scheme in ["amqps", "rediss", "rediss+cluster"] {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let heard = tokio::spawn(async move {
            let mut heard = Vec::new();
            while let Ok(Ok((mut stream, _))) =
                tokio::time::timeout(Duration::from_secs(1), server.accept()).await
            {
                let mut octets = vec![0; 4096];
                let n = stream.read(&mut octets).await.unwrap_or(0);
                heard.push(octets[..n].to_vec());
            }
            heard
        });
        let url = format!("{scheme}://user:secret@localhost:{port}");
        refused(scheme, connect(&url, &authority)).await;
        let heard = heard.await.unwrap();
        assert!(!heard.is_empty());
        for octets in heard.iter().filter(|octets| !octets.is_empty()) {
            // A TLS record of a handshake (RFC 8446, 5.1).
            assert_eq!(octets[..2], [0x16, 0x03], "{scheme}: {octets:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_that_are_none_are_refused() {
    for scheme in ["amqps", "rediss"] {
        for pem in [
            "",
            "no PEM",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let url = format!("{scheme}://localhost:1");
            let connect = Connect::new(&url)
                .certificate_authorities(pem)
                .connect_timeout(LIMIT);
            assert_eq!(
                refused(pem, connect).await,
                ErrorKind::Invalid,
                "{scheme}: {pem:?}"
            );
        }
    }
}
