//! Panics inside a simulation: those of handlers are wanted, all others are not.

use std::{cell::RefCell, panic, sync::Once};

/// What a handler panics with.
pub(crate) const WANTED: &str = "as it was told";

thread_local! {
    /// The panics of this thread that nobody wanted; `None` outside of a simulation.
    static UNWANTED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Until [`take`], no panic of this thread is printed, and those nobody wanted are kept.
pub(crate) fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let payload = info.payload();
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let kept = UNWANTED.with_borrow_mut(|unwanted| {
                let panics = unwanted.as_mut()?;
                if text != Some(WANTED) {
                    let at = info.location().map(ToString::to_string);
                    panics.push(format!("{text:?} at {}", at.unwrap_or_default()));
                }
                Some(())
            });
            if kept.is_none() {
                print(info);
            }
        }));
    });
    UNWANTED.set(Some(Vec::new()));
}

/// The panics of this thread that nobody wanted, since [`hush`].
pub(crate) fn take() -> Vec<String> {
    UNWANTED.take().unwrap_or_default()
}
