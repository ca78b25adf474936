//! RabbitMQ behind the contract.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use longshore_core::{
    Admin, Capabilities, Clock, ConnectOptions, Declare, Error, ErrorKind, Limits, Membership,
    Outgoing, Ownership, Published, ReplyAddress, Result, Source, Subscribed, Subscription,
    Topology, Transport, chaos::CrashPoint,
};
use tokio::time::timeout;

use crate::{
    address::{Address, Query},
    admin::AmqpAdmin,
    delay,
    direct::DirectReplies,
    error::closed,
    estate::Estate,
    gate::Gates,
    guard::Server,
    inbox::Inbox,
    intake::Intake,
    link::Link,
    lookout::Lookout,
    membership::AmqpMembership,
    names,
    partition::{PartitionSettler, PartitionSource},
    parts::Parts,
    plan::Plan,
    prepared::{Need, Prepared},
    publisher::Publisher,
    reply_rule::{ReplyRule, is_direct_reply},
    route::route,
    session::Dialer,
    settler::AmqpSettler,
    source::{AmqpSource, check_prefetch},
    tenure::Register,
    tls::Tls,
    topology::{self, CONSUMER_TIMEOUT, OLD_CONSUMER_TIMEOUT},
};

/// RabbitMQ 3.10 or later, over quorum queues. Made by [`connect`].
pub(crate) struct AmqpTransport {
    capabilities: Capabilities,
    replies: ReplyRule,
    publishing: Arc<Link>,
    consuming: Link,
    /// What users publish; copies have a channel of their own, so no flood delays a dead letter.
    publisher: Publisher,
    copies: Arc<Publisher>,
    direct: DirectReplies,
    prepared: Arc<Prepared>,
    parts: Arc<Parts>,
    /// Unlike that of any other client of this broker.
    process: longshore_core::Text,
    gates: Gates,
    estate: Arc<Estate>,
    register: Arc<Register>,
    admin: AmqpAdmin,
    lookout: Arc<Lookout>,
    clock: Arc<dyn Clock>,
    confirm: Duration,
    closed: AtomicBool,
}

/// Connects to RabbitMQ and waits until it answered, within the connection time-out.
///
/// `address` is `amqp://` or `amqps://`, with `user:password@`, one or more `host:port` separated by
/// commas, and a vhost as the path; all percent-encoded. Its query may hold `heartbeat` (seconds) and
/// `allow_plaintext=true`, without which credentials never leave the machine unencrypted; where it
/// says nothing the options do.
///
/// Two connections are kept up from then on, one to publish and one to consume, because a broker
/// short of memory stops reading from whoever publishes; the operator's side opens others as it needs
/// them. Must be called on a tokio runtime.
///
/// # Errors
/// [`ErrorKind::Invalid`] for the address, [`ErrorKind::Denied`] for credentials, vhost or
/// certificate, [`ErrorKind::Unavailable`] where nobody answers.
pub async fn connect(address: &str, options: ConnectOptions) -> Result<Arc<dyn Transport>> {
    let defaults = Query {
        heartbeat: options.heartbeat,
        allow_plaintext: options.allow_plaintext,
    };
    let address = Address::parse(address, defaults)?;
    let authorities = options.certificate_authorities.as_deref();
    let tls = match address.tls {
        true => Some(Tls::new(authorities)?),
        false => None,
    };
    let dialer = Dialer {
        name: longshore_core::printable(&options.name, 128),
        address,
        tls,
        patience: options.connect_timeout,
        ids: options.ids.clone(),
    };
    let publishing = Arc::new(Link::start(dialer.clone(), "publish", Limits::default()));
    let consuming = Link::start(dialer.clone(), "consume", Limits::default());
    let (publisher, consumer) = tokio::join!(publishing.session(), consuming.session());
    publisher?;
    let server = consumer?.server();
    let confirm = options.confirm_timeout;
    let copies = Arc::new(Publisher::start(&publishing, confirm, CrashPoint::CopySent));
    let replies = ReplyRule {
        prefix: options.reply_prefix.map(Into::into),
    };
    let parts = Arc::new(Parts::default());
    let prepared = Arc::new(Prepared::new(publishing.clone()));
    let lookout = Arc::new(Lookout::new(dialer.clone()));
    let estate = Estate::new(
        &consuming,
        publishing.clone(),
        copies.clone(),
        prepared.clone(),
        options.connect_timeout,
        options.clock.clone(),
        lookout.clone(),
    );
    Ok(Arc::new(AmqpTransport {
        capabilities: capabilities(&server, options.consumer_timeout),
        publisher: Publisher::start(&publishing, confirm, CrashPoint::PublishSent),
        direct: DirectReplies::new(dialer.clone(), confirm),
        prepared,
        estate: Arc::new(estate),
        register: Arc::default(),
        parts: parts.clone(),
        process: options.ids.text(),
        gates: Gates::default(),
        admin: AmqpAdmin {
            parts,
            dialer,
            publishing: publishing.clone(),
            copies: copies.clone(),
            replies: replies.clone(),
            clock: options.clock.clone(),
            lookout: lookout.clone(),
        },
        lookout,
        copies,
        publishing,
        consuming,
        replies,
        clock: options.clock,
        confirm,
        closed: AtomicBool::new(false),
    }))
}

