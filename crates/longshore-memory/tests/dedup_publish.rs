//! What publishing says inside a dedup window, and when it takes an id.

mod rig;

use std::{sync::Arc, time::Duration};

use longshore_core::{
    Declare, Destination, ErrorKind, Outgoing, Part, Published, Standing, Topology, Transport,
};
use longshore_memory::MemoryBroker;

use rig::{Consumer, broker, kind, message, name, outgoing, publish};

const WINDOW: Duration = Duration::from_secs(600);

async fn plain(broker: &MemoryBroker) -> (Arc<dyn Transport>, Arc<Topology>, Consumer) {
    let (transport, topology) = (broker.open(), window("orders"));
    let consumer = Consumer::of(&transport, &topology, Part::Lane(0), None).await;
    (transport, topology, consumer)
}

fn window(queue: &str) -> Arc<Topology> {
    let mut topology = Topology::new(name(queue));
    topology.dedup_window = Some(WINDOW);
    Arc::new(topology)
}

#[tokio::test(start_paused = true)]
async fn ids_are_told_apart_by_queue_and_key_and_without_one_nothing_is_a_duplicate() {
    let (transport, topology, mut consumer) = plain(&broker()).await;
    for (key, id, published) in [
        (None, "a", Published::Accepted),
        (Some("k"), "a", Published::Accepted),
        (Some("l"), "a", Published::Accepted),
        (Some("k"), "a", Published::Duplicate),
        (None, "", Published::Accepted),
        (None, "", Published::Accepted),
    ] {
        assert_eq!(
            publish(&transport, &topology, key, id).await,
            published,
            "{key:?} {id}"
        );
    }
    let standings: Vec<_> = consumer.take(5).await.iter().map(|d| d.standing).collect();
    let (held, unknown) = (Standing::Held, Standing::Unknown);
    assert_eq!(standings, [held, held, held, unknown, unknown]);
    let mut other = Topology::new(name("invoices"));
    other.dedup_window = Some(WINDOW);
    transport
        .declare(&other, Declare::Create)
        .await
        .expect("declares");
    assert_eq!(
        publish(&transport, &other, None, "a").await,
        Published::Accepted
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_takes_no_id() {
    let broker = MemoryBroker::with_capacity(&Default::default(), 1);
    let (transport, topology, mut consumer) = plain(&broker).await;
    publish(&transport, &topology, None, "a").await;
    for (id, expected) in [("b", Err(ErrorKind::Full)), ("a", Ok(Published::Duplicate))] {
        let answer = transport
            .publish(vec![outgoing(&topology, message(None, id))])
            .await;
        assert_eq!(
            kind(answer.into_iter().next().expect("one answer")),
            expected
        );
    }
    let taken = consumer.next().await;
    assert_eq!(consumer.complete(&taken).await, Ok(()));
    assert_eq!(
        publish(&transport, &topology, None, "b").await,
        Published::Accepted
    );
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_one_queue_has_no_room_for_takes_no_id_anywhere() {
    let broker = MemoryBroker::with_capacity(&Default::default(), 1);
    let transport = broker.open();
    let bound = |queue| {
        let mut topology = Topology::new(name(queue));
        (topology.topics, topology.dedup_window) = (vec![name("events")], Some(WINDOW));
        Arc::new(topology)
    };
    let (first, last) = (bound("a"), bound("z"));
    let mut consumers = Vec::new();
    for topology in [&first, &last] {
        consumers.push(Consumer::of(&transport, topology, Part::Lane(0), None).await);
    }
    publish(&transport, &last, None, "other").await;
    let topic = Outgoing {
        to: Destination::Topic(name("events")),
        ..outgoing(&first, message(None, "a"))
    };
    let publish_all = async || {
        let answers = transport.publish(vec![topic.clone()]).await;
        kind(answers.into_iter().next().expect("one answer"))
    };
    assert_eq!(publish_all().await, Err(ErrorKind::Full));
    let other = consumers[1].next().await;
    assert_eq!(consumers[1].complete(&other).await, Ok(()));
    assert_eq!(publish_all().await, Ok(Published::Accepted));
    assert_eq!(publish_all().await, Ok(Published::Duplicate));
    for consumer in &mut consumers {
        assert_eq!(consumer.next().await.standing, Standing::Held);
        assert!(consumer.is_quiet().await);
    }
}
