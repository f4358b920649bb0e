//! Feeds `lacewing_fuzz_targets::runtime_api` from libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lacewing_fuzz_targets::runtime_api::run(data));
