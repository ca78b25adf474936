//! How several Redis processes become one cluster or one supervised pair.

use std::net::SocketAddr;

use super::error::{Error, ErrorKind};
use super::node::Node;
use super::resp;

/// The name under which the sentinel knows its primary.
pub(crate) const MASTER_NAME: &str = "longshore";
const SLOTS: usize = 16_384;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Topology {
    #[default]
    Single,
    Cluster {
        primaries: usize,
    },
    Sentinel {
        replicas: usize,
    },
}

impl Topology {
    /// Redis servers, sentinels not counted.
    pub(crate) fn servers(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Cluster { primaries } => primaries,
            Self::Sentinel { replicas } => 1 + replicas,
        }
    }

    pub(crate) fn url(self, nodes: &[Node]) -> String {
        let list = |nodes: &[Node]| {
            nodes
                .iter()
                .map(|node| node.port().addr().to_string())
                .collect::<Vec<_>>()
                .join(",")
        };
        match self {
            Self::Single => format!("redis://{}", nodes[0].port().addr()),
            Self::Cluster { .. } => format!("redis+cluster://{}", list(nodes)),
            Self::Sentinel { .. } => format!(
                "redis+sentinel://{}/{MASTER_NAME}",
                list(&nodes[self.servers()..])
            ),
        }
    }

    /// Introduces fresh nodes to each other. Sentinels and replicas find each other by configuration.
    pub(crate) async fn form(self, nodes: &[Node]) -> Result<(), Error> {
        let Self::Cluster { primaries } = self else {
            return Ok(());
        };
        let (seed, bus) = (
            nodes[0].port().number().to_string(),
            nodes[0].ports()[1].number().to_string(),
        );
        for (index, node) in nodes.iter().enumerate() {
            let addr = node.port().addr();
            let (first, last) = (
                index * SLOTS / primaries,
                (index + 1) * SLOTS / primaries - 1,
            );
            resp::call(
                addr,
                &[
                    "CLUSTER",
                    "ADDSLOTSRANGE",
                    &first.to_string(),
                    &last.to_string(),
                ],
            )
            .await?;
            resp::call(
                addr,
                &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()],
            )
            .await?;
            if index > 0 {
                resp::call(addr, &["CLUSTER", "MEET", "127.0.0.1", &seed, &bus]).await?;
            }
        }
        Ok(())
    }

    /// Waits until every part knows the others.
    pub(crate) async fn formed(self, nodes: &mut [Node]) -> Result<(), Error> {
        match self {
            Self::Single => {}
            Self::Cluster { primaries } => {
                let size = format!("cluster_size:{primaries}");
                for node in nodes {
                    let addr = node.port().addr();
                    node.until("part of the cluster", || {
                        says(addr, ["CLUSTER", "INFO"], ["cluster_state:ok", &size])
                    })
                    .await?;
                }
            }
            Self::Sentinel { replicas } => {
                let slaves = format!("slaves={replicas},");
                let sentinel = &mut nodes[self.servers()];
                let addr = sentinel.port().addr();
                sentinel
                    .until("watching its primary", || {
                        says(addr, ["INFO", "sentinel"], ["status=ok", &slaves])
                    })
                    .await?;
            }
        }
        Ok(())
    }
}

async fn says(addr: SocketAddr, command: [&str; 2], expected: [&str; 2]) -> Result<(), Error> {
    let answer = resp::call(addr, &command).await?.to_string();
    if expected.iter().all(|part| answer.contains(part)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotReady,
        format!("expected {expected:?} in {answer:?}"),
    ))
}
