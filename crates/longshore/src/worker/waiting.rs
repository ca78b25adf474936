//! The drivers that wait for something to do.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Wake, Waker},
};

/// The wakers of drivers that wait, one place each.
pub(super) struct Waiting(Mutex<Vec<Option<Waker>>>);

impl Waiting {
    pub(super) fn new(drivers: usize) -> Self {
        Self(Mutex::new(vec![None; drivers]))
    }

    pub(super) fn register(&self, driver: usize, waker: &Waker) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get_mut(driver) {
            match place {
                Some(there) => there.clone_from(waker),
                None => *place = Some(waker.clone()),
            }
        }
    }

    pub(super) fn wake_all(&self) {
        self.wake_others(usize::MAX);
    }

    pub(super) fn wake_others(&self, driver: usize) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, place) in places.iter_mut().enumerate() {
            if index != driver
                && let Some(waker) = place.take()
            {
                waker.wake();
            }
        }
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}
