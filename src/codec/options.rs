//! The options of the measure and of the selection.

use super::watch::Watch;
use crate::names::names;

/// What counts where several rows are equally near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// The mean over all of them: the exact expectation of the paper's random choice. The default.
    #[default]
    Mean,
    /// The row of the lowest index; ranks are positions in a stable ascending sort of Y. For comparison with other
    /// implementations: the result depends on the order of rows, and time grows with the number of tied pairs.
    First,
    /// One of them at random, as in the paper; the mean over several draws counts. Time grows with the number of tied
    /// pairs.
    Random {
        /// The seed of the choice.
        seed: u64,
        /// How often each row chooses, at least once.
        draws: u32,
    },
}

/// How columns are scaled before anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standardize {
    /// Not at all: the default.
    #[default]
    None,
    /// Each column is centred and divided by its standard deviation (n − 1); constant columns become 0.
    Scale,
    /// Each column is mapped to the range from 0 to 1; constant columns become 0.
    Bounded,
}

names!(Standardize {
    None = "none": "as they are",
    Scale = "scale": "centred and divided by the standard deviation",
    Bounded = "bounded": "mapped to the range from 0 to 1",
});

/// What [`super::statistic()`] measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// T(Y, Z | X) of Azadkia and Chatterjee: the default.
    #[default]
    Codec,
    /// ξ(Z, Y) of Chatterjee (JASA 2021), for one column Z and no X: neighbours are successors in the order of Z.
    ///
    /// Where Z ties, [`Ties::Mean`] is the expectation over all orders of the tied rows, [`Ties::First`] takes them by
    /// index.
    Xi,
}

names!(Measure {
    Codec = "codec": "T of Azadkia and Chatterjee",
    Xi = "xi": "ξ of Chatterjee, for one column Z and no X",
});

/// How [`super::statistic()`] measures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StatisticOptions {
    /// T or ξ.
    pub measure: Measure,
    /// How the columns Z and X are scaled first; Y needs none, since only its ranks count.
    pub standardize: Standardize,
    /// What counts where several rows are equally near.
    pub ties: Ties,
    /// σ of the normal noise added to Y, Z and X after scaling (L-CODEC); 0 adds none.
    pub noise: f64,
    /// The seed of the noise.
    pub seed: u64,
}

/// How [`super::foci()`] selects.
#[derive(Clone, Copy, Debug, Default)]
pub struct FociOptions<'a> {
    /// Columns that are known from the start: every T is given these, and they are not chosen.
    pub initial: &'a [usize],
    /// Groups of columns that are chosen together. A column is in one group at most; one that is in none cannot be
    /// chosen. Empty: every column is a candidate of its own.
    pub groups: &'a [Vec<usize>],
    /// Lets another thread read the progress and end the selection.
    pub watch: Option<&'a Watch>,
    /// Stop at this many columns; 1 is the paper's cheap selection.
    pub max_features: Option<usize>,
    /// Ignore the stopping rule: order all columns (or `max_features` of them), even where T ≤ 0 or is undefined.
    pub all: bool,
    /// How columns are scaled first.
    pub standardize: Standardize,
    /// What counts where several rows are equally near.
    pub ties: Ties,
    /// σ of the normal noise added to Y and the columns after scaling (L-FOCI); 0 adds none.
    pub noise: f64,
    /// The seed of the noise.
    pub seed: u64,
}
