//! The task that publishes.
//!
//! lapin numbers a publish before it queues the frames, so only one task may publish on a channel;
//! and the note that a message came back names no publish, so it is matched by message id and
//! routing key, of which only one pair is in flight at a time. What is published behind such a twin
//! with the same routing key waits with it: nothing overtakes on its way to one queue.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    task::{Context, Waker},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{Channel, Confirmation};
use longshore_core::{
    Error, ErrorKind, Result,
    chaos::{CrashPoint, Flaw},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{
    Batch, Letter,
    line::{Line, fly, key, open, unblocked},
};
use crate::{
    copy::fits,
    error::{is_refused, late, lost, told},
    guard::ReturnKey,
    held::hang_up,
    link::State,
};

/// Publishes in flight at most.
const WINDOW: usize = 1024;
/// Batches taken from the inbox at a time.
const BATCHES: usize = 64;

/// A caller that waits for its answers.
struct Caller {
    answers: Vec<Option<Result<()>>>,
    left: usize,
    answer: oneshot::Sender<Vec<Result<()>>>,
}

/// Which letter of which caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    caller: u64,
    index: usize,
}

type Route = Box<[u8]>;
type Flight = BoxFuture<'static, (Slot, lapin::Result<Confirmation>)>;

/// The task's own state.
pub(super) struct Press {
    link: watch::Receiver<State>,
    line: Option<Line>,
    opening: Option<BoxFuture<'static, Result<Line>>>,
    callers: BTreeMap<u64, Caller>,
    next: u64,
    /// Callers by deadline: all have the same time, so the order of arrival is the order of these.
    deadlines: VecDeque<(Instant, u64)>,
    backlog: VecDeque<(Slot, Letter)>,
    flights: FuturesUnordered<Flight>,
    aloft: BTreeMap<Slot, Option<ReturnKey>>,
    /// The keys of what is aloft.
    airborne: HashSet<ReturnKey>,
    /// By routing key: a letter that waits for its twin to land, and all behind it.
    waiting: HashMap<Route, VecDeque<(Slot, Letter)>>,
    /// Where the first of those may go.
    ready: VecDeque<Route>,
    refusal: Option<(ErrorKind, String)>,
    /// Somebody was told already that the channel is lost.
    broken: bool,
    sent: CrashPoint,
}

impl Press {
    pub(super) fn new(link: watch::Receiver<State>, sent: CrashPoint) -> Self {
        Self {
            link,
            line: None,
            opening: None,
            callers: BTreeMap::new(),
            next: 0,
            deadlines: VecDeque::new(),
            backlog: VecDeque::new(),
            flights: FuturesUnordered::new(),
            aloft: BTreeMap::new(),
            airborne: HashSet::new(),
            waiting: HashMap::new(),
            ready: VecDeque::new(),
            refusal: None,
            broken: false,
            sent,
        }
    }

    pub(super) async fn run(mut self, mut mail: mpsc::Receiver<Batch>) {
        // One timer, set again only once it has fired: deadlines come in their order, so one that was
        // met meanwhile only wakes the task for nothing.
        let mut timer = std::pin::pin!(sleep_until(Instant::now()));
        let mut armed = false;
        let mut batches = Vec::with_capacity(BATCHES);
        loop {
            self.keep_line();
            self.launch();
            if let (Some((at, _)), false) = (self.deadlines.front(), armed) {
                timer.as_mut().reset(*at);
                armed = true;
            }
            let room = self.backlog.len() < WINDOW;
            tokio::select! {
                biased;
                Some((slot, landed)) = self.flights.next() => {
                    self.land(slot, landed);
                    while let Some(Some((slot, landed))) = self.flights.next().now_or_never() {
                        self.land(slot, landed);
                    }
                }
                opened = async { self.opening.as_mut()?.await.into() }, if self.opening.is_some() => {
                    self.opening = None;
                    match opened {
                        Some(Ok(line)) => self.take_line(line),
                        Some(Err(error)) => self.refusal = Some((error.kind(), error.to_string())),
                        None => {}
                    }
                }
                Some(()) = unblocked(self.line.as_mut()) => {}
                () = timer.as_mut(), if armed => {
                    armed = false;
                    self.expire();
                }
                count = mail.recv_many(&mut batches, BATCHES), if room => match count {
                    0 => break,
                    _ => batches.drain(..).for_each(|batch| self.accept(batch)),
                },
            }
        }
    }

