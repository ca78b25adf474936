//! A value that many are told of.
//!
//! As `tokio::sync::watch`, which wakes whoever waits in a random order: with it one seed would not
//! be one history.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

/// Pins a value up. Dropping it ends the waiting of all readers.
#[derive(Debug)]
pub(super) struct Notice<T>(Arc<Shared<T>>);

/// Reads it, and is told when it changes, in the order in which readers began to wait.
#[derive(Debug)]
pub(super) struct Reader<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// Nobody can change the value any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

#[derive(Debug)]
struct Shared<T> {
    /// With the number of its last change.
    value: Mutex<(T, u64)>,
    gone: AtomicBool,
    changed: Notify,
}

impl<T: Copy> Notice<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Arc::new(Shared {
            value: Mutex::new((value, 0)),
            gone: AtomicBool::new(false),
            changed: Notify::new(),
        }))
    }

    /// A reader that has seen the value as it is.
    pub(super) fn reader(&self) -> Reader<T> {
        Reader {
            seen: self.0.value().1,
            shared: Arc::clone(&self.0),
        }
    }

    pub(super) fn get(&self) -> T {
        self.0.value().0
    }

    /// Changes the value. Readers are told where `change` says that it did.
    pub(super) fn change(&self, change: impl FnOnce(&mut T) -> bool) {
        {
            let (value, number) = &mut *self.0.value();
            if !change(value) {
                return;
            }
            *number += 1;
        }
        self.0.changed.notify_waiters();
    }
}

impl<T> Drop for Notice<T> {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl<T: Copy> Reader<T> {
    /// The value, without having seen it.
    pub(super) fn get(&self) -> T {
        self.shared.value().0
    }

    /// The value, seen from now on.
    pub(super) fn see(&mut self) -> T {
        let (value, number) = *self.shared.value();
        self.seen = number;
        value
    }

    /// Waits for a value that was not seen, and takes it for seen. Cancel-safe.
    ///
    /// # Errors
    /// There will be none.
    pub(super) async fn changed(&mut self) -> Result<(), Gone> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let number = self.shared.value().1;
            if number != self.seen {
                self.seen = number;
                return Ok(());
            }
            if self.shared.gone.load(Ordering::SeqCst) {
                return Err(Gone);
            }
            changed.await;
        }
    }

    /// Waits for a value like this, also one that was seen. Cancel-safe.
    ///
    /// # Errors
    /// There will be none.
    pub(super) async fn wait_for(&mut self, like: impl Fn(&T) -> bool) -> Result<T, Gone> {
        loop {
            let value = self.see();
            if like(&value) {
                return Ok(value);
            }
            self.changed().await?;
        }
    }
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            seen: self.seen,
        }
    }
}

impl<T> Shared<T> {
    fn value(&self) -> MutexGuard<'_, (T, u64)> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};

    use super::*;

    #[tokio::test]
    async fn a_reader_sees_each_last_value_once_and_the_end() {
        let notice = Notice::new(1);
        let mut reader = notice.reader();
        assert_eq!(reader.changed().now_or_never(), None);
        notice.change(|value| {
            *value = 2;
            false
        });
        assert_eq!(reader.changed().now_or_never(), None);
        for next in [3, 4] {
            notice.change(|value| {
                *value = next;
                true
            });
        }
        let mut other = reader.clone();
        assert_eq!(reader.changed().await, Ok(()));
        assert_eq!((reader.get(), notice.get()), (4, 4));
        assert_eq!(reader.changed().now_or_never(), None);
        assert_eq!(other.wait_for(|value| *value == 4).await, Ok(4));
        assert_eq!(other.wait_for(|value| *value == 5).now_or_never(), None);
        drop(notice);
        assert_eq!(reader.changed().await, Err(Gone));
        assert_eq!(other.wait_for(|value| *value == 4).await, Ok(4));
        assert_eq!(other.wait_for(|value| *value == 5).await, Err(Gone));
    }

    #[tokio::test]
    async fn readers_are_told_in_the_order_in_which_they_began_to_wait() {
        for _ in 0..20 {
            let notice = Notice::new(0);
            let waiting: FuturesUnordered<_> = (0..9)
                .map(|number| {
                    let mut reader = notice.reader();
                    async move { reader.changed().await.map(|()| number) }
                })
                .collect();
            let told = tokio::spawn(waiting.map(|told| told.unwrap_or(99)).collect::<Vec<_>>());
            tokio::task::yield_now().await;
            notice.change(|_| true);
            assert_eq!(told.await.ok(), Some((0..9).collect()));
        }
    }
}
