//! What a service consumes and publishes to.

use std::sync::Arc;

use longshore_core::{Destination, Name, Part, Topology};

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
        }
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
    fn destination(&self) -> Destination;
    #[doc(hidden)]
    fn declares(&self) -> Option<&Arc<Topology>>;
}

impl Target for Queue {
    fn destination(&self) -> Destination {
        Destination::Queue(self.topology.queue.clone(), Part::Lane(0))
    }

    fn declares(&self) -> Option<&Arc<Topology>> {
        Some(&self.topology)
    }
}

impl Target for Topic {
    fn destination(&self) -> Destination {
        Destination::Topic(self.name.clone())
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