    /// A live channel, or a future that will make one.
    fn keep_line(&mut self) {
        let live = |line: &Line| line.session.is_live() && line.channel.status().connected();
        if !self.line.as_ref().is_some_and(live) {
            self.line = None;
        }
        if self.aloft.is_empty() && self.line.as_ref().is_some_and(Line::is_worn) {
            self.retire();
        }
        if self.line.is_none() && self.opening.is_none() {
            self.opening = Some(open(self.link.clone(), self.refusal.is_some()).boxed());
        }
    }

    fn take_line(&mut self, line: Line) {
        // lapin answers the flights of a lost channel; whichever it forgot must not hold the window.
        let forgotten: Vec<Slot> = self.aloft.keys().copied().collect();
        self.flights = FuturesUnordered::new();
        for slot in forgotten {
            self.release(slot);
            self.answer(slot, Err(lost("publishing")));
        }
        line.session.watch.returns.forget(line.channel.id());
        self.refusal = None;
        self.broken = false;
        self.line = Some(line);
    }

    fn accept(&mut self, batch: Batch) {
        let caller = self.next;
        self.next += 1;
        let count = batch.letters.len();
        self.callers.insert(
            caller,
            Caller {
                answers: (0..count).map(|_| None).collect(),
                left: count,
                answer: batch.answer,
            },
        );
        self.deadlines.push_back((batch.deadline, caller));
        for (index, letter) in batch.letters.into_iter().enumerate() {
            self.backlog.push_back((Slot { caller, index }, letter));
        }
    }

    /// Puts as much of the backlog on the wire as the window takes.
    fn launch(&mut self) {
        let Some(line) = &self.line else { return };
        if line.is_worn() || *line.blocked.borrow() || !line.channel.status().connected() {
            return;
        }
        let (channel, frame_max) = (line.channel.clone(), line.session.frame_max());
        while self.aloft.len() < WINDOW {
            let Some((slot, letter, key)) = self.next_letter(&channel) else {
                break;
            };
            if !self.callers.contains_key(&slot.caller) {
                continue;
            }
            if let Err(error) = fits(&letter.properties, frame_max) {
                self.answer(slot, Err(error));
                continue;
            }
            self.airborne.extend(key.clone());
            self.aloft.insert(slot, key);
            let mut flight = {
                let (flight, sent) = (channel.clone(), self.sent);
                async move { (slot, fly(flight, letter, sent).await) }.boxed()
            };
            // The first poll queues the frames, here and now, in the order of the backlog.
            match flight.poll_unpin(&mut Context::from_waker(Waker::noop())) {
                std::task::Poll::Ready((slot, landed)) => self.land(slot, landed),
                std::task::Poll::Pending => self.flights.push(flight),
            }
        }
    }

    /// The next letter that may fly, in the order of its route.
    fn next_letter(&mut self, channel: &Channel) -> Option<(Slot, Letter, Option<ReturnKey>)> {
        while let Some(route) = self.ready.front() {
            let waiting = self.waiting.get_mut(route);
            let first = waiting.as_ref().and_then(|waiting| waiting.front());
            match first.map(|(_, letter)| key(channel, letter)) {
                Some(first) if !self.airborne.contains(&first) => {
                    let (slot, letter) = waiting?.pop_front()?;
                    return Some((slot, letter, Some(first)));
                }
                Some(_) => {}
                None => drop(self.waiting.remove(route)),
            }
            self.ready.pop_front();
        }
        while let Some((slot, letter)) = self.backlog.pop_front() {
            if !letter.mandatory {
                return Some((slot, letter, None));
            }
            let key = key(channel, &letter);
            if let Some(waiting) = self.waiting.get_mut(&key.routing_key) {
                waiting.push_back((slot, letter));
            } else if self.airborne.contains(&key) {
                self.waiting
                    .insert(key.routing_key, VecDeque::from([(slot, letter)]));
            } else {
                return Some((slot, letter, Some(key)));
            }
        }
        None
    }

