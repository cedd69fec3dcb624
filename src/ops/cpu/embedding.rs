//! An embedding of integer tokens: `y[i, :] = table[token[i], :]`; `y` `[n, c]` over the places of all sequences, `tokens`
//! `[n]`, `table` `[rows, c]`. A network's arena keeps tokens as the bits of its floats. Tokens are data, and no unit of a
//! table is ever selected, so that there is a forward pass and, for training, the gradient of the table, and no tangent.

use crate::error::{Error, Result};

/// Refuses tokens that a table of this many rows does not have. Both devices give NaN for such a token and leave it out of
/// gradients, so this stands where tokens come in, before anything runs.
///
/// # Errors
/// The first such token, and its place.
pub fn check(tokens: &[u32], rows: usize) -> Result<()> {
    match tokens.iter().position(|&token| token as usize >= rows) {
        None => Ok(()),
        Some(i) => {
            let found = format!("token {} at place {i}", tokens[i]);
            Err(Error::shape("embedding", format!("tokens below {rows}"), found))
        }
    }
}

/// `y` = the rows of `table` that `tokens` name.
pub fn forward(y: &mut [f32], tokens: &[u32], table: &[f32], c: usize) {
    lengths(y, tokens, table, c);
    for (y, &token) in y.chunks_exact_mut(c).zip(tokens) {
        match table.chunks_exact(c).nth(token as usize) {
            Some(row) => y.copy_from_slice(row),
            None => y.fill(f32::NAN),
        }
    }
}

/// The row of `dtable` that each token names += its row of `dy`. Rows of equal tokens are added up in order, in f64.
pub fn gradient(dtable: &mut [f32], dy: &[f32], tokens: &[u32], c: usize) {
    lengths(dy, tokens, dtable, c);
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|&i| tokens[i]); // stable
    let mut sums = vec![0.0; c];
    for run in order.chunk_by(|&a, &b| tokens[a] == tokens[b]) {
        let Some(row) = dtable.chunks_exact_mut(c).nth(tokens[run[0]] as usize) else { continue };
        sums.fill(0.0);
        for &i in run {
            sums.iter_mut().zip(&dy[i * c..(i + 1) * c]).for_each(|(sum, &dy)| *sum += f64::from(dy));
        }
        row.iter_mut().zip(&sums).for_each(|(dtable, &sum)| *dtable += sum as f32);
    }
}

fn lengths(values: &[f32], tokens: &[u32], table: &[f32], c: usize) {
    assert!(c > 0 && table.len().is_multiple_of(c), "embedding: {} values in rows of {c}", table.len());
    assert_eq!(values.len(), tokens.len() * c, "embedding: values of {} tokens", tokens.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stands_where_its_token_does_and_its_gradient_sums_over_them() {
        let table = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut y = [0.0; 6];
        forward(&mut y, &[2, 0, 2], &table, 2);
        assert_eq!(y, [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
        let mut dtable = [1.0; 6];
        gradient(&mut dtable, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0], &[2, 0, 2], 2);
        assert_eq!(dtable, [5.0, 9.0, 1.0, 1.0, 18.0, 35.0]);
    }

    #[test]
    fn a_token_beyond_the_table_is_refused_and_reads_nothing() {
        check(&[0, 2, 1], 3).unwrap();
        let error = check(&[0, 3, 1], 3).unwrap_err().to_string();
        assert!(error.contains("token 3 at place 1") && error.contains("below 3"), "{error}");
        let mut y = [0.0; 2];
        forward(&mut y, &[1, 3], &[7.0; 3], 1);
        assert!(y[0] == 7.0 && y[1].is_nan());
        let mut dtable = [0.0; 3];
        gradient(&mut dtable, &[1.0, 2.0], &[1, 3], 1);
        assert_eq!(dtable, [0.0, 1.0, 0.0]);
    }
}
