//! CODEC, the measure of conditional dependence of Azadkia and Chatterjee (Ann. Stat. 2021), and FOCI, the forward
//! selection that it drives. Usable alone: columns in, numbers out.
//!
//! For rows (X, Y, Z) with R_i = #{j : Y_j ≤ Y_i} and L_i = #{j : Y_j ≥ Y_i}, and a neighbour M(i) of row i, T is a
//! function of one sum per set of columns, A = Σ_i min(R_i, R_M(i)) (MATH.md, Eq. 1-4): `neighbours` finds M for given
//! columns, [`foci()`] for all candidates of a greedy step at once. [`Measure::Xi`] is Chatterjee's ξ; [`p_value`] and
//! [`interval`] compare a value with chance.
//!
//! Distances are f64, squared differences summed column by column in the order given. Where several rows are equally
//! near, min(R_i, R_M(i)) is its mean over all of them ([`Ties::Mean`]). No result depends on the device, on the order of
//! rows, on a seed or on the number of threads.
//!
//! ```
//! use scrubjay::codec::{Columns, FociOptions, foci};
//! use scrubjay::device::Device;
//!
//! let device = Device::cpu()?;
//! let a: Vec<f64> = (0..200).map(|i| f64::from(i * 37 % 200)).collect();
//! let b: Vec<f64> = (0..200).map(|i| f64::from(i * 91 % 200)).collect();
//! let y: Vec<f64> = b.iter().map(|b| (b - 100.0).powi(2)).collect(); // a function of b alone
//! let columns = [a, b].concat();
//! let found = foci(&device, &y, &Columns::from_columns_f64(&columns, 200, 2)?, &FociOptions::default())?;
//! assert_eq!(found.order[0], 1);
//! # scrubjay::Result::Ok(())
//! ```

mod blankets;
mod boxes;
mod columns;
mod cpu;
mod cuda;
mod extents;
mod foci;
mod graph;
mod grouped;
mod memory;
mod neighbours;
mod options;
mod pruning;
mod ranks;
mod resample;
mod runs;
mod scan;
mod search;
mod sorted;
mod split;
mod statistic;
mod step;
mod tree;
mod watch;
mod xi;

pub use blankets::Blankets;
pub use columns::Columns;
pub(crate) use cuda::{Again, Rows, Table};
pub(crate) use foci::foci_of_table;
pub use foci::{Foci, Stopped, foci, foci_each, foci_memory};
pub use graph::{Graph, graph, graph_memory};
pub use memory::MemoryEstimate;
pub use neighbours::nearest;
pub use options::{FociOptions, Measure, Standardize, StatisticOptions, Ties};
pub(crate) use resample::permuted_first_steps_of_table;
pub use resample::{Interval, interval, p_value, permuted_first_steps};
pub use statistic::{Statistic, statistic, statistic_memory};
pub use watch::Watch;
