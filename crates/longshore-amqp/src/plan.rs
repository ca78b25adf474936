//! What a subscription is to do.

use std::sync::Arc;

use longshore_core::{Clock, Declare, Limits, Part, Topology};

use crate::{gate::Gate, reply_rule::ReplyRule};

/// What both feeds and the settler of a subscription know of it.
pub(crate) struct Plan {
    pub(crate) topology: Arc<Topology>,
    pub(crate) declare: Declare,
    pub(crate) part: Part,
    /// The physical queue.
    pub(crate) lane: String,
    /// Of all lanes together: however many there are, one suspect runs at a time.
    pub(crate) quarantine: String,
    /// Where a suspect lies while it runs.
    pub(crate) cell: String,
    pub(crate) gate: Arc<Gate>,
    pub(crate) dead: String,
    pub(crate) suspect_returns: u32,
    pub(crate) limits: Limits,
    pub(crate) replies: ReplyRule,
    pub(crate) clock: Arc<dyn Clock>,
}
