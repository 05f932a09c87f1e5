#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ycloud_fuzz::ovsdb::scanner(input));
