//! Columns of every kind that a kernel must survive.

use scrubjay::ops::philox::{Stream, Use};

/// What the values are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Ties,
    Constant,
    Zeros,
    Huge,
    Tiny,
    Close,
}

impl Kind {
    pub const ALL: [Kind; 7] =
        [Kind::Normal, Kind::Ties, Kind::Constant, Kind::Zeros, Kind::Huge, Kind::Tiny, Kind::Close];

    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// `[p, n]`.
    pub fn columns(self, p: usize, n: usize, seed: u64) -> Vec<f64> {
        let mut stream = Stream::new(seed, Use::Choice, n as u32);
        let value = |_| match self {
            Kind::Normal => f64::from(stream.normal()),
            Kind::Ties => stream.below(5) as f64 - 2.0,
            Kind::Constant => 0.25,
            Kind::Zeros => [0.0, -0.0, 1.0][stream.below(3)],
            Kind::Huge => (stream.uniform() - 0.5) * [f64::MAX, 1e300, 1e160][stream.below(3)],
            Kind::Close => 1e6 + 0.03125 + 1e-3 * (stream.uniform() - 0.5), // in f32 they are equal, or far apart
            Kind::Tiny => (stream.uniform() - 0.5) * [1e-160, 1e-170, f64::MIN_POSITIVE][stream.below(3)],
        };
        (0..p * n).map(value).collect()
    }
}
