//! What a fault may lay hands on.

use std::{path::Path, sync::Arc, time::Duration};

use longshore::{Client, Draft, Queue};
use longshore_testing::{
    brokers::{Broker, BrokerKind},
    history::Recorder,
    proxy::Proxy,
};
use tokio::time::Instant;

use crate::{
    Failure,
    crew::Crew,
    plan::{Kind, On, Plan},
    random::Random,
};

/// RabbitMQ counts the messages of a quorum queue at its ticks, every 5 s by default: by then what is
/// said to be empty may not be.
const TICK: &str = "[{rabbit, [{quorum_tick_interval, 500}]}].";
/// A queue nobody looks at.
pub(crate) const WARM_UP: &str = "warm-up";

/// How long a machine with much else to do may take to make so many queues.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a fault may lay hands on: everything but the ledger and the history.
#[derive(Debug)]
pub(crate) struct Scene {
    /// What all processes of the run agree on.
    pub(crate) plan: Plan,
    /// What happens.
    pub(crate) history: Arc<Recorder>,
    /// What the faults draw from.
    pub(crate) random: Random,
    /// The broker, private to the run.
    pub(crate) broker: Broker,
    /// Between it and all clients but the conductor's.
    pub(crate) proxy: Proxy,
    /// Where the broker keeps no marks and states itself: the store.
    pub(crate) store: Option<Store>,
    /// The processes.
    pub(crate) crew: Crew,
    /// The conductor's own connection, past the proxy. None of its calls is part of the load.
    pub(crate) client: Client,
    /// How often a fault was seen to do something.
    pub(crate) strikes: u64,
    /// What a fault saw that must not be, and no history shows.
    pub(crate) broken: Vec<String>,
}

/// A store of its own.
#[derive(Debug)]
pub(crate) struct Store {
    /// The Redis it lives in.
    pub(crate) broker: Broker,
    /// Between it and all clients.
    pub(crate) proxy: Proxy,
}

impl Scene {
    /// Starts the brokers, and the ledger; nobody publishes or handles yet.
    ///
    /// # Errors
    /// What keeps any of that from starting.
    pub(crate) async fn open(
        mut plan: Plan,
        folder: &Path,
        history: Arc<Recorder>,
    ) -> Result<Self, Failure> {
        let broker = match plan.on {
            On::Amqp => Broker::rabbitmq().advanced_config(TICK).start().await?,
            On::Redis => Broker::start(BrokerKind::Redis).await?,
            On::Memory => return Err("the memory transport has no processes".into()),
        };
        let proxy = Proxy::start(broker.addr(0)).await?;
        plan.url = proxy.url(&broker.url());
        let store = match plan.on {
            On::Amqp => {
                let broker = Broker::start(BrokerKind::Redis).await?;
                let proxy = Proxy::start(broker.addr(0)).await?;
                plan.store = Some(proxy.url(&broker.url()));
                Some(Store { broker, proxy })
            }
            _ => None,
        };
        plan.write(folder)?;
        let client = plan.connect("chaos-conductor", &broker.url(), None).await?;
        let begun = Instant::now();
        while let Err(error) = prepare(&client, &plan).await {
            if begun.elapsed() > PATIENCE {
                return Err(error.into());
            }
        }
        let may_abort = plan.fates.abort > 0;
        let crew = Crew::new(folder, &history, plan.workers, plan.publishers, may_abort);
        crew.ledger.want();
        Ok(Self {
            random: Random::of(plan.seed, u64::MAX),
            plan,
            history,
            broker,
            proxy,
            store,
            crew,
            client,
            strikes: 0,
            broken: Vec::new(),
        })
    }

    /// Waits for a time drawn from so many milliseconds.
    pub(crate) async fn pause(&mut self, millis: std::ops::RangeInclusive<u64>) {
        let pause: Duration = self.random.millis(millis);
        tokio::time::sleep(pause).await;
    }

    /// One of the workers, by its index.
    pub(crate) fn any_worker(&mut self) -> usize {
        let workers = self.crew.workers.len() as u64;
        usize::try_from(self.random.below(workers)).unwrap_or_default()
    }

    /// Sets what a Redis can be told while it runs.
    ///
    /// # Errors
    /// It refuses.
    pub(crate) async fn configure(&self, name: &str, value: &str) -> Result<(), Failure> {
        let set = ["CONFIG", "SET", name, value];
        self.broker.redis_command(&set).await?;
        Ok(())
    }

    /// Everything works again: whatever a fault has left behind is undone.
    ///
    /// # Errors
    /// What cannot be undone.
    pub(crate) async fn heal(&mut self) -> Result<(), Failure> {
        self.proxy.pass().await?;
        self.broker.thaw().await?;
        self.broker.start_again().await?;
        if let Some(store) = &mut self.store {
            store.proxy.pass().await?;
            store.broker.thaw().await?;
            store.broker.start_again().await?;
        }
        self.crew.disarm()
    }
}

async fn prepare(client: &Client, plan: &Plan) -> longshore::Result<()> {
    for kind in Kind::ALL {
        client.declare(&kind.queue(plan)).await?;
    }
    // The first delay of all makes the queues of the ladder, and is late by that.
    let warm = Draft::raw("warm-up", "text/plain", "").delay(Duration::from_millis(1));
    let answers = client.publish_all(&Queue::new(WARM_UP), [warm]).await;
    answers.into_iter().try_for_each(|answer| answer.map(drop))
}