/// What a broker of this version keeps.
fn capabilities(server: &Server, stated: Option<Duration>) -> Capabilities {
    let asks_for_itself = server.rabbitmq().is_some_and(|version| version >= (3, 12));
    let longest_lock = match stated {
        Some(stated) => stated,
        None if asks_for_itself => CONSUMER_TIMEOUT,
        None => OLD_CONSUMER_TIMEOUT,
    };
    let mut capabilities = Capabilities::default();
    capabilities.lanes = true;
    capabilities.partitions = true;
    capabilities.topics = true;
    capabilities.atomic_topics = true;
    capabilities.longest_delay = Some(delay::LONGEST);
    capabilities.longest_lock = Some(longest_lock);
    capabilities.replies = true;
    capabilities.durable = true;
    capabilities
}

impl AmqpTransport {
    fn check_open(&self) -> Result<()> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(closed()),
            false => Ok(()),
        }
    }

    /// Makes sure of all these, each once; answers what could not be.
    async fn prepare(&self, needs: BTreeSet<Need>) -> BTreeMap<Need, (ErrorKind, String)> {
        let mut missing = BTreeMap::new();
        let _ = timeout(self.confirm, self.prepared.look_ahead(&needs)).await;
        for need in needs {
            let asked = timeout(self.confirm, self.prepared.has(&need)).await;
            let asked = asked.unwrap_or_else(|_| {
                let why = "the broker did not answer in time; nothing was sent";
                Err(Error::new(ErrorKind::Unavailable, why))
            });
            if let Err(error) = asked {
                let down = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Closed);
                missing.insert(need, (error.kind(), error.to_string()));
                if down {
                    break;
                }
            }
        }
        missing
    }
}

impl AmqpTransport {
    fn settler(&self, plan: Arc<Plan>, intake: Arc<Intake>) -> AmqpSettler {
        AmqpSettler::new(
            plan,
            intake,
            self.copies.clone(),
            self.prepared.clone(),
            self.publishing.clone(),
        )
    }

    /// A part of a queue with sessions is consumed by its owner alone.
    async fn subscribe_owned(
        &self,
        plan: Arc<Plan>,
        ownership: Option<Ownership>,
    ) -> Result<Subscribed> {
        let tenure = self.register.right_to(&plan, ownership)?;
        let (source, intake) = PartitionSource::start(&self.estate, &plan, &tenure).await?;
        let settler = PartitionSettler {
            tenure,
            intake: intake.clone(),
            lane: self.settler(plan, intake),
        };
        Ok((Box::new(source), Arc::new(settler)))
    }
}