    fn land(&mut self, slot: Slot, landed: lapin::Result<Confirmation>) {
        let alone = self.aloft.len() == 1 && !self.broken;
        let key = self.release(slot);
        let returned = match (&self.line, &key) {
            (Some(line), Some(key)) => line.session.watch.returns.take(key),
            _ => None,
        };
        let answer = match landed {
            Ok(Confirmation::Ack(_)) => match returned {
                None => Ok(()),
                Some(code) => Err(Error::new(
                    ErrorKind::NoSuchQueue,
                    format!("no queue takes this message (reply code {code})"),
                )),
            },
            Ok(Confirmation::Nack(_)) if Flaw::RefusalIgnored.on() => Ok(()),
            Ok(Confirmation::Nack(_)) => {
                self.line.as_mut().map(Line::refused);
                Err(Error::new(
                    ErrorKind::Full,
                    "the broker refused to store the message: the queue is at its length limit, \
                     or has no leader just now",
                ))
            }
            Ok(Confirmation::NotRequested) => Err(Error::new(
                ErrorKind::Unknown,
                "the channel confirms nothing: this is a bug in longshore",
            )),
            Err(error) => {
                self.broken = true;
                let told = told("publishing", &error);
                // A refusal closes the channel and names no publish: with others in flight it may
                // be any of theirs.
                Err(match alone && is_refused(&error) {
                    true => told,
                    false => Error::new(ErrorKind::Unknown, told.to_string()),
                })
            }
        };
        self.answer(slot, answer);
    }

    /// Ends a flight and lets its twin go next.
    fn release(&mut self, slot: Slot) -> Option<ReturnKey> {
        let key = self.aloft.remove(&slot)??;
        self.airborne.remove(&key);
        let route = &key.routing_key;
        if self.waiting.contains_key(route) && !self.ready.contains(route) {
            self.ready.push_back(route.clone());
        }
        Some(key)
    }

    fn answer(&mut self, slot: Slot, answer: Result<()>) {
        let Some(caller) = self.callers.get_mut(&slot.caller) else {
            return;
        };
        let Some(place @ None) = caller.answers.get_mut(slot.index) else {
            return;
        };
        *place = Some(match answer {
            Err(error) if error.kind() == ErrorKind::Unknown && Flaw::UnknownIsRefused.on() => {
                Err(Error::new(ErrorKind::Unavailable, error.to_string()))
            }
            answer => answer,
        });
        caller.left -= 1;
        if caller.left == 0
            && let Some(caller) = self.callers.remove(&slot.caller)
        {
            let answers = caller.answers.into_iter().map(|a| a.unwrap_or(Ok(())));
            // Whoever gave up waiting has said that the answer does not matter.
            let _ = caller.answer.send(answers.collect());
            while let Some((_, first)) = self.deadlines.front()
                && !self.callers.contains_key(first)
            {
                self.deadlines.pop_front();
            }
        }
    }

    /// Answers the callers whose time is up. What is on the wire stays there.
    fn expire(&mut self) {
        let now = Instant::now();
        let mut overdue = false;
        while let Some((at, caller)) = self.deadlines.front().copied()
            && at <= now
        {
            self.deadlines.pop_front();
            let Some(open) = self.callers.get(&caller) else {
                continue;
            };
            for index in 0..open.answers.len() {
                let slot = Slot { caller, index };
                let answer = match self.aloft.contains_key(&slot) {
                    true => Err(late("publishing")),
                    false => Err(self.why_not()),
                };
                overdue |= self.aloft.contains_key(&slot);
                self.answer(slot, answer);
            }
        }
        if overdue {
            self.retire();
        }
    }

    /// Gives up a channel that owes a confirm, or is worn. After a restart RabbitMQ can lose a publish on
    /// its way to a queue without a leader and notices 10 s later; another channel works at once.
    fn retire(&mut self) {
        // A blocked connection owes every confirm, and no channel of it would work.
        if let Some(line) = self.line.take_if(|line| !*line.blocked.borrow()) {
            hang_up(&line.channel);
        }
    }

    /// Why nothing could be sent. Said only of what was not.
    fn why_not(&self) -> Error {
        let blocked = match &*self.link.borrow() {
            State::Up(session) => *session.blocked().borrow(),
            _ => false,
        };
        if blocked || self.line.is_some() {
            return Error::new(
                ErrorKind::Full,
                match blocked {
                    true => "the broker takes no messages for want of memory or disk",
                    false => "the broker takes messages slower than they are published",
                },
            );
        }
        match &self.refusal {
            Some((kind @ (ErrorKind::Denied | ErrorKind::Closed), text)) => {
                Error::new(*kind, text.clone())
            }
            Some((_, text)) => Error::new(ErrorKind::Unavailable, text.clone()),
            None => Error::new(ErrorKind::Unavailable, "the broker cannot be reached"),
        }
    }
}
