//! Addresses, certificates and what the broker's tools show.

use std::time::{Duration, Instant};

use longshore_core::{ConnectOptions, Declare, ErrorKind};
use longshore_testing::brokers::{self, Broker, BrokerKind, TlsFiles};

use crate::rig::{Rig, body};

async fn refusal(url: &str, options: ConnectOptions) -> (ErrorKind, String) {
    let refused = longshore_amqp::connect(url, options).await.err();
    let error = refused.expect("a refusal");
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn tls_verifies_the_chain_and_the_host_name_and_never_falls_back() {
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&authority_key).expect("an authority");
    let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned()];
    let cert = rcgen::CertificateParams::new(names).expect("parameters");
    let cert = cert.signed_by(&key, &issuer).expect("a certificate");
    let folder = std::env::temp_dir().join(format!("longshore-amqp-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let files = TlsFiles {
        ca: folder.join("ca.pem"),
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    std::fs::write(&files.ca, ca.pem()).expect("written");
    std::fs::write(&files.cert, cert.pem()).expect("written");
    std::fs::write(&files.key, key.serialize_pem()).expect("written");
    let broker = Broker::rabbitmq()
        .tls(files)
        .start()
        .await
        .expect("a broker");
    std::fs::remove_dir_all(&folder).expect("removed");

    let url = broker.tls_url().expect("a TLS listener");
    let mut trusting = ConnectOptions::default();
    trusting.certificate_authorities = Some(ca.pem().into_bytes());
    let transport = longshore_amqp::connect(&url, trusting.clone())
        .await
        .expect("trusted");
    assert_eq!(transport.system(), "rabbitmq");

    let by_number = url.replace("localhost", "127.0.0.1");
    let (kind, text) = refusal(&by_number, trusting.clone()).await;
    assert_eq!(kind, ErrorKind::Denied, "another name: {text}");
    let (kind, text) = refusal(&url, ConnectOptions::default()).await;
    assert_eq!(kind, ErrorKind::Denied, "another authority: {text}");
    let mut hurried = trusting;
    hurried.connect_timeout = Duration::from_secs(2);
    let plain = format!("amqps://guest:guest@localhost:{}", broker.addr(0).port());
    let (_, text) = refusal(&plain, hurried.clone()).await;
    assert!(text.contains("connecting"), "no TLS there: {text}");
    let mut garbage = hurried;
    garbage.certificate_authorities = Some(b"no certificate".to_vec());
    assert_eq!(refusal(&url, garbage).await.0, ErrorKind::Invalid);
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_vhost_are_denied_at_once() {
    let url = brokers::amqp_url().expect("a broker");
    let host = url.rsplit('@').next().expect("a host");
    let from = Instant::now();
    for wrong in [
        format!("amqp://guest:wrong@{host}"),
        format!("{url}/no-such-vhost"),
    ] {
        let (kind, text) = refusal(&wrong, ConnectOptions::default()).await;
        assert_eq!(kind, ErrorKind::Denied, "{text}");
        assert!(!text.contains("wrong"), "{text}");
    }
    assert!(from.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn the_second_host_serves_when_the_first_is_dead() {
    let url = brokers::amqp_url().expect("a broker");
    let (login, host) = url.rsplit_once('@').expect("credentials");
    let rig = Rig::on(&format!("{login}@127.0.0.1:1,{host}")).await;
    rig.publish(["x"]).await;
    assert_eq!(body(&rig.subscribe().await.one().await), "x");
}

#[tokio::test]
async fn nobody_there_is_unavailable_in_time() {
    let mut options = ConnectOptions::default();
    options.connect_timeout = Duration::from_millis(500);
    let from = Instant::now();
    let (kind, text) = refusal("amqp://guest:guest@127.0.0.1:1", options.clone()).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(text.contains("127.0.0.1:1"), "{text}");
    // A port that accepts and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = silent.local_addr().expect("an address");
    let (kind, _) = refusal(&format!("amqp://guest:guest@{address}"), options).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(from.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn connections_carry_the_given_name_and_their_duty() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let mut options = ConnectOptions::default();
    options.name = "billing-7".to_owned();
    let transport = longshore_amqp::connect(&broker.url(), options)
        .await
        .expect("a connection");
    let list = broker
        .rabbitmqctl(&["list_connections", "client_properties"])
        .await;
    let list = list.expect("a list");
    for duty in ["billing-7 publish", "billing-7 consume", "Longshore"] {
        assert!(list.contains(duty), "{list}");
    }
    transport.close(Duration::from_secs(2)).await;
    let list = broker
        .rabbitmqctl(&["list_connections", "name"])
        .await
        .expect("a list");
    assert!(!list.contains("127.0.0.1"), "{list}");
}

/// A channel that the broker has closed costs lapin its number for the life of the connection, and what
/// is looked for and missing closes one: eight of nine numbers of partitions, each time. After 170 looks
/// no channel could be opened any more.
#[tokio::test]
async fn looking_at_a_queue_again_and_again_uses_up_nothing() {
    let rig = Rig::new().await;
    for turn in 0..300 {
        let looked = rig.transport.admin().stats(rig.queue()).await;
        assert!(looked.is_ok(), "turn {turn}: {looked:?}");
    }
    rig.publish(["still"]).await;
    let mut taker = rig.subscribe().await;
    let delivery = taker.one().await;
    assert_eq!(body(&delivery), "still");
    taker.complete(vec![delivery]).await;
}

/// As above: what is declared looks for what must not be there.
#[tokio::test]
async fn declaring_sessions_again_and_again_goes_on() {
    let rig = Rig::new().await;
    let mut topology = rig.topology.clone();
    topology.partitions = 2;
    let mut failed = 0;
    for _ in 0..300 {
        match rig.transport.declare(&topology, Declare::Create).await {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                failed += 1;
            }
        }
    }
    assert!(failed <= 2, "{failed}");
    rig.publish(["still"]).await;
    assert_eq!(body(&rig.subscribe().await.one().await), "still");
}
