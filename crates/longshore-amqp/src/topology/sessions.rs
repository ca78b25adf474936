//! The partitions of a queue with sessions, and what belongs to them.

use futures_util::future::{join_all, try_join_all};
use lapin::{ExchangeKind, types::FieldTable};
use longshore_core::{Declare, Error, ErrorKind, Name, Part, Result, Topology};

use super::consumed;
use crate::{
    delay::Ladder,
    fan_out, marker, names,
    objects::{
        Figures, bind, bind_on, declare_exchange, declare_queue, declare_queue_on, look, unbind,
    },
    prepared::is_missing,
    session::Session,
};

/// Channels at work side by side: a broker makes a quorum queue in some milliseconds, and there can
/// be five hundred.
const CHANNELS: u16 = 8;
/// The key of a topic's message has as many bits as this many partitions need.
const BITS: u32 = 8;
/// In a topic's routing key: any one word, which is a message without a key where it stands alone.
const ANY: &str = "*";

/// The physical queues of so many partitions.
fn partitions(queue: &Name, of: u16) -> Result<Vec<String>> {
    let topology = Topology::new(queue.clone());
    let part = |index| names::part(&topology, Part::Partition { index, of });
    (0..of).map(part).collect()
}

/// The numbers of partitions this queue has or had, with the figures of each partition that is there.
pub(crate) async fn numbers(session: &Session, queue: &Name) -> Result<Vec<(u16, Vec<Figures>)>> {
    let possible = (0..=BITS).map(|bits| 1_u16 << bits);
    let looked = join_all(possible.map(|of| async move {
        let names = partitions(queue, of)?;
        // One is looked for alone: what is missing costs a channel.
        let first = names.first().map(std::slice::from_ref).unwrap_or_default();
        match look(session, first).await {
            Ok(_) => Ok(Some((of, look_around(session, &names).await?))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }));
    let looked: Result<Vec<_>> = looked.await.into_iter().collect();
    Ok(looked?.into_iter().flatten().collect())
}

/// Looks at what is there of these.
async fn look_around(session: &Session, names: &[String]) -> Result<Vec<Figures>> {
    match look(session, names).await {
        Err(error) if is_missing(&error) => {}
        answer => return answer,
    }
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        match look(session, std::slice::from_ref(name)).await {
            Ok(figures) => all.extend(figures),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Declares or verifies the partitions, their markers, the members queue and what the topics need.
///
/// # Errors
/// `TopologyDiffers` also while the queue is used with another number of partitions.
pub(super) async fn declare(session: &Session, topology: &Topology, mode: Declare) -> Result<()> {
    let others = others(session, topology).await?;
    let none = FieldTable::default;
    declare_queue(session, &names::members(topology), none(), mode).await?;
    if mode == Declare::Verify {
        fan_out::verify(session, topology).await?;
    }
    if mode == Declare::Create {
        for topic in &topology.topics {
            declare_exchange(session, topic, ExchangeKind::Topic, none()).await?;
            bind(session, &topology.queue, topic, ANY).await?;
        }
    }
    let work =
        (0..CHANNELS.min(topology.partitions)).map(|first| share(session, topology, mode, first));
    try_join_all(work).await?;
    if mode == Declare::Create {
        for topic in &topology.topics {
            fan_out::leave(session, &topology.queue, topic).await?;
            for of in &others {
                unbind_all(session, topology, *of, topic).await?;
            }
        }
    }
    Ok(())
}

/// One channel's share of the partitions.
async fn share(session: &Session, topology: &Topology, mode: Declare, first: u16) -> Result<()> {
    let (of, dead) = (topology.partitions, names::dead(&topology.queue));
    let channel = session.channel().await?;
    for index in (first..of).step_by(CHANNELS.into()) {
        let name = names::part(topology, Part::Partition { index, of })?;
        declare_queue_on(&channel, &name, consumed(&dead), mode).await?;
        declare_queue_on(&channel, &names::marker(&name), marker::arguments(), mode).await?;
        if mode == Declare::Create {
            Ladder::bind_on(&channel, &name).await?;
            for topic in &topology.topics {
                bind_on(&channel, &name, topic, &binding(index, of)).await?;
            }
        }
    }
    Ok(())
}

/// Which other numbers of partitions there are, all of them empty.
async fn others(session: &Session, topology: &Topology) -> Result<Vec<u16>> {
    let (queue, wanted) = (&topology.queue, topology.partitions);
    let found = numbers(session, queue).await?;
    let others = found.into_iter().filter(|(of, _)| *of != wanted);
    others
        .map(|(of, figures)| {
            let ready: u64 = figures.iter().map(|figures| figures.ready).sum();
            let consumers: u64 = figures.iter().map(|figures| figures.consumers).sum();
            if ready + consumers == 0 {
                return Ok(of);
            }
            Err(Error::new(
                ErrorKind::TopologyDiffers,
                format!(
                    "\"{queue}\" is to have {wanted} partitions and still has {of} in use, with \
                     {ready} messages ready and {consumers} consumers: declare it with {of} and let \
                     its workers empty them, then stop these and change the number everywhere"
                ),
            ))
        })
        .collect()
}

/// What was bound for another number of partitions would go on collecting messages nobody reads.
async fn unbind_all(session: &Session, topology: &Topology, of: u16, topic: &str) -> Result<()> {
    for (index, name) in (0..of).zip(partitions(&topology.queue, of)?) {
        unbind(session, &name, topic, &binding(index, of)).await?;
    }
    Ok(())
}

/// The routing keys of the messages for one partition: any lane, any of the bits it has no use for, and
/// its own.
fn binding(index: u16, of: u16) -> String {
    let mut key = ANY.to_owned();
    for bit in (0..BITS).rev() {
        key.push_str(match (1 << bit < of, index >> bit & 1) {
            (false, _) => ".*",
            (true, 0) => ".0",
            (true, _) => ".1",
        });
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_binds_the_low_bits_of_the_key() {
        assert_eq!(binding(3, 16), "*.*.*.*.*.0.0.1.1");
        assert_eq!(binding(0, 1), "*.*.*.*.*.*.*.*.*");
        assert_eq!(binding(255, 256), "*.1.1.1.1.1.1.1.1");
    }
}
