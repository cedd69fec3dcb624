//! The operations of a network on CUDA: the CPU's bits where that is promised, else the oracle's values as closely as a
//! plain loop in f32 gives them.

use libtest_mimic::Failed;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use scrubjay::block::Block;
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::data::{InputKind, Inputs, Samples};
use scrubjay::device::cuda::Buffer;
use scrubjay::device::{Cuda, Device};
use scrubjay::evidence::select;
use scrubjay::kfac::Kfac;
use scrubjay::loss::{LogitProduct, Loss, softmax};
use scrubjay::net::{LayerId, Network, UnitId};
use scrubjay::observe::{evaluate, observe, observe_copies};
use scrubjay::ops::Geometry;
use scrubjay::ops::Strided;
use scrubjay::ops::cuda as on_cuda;
use scrubjay::ops::{self, Activation, Conv, Precision, Shape, Window};
use scrubjay::perturb::{Noise, perturb, perturb_request};
use scrubjay::select::{Criteria, Method};
use scrubjay::solve::{CudaVector, Limits, Negative, Vector, conjugate_gradient, largest_eigenvalue};
use scrubjay::task::{Approximation, Calibration, Settings, Target, Task};
use scrubjay::unlearn::unlearn;
use scrubjay::{Error, zoo};

use super::dual::{Dual, Number};
use super::{Case, attention, conv, cuda, few, large, layers, nets, oracle, ptx, twice};

const LOSS: Loss = Loss::CrossEntropy { smoothing: 0.0 };

/// Every case, with its name.
pub fn cases() -> Vec<(String, Case)> {
    let mut cases: Vec<(String, Case)> = vec![];
    for (n, h, w, c) in POOLS.into_iter().filter(|&(_, h, w, _)| !few() || h * w < 16) {
        for window in WINDOWS {
            if 2 * window.padding <= window.size
                && window.size <= h.min(w) + 2 * window.padding
                && (large() || h < 20)
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
            if !few() || oh < 7 {
                let (from, to) = (Shape::new(h, w, c), Shape::new(oh, ow, c));
                let name = format!("adaptive_pool/n={n},h={h},w={w},c={c},to={oh}x{ow}");
                cases.push((name, Box::new(move |d| adaptive_pools(d, n, from, to))));
            }
        }
    }
    for kind in Activation::ALL {
        for len in if few() { vec![33] } else { vec![1, 31, 32, 33, 1000] } {
            let name = format!("activation/{kind:?},len={len}").to_lowercase();
            cases.push((name, Box::new(move |d| activations(d, kind, len))));
        }
    }
    for (positions, c) in [(1, 1), (31, 3), (32, 32), (33, 33), (300, 64)] {
        if large() || positions < 300 {
            let name = format!("pointwise/positions={positions},c={c}");
            cases.push((name, Box::new(move |d| pointwise(d, positions, c))));
        }
    }
    for (n, c) in [(1, 1), (2, 31), (3, 32), (2, 33)] {
        cases.push((format!("rows/n={n},c={c}"), Box::new(move |d| moves(d, n, c))));
    }
    for (n, h, w, c, stride, to) in
        [(1, 1, 1, 1, 1, 1), (2, 5, 4, 3, 2, 7), (1, 8, 8, 16, 2, 32), (3, 3, 7, 2, 3, 2)]
    {
        let (name, from) =
            (format!("shortcut/n={n},h={h},w={w},c={c},stride={stride},to={to}"), Shape::new(h, w, c));
        cases.push((name, Box::new(move |d| shortcuts(d, n, from, stride, to))));
    }
    for (n, c) in [(1, 2), (3, 31), (5, 32), (4, 33), (131, 9), (2, 192), (9, 768)] {
        if large() || c < 768 {
            cases.push((format!("layer_norm/n={n},c={c}"), Box::new(move |d| layer_norms(d, n, c))));
        }
    }
    for (n, classes) in [(1, 2), (8, 10), (5, 31), (4, 32), (7, 33), (6, 1000)] {
        if large() || classes < 1000 {
            cases.push((format!("loss/n={n},classes={classes}"), Box::new(move |d| losses(d, n, classes))));
        }
    }
    for (n, t, heads, width) in
        [(1, 1, 1, 1), (2, 5, 2, 3), (1, 31, 3, 32), (2, 33, 1, 33), (1, 197, 2, 64), (1, 130, 1, 128)]
    {
        if large() || t < if few() { 33 } else { 130 } {
            let name = format!("attention/n={n},t={t},heads={heads},width={width}");
            cases.push((name, Box::new(move |d| attentions(d, n, t, heads, width, None))));
        }
    }
    for (n, h, w, c, o, shape) in CONVS {
        if large() || h * w * c < 500 {
            let Conv { kernel: (r, s), stride, padding: (p, _), dilation, groups } = shape;
            let name = format!("n={n},h={h},w={w},c={c},o={o},{r}x{s},stride={stride},padding={p}");
            let (name, x) = (format!("{name},dilation={dilation},groups={groups}"), Shape::new(h, w, c));
            cases.push((format!("conv/{name}"), Box::new(move |d| convs(d, n, x, o, shape))));
            cases
                .push((format!("conv_adjoints/{name}"), Box::new(move |d| conv_adjoints(d, n, x, o, shape))));
            cases.push((format!("moments/{name}"), Box::new(move |d| moments(d, n, x, o, shape))));
            for precision in LOWERED {
                let name = format!("conv_{}/{name}", precision.name());
                cases.push((name, Box::new(move |d| lowered(d, precision, n, x, o, shape))));
            }
        }
    }
    // the thread sanitizer does not see how Rust's threads wait for each other
    for case in nets::CASES.into_iter().filter(|_| !few()) {
        let name = format!("observe/{}", case.name);
        cases.push((name, Box::new(move |d| observes(d, &case.network(7)?.freeze(), 5))));
        for all in [true, false] {
            let name = format!("kfac/{},{}", case.name, if all { "all" } else { "some" });
            cases.push((name, Box::new(move |d| factors(d, &case.network(7)?.freeze(), all, 5))));
        }
        if ["residual", "vit", "cnn"].contains(&case.name) {
            let name = format!("solve/{}", case.name);
            cases.push((name, Box::new(move |d| solves(d, &case.network(7)?.freeze(), 5))));
        }
        let small = ["softmax", "mlp"].contains(&case.name); // the forms of the loss differ in nothing below it
        for (kind, all) in KINDS_OF_CURVATURE.into_iter().filter(|(kind, _)| small || *kind == Kind::Hessian)
        {
            let rows = if all { "all" } else { "some" };
            let name = format!("curvature/{},{kind:?},{rows}", case.name).to_lowercase();
            cases.push((name, Box::new(move |d| derives(d, &case.network(7)?.freeze(), kind, all, 5))));
        }
    }
    let (image, text) = (InputKind::Image(Shape::new(16, 12, 3)), InputKind::Text { tokens: 7 });
    let created = [
        ("resnet20", image),
        ("cnn:8-16-16+32", image),
        ("distilbert:24-8-2-2-9", text),
        ("bert:24-8-1-2-9", text),
    ];
    for (name, input) in created.into_iter().filter(|_| large()) {
        let observed = move |d: &Device| {
            let net = zoo::create(name, input, 4, 3)?.network.freeze();
            observes(d, &net, 2)
        };
        cases.push((format!("observe/{name}"), Box::new(observed)));
        let derived = move |d: &Device| {
            let net = zoo::create(name, input, 4, 3)?.network.freeze();
            derives(d, &net, Kind::Hessian, false, 2)
        };
        cases.push((format!("curvature/{name}"), Box::new(derived)));
    }
    if !few() {
        cases.push(("scrub/mlp:8".into(), Box::new(scrubs)));
        cases.push(("scrub/distilbert:24-8-1-2-9".into(), Box::new(scrubs_texts)));
        for precision in LOWERED {
            let name = format!("select/{}", precision.name());
            cases.push((name, Box::new(move |d| selects(d, precision))));
        }
    }
    cases.push(("conv_data/products".into(), Box::new(products)));
    cases.push(("network_ops/shapes".into(), Box::new(refuses)));
    cases
}

const KINDS_OF_CURVATURE: [(Kind, bool); 4] =
    [(Kind::Hessian, true), (Kind::Hessian, false), (Kind::Ggn, false), (Kind::Fisher, true)];

const POOLS: [(usize, usize, usize, usize); 6] =
    [(1, 1, 1, 1), (2, 3, 3, 31), (1, 5, 4, 33), (3, 8, 7, 32), (1, 2, 9, 3), (2, 28, 28, 64)];
const WINDOWS: [Window; 5] = [
    Window { size: 1, stride: 1, padding: 0 },
    Window { size: 2, stride: 2, padding: 0 },
    Window { size: 3, stride: 2, padding: 1 },
    Window { size: 3, stride: 1, padding: 1 },
    Window { size: 2, stride: 3, padding: 1 },
];

const LOWERED: [Precision; 3] = [Precision::Tf32, Precision::Bf16, Precision::F16];

const CONVS: [(usize, usize, usize, usize, usize, Conv); 18] = [
    (1, 1, 1, 1, 1, Conv::square(1, 1, 0)),
    (33, 1, 1, 31, 10, Conv::square(1, 1, 0)), // linear
    (5, 1, 1, 32, 64, Conv::square(1, 1, 0)),
    (2, 1, 33, 33, 31, Conv::square(1, 1, 0)), // linear, on tokens
    (2, 5, 6, 3, 33, Conv::square(3, 1, 1)),
    (2, 7, 7, 4, 6, Conv { groups: 2, dilation: 2, ..Conv::square(3, 1, 2) }),
    (1, 8, 5, 6, 6, Conv { groups: 6, ..Conv::square(3, 2, 1) }),
    (1, 4, 9, 2, 5, Conv { kernel: (1, 3), padding: (0, 1), ..Conv::square(1, 1, 0) }),
    (2, 6, 5, 16, 24, Conv { kernel: (3, 2), stride: 2, padding: (1, 0), dilation: 1, groups: 2 }),
    (1, 5, 5, 33, 33, Conv { groups: 33, ..Conv::square(3, 1, 1) }),
    (2, 7, 6, 31, 62, Conv { groups: 31, dilation: 2, ..Conv::square(3, 2, 2) }),
    (3, 9, 8, 32, 32, Conv { groups: 32, ..Conv::square(7, 1, 3) }), // more taps than are held at once
    (2, 9, 10, 5, 7, Conv::square(3, 3, 1)),
    (1, 8, 9, 6, 4, Conv { dilation: 3, ..Conv::square(3, 2, 3) }),
    (2, 7, 9, 3, 5, Conv { dilation: 2, ..Conv::square(3, 4, 2) }), // remainders that no tap has
    (1, 14, 14, 3, 64, Conv::square(7, 2, 3)),
    (3, 9, 9, 64, 130, Conv::square(3, 1, 1)),
    (3, 30, 30, 4, 8, Conv::square(3, 1, 1)),
];

