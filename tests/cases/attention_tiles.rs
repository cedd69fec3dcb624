//! Cases of attention on tensor cores: values of 16 bits against plain loops that round weights and outputs.
use half::{bf16, f16};
use libtest_mimic::Failed;
use scrubjay::device::Device;
use scrubjay::device::cuda::{Buffer, tiles};
use scrubjay::ops::{Shape, Windows, cuda as on_cuda};

use super::checks::{HALVES, Stored, close, rounded, stores, upload, values, wide};
use super::{Case, attention, cuda, few, large};

/// What is attended to.
#[derive(Clone, Copy)]
enum Keys {
    All,
    /// Those that a mask keeps.
    Some(fn(usize, usize) -> bool),
    /// Those of the same window.
    Windows(Windows),
}

/// n, heads and the channels of a head; t is what the keys say, or this.
type Sizes = (usize, usize, usize, usize);

/// Every case, with its name.
pub fn cases() -> Vec<(String, Case)> {
    let half: Keys = Keys::Some(|image, key| image != 2 && (key < 35 || image == 1 && key % 3 == 0)); // none of image 2
    let late = Keys::Some(|_, key| key > 130); // no key of the first two tiles
    let windows =
        |side, rows, columns, down, right| Keys::Windows(Windows { side, rows, columns, down, right });
    let all: Vec<(&str, Keys, Sizes)> = vec![
        ("", Keys::All, (1, 1, 1, 1)),
        ("", Keys::All, (2, 5, 2, 3)),
        ("", Keys::All, (1, 64, 1, 8)),
        ("", Keys::All, (1, 65, 2, 33)),
        ("", Keys::All, (1, 130, 1, 64)),
        ("", Keys::All, (1, 82, 1, 128)),
        ("", Keys::All, (1, 66, 1, 88)),
        ("", Keys::All, (1, 200, 1, 32)),
        (",masked", half, (3, 70, 2, 16)),
        (",late", late, (1, 140, 1, 16)),
        (",windows", windows(3, 1, 2, 0, 1), (2, 9, 2, 8)),
        (",windows", windows(9, 2, 1, 1, 2), (1, 81, 2, 5)),
    ];
    let all = all.into_iter().filter(|(_, _, (_, t, _, _))| large() || *t < if few() { 65 } else { 100 });
    let named = all.flat_map(|(kind, keys, sizes)| {
        HALVES.into_iter().zip([attends::<bf16> as Check, attends::<f16>]).map(move |(precision, check)| {
            let (n, t, heads, width) = sizes;
            let name =
                format!("attention_tiles/{}{kind},n={n},t={t},heads={heads},width={width}", precision.name());
            let case: Case = Box::new(move |device| check(device, keys, sizes));
            (name, case)
        })
    });
    let mut cases: Vec<(String, Case)> = named.collect();
    cases.push(("attention_tiles/limits".into(), Box::new(limits)));
    cases
}

type Check = fn(&Device, Keys, Sizes) -> Result<(), Failed>;

fn attends<H: Stored>(device: &Device, keys: Keys, (n, t, heads, width): Sizes) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let shape = Shape::new(1, t, heads * width);
    let at = match keys {
        Keys::Windows(at) => Some(at),
        Keys::All | Keys::Some(_) => None,
    };
    let images = n * at.map_or(1, |at| at.count());
    let x: Vec<f32> = values(3 * images * shape.len(), 1).iter().map(|x| 2.5 * x).collect();
    let x = rounded::<H>(&x);
    let table = values(at.map_or(0, |at| at.offsets() * heads), 2);
    let mask: Option<Vec<u32>> = match keys {
        Keys::Some(keeps) => Some((0..n * t).map(|i| u32::from(keeps(i / t, i % t))).collect()),
        Keys::All | Keys::Windows(_) => None,
    };
    let (on_x, on_table) = (upload::<H>(cuda, &x)?, cuda.upload(&table)?);
    let on_mask = mask.as_ref().map(|mask| cuda.upload(mask)).transpose()?;
    let found = stores::<H>(cuda, &vec![f32::NAN; images * shape.len()], |y| {
        let windows = at.map(|at| (at, on_table.input()));
        let mask = on_mask.as_ref().map(Buffer::input);
        on_cuda::attention::forward(cuda, y, None, on_x.input(), images, shape, heads, mask, windows)
    })?;

    let (mut exact, mut plain) = (vec![], vec![]);
    let round = |p: f64| f64::from(H::rounded(p as f32));
    for (i, x) in x.chunks_exact(3 * t * heads * width * images / n).enumerate() {
        let (x, table) = (wide::<f64>(x), wide::<f64>(&table));
        let y = |weight: &dyn Fn(f64) -> f64| match at {
            Some(at) => {
                attention::windowed(&x, Shape::new(at.count(), t, shape.c), heads, &table, at, weight)
            }
            None => {
                let keys = mask.as_ref().map(|mask| &mask[i * t..(i + 1) * t]);
                attention::attention(&x, shape, heads, keys, weight)
            }
        };
        exact.extend(y(&|p| p));
        plain.extend(y(&round).into_iter().map(|y| round(y) as f32));
    }
    close("y", &found, &exact, &plain)
}

/// A head wider than tensor cores take has rows of P in shared memory, and no more tokens than are there.
fn limits(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (width, longest) = (tiles::ATTENTION_WIDEST as usize + 1, tiles::ATTENTION_KEYS as usize);
    let forward = |t: usize| {
        let (x, mut y) =
            (cuda.upload(&vec![bf16::ONE; 3 * t * width])?, cuda.upload(&vec![bf16::NAN; t * width])?);
        let shape = Shape::new(1, t, width);
        on_cuda::attention::forward(cuda, y.output(), None, x.input(), 1, shape, 1, None, None)?;
        cuda.download(&y)
    };
    if forward(2)?.iter().any(|&y| y != bf16::ONE) {
        return Err("a wide head".into());
    }
    match forward(longest + 1) {
        Err(error) if error.to_string().contains("16 bits") => Ok(()),
        _ => Err("more tokens than there is room for".into()),
    }
}
