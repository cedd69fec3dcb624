//! The two moments of each part, summed over inputs on the host or on a CUDA device.

use rayon::prelude::*;

use super::parts::Part;
use crate::block::Block;
use crate::data::Inputs;
use crate::device::{Cuda, Device};
use crate::error::Result;
use crate::net::cpu::{Arena, Run, Sink};
use crate::net::cuda::{self, Wanted, moments_of};
use crate::net::plan::{Plan, Purpose};
use crate::net::{LayerUse, Network, Seed, in_lanes, lanes, sums_of};
use crate::ops::cpu::conv;

/// Wider rows than this have A replaced by its mean diagonal: the matrix would need more than 512 MiB.
pub(super) const WIDEST: usize = 8192;

/// Floats of the lanes' moments together (512 MiB).
const MOMENT_FLOATS: usize = 1 << 27;

/// A `[w, w]`, or of wide rows its mean diagonal alone `[1]` (as a sum: its trace without the 1s); and G `[k, k]`.
#[derive(Clone, Default)]
pub(super) struct Moments<T> {
    pub a: Vec<T>,
    pub g: Vec<T>,
}

/// One lane's sums, in the order of the parts.
struct Lane<'a> {
    parts: &'a [Part],
    moments: Vec<Moments<f32>>,
}

impl Sink for Lane<'_> {
    fn take(&mut self, _: &Plan, at: &LayerUse, dz: &[f32], x: &[f32], _: bool, n: usize) {
        let geometry = &at.geometry;
        for (part, moments) in self.parts.iter().zip(&mut self.moments) {
            if at.layer != part.layer {
                continue;
            }
            conv::output_moment(&mut moments.g, dz, &part.channels, n, geometry);
            match part.width > WIDEST {
                true => moments.a[0] += conv::input_square(x, geometry) as f32,
                false => conv::input_moment(&mut moments.a, x, part.width, part.group, n, geometry),
            }
        }
    }

    fn other(&mut self) -> &mut [Vec<f32>] {
        &mut []
    }
}

/// The sums of the moments of every part, in lanes.
pub(super) fn sums_on_host(
    device: &Device,
    net: &Network,
    block: &Block,
    parts: &[Part],
    inputs: &dyn Inputs,
    seed: u64,
) -> Result<Vec<Moments<f64>>> {
    let floats = floats(parts);
    let mut plan = Plan::new(net, block.rows().to_vec(), Purpose::Gradient, inputs.len())?;
    plan.lanes = plan.lanes.min(MOMENT_FLOATS / floats.max(1)).max(1);
    let own = device.scope(|| {
        in_lanes(device.ranks(), inputs.len(), &plan, |lane| {
            let mut arena = Arena::new(&plan);
            let mut sums = Lane { parts, moments: zeros(parts) };
            for chunk in lane {
                let first = chunk.start;
                let n = arena.fill(net, &plan, inputs, chunk)?;
                let run = Run::new(net, &plan, &mut arena, n);
                run.seeded(Seed::Draws { seed, first }, &mut sums).primal();
            }
            Ok(sums.moments)
        })
    });
    if device.ranks().size() > 1 {
        return sums_of_ranks(device, own, lanes(inputs.len(), &plan), parts);
    }
    let lanes = own?;
    Ok(device.scope(|| {
        let part = |i: usize| {
            let sum = |of: &dyn Fn(&Moments<f32>) -> &[f32]| {
                let mut sum = vec![0.0; of(&lanes[0][i]).len()];
                for lane in &lanes {
                    sum.iter_mut().zip(of(&lane[i])).for_each(|(sum, &v)| *sum += f64::from(v));
                }
                sum
            };
            Moments { a: sum(&|moments| &moments.a), g: sum(&|moments| &moments.g) }
        };
        (0..parts.len()).into_par_iter().map(part).collect()
    }))
}

/// Zeros in the shape of the parts' moments.
fn zeros<T: Copy + Default>(parts: &[Part]) -> Vec<Moments<T>> {
    let of = |part: &Part| {
        let (a, g) = lens(part);
        Moments { a: vec![T::default(); a], g: vec![T::default(); g] }
    };
    parts.iter().map(of).collect()
}

/// How many values both moments have.
fn lens(part: &Part) -> (usize, usize) {
    let a = if part.width > WIDEST { 1 } else { part.width * part.width };
    (a, part.channels.len().pow(2))
}

