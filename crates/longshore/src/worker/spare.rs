//! Contexts that wait for another message.

use crate::{Client, Context, context::Start};

/// More are not kept.
const ROOM: usize = 64;

/// Contexts that wait for another message, so that most need no allocation of their own.
#[derive(Default)]
pub(super) struct Spare(Vec<Context>);

impl Spare {
    pub(super) fn context(&mut self, client: &Client, start: Start) -> Context {
        match self.0.pop() {
            Some(kept) => kept.recycle(start),
            None => Context::new(client.clone(), start),
        }
    }

    pub(super) fn keep(&mut self, cx: Context) {
        if self.0.len() < ROOM {
            self.0.push(cx);
        }
    }
}
