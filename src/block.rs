//! The block: the parameters of the chosen units, as one vector of length `p`.
//!
//! Its order is the order of choice: for each unit its weight row as kept here (`r·s·c`), then its bias where the
//! layer has one. [`Block::to_stored`] gives PyTorch's order within each row.

use std::ops::Range;

use rayon::prelude::*;

use crate::data::Inputs;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::loss;
use crate::net::cpu::{Arena, Run};
use crate::net::cuda::Derivatives;
use crate::net::plan::{Plan, Purpose};
use crate::net::{
    LayerId, Network, RowValues, Seed, Selected, Tilt, UnitId, check, in_lanes, lanes, sums_of,
};

/// The parameters of some units of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    units: Vec<UnitId>,
    parts: Vec<Part>,
    rows: Vec<Selected>,
    len: usize,
}

/// One unit's place: in its layer, among the layer's selected rows, and in the vector.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    layer: LayerId,
    row: usize,
    among: usize,
    start: usize,
    fan_in: usize,
    bias: bool,
}

impl Part {
    fn weight(&self) -> Range<usize> {
        self.start..self.start + self.fan_in
    }

    fn end(&self) -> usize {
        self.start + self.fan_in + usize::from(self.bias)
    }
}

impl Block {
    /// The block of these units, in this order.
    ///
    /// # Errors
    /// Where a unit is not one of the network or named twice.
    pub fn of(net: &Network, units: &[UnitId]) -> Result<Block> {
        let mut of_layer = vec![vec![]; net.layers.len()];
        for &unit in units {
            if unit.index() >= net.units().len() {
                return Err(Error::config(format!(
                    "unit {} of a model with {} units",
                    unit.0,
                    net.units().len()
                )));
            }
            let (layer, row) = net.units().locate(unit);
            of_layer[layer.index()].push(row as u32);
        }
        for (layer, rows) in net.layers.iter().zip(&mut of_layer) {
            rows.sort_unstable();
            if let Some(twice) = rows.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(Error::config(format!(
                    "row {} of layer `{}` is named twice",
                    twice[0], layer.name
                )));
            }
        }
        let mut len = 0;
        let parts = units.iter().map(|&unit| {
            let (layer, row) = net.units().locate(unit);
            let among = of_layer[layer.index()].partition_point(|&other| (other as usize) < row);
            let at = net.layer(layer);
            let part = Part { layer, row, among, start: len, fan_in: at.fan_in, bias: at.bias.is_some() };
            len = part.end();
            part
        });
        let parts = parts.collect();
        let rows = net.layers.iter().zip(of_layer).map(|(layer, rows)| match rows.len() {
            0 => Selected::None,
            all if all == layer.outputs => Selected::All,
            _ => Selected::Some(rows),
        });
        Ok(Block { units: units.to_vec(), parts, rows: rows.collect(), len })
    }

    /// The block of every unit, in unit order.
    pub fn all(net: &Network) -> Result<Block> {
        let units: Vec<UnitId> = (0..net.units().len() as u32).map(UnitId).collect();
        Block::of(net, &units)
    }

    /// `p`.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no unit is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The units, in order of choice.
    pub fn units(&self) -> &[UnitId] {
        &self.units
    }

    /// Where unit `i` of [`Block::units`] stands in the vector: its weight row, then its bias.
    pub fn range(&self, i: usize) -> Range<usize> {
        self.parts[i].start..self.parts[i].end()
    }

    /// The selected rows of each layer.
    pub(crate) fn rows(&self) -> &[Selected] {
        &self.rows
    }

    /// The block's values in the network, `[p]`.
    pub fn values(&self, net: &Network) -> Vec<f32> {
        let mut values = vec![0.0; self.len];
        for part in &self.parts {
            let (weights, bias) = net.unit_row(part.layer, part.row);
            values[part.weight()].copy_from_slice(weights);
            if let Some(bias) = bias {
                values[part.end() - 1] = bias;
            }
        }
        values
    }

    /// Writes `values` `[p]` to the network.
    pub fn assign(&self, net: &mut Network, values: &[f32]) {
        for part in &self.parts {
            let (weights, bias) = net.unit_row_mut(part.layer, part.row);
            weights.copy_from_slice(&values[part.weight()]);
            if let Some(bias) = bias {
                *bias = values[part.end() - 1];
            }
        }
    }

    /// A vector of the block with each weight row in the order in which PyTorch flattens it.
    pub fn to_stored<T: Copy>(&self, net: &Network, kept: &[T]) -> Vec<T> {
        self.reorder(net, kept, |out, kept, from, to| out[to] = kept[from])
    }

    /// The inverse of [`Block::to_stored`].
    pub fn from_stored<T: Copy>(&self, net: &Network, stored: &[T]) -> Vec<T> {
        self.reorder(net, stored, |out, stored, from, to| out[from] = stored[to])
    }

    fn reorder<T: Copy>(&self, net: &Network, v: &[T], put: impl Fn(&mut [T], &[T], usize, usize)) -> Vec<T> {
        let mut out = v.to_vec();
        for part in &self.parts {
            let order = net.params[net.layer(part.layer).weight.index()].order.of_row();
            for i in 0..part.fan_in {
                put(&mut out, v, part.start + order.kept(i), part.start + i);
            }
        }
        out
    }

    /// The mean over `inputs` of the gradient of the loss, `[p]`, without weight decay.
    ///
    /// # Errors
    /// Where the inputs are none or of another shape, a label is no class, or the network is not frozen.
    pub fn gradient(&self, device: &Device, net: &Network, inputs: &dyn Inputs) -> Result<Vec<f64>> {
        self.weighted_gradient(device, net, inputs, None)
    }

    /// [`Block::gradient`] of the mean of losses that are multiplied by weight(i, the loss of input i).
    ///
    /// # Errors
    /// As [`Block::gradient`].
    pub fn weighted_gradient(
        &self,
        device: &Device,
        net: &Network,
        inputs: &dyn Inputs,
        weight: Option<&loss::Weight>,
    ) -> Result<Vec<f64>> {
        self.seeded_gradient(
            device,
            net,
            inputs,
            weight.map_or(Seed::Gradient, |weight| Seed::Weighted(weight, 0)),
        )
    }

    /// The norm of each unit's part of a vector of the block, in unit order.
    pub fn norms(&self, v: &[f64]) -> Vec<f64> {
        let norm = |unit: usize| v[self.range(unit)].iter().map(|v| v * v).sum::<f64>().sqrt();
        (0..self.units().len()).map(norm).collect()
    }

    /// [`Block::gradient`] of the mean of tilted losses.
    ///
    /// # Errors
    /// As [`Block::gradient`]; where the tilt is not one of that many inputs.
    pub fn tilted_gradient(
        &self,
        device: &Device,
        net: &Network,
        inputs: &dyn Inputs,
        tilt: Tilt,
    ) -> Result<Vec<f64>> {
        tilt.check("block", inputs.len(), net.classes())?;
        self.seeded_gradient(device, net, inputs, Seed::Tilted(tilt))
    }

    fn seeded_gradient(
        &self,
        device: &Device,
        net: &Network,
        inputs: &dyn Inputs,
        seed: Seed,
    ) -> Result<Vec<f64>> {
        check(net, inputs)?;
        if let Some(cuda) = device.cuda() {
            let purpose = Purpose::Gradient;
            let mut passes = Derivatives::new(device, cuda, net, &self.rows, purpose, inputs, 0)?;
            let sums = passes.gradient(seed);
            return self.mean_of_lanes(device, sums, passes.lanes(), inputs.len());
        }
        let plan = Plan::new(net, self.rows.clone(), Purpose::Gradient, inputs.len())?;
        let sums = device.scope(|| {
            in_lanes(device.ranks(), inputs.len(), &plan, |lane| {
                let (mut arena, mut sink) = (Arena::new(&plan), RowValues::zeros(net, &plan.rows));
                for chunk in lane {
                    let n = arena.fill(net, &plan, inputs, chunk.clone())?;
                    let seed = seed.part(chunk, net.classes());
                    Run::new(net, &plan, &mut arena, n).seeded(seed, &mut sink).primal();
                }
                Ok(sink)
            })
        });
        self.mean_of_lanes(device, sums, lanes(inputs.len(), &plan), inputs.len())
    }

    /// The sum over all `lanes`, of which these are this rank's, in lane order, over `n`.
    pub(crate) fn mean_of_lanes(
        &self,
        device: &Device,
        own: Result<Vec<RowValues>>,
        lanes: usize,
        n: usize,
    ) -> Result<Vec<f64>> {
        if device.ranks().size() == 1 {
            let sums = own?;
            return Ok(device.scope(|| self.mean(&sums, n)));
        }
        let own = own.map(|own| own.iter().map(|rows| self.of_rows(rows)).collect());
        device.ranks().reduce(lanes, self.len, own, |_, lanes| {
            let mut mean = sums_of(lanes);
            mean.iter_mut().for_each(|mean| *mean /= n as f64);
            mean
        })
    }

    /// Rows of the layers as a vector of the block; the inverse of [`Block::to_rows`].
    pub(crate) fn of_rows(&self, rows: &RowValues) -> Vec<f32> {
        let mut v = vec![0.0; self.len];
        for part in &self.parts {
            let (layer, at) = (part.layer.index(), part.among * part.fan_in);
            v[part.weight()].copy_from_slice(&rows.weight[layer][at..at + part.fan_in]);
            if part.bias {
                v[part.end() - 1] = rows.bias[layer][part.among];
            }
        }
        v
    }

    /// A vector of the block as rows of the layers.
    pub(crate) fn to_rows(&self, net: &Network, v: &[f32]) -> RowValues {
        let mut rows = RowValues::zeros(net, &self.rows);
        for part in &self.parts {
            let at = part.among * part.fan_in;
            rows.weight[part.layer.index()][at..at + part.fan_in].copy_from_slice(&v[part.weight()]);
            if part.bias {
                rows.bias[part.layer.index()][part.among] = v[part.end() - 1];
            }
        }
        rows
    }

    /// Where each selected row of a layer stands in the vector, ascending by row.
    pub(crate) fn starts(&self, layer: LayerId) -> Vec<u32> {
        let mut rows: Vec<&Part> = self.parts.iter().filter(|part| part.layer == layer).collect();
        rows.sort_unstable_by_key(|part| part.among);
        rows.iter().map(|part| part.start as u32).collect()
    }

    /// The sum of the lanes' rows, in lane order, over `n`; in the pool it is called in.
    fn mean(&self, lanes: &[RowValues], n: usize) -> Vec<f64> {
        let mut sum = vec![0.0f64; self.len];
        let mut rest = sum.as_mut_slice();
        let mut parts = vec![];
        for part in &self.parts {
            let (mine, others) = rest.split_at_mut(part.end() - part.start);
            rest = others;
            parts.push((part, mine));
        }
        parts.par_iter_mut().with_min_len(64).for_each(|(part, sum)| {
            let (layer, at) = (part.layer.index(), part.among * part.fan_in);
            for rows in lanes {
                let weight = &rows.weight[layer][at..at + part.fan_in];
                sum.iter_mut().zip(weight).for_each(|(sum, &w)| *sum += f64::from(w));
                if part.bias {
                    sum[part.fan_in] += f64::from(rows.bias[layer][part.among]);
                }
            }
            sum.iter_mut().for_each(|sum| *sum /= n as f64);
        });
        sum
    }
}
