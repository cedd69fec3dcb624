//! The oracle of an embedding: plain loops; table `[rows, c]`. It is linear in the table and has no tangent of tokens.

use super::dual::Number;

/// The table's row of each token.
pub fn forward<T: Number>(tokens: &[u32], table: &[T], c: usize) -> Vec<T> {
    tokens.iter().flat_map(|&token| (0..c).map(move |i| table[token as usize * c + i])).collect()
}

/// `dtable` += the adjoint at `dy`.
pub fn backward<T: Number>(dtable: &mut [T], dy: &[T], tokens: &[u32], c: usize) {
    for (row, &token) in tokens.iter().enumerate() {
        for i in 0..c {
            let at = token as usize * c + i;
            dtable[at] = dtable[at] + dy[row * c + i];
        }
    }
}
