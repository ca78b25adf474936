//! Settles deliveries: acknowledges, or publishes a copy, waits for its confirm and acknowledges.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use lapin::types::ShortString;
use longshore_core::{
    Declare, Error, ErrorKind, Receipt, Result, Settlement, Settler, Unsettled, Verdict,
    chaos::{CrashPoint, Flaw},
};
use tokio::time::timeout;

use crate::{
    cell,
    convert::{Native, short},
    copy::{Death, again, dead, unstarted},
    delay::Ladder,
    error::closed,
    guard::FRAME_MAX,
    held::{End, Held, stale},
    intake::Intake,
    link::{Link, State},
    plan::Plan,
    prepared::{Need, Prepared, is_missing},
    publisher::{Letter, Publisher},
    session::SETUP,
    topology::declare,
};

/// The settler of one subscription.
pub(crate) struct AmqpSettler(Arc<Inner>);

struct Inner {
    plan: Arc<Plan>,
    intake: Arc<Intake>,
    copies: Arc<Publisher>,
    prepared: Arc<Prepared>,
    publishing: Arc<Link>,
}

impl AmqpSettler {
    pub(crate) fn new(
        plan: Arc<Plan>,
        intake: Arc<Intake>,
        copies: Arc<Publisher>,
        prepared: Arc<Prepared>,
        publishing: Arc<Link>,
    ) -> Self {
        Self(Arc::new(Inner {
            plan,
            intake,
            copies,
            prepared,
            publishing,
        }))
    }
}

type Answer = Result<(), Unsettled>;

/// A settlement that publishes a copy or rejects, with the place of its answer.
struct Move {
    index: usize,
    settlement: Settlement,
    held: Arc<Held>,
}

impl Move {
    fn tag(&self) -> u64 {
        let [tag, _] = self.settlement.receipt.tag;
        tag
    }

    /// Where its copy is confirmed and it is still here.
    fn copied(&self) -> CrashPoint {
        match self.settlement.verdict {
            Verdict::DeadLetter { .. } => CrashPoint::DeadLetterCopied,
            _ => CrashPoint::RetryCopied,
        }
    }

    fn refuse(self, error: Error) -> (usize, Answer) {
        self.held.abandon(self.tag());
        if Flaw::SettlementForgotten.on() {
            return (self.index, Ok(()));
        }
        (self.index, Err(self.settlement.refused(error)))
    }
}

impl AmqpSettler {
    /// What a partition of its queue may have unsettled.
    pub(crate) fn prefetch(&self) -> u16 {
        self.0.plan.topology.partition_prefetch
    }
}

#[async_trait]
impl Settler for AmqpSettler {
    async fn start(&self, starts: &[(Receipt, u32)]) -> Vec<Result<()>> {
        let mut answers = Vec::with_capacity(starts.len());
        for &(receipt, attempt) in starts {
            let inner = self.0.clone();
            // A task of its own: a caller that goes away leaves no start half noted.
            let noting = tokio::spawn(async move {
                cell::start(&inner.copies, &inner.intake, receipt, attempt).await
            });
            answers.push(noting.await.unwrap_or_else(|_| Err(closed())));
        }
        answers
    }

    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = batch.iter().map(|_| None).collect();
        let mut done: BTreeMap<u64, (Arc<Held>, Vec<(usize, Settlement)>)> = BTreeMap::new();
        let mut moves = Vec::new();
        for (index, settlement) in batch.into_iter().enumerate() {
            let [tag, _] = settlement.receipt.tag;
            let held = self.0.intake.held(settlement.receipt.scope);
            let begun = held.ok_or_else(stale).and_then(|held| {
                held.begin(tag)?;
                Ok(held)
            });
            match (begun, &settlement.verdict) {
                (Ok(held), verdict)
                    if matches!(verdict, Verdict::Complete)
                        || Flaw::DeadLetterLost.on()
                            && matches!(verdict, Verdict::DeadLetter { .. }) =>
                {
                    let (_, group) = done.entry(held.scope).or_insert_with(|| (held, Vec::new()));
                    group.push((index, settlement));
                }
                (Ok(held), _) => moves.push(Move {
                    index,
                    settlement,
                    held,
                }),
                (Err(error), _) => put(&mut answers, index, Err(settlement.refused(error))),
            }
        }
        // All acknowledgements are queued here, before anything is waited for.
        let mut acknowledged = Vec::new();
        for (held, group) in done.into_values() {
            let tags: Vec<u64> = group.iter().map(|(_, s)| tag_of(s)).collect();
            acknowledged.push((held.end(&tags, End::Acknowledge), group));
            self.0.intake.freed(&held);
        }
        // A task of its own: a caller that goes away leaves no settlement half done.
        let moving = (!moves.is_empty()).then(|| {
            let inner = self.0.clone();
            let indices: Vec<usize> = moves.iter().map(|m| m.index).collect();
            (
                indices,
                tokio::spawn(async move { inner.move_all(moves).await }),
            )
        });
        for (written, group) in acknowledged {
            let result = written.await;
            for (index, settlement) in group {
                let answer = match &result {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        let error = error.again();
                        Err(settlement.refused(error))
                    }
                };
                put(&mut answers, index, answer);
            }
        }
        if let Some((indices, task)) = moving {
            match task.await {
                Ok(moved) => {
                    for (index, answer) in moved {
                        put(&mut answers, index, answer);
                    }
                }
                // The runtime is going down.
                Err(_) => {
                    for index in indices {
                        let error = closed();
                        let settlement = None;
                        put(&mut answers, index, Err(Unsettled { error, settlement }));
                    }
                }
            }
        }
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or(Ok(())))
            .collect()
    }
}

