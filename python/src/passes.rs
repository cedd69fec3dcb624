//! Passes over samples: logits, traces, gradients, and products with the curvature.
//!
//! A vector over a model's parameters is given and returned by parameter, as (name, sides, f64 values as PyTorch keeps them).
//! It may name the weights and biases of some layers alone; the products are then on the block of these layers.

use std::collections::{BTreeMap, BTreeSet};

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use scrubjay::block::Block;
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::net::{Layer, Network, ParamId, UnitId};
use scrubjay::observe::{evaluate, observe, observe_copies, outputs};
use scrubjay::ops::Precision;
use scrubjay::perturb::{Noise, REPLACE, SIGMA, check_options, perturb_request};
use scrubjay::session::fits;
use scrubjay::solve::{BlockVector, Limits, Vector, minres};
use serde_json::json;

use crate::errors::refused;
use crate::model::Model;
use crate::values::{Device, Samples, array, bytes, named};
use crate::watched::unlocked;

/// The most bytes of values that are kept between products.
const MEMORY: usize = 4 << 30;

/// A vector as it is returned: of every parameter its name, its sides and the bytes of its values, f64.
type Named<'py> = Vec<(String, Vec<usize>, Bound<'py, PyByteArray>)>;

/// Some layers of a model, whole.
struct Layers<'a> {
    net: &'a Network,
    block: Block,
    /// The parameters that are asked for.
    names: BTreeSet<String>,
    /// The names of all parameters as the files have them, and their sides there.
    params: Vec<(String, Vec<usize>)>,
}

impl<'a> Layers<'a> {
    /// The layers of these parameters, all of them where none is named; of the layers of `rows` these rows alone. Where rows are
    /// given and no parameter, the layers of `rows` alone.
    fn new(model: &'a Model, names: &BTreeSet<String>, rows: &Rows) -> PyResult<Layers<'a>> {
        let net = &*model.network;
        let params =
            net.params.iter().map(|param| (model.name_in_files(&param.name), model.sides_in_files(param)));
        let params: Vec<(String, Vec<usize>)> = params.collect();
        let of = |param: ParamId| &params[param.index()].0;
        let chosen = chosen_rows(model, rows)?;
        let mut known = BTreeSet::new();
        let mut asked = BTreeSet::new();
        let mut units = vec![];
        for unit in (0..net.units().len() as u32).map(UnitId) {
            let (layer, row) = net.units().locate(unit);
            let of_layer = chosen.get(&layer.index());
            let layer = net.layer(layer);
            let params: Vec<&String> = std::iter::once(layer.weight).chain(layer.bias).map(of).collect();
            let of_names = match names.is_empty() {
                true => rows.is_empty() || of_layer.is_some(),
                false => params.iter().any(|name| names.contains(*name)),
            };
            if of_names && of_layer.is_none_or(|rows| rows.contains(&row)) {
                units.push(unit);
                asked.extend(params.iter().map(|name| (*name).clone()));
            }
            if row == 0 {
                known.extend(params.into_iter().cloned());
            }
        }
        let layer_of = |unit: &UnitId| net.units().locate(*unit).0.index();
        if let Some(at) = chosen.keys().find(|at| !units.iter().any(|unit| layer_of(unit) == **at)) {
            let name = model.name_in_files(&net.layers[*at].name);
            return Err(refused(format!("rows: of layer `{name}` no parameter is asked for")));
        }
        if let Some(name) = names.iter().find(|name| !known.contains(*name)) {
            return Err(refused(format!(
                "no layer has a parameter `{name}`; gradients and products are over the weights and biases of linear and \
                 convolutional layers"
            )));
        }
        let block = Block::of(net, &units).map_err(crate::errors::raised)?;
        Ok(Layers { net, block, names: if names.is_empty() { asked } else { names.clone() }, params })
    }

    /// With all parameters of these layers asked for.
    fn whole(mut self) -> Layers<'a> {
        let mut names = BTreeSet::new();
        self.places(|name, _, _| {
            names.insert(name.to_string());
        });
        self.names = names;
        self
    }

    /// The sides of a parameter.
    fn sides(&self, name: &str) -> Vec<usize> {
        let found = self.params.iter().find(|(other, _)| other == name);
        found.map_or(vec![], |(_, sides)| sides.clone())
    }

    /// Calls `each` with every parameter, its first place in the vector, and that of the next row.
    fn places(&self, mut each: impl FnMut(&str, usize, std::ops::Range<usize>)) {
        let (net, of) = (self.net, |param: ParamId| self.params[param.index()].0.as_str());
        for (i, &unit) in self.block.units().iter().enumerate() {
            let (layer, row) = net.units().locate(unit);
            let layer = net.layer(layer);
            let at = self.block.range(i);
            let weight = at.start..at.start + layer.fan_in;
            each(of(layer.weight), row * layer.fan_in, weight.clone());
            if let Some(bias) = layer.bias {
                each(of(bias), row, weight.end..at.end);
            }
        }
    }

