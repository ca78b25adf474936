//! What a service consumes and publishes to.

use std::{sync::Arc, time::Duration};

use longshore_core::{
    Destination, Envelope, Error, ErrorKind, Name, Outgoing, Part, Result, Text, Topology,
    partition_of, printable,
};

/// The lane of what names none.
pub(crate) const NORMAL: &str = "normal";
/// Lanes of one queue, the normal one included.
const MOST_LANES: usize = 16;
const MOST_PARTITIONS: u16 = 256;
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
const LONGEST_WINDOW: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a queue is; publisher and worker share it.
///
/// ```
/// use longshore::{Queue, Topic};
///
/// let placed = Topic::new("order.placed");
/// let orders = Queue::new("orders").subscribe_to(&placed);
/// assert_eq!(orders.name(), "orders");
/// ```
#[derive(Debug, Clone)]
pub struct Queue {
    topology: Arc<Topology>,
    /// How many of the lanes come before the normal one.
    before_normal: usize,
}

impl Queue {
    /// The queue of this name.
    ///
    /// # Panics
    /// When the name is not 1 to 128 characters of `[A-Za-z0-9._-]`, or has a beginning or ending
    /// that is reserved ([`Name`]). For a name that comes from outside use [`Queue::named`].
    #[track_caller]
    pub fn new(name: &str) -> Self {
        match Name::new(name) {
            Ok(name) => Self::named(name),
            Err(error) => panic!("{error}; choose another name for the queue"),
        }
    }

    /// The queue of a name that was checked before.
    pub fn named(name: Name) -> Self {
        Self {
            topology: Arc::new(Topology::new(name)),
            before_normal: 0,
        }
    }

    /// Splits the queue into priority lanes, the most urgent first. `normal` is the lane of every
    /// message that names none; left out, it is the last. A message is put into a lane by
    /// [`Draft::priority`](crate::Draft::priority).
    ///
    /// ```
    /// # use longshore::Queue;
    /// let orders = Queue::new("orders").lanes(["high", "normal", "low"]);
    /// ```
    ///
    /// # Panics
    /// When a name is not 1 to 128 characters of `[A-Za-z0-9_-]` or is there twice, when there are
    /// more than 16 lanes, or when the queue has sessions.
    #[must_use]
    #[track_caller]
    pub fn lanes<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let mut lanes: Vec<Name> = Vec::new();
        let mut before_normal = None;
        for name in names {
            let name = match lane_name(name.as_ref()) {
                Ok(name) => name,
                Err(error) => panic!("{error}; choose another name for the lane"),
            };
            let twice = match &*name {
                NORMAL => before_normal.replace(lanes.len()).is_some(),
                _ => lanes.contains(&name),
            };
            assert!(!twice, "the lane \"{name}\" is there twice; name it once");
            if &*name != NORMAL {
                lanes.push(name);
            }
        }
        assert!(
            lanes.len() < MOST_LANES,
            "a queue has at most {MOST_LANES} lanes, \"{NORMAL}\" among them; leave some out"
        );
        self.before_normal = before_normal.unwrap_or(lanes.len());
        Arc::make_mut(&mut self.topology).lanes = lanes;
        self.assert_one_kind();
        self
    }

    /// Handles messages with the same key one at a time and in the order they were published, over
    /// all processes; different keys side by side. Every message then needs a
    /// [key](crate::Draft::key).
    ///
    /// The sessions are spread over this many partitions, each owned by one worker at a time, so it
    /// bounds how many workers share the queue. It belongs to the queue for good: another number is
    /// refused while messages are left in the old partitions. 16 is a good number.
    ///
    /// A message that waits for its next attempt holds back its key, and its partition once 32
    /// messages of it wait or run.
    ///
    /// # Panics
    /// When it is no power of two from 1 to 256, or when the queue has lanes.
    #[must_use]
    #[track_caller]
    pub fn sessions(mut self, partitions: u16) -> Self {
        assert!(
            partitions.is_power_of_two() && partitions <= MOST_PARTITIONS,
            "sessions need a power of two from 1 to {MOST_PARTITIONS}; got {partitions}, try {}",
            partitions.max(1).next_power_of_two().min(MOST_PARTITIONS)
        );
        Arc::make_mut(&mut self.topology).partitions = partitions;
        self.assert_one_kind();
        self
    }

    /// Keeps the id of a completed message for this long: until then no handler sees a message
    /// with that id (and key, where it has one) again, and two copies never run at the same time.
    ///
    /// # Panics
    /// Outside 1 second to 30 days.
    #[must_use]
    #[track_caller]
    pub fn dedup_window(mut self, window: Duration) -> Self {
        assert!(
            (SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window),
            "a dedup window must lie between {SHORTEST_WINDOW:?} and {LONGEST_WINDOW:?}; got {window:?}"
        );
        Arc::make_mut(&mut self.topology).dedup_window = Some(window);
        self
    }

    #[track_caller]
    fn assert_one_kind(&self) {
        assert!(
            self.topology.lanes.is_empty() || self.topology.partitions == 0,
            "a queue has lanes or sessions, not both: an urgent message would overtake the earlier \
             ones of its key; use two queues"
        );
    }

    /// Copies every message published to this topic to the queue, from the moment the queue is
    /// declared. Order among several calls does not matter.
    #[must_use]
    pub fn subscribe_to(mut self, topic: &Topic) -> Self {
        let topology = Arc::make_mut(&mut self.topology);
        if !topology.topics.contains(&topic.name) {
            topology.topics.push(topic.name.clone());
        }
        self
    }

    /// The logical name.
    pub fn name(&self) -> &str {
        &self.topology.queue
    }

    pub(crate) fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// The numbers of all lanes, the most urgent first.
    pub(crate) fn lanes_by_priority(&self) -> Vec<u8> {
        let mut lanes: Vec<u8> = (1..).take(self.topology.lanes.len()).collect();
        lanes.insert(self.before_normal.min(lanes.len()), 0);
        lanes
    }

    /// The names of all lanes, the most urgent first.
    pub(crate) fn lane_names(&self) -> Vec<Text> {
        let name = |lane: u8| match self.topology.lane(lane) {
            Some(name) => name.as_str().into(),
            None => Text::from_static(NORMAL),
        };
        self.lanes_by_priority().into_iter().map(name).collect()
    }

    /// The part a message belongs to.
    fn part_of(&self, envelope: &Envelope) -> Result<Part> {
        let topology = &self.topology;
        let invalid = |text: String| Err(Error::new(ErrorKind::Invalid, text));
        if let Some(priority) = &envelope.priority {
            let lane = topology.lanes.iter().position(|lane| **lane == **priority);
            return match lane.and_then(|index| u8::try_from(index + 1).ok()) {
                Some(lane) => Ok(Part::Lane(lane)),
                None => invalid(format!(
                    "the queue \"{}\" has no lane \"{}\"; name it in `Queue::lanes`",
                    topology.queue,
                    printable(priority, 64)
                )),
            };
        }
        if topology.partitions == 0 {
            return Ok(Part::Lane(0));
        }
        match envelope.key.as_ref().filter(|key| !key.is_empty()) {
            Some(key) => Ok(Part::Partition {
                index: partition_of(key, topology.partitions),
                of: topology.partitions,
            }),
            None => invalid(format!(
                "the queue \"{}\" has sessions, so a message needs a key; set it with `.key(…)`",
                topology.queue
            )),
        }
    }
}

