//! Operations on values of 16 bits: what the same operation in f32 gives, which cases of its own hold to plain loops, with
//! one rounding behind it.
use half::{bf16, f16};
use libtest_mimic::Failed;
use scrubjay::device::{Cuda, Device};
use scrubjay::ops::{Activation, Bands, Precision, Shape, Strided, Window, cuda as on_cuda};

use super::checks::{HALVES, Stored, rounded, same_bits, stores, upload, values};
use super::{Case, cuda, few};

/// The cases by name.
pub fn cases() -> Vec<(String, Case)> {
    let checks: [(&str, [Check; 2]); 6] = [
        ("activation", [activations::<bf16>, activations::<f16>]),
        ("pointwise", [sums::<bf16>, sums::<f16>]),
        ("pool", [pools::<bf16>, pools::<f16>]),
        ("shape", [moves::<bf16>, moves::<f16>]),
        ("layer_norm", [layer_norms::<bf16>, layer_norms::<f16>]),
        ("attention", [attentions::<bf16>, attentions::<f16>]),
    ];
    let named = checks.into_iter().flat_map(|(name, checks)| {
        HALVES.into_iter().zip(checks).map(move |(precision, check): (Precision, Check)| {
            let case: Case = Box::new(move |device: &Device| check(cuda(device)?));
            (format!("{name}/{}", precision.name()), case)
        })
    });
    named.collect()
}

type Check = fn(&Cuda) -> Result<(), Failed>;

/// Fails unless what an operation writes to values of a type that begin as `start` is what it writes to f32, rounded; the
/// inputs are values that the type holds.
macro_rules! rounds_once {
    ($cuda:ident, $H:ident, $what:expr, $start:expr, [$($x:ident),*], |$y:ident| $operation:expr) => {{
        $(let $x = rounded::<$H>(&$x);)*
        let start = rounded::<$H>(&$start);
        let expected = {
            $(let on = upload::<f32>($cuda, &$x)?; let $x = on.input();)*
            stores::<f32>($cuda, &start, |$y| $operation)?
        };
        let found = {
            $(let on = upload::<$H>($cuda, &$x)?; let $x = on.input();)*
            stores::<$H>($cuda, &start, |$y| $operation)?
        };
        same_bits($what, &found, &rounded::<$H>(&expected))?;
    }};
}

/// Values that no type holds, but for their zeros and ties.
fn odd(len: usize, seed: usize) -> Vec<f32> {
    values(len, seed).into_iter().map(|x| x * 1.001_3).collect()
}

fn nothing(len: usize) -> Vec<f32> {
    vec![f32::NAN; len]
}

fn activations<H: Stored>(cuda: &Cuda) -> Result<(), Failed> {
    for kind in Activation::ALL {
        for len in if few() { vec![33] } else { vec![1, 31, 300] } {
            let x: Vec<f32> = odd(len, 1).into_iter().map(|x| 3.0 * x).collect();
            let what = format!("{kind:?}");
            rounds_once!(cuda, H, &what, nothing(len), [x], |y| on_cuda::activation::forward(
                cuda, y, x, kind
            ));
            rounds_once!(cuda, H, &what, x, [], |y| on_cuda::activation::forward_in_place(cuda, y, kind));
        }
    }
    Ok(())
}

fn sums<H: Stored>(cuda: &Cuda) -> Result<(), Failed> {
    for (positions, c) in [(1, 1), (31, 3), (33, 33)] {
        let (len, a, b) = (positions * c, odd(positions * c, 1), odd(positions * c, 2));
        let (scale, shift) = (cuda.upload(&values(c, 3))?, cuda.upload(&values(c, 4))?);
        let (scale, shift) = (scale.input(), shift.input());
        rounds_once!(cuda, H, "sum", nothing(len), [a, b], |y| on_cuda::pointwise::sum(cuda, y, a, b));
        rounds_once!(cuda, H, "add", b, [a], |y| on_cuda::pointwise::add(cuda, y, a));
        rounds_once!(cuda, H, "scale_shift", nothing(len), [a], |y| {
            on_cuda::pointwise::scale_shift(cuda, y, a, scale, shift)
        });
        let gate = odd(2 * c, 5);
        let x = [a, b].concat();
        rounds_once!(cuda, H, "gate", nothing(2 * len), [x, gate], |y| {
            on_cuda::gate::apply(cuda, y, x, gate, c, false)
        });
    }
    Ok(())
}

