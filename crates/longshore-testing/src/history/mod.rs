//! What happened, in a file that survives the death of any process that writes it.
//!
//! Every process of a run opens the same file with [`Recorder::open`] and adds one [`Event`] after
//! the other. Each is one `write` at the end of the file, so the order of the lines is the order in
//! which things happened, over all processes of one machine, and `kill -9` loses nothing that was
//! recorded. [`read`] gives the lines back.

mod event;
mod recorder;

pub use event::{Answer, Effect, Ending, Event, Fate, Publish, Record};
pub use recorder::{Recorder, now, read};
