//! Whole passes of `scrubjay bench`: networks of random weights.
//!
//! The results for the first images of a batch are compared with the CPU's for the same images one by one, in f32. On
//! the CPU this shows only that the images of a batch do not influence each other; tests/net.rs compares its values
//! with f64.

use super::case::{Check, Kernel, Sizes, Timer, Timing, Work};
use super::map::{normals, work};
use crate::block::Block;
use crate::curvature::{Curvature, Kind};
use crate::data::{Inputs, Samples};
use crate::device::Device;
use crate::error::Result;
use crate::net::{Network, Op, Shape};
use crate::observe::{observe, observe_copies};
use crate::ops::Precision;
use crate::perturb::{Noise, perturb, perturb_request};
use crate::solve::Vector;
use crate::zoo;

pub(super) const RESNET: &[(&str, usize)] = &[("copies", 8), ("side", 64), ("width", 64)];
pub(super) const DERIVED: &[(&str, usize)] = &[("images", 8), ("side", 64), ("width", 64)];
pub(super) const VIT: &[(&str, usize)] = &[("copies", 8), ("side", 64), ("width", 768), ("depth", 12)];

const CLASSES: usize = 1000;
const NOISE: Noise = Noise { sigma: 0.1, replace: 1, seed: 7 };
/// Images that a check compares.
const CHECKED: usize = 2;
/// Bytes that a curvature may keep of its primal pass.
const KEPT: usize = 64 << 30;

pub(super) fn resnet50(sizes: Sizes) -> Result<Network> {
    Ok(zoo::resnet50(image(sizes), CLASSES, sizes[2], 1)?.freeze())
}

pub(super) fn vit16(sizes: Sizes) -> Result<Network> {
    Ok(zoo::vit16(image(sizes), CLASSES, sizes[2], sizes[3], 1)?.freeze())
}

fn image(sizes: Sizes) -> Shape {
    Shape::new(sizes[1], sizes[1], 3)
}

fn samples(net: &Network, n: usize) -> Samples {
    let y = (0..n).map(|i| (7 * i % CLASSES) as u32).collect();
    Samples { kind: net.kind(), x: normals(n * net.input().len(), 0), y, stream: None }
}

/// Operations of one image's forward pass: its products and sums of layers and of attention.
fn flops(net: &Network) -> usize {
    let of_node = |node: &crate::net::Node| match (&node.op, node.op.layer()) {
        (Op::Attention { windows, .. }, _) => {
            let tokens = node.shape.positions() / windows.map_or(1, |(_, windows)| windows.count());
            4 * node.shape.positions() * tokens * node.shape.c
        }
        (_, Some(layer)) => 2 * node.shape.len() * net.layer(layer).fan_in,
        (_, None) => 0,
    };
    net.nodes.iter().map(of_node).sum()
}

/// ‖got − want‖ / ‖want‖.
fn off<T: Copy + Into<f64>>(got: &[T], want: &[T]) -> f64 {
    let norm = |f: &dyn Fn(usize) -> f64| (0..want.len()).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
    match got.len() == want.len() {
        true => norm(&|i| got[i].into() - want[i].into()) / norm(&|i| want[i].into()),
        false => f64::NAN,
    }
}

/// The largest error allowed. Rounding in f32 grows with the root of the number of terms, rounding of operands does
/// not, and both grow with the root of the number of layers.
fn allowed(net: &Network, precision: Precision) -> f64 {
    let terms = net.layers.iter().map(|layer| layer.fan_in).max().unwrap_or(1);
    let operands = match precision {
        Precision::F32 => 0.0,
        Precision::Tf32 | Precision::F16 => 2f64.powi(-11),
        Precision::Bf16 => 2f64.powi(-8),
    };
    let each = operands + f64::from(f32::EPSILON) * (terms as f64).sqrt();
    2.0 * (net.layers.len() as f64).sqrt() * each
}

/// The perturbation pass of one image.
struct Copies {
    device: Device,
    net: Network,
    image: Samples,
    m: usize,
    precision: Precision,
}

impl Copies {
    fn observe(&self) -> Result<crate::observe::Trace> {
        let Copies { device, net, image, m, precision } = self;
        observe_copies(device, net, &perturb_request(image, &[0], &net.ordinary, *m, NOISE)?, *precision)
    }
}

impl Kernel for Copies {
    fn run(&mut self, _: usize) -> Result<()> {
        self.observe().map(drop)
    }

