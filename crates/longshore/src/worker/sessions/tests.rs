use std::{
    sync::atomic::AtomicBool,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use longshore_core::{Envelope, Part, Result, Settlement, Settler, Source, Standing, Unsettled};

use super::*;
use crate::session::Tenure;

struct Nothing;

impl Source for Nothing {
    fn poll_receive(
        &mut self,
        _: &mut Context<'_>,
        _: usize,
        _: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        Poll::Pending
    }
    fn poll_lost(&mut self, _: &mut Context<'_>, _: &mut Vec<Receipt>) -> Poll<()> {
        Poll::Pending
    }
    fn stop(&mut self) {}
    fn set_prefetch(&mut self, _: u16) -> Result<()> {
        Ok(())
    }
    fn trouble(&self) -> Option<Text> {
        None
    }
}

#[async_trait]
impl Settler for Nothing {
    async fn start(&self, _: &[(Receipt, u32)]) -> Vec<Result<()>> {
        Vec::new()
    }
    async fn settle(&self, _: Vec<Settlement>) -> Vec<Result<(), Unsettled>> {
        Vec::new()
    }
}

fn partition(index: u16) -> Arc<Holding> {
    let tenure = Tenure {
        scope: Text::new(),
        token: 1,
        wanted: Arc::new(AtomicBool::new(false)),
    };
    let subscribed = (Box::new(Nothing) as Box<dyn Source>, Arc::new(Nothing) as _);
    Arc::new(Holding::new(
        index,
        Arc::new(tenure),
        subscribed,
        Arc::default(),
    ))
}

fn arrive(sessions: &mut Sessions, holding: &Arc<Holding>, key: &str, tag: u64, alone: bool) {
    let index = holding.index;
    let delivery = Delivery {
        envelope: Envelope::default(),
        receipt: receipt(tag),
        part: Part::Partition { index, of: 16 },
        attempt: 1,
        suspect: alone,
        alone,
        standing: Standing::Unknown,
        defect: None,
    };
    let holding = Arc::clone(holding);
    sessions.arrive(key.to_owned().into(), Held { delivery, holding });
}

const fn receipt(tag: u64) -> Receipt {
    Receipt {
        scope: 0,
        tag: [tag, 0],
    }
}

fn tag(held: Option<Held>) -> Option<u64> {
    held.map(|held| held.delivery.receipt.tag[0])
}

#[test]
fn one_message_of_a_key_has_its_turn_and_the_same_key_elsewhere_is_another() {
    let (mut sessions, here, there) = (Sessions::default(), partition(0), partition(1));
    for (number, holding) in [(1, &here), (2, &here), (3, &there)] {
        arrive(&mut sessions, holding, "a", number, false);
    }
    assert_eq!(tag(sessions.next()), Some(1));
    assert_eq!(tag(sessions.next()), Some(3));
    assert_eq!(tag(sessions.next()), None);
    sessions.free(&receipt(1));
    sessions.free(&receipt(1));
    assert_eq!(tag(sessions.next()), Some(2));
}

#[test]
fn what_waits_keeps_its_place_and_what_runs_apart_is_asked_for_by_itself() {
    let (mut sessions, holding, now) = (Sessions::default(), partition(0), Instant::now());
    arrive(&mut sessions, &holding, "a", 1, false);
    arrive(&mut sessions, &holding, "a", 2, true);
    let first = sessions.next().expect("the first");
    sessions.put_back(first, now + Duration::from_secs(9));
    sessions.wake(now + Duration::from_secs(8));
    assert_eq!(tag(sessions.next()), None);
    sessions.wake(now + Duration::from_secs(9));
    assert_eq!(tag(sessions.next()), Some(1));
    sessions.free(&receipt(1));
    assert_eq!(tag(sessions.next()), None);
    assert_eq!(tag(sessions.next_apart()), Some(2));
}

#[test]
fn what_is_taken_out_leaves_a_running_message_its_turn_also_when_its_key_comes_again() {
    let (mut sessions, before, now) = (Sessions::default(), partition(0), Instant::now());
    for (number, key) in [(1, "a"), (2, "a"), (3, "b")] {
        arrive(&mut sessions, &before, key, number, false);
    }
    assert_eq!(tag(sessions.next()), Some(1));
    let waiting = sessions.next().expect("of b");
    sessions.put_back(waiting, now + Duration::from_secs(9));
    assert_eq!(sessions.take_out(&before).len(), 2);
    let again = partition(0);
    for (number, key) in [(11, "a"), (13, "b")] {
        arrive(&mut sessions, &again, key, number, false);
    }
    assert_eq!(tag(sessions.next()), Some(13), "b waits for nothing now");
    assert_eq!(tag(sessions.next()), None, "a is still running");
    sessions.free(&receipt(1));
    sessions.wake(now + Duration::from_secs(10));
    assert_eq!(tag(sessions.next()), Some(11));
    assert_eq!(tag(sessions.next()), None);
    assert_eq!(
        sessions.take_lost(0, &[receipt(11)]).len(),
        0,
        "it has its turn"
    );
}

#[test]
fn a_key_is_forgotten_with_its_last_message() {
    let (mut sessions, holding, now) = (Sessions::default(), partition(0), Instant::now());
    for number in 0..100_000 {
        arrive(
            &mut sessions,
            &holding,
            &format!("key-{number}"),
            number,
            number % 7 == 0,
        );
        let held = sessions.next().or_else(|| sessions.next_apart());
        let held = held.expect("the one that arrived");
        if number % 3 == 0 {
            sessions.put_back(held, now);
            sessions.wake(now);
            assert!(sessions.next().or_else(|| sessions.next_apart()).is_some());
        }
        sessions.free(&receipt(number));
    }
    assert!(sessions.by_key.is_empty() && sessions.turns.is_empty());
    assert!(sessions.ready.is_empty() && sessions.apart.is_empty() && sessions.waits.is_empty());
}