    /// The vector of named values; what is not named is 0.
    fn vector(&self, values: &BTreeMap<String, Vec<f64>>) -> Vec<f64> {
        let mut stored = vec![0.0; self.block.len()];
        self.places(|name, from, place| {
            if let Some(values) = values.get(name) {
                let len = place.len();
                stored[place].copy_from_slice(&values[from..from + len]);
            }
        });
        self.block.from_stored(self.net, &stored)
    }

    /// The vector that Python gives, which is called so.
    fn given(
        &self,
        py: Python<'_>,
        vector: &BTreeMap<String, PyBuffer<f64>>,
        what: &str,
    ) -> PyResult<Vec<f64>> {
        let mut values = BTreeMap::new();
        for (name, buffer) in vector {
            let (sides, list) = array(py, buffer)?;
            let expected = self.sides(name);
            if sides != expected {
                return Err(refused(format!(
                    "{what}: `{name}` has shape {sides:?}, the parameter has {expected:?}"
                )));
            }
            if let Some(i) = list.iter().position(|value| !value.is_finite()) {
                return Err(refused(format!("{what}: value {i} of `{name}` is {}", list[i])));
            }
            values.insert(name.clone(), list);
        }
        Ok(self.vector(&values))
    }

    /// A vector by parameter.
    fn named<'py>(&self, py: Python<'py>, kept: &[f64]) -> PyResult<Named<'py>> {
        let stored = self.block.to_stored(self.net, kept);
        let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        self.places(|name, from, place| {
            if let Some(name) = self.names.get(name) {
                let list = values.entry(name).or_insert_with(|| vec![0.0; self.sides(name).iter().product()]);
                list[from..from + place.len()].copy_from_slice(&stored[place]);
            }
        });
        let list = values.into_iter();
        list.map(|(name, list)| Ok((name.into(), self.sides(name), bytes(py, &list, f64::to_ne_bytes)?)))
            .collect()
    }
}

/// Rows by layer.
type Rows = BTreeMap<String, Vec<usize>>;

/// The rows that are asked for, by the number of the layer, which is named as its files name it or its weight.
fn chosen_rows(model: &Model, rows: &Rows) -> PyResult<BTreeMap<usize, BTreeSet<usize>>> {
    let net = &*model.network;
    let mut chosen = BTreeMap::new();
    for (name, list) in rows {
        let is_named = |layer: &&Layer| {
            [&layer.name, &net.params[layer.weight.index()].name]
                .iter()
                .any(|own| model.name_in_files(own) == *name)
        };
        let at = net.layers.iter().position(|layer| is_named(&layer));
        let at =
            at.ok_or_else(|| refused(format!("rows: no linear or convolutional layer is named `{name}`")))?;
        let units = net.layers[at].outputs;
        if list.is_empty() {
            return Err(refused(format!("rows: no row of `{name}` is named")));
        }
        if let Some(row) = list.iter().find(|row| **row >= units) {
            return Err(refused(format!("rows: row {row} of `{name}`, which has {units} (the first is 0)")));
        }
        chosen.insert(at, list.iter().copied().collect());
    }
    Ok(chosen)
}

/// The gradient of the mean loss, by parameter; of these parameters, or of all.
#[pyfunction]
pub fn gradient<'py>(
    py: Python<'py>,
    device: &Device,
    model: &Model,
    samples: &Samples,
    names: BTreeSet<String>,
    rows: Rows,
) -> PyResult<Named<'py>> {
    let layers = Layers::new(model, &names, &rows)?;
    let net = layers.net;
    let found = unlocked(py, || {
        fits(net, &samples.0, "the samples")?;
        layers.block.gradient(&device.0, net, &*samples.0)
    })?;
    layers.named(py, &found)
}

/// Products of the curvature of the mean loss with vectors, each by parameter.
#[pyfunction]
pub fn hvp<'py>(
    py: Python<'py>,
    device: &Device,
    model: &Model,
    samples: &Samples,
    vectors: Vec<BTreeMap<String, PyBuffer<f64>>>,
    kind: &str,
    rows: Rows,
) -> PyResult<Vec<Named<'py>>> {
    let kind = named::<Kind>("kind", kind)?;
    let names: BTreeSet<String> = vectors.iter().flat_map(BTreeMap::keys).cloned().collect();
    let layers = Layers::new(model, &names, &rows)?;
    let net = layers.net;
    let all = vectors.iter().map(|vector| layers.given(py, vector, "v")).collect::<PyResult<Vec<_>>>()?;
    let products = unlocked(py, || {
        fits(net, &samples.0, "the samples")?;
        let curvature = Curvature::new(&device.0, net, &layers.block, &*samples.0, kind, MEMORY)?;
        let mut scratch = vec![0.0f32; layers.block.len()];
        let product = |v: &Vec<f64>| {
            let mut out = vec![0.0; v.len()];
            curvature.apply_wide(&mut out, v, &mut scratch).map(|()| out)
        };
        all.iter().map(product).collect::<scrubjay::Result<Vec<_>>>()
    })?;
    products.iter().map(|product| layers.named(py, product)).collect()
}

