//! An embedding of integer tokens on CUDA, as [`crate::ops::cpu::embedding`], whose `check` refuses tokens that the table
//! does not have; here such a token reads nothing, its row is NaN. Tokens that lie in an arena of floats are its
//! [`In::bits`].
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, elements, word};
use crate::device::cuda::{Launch, tiles};
use crate::error::{Error, Result};
use crate::ops::same;

/// `y` `[n, c]` = the rows of `table` `[rows, c]` that `tokens` `[n]` name.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn forward(
    cuda: &Cuda,
    y: Out<'_, f32>,
    tokens: In<'_, u32>,
    table: In<'_, f32>,
    c: usize,
) -> Result<()> {
    let [n, channels, rows] = shapes("embedding", y.len(), tokens.len(), table.len(), c)?;
    let (launch, _) = elements("embedding", y.len(), tiles::EMBEDDING_THREADS)?;
    // SAFETY: y holds n rows of c values, tokens n, the table rows of c, and a token beyond them is not looked up.
    unsafe { cuda.embedding(launch, y, tokens, table, n, channels, rows) }
}

/// The row of `dtable` `[rows, c]` that each token names += its row of `dy` `[n, c]`; rows of equal tokens are added up in
/// f64, in one order. `order` is scratch of as many values as there are tokens; it takes n² comparisons.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn gradient(
    cuda: &Cuda,
    dtable: Out<'_, f32>,
    mut order: Out<'_, u32>,
    dy: In<'_, f32>,
    tokens: In<'_, u32>,
    c: usize,
) -> Result<()> {
    let op = "embedding_gradient";
    let [n, channels, rows] = shapes(op, dy.len(), tokens.len(), dtable.len(), c)?;
    same(op, "values of scratch", tokens.len(), order.len())?;
    let (sorting, _) = elements(op, tokens.len(), tiles::EMBEDDING_THREADS)?;
    let summing = Launch::blocks(op, tokens.len() * c.div_ceil(32), tiles::EMBEDDING_THREADS)?;
    // SAFETY: order and tokens hold n values.
    unsafe { cuda.embedding_order(sorting, order.output(), tokens, n)? };
    // SAFETY: order is a permutation of n places, tokens holds n values, dy n rows of c, dtable rows of c, and a token
    // beyond them is left out.
    unsafe { cuda.embedding_gradient(summing, dtable, dy, order.input(), tokens, n, channels, rows) }
}

/// Places, channels and rows of the table.
fn shapes(op: &'static str, values: usize, tokens: usize, table: usize, c: usize) -> Result<[u32; 3]> {
    if c == 0 || !table.is_multiple_of(c) {
        return Err(Error::shape(op, format!("rows of {c} values"), format!("{table} values")));
    }
    same(op, "values of tokens", tokens.saturating_mul(c), values)?;
    word(op, "values", values)?;
    word(op, "values in the table", table)?;
    Ok([word(op, "tokens", tokens)?, word(op, "channels", c)?, word(op, "rows", table / c)?])
}
