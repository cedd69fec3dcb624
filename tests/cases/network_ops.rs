//! The operations of a network on CUDA against the CPU's: the same bits where that is promised.

use libtest_mimic::Failed;
use scrubjay::device::{Cuda, Device};
use scrubjay::ops::cuda as on_cuda;
use scrubjay::ops::{self, Shape, Window};

use super::{Case, FEW, LARGE, cuda, twice};

/// Every case, with its name.
pub fn cases() -> Vec<(String, Case)> {
    let mut cases: Vec<(String, Case)> = vec![];
    for (n, h, w, c) in POOLS {
        for window in WINDOWS {
            if 2 * window.padding <= window.size
                && window.size <= h.min(w) + 2 * window.padding
                && (LARGE || h < 20)
            {
                let name = format!(
                    "n={n},h={h},w={w},c={c},size={},stride={},padding={}",
                    window.size, window.stride, window.padding
                );
                let from = Shape::new(h, w, c);
                cases.push((format!("max_pool/{name}"), Box::new(move |d| max_pools(d, n, from, window))));
                cases.push((
                    format!("average_pool/{name}"),
                    Box::new(move |d| average_pools(d, n, from, window)),
                ));
            }
        }
        for (oh, ow) in [(1, 1), (2, 3), (7, 7)] {
            if !FEW || oh < 7 {
                let (from, to) = (Shape::new(h, w, c), Shape::new(oh, ow, c));
                let name = format!("adaptive_pool/n={n},h={h},w={w},c={c},to={oh}x{ow}");
                cases.push((name, Box::new(move |d| adaptive_pools(d, n, from, to))));
            }
        }
    }
    cases.push(("network_ops/shapes".into(), Box::new(refuses)));
    cases
}

const POOLS: [(usize, usize, usize, usize); 6] =
    [(1, 1, 1, 1), (2, 3, 3, 31), (1, 5, 4, 33), (3, 8, 7, 32), (1, 2, 9, 3), (2, 28, 28, 64)];
const WINDOWS: [Window; 5] = [
    Window { size: 1, stride: 1, padding: 0 },
    Window { size: 2, stride: 2, padding: 0 },
    Window { size: 3, stride: 2, padding: 1 },
    Window { size: 3, stride: 1, padding: 1 },
    Window { size: 2, stride: 3, padding: 1 },
];

/// Values with ties, zeros of both signs and a constant run.
fn values(len: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| {
        let x = (((i + 1) * (2 * seed + 37)) as f32 * 0.618_034).fract() * 4.0 - 2.0;
        match i % 7 {
            0 => 0.0,
            1 => -0.0,
            2 | 3 => (x * 2.0).round() / 2.0,
            _ if i % 64 < 9 => 0.3,
            _ => x,
        }
    };
    (0..len).map(value).collect()
}

/// Fails where a bit differs.
fn same_bits(what: &str, found: &[f32], expected: &[f32]) -> Result<(), Failed> {
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    match found.iter().zip(expected).position(differs) {
        Some(i) => Err(format!("{what}[{i}]: {:e}, expected {:e}", found[i], expected[i]).into()),
        None if found.len() != expected.len() => Err(format!("{what}: {} values", found.len()).into()),
        None => Ok(()),
    }
}

