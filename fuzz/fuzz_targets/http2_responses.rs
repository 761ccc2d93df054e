//! Coverage-guided fuzzing of `targets::http2_responses`.
#![no_main]

#[path = "../../tests/fuzz/targets.rs"]
#[allow(dead_code, reason = "each binary uses one of them")]
mod targets;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| targets::http2_responses(octets));
