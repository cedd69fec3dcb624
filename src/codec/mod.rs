//! CODEC, the measure of conditional dependence of Azadkia and Chatterjee (Ann. Stat. 2021), and FOCI, the forward
//! selection that it drives. Usable alone: columns in, numbers out.
//!
//! For rows (X, Y, Z) with R_i = #{j : Y_j ≤ Y_i} and L_i = #{j : Y_j ≥ Y_i}, and a neighbour M(i) of row i, T is a
//! function of one sum per set of columns, A = Σ_i min(R_i, R_M(i)) (MATH.md, Eq. 1-4): `neighbours` finds M for given
//! columns, [`foci`] for all candidates of a greedy step at once. [`Measure::Xi`] is Chatterjee's ξ; [`p_value`] and
//! [`interval`] say how far a value is from chance.
//!
//! Distances are f64, squared differences summed column by column in the order given. Where several rows are equally
//! near, min(R_i, R_M(i)) is its mean over all of them ([`Ties::Mean`]), so no result depends on the order of rows, on
//! a seed or on the number of threads. Work runs in the thread pool of the caller.

mod columns;
mod cuda;
mod foci;
mod graph;
mod neighbours;
mod ranks;
mod resample;
mod scan;
mod sorted;
mod statistic;
mod step;
mod tree;
mod xi;

pub use columns::{Matrix, Standardize};
pub(crate) use cuda::Again;
pub use foci::{Foci, FociOptions, Plan, Stopped, Watch, foci, foci_each, foci_on, memory, memory_on};
pub use graph::{Graph, graph, graph_memory, graph_memory_on, graph_on};
pub use neighbours::nearest;
pub use resample::{Interval, interval, interval_on, p_value, p_value_on, permuted_first_steps};
pub use statistic::{
    Measure, Options, Statistic, statistic, statistic_memory, statistic_memory_on, statistic_on,
};

/// What counts where several rows are equally near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// The mean over all of them: the exact expectation of the paper's random choice. The default.
    #[default]
    Mean,
    /// The row of the lowest index; ranks are positions in a stable ascending sort of Y. For comparison with other
    /// implementations: the result depends on the order of rows, and time grows with the number of tied pairs.
    First,
    /// One of them at random, as in the paper, averaged over some draws. Time grows with the number of tied pairs.
    Random {
        /// The seed of the choice.
        seed: u64,
        /// How often each row chooses, at least once; the mean counts.
        draws: u32,
    },
}
