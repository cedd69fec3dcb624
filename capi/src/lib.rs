//! The C API: `include/scrubjay.h` is its manual. The functions here check what C passes, call the library, and put what
//! comes back behind handles; they compute nothing.
//!
//! | file | has |
//! | --- | --- |
//! | `status.rs`, `entry.rs` | statuses, messages, and the one way in, which catches panics |
//! | `handle.rs`, `raw.rs`, `tensor.rs`, `layout.rs`, `dlpack.rs` | handles; pointers, texts and structs; tensors. All `unsafe` is in these and in `callbacks.rs` |
//! | the others | the entry points, one file for each kind of object |

#![deny(clippy::undocumented_unsafe_blocks)]

mod bench;
mod block;
mod callbacks;
mod codec;
mod device;
mod dlpack;
mod entry;
mod files;
mod handle;
mod layout;
mod library;
mod model;
mod outcome;
mod passes;
mod raw;
mod request;
mod samples;
mod session;
mod status;
mod table;
mod tensor;
#[cfg(test)]
mod tests;
mod training;
mod verification;
