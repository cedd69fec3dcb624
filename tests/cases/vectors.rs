//! A solver's vectors on CUDA: the CPU's bits but for sums, which have an order of their own, and the way to a layer's rows
//! and back.

use libtest_mimic::Failed;
use scrubjay::device::Device;
use scrubjay::ops::cuda::vector::{self, Places};
use scrubjay::ops::philox::{Stream, Use};

use super::{Case, all_equal, cuda, equal, few, twice};
#[path = "../reference/vector.rs"]
mod reference;

/// Every case, with its name.
pub fn cases() -> Vec<(String, Case)> {
    let mut cases: Vec<(String, Case)> = vec![];
    for len in [1, 31, 255, 256, 257, 4096, 4097, 9000].into_iter().filter(|&len| !few() || len < 4096) {
        cases.push((format!("vector/len={len}"), Box::new(move |d| computes(d, len))));
    }
    for (rows, depth, biased) in [(1, 1, true), (3, 7, true), (5, 32, false), (33, 9, true)] {
        let name = format!("vector/rows={rows},depth={depth},biased={biased}");
        cases.push((name, Box::new(move |d| places(d, rows, depth, biased))));
    }
    cases.push(("vector/shapes".into(), Box::new(refuses)));
    cases
}

fn values(len: usize, key: u32) -> Vec<f64> {
    let mut stream = Stream::new(7, Use::Choice, key);
    (0..len).map(|i| f64::from(stream.normal()) * [1.0, 1e-9, 1e6][i % 3]).collect()
}

fn computes(device: &Device, len: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (x, y, nan) = (values(len, 1), values(len, 2), vec![f64::NAN; len]);
    let (on_x, on_y, on_nan) = (cuda.upload(&x)?, cuda.upload(&y)?, cuda.upload(&nan)?);
    for (b, a, over) in [(1.0, -0.3, 1.0), (0.7, 1.0, 1.0), (-1.0, 1.0, 3.0)] {
        let found = twice(|| {
            let mut out = cuda.upload(&y)?;
            vector::combine(cuda, out.output(), b, Some((a, on_x.input())), over)?;
            Ok(cuda.download(&out)?)
        })?;
        all_equal("b y + a x", &found, &reference::combine(&y, b, &x, a, over))?;
    }
    // What has a factor of 0 is not read.
    let mut out = cuda.upload(&nan)?;
    vector::combine(cuda, out.output(), 0.0, Some((2.0, on_x.input())), 1.0)?;
    all_equal("2 x", &cuda.download(&out)?, &x.iter().map(|x| 2.0 * x).collect::<Vec<_>>())?;
    vector::combine(cuda, out.output(), 1.0, None, 3.0)?;
    all_equal("2 x / 3", &cuda.download(&out)?, &x.iter().map(|x| 2.0 * x / 3.0).collect::<Vec<_>>())?;

    let last = |work: &dyn Fn(scrubjay::ops::cuda::Out<'_, f64>) -> scrubjay::Result<()>| {
        twice(|| {
            let mut scratch = cuda.alloc(vector::parts(len))?;
            work(scratch.output())?;
            Ok(cuda.download(&scratch)?[vector::parts(len) - 1].to_bits())
        })
        .map(f64::from_bits)
    };
    let found = last(&|scratch| vector::dot(cuda, scratch, on_x.input(), on_y.input()))?;
    let (sum, size) = reference::dot(&x, &y);
    let error = (found - sum).abs();
    if error.is_nan() || error > 1e-13 * size {
        return Err(format!("x·y = {found:e}, expected {sum:e}").into());
    }
    let whole: Vec<f64> = (0..len).map(|i| (i * 7 % 31) as f64 - 15.0).collect();
    let on_whole = cuda.upload(&whole)?;
    let found = last(&|scratch| vector::dot(cuda, scratch, on_whole.input(), on_whole.input()))?;
    equal("a sum of whole numbers", &found, &reference::dot(&whole, &whole).0)?;
    let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    let on_narrow = cuda.upload(&narrow)?;
    let found = last(&|scratch| vector::squares(cuda, scratch, on_narrow.input()))?;
    let widened: Vec<f64> = narrow.iter().map(|&x| f64::from(x)).collect();
    let (sum, _) = reference::dot(&widened, &widened);
    let error = (found - sum).abs();
    if error.is_nan() || error > 1e-13 * sum {
        return Err(format!("Σ x² = {found:e}, expected {sum:e}").into());
    }
    let broken = last(&|scratch| vector::dot(cuda, scratch, on_x.input(), on_nan.input()))?;
    equal("a sum of NaN", &broken.is_nan(), &true)?;
    let top = last(&|scratch| vector::largest(cuda, scratch, on_y.input()))?;
    equal("the largest", &top, &y.iter().fold(0.0, |top, y| y.abs().max(top)))
}