/// Values with ties, zeros of both signs and a constant run.
pub fn values(len: usize, seed: usize) -> Vec<f32> {
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
pub fn same_bits(what: &str, found: &[f32], expected: &[f32]) -> Result<(), Failed> {
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    match found.iter().zip(expected).position(differs) {
        Some(i) => Err(format!("{what}[{i}]: {:e}, expected {:e}", found[i], expected[i]).into()),
        None if found.len() != expected.len() => Err(format!("{what}: {} values", found.len()).into()),
        None => Ok(()),
    }
}

/// What `work` writes to `start` on the device, twice the same.
pub fn adds(
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
pub fn writes(
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
    ops::cpu::pool::max_pool(&mut y, &mut winners, &x, n, from, to, window);
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
    ops::cpu::pool::scatter(&mut expected, &winners, &dy, n, from, to);
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
    ops::cpu::pool::average_pool(&mut y, &x, n, from, to, window);
    same_bits("y", &mean, &y)?;
    let spread = adds(cuda, &dx, |dx| {
        on_cuda::pool::average_pool_backward(cuda, dx, back.input(), n, from, to, window)
    })?;
    ops::cpu::pool::average_pool_adjoint(&mut dx, &dy, n, from, to, window);
    same_bits("dx", &spread, &dx)
}

fn adaptive_pools(device: &Device, n: usize, from: Shape, to: Shape) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (x, dy) = (values(n * from.len(), 1), values(n * to.len(), 2));
    let (mut y, mut dx) = (vec![0.0; dy.len()], values(x.len(), 3));
    let (on_device, back) = (cuda.upload(&x)?, cuda.upload(&dy)?);
    let mean =
        writes(cuda, y.len(), |y| on_cuda::pool::adaptive_pool(cuda, y, on_device.input(), n, from, to))?;
    ops::cpu::pool::adaptive_pool(&mut y, &x, n, from, to);
    same_bits("y", &mean, &y)?;
    let spread =
        adds(cuda, &dx, |dx| on_cuda::pool::adaptive_pool_backward(cuda, dx, back.input(), n, from, to))?;
    ops::cpu::pool::adaptive_pool_adjoint(&mut dx, &dy, n, from, to);
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
    refused("a step of nothing", average(2, from, to, 2, 0, 0))?;
    // Two groups of two inputs and three outputs, filters of 1 x 1 on two pixels.
    let grouped = filtered(Shape::new(1, 2, 4), 6, Conv { groups: 2, ..Conv::square(1, 1, 0) });
    let (on_x, on_dz) = (cuda.upload(&[0.0; 8])?, cuda.upload(&[0.0; 12])?);
    let moment = |len: usize, one: usize, sets: &[u32], width: usize| {
        let (mut a, mut room) = (cuda.alloc(len)?, cuda.alloc(sets.len() * width * width)?);
        let (one, sets) = (cuda.upload(&on_cuda::moments::ONE[..one])?, cuda.upload(sets)?);
        let (a, room, one, sets) = (a.output(), room.output(), one.input(), sets.input());
        on_cuda::moments::input(cuda, a, room, on_x.input(), one, sets, width, 1, &grouped)
    };
    moment(18, 4, &[0, 1], 3)?;
    refused("a moment of more than a 1 behind the taps", moment(32, 4, &[0, 1], 4).is_err())?;
    refused("a moment of more groups than there are", moment(27, 4, &[0, 1, 1], 3).is_err())?;
    refused("a moment that is too short", moment(17, 4, &[0, 1], 3).is_err())?;
    refused("less than what is behind the taps", moment(18, 3, &[0, 1], 3).is_err())?;
    let moment = |len: usize, rows: &[u32], width: usize, room: usize| {
        let (mut g, mut room, rows) = (cuda.alloc(len)?, cuda.alloc(room)?, cuda.upload(rows)?);
        let (g, room, rows) = (g.output(), room.output(), Some(rows.input()));
        on_cuda::moments::output(cuda, g, room, on_dz.input(), rows, width, 1, &grouped)
    };
    moment(8, &[0, 2, 3, 5], 2, 8)?;
    refused("a moment of more rows than a group has", moment(16, &[0, 2, 3, 5], 4, 16).is_err())?;
    refused("a moment without rows", moment(0, &[], 2, 0).is_err())?;
    refused("a moment that is too long", moment(9, &[0, 2, 3, 5], 2, 8).is_err())?;
    refused("a moment without room", moment(8, &[0, 2, 3, 5], 2, 7).is_err())
}

/// Fails unless ‖found − exact‖ is at most twice that of a plain f32 loop, and four roundings of ‖exact‖ more.
pub fn close<T: Copy + Into<f64>>(
    what: &str,
    found: &[T],
    exact: &[f64],
    plain: &[f32],
) -> Result<(), Failed> {
    let norm = |f: &dyn Fn(usize) -> f64| (0..exact.len()).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
    let error = norm(&|i| found[i].into() - exact[i]);
    let loop_error = norm(&|i| f64::from(plain[i]) - exact[i]);
    let allowed = 2.0 * loop_error + 4.0 * f64::from(f32::EPSILON) * norm(&|i| exact[i]);
    match found.len() == exact.len() && error <= allowed {
        true => Ok(()),
        false => Err(format!("{what}: off by {error:e}, a plain loop by {loop_error:e}").into()),
    }
}

/// Fails unless ‖found − expected‖ is within 1e-5 of ‖expected‖: two ways of summing in f32.
fn near<T: Copy + Into<f64>>(what: &str, found: &[T], expected: &[T]) -> Result<(), Failed> {
    let norm = |f: &dyn Fn(usize) -> f64| (0..expected.len()).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
    let (off, size) = (norm(&|i| found[i].into() - expected[i].into()), norm(&|i| expected[i].into()));
    match found.len() == expected.len() && off <= 1e-5 * size {
        true => Ok(()),
        false => Err(Failed::from(format!("{what}: off by {off:e} of {size:e}"))),
    }
}

/// Values as another number.
pub fn wide<T: Number>(values: &[f32]) -> Vec<T> {
    values.iter().map(|&v| T::of(f64::from(v))).collect()
}

/// Values with a direction.
pub fn dual<T: Number>(values: &[f32], slopes: &[f32]) -> Vec<Dual<T>> {
    let pair = |(value, slope)| Dual { value, slope };
    wide(values).into_iter().zip(wide(slopes)).map(pair).collect()
}

pub fn slopes<T: Copy>(values: &[Dual<T>]) -> Vec<T> {
    values.iter().map(|v| v.slope).collect()
}

/// The sum of two vectors.
pub fn plus<T: Number>(a: &[T], b: &[T]) -> Vec<T> {
    a.iter().zip(b).map(|(&a, &b)| a + b).collect()
}

fn activations(device: &Device, kind: Activation, len: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let mut a = values(len, 1);
    a.iter_mut().step_by(5).for_each(|a| *a *= 9.0);
    let [start, dy, at, dyt] = [2, 3, 4, 5].map(|seed| values(len, seed));
    let ([on_a, on_dy], [on_at, on_dyt]) =
        ([cuda.upload(&a)?, cuda.upload(&dy)?], [cuda.upload(&at)?, cuda.upload(&dyt)?]);

    fn value<T: Number>(kind: Activation, a: &[T]) -> Vec<T> {
        a.iter().map(|&a| layers::activation(kind, a).0).collect()
    }
    fn back<T: Number>(kind: Activation, a: &[T], dy: &[T]) -> Vec<T> {
        a.iter().zip(dy).map(|(&a, &dy)| layers::activation(kind, a).1 * dy).collect()
    }
    let y = writes(cuda, len, |y| on_cuda::activation::forward(cuda, y, on_a.input(), kind))?;
    close("y", &y, &value(kind, &wide(&a)), &value(kind, &a))?;
    let in_place = adds(cuda, &a, |y| on_cuda::activation::forward_in_place(cuda, y, kind))?;
    same_bits("y in place", &in_place, &y)?;

    let (exact, plain) = (back::<f64>(kind, &wide(&a), &wide(&dy)), back(kind, &a, &dy));
    let dx = adds(cuda, &dy, |d| on_cuda::activation::backward_in_place(cuda, d, on_a.input(), kind))?;
    close("dx", &dx, &exact, &plain)?;
    let sum = adds(cuda, &start, |dx| {
        on_cuda::activation::add_backward(cuda, dx, on_dy.input(), on_a.input(), kind)
    })?;
    close("dx added", &sum, &plus(&wide(&start), &exact), &plus(&start, &plain))?;

    let exact = slopes(&back::<Dual<f64>>(kind, &dual(&a, &at), &dual(&dy, &dyt)));
    let plain = slopes(&back::<Dual<f32>>(kind, &dual(&a, &at), &dual(&dy, &dyt)));
    let dxt = writes(cuda, dyt.len(), |dxt| {
        let (dyt, dy) = (on_dyt.input(), on_dy.input());
        on_cuda::activation::tangent_backward(cuda, dxt, dyt, dy, on_at.input(), on_a.input(), kind)
    })?;
    close("dx'", &dxt, &exact, &plain)?;
    let sum = adds(cuda, &start, |dxt| {
        let (dyt, dy) = (on_dyt.input(), on_dy.input());
        on_cuda::activation::add_tangent_backward(cuda, dxt, dyt, dy, on_at.input(), on_a.input(), kind)
    })?;
    close("dx' added", &sum, &plus(&wide(&start), &exact), &plus(&start, &plain))
}

fn pointwise(device: &Device, positions: usize, c: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let len = positions * c;
    let ([x, y], [scale, shift]) = ([values(len, 1), values(len, 2)], [values(c, 3), values(c, 4)]);
    let (on_x, on_scale, on_shift) = (cuda.upload(&x)?, cuda.upload(&scale)?, cuda.upload(&shift)?);
    let each = |f: &dyn Fn(usize) -> f32| (0..len).map(f).collect::<Vec<f32>>();
    let sum = adds(cuda, &y, |y| on_cuda::pointwise::add(cuda, y, on_x.input()))?;
    same_bits("sum", &sum, &each(&|i| y[i] + x[i]))?;
    let both = adds(cuda, &x, |y| {
        on_cuda::pointwise::scale_shift_in_place(cuda, y, on_scale.input(), on_shift.input())
    })?;
    same_bits("scale and shift", &both, &each(&|i| x[i] * scale[i % c] + shift[i % c]))?;
    let scaled = adds(cuda, &x, |y| on_cuda::pointwise::scale_in_place(cuda, y, on_scale.input()))?;
    same_bits("scale", &scaled, &each(&|i| x[i] * scale[i % c]))?;
    let added = adds(cuda, &y, |y| on_cuda::pointwise::add_scaled(cuda, y, on_x.input(), on_scale.input()))?;
    same_bits("scale added", &added, &each(&|i| y[i] + x[i] * scale[i % c]))
}

fn moves(device: &Device, n: usize, c: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (from, to) = (Shape::new(1, 5, c), Shape::new(1, 6, c));
    let (x, token) = (values(n * from.len(), 1), values(c, 2));
    let (on_x, on_token) = (cuda.upload(&x)?, cuda.upload(&token)?);
    let whole = |shape: Shape, first: usize| Strided { first, stride: shape.len() };
    let found = writes(cuda, n * to.len(), |mut y| {
        on_cuda::shape::copy(cuda, y.output(), on_x.input(), n, from.len(), whole(to, c), whole(from, 0))?;
        on_cuda::shape::copy(cuda, y, on_token.input(), n, c, whole(to, 0), Strided { first: 0, stride: 0 })
    })?;
    let expected: Vec<f32> =
        x.chunks_exact(from.len()).flat_map(|x| token.iter().chain(x)).copied().collect();
    same_bits("class token", &found, &expected)?;

    let (mut dx, on_dy) = (values(n * from.len(), 3), cuda.upload(&found)?);
    let back = adds(cuda, &dx, |dx| {
        on_cuda::shape::add(cuda, dx, on_dy.input(), n, from.len(), whole(from, 0), whole(to, c))
    })?;
    for (dx, dy) in dx.chunks_exact_mut(from.len()).zip(found.chunks_exact(to.len())) {
        dx.iter_mut().zip(&dy[c..]).for_each(|(dx, dy)| *dx += dy);
    }
    same_bits("its adjoint", &back, &dx)?;

    let wide = Shape::new(1, 5, 2 * c + 1);
    let mut joined = values(n * wide.len(), 4);
    let (rows, channels) = (n * wide.positions(), |c: usize, first: usize| Strided { first, stride: c });
    let found = adds(cuda, &joined, |y| {
        on_cuda::shape::copy(cuda, y, on_x.input(), rows, c, channels(wide.c, c), channels(c, 0))
    })?;
    for (y, x) in joined.chunks_exact_mut(wide.c).zip(x.chunks_exact(c)) {
        y[c..2 * c].copy_from_slice(x);
    }
    same_bits("channels side by side", &found, &joined)
}

fn shortcuts(device: &Device, n: usize, from: Shape, stride: usize, c: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let to = Shape::new(from.h.div_ceil(stride), from.w.div_ceil(stride), c);
    let (x, dy) = (values(n * from.len(), 1), values(n * to.len(), 2));
    let (on_x, on_dy) = (cuda.upload(&x)?, cuda.upload(&dy)?);
    let (mut y, mut dx) = (vec![0.0; dy.len()], values(x.len(), 3));
    let found =
        writes(cuda, y.len(), |y| on_cuda::shape::shortcut(cuda, y, on_x.input(), n, from, to, stride))?;
    ops::cpu::shape::shortcut(&mut y, &x, n, from, to, stride);
    same_bits("y", &found, &y)?;
    let found = adds(cuda, &dx, |dx| {
        on_cuda::shape::shortcut_backward(cuda, dx, on_dy.input(), n, from, to, stride)
    })?;
    ops::cpu::shape::shortcut_adjoint(&mut dx, &dy, n, from, to, stride);
    same_bits("dx", &found, &dx)
}

fn layer_norms(device: &Device, n: usize, c: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (len, eps) = (n * c, 1e-5);
    let [x, tx, dy, dyt, start] = [1, 2, 3, 4, 5].map(|seed| values(len, seed));
    let (gamma, beta) = (values(c, 6), values(c, 7));
    let [on_x, on_tx, on_dy, on_dyt] =
        [cuda.upload(&x)?, cuda.upload(&tx)?, cuda.upload(&dy)?, cuda.upload(&dyt)?];
    let (on_gamma, on_beta) = (cuda.upload(&gamma)?, cuda.upload(&beta)?);

    fn forward<T: Number>(x: &[T], gamma: &[f32], beta: &[f32], eps: f32) -> Vec<T> {
        let (gamma, beta) = (wide::<T>(gamma), wide::<T>(beta));
        let rows = x.chunks_exact(gamma.len()).map(|x| layers::normalise(x, eps).0);
        rows.flat_map(|hat| (0..hat.len()).map(|i| hat[i] * gamma[i] + beta[i]).collect::<Vec<T>>()).collect()
    }
    fn backward<T: Number>(dy: &[T], x: &[T], gamma: &[f32], eps: f32) -> Vec<T> {
        let gamma = wide::<T>(gamma);
        let rows = dy.chunks_exact(gamma.len()).zip(x.chunks_exact(gamma.len()));
        let row = |(dy, x): (&[T], &[T])| {
            let (hat, r) = layers::normalise(x, eps);
            let u: Vec<T> = dy.iter().zip(&gamma).map(|(&dy, &gamma)| dy * gamma).collect();
            layers::normalise_backward(&u, &hat, r)
        };
        rows.flat_map(row).collect()
    }
    let mut saved = cuda.alloc(2 * n)?;
    on_cuda::layer_norm::forward(
        cuda,
        cuda.alloc(len)?.output(),
        saved.output(),
        on_x.input(),
        on_gamma.input(),
        on_beta.input(),
        eps,
    )?;
    let y = writes(cuda, len, |y| {
        let mut saved = cuda.alloc(2 * n)?;
        let (gamma, beta) = (on_gamma.input(), on_beta.input());
        on_cuda::layer_norm::forward(cuda, y, saved.output(), on_x.input(), gamma, beta, eps)
    })?;
    close("y", &y, &forward(&wide(&x), &gamma, &beta, eps), &forward(&x, &gamma, &beta, eps))?;

    let (x_in, tx_in, saved, gamma_in) = (on_x.input(), on_tx.input(), saved.input(), on_gamma.input());
    let t = writes(cuda, len, |t| on_cuda::layer_norm::tangent(cuda, t, tx_in, x_in, saved, gamma_in))?;
    let exact = slopes(&forward::<Dual<f64>>(&dual(&x, &tx), &gamma, &beta, eps));
    close("t", &t, &exact, &slopes(&forward::<Dual<f32>>(&dual(&x, &tx), &gamma, &beta, eps)))?;

    let dx = adds(cuda, &start, |dx| {
        on_cuda::layer_norm::backward(cuda, dx, on_dy.input(), x_in, saved, gamma_in)
    })?;
    let exact = plus(&wide(&start), &backward::<f64>(&wide(&dy), &wide(&x), &gamma, eps));
    close("dx", &dx, &exact, &plus(&start, &backward(&dy, &x, &gamma, eps)))?;

    let dxt = adds(cuda, &start, |dxt| {
        let (dyt, dy) = (on_dyt.input(), on_dy.input());
        on_cuda::layer_norm::tangent_backward(cuda, dxt, dyt, dy, tx_in, x_in, saved, gamma_in)
    })?;
    let exact = slopes(&backward::<Dual<f64>>(&dual(&dy, &dyt), &dual(&x, &tx), &gamma, eps));
    let plain = slopes(&backward::<Dual<f32>>(&dual(&dy, &dyt), &dual(&x, &tx), &gamma, eps));
    close("dx'", &dxt, &plus(&wide(&start), &exact), &plus(&start, &plain))?;

    /// dγ, then dβ.
    fn parameters<T: Number>(dy: &[f32], x: &[f32], c: usize, eps: f32) -> Vec<T> {
        let mut sums = vec![T::of(0.0); 2 * c];
        for (dy, x) in dy.chunks_exact(c).zip(x.chunks_exact(c)) {
            let (dy, hat) = (wide::<T>(dy), layers::normalise(&wide::<T>(x), eps).0);
            for i in 0..c {
                sums[i] = sums[i] + dy[i] * hat[i];
                sums[c + i] = sums[c + i] + dy[i];
            }
        }
        sums
    }
    let start = [gamma, beta].concat();
    let found = adds(cuda, &start, |out| {
        let (dgamma, dbeta) = out.split_at(c);
        let mut parts = cuda.alloc(on_cuda::layer_norm::gradient_parts(n, c))?;
        let (parts, dy) = (parts.output(), on_dy.input());
        on_cuda::layer_norm::parameter_gradient(cuda, dgamma, dbeta, parts, dy, x_in, saved)
    })?;
    let (exact, plain) = (parameters::<f64>(&dy, &x, c, eps), parameters::<f32>(&dy, &x, c, eps));
    close("dγ, dβ", &found, &plus(&wide(&start), &exact), &plus(&start, &plain))
}

/// What a row of logits, its tangent and its label give.
type PerRow<'a> = &'a dyn Fn(&[f32], &[f32], usize) -> Vec<f64>;

fn losses(device: &Device, n: usize, classes: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let labels: Vec<u32> = (0..n).map(|i| (i * i * 7 % classes) as u32).collect();
    let mut z = values(n * classes, 1);
    for (i, (z, &label)) in z.chunks_exact_mut(classes).zip(&labels).enumerate() {
        z[label as usize] += [0.0, 30.0, 90.0, -40.0][i % 4]; // unsure, right, very sure, wrong
    }
    let (t, weights) = (values(n * classes, 2), values(n, 3));
    let (on_z, on_t, on_labels) = (cuda.upload(&z)?, cuda.upload(&t)?, cuda.upload(&labels)?);
    let rows = |f: PerRow| -> Vec<f64> {
        let rows = z.chunks_exact(classes).zip(t.chunks_exact(classes)).zip(&labels);
        rows.flat_map(|((z, t), &label)| f(z, t, label as usize)).collect()
    };
    let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();

    let found = writes(cuda, n, |l| on_cuda::loss::values(cuda, l, on_z.input(), on_labels.input(), LOSS))?;
    let exact = rows(&|z, _, label| vec![layers::loss(&wide::<f64>(z), label)]);
    for (i, (&found, &exact)) in found.iter().zip(&exact).enumerate() {
        close(&format!("loss {i}"), &[found], &[exact], &narrow(&[exact]))?; // each by itself: small ones count
    }
    let gradient = |z: &[f32], label: usize| {
        let mut d = layers::slope(&wide::<f64>(z), label);
        d[label] = 0.0;
        d[label] = -d.iter().sum::<f64>();
        d
    };
    let found = writes(cuda, n * classes, |d| {
        on_cuda::loss::gradient(cuda, d, on_z.input(), on_labels.input(), n, LOSS)
    })?;
    let exact = rows(&|z, _, label| gradient(z, label));
    for i in 0..n {
        let row = i * classes..(i + 1) * classes;
        close(&format!("gradient {i}"), &found[row.clone()], &exact[row.clone()], &narrow(&exact[row]))?;
    }
    let on_weights = cuda.upload(&weights)?;
    let weighed = adds(cuda, &found, |d| on_cuda::loss::weigh(cuda, d, on_weights.input()))?;
    let expected: Vec<f32> = found.iter().enumerate().map(|(i, d)| d * weights[i / classes]).collect();
    same_bits("weighed", &weighed, &expected)?;

    let product = |matrix| {
        let (t, z, labels) = (on_t.input(), on_z.input(), on_labels.input());
        writes(cuda, n * classes, |back| on_cuda::loss::product(cuda, back, t, z, labels, n, matrix, LOSS))
    };
    let back = product(LogitProduct::Curvature)?;
    let exact = rows(&|z, t, _| {
        let p = layers::softmax(&wide::<f64>(z));
        let mean: f64 = p.iter().zip(t).map(|(p, &t)| p * f64::from(t)).sum();
        p.iter().zip(t).map(|(p, &t)| p * (f64::from(t) - mean)).collect()
    });
    close("curvature", &back, &exact, &narrow(&exact))?;
    let back = product(LogitProduct::Fisher)?;
    let exact = rows(&|z, t, label| {
        let d = gradient(z, label);
        let along: f64 = d.iter().zip(t).map(|(d, &t)| d * f64::from(t)).sum();
        d.iter().map(|d| d * along).collect()
    });
    close("fisher", &back, &exact, &narrow(&exact))?;

    for (seed, first) in [(7, 0), (1 << 40 | 3, 100)] {
        let d =
            writes(cuda, n * classes, |d| on_cuda::loss::draw(cuda, d, on_z.input(), n, seed, first, LOSS))?;
        let mut expected = vec![0.0; n * classes];
        softmax::draw(&mut expected, &z, classes, seed, first);
        for i in 0..n {
            let row = i * classes..(i + 1) * classes;
            let expected = &expected[row.clone()];
            close(&format!("draw {i}"), &d[row], &wide(expected), expected)?; // of the same class
        }
    }

    let mut predicted = cuda.alloc(n)?;
    on_cuda::loss::predict(cuda, predicted.output(), on_z.input(), LOSS)?;
    let expected: Vec<u32> = z.chunks_exact(classes).map(softmax::largest).collect();
    super::all_equal("predicted", &cuda.download(&predicted)?, &expected)
}

/// All four passes of attention, behind a mask `[n, t]` where there is one.
pub fn attentions(
    device: &Device,
    n: usize,
    t: usize,
    heads: usize,
    width: usize,
    mask: Option<&[u32]>,
) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let on_mask = mask.map(|mask| cuda.upload(mask)).transpose()?;
    let keys = || on_mask.as_ref().map(Buffer::input);
    let shape = Shape::new(1, t, heads * width);
    let (outer, inner, squares) = (n * shape.len(), 3 * n * shape.len(), n * heads * t * t);
    let ([x, tx, start], [dy, dyt]) =
        ([1, 2, 3].map(|seed| values(inner, seed)), [4, 5].map(|seed| values(outer, seed)));
    let [on_x, on_tx, on_dy, on_dyt] =
        [cuda.upload(&x)?, cuda.upload(&tx)?, cuda.upload(&dy)?, cuda.upload(&dyt)?];

    let forward = Attend { shape, heads, mask };
    let mut saved = cuda.alloc(squares)?;
    let mut other = cuda.alloc(outer)?;
    on_cuda::attention::forward(cuda, other.output(), saved.output(), on_x.input(), n, shape, heads, keys())?;
    let kept = |i: usize| mask.is_none_or(|mask| mask[i / (heads * t * t) * t + i % t] != 0);
    if let Some(i) = cuda.download(&saved)?.iter().enumerate().position(|(i, &p)| p != 0.0 && !kept(i)) {
        return Err(format!("masked key {i} has weight").into());
    }
    let y = writes(cuda, outer, |y| {
        let mut saved = cuda.alloc(squares)?;
        on_cuda::attention::forward(cuda, y, saved.output(), on_x.input(), n, shape, heads, keys())
    })?;
    close("y", &y, &forward.y(&wide(&x)), &forward.y(&x))?;

    let (x_in, tx_in, saved) = (on_x.input(), on_tx.input(), saved.input());
    let ty =
        writes(cuda, outer, |ty| on_cuda::attention::tangent(cuda, ty, tx_in, x_in, saved, n, shape, heads))?;
    let exact = slopes(&forward.y::<Dual<f64>>(&dual(&x, &tx)));
    close("y'", &ty, &exact, &slopes(&forward.y::<Dual<f32>>(&dual(&x, &tx))))?;

    let dx = adds(cuda, &start, |dx| {
        let mut scratch = cuda.alloc(squares)?;
        on_cuda::attention::backward(cuda, dx, scratch.output(), on_dy.input(), x_in, saved, n, shape, heads)
    })?;
    let exact = plus(&wide(&start), &forward.dx::<f64>(&wide(&dy), &wide(&x)));
    close("dx", &dx, &exact, &plus(&start, &forward.dx(&dy, &x)))?;

    let dxt = adds(cuda, &start, |dxt| {
        let mut scratch = cuda.alloc(3 * squares)?;
        let (scratch, dyt, dy) = (scratch.output(), on_dyt.input(), on_dy.input());
        on_cuda::attention::tangent_backward(cuda, dxt, scratch, dyt, dy, tx_in, x_in, saved, n, shape, heads)
    })?;
    let exact = slopes(&forward.dx::<Dual<f64>>(&dual(&dy, &dyt), &dual(&x, &tx)));
    let plain = slopes(&forward.dx::<Dual<f32>>(&dual(&dy, &dyt), &dual(&x, &tx)));
    close("dx'", &dxt, &plus(&wide(&start), &exact), &plus(&start, &plain))
}

