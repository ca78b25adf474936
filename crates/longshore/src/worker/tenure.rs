//! What the store knows of the sessions of an owned partition.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use longshore_core::{Delivery, Part, Result};

use super::{Shared, desk::Desk};
use crate::session::Tenure;

/// What is known of a session before a message of it starts.
#[derive(Debug)]
pub(super) enum Known {
    /// Nothing was asked.
    Nothing,
    /// Its state.
    State(Option<Bytes>),
    /// It is set aside whole.
    SetAside,
}

/// To be called for every partition that was granted, before anything of it is taken: from then on
/// no earlier owner can write a state, however late it learns of its loss. Waits for the store.
pub(super) async fn begin(shared: &Shared, part: Part, token: u64) -> Result<Arc<Tenure>> {
    let scope = shared.dedup.scope(part);
    let books = shared.client.books();
    if !books.atomic {
        books.insist(|| books.store.grant(&scope, token)).await?;
    }
    Ok(Arc::new(Tenure {
        scope,
        token,
        wanted: Arc::clone(&shared.states_wanted),
    }))
}

/// Whether the store has to be asked before this delivery starts: for what is set aside, and for
/// states once a handler has wanted one. Asked then, a store that is down costs no attempt.
pub(super) fn must_ask(shared: &Shared, delivery: &Delivery, desk: &Desk) -> bool {
    desk.tenure.is_some()
        && delivery.envelope.key.is_some()
        && (shared.settings.set_aside_sessions || shared.states_wanted.load(Ordering::Relaxed))
}

/// Asks for the session of a delivery.
pub(super) async fn ask(shared: &Shared, delivery: &Delivery, desk: &Desk) -> Known {
    let envelope = &delivery.envelope;
    let (Some(tenure), Some(key)) = (&desk.tenure, &envelope.key) else {
        return Known::Nothing;
    };
    let message = match envelope.id.is_empty() {
        true => shared.client.ids().text(),
        false => envelope.id.clone(),
    };
    let books = shared.client.books();
    let asking = books.insist(|| books.store.load(&tenure.scope, key, &message));
    match asking.await {
        Ok(session) if session.set_aside && shared.settings.set_aside_sessions => Known::SetAside,
        Ok(session) => Known::State(session.state),
        // Only writes are stale.
        Err(_) => Known::Nothing,
    }
}
