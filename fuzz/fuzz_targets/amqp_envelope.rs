//! The target `amqp_envelope` under libFuzzer.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|octets: &[u8]| longshore_fuzz::amqp_envelope(octets));

#[cfg(not(fuzzing))]
fn main() {}
