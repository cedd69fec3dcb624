//! A = Σ s/c, one mean at a time, by 128-bit division.

/// Σ ⌊s/c⌋ and Σ ⌊2⁶⁴ (s mod c)/c⌋.
pub fn statistic(sums: &[u64], counts: &[u32]) -> (u64, u128) {
    sums.iter().zip(counts).fold((0, 0), |(whole, fraction), (&s, &c)| {
        let c = u64::from(c);
        (whole + s / c, fraction + (u128::from(s % c) << 64) / u128::from(c))
    })
}
