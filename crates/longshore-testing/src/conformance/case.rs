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
    /// Without this it cannot run.
    pub(crate) need: Need,
    /// Whether others beside it would spoil it: it breaks the broker, or measures time.
    pub(crate) alone: bool,
    /// Runs it.
    pub(crate) run: fn(Arc<Stage>) -> Running,
}

/// What a case needs beyond the contract's core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// Priority lanes.
    Lanes,
    /// Topics.
    Topics,
    /// Delays.
    Delays,
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
    /// The transport says it cannot: asking for it must be a clear error instead.
    Refused,
    /// Not covered, for this reason.
    NotCovered(&'static str),
}

impl Need {
    /// Whether it is met.
    pub(crate) fn met(self, can: &Capabilities, faults: &Faults, ordered: bool) -> Met {
        let capable = |can: bool| if can { Met::Yes } else { Met::Refused };
        let given = |given: bool, why| {
            if given {
                Met::Yes
            } else {
                Met::NotCovered(why)
            }
        };
        match self {
            Self::Nothing => Met::Yes,
            Self::Lanes => capable(can.lanes),
            Self::Topics => capable(can.topics),
            Self::Delays => capable(can.longest_delay.is_some()),
            Self::Order => given(ordered, "the suite was told that order is not kept"),
            Self::Cut => given(faults.cut.is_some(), "not covered: no Faults::cut"),
            Self::Freeze => given(faults.freeze.is_some(), "not covered: no Faults::freeze"),
            Self::Outage if !can.durable => Met::NotCovered("the transport is not durable"),
            Self::Outage => given(faults.outage.is_some(), "not covered: no Faults::outage"),
        }
    }

    /// Whether other cases would suffer from it.
    pub(crate) const fn is_fault(self) -> bool {
        matches!(self, Self::Cut | Self::Outage | Self::Freeze)
    }

    /// Whether these faults are what it needs.
    pub(crate) fn is_given_by(self, faults: &Faults) -> bool {
        match self {
            Self::Cut => faults.cut.is_some(),
            Self::Outage => faults.outage.is_some(),
            Self::Freeze => faults.freeze.is_some(),
            _ => false,
        }
    }
}

/// Lists the cases of a file: `cases![first, second needs Topics, third needs Delays alone]`.
macro_rules! cases {
    ($($name:ident $(needs $need:ident $($alone:ident)?)?),* $(,)?) => {
        pub(super) const CASES: &[$crate::conformance::case::Case] = &[
            $($crate::conformance::case::Case {
                name: stringify!($name),
                need: $crate::conformance::case::cases!(@need $($need)?),
                alone: $crate::conformance::case::cases!(@need $($need)?).is_fault()
                    || $crate::conformance::case::cases!(@alone $($($alone)?)?),
                run: |stage| Box::pin($name(stage)),
            }),*
        ];
    };
    (@alone) => { false };
    (@alone alone) => { true };
    (@need) => { $crate::conformance::case::Need::Nothing };
    (@need $need:ident) => { $crate::conformance::case::Need::$need };
}
pub(crate) use cases;
