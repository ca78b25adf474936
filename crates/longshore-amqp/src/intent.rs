//! What the owner of a source wants of it.

use tokio::sync::watch;

/// What the owner of a source wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) stop: bool,
    pub(crate) prefetch: u16,
}

/// Resolves once no more is wanted; never where nobody can say so any more.
pub(crate) async fn stopped(mut intent: watch::Receiver<Intent>) {
    if intent.wait_for(|intent| intent.stop).await.is_err() {
        std::future::pending().await
    }
}