/// The solution of (H + damping) x = b, by parameter, and the solver's report as JSON; H is on the layers of the parameters
/// that b names. Without b it is the gradient, on the layers of the parameters of these names, or on all.
#[pyfunction]
#[pyo3(signature = (device, model, samples, names, b, kind, damping, tolerance, products, rows))]
pub fn solve<'py>(
    py: Python<'py>,
    device: &Device,
    model: &Model,
    samples: &Samples,
    names: BTreeSet<String>,
    b: Option<BTreeMap<String, PyBuffer<f64>>>,
    kind: &str,
    damping: f64,
    tolerance: f64,
    products: usize,
    rows: Rows,
) -> PyResult<(Named<'py>, String)> {
    let kind = named::<Kind>("kind", kind)?;
    for (what, value) in [("damping", damping), ("tolerance", tolerance)] {
        if !(value.is_finite() && value >= 0.0) {
            return Err(refused(format!("{what} is a number of at least 0, not {value}")));
        }
    }
    let names = b.as_ref().map_or(names, |b| b.keys().cloned().collect());
    let layers = Layers::new(model, &names, &rows)?.whole();
    let right = b.map(|b| layers.given(py, &b, "b")).transpose()?;
    let p = layers.block.len();
    let limits = Limits { tolerance, products: if products == 0 { 10 * p + 100 } else { products } };
    let (x, report) = unlocked(py, || {
        fits(layers.net, &samples.0, "the samples")?;
        let curvature = Curvature::new(&device.0, layers.net, &layers.block, &*samples.0, kind, MEMORY)?;
        let right = right.unwrap_or_else(|| curvature.gradient().to_vec());
        let right = curvature.block_vector(&right)?;
        let mut product = |out: &mut BlockVector, v: &BlockVector| curvature.product(out, v);
        let (x, report) = minres(&mut product, &right, damping, limits)?;
        Ok((x.values()?, report))
    })?;
    Ok((layers.named(py, &x)?, json!(report).to_string()))
}

/// How well a model does on samples, as JSON.
#[pyfunction]
pub fn scores(py: Python<'_>, device: &Device, model: &Model, samples: &Samples) -> PyResult<String> {
    let net = &*model.network;
    let found = unlocked(py, || {
        fits(net, &samples.0, "the samples")?;
        evaluate(&device.0, net, &*samples.0)
    })?;
    let class = |(correct, n): (usize, usize)| json!({"correct": correct, "n": n});
    let classes: Vec<_> = found.by_output(net).into_iter().map(class).collect();
    let (n, accuracy, loss) = (found.losses.len(), found.accuracy(), found.mean_loss());
    let report =
        json!({"n": n, "correct": found.correct(), "accuracy": accuracy, "loss": loss, "classes": classes});
    Ok(report.to_string())
}

/// The logits of samples, f32 [n, classes].
#[pyfunction]
pub fn logits<'py>(
    py: Python<'py>,
    device: &Device,
    model: &Model,
    samples: &Samples,
) -> PyResult<Bound<'py, PyByteArray>> {
    let net = &*model.network;
    let found = unlocked(py, || {
        fits(net, &samples.0, "the samples")?;
        outputs(&device.0, net, &*samples.0)
    })?;
    bytes(py, &found.logits, f32::to_ne_bytes)
}

/// Activations [m, d], losses [m] and logits [m, classes] of samples, or of noisy copies of them (these have no logits), all
/// f32; and m, d.
#[pyfunction]
#[pyo3(signature = (device, model, samples, copies, sigma, replace, seed, precision))]
pub fn traces<'py>(
    py: Python<'py>,
    device: &Device,
    model: &Model,
    samples: &Samples,
    copies: u32,
    sigma: Option<f32>,
    replace: Option<u32>,
    seed: u64,
    precision: Option<&str>,
) -> PyResult<([Bound<'py, PyByteArray>; 3], usize, usize)> {
    let (net, samples) = (&*model.network, &*samples.0);
    let precision = precision.map(|name| named::<Precision>("precision", name)).transpose()?;
    if copies == 0 && (sigma.is_some() || replace.is_some() || precision.is_some()) {
        return Err(refused("sigma, replace and precision are for noisy copies, and copies is 0"));
    }
    if sigma.is_some_and(|sigma| !(sigma.is_finite() && sigma > 0.0)) {
        return Err(refused("sigma is a number above 0"));
    }
    if replace == Some(0) {
        return Err(refused("replace is a number of tokens above 0"));
    }
    let trace = unlocked(py, || {
        fits(net, samples, "the samples")?;
        if copies == 0 {
            return observe(&device.0, net, samples);
        }
        check_options(net.kind(), sigma, replace)?;
        let request: Vec<usize> = (0..samples.y.len()).collect();
        let noise = Noise { sigma: sigma.unwrap_or(SIGMA), replace: replace.unwrap_or(REPLACE), seed };
        let copies = perturb_request(samples, &request, &net.ordinary, copies as usize, noise)?;
        observe_copies(&device.0, net, &copies, precision.unwrap_or_default())
    })?;
    let parts = [&trace.activations, &trace.losses, &trace.logits];
    let [a, b, c] = parts.map(|part| bytes(py, part, f32::to_ne_bytes));
    Ok(([a?, b?, c?], trace.m, trace.d))
}
