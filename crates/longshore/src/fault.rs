//! The answer of a service that could not do as it was asked.

use std::fmt;

use longshore_core::{defaults::DETAIL_BYTES, printable};
use serde::{Deserialize, Serialize};

use crate::Message;

/// The word in a fault that a handler raised itself.
const RAISED: &str = "fault";

/// The answer of a service that could not do as it was asked: raised by its handler
/// ([`HandlerError::fault`](crate::HandlerError::fault)), or sent because the request became a dead
/// letter.
///
/// On the wire it is JSON: `{"reason":"fault","detail":"…","type":"stock.out","body":{…}}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    reason: String,
    #[serde(default)]
    detail: String,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<serde_json::Value>,
}

impl Fault {
    /// A fault with a value of the service's own.
    pub(crate) fn raised<F: Message>(fault: &F) -> Result<Self, serde_json::Error> {
        Ok(Self {
            reason: RAISED.to_owned(),
            detail: String::new(),
            kind: Some(F::TYPE.to_owned()),
            body: Some(serde_json::to_value(fault)?),
        })
    }

    /// The request was set aside for this reason. What its handler said stays with the operator.
    pub(crate) fn set_aside(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            detail: "the request became a dead letter".to_owned(),
            kind: None,
            body: None,
        }
    }

    /// Reads what came, and makes it safe to show.
    pub(crate) fn read(body: &[u8]) -> Result<Self, String> {
        let mut fault: Self = serde_json::from_slice(body)
            .map_err(|error| format!("no fault at line {}", error.line()))?;
        fault.reason = printable(&fault.reason, 64);
        fault.detail = printable(&fault.detail, DETAIL_BYTES);
        Ok(fault)
    }

    /// `fault` where the handler raised it, else the [`Reason`](crate::Reason) of the dead letter.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What happened, for a person to read. Comes from the service.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether it was raised with a value of this type.
    pub fn is<F: Message>(&self) -> bool {
        self.kind.as_deref() == Some(F::TYPE)
    }

    /// The value it was raised with, where it is of this type.
    pub fn get<F: Message>(&self) -> Option<F> {
        if !self.is::<F>() {
            return None;
        }
        F::deserialize(self.body.as_ref()?).ok()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service answered with a fault ({})", self.reason)?;
        if let Some(kind) = &self.kind {
            write!(f, " of type {}", printable(kind, 128))?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}
