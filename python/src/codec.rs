//! CODEC, ξ and FOCI on columns of numbers.

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use scrubjay::codec::{
    Columns, FociOptions, Measure, Standardize, StatisticOptions, Ties, Watch, foci as select, interval,
    p_value, statistic,
};
use serde::Deserialize;
use serde_json::json;

use crate::errors::{raised, refused};
use crate::values::{Device, array, parsed};
use crate::watched::{unlocked, watched};

/// How columns are scaled, how ties are broken, and noise.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Randomness {
    measure: Measure,
    standardize: Standardize,
    ties: TiesName,
    draws: u32,
    noise: f64,
    seed: u64,
}

impl Default for Randomness {
    fn default() -> Randomness {
        let StatisticOptions { measure, standardize, noise, seed, .. } = StatisticOptions::default();
        Randomness { measure, standardize, ties: TiesName::Mean, draws: 1, noise, seed }
    }
}

/// [`Ties`] by name.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TiesName {
    Mean,
    First,
    Random,
}

impl Randomness {
    fn ties(&self) -> PyResult<Ties> {
        match self.ties {
            TiesName::Mean => Ok(Ties::Mean),
            TiesName::First => Ok(Ties::First),
            TiesName::Random if self.draws > 0 => Ok(Ties::Random { seed: self.seed, draws: self.draws }),
            TiesName::Random => Err(refused("draws: at least one random choice is needed")),
        }
    }
}

/// A table f64 [n, p].
struct Table {
    n: usize,
    p: usize,
    values: Vec<f64>,
}

impl Table {
    fn new(py: Python<'_>, buffer: &PyBuffer<f64>) -> PyResult<Table> {
        match array(py, buffer)? {
            (sides, values) if sides.len() == 2 => Ok(Table { n: sides[0], p: sides[1], values }),
            (sides, _) => Err(refused(format!("a table of shape {sides:?}, where [n, p] was expected"))),
        }
    }

    fn columns(&self) -> scrubjay::Result<Columns<'_>> {
        Columns::from_rows_f64(&self.values, self.n, self.p, self.p)
    }
}

/// What [`codec`] returns: the value, the p-value, the interval, and the rows of its subsamples.
type Measured = (Option<f64>, Option<f64>, Option<(f64, f64)>, Option<usize>);

/// T(Y, Z | X) or ξ(Z, Y) of a table whose first column is Y, the next `given` ones are X, and the rest are Z.
#[pyfunction]
#[pyo3(signature = (device, table, given, options, permutations, level, subsamples))]
pub fn codec(
    py: Python<'_>,
    device: &Device,
    table: PyBuffer<f64>,
    given: usize,
    options: &str,
    permutations: Option<u32>,
    level: Option<f64>,
    subsamples: u32,
) -> PyResult<Measured> {
    let table = Table::new(py, &table)?;
    let (x, z): (Vec<usize>, Vec<usize>) = (1..table.p).partition(|&column| column <= given);
    let options = parsed::<Randomness>(options)?;
    let how = StatisticOptions {
        measure: options.measure,
        standardize: options.standardize,
        ties: options.ties()?,
        noise: options.noise,
        seed: options.seed,
    };
    unlocked(py, || {
        let (device, data) = (&device.0, table.columns()?);
        let y = data.column(0);
        let found = statistic(device, &y, &data, &z, &x, &how)?;
        let chance = match permutations {
            Some(count) => p_value(device, &y, &data, &z, &x, &how, count)?,
            None => None,
        };
        let spread = match level {
            Some(level) => interval(device, &y, &data, &z, &x, &how, level, subsamples)?,
            None => None,
        };
        Ok((found.value, chance, spread.map(|found| (found.low, found.high)), spread.map(|found| found.m)))
    })
}

/// The results of a selection that are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    initial: Vec<usize>,
    groups: Vec<Vec<usize>>,
    max_features: Option<usize>,
    all: bool,
}

/// Selects columns of the table; what was chosen as JSON, and whether Ctrl-C ended it.
#[pyfunction]
pub fn foci(
    py: Python<'_>,
    device: &Device,
    y: PyBuffer<f64>,
    table: PyBuffer<f64>,
    asked: &str,
    options: &str,
) -> PyResult<(String, bool)> {
    let (y, table) = (array(py, &y)?.1, Table::new(py, &table)?);
    let (asked, options) = (parsed::<Asked>(asked)?, parsed::<Randomness>(options)?);
    let watch = Watch::default();
    let how = FociOptions {
        initial: &asked.initial,
        groups: &asked.groups,
        watch: Some(&watch),
        max_features: asked.max_features,
        all: asked.all,
        standardize: options.standardize,
        ties: options.ties()?,
        noise: options.noise,
        seed: options.seed,
    };
    let work = || select(&device.0, &y, &table.columns()?, &how);
    let (found, interrupted) = watched(py, || watch.stop(), || Ok(()), work)?;
    let found = found.map_err(raised)?;
    let mut report = json!(found);
    report["first_step"] = json!(found.first_step);
    Ok((report.to_string(), interrupted))
}
