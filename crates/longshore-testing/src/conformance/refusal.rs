//! Where a capability is absent, asking for it is a clear error.

use std::time::Duration;

use longshore_core::{Declare, Destination, Error, ErrorKind, Outgoing, Result, Topology};

use super::{
    case::Need,
    message::{later, message, to},
    must::Must,
    stage::Stage,
};

/// Asks for what the transport says it cannot do.
pub(crate) async fn check(need: Need, stage: &Stage) {
    let mut topology = Topology::new(stage.name());
    match need {
        Need::Lanes => {
            topology.lanes.push(stage.name());
            refused(stage.transport.declare(&topology, Declare::Create).await);
        }
        Need::Topics => {
            let topic = stage.name();
            topology.topics.push(topic.clone());
            refused(stage.transport.declare(&topology, Declare::Create).await);
            publish(
                stage,
                Outgoing {
                    to: Destination::Topic(topic),
                    ..to(&topology, message(""))
                },
            )
            .await;
        }
        Need::Delays => {
            stage.declare(&topology).await;
            publish(stage, later(&topology, message(""), Duration::from_secs(1))).await;
        }
        Need::Partitions => {
            topology.partitions = 4;
            refused(stage.transport.declare(&topology, Declare::Create).await);
            let topology = topology.into();
            refused(
                stage
                    .transport
                    .join(&topology, Declare::Create, longshore_core::defaults::LOCK)
                    .await,
            );
        }
        Need::Replies => refused(stage.transport.inbox().await),
        _ => panic!("{need:?} has no refusal: this is a bug in the suite"),
    }
}

async fn publish(stage: &Stage, outgoing: Outgoing) {
    let mut answers = stage.transport.publish(vec![outgoing]).await;
    refused(answers.pop().must("an answer"));
}

#[track_caller]
fn refused<T>(answer: Result<T, Error>) {
    match answer {
        Ok(_) => panic!("what the transport cannot do was accepted"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
    }
}
