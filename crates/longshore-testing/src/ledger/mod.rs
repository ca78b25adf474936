//! The effect ledger: the one judge of what took effect.
//!
//! It runs in a process of its own that no fault touches ([`serve`]). A handler asks it before it
//! succeeds ([`Client::effect`]); it decides by the fencing token ([`Ledger::decide`]), writes
//! [`Event::Effect`](crate::history::Event::Effect) to the history, and only then answers. So the order of these lines is the order in
//! which things took effect, whatever died in between.

mod client;
mod server;
mod wire;

use std::collections::HashMap;

pub use client::Client;
pub use server::serve;

use crate::history::Effect;

/// The largest fencing token seen of each session.
#[derive(Debug, Default)]
pub struct Ledger {
    tokens: HashMap<String, u64>,
}

impl Ledger {
    /// Has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Accepts a token that is no smaller than any seen of its session, and everything that is in
    /// none. Sessions of different queues need different keys.
    pub fn decide(&mut self, key: Option<&str>, token: u64) -> Effect {
        let Some(key) = key else {
            return Effect::Accepted;
        };
        match self.tokens.get_mut(key) {
            Some(largest) if token < *largest => return Effect::Stale,
            Some(largest) => *largest = token,
            None => drop(self.tokens.insert(key.to_owned(), token)),
        }
        Effect::Accepted
    }
}

#[cfg(test)]
mod tests;
