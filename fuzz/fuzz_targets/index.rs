#![no_main]

scrubjay_fuzz::target!("index");
