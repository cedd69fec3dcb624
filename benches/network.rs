//! Networks on the CPU: perturbation passes, gradient and Hessian-vector products of ResNet-18 at 32×32, and a whole
//! scrub of one image from a two-layer network (medians). Correct first: a product against a difference of gradients on
//! the fully connected layer. `cargo bench --bench network`.
//!
//! `cargo bench --bench network -- --model FILE..`: a forward pass and the gradient of every unit on 8 images of 224×224, of
//! each checkpoint's network instead.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use scrubjay::block::Block;
use scrubjay::checkpoint::Checkpoint;
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::data::Samples;
use scrubjay::data::tensors::{self, Tensor, Values};
use scrubjay::device::Device;
use scrubjay::net::{LayerId, Network, Shape, UnitId, evaluate};
use scrubjay::observe::observe;
use scrubjay::ops::philox::{Stream, Use};
use scrubjay::perturb::{Noise, perturb};
use scrubjay::select::{Criteria, Method};
use scrubjay::task::{IfEmpty, Settings, Task};
use scrubjay::unlearn::unlearn;
use scrubjay::{Error, zoo};

fn main() -> anyhow::Result<()> {
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(()); // cargo test --benches: nothing to test here that tests/net.rs does not
    }
    let device = Device::cpu()?;
    let threads = device.threads();
    println!("{:<52} {:>10} {:>10} {:>10}  {threads} threads", "case", "median ms", "least", "most");
    let mut rest = std::env::args().skip_while(|arg| arg != "--model");
    if rest.next().is_some() {
        return rest.filter(|arg| arg != "--bench").try_for_each(|file| model(&device, Path::new(&file)));
    }
    let net = resnet18()?;
    let samples = images(64, net.input(), 10);
    check(&device, &net, &samples)?;

    let noise = Noise { sigma: 0.1, replace: 1, seed: 1 };
    let copies = perturb(&samples, 0, &net.ordinary, 1000, noise)?;
    time("resnet18/1000 perturbation passes", 5, || observe(&device, &net, &copies).map(drop))?;

    let (full, last) = (Block::all(&net)?, stage4(&net)?);
    time("resnet18/gradient, batch 64", 7, || full.gradient(&device, &net, &samples).map(drop))?;
    for (name, block) in [("full", &full), ("last stage", &last)] {
        for kind in [Kind::Hessian, Kind::Ggn] {
            let curvature = Curvature::new(&device, &net, block, &samples, kind, 4 << 30)?;
            let (v, mut hv) = (noise_vector(block.len()), vec![0.0; block.len()]);
            let name = format!("resnet18/{} product, {name}, batch 64", kind.name());
            time(&name, 7, || curvature.apply(&mut hv, &v))?;
        }
    }

    let shape = Shape::new(28, 28, 1);
    let mlp = zoo::create("mlp:100", shape, 10, 1)?.network.freeze();
    let samples = images(1025, shape, 10);
    let task = Task::new(&device, &samples, (1..1025).collect(), settings());
    time("mlp 784-100-10/whole scrub of one image", 7, || {
        unlearn(&task, &mut mlp.clone(), 0, &[0], &[]).map(drop)
    })
}

/// The network of a checkpoint: a forward pass, and the gradient.
fn model(device: &Device, file: &Path) -> anyhow::Result<()> {
    let net = zoo::load(&Checkpoint::open(file)?, None, Some(Shape::new(224, 224, 3)))?.network.freeze();
    let samples = images(8, net.input(), net.classes());
    let name = file.file_stem().unwrap_or_default().display();
    time(&format!("{name}/forward pass, batch 8"), 7, || evaluate(device, &net, &samples).map(drop))?;
    let full = Block::all(&net)?;
    time(&format!("{name}/gradient, batch 8"), 5, || full.gradient(device, &net, &samples).map(drop))
}

