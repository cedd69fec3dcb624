//! Sums over many items, as of a gradient over positions: by chunks of items, whose sums are then added up in order.
#![allow(unsafe_code)] // a launch

use super::{Cuda, In, Out, word};
use crate::device::cuda::{Launch, tiles};
use crate::error::Result;
use crate::ops::same;

/// Blocks that keep a large GPU busy.
const BLOCKS: usize = 512;

/// How items are shared out: in enough chunks for a GPU, none with too little to do.
#[derive(Clone, Copy)]
pub(super) struct Chunks {
    /// Items of a chunk.
    pub size: usize,
    /// How many chunks there are.
    pub count: usize,
    /// No fewer than `count`, and never fewer for more items.
    pub most: usize,
}

impl Chunks {
    /// Of `items`, where a chunk takes this many blocks and has `least` items where there are as many; but for the last,
    /// a chunk has a multiple of `step` items.
    pub fn new(items: usize, blocks: usize, least: usize, step: usize) -> Chunks {
        let most = (BLOCKS / blocks.max(1)).min(items / least).max(1);
        let size = items.div_ceil(most).next_multiple_of(step).max(1);
        Chunks { size, count: items.div_ceil(size), most }
    }
}

/// `dw` `[rows, depth]` += and `db` `[rows]` += the sums of `parts` `[chunks, rows, depth + 1]` over chunks: the last
/// value of a row is db's.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub(super) fn add(
    cuda: &Cuda,
    op: &'static str,
    dw: Out<'_, f32>,
    db: Option<Out<'_, f32>>,
    parts: In<'_, f32>,
    rows: usize,
    depth: usize,
    chunks: usize,
) -> Result<()> {
    same(op, "values in parts", chunks * rows * (depth + 1), parts.len())?;
    same(op, "values", rows * depth, dw.len())?;
    if let Some(db) = &db {
        same(op, "biases", rows, db.len())?;
    }
    word(op, "parameters", rows * (depth + 1))?;
    let word = |value: usize| word(op, "values", value);
    let launch = Launch::over(op, rows * (depth + 1), tiles::CHUNKS_THREADS)?;
    let (rows, depth, chunks) = (word(rows)?, word(depth)?, word(chunks)?);
    // SAFETY: parts holds chunks of rows of depth and one values, dw rows of depth, db as many values as rows.
    unsafe { cuda.add_chunks(launch, dw, db, parts, rows, depth, chunks) }
}
