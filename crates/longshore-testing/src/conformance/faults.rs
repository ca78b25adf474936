//! What an author can do to the broker for the cases that need it.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use super::must::Must;

/// Something done to the broker; ready once it is done.
pub type Act =
    Pin<Box<dyn Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + Send>>;

type Doing = Arc<dyn Fn() -> Act + Send + Sync>;

/// What the suite may do to the broker that its transports are connected to. What is not given is
/// not covered.
#[derive(Clone, Default)]
pub struct Faults {
    pub(crate) cut: Option<Doing>,
    pub(crate) outage: Option<(Doing, Doing)>,
    pub(crate) freeze: Option<(Doing, Doing)>,
}

impl Faults {
    /// Nothing at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Resets every connection to the broker; new ones work at once.
    #[must_use]
    pub fn cut(mut self, cut: impl Fn() -> Act + Send + Sync + 'static) -> Self {
        self.cut = Some(Arc::new(cut));
        self
    }

    /// `down` kills the broker as `kill -9` would; `up` starts it again on the same data and the
    /// same address, is ready once it answers, and does nothing where it runs.
    #[must_use]
    pub fn outage(
        mut self,
        down: impl Fn() -> Act + Send + Sync + 'static,
        up: impl Fn() -> Act + Send + Sync + 'static,
    ) -> Self {
        self.outage = Some((Arc::new(down), Arc::new(up)));
        self
    }

    /// `freeze` lets everything stop answering without closing anything, as `kill -STOP` or a dead
    /// network does; `thaw` ends that, and does nothing where nothing is frozen.
    #[must_use]
    pub fn freeze(
        mut self,
        freeze: impl Fn() -> Act + Send + Sync + 'static,
        thaw: impl Fn() -> Act + Send + Sync + 'static,
    ) -> Self {
        self.freeze = Some((Arc::new(freeze), Arc::new(thaw)));
        self
    }

    /// Ends every fault that lasts, whatever became of the case that began it.
    pub(crate) async fn mend(&self) {
        if self.freeze.is_some() {
            self.thaw().await;
        }
        if self.outage.is_some() {
            self.up().await;
        }
    }

    /// Cuts all connections.
    pub(crate) async fn cut_now(&self) {
        let cut = self.cut.as_ref().must("Faults::cut");
        cut().await.must("cutting the connections");
    }

    /// Kills the broker.
    pub(crate) async fn down(&self) {
        let (down, _) = self.outage.as_ref().must("Faults::outage");
        down().await.must("killing the broker");
    }

    /// Starts it again.
    pub(crate) async fn up(&self) {
        let (_, up) = self.outage.as_ref().must("Faults::outage");
        up().await.must("starting the broker again");
    }

    /// Stops everything.
    pub(crate) async fn freeze_now(&self) {
        let (freeze, _) = self.freeze.as_ref().must("Faults::freeze");
        freeze().await.must("freezing the broker");
    }

    /// Lets it go on.
    pub(crate) async fn thaw(&self) {
        let (_, thaw) = self.freeze.as_ref().must("Faults::freeze");
        thaw().await.must("thawing the broker");
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("cut", &self.cut.is_some())
            .field("outage", &self.outage.is_some())
            .field("freeze", &self.freeze.is_some())
            .finish()
    }
}
