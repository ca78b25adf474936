//! How a claim is told to end.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// How a claim is told to end.
#[derive(Debug, Clone, Default)]
pub(super) struct Grip {
    pub(super) leave: CancellationToken,
    pub(super) lost: CancellationToken,
    tokens: Arc<Mutex<Tokens>>,
}

#[derive(Debug, Default)]
struct Tokens {
    granted: Option<u64>,
    lost: Option<u64>,
}

impl Grip {
    /// The claim was granted under this token.
    pub(super) fn granted(&self, token: u64) {
        self.note(|tokens| tokens.granted = Some(token));
    }

    /// An ownership of the claim was lost. It may be an earlier one: what settles too late can show
    /// the loss, and the claim be granted anew, before the news of it is here. And it may be the one
    /// that is just being granted.
    pub(super) fn lose(&self, token: u64) {
        self.note(|tokens| tokens.lost = tokens.lost.max(Some(token)));
    }

    fn note(&self, news: impl FnOnce(&mut Tokens)) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        news(&mut tokens);
        if tokens.granted.is_some() && tokens.lost >= tokens.granted {
            self.lost.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_counts_for_the_ownership_it_names_and_those_before_whenever_it_is_heard_of() {
        for (granted, lost, over) in [(3, 3, true), (3, 1, false), (0, 0, true)] {
            let (late, early) = (Grip::default(), Grip::default());
            late.granted(granted);
            late.lose(lost);
            early.lose(lost);
            assert!(!early.lost.is_cancelled());
            early.granted(granted);
            assert_eq!(late.lost.is_cancelled(), over, "{granted} {lost}");
            assert_eq!(early.lost.is_cancelled(), over, "{granted} {lost}");
        }
    }
}
