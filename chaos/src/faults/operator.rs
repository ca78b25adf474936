//! What an operator can do to a broker: delete what is in use, or configure it so that it loses things.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use longshore::{Context, Health, Message, Queue, Router, Worker, WorkerHandle};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{Act, Evidence, Fault};
use crate::{Failure, plan::On, scene::Scene};

/// A queue of its own: what is in it when it is deleted is lost, and nothing else may be.
const DOOMED: &str = "doomed";
/// How soon a worker whose queue was deleted works again, or says that it does not.
const TOLD: Duration = Duration::from_secs(5);
/// How soon it works again.
const BACK: Duration = Duration::from_secs(15);
/// How soon a worker that was stopped has come back and said what it thinks of its broker.
const SAID: Duration = Duration::from_secs(20);

pub(super) fn all() -> Vec<Fault> {
    let evidence = Evidence {
        strikes: 2,
        ..Evidence::default()
    };
    let delete = Fault {
        evidence,
        ..Fault::new(
            "delete-queue",
            "23",
            "a queue is deleted under a worker of its own",
            Act::Once(|scene| delete_queue(scene).boxed()),
        )
    };
    let evicting = Fault {
        on: &[On::Redis],
        evidence,
        ..Fault::new(
            "redis-eviction",
            "20",
            "the server would evict what it has, and whoever connects says so",
            Act::Once(|scene| evicting(scene).boxed()),
        )
    };
    let forgetful = Fault {
        on: &[On::Redis],
        evidence,
        ..Fault::new(
            "redis-without-aof",
            "8b",
            "the server would forget what it has, and whoever connects says so",
            Act::Once(|scene| forgetful(scene).boxed()),
        )
    };
    vec![delete, evicting, forgetful]
}

#[derive(Debug, Serialize, Deserialize)]
struct Probe {
    number: u64,
}

impl Message for Probe {
    const TYPE: &'static str = "probe";
}

async fn delete_queue(scene: &mut Scene) -> Result<(), Failure> {
    let queue = Queue::new(DOOMED);
    scene.client.declare(&queue).await?;
    let latest = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&latest);
    let router = Router::new().handle_fn(move |probe: Probe, _: Context| {
        seen.fetch_max(probe.number, Ordering::SeqCst);
        async { Ok::<_, longshore::HandlerError>(()) }
    });
    let worker = Worker::new(&scene.client, &queue, router).start().await?;
    handled(scene, &queue, &latest, BACK).await?;
    delete(scene).await?;
    scene.strikes += 1;
    if !told(scene, &queue, &latest, &worker).await {
        let text = format!("its queue was deleted {TOLD:?} ago, nothing arrives, and it is ready");
        scene.broken.push(text);
    }
    if let Err(why) = handled(scene, &queue, &latest, BACK).await {
        scene.broken.push(format!("its queue was deleted: {why}"));
    }
    worker.stop().await;
    Ok(())
}

async fn delete(scene: &mut Scene) -> Result<(), Failure> {
    let stream = format!("ls:{{{DOOMED}}}:stream");
    match scene.plan.on {
        On::Amqp => {
            let delete = ["delete_queue", DOOMED];
            scene.broker.rabbitmqctl(&delete).await?;
        }
        _ if scene.random.happens(500) => {
            let delete = ["DEL", stream.as_str()];
            scene.broker.redis_command(&delete).await?;
        }
        _ => {
            let destroy = ["XGROUP", "DESTROY", stream.as_str(), "longshore"];
            scene.broker.redis_command(&destroy).await?;
        }
    }
    Ok(())
}

/// Whether something arrives again, or the worker says that nothing does.
async fn told(
    scene: &Scene,
    queue: &Queue,
    latest: &Arc<AtomicU64>,
    worker: &WorkerHandle,
) -> bool {
    let unready = async {
        while worker.health() == Health::Ready {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        arrived = handled(scene, queue, latest, TOLD) => arrived.is_ok(),
        () = unready => true,
    }
}

/// Publishes until something of that is handled.
async fn handled(
    scene: &Scene,
    queue: &Queue,
    latest: &Arc<AtomicU64>,
    within: Duration,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let before = latest.load(Ordering::SeqCst);
    let mut number = before;
    let mut last = String::from("every publish was confirmed");
    while begun.elapsed() < within {
        number += 1;
        let probe = Probe { number };
        if let Err(error) = scene.client.publish(queue, &probe).await {
            last = error.to_string();
        }
        if latest.load(Ordering::SeqCst) > before {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(format!("nothing was handled within {within:?}; {last}").into())
}

async fn evicting(scene: &mut Scene) -> Result<(), Failure> {
    scene.configure("maxmemory-policy", "allkeys-lru").await?;
    let said = says(scene, "set maxmemory-policy noeviction").await;
    scene.configure("maxmemory-policy", "noeviction").await?;
    said
}

async fn forgetful(scene: &mut Scene) -> Result<(), Failure> {
    scene.configure("appendonly", "no").await?;
    let said = says(scene, "set appendonly yes").await;
    scene.configure("appendonly", "yes").await?;
    // Until the file is written anew it would still forget.
    loop {
        let information = ["INFO", "persistence"];
        let information = scene.broker.redis_command(&information).await?;
        let text = information.text().unwrap_or_default();
        let done = ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"];
        if done.iter().all(|line| text.contains(line)) {
            return said;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// A worker that starts says this.
async fn says(scene: &mut Scene, what: &str) -> Result<(), Failure> {
    let index = scene.any_worker();
    let worker = &scene.crew.workers[index];
    let said = || fs::read_to_string(worker.log()).map(|log| log.matches(what).count());
    let before = said()?;
    worker.ask_to_stop()?;
    let begun = Instant::now();
    while said()? == before {
        if begun.elapsed() > SAID {
            let text = format!("no worker that was started said: {what}");
            scene.broken.push(text);
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    scene.strikes += 1;
    Ok(())
}