    fn check(&mut self) -> Result<Check> {
        let (found, cpu) = (self.observe()?, Device::on_cpu(self.device.threads(), "a check")?);
        let Copies { net, image, m, .. } = self;
        let copies = perturb(image, 0, &net.ordinary, *m, NOISE)?;
        let (mut one, mut error) = (image.clone(), 0.0f64);
        for (i, row) in found.activations.chunks(found.d).enumerate().take(CHECKED) {
            copies.fill(&mut one.x, &mut [0], i..i + 1)?; // its label is the image's
            let want = observe(&cpu, net, &one)?;
            let both = [off(row, &want.activations), off(&found.losses[i..=i], &want.losses)];
            error = both.into_iter().fold(error, |a, b| if a.is_nan() || a >= b { a } else { b }); // keeps a NaN
        }
        Ok(Check { error, tolerance: allowed(net, self.precision) })
    }
}

pub(super) fn copies(device: &Device, net: Network, sizes: Sizes, precision: Precision) -> Result<Work> {
    let (m, each, d) = (sizes[0], flops(&net), net.units().len());
    let bytes = 4 * (net.parameters() + m * (d + 1));
    let image = samples(&net, 1);
    work(bytes, m * each, Box::new(Copies { device: device.clone(), net, image, m, precision }))
}

/// A network and images, and what is derived of its mean loss: the gradient, or the Hessian by a vector.
struct Derived {
    device: Device,
    net: Network,
    block: Block,
    samples: Samples,
    v: Option<Vec<f32>>,
}

impl Derived {
    fn new(device: &Device, net: Network, m: usize, product: bool) -> Result<Box<Derived>> {
        let (block, samples) = (Block::all(&net)?, samples(&net, m));
        let v = product.then(|| normals(block.len(), 3));
        Ok(Box::new(Derived { device: device.clone(), net, block, samples, v }))
    }

    fn curvature<'a>(&'a self, device: &'a Device, inputs: &'a dyn Inputs) -> Result<Curvature<'a>> {
        Curvature::new(device, &self.net, &self.block, inputs, Kind::Hessian, KEPT)
    }

    fn of(&self, device: &Device, inputs: &dyn Inputs) -> Result<Vec<f64>> {
        let Some(v) = &self.v else { return self.block.gradient(device, &self.net, inputs) };
        let mut hv = vec![0.0; v.len()];
        self.curvature(device, inputs)?.apply(&mut hv, v)?;
        Ok(hv)
    }
}

impl Kernel for Derived {
    fn run(&mut self, _: usize) -> Result<()> {
        self.of(&self.device, &self.samples).map(drop)
    }

    fn check(&mut self) -> Result<Check> {
        let cpu = Device::on_cpu(self.device.threads(), "a check")?;
        let few: Vec<usize> = (0..CHECKED.min(self.samples.len())).collect();
        let found = self.of(&self.device, &self.samples.subset(&few))?;
        let mut want = vec![0.0; found.len()];
        for &i in &few {
            let one = self.of(&cpu, &self.samples.subset(&[i]))?;
            want.iter_mut().zip(one).for_each(|(mean, one)| *mean += one / few.len() as f64);
        }
        Ok(Check { error: off(&found, &want), tolerance: allowed(&self.net, Precision::F32) })
    }

    /// A product without the primal pass, of vectors that are on the device.
    fn timed(&mut self, timer: &Timer) -> Result<Timing> {
        let Some(v) = &self.v else { return timer(&mut |i| self.run(i)) };
        let curvature = self.curvature(&self.device, &self.samples)?;
        match curvature.vector(&v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>())? {
            Some(v) => {
                let mut hv = v.zeros()?;
                timer(&mut |_| curvature.apply_on(&mut hv, &v))
            }
            None => {
                let mut hv = vec![0.0; v.len()];
                timer(&mut |_| curvature.apply(&mut hv, v))
            }
        }
    }
}

pub(super) fn gradient(device: &Device, net: Network, sizes: Sizes) -> Result<Work> {
    let (m, each, bytes) = (sizes[0], 3 * flops(&net), 8 * net.parameters());
    work(bytes + 4 * m * net.input().len(), m * each, Derived::new(device, net, m, false)?)
}

pub(super) fn product(device: &Device, net: Network, sizes: Sizes) -> Result<Work> {
    let (m, each, bytes) = (sizes[0], 6 * flops(&net), 20 * net.parameters());
    work(bytes, m * each, Derived::new(device, net, m, true)?)
}
