//! Curvature of the mean loss on the block, as a product v ↦ Hv: the exact Hessian (Pearlmutter's R-operator), the
//! Gauss–Newton matrix, or the empirical Fisher matrix (MATH.md, Eq. 11).
//!
//! All three share the tangent forward pass; they differ in what the loss sends back: the Gauss–Newton matrix sends
//! the loss's second derivative times z', the Fisher matrix δ(δ·z'), each by a plain backward pass, and the Hessian sends the first by
//! the tangent backward pass. The primal pass runs once; what the products read of it is kept chunk by chunk up to
//! `memory` bytes, and recomputed for the chunks beyond. Of several ranks each keeps that much of its own lanes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::block::Block;
use crate::data::Inputs;
use crate::device::{Cuda, Device};
use crate::error::{Error, Result};
use crate::names::names;
use crate::net::cpu::{Arena, Run};
use crate::net::cuda::Derivatives;
use crate::net::plan::{Plan, Purpose};
use crate::net::{Layer, LayerId, Network, RowValues, Section, Seed, check, in_lanes, lanes};
use crate::ops::cuda::vector::Places;
use crate::solve::CudaVector;

/// Which matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The exact Hessian; indefinite in ordinary networks.
    Hessian,
    /// The Gauss–Newton matrix of the loss; positive semi-definite.
    Ggn,
    /// The empirical Fisher matrix, the mean of ggᵀ over samples; positive semi-definite.
    Fisher,
}

names!(Kind { Hessian = "hessian", Ggn = "ggn", Fisher = "fisher" });

/// The curvature of a network's mean loss over some inputs, restricted to a block.
pub struct Curvature<'a> {
    device: &'a Device,
    net: &'a Network,
    block: &'a Block,
    inputs: &'a dyn Inputs,
    plan: Plan,
    gradient: Vec<f64>,
    primal: Primal<'a>,
}

/// Where the primal passes are.
enum Primal<'a> {
    /// Chunks of the host's by number, how many all ranks keep, and arenas between products, so that a solver's loop allocates
    /// none.
    Host(HashMap<usize, Kept>, usize, Mutex<Vec<Arena>>),
    /// On a CUDA device; where the block's rows of each layer stand in its vectors; and the share of all ranks' chunks that is kept.
    Cuda(&'a Cuda, Box<Mutex<Derivatives<'a>>>, Vec<Option<Places>>, f64),
}

/// What products read of a chunk.
struct Kept {
    values: Vec<f32>,
    labels: Vec<u32>,
}

