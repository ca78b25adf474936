//! Dedup windows: an id is taken before a start and done at completion.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use longshore_core::{
    Delivery, Mark, MarkChange, MarkWrite, Part, Receipt, Result, Settlement, Standing, StateWrite,
    Take, Text, Topology, Verdict,
    chaos::{CrashPoint, Flaw},
    mark_name,
};

use crate::Client;

/// How long a copy is sent away at most while another has its id: soon after that one is done, or
/// its process dead, somebody looks again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// How much longer than its delay a retry keeps its id from other copies: the time it may have to
/// stand in its queue. Should it pass, a copy starts in its place and the retry is the duplicate.
const SLACK: Duration = Duration::from_secs(60);

/// The marks of everything that is here. A mark is known by the lock of its delivery from the first
/// look at it until it is settled, so that no handler and no layer ever carries it.
pub(super) struct Dedup {
    client: Client,
    topology: Arc<Topology>,
    lease: Duration,
    marks: Mutex<BTreeMap<Receipt, Held>>,
}

/// A mark as far as this process has to do with it.
#[derive(Debug, Clone)]
struct Held {
    scope: Text,
    name: Text,
    right: Right,
    /// What was answered; it is done in the store since then.
    reply: Option<Bytes>,
}

/// By what right a delivery has its mark.
#[derive(Debug, Clone)]
enum Right {
    /// Its publish took it.
    Published,
    /// It was redriven and holds nothing.
    Exempt,
    /// It asked under this name. Ends at that time, on the client's monotonic clock, unless renewed;
    /// `None` before the answer and once it was lost.
    Taken {
        owner: Text,
        until: Option<Duration>,
    },
}

/// What the window says to a start.
#[derive(Debug)]
pub(super) enum Word {
    Start,
    /// Another copy has the id; look again after this long.
    Wait(Duration),
    /// A copy was completed, with this answer where it was a request.
    Duplicate(Option<Bytes>),
}

/// Leases of one scope, to be renewed together.
pub(super) struct Leases {
    pub(super) scope: Text,
    pub(super) receipts: Vec<Receipt>,
    pub(super) leases: Vec<(Text, Text)>,
    /// When the first of them ends.
    pub(super) until: Duration,
}

impl Dedup {
    pub(super) fn new(client: Client, topology: Arc<Topology>, lease: Duration) -> Self {
        Self {
            client,
            topology,
            lease,
            marks: Mutex::default(),
        }
    }

    /// Whether the queue has a window at all.
    pub(super) fn is_on(&self) -> bool {
        self.topology.dedup_window.is_some()
    }

    pub(super) fn has_sessions(&self) -> bool {
        self.topology.partitions > 0
    }

    pub(super) fn scope(&self, part: Part) -> Text {
        self.topology.scope(part)
    }

    /// The first look at a delivery, whatever becomes of it.
    pub(super) fn meet(&self, delivery: &Delivery) {
        let right = match delivery.standing {
            Standing::Unknown => return,
            Standing::Held => Right::Published,
            Standing::Exempt => Right::Exempt,
        };
        if self.is_on() && !delivery.envelope.id.is_empty() {
            self.marks()
                .insert(delivery.receipt, self.held(delivery, right));
        }
    }

    /// Whether the store has to be asked before this delivery starts. A message without an id is not
    /// deduplicated, and what was taken once is kept over the retries in a session.
    pub(super) fn must_ask(&self, delivery: &Delivery) -> bool {
        if !self.is_on() || delivery.envelope.id.is_empty() {
            return false;
        }
        match delivery.standing {
            Standing::Exempt => false,
            Standing::Unknown => match self.marks().get(&delivery.receipt) {
                Some(held) => {
                    held.reply.is_some()
                        || !matches!(held.right, Right::Taken { until: Some(_), .. })
                }
                None => true,
            },
            // An earlier start may have answered and died before it was settled.
            Standing::Held => delivery.attempt > 1 && delivery.envelope.reply_to.is_some(),
        }
    }

    /// Takes the id. Waits for as long as the store does not answer; dropping it then loses nothing,
    /// and the delivery can be given back.
    pub(super) async fn ask(&self, delivery: &Delivery) -> Word {
        let owner = self.client.ids().text();
        let until = None;
        let held = self.held(
            delivery,
            Right::Taken {
                owner: owner.clone(),
                until,
            },
        );
        let take = Take {
            name: held.name.clone(),
            owner,
            attempt: delivery.attempt,
            lease: self.lease,
            sole: matches!(delivery.part, Part::Partition { .. }),
        };
        let scope = held.scope.clone();
        let published = delivery.standing == Standing::Held;
        if !published {
            // Before it is asked for: if the answer is not waited for, it may be ours all the same.
            self.marks().insert(delivery.receipt, held.clone());
        }
        let takes = [take];
        let mut asked = self.now();
        let books = self.client.books();
        let answer = books
            .insist(|| {
                asked = self.now();
                books.store.take(&scope, &takes)
            })
            .await;
        match answer.ok().and_then(|mut marks| marks.pop()) {
            Some(Mark::Taken) => {
                CrashPoint::MarkTaken.reached();
                let mut held = held;
                if let Right::Taken { until, .. } = &mut held.right {
                    *until = Some(asked + self.lease);
                }
                self.marks().insert(delivery.receipt, held);
                Word::Start
            }
            // It is its own publish that holds it.
            Some(Mark::Held { .. }) if published || Flaw::MarkIgnoredWhileRunning.on() => {
                Word::Start
            }
            Some(Mark::Held { at_most }) => {
                self.forget(&delivery.receipt);
                Word::Wait(at_most.clamp(SHORTEST_WAIT, LONGEST_WAIT))
            }
            Some(Mark::Done { reply }) => {
                self.forget(&delivery.receipt);
                Word::Duplicate(reply)
            }
            None => Word::Wait(LONGEST_WAIT),
        }
    }

