//! Redis Streams as one would use redis-rs by hand.

use std::{collections::VecDeque, ops::Range, pin::Pin, sync::Arc};

use anyhow::{Context, bail};
use async_trait::async_trait;
use futures_util::poll;
use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo, Pipeline, RedisResult, Value,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};

use crate::{
    contestant::{Contestant, Way, shared_out},
    job::Job,
    tally::Tally,
};

const STREAM: &str = "bench-raw";
const GROUP: &str = "bench";
/// Entries of one read, and messages of one pipelined publish.
const BATCH: u32 = 256;
/// Pipelined publishes in flight: one is encoded while the other is away.
const FLIGHTS: usize = 2;

/// Consumes with the next read in flight while a batch is handled and acknowledged on another connection,
/// unless it goes one by one.
pub(crate) struct RawRedis {
    name: &'static str,
    way: Way,
    client: Client,
    connection: MultiplexedConnection,
}

impl RawRedis {
    /// Connects, without Nagle's algorithm, which redis-rs leaves on.
    ///
    /// # Errors
    /// What redis-rs says.
    pub(crate) async fn connect(url: &str, way: Way) -> anyhow::Result<Self> {
        let info = url.into_connection_info()?;
        let client = Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))?;
        Ok(Self {
            name: match way {
                Way::OneByOne => "raw redis-rs, one by one",
                Way::Best => "raw redis-rs, best",
                Way::Tasks => "raw redis-rs, 512 tasks publish",
            },
            way,
            connection: connect(&client).await?,
            client,
        })
    }

    async fn consume_one_by_one(&self, tally: &Tally) -> anyhow::Result<()> {
        let reader = connect(&self.client).await?;
        let mut writer = self.connection.clone();
        while !tally.is_complete() {
            let ids = handle(read(reader.clone(), 1).await?, tally)?;
            acknowledgement(&ids).exec_async(&mut writer).await?;
        }
        Ok(())
    }

    async fn consume_best(&self, tally: &Tally) -> anyhow::Result<()> {
        // A connection of its own, closed afterwards: a blocking read that nobody waits for would go on
        // and take messages.
        let reader = connect(&self.client).await?;
        let mut reading = begin(read(reader.clone(), BATCH)).await;
        let mut acknowledged: Option<InFlight<()>> = None;
        while !tally.is_complete() {
            let reply = reading.await?;
            reading = begin(read(reader.clone(), BATCH)).await;
            let ids = handle(reply, tally)?;
            let mut writer = self.connection.clone();
            let next = begin(async move { acknowledgement(&ids).exec_async(&mut writer).await });
            if let Some(before) = acknowledged.replace(next.await) {
                before.await?;
            }
        }
        if let Some(before) = acknowledged {
            before.await?;
        }
        Ok(())
    }
}

async fn publish_pipelined(
    writer: MultiplexedConnection,
    run: u32,
    count: u32,
) -> anyhow::Result<()> {
    let mut flights = VecDeque::new();
    for first in (0..count).step_by(BATCH as usize) {
        let mut pipeline = redis::pipe();
        for number in first..count.min(first + BATCH) {
            let body = Job::new(run, number).encode()?;
            pipeline.cmd("XADD").arg(STREAM).arg("*");
            pipeline.arg("type").arg("bench.job").arg("body").arg(body);
            pipeline.ignore();
        }
        let mut writer = writer.clone();
        flights.push_back(begin(async move { pipeline.exec_async(&mut writer).await }).await);
        if flights.len() >= FLIGHTS
            && let Some(before) = flights.pop_front()
        {
            before.await?;
        }
    }
    for flight in flights {
        flight.await?;
    }
    Ok(())
}

/// One message at a time.
async fn publish_share(
    mut writer: MultiplexedConnection,
    run: u32,
    numbers: Range<u32>,
) -> anyhow::Result<()> {
    for number in numbers {
        publish_one(&mut writer, &Job::new(run, number)).await?;
    }
    Ok(())
}

async fn publish_one(writer: &mut MultiplexedConnection, job: &Job) -> anyhow::Result<()> {
    let mut command = redis::cmd("XADD");
    command.arg(STREAM).arg("*").arg("type").arg("bench.job");
    command.arg("body").arg(job.encode()?);
    Ok(command.exec_async(writer).await?)
}

