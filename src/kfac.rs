//! K-FAC (Martens & Grosse 2015; Grosse & Martens 2016 for convolutions): the Gauss–Newton matrix of each layer's
//! selected rows as a Kronecker product, whose inverse costs two small ones (MATH.md, Eq. 11b).
//!
//! ```text
//! H ≈ G ⊗ A,   A = Σ x̄ x̄ᵀ / n,   G = Σ δ δᵀ / (n T)
//! ```
//!
//! over n samples of T positions: x̄ is what a row's taps read at a position, followed by 1 for its bias; δ is the
//! adjoint of the selected rows' outputs for a loss gradient drawn so that its second moment is the loss's curvature.
//! Different layers, and different groups of a convolution, are taken to be independent. The damping is exact, by the
//! eigenvectors of both factors.
//!
//! On a CUDA device the moments are summed there and read back once; the host finds the eigenvectors, and brings them back
//! for the products of the inverse, four for each group of a layer, which are the device's. Both devices draw by the same
//! numbers: where their logits differ by roundings, a draw is another class only if it falls between the two borders.

use faer::{Mat, Side};
use rayon::prelude::*;

use crate::block::Block;
use crate::data::Inputs;
use crate::device::cuda::Buffer;
use crate::device::{Cuda, Device};
use crate::net::cpu::{Arena, Run, Sink};
use crate::net::cuda::{Wanted, moments_of};
use crate::net::plan::{Plan, Purpose};
use crate::net::{LayerId, LayerUse, Network, Op, Seed, check, in_lanes};
use crate::ops::cpu::{conv, gemm};
use crate::ops::cuda::vector::{self, Places};
use crate::ops::{Geometry, Shape, cuda};
use crate::solve::{self, CudaVector, Vector};
use crate::{Error, Result};

/// Wider rows than this have A replaced by its mean diagonal: the matrix would need more than 512 MiB.
const WIDEST: usize = 8192;

/// Power iterations for an eigenvalue.
const POWER_STEPS: usize = 20;

/// Floats of the lanes' moments together (512 MiB).
const MOMENT_FLOATS: usize = 1 << 27;

/// The two moments of every layer with selected rows.
pub struct Kfac {
    parts: Vec<Part>,
    moments: Vec<Moments<f64>>,
    len: usize,
}

/// The selected rows of one group of one layer.
#[derive(Clone, Debug)]
struct Part {
    layer: LayerId,
    group: usize,
    /// Output channels `[k]`, ascending.
    channels: Vec<u32>,
    /// Where each one's values begin in the block's vector.
    starts: Vec<usize>,
    /// The length of a weight row with its bias.
    width: usize,
    /// Whether there is one.
    biased: bool,
    /// Positions at which an image meets them.
    positions: usize,
}

/// A `[w, w]`, or of wide rows its mean diagonal alone `[1]` (as a sum: its trace without the 1s); and G `[k, k]`.
#[derive(Clone, Default)]
struct Moments<T> {
    a: Vec<T>,
    g: Vec<T>,
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

impl Kfac {
    /// The moments over `inputs`, by one forward and one backward pass; `seed` draws the loss gradients.
    ///
    /// # Errors
    /// Where the block is empty, the inputs are none or of another shape, the network is not frozen, or the
    /// device fails.
    pub fn new(
        device: &Device,
        net: &Network,
        block: &Block,
        inputs: &dyn Inputs,
        seed: u64,
    ) -> Result<Kfac> {
        check(net, inputs)?;
        if block.is_empty() {
            return Err(Error::config("curvature of an empty block"));
        }
        let parts = parts(net, block);
        let moments = match device.cuda() {
            Some(cuda) => sums_on(device, cuda, net, block, &parts, inputs, seed)?,
            None => sums_on_host(device, net, block, &parts, inputs, seed)?,
        };
        let pairs = parts.iter().zip(moments);
        let moments = pairs.map(|(part, sums)| finish(part, sums, inputs.len())).collect();
        Ok(Kfac { parts, moments, len: block.len() })
    }

