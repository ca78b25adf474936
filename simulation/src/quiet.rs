//! Panics: those of handlers are wanted, all others are not.

use std::{cell::RefCell, panic, sync::Once};

/// What a handler panics with.
pub(crate) const WANTED: &str = "as it was told";

thread_local! {
    static UNWANTED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on no panic of this process is printed; those nobody wanted are kept for [`take`].
pub(crate) fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let payload = info.payload();
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            if text != Some(WANTED) {
                let at = info.location().map(ToString::to_string);
                let what = format!("{text:?} at {}", at.unwrap_or_default());
                UNWANTED.with_borrow_mut(|panics| panics.push(what));
            }
        }));
    });
}

/// The panics of this thread that nobody wanted, since the last call.
pub(crate) fn take() -> Vec<String> {
    UNWANTED.with_borrow_mut(std::mem::take)
}
