//! What is fuzzed.

mod amqp_envelope;
mod amqp_frames;
mod amqp_wire;
mod codec;
mod envelopes;
mod history;
mod names;
mod redis_envelope;
mod redis_replies;
mod urls;

pub use amqp_envelope::amqp_envelope;
pub use amqp_frames::amqp_frames;
pub use codec::codec;
pub use history::history;
pub use names::names;
pub use redis_envelope::redis_envelope;
pub use redis_replies::redis_replies;
pub use urls::urls;
