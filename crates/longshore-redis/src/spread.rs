//! Many commands to many slots: one write per server.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use longshore_core::Error;
use redis::{Cmd, Pipeline, Value};

use crate::{
    failure::Broken,
    link::{Link, Links},
    scripts,
};

/// Commands in one write.
const CHUNK: usize = 1024;

/// Sends each command to the server of its slot. One reply each, in order; errors of the server are
/// among the replies. Scripts that a server does not have are loaded first.
pub(crate) async fn spread(
    links: &Links,
    commands: &[(u16, Cmd)],
    limit: Duration,
) -> Vec<Result<Value, Broken>> {
    let mut replies = once(links, commands, limit).await;
    let unknown: Vec<usize> = (0..commands.len())
        .filter(|index| matches!(&replies[*index], Ok(reply) if scripts::is_unknown(reply)))
        .collect();
    if unknown.is_empty() {
        return replies;
    }
    let mut loaded = Vec::new();
    for index in &unknown {
        let slot = commands[*index].0;
        let Ok(link) = links.link(slot).await else {
            continue;
        };
        if !loaded.iter().any(|known| Arc::ptr_eq(known, &link)) {
            // A failure shows in what is sent again.
            let _ = scripts::load(links, slot, limit).await;
            loaded.push(link);
        }
    }
    let again: Vec<_> = unknown
        .iter()
        .map(|index| commands[*index].clone())
        .collect();
    let repeated = once(links, &again, limit).await;
    for (index, reply) in unknown.into_iter().zip(repeated) {
        replies[index] = reply;
    }
    replies
}

async fn once(
    links: &Links,
    commands: &[(u16, Cmd)],
    limit: Duration,
) -> Vec<Result<Value, Broken>> {
    let mut replies: Vec<Option<Result<Value, Broken>>> = commands.iter().map(|_| None).collect();
    let mut groups: Vec<(Arc<Link>, Vec<usize>)> = Vec::new();
    for (index, (slot, _)) in commands.iter().enumerate() {
        match links.link(*slot).await {
            Ok(link) => match groups
                .iter_mut()
                .find(|(known, _)| Arc::ptr_eq(known, &link))
            {
                Some((_, indexes)) => indexes.push(index),
                None => groups.push((link, vec![index])),
            },
            Err(error) => replies[index] = Some(Err(Broken::Before(error))),
        }
    }
    let sent = groups.iter().map(|(link, indexes)| async move {
        let mut replies = Vec::with_capacity(indexes.len());
        for chunk in indexes.chunks(CHUNK) {
            let mut pipeline = Pipeline::with_capacity(chunk.len());
            for index in chunk {
                pipeline.add_command(commands[*index].1.clone());
            }
            match link.exchange(&pipeline, limit).await {
                Ok(mut values) => {
                    values.resize(chunk.len(), Value::Nil);
                    replies.extend(values.into_iter().map(Ok));
                }
                Err(broken) => replies.extend(chunk.iter().map(|_| Err(again(&broken)))),
            }
        }
        replies
    });
    let sent = join_all(sent).await;
    for ((_, indexes), values) in groups.iter().zip(sent) {
        for (index, value) in indexes.iter().zip(values) {
            replies[*index] = Some(value);
        }
    }
    let each = replies
        .into_iter()
        .map(|reply| reply.unwrap_or(Ok(Value::Nil)));
    each.collect()
}

fn again(broken: &Broken) -> Broken {
    let copy = |error: &Error| error.again();
    match broken {
        Broken::Before(error) => Broken::Before(copy(error)),
        Broken::After(error) => Broken::After(copy(error)),
    }
}
