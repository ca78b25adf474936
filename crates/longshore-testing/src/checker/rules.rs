//! What a run must keep, and what it must have seen to count.

use std::{collections::BTreeSet, time::Duration};

/// What is checked, and how strictly. Start from [`Rules::default`] (Redis, memory) or
/// [`Rules::rabbitmq`] and change what the run configures otherwise:
///
/// ```
/// use longshore_testing::checker::Rules;
///
/// let rules = Rules { max_attempts: 3, ..Rules::rabbitmq() };
/// assert!(rules.may_copy);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How often a copy of a message may start. Default 5.
    pub max_attempts: u32,
    /// The dedup window of every queue that has one. Default 10 minutes.
    pub dedup_window: Duration,
    /// A crash or a broken connection may leave a second copy with the same id and number, as on
    /// RabbitMQ: then a dead letter may be there twice, and outside sessions and dedup windows a
    /// message may run twice. Only with a fault or a kill on record since its publish. Default no.
    pub may_copy: bool,
    /// A broker that dies may forget the acknowledgements it read last, as RabbitMQ does: then
    /// messages of a session start again after later ones did. Only with a fault on
    /// record since their last start. Default no.
    pub may_replay: bool,
    /// How many attempts a message may lose between one start and the next to the crashes of processes
    /// it only waited in. Default 1; 2 on RabbitMQ.
    pub stolen_attempts: u32,
    /// How late a delayed message may start, beside one hundredth of its delay, while no fault is
    /// near and it is in no session. `None` judges no lateness. Default 250 ms; add what waiting for
    /// a free handler can take.
    pub lateness: Option<Duration>,
    /// The most resident memory of any process, in bytes. Default: not judged.
    pub memory: Option<u64>,
    /// What a stop may take beyond its deadline. Default 0.5 s.
    pub stop_slack: Duration,
    /// How soon after [`Healed`](crate::history::Event::Healed) something must take effect. `None` does not judge it. Default
    /// 10 s.
    pub recover_within: Option<Duration>,
    /// How soon after [`Healed`](crate::history::Event::Healed) the run must be [`Drained`](crate::history::Event::Drained). Default
    /// 300 s.
    pub drain_within: Duration,
    /// How long after its end a fault still excuses what it may have caused: until every process has
    /// noticed that its connection or lock is gone. Default 10 s.
    pub aftermath: Duration,
    /// How many handlers may be cancelled with no fault near, no stop of their worker and no fate
    /// that hangs. `None` does not judge it. Default 0.
    pub cancellations: Option<u64>,
    /// The names of faults that only end processes. They excuse nothing by themselves: the
    /// [`Killed`](crate::history::Event::Killed) of each process does, for what it ran. Default none.
    pub processes_only: BTreeSet<String>,
    /// What the run must have seen to count.
    pub evidence: Evidence,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            dedup_window: Duration::from_secs(600),
            may_copy: false,
            may_replay: false,
            stolen_attempts: 1,
            lateness: Some(Duration::from_millis(250)),
            memory: None,
            stop_slack: Duration::from_millis(500),
            recover_within: Some(Duration::from_secs(10)),
            drain_within: Duration::from_secs(300),
            aftermath: Duration::from_secs(10),
            cancellations: Some(0),
            processes_only: BTreeSet::new(),
            evidence: Evidence::default(),
        }
    }
}

impl Rules {
    /// What RabbitMQ promises: copies after crashes, and two stolen attempts.
    pub fn rabbitmq() -> Self {
        Self {
            may_copy: true,
            stolen_attempts: 2,
            ..Self::default()
        }
    }
}

/// The least that a run must have seen. One that saw less is invalid, not passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Faults that began.
    pub faults: u64,
    /// Starts with an attempt number above 1.
    pub redeliveries: u64,
    /// Publishes whose answer was unknown.
    pub unknown: u64,
    /// Partitions that came to another process.
    pub owner_changes: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Everything was read at the end. Default yes; the others 0.
    pub drained: bool,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            faults: 0,
            redeliveries: 0,
            unknown: 0,
            owner_changes: 0,
            kills: 0,
            drained: true,
        }
    }
}
