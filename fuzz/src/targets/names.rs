//! Names of queues, and what is made of them on the brokers.

use std::collections::BTreeMap;

use longshore_amqp::fuzzing as amqp;
use longshore_core::{Envelope, Name, Part, Text, Topology, mark_name, partition_of, printable};
use longshore_redis::fuzzing as redis;

use crate::octets::Octets;

/// The longest name AMQP can say.
const LONGEST: usize = 255;

/// No two parts of any two queues are ever called the same, on either broker; nothing a message says
/// moves a key to another slot; and no two messages have one mark.
pub fn names(octets: &[u8]) {
    let mut octets = Octets::new(octets);
    let prefix = prefix(&mut octets);
    let mut queues: BTreeMap<Name, Topology> = BTreeMap::new();
    while queues.len() < 3 && !octets.is_empty() {
        if let Some(queue) = queue(&mut octets) {
            queues.insert(queue.queue.clone(), queue);
        }
    }
    let (id, key) = (octets.text(), octets.text());
    let queues: Vec<Topology> = queues.into_values().collect();
    on_rabbitmq(&queues);
    on_redis(&queues, &prefix, &id, &key);
    marks(&mut octets, (&id, &key));
    replies(&octets.text());

    let shown = printable(&id, usize::from(octets.octet()));
    assert!(!shown.contains(char::is_control), "{shown:?}");
    if let Some(shown) = redis::letter_id(&key) {
        assert_eq!(redis::letter_id(&shown).as_ref(), Some(&shown));
    }
    let of = 1 << (octets.octet() % 9);
    assert!(partition_of(&id.as_str().into(), of) < of);
    let mut envelope = Envelope::new("", "");
    (envelope.key, envelope.priority) = (Some(id.into()), Some(key.into()));
    let words = amqp::topic_routing_key(&envelope);
    assert_eq!(words.split('.').count(), 9, "{words:?}");
    assert!(
        !words.contains(['*', '#']) && words.len() <= LONGEST,
        "{words:?}"
    );
}

/// Pieces that mean something on a broker.
const WORDS: [&str; 24] = [
    "a",
    "b",
    "orders",
    "p",
    "s16",
    "s1",
    "s256",
    "03",
    "0",
    "000",
    "dlq",
    "quarantine",
    "marker",
    "lock",
    "members",
    "seat",
    "longshore",
    "amq",
    "delay",
    "lanes",
    "rest",
    "normal",
    "high",
    "-_",
];

/// A name, if these octets are one. Whatever is accepted is made of the right characters.
fn name(octets: &mut Octets<'_>) -> Option<Name> {
    let text = match octets.octet() {
        255 => octets.text(),
        n => {
            let words = (0..=n % 5).map(|_| octets.pick(&WORDS));
            words.collect::<Vec<_>>().join(".")
        }
    };
    match Name::new(&text) {
        Ok(name) => {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            assert!((1..=128).contains(&name.len()) && name.bytes().all(fits));
            Some(name)
        }
        Err(error) => {
            let told = error.to_string();
            assert!(
                !told.contains(char::is_control) && told.len() < 512,
                "{told:?}"
            );
            None
        }
    }
}

fn queue(octets: &mut Octets<'_>) -> Option<Topology> {
    let mut topology = Topology::new(name(octets)?);
    match octets.octet() % 4 {
        0 => topology.partitions = 1 << (octets.octet() % 9),
        n => {
            for _ in 1..n {
                let lane = name(octets)?;
                if !topology.lanes.contains(&lane) {
                    topology.lanes.push(lane);
                }
            }
        }
    }
    Some(topology)
}

fn on_rabbitmq(queues: &[Topology]) {
    let mut taken: BTreeMap<String, &Name> = BTreeMap::new();
    let mut exchanges: BTreeMap<String, &Name> = BTreeMap::new();
    for topology in queues {
        let Ok((parts, others)) = amqp::queues(topology) else {
            continue;
        };
        for part in &parts {
            let key = amqp::delayed(part).unwrap_or_default();
            assert!(key.len() <= LONGEST, "{} bytes: {key}", key.len());
        }
        for queue in parts.into_iter().chain(others) {
            assert!(queue.len() <= LONGEST, "{} bytes: {queue}", queue.len());
            let whose = &topology.queue;
            if let Some(other) = taken.insert(queue.clone(), whose) {
                panic!("{queue} is of {whose} and of {other}");
            }
        }
        for exchange in amqp::exchanges(topology) {
            assert!(exchange.len() <= LONGEST, "{exchange}");
            assert!(Name::new(&exchange).is_err(), "{exchange} can be a topic");
            let other = exchanges.insert(exchange.clone(), &topology.queue);
            assert_eq!(other, None, "{exchange}");
        }
    }
}