    /// (H + λI)⁻¹ in the form of the file's opening.
    ///
    /// # Errors
    /// Where a factor is singular, as it may be at λ = 0, or the device fails.
    pub fn inverse(&self, device: &Device, damping: f64) -> Result<Inverse> {
        let factors = device.scope(|| {
            let pairs = self.moments.par_iter().zip(&self.parts);
            pairs.map(|(moments, part)| Factors::new(moments, part, damping)).collect::<Result<_>>()
        })?;
        let held = match device.cuda() {
            Some(cuda) => {
                let held = |(factors, part)| OnCuda::new(cuda, factors, part);
                let all: Result<_> = std::iter::zip(&factors, &self.parts).map(held).collect();
                Held::Cuda(cuda.clone(), all.map_err(|error| error.during("room for the inverse"))?)
            }
            None => Held::Host(factors),
        };
        Ok(Inverse { parts: self.parts.clone(), held, len: self.len })
    }

    /// A and G of each group of each layer with selected rows, in the order of layers and groups, row-major. Of rows wider
    /// than 8192, A is its mean diagonal alone.
    pub fn moments(&self) -> impl Iterator<Item = [&[f64]; 2]> {
        self.moments.iter().map(|moments| [&moments.a[..], &moments.g[..]])
    }

    /// The largest eigenvalue of a layer's Kronecker product, by power iterations: an estimate for H's.
    pub fn largest_eigenvalue(&self) -> Result<f64> {
        let top = |m: &[f64]| {
            let n = m.len().isqrt();
            let mut product = |out: &mut Vec<f64>, v: &Vec<f64>| {
                let rows = out.iter_mut().zip(m.chunks_exact(n));
                rows.for_each(|(out, row)| *out = row.iter().zip(v).map(|(m, v)| m * v).sum());
                Ok(())
            };
            solve::largest_eigenvalue(&mut product, &vec![1.0; n], POWER_STEPS)
        };
        let each = self.moments.iter().map(|moments| Ok(top(&moments.a)? * top(&moments.g)?));
        each.collect::<Result<Vec<f64>>>().map(|each| each.into_iter().fold(0.0, f64::max))
    }
}

/// The sums of the moments of every part, in lanes.
fn sums_on_host(
    device: &Device,
    net: &Network,
    block: &Block,
    parts: &[Part],
    inputs: &dyn Inputs,
    seed: u64,
) -> Result<Vec<Moments<f64>>> {
    let zeros = || -> Vec<Moments<f32>> {
        let of = |part: &Part| {
            let a = if part.width > WIDEST { 1 } else { part.width * part.width };
            Moments { a: vec![0.0; a], g: vec![0.0; part.channels.len().pow(2)] }
        };
        parts.iter().map(of).collect()
    };
    let floats: usize = zeros().iter().map(|moments| moments.a.len() + moments.g.len()).sum();
    let mut plan = Plan::new(net, block.rows().to_vec(), Purpose::Gradient, inputs.len())?;
    plan.lanes = plan.lanes.min(MOMENT_FLOATS / floats.max(1)).max(1);
    let lanes = device.scope(|| {
        in_lanes(inputs.len(), &plan, |lane| {
            let mut arena = Arena::new(&plan);
            let mut sums = Lane { parts, moments: zeros() };
            for chunk in lane {
                let first = chunk.start;
                let n = arena.fill(net, &plan, inputs, chunk)?;
                let run = Run::new(net, &plan, &mut arena, n);
                run.seeded(Seed::Draws { seed, first }, &mut sums).primal();
            }
            Ok(sums.moments)
        })
    })?;
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

/// The same on a CUDA device, where all groups of a layer are summed up together.
fn sums_on(
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
    let found = moments_of(device, cuda, net, block.rows(), &wanted, inputs, seed)?;
    let mut at = vec![(0, 0); net.layers.len()]; // groups and rows of each layer that parts before have
    let part = |part: &Part| {
        let layer = part.layer.index();
        let (Some(wanted), Some(sums)) = (&wanted[layer], &found[layer]) else { return Moments::default() };
        let ((group, row), k, square) = (at[layer], part.channels.len(), part.width * part.width);
        at[layer] = (group + 1, row + k);
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let a = match wanted.whole {
            true => wide(&sums.a[group * square..(group + 1) * square]),
            false => vec![sums.trace],
        };
        let rows = sums.g[row * wanted.rows..(row + k) * wanted.rows].chunks_exact(wanted.rows);
        Moments { a, g: rows.flat_map(|row| wide(&row[..k])).collect() }
    };
    Ok(parts.iter().map(part).collect())
}

/// The rows of the block by layer and group, in the order of the layers.
fn parts(net: &Network, block: &Block) -> Vec<Part> {
    let mut parts: Vec<Part> = vec![];
    let mut rows: Vec<_> = (0..block.units().len())
        .map(|i| {
            let (layer, row) = net.units().locate(block.units()[i]);
            (layer, row, block.range(i))
        })
        .collect();
    rows.sort_unstable_by_key(|(layer, row, _)| (layer.index(), *row));
    for (layer, row, range) in rows {
        let at = net.layer(layer);
        let uses = || net.nodes.iter().filter(|node| node.op.layer() == Some(layer));
        let groups = uses().find_map(|node| match &node.op {
            Op::Conv(_, conv, _) => Some(conv.groups),
            _ => None,
        });
        let group = row / (at.outputs / groups.unwrap_or(1));
        let same = |part: &&mut Part| part.layer == layer && part.group == group;
        match parts.last_mut().filter(same) {
            Some(part) => {
                part.channels.push(row as u32);
                part.starts.push(range.start);
            }
            None => parts.push(Part {
                layer,
                group,
                channels: vec![row as u32],
                starts: vec![range.start],
                width: range.len(),
                biased: at.bias.is_some(),
                positions: uses().map(|node| node.shape.positions()).sum(),
            }),
        }
    }
    parts
}

/// Sums to means; a bias's column of A from its row, or its 1s into the diagonal's mean.
fn finish(part: &Part, sums: Moments<f64>, n: usize) -> Moments<f64> {
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

/// (H + λI)⁻¹ of a [`Kfac`].
pub struct Inverse {
    parts: Vec<Part>,
    held: Held,
    len: usize,
}

/// The factors of every part.
enum Held {
    Host(Vec<Factors>),
    Cuda(Cuda, Vec<OnCuda>),
}

/// Eigenvectors as columns, and 1/(a_j g_i + λ) for each pair `[k, w]`; without eigenvectors of A where it is its mean
/// diagonal.
struct Factors {
    a: Option<Vec<f32>>,
    g: Vec<f32>,
    inverse: Vec<f32>,
}

impl Factors {
    fn new(moments: &Moments<f64>, part: &Part, damping: f64) -> Result<Factors> {
        let eigen = |m: &[f64]| {
            let n = m.len().isqrt();
            let eigen = Mat::from_fn(n, n, |i, j| m[i * n + j]).self_adjoint_eigen(Side::Lower);
            let eigen = eigen
                .map_err(|e| Error::Solve { reason: format!("eigenvalues of a K-FAC factor: {e:?}") })?;
            let values: Vec<f64> = (0..n).map(|i| eigen.S().column_vector()[i].max(0.0)).collect();
            let vectors: Vec<f32> = (0..n * n).map(|at| eigen.U()[(at / n, at % n)] as f32).collect();
            Ok((vectors, values))
        };
        let (a, of_a) = match part.width > WIDEST {
            true => (None, vec![moments.a[0]; part.width]),
            false => eigen(&moments.a).map(|(vectors, values)| (Some(vectors), values))?,
        };
        let (g, of_g) = eigen(&moments.g)?;
        let pairs = of_g.iter().flat_map(|g| of_a.iter().map(move |a| g * a + damping));
        let inverse: Vec<f32> = pairs.map(|value| (1.0 / value) as f32).collect();
        match inverse.iter().all(|value| value.is_finite()) {
            true => Ok(Factors { a, g, inverse }),
            false => Err(Error::Solve { reason: "a K-FAC factor is singular: give a larger damping".into() }),
        }
    }

    /// rows `[k, w]` = (G ⊗ A + λI)⁻¹ rows.
    fn apply(&self, rows: &mut Vec<f32>, k: usize, w: usize) {
        let mut room = vec![0.0; k * w];
        let g = gemm::Matrix::rows(&self.g, k, k, k);
        let a = self.a.as_ref().map(|a| gemm::Matrix::rows(a, w, w, w));
        gemm::gemm(&mut room, w, g.t(), gemm::Matrix::rows(rows, k, w, w), 1.0, false);
        match a {
            Some(a) => gemm::gemm(rows, w, gemm::Matrix::rows(&room, k, w, w), a, 1.0, false),
            None => std::mem::swap(rows, &mut room),
        }
        rows.iter_mut().zip(&self.inverse).for_each(|(v, inverse)| *v *= inverse);
        match a {
            Some(a) => gemm::gemm(&mut room, w, gemm::Matrix::rows(rows, k, w, w), a.t(), 1.0, false),
            None => std::mem::swap(rows, &mut room),
        }
        gemm::gemm(rows, w, g, gemm::Matrix::rows(&room, k, w, w), 1.0, false);
    }
}

/// [`Factors`] in the memory of a CUDA device.
struct OnCuda {
    places: Places,
    a: Option<Buffer<f32>>,
    g: Buffer<f32>,
    transposed: Buffer<f32>, // of g
    inverse: Buffer<f32>,
    k: usize,
    w: usize,
}

impl OnCuda {
    fn new(cuda: &Cuda, factors: &Factors, part: &Part) -> Result<OnCuda> {
        let (k, w) = (part.channels.len(), part.width);
        let starts: Vec<u32> = part.starts.iter().map(|&start| start as u32).collect();
        let transposed: Vec<f32> = (0..k * k).map(|at| factors.g[at % k * k + at / k]).collect();
        Ok(OnCuda {
            places: Places::new(cuda, &starts, w, false)?, // the bias is the last value of a row
            a: factors.a.as_ref().map(|a| cuda.upload(a)).transpose()?,
            g: cuda.upload(&factors.g)?,
            transposed: cuda.upload(&transposed)?,
            inverse: cuda.upload(&factors.inverse)?,
            k,
            w,
        })
    }

    /// The rows of `out` = (G ⊗ A + λI)⁻¹ those of `v`, which are brought to a largest value of 1 by `scale` on the way.
    fn apply(&self, cuda: &Cuda, out: &mut CudaVector, v: &CudaVector, scale: f64) -> Result<()> {
        let OnCuda { places, a, g, transposed, inverse, k, w } = self;
        let flat = |inputs, outputs| Geometry::linear(Shape::new(1, 1, inputs), Shape::new(1, 1, outputs));
        let (mut rows, mut room) = (cuda.alloc::<f32>(k * w)?, cuda.alloc::<f32>(k * w)?);
        let product = |out: &mut Buffer<f32>, a: &Buffer<f32>, b: &Buffer<f32>, depth| {
            let out = out.output();
            cuda::conv::data_gradient(cuda, out, a.input(), b.input(), None, *k, &flat(*w, depth), false)
        };
        vector::to_rows(cuda, rows.output(), None, v.input(), places, scale)?;
        product(&mut room, transposed, &rows, *k)?;
        match a {
            Some(a) => product(&mut rows, &room, a, *w)?,
            None => std::mem::swap(&mut rows, &mut room),
        }
        cuda::pointwise::scale_in_place(cuda, rows.output(), inverse.input())?;
        match a {
            Some(a) => {
                let (out, v) = (room.output(), rows.input());
                cuda::conv::apply(cuda, out, v, a.input(), None, None, *k, &flat(*w, *w), false)?;
            }
            None => std::mem::swap(&mut rows, &mut room),
        }
        product(&mut rows, g, &room, *k)?;
        vector::from_rows(cuda, out.output(), rows.input(), None, places, 1.0, scale)
    }
}

impl Inverse {
    /// `out` = (H + λI)⁻¹ v, both `[p]`: on a CUDA device they are brought there and back.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn apply(&self, device: &Device, out: &mut [f64], v: &[f64]) -> Result<()> {
        assert!(out.len() == self.len && v.len() == self.len, "vectors of the block's length");
        let factors = match &self.held {
            Held::Host(factors) => factors,
            Held::Cuda(cuda, _) => {
                let v = CudaVector::new(cuda, v)?;
                let mut moved = v.zeros()?;
                self.apply_on(&mut moved, &v)?;
                out.copy_from_slice(&moved.values()?);
                return Ok(());
            }
        };
        let scale = v.iter().fold(f64::MIN_POSITIVE, |top, v| top.max(v.abs()));
        let moved: Vec<Vec<f32>> = device.scope(|| {
            let pairs = factors.par_iter().zip(&self.parts);
            pairs
                .map(|(factors, part)| {
                    let values = part.starts.iter().flat_map(|&start| &v[start..start + part.width]);
                    let mut rows: Vec<f32> = values.map(|v| (v / scale) as f32).collect();
                    factors.apply(&mut rows, part.channels.len(), part.width);
                    rows
                })
                .collect()
        });
        for (part, rows) in self.parts.iter().zip(moved) {
            for (&start, row) in part.starts.iter().zip(rows.chunks_exact(part.width)) {
                let out = &mut out[start..start + part.width];
                out.iter_mut().zip(row).for_each(|(out, &v)| *out = f64::from(v) * scale);
            }
        }
        Ok(())
    }

    /// [`Inverse::apply`] on vectors that are on the device and stay there.
    ///
    /// # Errors
    /// Where a vector is not of the block's length, the inverse is not on a CUDA device, or that fails.
    pub fn apply_on(&self, out: &mut CudaVector, v: &CudaVector) -> Result<()> {
        let Held::Cuda(cuda, factors) = &self.held else {
            return Err(Error::config("an inverse on the CPU of a vector on CUDA"));
        };
        let lengths = (out.dimension(), v.dimension());
        if lengths != (self.len, self.len) {
            return Err(Error::shape("inverse", format!("[{}]", self.len), format!("{lengths:?}")));
        }
        let scale = v.largest()?.max(f64::MIN_POSITIVE);
        factors.iter().try_for_each(|factors| factors.apply(cuda, out, v, scale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curvature::{Curvature, Kind};
    use crate::data::Samples;
    use crate::net::{Builder, Conv, Role, Shape, Source, UnitId};
    use crate::ops::philox::{Stream, Use};
    use crate::zoo;

    struct Weights;
    impl Source for Weights {
        fn tensor(&mut self, _: &str, shape: &[usize], _: Role) -> Result<Vec<f32>> {
            let mut stream = Stream::new(7, Use::Choice, 0);
            Ok((0..shape.iter().product()).map(|_| 0.01 * stream.normal()).collect())
        }
        fn shape(&self, _: &str) -> Option<&[usize]> {
            None
        }
    }

    /// One convolution to two logits, without biases.
    fn unbiased(input: Shape, conv: Conv) -> Network {
        let mut weights = Weights;
        let (mut b, x) = Builder::new(&mut weights, input);
        let y = b.conv(x, "conv", 2, conv).unwrap();
        b.finish(y).unwrap().freeze()
    }

    /// Rows that are wider than A: of all inputs, and of each half of the channels.
    fn wide() -> [Network; 2] {
        let halves = Conv { groups: 2, ..Conv::square(3, 1, 0) };
        [
            unbiased(Shape::new(1, 1, WIDEST + 5), Conv::square(1, 1, 0)),
            unbiased(Shape::new(3, 3, 2 * WIDEST / 9 + 2), halves),
        ]
    }

    fn samples(n: usize, shape: Shape, classes: u32) -> Samples {
        let mut stream = Stream::new(3, Use::Choice, 0);
        let x = (0..n * shape.len()).map(|_| stream.normal()).collect();
        Samples { kind: shape.into(), x, y: (0..n as u32).map(|i| i % classes).collect() }
    }

    fn random(p: usize) -> Vec<f64> {
        let mut stream = Stream::new(4, Use::Choice, 0);
        (0..p).map(|_| f64::from(stream.normal())).collect()
    }

    fn norm(v: &[f64]) -> f64 {
        v.iter().map(|v| v * v).sum::<f64>().sqrt()
    }

    /// G V A of one part, by plain loops.
    fn product(kfac: &Kfac, v: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; v.len()];
        for (part, Moments { a, g }) in kfac.parts.iter().zip(&kfac.moments) {
            let (k, w) = (part.channels.len(), part.width);
            for (i, j) in (0..k).flat_map(|i| (0..w).map(move |j| (i, j))) {
                for (s, t) in (0..k).flat_map(|s| (0..w).map(move |t| (s, t))) {
                    out[part.starts[i] + j] += g[i * k + s] * v[part.starts[s] + t] * a[t * w + j];
                }
            }
        }
        out
    }

    /// With one sample of two classes and one position, a layer's block is exactly a Kronecker product, and every draw
    /// has the whole curvature.
    #[test]
    fn one_sample_of_two_classes_is_exact_in_every_layer() {
        let device = Device::cpu().unwrap();
        for (spec, shape) in [
            ("logistic", Shape::new(2, 3, 1)),
            ("mlp:5-4", Shape::new(1, 1, 7)),
            ("cnn:4-3+5", Shape::new(1, 1, 2)),
        ] {
            let net = zoo::create(spec, shape, 2, 1).unwrap().network.freeze();
            let one = samples(1, shape, 2);
            for layer in 0..net.layers.len() as u32 {
                let units = net.units().of_layer(LayerId(layer));
                // Out of order, and without the second where there are enough: a block as selection leaves it.
                let mut units: Vec<UnitId> = units.rev().map(|unit| UnitId(unit as u32)).collect();
                if units.len() > 2 {
                    units.remove(1);
                }
                let block = Block::of(&net, &units).unwrap();
                let kfac = Kfac::new(&device, &net, &block, &one, 9).unwrap();
                let v = random(block.len());
                let curvature = Curvature::new(&device, &net, &block, &one, Kind::Ggn, 1 << 20).unwrap();
                let mut hv = vec![0.0; v.len()];
                curvature.apply_wide(&mut hv, &v, &mut vec![0.0; v.len()]).unwrap();
                let got = product(&kfac, &v);
                let error: Vec<f64> = got.iter().zip(&hv).map(|(a, b)| a - b).collect();
                assert!(norm(&error) <= 1e-5 * norm(&hv), "{spec}, layer {layer}: {got:?} {hv:?}");
            }
        }
    }

    #[test]
    fn the_inverse_undoes_the_damped_factors_and_lanes_do_not_matter() {
        let device = Device::cpu().unwrap();
        let shape = Shape::new(6, 6, 3);
        let net = zoo::create("cnn:4-6+8", shape, 3, 2).unwrap().network.freeze();
        let many = samples(50, shape, 3);
        let block = Block::all(&net).unwrap();
        let kfac = Kfac::new(&device, &net, &block, &many, 5).unwrap();
        let (v, damping) = (random(block.len()), 1e-2);
        let mut x = vec![0.0; v.len()];
        kfac.inverse(&device, damping).unwrap().apply(&device, &mut x, &v).unwrap();
        let moved = product(&kfac, &x);
        let error: Vec<f64> = (0..v.len()).map(|i| moved[i] + damping * x[i] - v[i]).collect();
        assert!(norm(&error) <= 1e-4 * norm(&v), "{}", norm(&error) / norm(&v));
        // Its largest eigenvalue is reached and not passed by that of the products.
        let largest = kfac.largest_eigenvalue().unwrap();
        let mut times = |out: &mut Vec<f64>, v: &Vec<f64>| {
            out.copy_from_slice(&product(&kfac, v));
            Ok(())
        };
        let reached = solve::largest_eigenvalue(&mut times, &v, 60).unwrap();
        assert!((reached / largest - 1.0).abs() < 0.02, "{reached} {largest}");
        let one = Device::on_cpu(1, "a test").unwrap();
        let again = Kfac::new(&one, &net, &block, &many, 5).unwrap();
        assert!(kfac.moments.iter().zip(&again.moments).all(|(a, b)| a.a == b.a && a.g == b.g));
    }

    /// Moments and steps on both devices, of one that has less and less memory.
    #[cfg(feature = "emu")]
    #[test]
    fn cuda_has_the_moments_and_the_steps_of_the_cpu() {
        let close = |found: &[f64], expected: &[f64]| {
            let off: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
            found.len() == expected.len() && norm(&off) <= 1e-5 * norm(expected)
        };
        let mut parted = false;
        let made = |spec, shape| zoo::create(spec, shape, 3, 2).unwrap().network.freeze();
        let [unbiased, halves] = wide();
        for (spec, net, times) in [
            ("convolutions", made("cnn:5-9+7", Shape::new(7, 5, 3)), 10),
            ("wide rows", made("logistic", Shape::new(1, 1, WIDEST + 5)), 1),
            ("wide rows without biases", unbiased, 1),
            ("wide rows of halves", halves, 1),
        ] {
            let classes = net.classes() as u32;
            let (many, block) = (samples(21, net.input(), classes), Block::all(&net).unwrap());
            let on = |device: &Device| -> Result<_> {
                let kfac = Kfac::new(device, &net, &block, &many, 5)?;
                let mut x = vec![0.0; block.len()];
                kfac.inverse(device, 0.3)?.apply(device, &mut x, &random(block.len()))?;
                Ok((kfac.moments, x))
            };
            let ((moments, x), mut first) = (on(&Device::cpu().unwrap()).unwrap(), None);
            for said in (14..24).rev().map(|bits| 1 << bits).take(times) {
                let (found, step) = match on(&Device::emulated_with(2, 1 << 27, said).unwrap()) {
                    Err(Error::Memory { op, .. }) if op.contains("one image") => break,
                    other => other.unwrap(),
                };
                for (found, expected) in found.iter().zip(&moments) {
                    assert!(close(&found.a, &expected.a) && close(&found.g, &expected.g), "{spec} {said}");
                }
                assert!(close(&step, &x), "{spec} {said}");
                parted |= *first.get_or_insert(found[0].g.clone()) != found[0].g; // sums by smaller chunks
            }
        }
        assert!(parted, "images never came in parts");
        let shape = Shape::new(1, 1, 40);
        let net = zoo::create("logistic", shape, 2, 1).unwrap().network.freeze();
        let block = Block::all(&net).unwrap();
        let little = Device::emulated_with(0, 2000, 2000).unwrap();
        let refused = Kfac::new(&little, &net, &block, &samples(3, shape, 2), 5).map(drop);
        assert!(matches!(&refused, Err(Error::Memory { op, .. }) if op.contains("moments")), "{refused:?}");
    }

    #[test]
    fn wide_rows_and_rows_that_nothing_reaches_are_damped() {
        let device = Device::cpu().unwrap();
        let biased = zoo::create("logistic", Shape::new(1, 1, WIDEST + 5), 2, 1).unwrap().network.freeze();
        let [unbiased, halves] = wide();
        // The 1 for a bias, and the groups that share the squares.
        for (net, one, groups) in [(biased, 1.0, 1.0), (unbiased, 0.0, 1.0), (halves, 0.0, 2.0)] {
            let (mut few, block) = (samples(3, net.input(), 2), Block::all(&net).unwrap());
            few.x.iter_mut().for_each(|x| *x *= 0.01); // so that the 1 counts
            let kfac = Kfac::new(&device, &net, &block, &few, 5).unwrap();
            let squares = few.x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 3.0 / groups;
            let (mean, found) = ((squares + one) / kfac.parts[0].width as f64, kfac.moments[0].a[0]);
            assert!((found / mean - 1.0).abs() < 1e-6, "{found} {mean}");
            let (v, mut x) = (random(block.len()), vec![0.0; block.len()]);
            kfac.inverse(&device, 0.1).unwrap().apply(&device, &mut x, &v).unwrap();
            assert!(
                x.iter().all(|x| x.is_finite()) && x.iter().zip(&v).map(|(x, v)| x * v).sum::<f64>() > 0.0
            );
        }
        let shape = Shape::new(1, 1, 4);
        let net = zoo::create("logistic", shape, 2, 1).unwrap().network.freeze();
        let dark = Samples { kind: shape.into(), x: vec![0.0; 12], y: vec![0, 1, 0].into() };
        let block = Block::of(&net, &[UnitId(1)]).unwrap();
        let kfac = Kfac::new(&device, &net, &block, &dark, 5).unwrap();
        let mut x = vec![0.0; block.len()];
        kfac.inverse(&device, 0.1).unwrap().apply(&device, &mut x, &random(block.len())).unwrap();
        assert!(x.iter().all(|x| x.is_finite()));
        assert!(matches!(kfac.inverse(&device, 0.0), Err(Error::Solve { .. })));
    }
}
