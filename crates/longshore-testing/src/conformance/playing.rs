//! How a case is played: on a thread and a runtime of its own, within its time.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::mpsc,
    thread,
    time::Duration,
};

use libtest_mimic::{Completion, Failed};
use tokio::runtime::{Builder, Runtime};

/// What became of a case.
pub(crate) type Played = std::result::Result<Completion, Failed>;

/// Plays on a thread with the name of the case, so that a panic says which case it ended. Given up
/// where it neither ends nor waits.
pub(crate) fn played(
    name: &str,
    limit: Duration,
    play: impl FnOnce() -> Played + Send + 'static,
) -> Played {
    let (ended, end) = mpsc::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let played = catch_unwind(AssertUnwindSafe(play));
            // Nobody listens where it was given up.
            let _ = ended.send(played);
        })?;
    match end.recv_timeout(limit + Duration::from_secs(30)) {
        Ok(played) => played.unwrap_or_else(|panic| resume_unwind(panic)),
        Err(_) => Err("it runs on and on without ever waiting".into()),
    }
}

/// The runtime of one case.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// The end of a case, or its failure where it takes too long.
pub(crate) async fn within(limit: Duration, playing: impl Future<Output = Played>) -> Played {
    let limited = tokio::time::timeout(limit, playing).await;
    limited.unwrap_or_else(|_| {
        let limit = limit.as_secs();
        Err(Failed::from(format!("not finished within {limit} s")))
    })
}
