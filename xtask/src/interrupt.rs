//! The wish to stop early: Ctrl-C, or a SIGTERM from whoever runs us.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Failure;

/// The exit code of a command that was interrupted, as shells have it.
pub(crate) const EXIT_CODE: u8 = 130;

/// Listens from its creation on; until then the signals end the process at once.
pub(crate) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Resolves when the user wants to stop. Cancel safe.
    pub(crate) async fn wished(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