/// The oracle's attention over many images.
#[derive(Clone, Copy)]
struct Attend<'a> {
    shape: Shape,
    heads: usize,
    mask: Option<&'a [u32]>,
}

impl<'a> Attend<'a> {
    /// Image i's part of the mask.
    fn keys(self, i: usize) -> Option<&'a [u32]> {
        let t = self.shape.positions();
        self.mask.map(|mask| &mask[i * t..(i + 1) * t])
    }

    fn y<T: Number>(self, x: &[T]) -> Vec<T> {
        let images = x.chunks_exact(3 * self.shape.len()).enumerate();
        images.flat_map(|(i, x)| attention::attention(x, self.shape, self.heads, self.keys(i))).collect()
    }

    fn dx<T: Number>(self, dy: &[T], x: &[T]) -> Vec<T> {
        let mut dx = vec![T::of(0.0); x.len()];
        let images = dx.chunks_exact_mut(3 * self.shape.len()).zip(x.chunks_exact(3 * self.shape.len()));
        for (i, ((dx, x), dy)) in images.zip(dy.chunks_exact(self.shape.len())).enumerate() {
            attention::attention_backward(dx, dy, x, self.shape, self.heads, self.keys(i));
        }
        dx
    }
}

/// A convolution's output shape.
fn filtered(input: Shape, o: usize, conv: Conv) -> Geometry {
    let side = |size: usize, taps: usize, padding: usize| {
        (size + 2 * padding - conv.dilation * (taps - 1) - 1) / conv.stride + 1
    };
    let (h, w) = (side(input.h, conv.kernel.0, conv.padding.0), side(input.w, conv.kernel.1, conv.padding.1));
    Geometry::conv(input, Shape::new(h, w, o), conv)
}

