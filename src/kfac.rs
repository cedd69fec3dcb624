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

mod inverse;
mod moments;
mod parts;

pub use inverse::Inverse;

use crate::block::Block;
use crate::data::Inputs;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::net::{Network, check};
use crate::solve;
use moments::{Moments, finish, sums_on, sums_on_host};
use parts::{Part, parts};

/// Power iterations for an eigenvalue.
const POWER_STEPS: usize = 20;

/// The two moments of every layer with selected rows.
pub struct Kfac {
    parts: Vec<Part>,
    moments: Vec<Moments<f64>>,
    len: usize,
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
        if device.count() > 1 {
            return device.shared(|device| Kfac::new(device, net, block, inputs, seed));
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
        Inverse::new(device, &self.parts, &self.moments, damping, self.len)
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

#[cfg(test)]
mod tests {
    use super::moments::WIDEST;
    use super::*;
    use crate::curvature::{Curvature, Kind};
    use crate::data::Samples;
    use crate::net::{Builder, Conv, LayerId, Role, Shape, Source, UnitId};
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
        Samples { kind: shape.into(), x, y: (0..n as u32).map(|i| i % classes).collect(), stream: None }
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
        let dark = Samples { kind: shape.into(), x: vec![0.0; 12], y: vec![0, 1, 0].into(), stream: None };
        let block = Block::of(&net, &[UnitId(1)]).unwrap();
        let kfac = Kfac::new(&device, &net, &block, &dark, 5).unwrap();
        let mut x = vec![0.0; block.len()];
        kfac.inverse(&device, 0.1).unwrap().apply(&device, &mut x, &random(block.len())).unwrap();
        assert!(x.iter().all(|x| x.is_finite()));
        assert!(matches!(kfac.inverse(&device, 0.0), Err(Error::Solve { .. })));
    }
}
