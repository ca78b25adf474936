//! One named case and what it needs of the transport.

use std::{future::Future, pin::Pin, sync::Arc};

use longshore_core::Capabilities;

use super::{Faults, stage::Stage};

/// A case under way. It fails by panicking.
pub(crate) type Running = Pin<Box<dyn Future<Output = ()>>>;

/// A named case.
pub(crate) struct Case {
    /// A sentence that begins with the promise it shows.
    pub(crate) name: &'static str,
    /// Without these it cannot run.
    pub(crate) needs: &'static [Need],
    /// Whether it measures time.
    pub(crate) timed: bool,
    /// Runs it.
    pub(crate) run: fn(Arc<Stage>) -> Running,
}

/// What a case needs beyond the contract's core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Priority lanes.
    Lanes,
    /// Partitions with owners.
    Partitions,
    /// Topics.
    Topics,
    /// Delays.
    Delays,
    /// Requests and replies.
    Replies,
    /// Ids taken at publish.
    DedupAtPublish,
    /// Session state and dedup marks in one step with the settlement.
    AtomicSettle,
    /// Publish order where nothing fails and one consumer takes one at a time.
    Order,
    /// Somebody who can cut all connections.
    Cut,
    /// Somebody who can kill the broker and start it again, and a broker that keeps its data.
    Outage,
    /// Somebody who can freeze the broker.
    Freeze,
}

/// How a need is met.
pub(crate) enum Met {
    /// The case runs.
    Yes,
    /// The transport says it cannot do this: asking for it must be a clear error instead.
    Refused(Need),
    /// Not covered, for this reason.
    NotCovered(&'static str),
}

impl Case {
    /// Whether all its needs are met; else the first that is not.
    pub(crate) fn met(&self, can: &Capabilities, faults: &Faults, ordered: bool) -> Met {
        let unmet = self
            .needs
            .iter()
            .map(|need| need.met(can, faults, ordered))
            .find(|met| !matches!(met, Met::Yes));
        unmet.unwrap_or(Met::Yes)
    }

    /// Whether it breaks the broker.
    pub(crate) fn is_fault(&self) -> bool {
        self.needs.iter().any(|need| need.is_fault())
    }

    /// Whether others beside it would spoil it, or it them.
    pub(crate) fn alone(&self) -> bool {
        self.timed || self.is_fault()
    }

    /// Whether these faults are all it needs of them.
    pub(crate) fn is_given_by(&self, faults: &Faults) -> bool {
        let mut of_faults = self.needs.iter().filter(|need| need.is_fault());
        self.is_fault() && of_faults.all(|need| need.is_given_by(faults))
    }
}

impl Need {
    /// Whether it is met.
    fn met(self, can: &Capabilities, faults: &Faults, ordered: bool) -> Met {
        let capable = |can: bool| if can { Met::Yes } else { Met::Refused(self) };
        let given = |given: bool, why| {
            if given {
                Met::Yes
            } else {
                Met::NotCovered(why)
            }
        };
        match self {
            Self::Lanes => capable(can.lanes),
            Self::Partitions => capable(can.partitions),
            Self::Topics => capable(can.topics),
            Self::Replies => capable(can.replies),
            Self::DedupAtPublish => given(
                can.dedup_at_publish,
                "not applicable: the transport asks for no ids at publish",
            ),
            Self::AtomicSettle => given(
                can.atomic_settle,
                "not applicable: the transport settles apart from the store",
            ),
            Self::Delays => capable(can.longest_delay.is_some()),
            Self::Order => given(ordered, "the suite was told that order is not kept"),
            Self::Cut => given(faults.cut.is_some(), "not covered: no Faults::cut"),
            Self::Freeze => given(faults.freeze.is_some(), "not covered: no Faults::freeze"),
            Self::Outage if !can.durable => Met::NotCovered("the transport is not durable"),
            Self::Outage => given(faults.outage.is_some(), "not covered: no Faults::outage"),
        }
    }

    /// Whether other cases would suffer from it.
    fn is_fault(self) -> bool {
        matches!(self, Self::Cut | Self::Outage | Self::Freeze)
    }

    fn is_given_by(self, faults: &Faults) -> bool {
        match self {
            Self::Cut => faults.cut.is_some(),
            Self::Outage => faults.outage.is_some(),
            Self::Freeze => faults.freeze.is_some(),
            _ => false,
        }
    }
}

/// Lists the cases of a file: `cases![first, second needs Topics, third needs Delays & Lanes alone]`.
macro_rules! cases {
    ($($name:ident $(needs $($need:ident)&+ $($alone:ident)?)?),* $(,)?) => {
        pub(super) const CASES: &[$crate::conformance::case::Case] = &[
            $($crate::conformance::case::Case {
                name: stringify!($name),
                needs: &[$($($crate::conformance::case::Need::$need),+)?],
                timed: $crate::conformance::case::cases!(@alone $($($alone)?)?),
                run: |stage| Box::pin($name(stage)),
            }),*
        ];
    };
    (@alone) => { false };
    (@alone alone) => { true };
}
pub(crate) use cases;