impl<'a> Curvature<'a> {
    /// Runs the primal pass over `inputs` and keeps up to `memory` bytes of it.
    ///
    /// # Errors
    /// Where the block is empty, the inputs are none or of another shape, the network is not frozen, or the
    /// device fails.
    pub fn new(
        device: &'a Device,
        net: &'a Network,
        block: &'a Block,
        inputs: &'a dyn Inputs,
        kind: Kind,
        memory: usize,
    ) -> Result<Curvature<'a>> {
        check(net, inputs)?;
        if block.is_empty() {
            return Err(Error::config("curvature of an empty block"));
        }
        let purpose = match kind {
            Kind::Hessian => Purpose::Hessian,
            Kind::Ggn => Purpose::Ggn,
            Kind::Fisher => Purpose::Fisher,
        };
        let n = inputs.len();
        let (plan, gradient, primal) = match device.cuda() {
            Some(cuda) => {
                let mut passes = Derivatives::new(device, cuda, net, block.rows(), purpose, inputs, memory)?;
                let sums = passes.gradient(Seed::Gradient);
                let gradient = block.mean_of_lanes(device, sums, passes.lanes(), n)?;
                let (kept, places) = (passes.kept_share()?, device.ranks().told(places(cuda, net, block))?);
                let plan = passes.plan().clone();
                (plan, gradient, Primal::Cuda(cuda, Box::new(Mutex::new(passes)), places, kept))
            }
            None => {
                let plan = Plan::new(net, block.rows().to_vec(), purpose, n)?;
                let mut kept = HashMap::new();
                let sums = primal_on_host(device, net, &plan, inputs, memory, &mut kept);
                let gradient = block.mean_of_lanes(device, sums, lanes(n, &plan), n)?;
                let of_all = device.ranks().gather_values(Ok(vec![kept.len()]))?.concat().iter().sum();
                (plan, gradient, Primal::Host(kept, of_all, Mutex::new(vec![])))
            }
        };
        Ok(Curvature { device, net, block, inputs, plan, gradient, primal })
    }

    /// The mean gradient over the same inputs, `[p]`, without weight decay.
    pub fn gradient(&self) -> &[f64] {
        &self.gradient
    }

    /// The share of chunks whose primal pass is kept; the others' is recomputed in every product.
    pub fn kept_share(&self) -> f64 {
        match &self.primal {
            Primal::Host(_, kept, _) => *kept as f64 / self.inputs.len().div_ceil(self.plan.chunk) as f64,
            Primal::Cuda(.., kept) => *kept,
        }
    }

    /// The plan that the products run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// `hv` = H v, both `[p]`: the mean over the inputs, without damping or weight decay.
    ///
    /// # Errors
    /// Where a vector is not of the block's length, or the device fails.
    pub fn apply(&self, hv: &mut [f64], v: &[f32]) -> Result<()> {
        let p = self.block.len();
        if hv.len() != p || v.len() != p {
            return Err(Error::shape(
                "curvature",
                format!("[{p}]"),
                format!("[{}] from [{}]", hv.len(), v.len()),
            ));
        }
        let v = self.block.to_rows(self.net, v);
        let n = self.inputs.len();
        let mean = match &self.primal {
            Primal::Host(kept, _, idle) => {
                let sums = self.products_on_host(kept, idle, &v);
                self.block.mean_of_lanes(self.device, sums, lanes(n, &self.plan), n)?
            }
            Primal::Cuda(_, passes, ..) => {
                let mut passes = passes.lock().unwrap_or_else(PoisonError::into_inner);
                let (sums, lanes) = (passes.product(&v), passes.lanes());
                self.block.mean_of_lanes(self.device, sums, lanes, n)?
            }
        };
        hv.copy_from_slice(&mean);
        Ok(())
    }

    fn products_on_host(
        &self,
        kept: &HashMap<usize, Kept>,
        idle: &Mutex<Vec<Arena>>,
        v: &RowValues,
    ) -> Result<Vec<RowValues>> {
        let (net, plan) = (self.net, &self.plan);
        let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
        self.device.scope(|| {
            in_lanes(self.device.ranks(), self.inputs.len(), plan, |lane| {
                let arena = lock().pop();
                let mut arena = arena.unwrap_or_else(|| Arena::new(plan));
                let mut sink = RowValues::zeros(net, &plan.rows);
                for chunk in lane {
                    let n = chunk.len();
                    let kept = kept.get(&(chunk.start / plan.chunk));
                    if kept.is_none() {
                        arena.fill(net, plan, self.inputs, chunk)?;
                        Run::new(net, plan, &mut arena, n).primal_again();
                    }
                    let Arena { kept: own, work, labels } = &mut arena;
                    let (values, labels) = match kept {
                        Some(kept) => (&kept.values[..], &kept.labels[..]),
                        None => (&own[..], &labels[..n * plan.label_width]),
                    };
                    Run::product(net, plan, (values, work), labels, v, &mut sink).section(Section::Product);
                }
                lock().push(arena);
                Ok(sink)
            })
        })
    }

    /// [`Curvature::apply`] on an f64 vector, scaled so that it keeps its precision in f32; `scratch` is `[p]`.
    ///
    /// # Errors
    /// As [`Curvature::apply`].
    pub fn apply_wide(&self, hv: &mut [f64], v: &[f64], scratch: &mut [f32]) -> Result<()> {
        let scale = v.iter().fold(f64::MIN_POSITIVE, |top, v| top.max(v.abs()));
        scratch.iter_mut().zip(v).for_each(|(narrow, v)| *narrow = (v / scale) as f32);
        self.apply(hv, scratch)?;
        hv.iter_mut().for_each(|v| *v *= scale);
        Ok(())
    }

    /// A vector of these values where [`Curvature::apply_on`] takes one: on the CUDA device, if it is one.
    ///
    /// # Errors
    /// Where the memory is not there.
    pub fn vector(&self, values: &[f64]) -> Result<Option<CudaVector>> {
        match &self.primal {
            Primal::Host(..) => Ok(None),
            Primal::Cuda(cuda, ..) => CudaVector::new(cuda, values).map(Some),
        }
    }

    /// [`Curvature::apply_wide`] on vectors that are on the device and stay there.
    ///
    /// # Errors
    /// Where a vector is not of the block's length, the curvature is not on a CUDA device, or that fails.
    pub fn apply_on(&self, hv: &mut CudaVector, v: &CudaVector) -> Result<()> {
        let Primal::Cuda(cuda, passes, places, _) = &self.primal else {
            return Err(Error::config("a product of vectors on CUDA by a curvature on the CPU"));
        };
        let (p, hv, v) = (self.block.len(), hv.output(), v.input());
        if hv.len() != p || v.len() != p {
            return Err(Error::shape(
                "curvature",
                format!("[{p}]"),
                format!("[{}] from [{}]", hv.len(), v.len()),
            ));
        }
        let mut passes = passes.lock().unwrap_or_else(PoisonError::into_inner);
        let ranks = self.device.ranks();
        if ranks.size() == 1 {
            return passes.product_on(hv, v, places);
        }
        // The lanes of all ranks by way of the host, added as one device adds them.
        let (n, lanes) = (self.inputs.len() as f64, passes.lanes());
        let (own, scale) = ranks.told(passes.product_of(v, places))?;
        let own = own.iter().map(|rows| self.block.of_rows(rows)).collect();
        let sums = ranks.reduce(lanes, p, Ok(own), |_, lanes| {
            let mut sums = vec![0.0; lanes[0].len()];
            for lane in lanes {
                sums.iter_mut().zip(*lane).for_each(|(sum, &v)| *sum += f64::from(v) / n * scale);
            }
            sums
        })?;
        ranks.told(cuda.write(hv, &sums))
    }
}