/// z = Wx + b of many images.
fn affine<T: Number>(x: &[f32], weight: &[f32], bias: Option<&[f32]>, geometry: &Geometry) -> Vec<T> {
    let (weight, bias) = (wide::<T>(weight), bias.map(wide::<T>));
    let images = x.chunks_exact(geometry.input.len());
    images.flat_map(|x| conv::apply(&wide(x), &weight, bias.as_deref(), geometry)).collect()
}

/// A part of `values` that begins `shift` values into a buffer.
fn shifted(cuda: &Cuda, values: &[f32], shift: usize) -> Result<Buffer<f32>, Failed> {
    Ok(cuda.upload(&[&vec![f32::NAN; shift], values].concat())?)
}

fn convs(device: &Device, n: usize, input: Shape, o: usize, shape: Conv) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let geometry = filtered(input, o, shape);
    let len = n * geometry.output.len();
    let (x, weight, bias) = (values(n * input.len(), 1), values(o * geometry.fan_in(), 2), values(o, 3));
    let (scale, shift, residual) = (values(o, 4), values(o, 5), values(len, 6));
    let on_bias = cuda.upload(&bias)?;
    let (on_scale, on_shift, on_residual) =
        (cuda.upload(&scale)?, cuda.upload(&shift)?, cuda.upload(&residual)?);
    let plain_epilogue = on_cuda::conv::Epilogue::default();
    let epilogues = [
        (true, plain_epilogue),
        (false, on_cuda::conv::Epilogue { activation: Some(Activation::Gelu), ..plain_epilogue }),
        (
            true,
            on_cuda::conv::Epilogue {
                affine: Some([on_scale.input(), on_shift.input()]),
                residual: Some(on_residual.input()),
                activation: Some(Activation::Relu),
            },
        ),
        (false, on_cuda::conv::Epilogue { residual: Some(on_residual.input()), ..plain_epilogue }),
        (true, on_cuda::conv::Epilogue { activation: Some(Activation::Silu), ..plain_epilogue }),
    ];
    for (at, (biased, epilogue)) in epilogues.into_iter().enumerate() {
        let skip = at % 2; // values that do not begin on 16 bytes
        let (on_x, on_weight) = (shifted(cuda, &x, skip)?, shifted(cuda, &weight, skip)?);
        let (on_x, on_weight) = (on_x.input().part(skip..x.len() + skip), on_weight.input());
        let on_weight = on_weight.part(skip..weight.len() + skip);
        let (bias, on_bias) = (biased.then_some(&bias[..]), biased.then(|| on_bias.input()));
        let y = writes(cuda, len, |y| {
            on_cuda::conv::forward(
                cuda,
                y,
                None,
                on_x,
                on_weight,
                on_bias,
                epilogue,
                n,
                &geometry,
                Precision::F32,
            )
        })?;
        fn value<T: Number>(
            z: &[T],
            [scale, shift, residual]: [Option<&[f32]>; 3],
            kind: Option<Activation>,
        ) -> Vec<T> {
            let of = |values: Option<&[f32]>, i: usize, none: f64| {
                T::of(values.map_or(none, |values| f64::from(values[i % values.len()])))
            };
            let argument = |i: usize| of(scale, i, 1.0) * z[i] + of(shift, i, 0.0) + of(residual, i, 0.0);
            let act = |a: T| kind.map_or(a, |kind| layers::activation(kind, a).0);
            (0..z.len()).map(|i| act(argument(i))).collect()
        }
        let parts = [
            epilogue.affine.map(|_| &scale[..]),
            epilogue.affine.map(|_| &shift[..]),
            epilogue.residual.map(|_| &residual[..]),
        ];
        let exact = value::<f64>(&affine(&x, &weight, bias, &geometry), parts, epilogue.activation);
        let plain = value::<f32>(&affine(&x, &weight, bias, &geometry), parts, epilogue.activation);
        close(&format!("epilogue {at}"), &y, &exact, &plain)?;
    }
    let (on_x, on_weight) = (cuda.upload(&x)?, cuda.upload(&weight)?);

    // Units' means are of z, whatever the epilogue; other columns of the trace stay as they are.
    let (first, d, uses) = (3, o + 5, 1 + n % 3);
    let trace = values(n * d, 7);
    let sums = on_cuda::conv::parts(n, &geometry);
    let found = adds(cuda, &trace, |trace| {
        let (mut y, mut parts) = (cuda.alloc(len)?, cuda.alloc(sums)?);
        let (epilogue, bias) = (epilogues[2].1, Some(on_bias.input()));
        let (y, out) = (y.output(), Some(parts.output()));
        let (x, weight, f32) = (on_x.input(), on_weight.input(), Precision::F32);
        on_cuda::conv::forward(cuda, y, out, x, weight, bias, epilogue, n, &geometry, f32)?;
        on_cuda::means::means(cuda, trace, parts.input(), n, &geometry, first..first + o, d, uses)
    })?;
    fn mean<T: Number>(trace: &[f32], z: &[T], geometry: &Geometry, first: usize, uses: usize) -> Vec<T> {
        let (positions, o) = (geometry.output.positions(), geometry.output.c);
        let (mut trace, d) = (wide::<T>(trace), trace.len() / (z.len() / (positions * o)));
        for (i, z) in z.chunks_exact(positions * o).enumerate() {
            for c in 0..o {
                let sum = z.iter().skip(c).step_by(o).fold(T::of(0.0), |sum, &z| sum + z);
                trace[i * d + first + c] = trace[i * d + first + c] + sum / T::of((positions * uses) as f64);
            }
        }
        trace
    }
    let (exact, plain) = (
        affine::<f64>(&x, &weight, Some(&bias), &geometry),
        affine::<f32>(&x, &weight, Some(&bias), &geometry),
    );
    let expected = mean(&trace, &plain, &geometry, first, uses);
    close("trace", &found, &mean(&trace, &exact, &geometry, first, uses), &expected)?;
    let others = |trace: &[f32]| -> Vec<f32> {
        let outside = |i: &usize| !(first..first + o).contains(&(i % d));
        (0..n * d).filter(outside).map(|i| trace[i]).collect()
    };
    same_bits("other columns", &others(&found), &others(&trace))?;

    // Some rows, added to what is there: the other rows of the weights are as zeros.
    let (rows, some, bias) = selected(o, &weight, &bias);
    let [on_some, on_bias] = [cuda.upload(&some.0)?, cuda.upload(&bias.0)?];
    let (start, on_rows) = (values(len, 8), cuda.upload(&rows)?);
    let found = adds(cuda, &start, |y| {
        let (bias, rows) = (Some(on_bias.input()), Some(on_rows.input()));
        on_cuda::conv::apply(cuda, y, on_x.input(), on_some.input(), bias, rows, n, &geometry, true)
    })?;
    let exact = affine::<f64>(&x, &some.1, Some(&bias.1), &geometry);
    let plain = affine::<f32>(&x, &some.1, Some(&bias.1), &geometry);
    close("some rows", &found, &plus(&wide(&start), &exact), &plus(&start, &plain))
}

