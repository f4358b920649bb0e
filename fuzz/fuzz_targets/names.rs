//! Feeds `lacewing_fuzz_targets::names` from libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lacewing_fuzz_targets::names::run(data));