fn places(device: &Device, rows: usize, depth: usize, biased: bool) -> Result<(), Failed> {
    let (cuda, width) = (cuda(device)?, depth + usize::from(biased));
    // Rows stand in reverse, with a value between them that is nobody's.
    let starts: Vec<u32> = (0..rows).map(|row| ((rows - 1 - row) * (width + 1)) as u32).collect();
    let v = values(rows * (width + 1), 3);
    let (places, on_v, scale, n) = (Places::new(cuda, &starts, depth, biased)?, cuda.upload(&v)?, 1e3, 7.0);
    let (weight, bias) = twice(|| {
        let (mut weight, mut bias) = (cuda.alloc::<f32>(rows * depth)?, cuda.alloc::<f32>(rows)?);
        let out = biased.then(|| bias.output());
        vector::to_rows(cuda, weight.output(), out, on_v.input(), &places, scale)?;
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        Ok((bits(cuda.download(&weight)?), bits(cuda.download(&bias)?)))
    })?;
    let at = |row: usize, column: usize| starts[row] as usize + column;
    let narrow = |at: usize| ((v[at] / scale) as f32).to_bits();
    let expected = (0..rows * depth).map(|i| narrow(at(i / depth, i % depth))).collect::<Vec<_>>();
    all_equal("weights", &weight, &expected)?;
    if biased {
        all_equal("biases", &bias, &(0..rows).map(|row| narrow(at(row, depth))).collect::<Vec<_>>())?;
    }
    let floats = |bits: &[u32]| bits.iter().map(|&bits| f32::from_bits(bits)).collect::<Vec<f32>>();
    let (weight, bias) = (cuda.upload(&floats(&weight))?, cuda.upload(&floats(&bias))?);
    let found = twice(|| {
        let mut back = cuda.upload(&v)?;
        let bias = biased.then(|| bias.input());
        vector::from_rows(cuda, back.output(), weight.input(), bias, &places, n, scale)?;
        Ok(cuda.download(&back)?)
    })?;
    let mut expected = v.clone();
    for row in 0..rows {
        for column in 0..width {
            let value = &mut expected[at(row, column)];
            *value = f64::from((*value / scale) as f32) / n * scale;
        }
    }
    all_equal("back", &found, &expected)
}

fn refuses(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (three, four) = (cuda.upload(&[0.0; 3])?, cuda.upload(&[0.0; 4])?);
    let mut out = cuda.upload(&[0.0; 3])?;
    let mut rows = cuda.upload(&[0.0f32; 4])?;
    let places = Places::new(cuda, &[0, 2], 2, false)?;
    let taken = [
        vector::combine(cuda, out.output(), 1.0, Some((1.0, four.input())), 1.0).is_ok(),
        vector::dot(cuda, out.output(), three.input(), three.input()).is_ok(),
        vector::dot(cuda, out.output(), three.input(), four.input()).is_ok(),
        vector::largest(cuda, out.output(), three.input()).is_ok(),
        vector::to_rows(cuda, rows.output(), None, three.input(), &places, 1.0).is_ok(),
        vector::to_rows(cuda, rows.output().split_at(3).0, None, four.input(), &places, 1.0).is_ok(),
        vector::from_rows(cuda, out.output(), rows.input(), None, &places, 1.0, 1.0).is_ok(),
        Places::new(cuda, &[u32::MAX], 2, false).is_ok(),
    ];
    match taken.iter().position(|&taken| taken) {
        Some(at) => Err(format!("case {at} was taken").into()),
        None => Ok(()),
    }
}
