//! A worker that does not let go of its first message when it is cancelled: it notes that it was, and
//! then sets the state and succeeds all the same.

use std::{sync::Arc, time::Duration};

use longshore::{Connect, Context, HandlerError, Queue, Router, Worker};
use longshore_testing::history::{Ending, Event, Recorder};
use longshore_tests::step::Step;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, store, queue, history] = arguments.as_slice() else {
        return Err("url, store, queue and history are wanted".into());
    };
    let history = Arc::new(Recorder::open(history)?);
    let client = Connect::new(url).heartbeat(Duration::from_secs(2));
    let client = match store.as_str() {
        "" => client,
        store => client.store(store),
    };
    let client = client.open().await?;
    let router = Router::new().handle_fn(move |step: Step, cx: Context| {
        let history = Arc::clone(&history);
        async move {
            let (message, attempt) = (step.number, cx.attempt());
            let end = |how| {
                history.add(Event::End {
                    message,
                    attempt,
                    how,
                })
            };
            let session = cx.session();
            let before = session.state::<u32>().await?.unwrap_or(0);
            history.add(Event::Start {
                message,
                attempt,
                token: session.token(),
                lane: None,
                intact: true,
            })?;
            let this = std::process::id();
            if step.number == 0 && cx.attempt() == 1 {
                cx.cancellation().cancelled().await;
                end(Ending::Cancelled)?;
            } else if step.number > 0 && before != this {
                let what = format!("the state is of process {before}");
                history.add(Event::Wrong { message, what })?;
            }
            session.set_state(&this)?;
            end(Ending::Succeeded)?;
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
