//! What `docs/security.md` tells an operator to grant is enough.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use longshore::{Client, Connect, ErrorKind, HandlerError, Health, Queue, Topic};
use longshore_testing::brokers::{Broker, BrokerKind};
use longshore_tests::{
    job::{Job, publish_jobs},
    waiting::until,
    witness::{Witness, dead, only_dead},
};

const GUIDE: &str = include_str!("../../docs/security.md");

/// The words after a command in the guide's examples, quotes taken off.
fn granted(command: &str) -> Vec<String> {
    let line = GUIDE.lines().find(|line| line.starts_with(command));
    let line = line.unwrap_or_else(|| panic!("docs/security.md has no \"{command}\""));
    let words = line[command.len()..].split_whitespace();
    words
        .map(|word| word.trim_matches('\'').to_owned())
        .collect()
}

fn as_user(url: &str, user: &str) -> Connect {
    let host = url
        .split_once("://")
        .map(|(_, rest)| rest.rsplit('@').next().unwrap());
    let scheme = url.split_once("://").unwrap().0;
    Connect::new(format!("{scheme}://{user}:secret@{}", host.unwrap()))
}

/// All that a service does.
async fn whole_road(client: &Client) {
    let topic = Topic::new("placed");
    let queue = Queue::new("orders").subscribe_to(&topic);
    let witness = Witness::default();
    let worker = witness
        .worker(client, &queue, |job, cx| match (job.number, cx.attempt()) {
            (0, 1) => Err(HandlerError::retry_after(
                Duration::from_millis(100),
                "again",
            )),
            (1, _) => Err(HandlerError::permanent("no")),
            _ => Ok(()),
        })
        .await
        .unwrap();
    publish_jobs(client, &queue, 3).await.unwrap();
    client
        .publish(&queue, &Job { number: 3 })
        .delay(Duration::from_millis(120))
        .await
        .unwrap();
    client.publish(&topic, &Job { number: 4 }).await.unwrap();
    witness.starts(6).await;
    let letter = only_dead(client, &queue).await;
    client
        .dead_letters(&queue)
        .redrive(&letter.id)
        .await
        .unwrap();
    witness.starts(7).await;
    let letter = dead(client, &queue, 1).await.remove(0);
    client
        .dead_letters(&queue)
        .discard(&letter.id)
        .await
        .unwrap();
    until("the queue is empty", Duration::from_secs(10), async || {
        let stats = client.stats(&queue).await.unwrap();
        (stats.ready == 0 && stats.dead == 0).then_some(())
    })
    .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_user_with_the_documented_permissions_can_do_all_a_service_does_and_no_more() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    broker
        .rabbitmqctl(&["add_user", "billing", "secret"])
        .await
        .unwrap();
    let permissions = granted("rabbitmqctl set_permissions billing");
    assert_eq!(permissions.len(), 3, "{permissions:?}");
    let mut set = vec!["set_permissions", "billing"];
    set.extend(permissions.iter().map(String::as_str));
    broker.rabbitmqctl(&set).await.unwrap();
    let client = as_user(&broker.url(), "billing").open().await.unwrap();
    whole_road(&client).await;

    for name in ["payments", "orders-archive", "my-orders", "ordersXdlq"] {
        let error = client.declare(&Queue::new(name)).await.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Denied, "{name}: {error}");
        assert!(
            error.to_string().contains("billing"),
            "who was refused what: {error}"
        );
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_user_who_only_publishes_needs_only_the_documented_permissions() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    let queue = Queue::new("orders").subscribe_to(&Topic::new("placed"));
    let owner = longshore::connect(&broker.url()).await.unwrap();
    owner.declare(&queue).await.unwrap();
    owner
        .publish(&queue, &Job { number: 0 })
        .delay(Duration::from_millis(50))
        .await
        .unwrap();
    broker
        .rabbitmqctl(&["add_user", "shop", "secret"])
        .await
        .unwrap();
    let permissions = granted("rabbitmqctl set_permissions shop");
    let mut set = vec!["set_permissions", "shop"];
    set.extend(permissions.iter().map(String::as_str));
    broker.rabbitmqctl(&set).await.unwrap();
    let shop = as_user(&broker.url(), "shop")
        .read_only()
        .open()
        .await
        .unwrap();
    publish_jobs(&shop, &Queue::new("orders"), 2).await.unwrap();
    shop.publish(&Queue::new("orders"), &Job { number: 2 })
        .delay(Duration::from_millis(100))
        .await
        .unwrap();
    shop.publish(&Topic::new("placed"), &Job { number: 3 })
        .await
        .unwrap();
    until("all have arrived", Duration::from_secs(10), async || {
        (owner.stats(&queue).await.unwrap().ready == 5).then_some(())
    })
    .await;
    // Consuming is refused, at the start or as long as it lasts.
    let (witness, orders) = (Witness::default(), Queue::new("orders"));
    match witness.worker(&shop, &orders, |_, _| Ok(())).await {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Denied, "{error}"),
        Ok(worker) => {
            until(
                "the worker says why",
                Duration::from_secs(5),
                async || match worker.health() {
                    Health::NotReady(why) if why.contains("orders") => Some(()),
                    _ => None,
                },
            )
            .await;
            worker.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_user_with_the_documented_acl_can_do_all_a_service_does_and_no_more() {
    let broker = Broker::start(BrokerKind::Redis).await.unwrap();
    let rules = granted("ACL SETUSER billing");
    let mut set = vec!["ACL", "SETUSER", "billing"];
    set.extend(
        rules
            .iter()
            .map(|rule| if rule == ">PASSWORD" { ">secret" } else { rule }),
    );
    broker.redis_command(&set).await.unwrap();
    let client = as_user(&broker.url(), "billing").open().await.unwrap();
    whole_road(&client).await;
    client.close().await;

    // What was used without being granted would have failed; what is granted by name is used.
    let used = used(&broker).await;
    for rule in rules.iter().filter_map(|rule| rule.strip_prefix('+')) {
        let spare = ["auth", "select", "multi", "exec", "watch"];
        if !rule.starts_with('@') && !spare.contains(&rule) {
            assert!(used.contains(rule), "\"+{rule}\" is not needed: {used:?}");
        }
    }
    let elsewhere = as_user(&broker.url(), "billing")
        .key_prefix("other")
        .open()
        .await
        .unwrap();
    let error = elsewhere
        .declare(&Queue::new("orders"))
        .await
        .expect_err("another prefix");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_user_works_without_the_two_dangerous_exceptions_too() {
    let broker = Broker::start(BrokerKind::Redis).await.unwrap();
    let rules = granted("ACL SETUSER billing");
    let dangerous = ["+config|get", "+role"];
    assert!(
        dangerous
            .iter()
            .all(|rule| rules.iter().any(|given| given == rule)),
        "{rules:?}"
    );
    let mut set = vec!["ACL", "SETUSER", "billing"];
    let kept = rules.iter().filter(|rule| !dangerous.contains(&&***rule));
    set.extend(kept.map(|rule| if rule == ">PASSWORD" { ">secret" } else { rule }));
    broker.redis_command(&set).await.unwrap();
    let client = as_user(&broker.url(), "billing").open().await.unwrap();
    whole_road(&client).await;
}

/// The commands that were called, those inside scripts too.
async fn used(broker: &Broker) -> BTreeSet<String> {
    let figures = broker
        .redis_command(&["INFO", "commandstats"])
        .await
        .unwrap()
        .to_string();
    let names = figures
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next());
    names.map(str::to_owned).collect()
}
