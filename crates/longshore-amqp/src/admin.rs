//! The operator's side.

use std::sync::Arc;

use async_trait::async_trait;
use longshore_core::{Admin, DeadLetter, Error, ErrorKind, Name, Result, Stats, Text};

use crate::{convert::ReplyRule, link::Link, publisher::Publisher, session::Dialer};

/// Figures and dead letters, as far as AMQP gives them.
pub(crate) struct AmqpAdmin;

impl AmqpAdmin {
    pub(crate) fn new(_: Dialer, _: Arc<Link>, _: Arc<Publisher>, _: ReplyRule) -> Self {
        Self
    }
}

fn later<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "not built yet"))
}

#[async_trait]
impl Admin for AmqpAdmin {
    async fn stats(&self, _: &Name) -> Result<Stats> {
        later()
    }
    async fn dead_letters(&self, _: &Name, _: Option<&Text>, _: usize) -> Result<Vec<DeadLetter>> {
        later()
    }
    async fn redrive(&self, _: &Name, ids: &[Text]) -> Vec<Result<()>> {
        ids.iter().map(|_| later()).collect()
    }
    async fn discard(&self, _: &Name, ids: &[Text]) -> Vec<Result<()>> {
        ids.iter().map(|_| later()).collect()
    }
}
