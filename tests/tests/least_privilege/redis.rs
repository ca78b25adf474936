//! Users of Redis, each with keys of its own: with all it was granted, and with one rule less.

use std::future::Future;

use longshore::{Client, Connect, ErrorKind, Queue, WorkerHandle};
use longshore_testing::brokers::{Broker, BrokerKind};

use crate::{
    GUIDE, granted, rabbitmq, roads,
    walks::{Walk, walk_all},
};

/// What can be left out, with a loss that the guide names.
const SPARE: [&str; 9] = [
    "+pttl",
    "+role",
    "+config|get",
    "+client|setname",
    "+blpop",
    "+lpush",
    "+llen",
    "+watch",
    "+hkeys",
];

/// What a dead letter of more than 1,000 fields needs.
const LARGE: [&str; 5] = ["+client|setname", "+multi", "+exec", "+watch", "+hkeys"];

/// Makes a user with these rules, whose keys begin with `prefix` where the guide says `ls`.
async fn user(broker: &Broker, name: &str, prefix: &str, rules: &[String]) -> Connect {
    let rules = rules.iter().map(|rule| match rule.strip_prefix("~ls:") {
        Some(keys) => format!("~{prefix}:{keys}").replace(".s16", ".s2"),
        None => rule.replace(">PASSWORD", ">secret"),
    });
    let mut set = vec!["ACL".to_owned(), "SETUSER".to_owned(), name.to_owned()];
    set.extend(rules);
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    broker.redis_command(&set).await.unwrap();
    let url = broker.url();
    let host = url.rsplit('@').next().unwrap();
    let host = host.strip_prefix("redis://").unwrap_or(host);
    Connect::new(format!("redis://{name}:secret@{host}")).key_prefix(prefix)
}

/// Each with one rule less, the first with all.
fn variants(rules: &[String], spare: &[&str]) -> Vec<(Option<String>, Vec<String>)> {
    let grants = |rule: &&String| {
        rule.starts_with(['+', '~']) && *rule != "+hello" && !spare.contains(&&***rule)
    };
    let less = rules.iter().filter(grants).map(|spared| {
        let rest = rules.iter().filter(|rule| *rule != spared);
        (Some(spared.clone()), rest.cloned().collect())
    });
    [(None, rules.to_vec())].into_iter().chain(less).collect()
}

/// The road is passable with these rules, and with nothing less.
async fn enough_and_no_more<P, R>(
    name: &str,
    rules: &[String],
    spare: &[&str],
    prepare: impl Fn(Client) -> P + Copy + 'static,
    road: impl Fn(Connect) -> R + Copy + 'static,
) where
    P: Future<Output = Option<WorkerHandle>> + 'static,
    R: Future<Output = ()> + 'static,
{
    let broker = Broker::start(BrokerKind::Redis).await.unwrap();
    let mut walks = Vec::new();
    for (n, (without, rules)) in variants(rules, spare).into_iter().enumerate() {
        let prefix = format!("p{n}");
        let user = user(&broker, &format!("{name}{n}"), &prefix, &rules).await;
        let owner = Connect::new(broker.url()).key_prefix(prefix);
        walks.push(Walk {
            without,
            owner,
            user,
        });
    }
    walk_all(name, walks, prepare, road).await;
}

/// All that a service does, one after the other.
async fn service(connect: Connect) {
    roads::service(connect.clone()).await;
    roads::lanes(connect.clone()).await;
    roads::window(connect.clone()).await;
    roads::sessions(connect.clone()).await;
    let client = connect.clone().open().await.unwrap();
    let desk = roads::desk(&client, &Queue::new("quotes")).await;
    roads::requester(connect).await;
    desk.stop().await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_redis() {
    let rules = granted("ACL SETUSER billing");
    enough_and_no_more("billing", &rules, &SPARE, roads::nothing, service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_redis_without_the_two_dangerous_exceptions() {
    let broker = Broker::start(BrokerKind::Redis).await.unwrap();
    let mut rules = granted("ACL SETUSER billing");
    let before = rules.len();
    rules.retain(|rule| !SPARE[..2].contains(&&**rule));
    assert_eq!(rules.len() + 2, before);
    service(user(&broker, "billing", "ls", &rules).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_on_redis() {
    let rules = granted("ACL SETUSER shop");
    enough_and_no_more("shop", &rules, &SPARE, roads::declared, roads::publisher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requester_on_redis() {
    let rules = granted("ACL SETUSER asking");
    enough_and_no_more("asking", &rules, &SPARE, roads::answered, roads::requester).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_on_redis() {
    let rules = granted("ACL SETUSER operator");
    let prepare = roads::with_dead_letters;
    enough_and_no_more("operator", &rules, &LARGE, prepare, roads::operator).await;
}

/// Keys that are told apart, as the guide says.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_redis_with_keys_of_its_own_alone() {
    let broker = Broker::start(BrokerKind::Redis).await.unwrap();
    let all = granted("ACL SETUSER billing");
    let with = |keys: &[&str]| -> Vec<String> {
        for key in keys {
            assert!(GUIDE.contains(key), "docs/security.md does not name {key}");
        }
        let rules = all.iter().filter(|rule| !rule.starts_with('~')).cloned();
        rules
            .chain(keys.iter().map(|&key| key.to_owned()))
            .collect()
    };
    let orders = with(&["~ls:{orders}:*", "~ls:topic:{placed}"]);
    let orders = user(&broker, "orders", "ls", &orders).await;
    roads::service(orders.clone()).await;
    roads::lanes(orders.clone()).await;
    let invoices = with(&["~ls:{invoices}:*", "~ls:{invoices.s16*"]);
    let invoices = user(&broker, "invoices", "ls", &invoices).await;
    roads::sessions(invoices).await;
    let stranger = orders.open().await.unwrap();
    let refused = stranger.declare(&Queue::new("invoices")).await;
    assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Denied));
}

/// The store beside RabbitMQ.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_on_redis() {
    let rules = granted("ACL SETUSER marks");
    let variants = variants(&rules, &SPARE);
    let store = Broker::start(BrokerKind::Redis).await.unwrap();
    let queues = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    let everything = vec![rabbitmq::all(); variants.len()];
    let hosts = rabbitmq::virtual_hosts(&queues, "marked", &everything).await;
    let mut walks = Vec::new();
    for (n, ((without, rules), (url, owner))) in variants.into_iter().zip(hosts).enumerate() {
        let prefix = format!("p{n}");
        let name = format!("marks{n}");
        let _ = user(&store, &name, &prefix, &rules).await;
        let marks = store
            .url()
            .replace("redis://", &format!("redis://{name}:secret@"));
        walks.push(Walk {
            without,
            owner: Connect::new(owner),
            user: Connect::new(url).key_prefix(prefix).store(marks),
        });
    }
    let road = |connect: Connect| async {
        roads::window(connect.clone()).await;
        roads::sessions(connect).await;
    };
    walk_all("marks", walks, roads::nothing, road).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_redis_is_refused_other_keys() {
    let broker = Broker::start(BrokerKind::Redis).await.unwrap();
    let billing = user(&broker, "billing", "ls", &granted("ACL SETUSER billing")).await;
    let elsewhere = billing.key_prefix("other").open().await.unwrap();
    let refused = elsewhere.declare(&Queue::new("orders")).await;
    assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Denied));
}