/// Products of rounded operands: what differs from them in f64 is no more than a plain loop in f32 over the same.
fn lowered(
    device: &Device,
    precision: Precision,
    n: usize,
    input: Shape,
    o: usize,
    shape: Conv,
) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let geometry = filtered(input, o, shape);
    let (len, positions) = (n * geometry.output.len(), geometry.output.positions());
    // Values that no precision holds, but for their zeros and ties.
    let odd = |values: Vec<f32>| values.into_iter().map(|x| x * 1.001_3).collect::<Vec<f32>>();
    let (x, weight) = (odd(values(n * input.len(), 1)), odd(values(o * geometry.fan_in(), 2)));
    let [bias, scale, shift, residual] = [(o, 3), (o, 4), (o, 5), (len, 6)].map(|(len, at)| values(len, at));
    let depthwise = shape.groups > 1 && shape.groups == input.c;
    let round = |x: &f32| match precision {
        _ if depthwise => f64::from(*x),
        Precision::F32 => f64::from(*x),
        Precision::Tf32 => ptx::tf32(*x),
        Precision::Bf16 => ptx::bf16(*x),
        Precision::F16 => ptx::f16(*x),
    } as f32;
    let rounded = |values: &[f32]| values.iter().map(round).collect::<Vec<f32>>();
    let (of_x, of_weight) = (rounded(&x), rounded(&weight));
    let exact = affine::<f64>(&of_x, &of_weight, Some(&bias), &geometry);
    let plain = affine::<f32>(&of_x, &of_weight, Some(&bias), &geometry);
    let [on_bias, on_scale, on_shift, on_residual] =
        [&bias, &scale, &shift, &residual].map(|values| cuda.upload(values));
    let (on_bias, on_scale, on_shift, on_residual) = (on_bias?, on_scale?, on_shift?, on_residual?);
    let whole = on_cuda::conv::Epilogue {
        affine: Some([on_scale.input(), on_shift.input()]),
        residual: Some(on_residual.input()),
        activation: Some(Activation::Relu),
    };
    for (skip, epilogue) in [(0, on_cuda::conv::Epilogue::default()), (1, whole)] {
        let (on_x, on_weight) = (shifted(cuda, &x, skip)?, shifted(cuda, &weight, skip)?);
        let (from_x, from_weight) =
            (on_x.input().part(skip..x.len() + skip), on_weight.input().part(skip..weight.len() + skip));
        let sums = on_cuda::conv::parts(n, &geometry);
        let found = adds(cuda, &vec![f32::NAN; len], |y| {
            let (mut parts, bias) = (cuda.alloc(sums)?, Some(on_bias.input()));
            let out = Some(parts.output());
            on_cuda::conv::forward(cuda, y, out, from_x, from_weight, bias, epilogue, n, &geometry, precision)
        })?;
        fn after<T: Number>(z: &[T], [scale, shift, residual]: [&[f32]; 3]) -> Vec<T> {
            let of = |values: &[f32], i: usize| T::of(f64::from(values[i % values.len()]));
            let argument = |i: usize| of(scale, i) * z[i] + of(shift, i) + of(residual, i);
            (0..z.len()).map(|i| layers::activation(Activation::Relu, argument(i)).0).collect()
        }
        let parts = [&scale[..], &shift, &residual];
        let (exact, plain) = match epilogue.residual {
            Some(_) => (after(&exact, parts), after(&plain, parts)),
            None => (exact.clone(), plain.clone()),
        };
        close("y", &found, &exact, &plain)?;
        if epilogue.residual.is_none() && precision != Precision::F32 && !depthwise && len > 1000 {
            // It is the rounded product, and not the one of f32.
            let full = affine::<f64>(&x, &weight, Some(&bias), &geometry);
            if close("y", &found, &full, &affine::<f32>(&x, &weight, Some(&bias), &geometry)).is_ok() {
                return Err("operands are not rounded".into());
            }
        }
    }
    // The means are of the same z.
    let trace = vec![0.0; n * o];
    let (on_x, on_weight) = (cuda.upload(&x)?, cuda.upload(&weight)?);
    let found = adds(cuda, &trace, |trace| {
        let (mut y, mut parts) = (cuda.alloc(len)?, cuda.alloc(on_cuda::conv::parts(n, &geometry))?);
        let (y, out, bias) = (y.output(), Some(parts.output()), Some(on_bias.input()));
        on_cuda::conv::forward(
            cuda,
            y,
            out,
            on_x.input(),
            on_weight.input(),
            bias,
            whole,
            n,
            &geometry,
            precision,
        )?;
        on_cuda::means::means(cuda, trace, parts.input(), n, &geometry, 0..o, o, 1)
    })?;
    fn means<T: Number>(z: &[T], o: usize, positions: usize) -> Vec<T> {
        let images = z.chunks_exact(positions * o);
        let mean = |image: &[T], c: usize| {
            image.iter().skip(c).step_by(o).fold(T::of(0.0), |sum, &z| sum + z) / T::of(positions as f64)
        };
        images.flat_map(|image| (0..o).map(|c| mean(image, c)).collect::<Vec<T>>()).collect()
    }
    close("trace", &found, &means(&exact, o, positions), &means(&plain, o, positions))
}

