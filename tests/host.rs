//! The library and the program from outside. One test program, because each one links the whole library.

#![allow(clippy::unwrap_used, clippy::expect_used)] // in the helpers of tests too

mod checkpoint;
mod commands;
mod containers;
mod data;
mod deltas;
mod demo;
mod families;
mod gpus;
mod graph;
mod help;
mod hold;
mod interrupted;
mod labels;
mod memory;
mod messages;
mod observe;
mod onnx;
mod pictures;
mod preprocessing;
mod pytorch_files;
mod ranks;
mod readme;
#[path = "cases/schema.rs"]
mod schema;
mod scrub;
mod serve;
mod text;
#[path = "cases/tiny.rs"]
mod tiny;
#[path = "reference/torch.rs"]
mod torch;
mod verdicts;
mod verify;
mod zoo;
