//! The target `redis_replies` under libFuzzer.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|octets: &[u8]| longshore_fuzz::redis_replies(octets));

#[cfg(not(fuzzing))]
fn main() {}