fn conv_adjoints(device: &Device, n: usize, input: Shape, o: usize, shape: Conv) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let geometry = filtered(input, o, shape);
    let (inner, outer, fan_in) = (n * input.len(), n * geometry.output.len(), geometry.fan_in());
    let [x, dz, weight, bias] =
        [(inner, 1), (outer, 2), (o * fan_in, 3), (o, 4)].map(|(len, at)| values(len, at));
    let (rows, some, some_bias) = selected(o, &weight, &bias);
    let on_rows = cuda.upload(&rows)?;

    /// Gradients at the input, at the weights and at the bias.
    fn adjoints<T: Number>(dz: &[f32], x: &[f32], weight: &[f32], geometry: &Geometry) -> [Vec<T>; 3] {
        let (o, weight) = (geometry.output.c, wide::<T>(weight));
        let (mut dx, mut dw, mut db) = (vec![], vec![T::of(0.0); weight.len()], vec![T::of(0.0); o]);
        for (dz, x) in dz.chunks_exact(geometry.output.len()).zip(x.chunks_exact(geometry.input.len())) {
            let (dz, x) = (wide::<T>(dz), wide::<T>(x));
            dx.extend(conv::data_gradient(&dz, &weight, geometry));
            conv::weight_gradient(&mut dw, &mut db, &dz, &x, geometry);
        }
        [dx, dw, db]
    }
    // Places that begin on 16 bytes, and others; every channel, and some of them, added to what is there.
    for (skip, few) in [(0, false), (1, false), (0, true)] {
        let at = |values: &[f32]| shifted(cuda, values, skip);
        let all: Vec<u32> = (0..o as u32).collect();
        let (held, whole, bias, rows) = match few {
            true => (&some.0, &some.1, &some_bias.0, &rows),
            false => (&weight, &weight, &bias, &all),
        };
        let (on_x, on_dz, on_weight) = (at(&x)?, at(&dz)?, at(held)?);
        let (on_x, on_dz) = (on_x.input().part(skip..inner + skip), on_dz.input().part(skip..outer + skip));
        let on_weight = on_weight.input().part(skip..held.len() + skip);
        let chosen = few.then(|| on_rows.input());
        let exact = adjoints::<f64>(&dz, &x, whole, &geometry);
        let plain = adjoints::<f32>(&dz, &x, whole, &geometry);

        let start = if few { values(inner, 5) } else { vec![0.0; inner] };
        let begin = if few { start.clone() } else { vec![f32::NAN; inner] };
        let dx = adds(cuda, &begin, |dx| {
            on_cuda::conv::data_gradient(cuda, dx, on_dz, on_weight, chosen, n, &geometry, few)
        })?;
        close("dx", &dx, &plus(&wide(&start), &exact[0]), &plus(&start, &plain[0]))?;

        let (room, biased) = (on_cuda::conv::gradient_parts(n, rows.len(), &geometry), skip == 0);
        let found = adds(cuda, &[&held[..], bias].concat(), |out| {
            let ((dw, db), mut parts) = (out.split_at(held.len()), cuda.alloc(room)?);
            let (db, parts) = (biased.then_some(db), parts.output());
            on_cuda::conv::weight_gradient(cuda, dw, db, parts, on_dz, on_x, chosen, n, &geometry)
        })?;
        let (dw, db) = found.split_at(held.len());
        let (exact_dw, plain_dw) = (picked(&exact[1], rows, o), picked(&plain[1], rows, o));
        close("dw", dw, &plus(&wide(held), &exact_dw), &plus(held, &plain_dw))?;
        let (exact_db, plain_db) = (picked(&exact[2], rows, o), picked(&plain[2], rows, o));
        match biased {
            true => close("db", db, &plus(&wide(bias), &exact_db), &plus(bias, &plain_db))?,
            false => same_bits("db", db, bias)?,
        }
    }
    Ok(())
}

/// A and G of a layer: of all groups and rows, or of some, with the 1 for a bias and without, added to what is there.
fn moments(device: &Device, n: usize, input: Shape, o: usize, shape: Conv) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let geometry = filtered(input, o, shape);
    let (fan_in, groups, outer) = (geometry.fan_in(), shape.groups, o / shape.groups);
    let (inner, len) = (n * input.len(), n * geometry.output.len());
    let (x, dz, one) = (values(inner, 1), values(len, 2), cuda.upload(&on_cuda::moments::ONE)?);

    fn of_inputs<T: Number>(x: &[f32], sets: &[u32], width: usize, geometry: &Geometry) -> Vec<T> {
        let of_set = |&set: &u32| {
            let mut sum = vec![T::of(0.0); width * width];
            for x in x.chunks_exact(geometry.input.len()) {
                let fields = conv::fields(&wide::<T>(x), set as usize, geometry);
                let one = std::iter::repeat_n(T::of(1.0), width - geometry.fan_in());
                let rows = fields.chunks_exact(geometry.fan_in());
                let rows: Vec<T> =
                    rows.flat_map(|row| row.iter().copied().chain(one.clone()).collect::<Vec<T>>()).collect();
                conv::moment(&mut sum, &rows, width);
            }
            sum
        };
        sets.iter().flat_map(of_set).collect()
    }
    /// For each row the sums with those of its group, zeros behind them.
    fn of_outputs<T: Number>(dz: &[f32], rows: &[u32], width: usize, (o, outer): (usize, usize)) -> Vec<T> {
        let mut sums = vec![];
        for group in rows.chunk_by(|a, b| *a as usize / outer == *b as usize / outer) {
            let picked = dz.chunks_exact(o).flat_map(|dz| group.iter().map(|&row| dz[row as usize]));
            let (k, mut sum) = (group.len(), vec![T::of(0.0); group.len().pow(2)]);
            conv::moment(&mut sum, &wide::<T>(&picked.collect::<Vec<f32>>()), k);
            let zeros = std::iter::repeat_n(T::of(0.0), width - k);
            sums.extend(
                sum.chunks_exact(k)
                    .flat_map(|row| row.iter().copied().chain(zeros.clone()).collect::<Vec<T>>()),
            );
        }
        sums
    }
    let symmetric = |what: &str, found: &[f32], width: usize| {
        let turned =
            (0..found.len()).map(|at| (at / width / width * width + at % width) * width + at / width % width);
        same_bits(what, &turned.map(|at| found[at]).collect::<Vec<f32>>(), found)
    };
    let ways = [(0, true, false), (1, false, false), (0, true, true)];
    // Of wide rows the last alone, since plain loops take long.
    for (skip, biased, few) in ways.into_iter().skip(if fan_in > 300 { 2 } else { 0 }) {
        let (on_x, on_dz) = (shifted(cuda, &x, skip)?, shifted(cuda, &dz, skip)?);
        let (on_x, on_dz) = (on_x.input().part(skip..inner + skip), on_dz.input().part(skip..len + skip));
        let sets: Vec<u32> = (0..groups as u32).filter(|set| !few || groups == 1 || set % 3 != 1).collect();
        let (on_sets, width) = (cuda.upload(&sets)?, fan_in + usize::from(biased));
        let start = |len: usize| if few { values(len, 5) } else { vec![0.0; len] };
        let begin = start(sets.len() * width * width);
        let a = adds(cuda, &begin, |a| {
            let mut room = cuda.alloc(on_cuda::moments::input_parts(n, sets.len(), width, &geometry))?;
            let (room, one, sets) = (room.output(), one.input(), on_sets.input());
            on_cuda::moments::input(cuda, a, room, on_x, one, sets, width, n, &geometry)
        })?;
        let (exact, plain) = (of_inputs(&x, &sets, width, &geometry), of_inputs(&x, &sets, width, &geometry));
        close("A", &a, &plus(&wide(&begin), &exact), &plus(&begin, &plain))?;
        if !few {
            symmetric("A across its diagonal", &a, width)?;
        }

        // Without the last of a group, so that groups have different numbers of rows.
        let rows: Vec<u32> = (0..o as u32).filter(|row| !few || o == 1 || row % 5 != 1).collect();
        let by_group = rows.chunk_by(|a, b| *a as usize / outer == *b as usize / outer);
        let width = by_group.map(<[u32]>::len).max().unwrap_or(0);
        let (on_rows, begin) = (cuda.upload(&rows)?, start(rows.len() * width));
        let chosen = few.then(|| on_rows.input());
        let g = adds(cuda, &begin, |g| {
            let mut room = cuda.alloc(on_cuda::moments::output_parts(n, rows.len(), width, &geometry))?;
            on_cuda::moments::output(cuda, g, room.output(), on_dz, chosen, width, n, &geometry)
        })?;
        let exact = of_outputs(&dz, &rows, width, (o, outer));
        let plain = of_outputs(&dz, &rows, width, (o, outer));
        close("G", &g, &plus(&wide(&begin), &exact), &plus(&begin, &plain))?;
        if !few {
            symmetric("G across its diagonal", &g, width)?;
        }
    }
    Ok(())
}

/// A stride makes no products with zeros: what is multiplied for dx is what is for z, three times for 3xTF32. Where the
/// device counts, and every tile is full.
fn products(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    for (stride, filter, padding) in [(1, 3, 1), (2, 3, 1), (2, 1, 0), (4, 7, 3)] {
        let geometry = filtered(Shape::new(8, 16, 64), 64, Conv::square(filter, stride, padding));
        let n = (stride * stride / 2).max(2); // pixels of each remainder fill a tile
        let (inner, outer) = (n * geometry.input.len(), n * geometry.output.len());
        let (dz, weight) =
            (cuda.upload(&values(outer, 2))?, cuda.upload(&values(64 * geometry.fan_in(), 3))?);
        let mut dx = cuda.alloc(inner)?;
        let before = cuda.counts().products;
        let (dx, dz, weight) = (dx.output(), dz.input(), weight.input());
        on_cuda::conv::data_gradient(cuda, dx, dz, weight, None, n, &geometry, false)?;
        let found = cuda.counts().products - before;
        let needed = 3 * outer as u64 * geometry.fan_in() as u64;
        if before + found > 0 {
            super::equal(&format!("products of stride {stride}"), &found, &needed)?;
        } else if device.why().contains("emulated") {
            return Err("nothing was counted".into());
        }
    }
    Ok(())
}

