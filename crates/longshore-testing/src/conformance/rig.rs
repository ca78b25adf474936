//! The suites of a transport to a broker that this crate can start and break.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use longshore_core::{ConnectOptions, Error, ErrorKind};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Mutex, OnceCell},
};

use super::{Connecting, Faults, Suite};
use crate::{
    brokers::{self, Broker, BrokerKind},
    proxy::{Flow, Proxy},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// All cases for a transport to RabbitMQ or Redis, as two suites to run together.
///
/// The first runs against the shared broker at `url`, through a [`Proxy`] that cuts and freezes
/// connections. The second runs those that kill the broker, against a private one that is started
/// when the first of them begins.
///
/// # Panics
/// If no thread can be started.
pub fn on_broker(
    kind: BrokerKind,
    url: Result<String, brokers::Error>,
    connect: impl Fn(String, ConnectOptions) -> Connecting + Clone + Send + Sync + 'static,
) -> Vec<Suite> {
    let (name, port) = match kind {
        BrokerKind::RabbitMq => ("rabbitmq", 5672),
        BrokerKind::Redis => ("redis", 6379),
    };
    let rig = Arc::new(Rig::new(kind, url.map_err(|error| error.to_string()), port));
    let shared = {
        let (rig, connect) = (rig.clone(), connect.clone());
        Suite::new(name, move |options| {
            let (rig, connect) = (rig.clone(), connect.clone());
            Box::pin(async move {
                let url = rig
                    .clone()
                    .on(Rig::through_proxy)
                    .await
                    .map_err(unavailable)?;
                connect(url, options).await
            })
        })
    };
    let private = {
        let rig = rig.clone();
        Suite::new(format!("{name}, its own"), move |options| {
            let (rig, connect) = (rig.clone(), connect.clone());
            Box::pin(async move {
                let url = rig
                    .clone()
                    .on(Rig::private_url)
                    .await
                    .map_err(unavailable)?;
                connect(url, options).await
            })
        })
    };
    let does = |act: fn(Arc<Rig>) -> Doing| {
        let rig = rig.clone();
        move || -> super::Act { Box::pin(rig.clone().on(act)) }
    };
    let breaking = Faults::new()
        .cut(does(Rig::cut))
        .freeze(does(Rig::freeze), does(Rig::thaw));
    let killing = Faults::new().outage(does(Rig::down), does(Rig::up));
    let mut suites = vec![
        shared.faults(breaking),
        private.faults(killing).only_faults(),
    ];
    if kind == BrokerKind::RabbitMq {
        // A quorum queue younger than a few seconds may come back from a kill with an empty log and
        // no leader (rabbitmq-server #10070, #15725; seen on 3.10.8 at the second kill in a row).
        let adapt = |suite: Suite| {
            suite
                .may_duplicate()
                .queues_settle_in(Duration::from_secs(5))
        };
        suites = suites.into_iter().map(adapt).collect();
    }
    suites
}

type Doing<T = ()> = std::pin::Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

fn unavailable(failure: Failure) -> Error {
    Error::new(ErrorKind::Unavailable, failure.to_string())
}

/// Proxy and broker on a runtime of their own, because each case's ends with it.
struct Rig {
    runtime: Runtime,
    kind: BrokerKind,
    url: Result<String, String>,
    port: u16,
    proxy: OnceCell<Proxy>,
    broker: OnceCell<Mutex<Private>>,
}

struct Private {
    broker: Broker,
    up: bool,
}

impl Rig {
    fn new(kind: BrokerKind, url: Result<String, String>, port: u16) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("conformance-rig")
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => panic!("no thread for proxy and broker: {error}"),
        };
        Self {
            runtime,
            kind,
            url,
            port,
            proxy: OnceCell::new(),
            broker: OnceCell::new(),
        }
    }

    /// Does something on the rig's own runtime.
    async fn on<T: Send + 'static>(
        self: Arc<Self>,
        act: fn(Arc<Self>) -> Doing<T>,
    ) -> Result<T, Failure> {
        let doing = act(self.clone());
        self.runtime.spawn(doing).await?
    }

    async fn proxy(&self) -> Result<&Proxy, Failure> {
        let start = || async {
            let upstream = authority(&self.url.clone()?, self.port);
            Ok::<_, Failure>(Proxy::start(upstream).await?)
        };
        self.proxy.get_or_try_init(start).await
    }

    async fn broker(&self) -> Result<&Mutex<Private>, Failure> {
        let start = || async {
            let broker = Broker::start(self.kind).await?;
            Ok::<_, Failure>(Mutex::new(Private { broker, up: true }))
        };
        self.broker.get_or_try_init(start).await
    }

    fn through_proxy(self: Arc<Self>) -> Doing<String> {
        Box::pin(async move { Ok(self.proxy().await?.url(&self.url.clone()?)) })
    }

    fn private_url(self: Arc<Self>) -> Doing<String> {
        Box::pin(async move { Ok(self.broker().await?.lock().await.broker.url()) })
    }

    fn cut(self: Arc<Self>) -> Doing {
        Box::pin(async move {
            self.proxy().await?.reset_all().await;
            Ok(())
        })
    }

    fn freeze(self: Arc<Self>) -> Doing {
        Box::pin(async move {
            self.proxy().await?.set_both(Flow::Freeze);
            Ok(())
        })
    }

    fn thaw(self: Arc<Self>) -> Doing {
        Box::pin(async move {
            self.proxy().await?.pass().await?;
            Ok(())
        })
    }

    fn down(self: Arc<Self>) -> Doing {
        Box::pin(async move {
            let mut private = self.broker().await?.lock().await;
            private.broker.kill().await?;
            private.up = false;
            Ok(())
        })
    }

    fn up(self: Arc<Self>) -> Doing {
        Box::pin(async move {
            let mut private = self.broker().await?.lock().await;
            if !private.up {
                private.broker.start_again().await?;
                private.up = true;
            }
            Ok(())
        })
    }
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rig")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Host and port of a URL with one host.
fn authority(url: &str, port: u16) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let after_brackets = host.rsplit(']').next().unwrap_or(host);
    if after_brackets.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::authority;

    #[test]
    fn host_and_port_of_a_url_without_its_credentials() {
        for (url, wanted) in [
            ("redis://127.0.0.1:7000/2", "127.0.0.1:7000"),
            ("amqp://guest:gu@est@localhost", "localhost:1"),
            ("amqp://[::1]/%2f", "[::1]:1"),
            ("amqp://u:p@[::1]:5673?x=/", "[::1]:5673"),
        ] {
            assert_eq!(authority(url, 1), wanted);
        }
    }
}
