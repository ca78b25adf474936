//! One publish, awaited.

use std::{
    future::{IntoFuture, Ready, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use longshore_core::{Published, Result, Text};

use crate::{Client, Context, Draft, Target};

/// One publish: set what belongs to it, then `.await` it.
///
/// From a [`Client`] the answer is `Ok` only once the broker has stored the message durably. From
/// a [`Context`] the message is kept until the handler has succeeded.
#[must_use = "nothing is published until it is awaited"]
pub struct Publish<'a, From, T> {
    from: &'a From,
    target: &'a T,
    draft: Draft,
}

impl<'a, From, T> Publish<'a, From, T> {
    pub(crate) fn new(from: &'a From, target: &'a T, draft: Draft) -> Self {
        Self {
            from,
            target,
            draft,
        }
    }

    /// See [`Draft::key`].
    pub fn key(self, key: impl Into<Text>) -> Self {
        self.with(|draft| draft.key(key))
    }

    /// See [`Draft::priority`].
    pub fn priority(self, lane: impl Into<Text>) -> Self {
        self.with(|draft| draft.priority(lane))
    }

    /// See [`Draft::id`].
    pub fn id(self, id: impl Into<Text>) -> Self {
        self.with(|draft| draft.id(id))
    }

    /// See [`Draft::delay`].
    pub fn delay(self, delay: Duration) -> Self {
        self.with(|draft| draft.delay(delay))
    }

    /// See [`Draft::expires_after`].
    pub fn expires_after(self, time: Duration) -> Self {
        self.with(|draft| draft.expires_after(time))
    }

    /// See [`Draft::correlation_id`].
    pub fn correlation_id(self, id: impl Into<Text>) -> Self {
        self.with(|draft| draft.correlation_id(id))
    }

    /// See [`Draft::header`].
    pub fn header(self, name: impl Into<Text>, value: impl Into<Bytes>) -> Self {
        self.with(|draft| draft.header(name, value))
    }

    fn with(mut self, change: impl FnOnce(Draft) -> Draft) -> Self {
        self.draft = change(self.draft);
        self
    }
}

impl<'a, T: Target + Sync> IntoFuture for Publish<'a, Client, T> {
    /// `Duplicate` only where the transport can know.
    type Output = Result<Published>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.from.send_one(self.target, self.draft).await })
    }
}

impl<T: Target> IntoFuture for Publish<'_, Context, T> {
    type Output = Result<()>;
    type IntoFuture = Ready<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        ready(self.from.keep(self.target, self.draft))
    }
}
