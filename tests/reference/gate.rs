//! The oracle of a gate: plain loops, generic over the number; x `[n, positions, c]`, gate `[n, c]`.

use super::dual::Number;

/// The gate's value that x's value i has.
fn at(i: usize, positions: usize, c: usize) -> usize {
    i / (positions * c) * c + i % c
}

/// x ∘ gate.
pub fn forward<T: Number>(x: &[T], gate: &[T], positions: usize, c: usize) -> Vec<T> {
    (0..x.len()).map(|i| x[i] * gate[at(i, positions, c)]).collect()
}

/// The adjoints of x and of the gate at `dy`.
pub fn backward<T: Number>(dy: &[T], x: &[T], gate: &[T], positions: usize, c: usize) -> (Vec<T>, Vec<T>) {
    let mut dgate = vec![T::of(0.0); gate.len()];
    for i in 0..x.len() {
        let at = at(i, positions, c);
        dgate[at] = dgate[at] + dy[i] * x[i];
    }
    (forward(dy, gate, positions, c), dgate)
}
