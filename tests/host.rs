//! The library and the program from outside. One test program, because each one links the whole library.

#![allow(clippy::unwrap_used, clippy::expect_used)] // in the helpers of tests too

mod checkpoint;
mod commands;
mod data;
mod demo;
mod families;
mod hold;
mod labels;
mod memory;
mod observe;
mod pytorch_files;
#[path = "cases/schema.rs"]
mod schema;
mod scrub;
mod text;
#[path = "cases/tiny.rs"]
mod tiny;
#[path = "reference/torch.rs"]
mod torch;
mod verify;
mod zoo;