/// The name of a lane. It stands between the dots of a routing key, so it has none itself.
pub(crate) fn lane_name(name: &str) -> Result<Name> {
    if name.contains('.') {
        let shown = printable(name, 64);
        let text = format!("the name of a lane may hold no '.', as \"{shown}\" does");
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    Name::new(name)
}

/// A name published to; every queue subscribed to it gets a copy.
#[derive(Debug, Clone)]
pub struct Topic {
    name: Name,
}

impl Topic {
    /// The topic of this name.
    ///
    /// # Panics
    /// As [`Queue::new`].
    #[track_caller]
    pub fn new(name: &str) -> Self {
        match Name::new(name) {
            Ok(name) => Self { name },
            Err(error) => panic!("{error}; choose another name for the topic"),
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What can be published to: a [`Queue`] or a [`Topic`].
pub trait Target: sealed::Sealed {
    #[doc(hidden)]
    fn outgoing(&self, envelope: Envelope, delay: Duration) -> Result<Outgoing>;
    #[doc(hidden)]
    fn declares(&self) -> Option<&Arc<Topology>>;
}

impl Target for Queue {
    fn outgoing(&self, envelope: Envelope, delay: Duration) -> Result<Outgoing> {
        Ok(Outgoing {
            to: Destination::Queue(self.topology.queue.clone(), self.part_of(&envelope)?),
            // A request that is repeated is answered again, and for that it has to arrive.
            dedup_window: self
                .topology
                .dedup_window
                .filter(|_| envelope.reply_to.is_none()),
            envelope,
            delay,
        })
    }

    fn declares(&self) -> Option<&Arc<Topology>> {
        Some(&self.topology)
    }
}

impl Target for Topic {
    /// Each queue bound to the topic has a dedup window of its own.
    fn outgoing(&self, envelope: Envelope, delay: Duration) -> Result<Outgoing> {
        Ok(Outgoing {
            to: Destination::Topic(self.name.clone()),
            envelope,
            delay,
            dedup_window: None,
        })
    }

    fn declares(&self) -> Option<&Arc<Topology>> {
        None
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Queue {}
    impl Sealed for super::Topic {}
}
