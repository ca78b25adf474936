//! A worker that does not let go of its first message when it is cancelled: it notes that it was, and
//! then sets the state and succeeds all the same.

use std::{path::Path, sync::Arc, time::Duration};

use longshore::{Connect, Context, HandlerError, Queue, Router, Worker};
use longshore_tests::{
    history::{Happened, History},
    step::Step,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, store, queue, history] = arguments.as_slice() else {
        return Err("url, store, queue and history are wanted".into());
    };
    let history = Arc::new(History::open(Path::new(history))?);
    let client = Connect::new(url).heartbeat(Duration::from_secs(2));
    let client = match store.as_str() {
        "" => client,
        store => client.store(store),
    };
    let client = client.open().await?;
    let router = Router::new().handle_fn(move |step: Step, cx: Context| {
        let history = Arc::clone(&history);
        async move {
            let note = |what: &str, token: u64| {
                history.add(&Happened {
                    what: what.to_owned(),
                    key: step.key,
                    number: step.number,
                    attempt: cx.attempt(),
                    token,
                    process: std::process::id(),
                })
            };
            let session = cx.session();
            let before = session.state::<u32>().await?.unwrap_or(0);
            note("start", session.token())?;
            note("saw", u64::from(before))?;
            if step.number == 0 && cx.attempt() == 1 {
                cx.cancellation().cancelled().await;
                note("cancelled", session.token())?;
            }
            session.set_state(&std::process::id())?;
            note("done", session.token())?;
            Ok::<_, HandlerError>(())
        }
    });
    let worker = Worker::new(&client, &Queue::new(queue).sessions(2), router)
        .lock(Duration::from_secs(2))
        .stop_deadline(Duration::from_secs(2));
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    worker.run_until(terminated.recv()).await?;
    client.close().await;
    Ok(())
}
