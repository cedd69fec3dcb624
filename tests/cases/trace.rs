//! A trace on its way to FOCI on CUDA: sums and means with the host's bits, columns, and the first value that is no number.
use libtest_mimic::Failed;
use scrubjay::device::Device;
use scrubjay::ops::cuda::trace;

use super::checks::values;
use super::{Case, all_equal, cuda, equal, twice};

/// Every case, with its name.
pub fn cases() -> Vec<(String, Case)> {
    let mut cases: Vec<(String, Case)> = vec![];
    for (n, d) in [(1, 1), (2, 33), (31, 7), (33, 65), (70, 32)] {
        cases.push((format!("trace/n={n},d={d}"), Box::new(move |device| moves(device, n, d))));
    }
    cases.push(("trace/shapes".into(), Box::new(refuses)));
    cases
}

fn moves(device: &Device, n: usize, d: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let samples = [1, 2, 3].map(|seed| values(n * d, seed));
    let on_device = samples.iter().map(|sample| cuda.upload(sample)).collect::<Result<Vec<_>, _>>()?;
    let means = twice(|| {
        let (mut sums, mut means) = (cuda.alloc(n * d)?, cuda.upload(&vec![f32::NAN; n * d])?);
        for (i, sample) in on_device.iter().enumerate() {
            trace::add(cuda, sums.output(), sample.input(), i > 0)?;
        }
        trace::mean(cuda, means.output(), sums.input(), 3)?;
        Ok(cuda.download(&means)?)
    })?;
    let wide = |i: usize| samples.iter().fold(0.0, |sum, sample| sum + f64::from(sample[i]));
    all_equal("means", &means, &(0..n * d).map(|i| (wide(i) / 3.0) as f32).collect::<Vec<_>>())?;

    let table = &samples[0];
    for range in [0..d, d / 2..d, 0..d.div_ceil(2)] {
        let columns = trace::columns(cuda, on_device[0].input(), n, d, range.clone())?;
        let at = |j: usize| (0..n).map(move |i| f64::from(table[i * d + j]));
        all_equal("columns", &cuda.download(&columns)?, &range.flat_map(at).collect::<Vec<_>>())?;
    }

    let first = |table: &[f32]| -> Result<Option<(usize, u32)>, Failed> {
        let found = trace::not_finite(cuda, cuda.upload(table)?.input())?;
        Ok(found.map(|(at, value)| (at, value.to_bits())))
    };
    equal("a table of numbers", &first(table)?, &None)?;
    for (at, value) in [(n * d - 1, f32::NEG_INFINITY), (n * d / 2, f32::NAN), (0, f32::INFINITY)] {
        let mut table = table.clone();
        table[at..].fill(f32::INFINITY);
        table[at] = value;
        equal("what is no number", &first(&table)?, &Some((at, value.to_bits())))?;
    }
    Ok(())
}

fn refuses(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let six = cuda.upload(&[0.0f32; 6])?;
    let mut sums = cuda.alloc(5)?;
    let mut means = cuda.alloc(6)?;
    let refused = [
        trace::add(cuda, sums.output(), six.input(), false).is_err(),
        trace::mean(cuda, means.output(), sums.input(), 1).is_err(),
        trace::columns(cuda, six.input(), 2, 4, 0..1).is_err(),
        trace::columns(cuda, six.input(), 2, 3, 2..4).is_err(),
        trace::columns(cuda, six.input(), 2, 3, 1..1).is_err(),
    ];
    all_equal("what is refused", &refused, &[true; 5])
}
