//! The vocabulary of Longshore and the contract of its transports.
//!
//! A service never needs this crate by name: the `longshore` crate re-exports what belongs in its
//! signatures. Whoever writes a transport starts at [`Transport`] and proves the work with the
//! conformance suite of `longshore-testing`.
//!
//! Nothing here knows a broker, spawns a task or reads a clock of its own: time and randomness come
//! in through [`Clock`] and [`Ids`].

mod admin;
#[doc(hidden)]
pub mod chaos;
mod clock;
pub mod defaults;
mod delivery;
mod envelope;
mod error;
mod ids;
mod limits;
mod membership;
mod name;
mod options;
mod outcome;
mod printable;
mod queue;
mod store;
mod transport;

pub use admin::{Admin, DeadLetter, Stats};
pub use clock::{Clock, SystemClock};
pub use delivery::{Defect, Delivery, Receipt, Standing};
pub use envelope::{Envelope, ReplyAddress};
pub use error::{Error, ErrorKind, Result};
pub use ids::{Ids, RandomIds, SeededIds, content_id, derived_id};
pub use limits::Limits;
pub use membership::{Claim, Membership, Ownership};
pub use name::Name;
pub use options::ConnectOptions;
pub use outcome::{Outcome, Reason, Settlement, Unsettled, Verdict};
pub use printable::printable;
pub use queue::{Declare, Part, Topology, partition_of};
pub use store::{Mark, MarkChange, MarkWrite, Session, StateWrite, Store, Take, mark_name};
pub use transport::{
    Capabilities, Destination, Outgoing, Published, Settler, Source, Subscribed, Subscription,
    Transport,
};

/// UTF-8 text that shares its buffer: ids, types, keys and header names are slices of what the
/// broker sent, not copies.
pub type Text = bytestring::ByteString;
