use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    task::Wake,
};

use async_trait::async_trait;
use longshore_core::{Envelope, Part, Settlement, Settler, Standing, Unsettled};

use super::*;

/// Hands over what it has and remembers a waker only where it has nothing.
struct Heap(VecDeque<Delivery>);

impl Source for Heap {
    fn poll_receive(
        &mut self,
        _: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        let taken = max.min(self.0.len());
        into.extend(self.0.drain(..taken));
        match taken {
            0 => Poll::Pending,
            taken => Poll::Ready(Ok(taken)),
        }
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
impl Settler for Heap {
    async fn start(&self, _: &[(Receipt, u32)]) -> Vec<Result<()>> {
        Vec::new()
    }
    async fn settle(&self, _: Vec<Settlement>) -> Vec<Result<(), Unsettled>> {
        Vec::new()
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_driver_that_takes_a_part_wakes_the_others_for_the_rest() {
    let delivery = |tag| Delivery {
        envelope: Envelope::default(),
        receipt: Receipt {
            scope: 0,
            tag: [tag, 0],
        },
        part: Part::Lane(0),
        attempt: 1,
        suspect: false,
        alone: false,
        standing: Standing::Unknown,
        defect: None,
    };
    let intake = Intake::new(1, Turns::Strict, 2);
    let idle = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&idle));
    let mut cx = Context::from_waker(&waker);
    let mut batch = Vec::new();
    assert!(intake.poll_take(0, &mut cx, 8, &mut batch).is_pending());
    let heap = VecDeque::from([delivery(1), delivery(2)]);
    intake.open(
        0,
        (Box::new(Heap(heap)), Arc::new(Heap(VecDeque::new()))),
        2,
    );
    idle.0.store(false, Ordering::SeqCst);
    assert!(intake.poll_take(0, &mut cx, 0, &mut batch).is_pending());
    let mut busy = Context::from_waker(Waker::noop());
    assert!(intake.poll_take(1, &mut busy, 1, &mut batch).is_ready());
    assert!(idle.0.load(Ordering::SeqCst), "one more is there");
    assert!(intake.poll_take(0, &mut cx, 8, &mut batch).is_ready());
    assert_eq!(batch.len(), 2);
}
