#![no_main]

scrubjay_fuzz::target!("tokenizer_config");