    /// Marks a request as done with what it is about to be answered, before it is: should the
    /// process die in between, the next delivery of it is answered the same without a start. So the
    /// state of its session is written before that, also where it could be with the settlement.
    pub(super) async fn note_reply(
        &self,
        receipt: &Receipt,
        reply: Bytes,
        state: Option<(Text, StateWrite)>,
    ) -> Result<()> {
        let Some(held) = self.marks().get(receipt).cloned() else {
            return Ok(());
        };
        let done = MarkChange::Done {
            window: self.window(),
            reply: Some(reply.clone()),
        };
        let books = self.client.books();
        if let Some((scope, state)) = &state {
            books.insist(|| books.store.save(scope, state)).await?;
        }
        let writes = [held.write(done)];
        books
            .insist(|| books.store.write(&held.scope, &writes))
            .await?;
        if let Some(held) = self.marks().get_mut(receipt) {
            held.reply = Some(reply);
        }
        Ok(())
    }

    /// What this settlement means for the mark of its delivery.
    pub(super) fn mark(&self, settlement: &Settlement) -> Option<(Text, MarkWrite)> {
        if !self.is_on() {
            return None;
        }
        let marks = self.marks();
        let held = marks.get(&settlement.receipt)?;
        let change = match &settlement.verdict {
            Verdict::Complete if Flaw::MarkForgotten.on() => MarkChange::Released,
            Verdict::Complete => MarkChange::Done {
                window: self.window(),
                reply: held.reply.clone(),
            },
            // It is done in the store, and nothing but done may follow.
            _ if held.reply.is_some() => return None,
            _ if matches!(held.right, Right::Exempt) => return None,
            Verdict::Retry { after } => MarkChange::Waiting {
                attempt: settlement.attempt.saturating_add(1),
                at_most: *after + *after / 50 + SLACK,
            },
            // Its publish holds it for whoever gets it next.
            Verdict::Release { .. } if matches!(held.right, Right::Published) => return None,
            _ => MarkChange::Released,
        };
        Some((held.scope.clone(), held.write(change)))
    }

    /// The delivery is settled, or lost.
    pub(super) fn forget(&self, receipt: &Receipt) {
        if self.is_on() {
            self.marks().remove(receipt);
        }
    }

    /// Every lease to be renewed, by scope.
    pub(super) fn leases(&self) -> Vec<Leases> {
        let mut scopes: BTreeMap<Text, Leases> = BTreeMap::new();
        for (receipt, held) in self.marks().iter() {
            let Right::Taken {
                owner,
                until: Some(until),
            } = &held.right
            else {
                continue;
            };
            if held.reply.is_some() {
                continue;
            }
            let of_scope = scopes.entry(held.scope.clone()).or_insert_with(|| Leases {
                scope: held.scope.clone(),
                receipts: Vec::new(),
                leases: Vec::new(),
                until: *until,
            });
            of_scope.receipts.push(*receipt);
            of_scope.leases.push((held.name.clone(), owner.clone()));
            of_scope.until = of_scope.until.min(*until);
        }
        scopes.into_values().collect()
    }

    /// The store has renewed these, or not; answers those that are lost. Unless it was renewed a
    /// lease ends at its time, whatever kept the store from answering: another may have it then.
    pub(super) fn renewed(
        &self,
        receipts: &[Receipt],
        answers: Option<&[bool]>,
        until: Duration,
    ) -> Vec<Receipt> {
        let now = self.now();
        let mut lost = Vec::new();
        let mut marks = self.marks();
        for (index, receipt) in receipts.iter().enumerate() {
            let Some(Held {
                right:
                    Right::Taken {
                        until: ends @ Some(_),
                        ..
                    },
                ..
            }) = marks.get_mut(receipt)
            else {
                continue;
            };
            *ends = match answers.map(|answers| answers.get(index) == Some(&true)) {
                Some(true) => Some(until),
                Some(false) => None,
                None => ends.filter(|ends| *ends > now),
            };
            if ends.is_none() {
                lost.push(*receipt);
            }
        }
        lost
    }

    pub(super) fn lease(&self) -> Duration {
        self.lease
    }

    pub(super) fn now(&self) -> Duration {
        self.client.clock().monotonic()
    }

    fn held(&self, delivery: &Delivery, right: Right) -> Held {
        let envelope = &delivery.envelope;
        Held {
            scope: self.topology.scope(delivery.part),
            name: mark_name(envelope.key.as_deref(), &envelope.id),
            right,
            reply: None,
        }
    }

    fn window(&self) -> Duration {
        self.topology.dedup_window.unwrap_or_default()
    }

    fn marks(&self) -> MutexGuard<'_, BTreeMap<Receipt, Held>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn write(&self, change: MarkChange) -> MarkWrite {
        MarkWrite {
            name: self.name.clone(),
            owner: match &self.right {
                Right::Taken { owner, .. } => owner.clone(),
                Right::Published | Right::Exempt => Text::new(),
            },
            change,
        }
    }
}