type InFlight<T> = Pin<Box<dyn Future<Output = RedisResult<T>> + Send>>;

/// Puts a request on its way.
async fn begin<T: Send + 'static>(
    request: impl Future<Output = RedisResult<T>> + Send + 'static,
) -> InFlight<T> {
    let mut request: InFlight<T> = Box::pin(request);
    match poll!(&mut request) {
        std::task::Poll::Ready(answer) => Box::pin(async move { answer }),
        std::task::Poll::Pending => request,
    }
}

async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    // Reads block on purpose.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

async fn read(mut reader: MultiplexedConnection, count: u32) -> RedisResult<Value> {
    let mut command = redis::cmd("XREADGROUP");
    command
        .arg("GROUP")
        .arg(GROUP)
        .arg("me")
        .arg("COUNT")
        .arg(count);
    command
        .arg("BLOCK")
        .arg(1000)
        .arg("STREAMS")
        .arg(STREAM)
        .arg(">");
    command.query_async(&mut reader).await
}

fn acknowledgement(ids: &[Vec<u8>]) -> Pipeline {
    let mut pipeline = redis::pipe();
    if !ids.is_empty() {
        pipeline.cmd("XDEL").arg(STREAM).arg(ids).ignore();
        pipeline
            .cmd("XACK")
            .arg(STREAM)
            .arg(GROUP)
            .arg(ids)
            .ignore();
    }
    pipeline
}

/// Handles the entries of a reply and answers their ids. The typed replies of redis-rs copy everything, so
/// this takes the values apart itself.
fn handle(reply: Value, tally: &Tally) -> anyhow::Result<Vec<Vec<u8>>> {
    let entries = match reply {
        Value::Nil => return Ok(Vec::new()),
        Value::Array(streams) => streams.into_iter().next().context("a stream")?,
        other => bail!("an unexpected reply: {other:?}"),
    };
    let Some(Value::Array(entries)) = array(entries)?.pop() else {
        bail!("a stream without entries");
    };
    let mut ids = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut entry = array(entry)?;
        let fields = array(entry.pop().context("fields")?)?;
        let Some(Value::BulkString(id)) = entry.pop() else {
            bail!("an entry without an id");
        };
        // `type`, its value, `body`, its value: as written by `publish`.
        let Some(Value::BulkString(body)) = fields.get(3) else {
            bail!("an entry without a body");
        };
        let job: Job = serde_json::from_slice(body)?;
        tally.count(&job);
        ids.push(id);
    }
    Ok(ids)
}

fn array(value: Value) -> anyhow::Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        other => bail!("not an array: {other:?}"),
    }
}

#[async_trait]
impl Contestant for RawRedis {
    fn name(&self) -> &str {
        self.name
    }

    fn is_raw(&self) -> bool {
        true
    }

    fn is_slow(&self) -> bool {
        self.way == Way::OneByOne
    }

    async fn prepare(&self) -> anyhow::Result<()> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("DEL").arg(STREAM).ignore();
        pipeline
            .cmd("XGROUP")
            .arg("CREATE")
            .arg(STREAM)
            .arg(GROUP)
            .arg("0")
            .arg("MKSTREAM")
            .ignore();
        pipeline.exec_async(&mut self.connection.clone()).await?;
        Ok(())
    }

    async fn publish(&self, run: u32, count: u32) -> anyhow::Result<()> {
        let connection = || self.connection.clone();
        match self.way {
            Way::OneByOne => publish_share(connection(), run, 0..count).await,
            Way::Best => publish_pipelined(connection(), run, count).await,
            Way::Tasks => {
                shared_out(count, |numbers| publish_share(connection(), run, numbers)).await
            }
        }
    }

    async fn publish_one(&self, job: Job) -> anyhow::Result<()> {
        publish_one(&mut self.connection.clone(), &job).await
    }

    async fn consume(&self, tally: Arc<Tally>) -> anyhow::Result<()> {
        match self.way {
            Way::OneByOne => self.consume_one_by_one(&tally).await,
            Way::Best | Way::Tasks => self.consume_best(&tally).await,
        }
    }

    async fn left(&self) -> anyhow::Result<u64> {
        let mut length = redis::cmd("XLEN");
        Ok(length
            .arg(STREAM)
            .query_async(&mut self.connection.clone())
            .await?)
    }
}
