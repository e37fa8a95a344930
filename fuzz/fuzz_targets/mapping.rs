#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jadegate_fuzz::room::within(&jadegate_fuzz::bodies::MAPPING, data));