#[async_trait]
impl Transport for AmqpTransport {
    fn system(&self) -> &'static str {
        "rabbitmq"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<()> {
        self.check_open()?;
        topology::check(topology)?;
        self.prepared.heed(declare);
        self.parts.see(topology);
        if topology.partitions > 0 {
            return self.estate.declare_again(topology, declare).await;
        }
        let session = self.publishing.session().await?;
        topology::declare(&session, topology, declare).await
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Published>> {
        if let Err(error) = self.check_open() {
            return batch.iter().map(|_| Err(error.again())).collect();
        }
        let mut answers: Vec<Option<Result<Published>>> = Vec::with_capacity(batch.len());
        let (mut addressed, mut all) = (Vec::with_capacity(batch.len()), BTreeSet::new());
        for (index, outgoing) in batch.into_iter().enumerate() {
            match route(outgoing, &self.replies, &self.parts) {
                Ok((letter, needs)) => {
                    all.extend(needs.iter().cloned());
                    addressed.push((index, letter, needs));
                    answers.push(None);
                }
                Err(error) => answers.push(Some(Err(error))),
            }
        }
        let missing = self.prepare(all).await;
        let unreachable = |kind| matches!(kind, ErrorKind::Unavailable | ErrorKind::Closed);
        let down = missing.values().find(|(kind, _)| unreachable(*kind));
        let (mut letters, mut indices) = (Vec::with_capacity(addressed.len()), Vec::new());
        let (mut direct, mut direct_indices) = (Vec::new(), Vec::new());
        for (index, letter, needs) in addressed {
            let why = needs.iter().find_map(|need| missing.get(need)).or(down);
            if let (Some((kind, text)), Some(place)) = (why, answers.get_mut(index)) {
                *place = Some(Err(Error::new(*kind, text.clone())));
                continue;
            }
            if is_direct_reply(letter.routing_key.as_str()) {
                direct.push(letter);
                direct_indices.push(index);
            } else {
                letters.push(letter);
                indices.push(index);
            }
        }
        let (mut published, replied) =
            tokio::join!(self.publisher.publish(letters), self.direct.publish(direct));
        published.extend(replied);
        indices.extend(direct_indices);
        for (index, answer) in indices.into_iter().zip(published) {
            if let Some(place) = answers.get_mut(index) {
                *place = Some(answer.map(|()| Published::Accepted));
            }
        }
        let unanswered = || Err(closed());
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(unanswered))
            .collect()
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed> {
        self.check_open()?;
        topology::check(&subscription.topology)?;
        check_prefetch(subscription.prefetch)?;
        self.prepared.heed(subscription.declare);
        self.parts.see(&subscription.topology);
        let lane = names::part(&subscription.topology, subscription.part)?;
        let quarantine = names::quarantine(&subscription.topology.queue);
        let plan = Arc::new(Plan {
            cell: names::cell(&quarantine, &self.process),
            quarantine,
            gate: self.gates.of(&subscription.topology.queue),
            dead: names::dead(&subscription.topology.queue),
            lane,
            topology: subscription.topology,
            declare: subscription.declare,
            part: subscription.part,
            suspect_returns: subscription.suspect_returns,
            limits: subscription.limits,
            replies: self.replies.clone(),
            clock: self.clock.clone(),
        });
        if plan.topology.partitions > 0 {
            return self.subscribe_owned(plan, subscription.ownership).await;
        }
        let session = self.consuming.session().await?;
        topology::declare(&session, &plan.topology, plan.declare).await?;
        let (source, intake) = AmqpSource::start(
            &plan,
            &self.consuming.watch(),
            &self.copies,
            subscription.prefetch,
            session.epoch,
        )
        .await?;
        let settler = self.settler(plan, intake);
        Ok((Box::new(source), Arc::new(settler)))
    }

    async fn inbox(&self) -> Result<(ReplyAddress, Box<dyn Source>)> {
        self.check_open()?;
        let session = self.consuming.session().await?;
        let (replies, clock) = (self.replies.clone(), self.clock.clone());
        let opened = Inbox::open(session, self.consuming.watch(), replies, clock).await?;
        let (address, inbox) = opened;
        Ok((address, Box::new(inbox)))
    }

    async fn join(
        &self,
        queue: &Arc<Topology>,
        declare: Declare,
        _: Duration,
    ) -> Result<Box<dyn Membership>> {
        self.check_open()?;
        topology::check(queue)?;
        self.prepared.heed(declare);
        self.parts.see(queue);
        let membership = AmqpMembership::join(&self.estate, &self.register, queue, declare).await?;
        Ok(Box::new(membership))
    }

    fn admin(&self) -> &dyn Admin {
        &self.admin
    }

    async fn close(&self, within: Duration) {
        self.closed.store(true, Ordering::Release);
        tokio::join!(
            self.consuming.close(within),
            self.publishing.close(within),
            self.direct.close(within),
            self.lookout.close(within),
        );
    }
}

impl fmt::Debug for AmqpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpTransport")
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}
