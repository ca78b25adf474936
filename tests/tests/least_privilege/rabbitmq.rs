//! Users of RabbitMQ, each in a virtual host of its own: with all it was granted, and with one piece less.

use std::{future::Future, time::Duration};

use longshore::{Client, Connect, ErrorKind, Health, Queue, WorkerHandle};
use longshore_testing::brokers::{Broker, BrokerKind};
use longshore_tests::{waiting::until, witness::Witness};

use crate::{
    granted, roads,
    walks::{Walk, walk_all},
};

/// Configure, write and read: what may be named.
pub(crate) type Pieces = [Vec<String>; 3];

/// Everything.
pub(crate) fn all() -> Pieces {
    [(); 3].map(|()| vec![".*".to_owned()])
}

/// What the guide grants this user. The tests have two partitions where the guide has 16.
fn pieces(user: &str) -> Pieces {
    let patterns = granted(&format!("rabbitmqctl set_permissions {user}"));
    let [configure, write, read] = &patterns[..] else {
        panic!("three patterns for {user}: {patterns:?}");
    };
    [configure, write, read].map(|pattern| {
        let inside = pattern
            .strip_prefix("^(")
            .and_then(|rest| rest.strip_suffix(")$"));
        let inside = inside.unwrap_or_else(|| match &**pattern {
            "^$" => "",
            other => panic!("not a list of names from end to end: {other}"),
        });
        let names = inside.split('|').filter(|name| !name.is_empty());
        names.map(|name| name.replace(r"\.s16", r"\.s2")).collect()
    })
}

fn pattern(names: &[String]) -> String {
    match names {
        [] => "^$".to_owned(),
        names => format!("^({})$", names.join("|")),
    }
}

/// Makes a virtual host for each, where the user has these permissions and the owner all.
pub(crate) async fn virtual_hosts(
    broker: &Broker,
    user: &str,
    permissions: &[Pieces],
) -> Vec<(String, String)> {
    let add = ["add_user", user, "secret"];
    broker.rabbitmqctl(&add).await.unwrap();
    let text = |text: &str| format!("<<\"{}\">>", text.replace('\\', "\\\\"));
    let hosts = permissions.iter().enumerate().map(|(n, pieces)| {
        let name = format!("{user}-{n}");
        let permit = |user: &str, patterns: [String; 3]| {
            let patterns = patterns.map(|pattern| text(&pattern)).join(", ");
            let (user, host) = (text(user), text(&name));
            format!("rabbit_auth_backend_internal:set_permissions({user}, {host}, {patterns}, <<\"test\">>)")
        };
        let patterns = [0, 1, 2].map(|of| pattern(&pieces[of]));
        let all = [".*", ".*", ".*"].map(str::to_owned);
        [
            format!("rabbit_vhost:add({}, <<\"test\">>)", text(&name)),
            permit("guest", all),
            permit(user, patterns),
        ]
        .join(", ")
    });
    // One call for all: each starts a virtual machine of its own.
    let program = format!("{}.", hosts.collect::<Vec<_>>().join(", "));
    broker.rabbitmqctl(&["eval", &program]).await.unwrap();
    let url = broker.url();
    let host = url
        .rsplit('@')
        .next()
        .unwrap()
        .trim_end_matches('/')
        .to_owned();
    let urls = (0..permissions.len()).map(|n| {
        let at = |login: &str| format!("amqp://{login}@{host}/{user}-{n}");
        (at(&format!("{user}:secret")), at("guest:guest"))
    });
    urls.collect()
}

/// The road is passable with what the guide grants, and with nothing less.
async fn enough_and_no_more<P, R>(
    user: &str,
    prepare: impl Fn(Client) -> P + Copy + 'static,
    road: impl Fn(Connect) -> R + Copy + 'static,
) where
    P: Future<Output = Option<WorkerHandle>> + 'static,
    R: Future<Output = ()> + 'static,
{
    let broker = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    let all = pieces(user);
    let mut variants = vec![(None, all.clone())];
    for (of, right) in ["configure", "write", "read"].iter().enumerate() {
        for n in 0..all[of].len() {
            let mut less = all.clone();
            let without = less[of].remove(n);
            variants.push((Some(format!("{right} {without}")), less));
        }
    }
    let permissions: Vec<Pieces> = variants.iter().map(|(_, pieces)| pieces.clone()).collect();
    let hosts = virtual_hosts(&broker, user, &permissions).await;
    let walks = variants.into_iter().zip(hosts);
    let walks = walks.map(|((without, _), (url, owner))| Walk {
        without,
        owner: Connect::new(owner),
        user: Connect::new(url),
    });
    walk_all(user, walks.collect(), prepare, road).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_rabbitmq() {
    enough_and_no_more("billing", roads::nothing, roads::service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_lanes_on_rabbitmq() {
    enough_and_no_more("urgent", roads::nothing, roads::lanes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_sessions_on_rabbitmq() {
    enough_and_no_more("invoicing", roads::nothing, roads::sessions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requester_on_rabbitmq() {
    enough_and_no_more("asking", roads::answered, roads::requester).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_on_rabbitmq() {
    enough_and_no_more("shop", roads::declared, roads::publisher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_on_rabbitmq() {
    enough_and_no_more("operator", roads::with_dead_letters, roads::operator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_rabbitmq_is_refused_what_only_looks_like_its_own() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    let hosts = virtual_hosts(&broker, "billing", &[pieces("billing")]).await;
    let client = longshore::connect(&hosts[0].0).await.unwrap();
    for name in ["payments", "orders-archive", "my-orders", "ordersXdlq"] {
        let error = client.declare(&Queue::new(name)).await.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Denied, "{name}: {error}");
        let named = error.to_string().contains("billing");
        assert!(named, "who was refused what: {error}");
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_on_rabbitmq_cannot_consume() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    let hosts = virtual_hosts(&broker, "shop", &[pieces("shop")]).await;
    let owner = longshore::connect(&hosts[0].1).await.unwrap();
    roads::declared(owner).await;
    let shop = Connect::new(&hosts[0].0).read_only().open().await.unwrap();
    // Refused at the start or as long as it lasts.
    let (witness, orders) = (Witness::default(), Queue::new("orders"));
    match witness.worker(&shop, &orders, |_, _| Ok(())).await {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Denied, "{error}"),
        Ok(worker) => {
            let says_why = async || match worker.health() {
                Health::NotReady(why) if why.contains("orders") => Some(()),
                _ => None,
            };
            until("the worker says why", Duration::from_secs(5), says_why).await;
            worker.stop().await;
        }
    }
}