fn pools<H: Stored>(cuda: &Cuda) -> Result<(), Failed> {
    for (n, h, w, c) in [(2, 3, 3, 31), (1, 5, 4, 33)] {
        let (from, x) = (Shape::new(h, w, c), odd(n * h * w * c, 1));
        let window = Window::square(3, 2, 1);
        let to = Shape::new((h - 1) / 2 + 1, (w - 1) / 2 + 1, c);
        let len = n * to.len();
        rounds_once!(cuda, H, "max_pool", nothing(len), [x], |y| {
            on_cuda::pool::max_pool(cuda, y, None, x, n, from, to, window)
        });
        rounds_once!(cuda, H, "average_pool", nothing(len), [x], |y| {
            on_cuda::pool::average_pool(cuda, y, x, n, from, to, window)
        });
        let one = Shape::new(1, 1, c);
        rounds_once!(cuda, H, "adaptive_pool", nothing(n * c), [x], |y| {
            on_cuda::pool::adaptive_pool(cuda, y, x, n, from, one)
        });
    }
    Ok(())
}

fn moves<H: Stored>(cuda: &Cuda) -> Result<(), Failed> {
    let (n, rows, columns, c) = (2, 6, 4, 3);
    let (from, len) = (Shape::new(rows, columns, c), n * rows * columns * c);
    let x = odd(len, 1);
    let (to, at) = (Strided { first: 1, stride: 5 }, Strided { first: 0, stride: c });
    let start = odd(5 * len / c, 2);
    rounds_once!(cuda, H, "copy", start, [x], |y| on_cuda::shape::copy(cuda, y, x, len / c, c, to, at));
    rounds_once!(cuda, H, "add", start, [x], |y| on_cuda::shape::add(cuda, y, x, len / c, c, to, at));
    let bands = Bands { rows, columns, height: 2, down: 1, right: 1 };
    for back in [false, true] {
        rounds_once!(cuda, H, "bands", nothing(len), [x], |y| {
            on_cuda::shape::bands(cuda, y, x, n, bands, c, back, false)
        });
    }
    let wide = Shape::new(3, 2, 7);
    rounds_once!(cuda, H, "shortcut", nothing(n * wide.len()), [x], |y| {
        on_cuda::shape::shortcut(cuda, y, x, n, from, wide, 2)
    });
    Ok(())
}

/// x is in f32.
fn layer_norms<H: Stored>(cuda: &Cuda) -> Result<(), Failed> {
    for (n, c) in [(1, 2), (3, 31), (4, 33)] {
        let (x, gamma, beta) =
            (cuda.upload(&odd(n * c, 1))?, cuda.upload(&values(c, 2))?, cuda.upload(&values(c, 3))?);
        let (x, gamma, beta) = (x.input(), gamma.input(), beta.input());
        rounds_once!(cuda, H, "y", nothing(n * c), [], |y| {
            let mut moments = cuda.alloc(2 * n)?;
            on_cuda::layer_norm::forward(cuda, y, moments.output(), x, gamma, beta, 1e-5)
        });
    }
    Ok(())
}

fn attentions<H: Stored>(cuda: &Cuda) -> Result<(), Failed> {
    for (n, t, heads, width) in [(1, 1, 1, 1), (2, 5, 2, 3), (1, 33, 1, 33)] {
        let (shape, x) = (Shape::new(1, t, heads * width), odd(3 * n * t * heads * width, 1));
        rounds_once!(cuda, H, "y beside P", nothing(n * shape.len()), [x], |y| {
            let mut saved = cuda.alloc(n * heads * t * t)?;
            on_cuda::attention::forward(cuda, y, Some(saved.output()), x, n, shape, heads, None, None)
        });
    }
    Ok(())
}