/// Noisy copies observed below f32: near f32 and not the same, with an account of how near; refused by the CPU, and where
/// the values do not fit.
fn selects(device: &Device, precision: Precision) -> Result<(), Failed> {
    let net = zoo::create("cnn:4-6", Shape::new(6, 6, 2), 3, 1)?.network.freeze();
    let (samples, stop) = (nets::Random(11).samples(&net, 12), AtomicBool::new(false));
    let noise = Noise { sigma: 0.1, replace: 1, seed: 3 };
    let observed = |samples: &Samples, precision| {
        let copies = perturb_request(samples, &[0, 1, 2], &net.ordinary, 40, noise)?;
        observe_copies(device, &net, &copies, precision)
    };
    let exact = observed(&samples, Precision::F32)?;
    let found = twice(|| Ok(observed(&samples, precision)?))?;
    let unit = if precision == Precision::Bf16 { 2f64.powi(-8) } else { 2f64.powi(-11) };
    for (what, found, exact) in
        [("activations", &found.activations, &exact.activations), ("losses", &found.losses, &exact.losses)]
    {
        let norm = |f: &dyn Fn(usize) -> f64| (0..found.len()).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
        let (off, size) =
            (norm(&|i| f64::from(found[i]) - f64::from(exact[i])), norm(&|i| f64::from(exact[i])));
        if off.is_nan() || off > 4.0 * unit * size || off == 0.0 {
            return Err(format!("{what}: off by {off:e} of {size:e}").into());
        }
    }
    for (method, traces) in [(Method::Vote, 3), (Method::Foci, 1)] {
        let config = Criteria { method, perturbations: Some(40), precision, ..Default::default() };
        let chosen = twice(|| Ok(select(device, &net, &samples, &[0, 1, 2], &config, &stop)?))?;
        let said = chosen.agreement.ok_or("no account of the precision")?;
        super::equal(
            "what was compared",
            &(said.precision, said.traces, said.copies),
            &(precision, traces, 40),
        )?;
        if said.spearman.is_none_or(|rho| rho < 0.9) || !(0.0..=1.0).contains(&said.overlap) {
            return Err(format!("{said:?}").into());
        }
        let on_cpu = select(&Device::cpu()?, &net, &samples, &[0, 1, 2], &config, &stop);
        match on_cpu {
            Err(Error::Config(reason)) if reason.contains("needs CUDA") => {}
            _ => return Err("the CPU took it".into()),
        }
    }
    let plain = Criteria { method: Method::Foci, perturbations: Some(40), ..Default::default() };
    let plain = select(device, &net, &samples, &[0], &plain, &stop)?;
    super::equal("an account of f32", &plain.agreement, &None)?;
    let mut large = samples.clone();
    large.x.iter_mut().for_each(|x| *x *= 1e6);
    match (precision, observed(&large, precision)) {
        (Precision::F16, Err(Error::Config(reason))) if reason.contains("not finite") => Ok(()),
        (Precision::F16, _) => Err("what f16 does not hold was taken".into()),
        (_, found) => Ok(found.map(drop)?),
    }
}

/// Some of `o` rows.
fn picked<T: Copy>(values: &[T], rows: &[u32], o: usize) -> Vec<T> {
    let of = values.len() / o;
    rows.iter().flat_map(|&row| values[row as usize * of..][..of].iter().copied()).collect()
}

/// Two of three rows, what they hold, and the same with zeros for the others: of the weights, then of the bias.
type Selected = (Vec<u32>, (Vec<f32>, Vec<f32>), (Vec<f32>, Vec<f32>));

fn selected(o: usize, weight: &[f32], bias: &[f32]) -> Selected {
    let rows: Vec<u32> = (0..o as u32).filter(|row| row % 3 != 1).collect();
    let both = |values: &[f32]| {
        let of = values.len() / o;
        let row = |row: usize| values[row * of..(row + 1) * of].iter().copied();
        let some = picked(values, &rows, o);
        let whole = (0..o).flat_map(|r| row(r).map(move |v| if r % 3 != 1 { v } else { 0.0 })).collect();
        (some, whole)
    };
    let (weight, bias) = (both(weight), both(bias));
    (rows, weight, bias)
}

/// Some columns of rows of `d`.
fn columns_of<T: Copy>(values: &[T], d: usize, columns: Range<usize>) -> Vec<T> {
    values.chunks_exact(d).flat_map(|row| row[columns.clone()].to_vec()).collect()
}

/// Every layer's activations, the logits and the losses of a whole network.
fn observes(device: &Device, net: &Network, n: usize) -> Result<(), Failed> {
    let samples = nets::Random(11).samples(net, n);
    let found = observe(device, net, &samples)?;
    let exact = oracle::run::<f64>(
        net,
        &oracle::constants(net),
        &samples.x,
        samples.y.words(),
        &oracle::slope(net.loss),
    );
    let plain = oracle::run::<f32>(
        net,
        &oracle::constants(net),
        &samples.x,
        samples.y.words(),
        &oracle::slope(net.loss),
    );
    for (i, layer) in net.layers.iter().enumerate() {
        let (d, columns) = (found.d, net.units().of_layer(LayerId(i as u32)));
        close(
            &layer.name,
            &columns_of(&found.activations, d, columns.clone()),
            &columns_of(&exact.activations, d, columns.clone()),
            &columns_of(&plain.activations, d, columns),
        )?;
    }
    close("logits", &found.logits, &exact.logits, &plain.logits)?;
    close("losses", &found.losses, &exact.losses, &plain.losses)?;
    let before = cuda(device)?.counts();
    super::equal("a second run", &observe(device, net, &samples)?, &found)?;
    // It has what it needs, but for the images, their labels, and a zero.
    let (after, inputs) = (cuda(device)?.counts(), samples.x.len() + samples.y.words().len() + 1);
    super::equal("memory of a second run", &after.allocations, &before.allocations)?;
    super::equal("what a second run brings", &(after.uploaded - before.uploaded), &(4 * inputs))?;
    super::equal("the losses alone", &evaluate(device, net, &samples)?.losses, &found.losses)?;
    observes_copies(device, net, samples)
}

/// Perturbed copies of an image or a text, which the device makes itself.
fn observes_copies(device: &Device, net: &Network, samples: Samples) -> Result<(), Failed> {
    let (n, noise) = (samples.y.len(), Noise { sigma: 0.3, replace: 2, seed: 1 << 40 | 5 });
    let copies = perturb(&samples, 1, &net.ordinary, n, noise)?;
    let mut made = samples.clone();
    copies.fill(&mut made.x, made.y.words_mut(), 0..n);
    let before = cuda(device)?.counts().uploaded;
    let noisy = observe(device, net, &copies)?;
    let slots = samples.text(1).map_or(0, |text| text.slots().len());
    let (brought, inputs) =
        (cuda(device)?.counts().uploaded - before, net.input().len() + slots + n * net.label_width() + 1);
    super::equal("what copies bring", &brought, &(4 * inputs))?;
    super::equal("copies that the device makes", &noisy, &observe(device, net, &made)?)
}

/// Gradient, weighted gradient and products of a block of all units, or of every third, by layer; the second against the
/// CPU's.
fn derives(device: &Device, net: &Network, kind: Kind, all: bool, n: usize) -> Result<(), Failed> {
    let samples = nets::Random(11).samples(net, n);
    let units: Vec<UnitId> =
        (0..net.units().len() as u32).filter(|unit| all || unit % 3 == 1).map(UnitId).collect();
    let block = Block::of(net, &units)?;
    let mut random = nets::Random(5);
    let v: Vec<f32> = (0..block.len()).map(|_| random.next() as f32).collect();
    let weight = |i: usize, loss: f64| 1.0 + loss * i as f64;
    let weighted = |device: &Device| block.weighted_gradient(device, net, &samples, Some(&weight));
    let run = || -> Result<[Vec<f64>; 3], Failed> {
        let curvature = Curvature::new(device, net, &block, &samples, kind, 1 << 20)?;
        let mut hv = vec![0.0; block.len()];
        curvature.apply(&mut hv, &v)?;
        let cuda = cuda(device)?;
        let (before, mut again) = (cuda.counts().allocations, vec![0.0; block.len()]);
        curvature.apply(&mut again, &v)?;
        super::equal("memory of a second product", &cuda.counts().allocations, &before)?;
        super::equal("a second product", &again, &hv)?;
        // The same of a vector that is on the device, in f64, and not of length one.
        let wide: Vec<f64> = v.iter().map(|&v| f64::from(v) * 1e3).collect();
        let on_device = curvature.vector(&wide)?.ok_or("the curvature is not on the device")?;
        let mut out = on_device.zeros()?;
        for _ in 0..2 {
            let before = cuda.counts();
            curvature.apply_on(&mut out, &on_device)?;
            let after = cuda.counts();
            if before.uploaded != after.uploaded {
                return Err("a product brings something to the device".into());
            }
        }
        curvature.apply_wide(&mut again, &wide, &mut vec![0.0; wide.len()])?;
        super::equal("a product on the device", &out.values()?, &again)?;
        Ok([curvature.gradient().to_vec(), weighted(device)?, hv])
    };
    let ([gradient, found, hv], on_cpu) = (twice(run)?, weighted(&Device::cpu()?)?);
    let (exact, plain) = (slopes_of::<f64>(net, &block, &samples), slopes_of::<f32>(net, &block, &samples));
    let direction = oracle::to_params(net, &block, &v);
    let (exact_hv, plain_hv) = (
        product_of::<f64>(net, &block, &samples, &direction, kind),
        product_of::<f32>(net, &block, &samples, &direction, kind),
    );
    for (i, layer) in net.layers.iter().enumerate() {
        let columns = net.units().of_layer(LayerId(i as u32));
        let of_layer = (0..units.len()).filter(|&u| columns.contains(&units[u].index()));
        let part =
            |v: &[f64]| -> Vec<f64> { of_layer.clone().flat_map(|u| v[block.range(u)].to_vec()).collect() };
        let close = |what: &str, found: &[f64], exact: &[f64], plain: &[f64]| {
            let plain: Vec<f32> = part(plain).into_iter().map(|v| v as f32).collect();
            close(&format!("{what} of {}", layer.name), &part(found), &part(exact), &plain)
        };
        close("gradient", &gradient, &exact, &plain)?;
        close("Hv", &hv, &exact_hv, &plain_hv)?;
        near(&format!("weighted gradient of {}", layer.name), &part(&found), &part(&on_cpu))?;
    }
    Ok(())
}

