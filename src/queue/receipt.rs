//! The receipt of a request: what became of it, as a file beside the spool's other files.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::audit::Snapshot;
use crate::names::names;

/// The version of the format.
pub const VERSION: u32 = 1;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The model of `version` no longer has its samples, with a measured effect towards its aim.
    Removed,
    /// The removal was tried and not accepted; the model stays as it was.
    NotRemoved,
    /// Nothing was tried.
    Refused,
}

names!(State { Removed = "removed", NotRemoved = "not-removed", Refused = "refused" });

/// A receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The version of the format, 1.
    pub receipt: u32,
    /// The version of the program.
    pub scrubjay: String,
    /// The request's id; what its file was called where that is no id.
    pub id: String,
    /// What became of it.
    pub state: State,
    /// Why not, or what to know of how.
    pub reasons: Vec<String>,
    /// What was asked for (`forget`, `reason`, `metadata`); null where the file is no request.
    pub request: Value,
    /// The hash of that.
    pub request_sha256: Option<String>,
    /// The samples that were removed, or tried, by index in the training data.
    pub samples: Vec<usize>,
    /// Samples of the request that an earlier version had forgotten already.
    pub forgotten_before: Vec<usize>,
    /// The version of the model; none where there is none without them.
    pub version: Option<u32>,
    /// The batch; none where nothing was tried.
    pub batch: Option<BatchAccount>,
    /// When the request's file was written, in seconds since 1970.
    pub received: Option<u64>,
    /// When the receipt was written, in seconds since 1970.
    pub finished: u64,
}

/// The batch that a request was in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchAccount {
    /// How many requests.
    pub requests: usize,
    /// How many samples.
    pub samples: usize,
    /// How the model did before, on the batch's samples and the others.
    pub before: Option<Snapshot>,
    /// How it did after; none where nothing was measured.
    pub after: Option<Snapshot>,
    /// SHA-256 of the model's files before, as reports have it.
    pub model_sha256_before: String,
    /// And after; none where it stays.
    pub model_sha256_after: Option<String>,
}
