//! Longshore's transport over Redis Streams.