fn floats(parts: &[Part]) -> usize {
    parts.iter().map(lens).map(|(a, g)| a + g).sum()
}

/// The sums over all `lanes`, of which these are this rank's; in the order of one rank.
fn sums_of_ranks(
    device: &Device,
    own: Result<Vec<Vec<Moments<f32>>>>,
    lanes: usize,
    parts: &[Part],
) -> Result<Vec<Moments<f64>>> {
    let flat = |moments: Vec<Moments<f32>>| moments.into_iter().flat_map(|m| m.a.into_iter().chain(m.g));
    let own = own.map(|own| own.into_iter().map(|lane| flat(lane).collect()).collect());
    let sums = device.ranks().reduce(lanes, floats(parts), own, |_, lanes| sums_of(lanes))?;
    let mut rest = &sums[..];
    let mut next = |len: usize| {
        let (part, others) = rest.split_at(len);
        rest = others;
        part.to_vec()
    };
    Ok(parts.iter().map(lens).map(|(a, g)| Moments { a: next(a), g: next(g) }).collect())
}

/// The same on a CUDA device, where all groups of a layer are summed up together.
pub(super) fn sums_on(
    device: &Device,
    cuda: &Cuda,
    net: &Network,
    block: &Block,
    parts: &[Part],
    inputs: &dyn Inputs,
    seed: u64,
) -> Result<Vec<Moments<f64>>> {
    let mut wanted: Vec<Option<Wanted>> = net.layers.iter().map(|_| None).collect();
    for part in parts {
        let (width, whole) = (part.width, part.width <= WIDEST);
        let of = wanted[part.layer.index()].get_or_insert(Wanted { groups: vec![], width, rows: 0, whole });
        of.groups.push(part.group as u32);
        of.rows = of.rows.max(part.channels.len());
    }
    let by_part = |found: &[Option<cuda::Moments>]| -> Vec<Moments<f32>> {
        let mut at = vec![(0, 0); net.layers.len()]; // groups and rows of each layer that parts before have
        let part = |part: &Part| {
            let layer = part.layer.index();
            let (Some(wanted), Some(sums)) = (&wanted[layer], &found[layer]) else {
                return Moments::default();
            };
            let ((group, row), k, square) = (at[layer], part.channels.len(), part.width * part.width);
            at[layer] = (group + 1, row + k);
            let a = match wanted.whole {
                true => sums.a[group * square..(group + 1) * square].to_vec(),
                false => vec![sums.trace],
            };
            let rows = sums.g[row * wanted.rows..(row + k) * wanted.rows].chunks_exact(wanted.rows);
            Moments { a, g: rows.flat_map(|row| &row[..k]).copied().collect() }
        };
        parts.iter().map(part).collect()
    };
    let alone = device.ranks().size() == 1;
    let (mut sums, mut own) = (if alone { zeros(parts) } else { vec![] }, vec![]);
    let mut each = |found: &[Option<cuda::Moments>]| {
        let lane = by_part(found);
        if !alone {
            return own.push(lane);
        }
        let add = |(sum, lane): (&mut Vec<f64>, &Vec<f32>)| {
            sum.iter_mut().zip(lane).for_each(|(sum, &v)| *sum += f64::from(v));
        };
        sums.iter_mut().zip(&lane).for_each(|(sum, lane)| {
            [(&mut sum.a, &lane.a), (&mut sum.g, &lane.g)].into_iter().for_each(add);
        });
    };
    let lanes = moments_of(device, cuda, net, block.rows(), &wanted, inputs, seed, &mut each);
    match alone {
        true => lanes.map(|_| sums),
        false => sums_of_ranks(device, Ok(own), device.ranks().told(lanes)?, parts),
    }
}

/// Sums to means; a bias's column of A from its row, or its 1s into the diagonal's mean.
pub(super) fn finish(part: &Part, sums: Moments<f64>, n: usize) -> Moments<f64> {
    let Moments { mut a, mut g } = sums;
    let w = part.width;
    if w > WIDEST {
        let ones = if part.biased { n * part.positions } else { 0 };
        a[0] = (a[0] + ones as f64) / (n * w) as f64;
    } else {
        (0..w).for_each(|i| a[i * w + w - 1] = a[(w - 1) * w + i]);
        a.iter_mut().for_each(|a| *a /= n as f64);
    }
    g.iter_mut().for_each(|g| *g /= (n * part.positions) as f64);
    Moments { a, g }
}