/// Where the block's rows of each layer stand in its vectors.
fn places(cuda: &Cuda, net: &Network, block: &Block) -> Result<Vec<Option<Places>>> {
    let of_layer = |(i, layer): (usize, &Layer)| match &block.starts(LayerId(i as u32))[..] {
        [] => Ok(None),
        starts => Places::new(cuda, starts, layer.fan_in, layer.bias.is_some()).map(Some),
    };
    net.layers.iter().enumerate().map(of_layer).collect()
}

/// The sums of the gradients of every lane of this rank, and the primal part of its first chunks, up to `memory` bytes of it.
fn primal_on_host(
    device: &Device,
    net: &Network,
    plan: &Plan,
    inputs: &dyn Inputs,
    memory: usize,
    keep_in: &mut HashMap<usize, Kept>,
) -> Result<Vec<RowValues>> {
    let keep = memory / plan.kept_bytes().max(1);
    let (ranks, of_all) = (device.ranks(), lanes(inputs.len(), plan));
    let own = ranks.own(of_all).len();
    let lanes = device.scope(|| {
        in_lanes(ranks, inputs.len(), plan, |lane| {
            let (mut arena, mut sink) = (Arena::new(plan), RowValues::zeros(net, &plan.rows));
            let mut kept = vec![];
            for chunk in lane {
                let index = chunk.start / plan.chunk;
                let n = arena.fill(net, plan, inputs, chunk)?;
                Run::new(net, plan, &mut arena, n).seeded(Seed::Gradient, &mut sink).primal();
                // Its place among the chunks of this rank's lanes.
                if index / of_all * own + index % of_all / ranks.size() < keep {
                    let labels = arena.labels[..n * plan.label_width].to_vec();
                    let values = arena.kept.clone();
                    kept.push((index, Kept { values, labels }));
                }
            }
            Ok((sink, kept))
        })
    })?;
    let (sums, kept): (Vec<_>, Vec<_>) = lanes.into_iter().unzip();
    keep_in.extend(kept.into_iter().flatten());
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Samples;
    use crate::net::Shape;
    use crate::ops::philox::{Stream, Use};
    use crate::zoo;

    #[test]
    fn what_a_device_keeps_or_computes_again_is_the_same() {
        let shape = Shape::new(6, 6, 2);
        let net = zoo::create("cnn:4-6", shape, 3, 1).unwrap().network.freeze();
        let mut stream = Stream::new(2, Use::Choice, 0);
        let x = (0..20 * shape.len()).map(|_| stream.normal()).collect();
        let samples = Samples { kind: shape.into(), x, y: (0..20).map(|i| i % 3).collect(), stream: None };
        let block = Block::all(&net).unwrap();
        let v: Vec<f32> = (0..block.len()).map(|_| stream.normal()).collect();
        for kind in [Kind::Hessian, Kind::Ggn] {
            let on = |device: Device, memory: usize| {
                let curvature = Curvature::new(&device, &net, &block, &samples, kind, memory).unwrap();
                let (mut hv, mut again) = (vec![0.0; block.len()], vec![0.0; block.len()]);
                curvature.apply(&mut hv, &v).unwrap();
                for _ in 0..2 {
                    curvature.apply(&mut again, &v).unwrap(); // recorded, then replayed
                    assert_eq!(hv, again);
                }
                (curvature.gradient().to_vec(), hv, curvature.kept_share(), curvature.plan().chunk)
            };
            let little =
                |memory| on(Device::emulated_with(0, 1 << 24, 60_000 + 104 * block.len()).unwrap(), memory);
            let (whole, none, some) = (on(Device::emulated(0).unwrap(), 0), little(0), little(30_000));
            assert!(whole.3 == 20 && whole.2 == 1.0, "{} {}", whole.3, whole.2);
            assert!(none.3 < 20 && none.3 == some.3, "{} {}", none.3, some.3);
            assert!(none.2 == 0.0 && 0.0 < some.2, "{}", some.2);
            assert_eq!((&none.0, &none.1), (&some.0, &some.1));
            let near = |a: &[f64], b: &[f64]| {
                let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
                norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) <= 1e-5 * norm(&mut b.iter().copied())
            };
            assert!(near(&none.0, &whole.0) && near(&none.1, &whole.1));
        }
    }
}
