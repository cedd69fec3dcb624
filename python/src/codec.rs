//! CODEC, ξ and FOCI on columns of numbers.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use scrubjay::codec::{
    Blankets, Columns, Foci, FociOptions, Measure, Standardize, StatisticOptions, Ties, Watch,
    foci as select, graph as search, interval, p_value, statistic,
};
use scrubjay::data::table::{Categorical, Decimal, Delimiter, Header, Missing, TableOptions};
use scrubjay::{data, report};
use serde::Deserialize;
use serde_json::json;

use crate::errors::{raised, refused};
use crate::model::{listed, written};
use crate::values::{Device, array, bytes, parsed};
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

/// The chart of a selection as SVG: the names of its steps, what was found as JSON.
#[pyfunction]
pub fn plot(names: Vec<String>, found: &str) -> PyResult<String> {
    let found = parsed::<Foci>(found)?;
    if names.len() != found.order.len()
        || [&found.conditional, &found.cumulative].iter().any(|t| t.len() != names.len())
    {
        return Err(refused("a name and two values of T for every step were expected"));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(report::steps(&names, &found, found.reason()))
}

/// The blankets of all columns of a table, as JSON, and for Graphviz; and whether Ctrl-C ended the search. `tell` gets how many
/// columns are done.
#[pyfunction]
pub fn graph(
    device: &Device,
    table: PyBuffer<f64>,
    names: Vec<String>,
    max_features: Option<usize>,
    all: bool,
    options: &str,
    resume: Option<PathBuf>,
    tell: &Bound<'_, PyAny>,
) -> PyResult<(String, String, bool)> {
    let py = tell.py();
    let table = Table::new(py, &table)?;
    let options = parsed::<Randomness>(options)?;
    let watch = Watch::default();
    let how = FociOptions {
        watch: Some(&watch),
        max_features,
        all,
        standardize: options.standardize,
        ties: options.ties()?,
        noise: options.noise,
        seed: options.seed,
        ..FociOptions::default()
    };
    let (done, told) = (AtomicUsize::new(0), Cell::new(0));
    let pass = || {
        let now = done.load(Ordering::Relaxed);
        if told.replace(now) != now { tell.call1((now,)).map(drop) } else { Ok(()) }
    };
    let work = || {
        let data = table.columns()?;
        let values: Vec<f64> = (0..data.p()).flat_map(|column| data.column(column)).collect();
        let opened =
            resume.as_deref().map(|path| Blankets::open(path, &values, data.n(), &how)).transpose()?;
        let (kept, known) = opened.map_or((None, BTreeMap::new()), |(kept, known)| (Some(kept), known));
        done.store(known.len(), Ordering::Relaxed);
        search(&device.0, &data, &how, &known, &|column, blanket| {
            done.fetch_add(1, Ordering::Relaxed);
            kept.as_ref().map_or(Ok(()), |kept| kept.write(column, blanket))
        })
    };
    let (found, interrupted) = watched(py, || watch.stop(), pass, work)?;
    let found = found.map_err(raised)?;
    Ok((found.json(&names).to_string(), found.dot(&names), interrupted))
}

/// How a table is read.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TableReading {
    #[serde(deserialize_with = "listed")]
    categorical: Vec<String>,
    missing: Missing,
    #[serde(deserialize_with = "listed")]
    na: Vec<String>,
    header: Header,
    #[serde(deserialize_with = "written")]
    delimiter: Option<Delimiter>,
    #[serde(deserialize_with = "written")]
    decimal: Option<Decimal>,
}

/// A table that was read: values f64 [p, n] as bytes, n, the names of its columns, the columns of each in the values, rows left out,
/// and how its text was read.
type Read<'py> = (Bound<'py, PyByteArray>, usize, Vec<String>, Vec<(usize, usize)>, usize, Option<String>);

/// Reads columns of a table, in words; without any, all.
#[pyfunction]
#[pyo3(signature = (path, columns, reading))]
pub fn read_table<'py>(
    py: Python<'py>,
    path: PathBuf,
    columns: Option<&str>,
    reading: &str,
) -> PyResult<Read<'py>> {
    let reading = parsed::<TableReading>(reading)?;
    let categorical = reading.categorical.iter().map(|text| text.parse::<Categorical>());
    let options = TableOptions {
        categorical: categorical.collect::<Result<_, _>>().map_err(refused)?,
        header: reading.header,
        delimiter: reading.delimiter,
        decimal: reading.decimal,
        na: reading.na,
    };
    let (frame, names, note) = unlocked(py, || {
        let table = data::table::Table::read(&path, &options)?;
        let columns = columns.map_or_else(|| Ok(table.all()), |list| table.find(list))?;
        let names = columns.iter().map(|&column| table.name(column).to_string()).collect::<Vec<_>>();
        Ok((table.frame(&columns, reading.missing)?, names, table.layout().map(String::from)))
    })?;
    let spans = frame.spans.iter().map(|span| (span.start, span.end)).collect();
    Ok((bytes(py, &frame.values, f64::to_ne_bytes)?, frame.n, names, spans, frame.omitted, note))
}