/// What `work` writes to `start` on the device, twice the same.
fn adds(
    cuda: &Cuda,
    start: &[f32],
    work: impl Fn(on_cuda::Out<'_, f32>) -> scrubjay::Result<()>,
) -> Result<Vec<f32>, Failed> {
    let bits = twice(|| {
        let mut out = cuda.upload(start)?;
        work(out.output())?;
        Ok(cuda.download(&out)?.into_iter().map(f32::to_bits).collect::<Vec<u32>>())
    })?;
    Ok(bits.into_iter().map(f32::from_bits).collect())
}

/// What `work` writes to `len` values that begin as NaN.
fn writes(
    cuda: &Cuda,
    len: usize,
    work: impl Fn(on_cuda::Out<'_, f32>) -> scrubjay::Result<()>,
) -> Result<Vec<f32>, Failed> {
    adds(cuda, &vec![f32::NAN; len], work)
}

fn windowed(from: Shape, window: Window) -> Shape {
    let side = |size: usize| (size + 2 * window.padding - window.size) / window.stride + 1;
    Shape::new(side(from.h), side(from.w), from.c)
}

fn max_pools(device: &Device, n: usize, from: Shape, window: Window) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let to = windowed(from, window);
    let (inner, outer) = (n * from.len(), n * to.len());
    let (x, dy) = (values(inner, 1), values(outer, 2));
    let (mut y, mut winners) = (vec![0.0; outer], vec![0; outer]);
    ops::pool::max_pool(&mut y, &mut winners, &x, n, from, to, window);
    let on_device = cuda.upload(&x)?;
    let mut found = cuda.alloc(outer)?;
    let largest = writes(cuda, outer, |y| {
        on_cuda::pool::max_pool(cuda, y, cuda.alloc(outer)?.output(), on_device.input(), n, from, to, window)
    })?;
    same_bits("y", &largest, &y)?;
    on_cuda::pool::max_pool(
        cuda,
        cuda.alloc(outer)?.output(),
        found.output(),
        on_device.input(),
        n,
        from,
        to,
        window,
    )?;
    super::all_equal("winners", &cuda.download(&found)?, &winners)?;
    let tangent = writes(cuda, outer, |t| {
        on_cuda::pool::max_pool_tangent(cuda, t, found.input(), on_device.input(), n, from, to)
    })?;
    same_bits("tangent", &tangent, &y)?;
    let mut expected = values(inner, 3);
    let back = cuda.upload(&dy)?;
    let dx = adds(cuda, &expected, |dx| {
        on_cuda::pool::max_pool_backward(cuda, dx, found.input(), back.input(), n, from, to, window)
    })?;
    ops::pool::scatter(&mut expected, &winners, &dy, n, from, to);
    same_bits("dx", &dx, &expected)
}

fn average_pools(device: &Device, n: usize, from: Shape, window: Window) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let to = windowed(from, window);
    let (x, dy) = (values(n * from.len(), 1), values(n * to.len(), 2));
    let (mut y, mut dx) = (vec![0.0; dy.len()], values(x.len(), 3));
    let (on_device, back) = (cuda.upload(&x)?, cuda.upload(&dy)?);
    let mean = writes(cuda, y.len(), |y| {
        on_cuda::pool::average_pool(cuda, y, on_device.input(), n, from, to, window)
    })?;
    ops::pool::average_pool(&mut y, &x, n, from, to, window);
    same_bits("y", &mean, &y)?;
    let spread = adds(cuda, &dx, |dx| {
        on_cuda::pool::average_pool_backward(cuda, dx, back.input(), n, from, to, window)
    })?;
    ops::pool::average_pool_adjoint(&mut dx, &dy, n, from, to, window);
    same_bits("dx", &spread, &dx)
}

fn adaptive_pools(device: &Device, n: usize, from: Shape, to: Shape) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (x, dy) = (values(n * from.len(), 1), values(n * to.len(), 2));
    let (mut y, mut dx) = (vec![0.0; dy.len()], values(x.len(), 3));
    let (on_device, back) = (cuda.upload(&x)?, cuda.upload(&dy)?);
    let mean =
        writes(cuda, y.len(), |y| on_cuda::pool::adaptive_pool(cuda, y, on_device.input(), n, from, to))?;
    ops::pool::adaptive_pool(&mut y, &x, n, from, to);
    same_bits("y", &mean, &y)?;
    let spread =
        adds(cuda, &dx, |dx| on_cuda::pool::adaptive_pool_backward(cuda, dx, back.input(), n, from, to))?;
    ops::pool::adaptive_pool_adjoint(&mut dx, &dy, n, from, to);
    same_bits("dx", &spread, &dx)
}

fn refuses(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let refused =
        |what: &str, ok: bool| if ok { Ok(()) } else { Err(Failed::from(format!("{what} was taken"))) };
    let x = cuda.upload(&[0.0; 12])?;
    let mut y = cuda.alloc(12)?;
    let (from, to) = (Shape::new(2, 3, 2), Shape::new(1, 1, 2));
    let mut average = |len: usize, from: Shape, to: Shape, size: usize, stride: usize, padding: usize| {
        let window = Window { size, stride, padding };
        let (y, _) = y.output().split_at(len);
        on_cuda::pool::average_pool(cuda, y, x.input(), 1, from, to, window).is_err()
    };
    refused("half an output", average(1, from, to, 2, 2, 0))?;
    refused("another image", average(2, Shape::new(3, 3, 2), to, 2, 2, 0))?;
    refused("other channels", average(1, from, Shape::new(1, 1, 1), 2, 2, 0))?;
    refused("a window of nothing", average(2, from, to, 0, 2, 0))?;
    refused("a window in the padding", average(12, from, Shape::new(3, 2, 2), 2, 2, 1))?;
    refused("a step of nothing", average(2, from, to, 2, 0, 0))
}
