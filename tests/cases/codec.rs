//! Columns of every kind that the dependence measure meets, by name: read by tests and benches alike.

use scrubjay::ops::philox::{Stream, Use};

/// How a column is made.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Normal.
    Normal,
    /// Normal, rounded to this many steps a unit.
    Rounded(f64),
    /// 0 or 1.
    Binary,
    /// Zero in half of the rows, normal in the others.
    HalfZero,
    /// One value.
    Constant,
    /// Normal, far from 0 and of another scale.
    Far,
    /// Squares of its differences overflow.
    Huge,
    /// Squares of its differences underflow.
    Tiny,
    /// -0 and 0.
    Zeros,
}

/// Y and the columns of a case.
pub struct Case {
    pub name: &'static str,
    pub n: usize,
    pub kinds: &'static [Kind],
    pub y: Kind,
}

use Kind::{Binary, Constant, Far, HalfZero, Huge, Normal, Rounded, Tiny, Zeros};

pub const CASES: &[Case] = &[
    Case { name: "n=2", n: 2, kinds: &[Normal, Binary, Constant], y: Normal },
    Case { name: "n=3", n: 3, kinds: &[Normal, Binary, Constant], y: Normal },
    Case { name: "normal,n=31", n: 31, kinds: &[Normal; 9], y: Normal },
    Case { name: "normal,n=400", n: 400, kinds: &[Normal; 5], y: Normal },
    Case { name: "normal,n=64", n: 64, kinds: &[Normal; 17], y: Rounded(2.0) },
    Case {
        name: "rounded,n=90",
        n: 90,
        kinds: &[Rounded(1.0), Rounded(2.0), Rounded(4.0), Normal],
        y: Rounded(4.0),
    },
    Case { name: "binary,n=120", n: 120, kinds: &[Binary; 6], y: Binary },
    Case {
        name: "binary,n=500",
        n: 500,
        kinds: &[Binary, Binary, Normal, Constant, HalfZero, Rounded(1.0)],
        y: Rounded(8.0),
    },
    Case { name: "half_zero,n=450", n: 450, kinds: &[HalfZero, HalfZero, Normal, Binary, Far], y: HalfZero },
    Case {
        name: "mixed,n=60",
        n: 60,
        kinds: &[Normal, Far, Huge, Tiny, Zeros, Constant, HalfZero],
        y: Normal,
    },
    Case { name: "extreme,n=40", n: 40, kinds: &[Huge, Tiny, Zeros, Huge, Tiny], y: Far },
    Case { name: "constant_y,n=30", n: 30, kinds: &[Normal, Binary], y: Constant },
];

/// A column of `n` values, drawn from stream `index` of `seed`.
pub fn column(kind: Kind, n: usize, seed: u64, index: u32) -> Vec<f64> {
    let mut stream = Stream::new(seed, Use::Choice, index);
    let mut value = || {
        let normal = f64::from(stream.normal());
        let coin = stream.uniform() < 0.5;
        match kind {
            Normal => normal,
            Rounded(steps) => (normal * steps).round() / steps,
            Binary => f64::from(u8::from(coin)),
            HalfZero => {
                if coin {
                    0.0
                } else {
                    normal
                }
            }
            Constant => 0.25,
            Far => 1e6 + 1e-3 * normal,
            Huge => 1e200 * normal,
            Tiny => 1e-170 * normal,
            Zeros => {
                if coin {
                    0.0
                } else {
                    -0.0
                }
            }
        }
    };
    (0..n).map(|_| value()).collect()
}

/// Y (which depends on the first two columns where it is continuous) and the columns of a case.
pub fn data(case: &Case, seed: u64) -> (Vec<f64>, Vec<Vec<f64>>) {
    let columns: Vec<_> =
        case.kinds.iter().enumerate().map(|(j, &kind)| column(kind, case.n, seed, j as u32)).collect();
    let mut y = column(case.y, case.n, seed, u32::MAX);
    if matches!(case.y, Normal | HalfZero) {
        for (i, y) in y.iter_mut().enumerate() {
            *y = 0.2 * *y + columns[0][i].clamp(-9.0, 9.0) * columns[1][i].clamp(-9.0, 9.0);
        }
    }
    (y, columns)
}
