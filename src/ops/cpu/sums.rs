//! Loops over rows of f32 with arithmetic in f64, in a form that compiles to vector instructions where the caller is compiled
//! for them. The order of a sum depends on the length alone.

/// Partial sums that are added up side by side.
const LANES: usize = 16;

/// Σ f over rows of one length: the values of lane l are added to partial sum l, then the partial sums, then the rest.
#[inline(always)]
pub(crate) fn sum<const N: usize>(rows: [&[f32]; N], f: impl Fn([f64; N]) -> f64) -> f64 {
    let len = rows[0].len();
    let rows = rows.map(|row| row[..len].as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for i in 0..len / LANES {
        let lanes = rows.map(|(chunks, _)| &chunks[i]);
        for lane in 0..LANES {
            sums[lane] += f(lanes.map(|values| f64::from(values[lane])));
        }
    }
    let rest = (0..len % LANES).map(|i| f(rows.map(|(_, rest)| f64::from(rest[i]))));
    sums.iter().sum::<f64>() + rest.sum::<f64>()
}

/// The largest of the values; −∞ of none.
#[inline(always)]
pub(crate) fn largest(row: &[f32]) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut tops = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            tops[lane] = if chunk[lane] > tops[lane] { chunk[lane] } else { tops[lane] };
        }
    }
    tops.iter().chain(rest).fold(f32::NEG_INFINITY, |top, &value| top.max(value))
}

/// out = f of the rows' values.
#[inline(always)]
pub(crate) fn set<const N: usize>(out: &mut [f32], rows: [&[f32]; N], f: impl Fn([f64; N]) -> f64) {
    let rows = rows.map(|row| &row[..out.len()]);
    for i in 0..out.len() {
        out[i] = f(rows.map(|row| f64::from(row[i]))) as f32;
    }
}

/// out += f of the rows' values.
#[inline(always)]
pub(crate) fn add<const N: usize>(out: &mut [f32], rows: [&[f32]; N], f: impl Fn([f64; N]) -> f64) {
    let rows = rows.map(|row| &row[..out.len()]);
    for i in 0..out.len() {
        out[i] += f(rows.map(|row| f64::from(row[i]))) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_counts_once_whatever_the_length() {
        for len in [0, 1, 15, 16, 17, 40] {
            let (a, b): (Vec<f32>, Vec<f32>) = (0..len).map(|i| (i as f32, (i * i) as f32)).unzip();
            assert_eq!(largest(&a), a.last().copied().unwrap_or(f32::NEG_INFINITY));
            let product = |[a, b]: [f64; 2]| a * b;
            let want: usize = (0..len).map(|i| i * i * i).sum();
            assert_eq!(sum([&a, &b], product), want as f64);
            let mut out = a.clone();
            add(&mut out, [&b], |[b]| b);
            assert!((0..len).all(|i| out[i] == (i + i * i) as f32));
            set(&mut out, [&a, &b], product);
            assert!((0..len).all(|i| out[i] == (i * i * i) as f32));
        }
    }
}