fn tag_of(settlement: &Settlement) -> u64 {
    let [tag, _] = settlement.receipt.tag;
    tag
}

fn put(answers: &mut [Option<Answer>], index: usize, answer: Answer) {
    if let Some(place) = answers.get_mut(index) {
        *place = Some(answer);
    }
}

/// How a message leaves the hands of its consumer.
enum Way {
    Copy(Box<Letter>),
    /// To the dead letters, whole, by the broker's own doing.
    Reject,
    Requeue,
}

/// Whether the copy goes to a queue this very subscription consumes.
fn goes_back(one: &Move) -> bool {
    matches!(
        one.settlement.verdict,
        Verdict::Release { .. } | Verdict::Retry { .. }
    )
}

impl Inner {
    async fn move_all(&self, moves: Vec<Move>) -> Vec<(usize, Answer)> {
        let mut answers = Vec::with_capacity(moves.len());
        let delayed = |m: &Move| match &m.settlement.verdict {
            Verdict::Retry { after } | Verdict::Release { after } => !after.is_zero(),
            _ => false,
        };
        let ladder = match moves.iter().any(delayed) {
            true => self.prepared.has(&Need::Ladder).await,
            false => Ok(()),
        };
        if moves.iter().any(goes_back) {
            let _ = timeout(SETUP, self.intake.not_cancelling()).await;
        }
        for target in [&self.plan.lane, &self.plan.quarantine, &self.plan.dead] {
            // Waits for its leader after a restart; what is missing shows when it is published to.
            let found = self.prepared.has(&Need::Queue(target.clone())).await;
            if found.is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
                break;
            }
        }
        let (mut letters, mut copied) = (Vec::new(), Vec::new());
        let (mut rejected, mut requeued) = (Vec::new(), Vec::new());
        for one in moves {
            if let (Err(error), true) = (&ladder, delayed(&one)) {
                let error = error.again();
                answers.push(one.refuse(error));
                continue;
            }
            // Waiting for the ladder took time: a copy of what is somebody else's by now must not go.
            if !one.held.is_live() {
                answers.push(one.refuse(stale()));
                continue;
            }
            match self.way(&one) {
                Ok(Way::Copy(letter)) => {
                    letters.push(*letter);
                    copied.push(one);
                }
                Ok(Way::Reject) => rejected.push(one),
                Ok(Way::Requeue) => requeued.push(one),
                Err(error) => answers.push(one.refuse(error)),
            }
        }
        if Flaw::AcknowledgeBeforeCopy.on() {
            let early = |one: &Move| drop(one.held.end(&[one.tag()], End::Acknowledge));
            copied.iter().for_each(early);
        }
        let published = self.publish(letters).await;
        let mut confirmed = Vec::new();
        for (one, answer) in copied.into_iter().zip(published) {
            match answer {
                Ok(()) => {
                    one.copied().reached();
                    confirmed.push(one);
                }
                Err(error) => answers.push(one.refuse(error)),
            }
        }
        self.end(confirmed, End::Acknowledge, &mut answers).await;
        self.end(rejected, End::Reject, &mut answers).await;
        self.end(requeued, End::Requeue, &mut answers).await;
        answers
    }

    /// Publishes copies, and once more after making what turned out to be missing.
    async fn publish(&self, letters: Vec<Letter>) -> Vec<Result<()>> {
        let again = letters.clone();
        let mut answers = self.copies.publish(letters).await;
        if self.plan.declare == Declare::Create
            && answers.iter().any(|a| a.as_ref().is_err_and(is_missing))
            && let Ok(session) = self.publishing.session().await
            && declare(&session, &self.plan.topology, Declare::Create)
                .await
                .is_ok()
        {
            for (answer, letter) in answers.iter_mut().zip(again) {
                if answer.as_ref().is_err_and(is_missing)
                    && let Some(second) = self.copies.publish(vec![letter]).await.pop()
                {
                    *answer = second;
                }
            }
        }
        answers
    }

    /// How this settlement is done.
    fn way(&self, one: &Move) -> Result<Way> {
        let Move {
            settlement, held, ..
        } = one;
        let envelope = settlement.envelope.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                "a settlement other than complete must bring its envelope back",
            )
        })?;
        let queue = match held.quarantine {
            true => &self.plan.quarantine,
            false => &self.plan.lane,
        };
        let blanked = Native::of(envelope).is_some_and(|native| native.blanked.is_some());
        let direct = |to: &str, properties| -> Result<Way> {
            let to = short("queue name", to)?;
            let mut letter = Letter::copy(ShortString::default(), to, properties, envelope);
            letter.mandatory = !Flaw::CopiesNotMandatory.on();
            Ok(Way::Copy(Box::new(letter)))
        };
        let back = |after, properties| {
            let Some((exchange, key)) = Ladder::route(after, queue) else {
                return direct(queue, properties);
            };
            let exchange = short("exchange name", &exchange)?;
            let key = short("routing key", &key)?;
            let letter = Letter::copy(exchange, key, properties, envelope);
            Ok(Way::Copy(Box::new(letter)))
        };
        match &settlement.verdict {
            Verdict::DeadLetter { .. } if blanked => Ok(Way::Reject),
            Verdict::DeadLetter { reason, detail } => {
                let death = Death {
                    reason,
                    detail,
                    attempts: settlement.attempt,
                    queue: &self.plan.lane,
                    at: self.plan.clock.wall(),
                };
                match dead(envelope, &death, self.frame_max()) {
                    Ok(properties) => direct(&self.plan.dead, properties),
                    Err(_) => Ok(Way::Reject),
                }
            }
            Verdict::Release { .. } if blanked => Ok(Way::Requeue),
            Verdict::Retry { after } => back(*after, again(envelope, settlement.attempt)?),
            Verdict::Release { after } => back(*after, unstarted(envelope, settlement.attempt)?),
            other => Err(Error::new(
                ErrorKind::Unsupported,
                format!("a lane cannot settle as {other:?}"),
            )),
        }
    }

    fn frame_max(&self) -> usize {
        match &*self.publishing.watch().borrow() {
            State::Up(session) => session.frame_max(),
            _ => FRAME_MAX,
        }
    }

    async fn end(&self, moves: Vec<Move>, how: End, answers: &mut Vec<(usize, Answer)>) {
        let mut by_scope: BTreeMap<u64, Vec<Move>> = BTreeMap::new();
        for one in moves {
            by_scope.entry(one.held.scope).or_default().push(one);
        }
        for group in by_scope.into_values() {
            let tags: Vec<u64> = group.iter().map(Move::tag).collect();
            let Some(held) = group.first().map(|one| one.held.clone()) else {
                continue;
            };
            let written = held.end(&tags, how);
            self.intake.freed(&held);
            let written = written.await;
            answers.extend(group.into_iter().map(|one| match &written {
                Ok(()) => (one.index, Ok(())),
                Err(error) => {
                    let error = error.again();
                    (one.index, Err(one.settlement.refused(error)))
                }
            }));
        }
    }
}