/// The oracle's gradient of a block.
fn slopes_of<T: Number>(net: &Network, block: &Block, samples: &Samples) -> Vec<f64> {
    let run = oracle::run::<T>(
        net,
        &oracle::constants(net),
        &samples.x,
        samples.y.words(),
        &oracle::slope(net.loss),
    );
    oracle::of_block(net, block, &run.gradient)
}

/// The oracle's product of a block.
fn product_of<T: Number>(
    net: &Network,
    block: &Block,
    samples: &Samples,
    direction: &oracle::Params<f64>,
    kind: Kind,
) -> Vec<f64> {
    let matrix = match kind {
        Kind::Hessian => oracle::Matrix::Hessian,
        Kind::Ggn => oracle::Matrix::Ggn,
        Kind::Fisher => oracle::Matrix::Fisher,
    };
    oracle::of_block(net, block, &oracle::product::<T>(net, direction, &samples.x, samples.y.words(), matrix))
}

/// A damped Gauss-Newton step on every third unit, from the CPU's gradient, whose residual is taken by the CPU's products.
fn solves(device: &Device, net: &Network, n: usize) -> Result<(), Failed> {
    let samples = nets::Random(11).samples(net, n);
    let units: Vec<UnitId> = (0..net.units().len() as u32).step_by(3).map(UnitId).collect();
    let (block, cpu) = (Block::of(net, &units)?, Device::cpu()?);
    let on = |device| Curvature::new(device, net, &block, &samples, Kind::Ggn, 1 << 20);
    let (expected, found) = (on(&cpu)?, on(device)?);
    let g = expected.gradient().to_vec();
    let mut room = vec![0.0; g.len()];
    let mut product = |out: &mut Vec<f64>, v: &Vec<f64>| expected.apply_wide(out, v, &mut room);
    let damping = 0.3 * largest_eigenvalue(&mut product, &g, 10)?;
    let limits = Limits { tolerance: 1e-5, products: 40 };
    let right = found.vector(&g)?.ok_or("the curvature is not on the device")?;
    let step = twice(|| {
        let mut product = |out: &mut CudaVector, v: &CudaVector| found.apply_on(out, v);
        let solved = conjugate_gradient(&mut product, &right, None, None, damping, Negative::Refuse, limits)?;
        super::equal("whether it converged", &solved.1.converged, &true)?;
        Ok(solved.0.values()?)
    })?;
    let mut left = vec![0.0; g.len()];
    product(&mut left, &step)?;
    let left: Vec<f64> = left.iter().zip(&step).map(|(h, x)| h + damping * x).collect();
    let norm = |f: &dyn Fn(usize) -> f64| (0..g.len()).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
    let residual = norm(&|i| left[i] - g[i]) / norm(&|i| g[i]);
    match residual <= 2.0 * limits.tolerance {
        true => Ok(()),
        false => Err(format!("a residual of {residual:e} by the CPU's products").into()),
    }
}

/// K-FAC of a block of all units, or of every third: moments by layer and group, the largest eigenvalue, and what the
/// inverse makes of a vector, against the CPU's.
fn factors(device: &Device, net: &Network, all: bool, n: usize) -> Result<(), Failed> {
    let samples = nets::Random(11).samples(net, n);
    let units: Vec<UnitId> =
        (0..net.units().len() as u32).filter(|unit| all || unit % 3 == 1).map(UnitId).collect();
    let block = Block::of(net, &units)?;
    let mut random = nets::Random(5);
    let v: Vec<f64> = (0..block.len()).map(|_| random.next() * 1e-4).collect();
    let run = |device: &Device, damping: f64| -> Result<_, Failed> {
        let kfac = Kfac::new(device, net, &block, &samples, 1 << 33 | 9)?;
        let (largest, mut moved) = (kfac.largest_eigenvalue()?, vec![f64::NAN; v.len()]);
        let inverse = kfac.inverse(device, damping)?;
        inverse.apply(device, &mut moved, &v)?;
        if let Some(cuda) = device.cuda() {
            let on_device = CudaVector::new(cuda, &v)?;
            let mut out = on_device.zeros()?;
            inverse.apply_on(&mut out, &on_device)?;
            let before = cuda.counts();
            inverse.apply_on(&mut out, &on_device)?;
            super::equal("what a second product asks for", &cuda.counts().allocations, &before.allocations)?;
            super::equal("what a product brings", &cuda.counts().uploaded, &before.uploaded)?;
            super::equal("a product on the device", &out.values()?, &moved)?;
        }
        let moments: Vec<Vec<f64>> = kfac.moments().flatten().map(<[f64]>::to_vec).collect();
        Ok((moments, largest, moved))
    };
    let damping =
        0.05 * Kfac::new(&Device::cpu()?, net, &block, &samples, 1 << 33 | 9)?.largest_eigenvalue()?;
    let (found, expected) = (twice(|| run(device, damping))?, run(&Device::cpu()?, damping)?);
    super::equal("parts", &found.0.len(), &expected.0.len())?;
    for (at, (found, expected)) in found.0.iter().zip(&expected.0).enumerate() {
        near(&format!("{} of part {}", ["A", "G"][at % 2], at / 2), found, expected)?;
    }
    near("the largest eigenvalue", &[found.1], &[expected.1])?;
    near("the inverse's product", &found.2, &expected.2)
}

/// A whole removal of texts, with repair, against the CPU's.
fn scrubs_texts(device: &Device) -> Result<(), Failed> {
    let text = InputKind::Text { tokens: 7 };
    let net = zoo::create("distilbert:24-8-1-2-9", text, 3, 3)?.network.freeze();
    let (samples, block) = (nets::Random(11).samples(&net, 24), Block::all(&net)?);
    let chosen = Criteria { perturbations: Some(40), max_units: Some(4), replace: 2, ..Default::default() };
    let settings = Settings {
        selection: chosen,
        damping: Some(0.1),
        limits: Limits { tolerance: 1e-6, products: 60 },
        calibration: Calibration::One,
        target: Target::Loss(3.0),
        repair: 2,
        ..Default::default()
    };
    let run = |device: &Device| -> scrubjay::Result<Scrubbed> {
        let task = Task::new(device, &samples, (8..24).collect(), settings.clone());
        let mut moved = net.clone();
        let record = unlearn(&task, &mut moved, 0, &Vec::from_iter(0..8), &[])?;
        Ok((record.units, block.values(&moved)))
    };
    let (found, expected) = (twice(|| Ok(run(device)?))?, run(&Device::cpu()?)?);
    super::equal("units", &found.0, &expected.0)?;
    near("values", &found.1, &expected.1)?;
    match found.1 == block.values(&net) {
        true => Err("nothing was removed".into()),
        false => Ok(()),
    }
}

/// The chosen units, and the values of all afterwards.
type Scrubbed = (Vec<(String, usize)>, Vec<f32>);

/// A whole removal: units, step and repair, against the CPU's, by conjugate gradient, preconditioned or not, and by K-FAC.
fn scrubs(device: &Device) -> Result<(), Failed> {
    let net = zoo::create("mlp:8", Shape::new(1, 1, 5), 3, 3)?.network.freeze();
    let samples = nets::Random(11).samples(&net, 40);
    let block = Block::all(&net)?;
    let run = |device: &Device, net: &Network, settings: &Settings| -> scrubjay::Result<Scrubbed> {
        let task = Task {
            repair_on: (12..40).collect(),
            held_out: (30..40).collect(),
            ..Task::new(device, &samples, (12..30).collect(), settings.clone())
        };
        let mut moved = net.clone();
        let record = unlearn(&task, &mut moved, 0, &Vec::from_iter(0..12), &[])?;
        Ok((record.units, block.values(&moved)))
    };
    let chosen = Criteria { perturbations: Some(60), max_units: Some(3), ..Default::default() };
    // A solve that is well damped and goes on to its end: one that stops early is as far from another as its tolerance.
    let settings = Settings {
        selection: chosen,
        damping: Some(0.1),
        limits: Limits { tolerance: 1e-6, products: 60 },
        calibration: Calibration::One,
        repair: 2,
        ..Default::default()
    };
    let (found, expected) =
        (twice(|| Ok(run(device, &net, &settings)?))?, run(&Device::cpu()?, &net, &settings)?);
    super::equal("units", &found.0, &expected.0)?;
    near("values", &found.1, &expected.1)?;
    if found.0.is_empty() || found.1 == block.values(&net) {
        return Err("nothing was removed".into());
    }
    let first = Criteria { method: Method::Foci, ..chosen };
    let calibrated = Settings {
        selection: first,
        calibration: Calibration::Calibrated,
        target: Target::Loss(3.0),
        repair: 0,
        ..settings.clone()
    };
    let (found, expected) = (run(device, &net, &calibrated)?, run(&Device::cpu()?, &net, &calibrated)?);
    super::equal("units of FOCI", &found.0, &expected.0)?;
    near("calibrated values", &found.1, &expected.1)?;
    if found.1 == block.values(&net) {
        return Err("nothing was removed by a calibrated step".into());
    }
    for settings in [
        Settings { curvature: Some(Approximation::Kfac), ..settings.clone() },
        Settings { precondition: true, ..settings.clone() },
    ] {
        let (found, expected) = (run(device, &net, &settings)?, run(&Device::cpu()?, &net, &settings)?);
        super::equal("units by K-FAC", &found.0, &expected.0)?;
        near("values by K-FAC", &found.1, &expected.1)?;
        if found.1 == block.values(&net) {
            return Err("nothing was removed by K-FAC".into());
        }
    }
    Ok(())
}