fn prefix(octets: &mut Octets<'_>) -> String {
    let prefixes = ["ls", "ls:store", "ls:reply", "ls:topic", ":"];
    let prefix = match octets.octet() {
        n @ 0..5 => prefixes[usize::from(n)].to_owned(),
        _ => octets.text(),
    };
    match redis::is_prefix(&prefix) {
        true => prefix,
        false => "ls".to_owned(),
    }
}

fn on_redis(queues: &[Topology], prefix: &str, id: &str, key: &str) {
    // What a transport lets through.
    let fits = |text: &str| text.len() <= 128 && !text.contains(char::is_control);
    let (id, key) = match (fits(id), fits(key)) {
        (true, true) => (id, key),
        _ => ("1a", "a"),
    };
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let mut physical: BTreeMap<String, String> = BTreeMap::new();
    let mut take = |keys: Vec<String>, whose: String, tag: &str| {
        for key in keys {
            assert_eq!(hash_tag(&key), Some(tag), "{key:?}");
            if let Some(other) = taken.insert(key.clone(), whose.clone()) {
                panic!("{key:?} is of {whose} and of {other}");
            }
        }
    };
    for topology in queues {
        let lanes = 0..=u8::try_from(topology.lanes.len()).unwrap_or_default();
        // Those in the middle have names like these.
        let of = topology.partitions;
        let partitions = (0..of).filter(|index| *index < 3 || index + 3 > of);
        let partitions = partitions.map(|index| Part::Partition { index, of });
        for part in lanes.map(Part::Lane).chain(partitions) {
            let whose = format!("{} {part:?}", topology.queue);
            let keys = redis::keys(prefix, topology, part, id, key).expect("a part");
            take(keys, whose.clone(), &topology.scope(part));
            // A dot in the name of a lane is the framework's to refuse.
            if topology.lanes.iter().any(|lane| lane.contains('.')) {
                continue;
            }
            let name = redis::physical(topology, part).expect("a part");
            if let Some(other) = physical.insert(name.clone(), whose.clone()) {
                panic!("{name} is of {whose} and of {other}");
            }
        }
        if topology.partitions > 0 {
            let tag = format!("{}.s{}", topology.queue, topology.partitions);
            let keys = redis::worker_keys(prefix, topology);
            take(keys, format!("workers of {}", topology.queue), &tag);
        }
        let (topic, slot) = redis::topic_key(prefix, &topology.queue);
        assert_eq!(slot, redis::slot(topology.queue.as_bytes()));
        take(
            vec![topic],
            format!("topic {}", topology.queue),
            &topology.queue,
        );
    }
    for key in taken.keys() {
        assert!(!redis::may_reply_to(prefix, key), "{key:?}");
    }
}

/// What a cluster hashes: between the first brace and the next that closes
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>).
fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    Some(tag).filter(|tag| !tag.is_empty())
}

/// Two pairs of key and id have one name only where they are one.
fn marks(octets: &mut Octets<'_>, first: (&str, &str)) {
    let some = |octets: &mut Octets<'_>, text: &str| match octets.octet() {
        0..64 => None,
        64..128 => Some(text.to_owned()),
        _ => Some(octets.text()),
    };
    let cut = |text: &str| {
        Text::from(
            text.chars()
                .filter(|c| !c.is_control())
                .take(32)
                .collect::<String>(),
        )
    };
    let one = (some(octets, first.1), cut(first.0));
    let other = (some(octets, first.1), cut(&octets.text()));
    let one = (one.0.as_deref().map(cut), one.1);
    let other = (other.0.as_deref().map(cut), other.1);
    let name = |(key, id): &(Option<Text>, Text)| mark_name(key.as_deref(), id);
    assert_eq!(
        name(&one) == name(&other),
        one == other,
        "{one:?} {other:?}"
    );
}

fn replies(address: &str) {
    if amqp::may_reply_to(None, address) {
        assert!(address.starts_with("amq."), "{address:?}");
        assert!(!address.contains(char::is_control), "{address:?}");
    }
    assert!(!amqp::may_reply_to(Some(""), address) || amqp::may_reply_to(None, address));
}