/// Prints what a case takes; `cargo bench --bench network -- PART..` runs those whose names hold a part.
fn time(name: &str, runs: usize, mut run: impl FnMut() -> scrubjay::Result<()>) -> anyhow::Result<()> {
    let mut parts =
        std::env::args().skip(1).take_while(|arg| arg != "--model").filter(|arg| arg != "--bench").peekable();
    if parts.peek().is_some() && !parts.any(|part| name.contains(&part)) {
        return Ok(());
    }
    run()?; // warm
    let mut times = vec![];
    for _ in 0..runs {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("{name:<52} {:>10.2} {:>10.2} {:>10.2}", times[runs / 2], times[0], times[runs - 1]);
    Ok(())
}

fn noise_vector(p: usize) -> Vec<f32> {
    let mut stream = Stream::new(2, Use::Choice, 0);
    (0..p).map(|_| stream.normal()).collect()
}

fn images(n: usize, shape: Shape, classes: usize) -> Samples {
    let mut stream = Stream::new(3, Use::Choice, 0);
    let x = (0..n * shape.len()).map(|_| stream.normal()).collect();
    Samples { kind: shape.into(), x, y: (0..n).map(|_| stream.below(classes) as u32).collect(), stream: None }
}

/// torchvision's ResNet-18 with random weights.
fn resnet18() -> anyhow::Result<Network> {
    let mut stream = Stream::new(4, Use::Weights, 0);
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = vec![];
    let mut conv = |name: String, norm: String, shape: [usize; 4]| {
        let fan_in: usize = shape[1..].iter().product();
        let scale = (2.0 / fan_in as f32).sqrt();
        let weight = (0..shape[0] * fan_in).map(|_| scale * stream.normal()).collect();
        tensors.push((format!("{name}.weight"), shape.to_vec(), weight));
        for (tensor, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            tensors.push((format!("{norm}.{tensor}"), vec![shape[0]], vec![value; shape[0]]));
        }
    };
    conv("conv1".into(), "bn1".into(), [64, 3, 7, 7]);
    let mut inner = 64;
    for (stage, width) in [(1, 64), (2, 128), (3, 256), (4, 512)] {
        for block in 0..2 {
            let name = |part: &str| format!("layer{stage}.{block}.{part}");
            conv(name("conv1"), name("bn1"), [width, inner, 3, 3]);
            conv(name("conv2"), name("bn2"), [width, width, 3, 3]);
            if inner != width {
                conv(name("downsample.0"), name("downsample.1"), [width, inner, 1, 1]);
            }
            inner = width;
        }
    }
    tensors.push(("fc.weight".into(), vec![10, 512], (0..5120).map(|_| 0.05 * stream.normal()).collect()));
    tensors.push(("fc.bias".into(), vec![10], vec![0.0; 10]));
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.safetensors");
    let all: Vec<Tensor> = tensors
        .iter()
        .map(|(name, shape, values)| Tensor { name, shape: shape.clone(), values: Values::F32(values) })
        .collect();
    tensors::write(&path, &all, HashMap::new())?;
    Ok(zoo::load(&Checkpoint::open(&path)?, None, Some(Shape::new(32, 32, 3)))?.network.freeze())
}

/// Every unit of the last stage and of the head.
fn stage4(net: &Network) -> scrubjay::Result<Block> {
    let last = (0..net.layers.len() as u32).map(LayerId);
    let last = last.filter(
        |&layer| matches!(net.layer(layer).name.as_str(), name if name == "fc" || name.starts_with("layer4")),
    );
    let units: Vec<UnitId> =
        last.flat_map(|layer| net.units().of_layer(layer)).map(|unit| UnitId(unit as u32)).collect();
    Block::of(net, &units)
}

fn check(device: &Device, net: &Network, samples: &Samples) -> anyhow::Result<()> {
    let head =
        net.units().of_layer(net.layer_named("fc")?).map(|unit| UnitId(unit as u32)).collect::<Vec<_>>();
    let block = Block::of(net, &head)?;
    let v = noise_vector(block.len());
    let mut hv = vec![0.0; block.len()];
    Curvature::new(device, net, &block, samples, Kind::Hessian, 1 << 30)?.apply(&mut hv, &v)?;
    let at = |h: f32| -> scrubjay::Result<Vec<f64>> {
        let mut moved = net.clone();
        let values: Vec<f32> = block.values(net).iter().zip(&v).map(|(w, v)| w + h * v).collect();
        block.assign(&mut moved, &values);
        block.gradient(device, &moved, samples)
    };
    let h = 1.0 / 1024.0;
    let difference: Vec<f64> =
        at(h)?.iter().zip(at(-h)?).map(|(a, b)| (a - b) / (2.0 * f64::from(h))).collect();
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let error =
        norm(&mut hv.iter().zip(&difference).map(|(a, b)| a - b)) / norm(&mut difference.iter().copied());
    match error < 1e-2 {
        true => Ok(()),
        false => Err(Error::config(format!("the product is off by {error:.1e}: nothing is timed")).into()),
    }
}

/// One image by plain FOCI on 1,000 copies, as `scrub --batch 1` does it.
fn settings() -> Settings {
    Settings {
        selection: Criteria { method: Method::Foci, ..Default::default() },
        gate: 1.0,
        if_empty: IfEmpty::Cheap,
        ..Default::default()
    }
}
