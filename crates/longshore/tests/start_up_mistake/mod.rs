//! Where a mistake in registration panics, and what it says.

#![allow(missing_docs, unreachable_pub)]

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

thread_local! {
    static SEEN: RefCell<Option<(String, u32)>> = const { RefCell::new(None) };
    static EXPECTED: RefCell<bool> = const { RefCell::new(false) };
}

/// What a start-up mistake told its maker.
#[derive(Debug)]
pub struct Mistake {
    pub file: String,
    pub line: u32,
    pub text: String,
}

/// Runs code that must panic; other threads' panics are shown as ever.
pub fn mistake_in<T>(code: impl FnOnce() -> T) -> Mistake {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !EXPECTED.with_borrow(|expected| *expected) {
                return shown(info);
            }
            let at = info.location().map(|at| (at.file().to_owned(), at.line()));
            SEEN.set(at);
        }));
    });
    EXPECTED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| drop(code())));
    EXPECTED.set(false);
    let panic = outcome.expect_err("this must panic");
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    let (file, line) = SEEN.take().expect("a panic has a place");
    Mistake {
        file,
        line,
        text: text.expect("a panic has a text"),
    }
}

/// Asserts that code panics at the line of this call's first argument, in the file of the caller,
/// with this text.
#[macro_export]
macro_rules! assert_mistake {
    ($line:expr, $mistake:expr, $($says:literal),+ $(,)?) => {{
        let mistake = $mistake;
        assert!(file!().ends_with(&mistake.file), "{mistake:?}");
        assert_eq!(mistake.line, $line, "{mistake:?}");
        $(assert!(mistake.text.contains($says), "{mistake:?}");)+
    }};
}
