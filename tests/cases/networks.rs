//! Cases of whole networks on CUDA: observed, derived, solved, scrubbed.
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use libtest_mimic::Failed;
use scrubjay::block::Block;
use scrubjay::codec::{Columns, FociOptions, foci, permuted_first_steps};
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::data::{InputKind, Inputs, Samples};
use scrubjay::device::Device;
use scrubjay::evidence::select;
use scrubjay::kfac::Kfac;
use scrubjay::net::plan::Plan;
use scrubjay::net::{Activation, Builder, LayerId, Network, NodeId, Trace, UnitId, Window};
use scrubjay::observe::{evaluate, observe, observe_copies};
use scrubjay::ops::{Conv, Precision, Shape, cuda as on_cuda};
use scrubjay::perturb::{Noise, perturb, perturb_request};
use scrubjay::select::{Criteria, Method};
use scrubjay::solve::{CudaVector, Limits, Negative, Vector, conjugate_gradient, largest_eigenvalue};
use scrubjay::task::{Approximation, Calibration, Rule, Settings, Target, Task};
use scrubjay::unlearn::unlearn;
use scrubjay::{Error, zoo};

use super::checks::{allowed_through, close_through, near, products_passed, values};
use super::convs::filtered;
use super::dual::Number;
use super::{cuda, nets, oracle, ptx, twice};

/// A stride makes no products with zeros: what is multiplied for dx is what is for z, three times for 3xTF32. Where the
/// device counts, and every tile is full.
pub fn products(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    for (stride, filter, padding) in [(1, 3, 1), (2, 3, 1), (2, 1, 0), (4, 7, 3)] {
        let geometry = filtered(Shape::new(8, 16, 64), 64, Conv::square(filter, stride, padding));
        let n = (stride * stride / 2).max(2); // pixels of each remainder fill a tile
        let (inner, outer) = (n * geometry.input.len(), n * geometry.output.len());
        let (dz, weight) =
            (cuda.upload(&values(outer, 2))?, cuda.upload(&values(64 * geometry.fan_in(), 3))?);
        let mut dx = cuda.alloc(inner)?;
        let before = cuda.counts().products;
        let (dx, dz, weight) = (dx.output(), dz.input(), weight.input());
        on_cuda::conv::data_gradient(cuda, dx, dz, weight, None, n, &geometry, false)?;
        let found = cuda.counts().products - before;
        let needed = 3 * outer as u64 * geometry.fan_in() as u64;
        if before + found > 0 {
            super::equal(&format!("products of stride {stride}"), &found, &needed)?;
        } else if device.why().contains("emulated") {
            return Err("nothing was counted".into());
        }
    }
    Ok(())
}

/// Noisy copies observed below f32: near f32 and not the same, with an account of how near; refused by the CPU, and where
/// the values do not fit.
pub fn selects(device: &Device, precision: Precision) -> Result<(), Failed> {
    let net = zoo::create("cnn:4-6", Shape::new(6, 6, 2), 3, 1)?.network.freeze();
    let (samples, stop) = (nets::Random(11).samples(&net, 12), AtomicBool::new(false));
    let noise = Noise { sigma: 0.1, replace: 1, seed: 3 };
    let observed = |samples: &Samples, precision| {
        let copies = perturb_request(samples, &[0, 1, 2], &net.ordinary, 40, noise)?;
        observe_copies(device, &net, &copies, precision)
    };
    let exact = observed(&samples, Precision::F32)?;
    let found = twice(|| Ok(observed(&samples, precision)?))?;
    rounded(&found, &exact, precision)?;
    for (method, traces) in [(Method::Vote, 3), (Method::Foci, 1)] {
        let config = Criteria { method, perturbations: Some(40), precision, ..Default::default() };
        let chosen = twice(|| Ok(select(device, &net, &samples, &[0, 1, 2], &config, &stop)?))?;
        let said = chosen.agreement.ok_or("no account of the precision")?;
        super::equal(
            "what was compared",
            &(said.precision, said.traces, said.copies),
            &(precision, traces, 40),
        )?;
        if said.spearman.is_none_or(|rho| rho < 0.9) || !(0.0..=1.0).contains(&said.overlap) {
            return Err(format!("{said:?}").into());
        }
        let on_cpu = select(&Device::cpu()?, &net, &samples, &[0, 1, 2], &config, &stop);
        match on_cpu {
            Err(Error::Config(reason)) if reason.contains("needs CUDA") => {}
            _ => return Err("the CPU took it".into()),
        }
    }
    let plain = Criteria { method: Method::Foci, perturbations: Some(40), ..Default::default() };
    let plain = select(device, &net, &samples, &[0], &plain, &stop)?;
    super::equal("an account of f32", &plain.agreement, &None)?;
    let mut large = samples.clone();
    large.x.iter_mut().for_each(|x| *x *= 1e6);
    match (precision, observed(&large, precision)) {
        (Precision::F16, Err(Error::Config(reason))) if reason.contains("not finite") => Ok(()),
        (Precision::F16, _) => Err("what f16 does not hold was taken".into()),
        (_, found) => Ok(found.map(drop)?),
    }
}

/// Units are chosen of a trace that stays on the device, and are those that FOCI chooses of a copy on the host; the level of
/// permuted losses too. Less than half of the trace comes to the host.
pub fn selects_in_place(device: &Device, request: &[usize]) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let net = zoo::create("cnn:8-16", Shape::new(6, 6, 2), 3, 1)?.network.freeze();
    let samples = nets::Random(11).samples(&net, 12);
    let copies = 150; // and no tile of columns_f64 is full
    let criteria =
        Criteria { method: Method::Foci, perturbations: Some(copies), seed: 3, ..Default::default() };
    let noise = Noise { sigma: criteria.sigma, replace: criteria.replace, seed: 3 };
    let trace = observe_copies(
        device,
        &net,
        &perturb_request(&samples, request, &net.ordinary, copies, noise)?,
        Precision::F32,
    )?;
    let losses: Vec<f64> = trace.losses.iter().map(|&loss| f64::from(loss)).collect();
    let columns = Columns::from_rows_f32(&trace.activations, trace.m, trace.d, trace.d)?;
    let cpu = Device::cpu()?;
    let expected = foci(&cpu, &losses, &columns, &FociOptions::default())?;
    let mut tops = permuted_first_steps(&cpu, &losses, &columns, 0..24, 3)?.ok_or("constant losses")?;
    tops.sort_by(f64::total_cmp);

    let before = cuda.counts().downloaded;
    let found = select(device, &net, &samples, request, &criteria, &AtomicBool::new(false))?;
    let crossed = cuda.counts().downloaded - before;
    let units: Vec<usize> = found.units.iter().map(|unit| unit.index()).collect();
    super::equal("units", &units, &expected.order)?;
    let scores: Vec<Option<f64>> = found.scores.iter().map(|&score| Some(score)).collect();
    super::equal("T", &scores, &expected.conditional)?;
    super::equal("the largest T", &found.first, &expected.first_step.iter().copied().reduce(f64::max))?;
    super::equal("the level of permuted losses", &found.noise_level, &Some(tops[22]))?;
    if crossed > 2 * trace.m * trace.d || expected.order.len() < 2 {
        return Err(format!("{crossed} bytes came to the host, in {} steps", expected.order.len()).into());
    }
    Ok(())
}

/// What a network has between its image and its head.
type Compose<'a> = &'a dyn Fn(&mut Builder, NodeId) -> scrubjay::Result<NodeId>;

/// A pass in f16 is refused where a value is beyond it, also where what follows makes a number of infinity: of an affine layer
/// before tanh, also of channels enough for the kernels of sm_90a, and of a sum before a sigmoid. Below f16's largest value, and in
/// bf16, it is not.
pub fn refuses_beyond(device: &Device) -> Result<(), Failed> {
    let affine = |b: &mut Builder, x: NodeId| {
        let x = b.flatten(x);
        let x = b.linear(x, "fc", 2)?;
        Ok(b.activation(x, Activation::Tanh))
    };
    let sum = |b: &mut Builder, x: NodeId| {
        let x = b.conv(x, "conv", 2, Conv::square(1, 1, 0))?;
        let (most, mean) =
            (b.max_pool(x, Window::square(2, 1, 0))?, b.average_pool(x, Window::square(2, 1, 0))?);
        let x = b.add(most, mean)?;
        let x = b.activation(x, Activation::Sigmoid);
        Ok(b.flatten(x))
    };
    let wide = |b: &mut Builder, x: NodeId| {
        let x = b.conv(x, "first", 32, Conv::square(1, 1, 0))?;
        let x = b.conv(x, "conv", 8, Conv::square(1, 1, 0))?;
        let x = b.activation(x, Activation::Tanh);
        Ok(b.flatten(x))
    };
    let made: [(Compose<'_>, usize, f32); 3] = [(&affine, 1, 4.0), (&sum, 1, 2.0), (&wide, 32, 1024.0)];
    for (compose, channels, times) in made {
        let mut weights = nets::weights(5);
        let (mut b, x) = Builder::new(&mut weights, Shape::new(2, 2, channels));
        let x = compose(&mut b, x)?;
        let x = b.linear(x, "head", 3)?;
        let mut net = b.finish(x)?.freeze();
        let head = net.layers.len() - 1;
        for i in 0..head {
            let layer = net.layers[i].clone();
            net.params[layer.weight.index()].value.iter_mut().for_each(|weight| *weight = 1.0);
            layer.bias.iter().for_each(|bias| net.params[bias.index()].value.fill(0.0));
        }
        let observed = |value: f32, precision| {
            let x = vec![value; net.input().len()];
            let samples = Samples { kind: net.kind(), x, y: vec![1].into(), stream: None };
            let noise = Noise { sigma: 0.1, replace: 1, seed: 3 };
            let copies = perturb_request(&samples, &[0], &net.ordinary, 5, noise)?;
            observe_copies(device, &net, &copies, precision)
        };
        observed(6e4 / times, Precision::F16)?;
        observed(7e4 / times, Precision::Bf16)?;
        for value in [7e4, -7e4] {
            match observed(value / times, Precision::F16) {
                Err(Error::Config(reason)) if reason.contains("largest of f16") => {}
                other => return Err(format!("{value}: {other:?}").into()),
            }
        }
    }
    Ok(())
}

/// Values of f16 are numbers, or not, wherever they stand.
pub fn finds_beyond(device: &Device, len: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let found = |values: &[half::f16]| -> Result<bool, Failed> {
        let (values, flag) = (cuda.upload(values)?, cuda.upload(&[0u32])?);
        on_cuda::conv::beyond(cuda, flag.flag(), values.input())?;
        Ok(cuda.download(&flag)? == [1])
    };
    let numbers: Vec<half::f16> = (0..len).map(|i| [half::f16::MAX, half::f16::MIN][i % 2]).collect();
    super::equal("numbers", &found(&numbers)?, &false)?;
    for i in 0..len {
        for beyond in [half::f16::INFINITY, half::f16::NEG_INFINITY, half::f16::NAN] {
            let mut values = numbers.clone();
            values[i] = beyond;
            super::equal("what is no number", &found(&values)?, &true)?;
        }
    }
    Ok(())
}

/// A pass in bf16 uses the kernels for sm_90a where there are channels enough, and differs from f32 by rounding alone.
pub fn observes_on_sm90(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let net = zoo::create("cnn:32-40", Shape::new(6, 6, 2), 3, 1)?.network.freeze();
    let samples = nets::Random(11).samples(&net, 2);
    let noise = Noise { sigma: 0.1, replace: 1, seed: 3 };
    let observed = |precision| {
        let copies = perturb_request(&samples, &[0, 1], &net.ordinary, 9, noise)?;
        observe_copies(device, &net, &copies, precision)
    };
    let exact = observed(Precision::F32)?;
    let (found, launched) = cuda.listen(|| observed(Precision::Bf16))?;
    rounded(&found, &exact, Precision::Bf16)?;
    let used = launched.iter().any(|kernel| kernel.symbol == "conv_bf16_sm90");
    super::equal("whether kernels for sm_90a ran", &used, &cuda.is_sm90())
}

/// Which nodes' values are in memory in 16 bits, by the program as it is printed.
fn narrow(net: &Network, n: usize, precision: Precision) -> Result<Vec<bool>, Failed> {
    let text = Plan::perturbation(net, n, precision)?.text(net).join("\n");
    let marked = |i: usize| text.contains(&format!("y{i}:{}", precision.name()));
    Ok((0..net.nodes.len()).map(marked).collect())
}

/// Noisy copies observed in 16 bits, against f64: off by no more than twice what a plain pass in f64 is that rounds where
/// the program says, and by what f32 sums are off. What is far from the plain pass was rounded elsewhere, or read as
/// another type.
pub fn observes_lowered(
    device: &Device,
    net: &Network,
    n: usize,
    precision: Precision,
) -> Result<(), Failed> {
    let samples = nets::Random(11).samples(net, n);
    let copies = perturb(&samples, 1, &net.ordinary, n, Noise { sigma: 0.3, replace: 2, seed: 5 })?;
    let mut made = samples.clone();
    copies.fill(&mut made.x, made.y.words_mut(), 0..n)?;
    let found = twice(|| Ok(observe_copies(device, net, std::slice::from_ref(&copies), precision)?))?;
    let round = |x: f64| match precision {
        Precision::Bf16 => ptx::bf16(x as f32),
        Precision::F16 => ptx::f16(x as f32),
        Precision::F32 | Precision::Tf32 => x,
    };
    let observed = |round: &dyn Fn(f64) -> f64, narrow: &[bool]| {
        let rounding = oracle::Rounding { round, narrow };
        oracle::observe::<f64>(net, &made.x, made.y.words(), &rounding)
    };
    let (exact, rounded) =
        (observed(&|x| x, &vec![false; net.nodes.len()]), observed(&round, &narrow(net, n, precision)?));
    let losses = ("losses", &found.losses, &exact[0], &rounded[0]);
    for (what, found, exact, rounded) in [losses, ("activations", &found.activations, &exact[1], &rounded[1])]
    {
        let norm = |f: &dyn Fn(usize) -> f64| (0..exact.len()).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
        let off = norm(&|i| f64::from(found[i]) - rounded[i]);
        let (roundings, size) = (norm(&|i| rounded[i] - exact[i]), norm(&|i| exact[i]));
        let allowed = allowed_through(products_passed(net), 0.0, size) + roundings;
        if found.len() != exact.len() || off.is_nan() || off > allowed || roundings == 0.0 {
            let reason = format!("{what}: off by {off:e} of {size:e}, all roundings by {roundings:e}");
            return Err(reason.into());
        }
    }
    Ok(())
}

/// Fails unless activations and losses differ from those in f32, and by four roundings at most.
fn rounded(found: &Trace, exact: &Trace, precision: Precision) -> Result<(), Failed> {
    let unit = if precision == Precision::Bf16 { 2f64.powi(-8) } else { 2f64.powi(-11) };
    for (what, found, exact) in
        [("activations", &found.activations, &exact.activations), ("losses", &found.losses, &exact.losses)]
    {
        let norm = |f: &dyn Fn(usize) -> f64| (0..found.len()).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
        let (off, size) =
            (norm(&|i| f64::from(found[i]) - f64::from(exact[i])), norm(&|i| f64::from(exact[i])));
        if off.is_nan() || off > 4.0 * unit * size || off == 0.0 {
            return Err(format!("{what}: off by {off:e} of {size:e}").into());
        }
    }
    Ok(())
}

/// Some columns of rows of `d`.
fn columns_of<T: Copy>(values: &[T], d: usize, columns: Range<usize>) -> Vec<T> {
    values.chunks_exact(d).flat_map(|row| row[columns.clone()].to_vec()).collect()
}

/// Every layer's activations, the logits and the losses of a whole network.
pub fn observes(device: &Device, net: &Network, n: usize) -> Result<(), Failed> {
    let samples = nets::Random(11).samples(net, n);
    let found = observe(device, net, &samples)?;
    let exact = oracle::run::<f64>(
        net,
        &oracle::constants(net),
        &samples.x,
        samples.y.words(),
        &oracle::slope(net.loss),
    );
    let plain = oracle::run::<f32>(
        net,
        &oracle::constants(net),
        &samples.x,
        samples.y.words(),
        &oracle::slope(net.loss),
    );
    let depth = products_passed(net);
    for (i, layer) in net.layers.iter().enumerate() {
        let (d, columns) = (found.d, net.units().of_layer(LayerId(i as u32)));
        close_through(
            i + 1,
            &layer.name,
            &columns_of(&found.activations, d, columns.clone()),
            &columns_of(&exact.activations, d, columns.clone()),
            &columns_of(&plain.activations, d, columns),
        )?;
    }
    close_through(depth, "logits", &found.logits, &exact.logits, &plain.logits)?;
    close_through(depth, "losses", &found.losses, &exact.losses, &plain.losses)?;
    let before = cuda(device)?.counts();
    super::equal("a second run", &observe(device, net, &samples)?, &found)?;
    // It has what it needs, but for the images, their labels, and a zero.
    let (after, inputs) = (cuda(device)?.counts(), samples.x.len() + samples.y.words().len() + 1);
    super::equal("memory of a second run", &after.allocations, &before.allocations)?;
    super::equal("what a second run brings", &(after.uploaded - before.uploaded), &(4 * inputs))?;
    super::equal("the losses alone", &evaluate(device, net, &samples)?.losses, &found.losses)?;
    observes_copies(device, net, samples)
}

/// Perturbed copies of an image or a text, which the device makes itself.
fn observes_copies(device: &Device, net: &Network, samples: Samples) -> Result<(), Failed> {
    let (n, noise) = (samples.y.len(), Noise { sigma: 0.3, replace: 2, seed: 1 << 40 | 5 });
    let copies = perturb(&samples, 1, &net.ordinary, n, noise)?;
    let mut made = samples.clone();
    copies.fill(&mut made.x, made.y.words_mut(), 0..n)?;
    let before = cuda(device)?.counts().uploaded;
    let noisy = observe(device, net, &copies)?;
    let slots = samples.text(1).map_or(0, |text| text.slots().len());
    let (brought, inputs) =
        (cuda(device)?.counts().uploaded - before, net.input().len() + slots + n * net.label_width() + 1);
    super::equal("what copies bring", &brought, &(4 * inputs))?;
    super::equal("copies that the device makes", &noisy, &observe(device, net, &made)?)
}

/// Gradient, weighted gradient and products of a block of all units, or of every third, by layer; the second against the
/// CPU's.
pub fn derives(device: &Device, net: &Network, kind: Kind, all: bool, n: usize) -> Result<(), Failed> {
    let samples = nets::Random(11).samples(net, n);
    let units: Vec<UnitId> =
        (0..net.units().len() as u32).filter(|unit| all || unit % 3 == 1).map(UnitId).collect();
    let block = Block::of(net, &units)?;
    let mut random = nets::Random(5);
    let v: Vec<f32> = (0..block.len()).map(|_| random.next() as f32).collect();
    let weight = |i: usize, loss: f64| 1.0 + loss * i as f64;
    let weighted = |device: &Device| block.weighted_gradient(device, net, &samples, Some(&weight));
    let run = || -> Result<[Vec<f64>; 3], Failed> {
        let curvature = Curvature::new(device, net, &block, &samples, kind, 1 << 20)?;
        let mut hv = vec![0.0; block.len()];
        curvature.apply(&mut hv, &v)?;
        let cuda = cuda(device)?;
        let (before, mut again) = (cuda.counts().allocations, vec![0.0; block.len()]);
        curvature.apply(&mut again, &v)?;
        super::equal("memory of a second product", &cuda.counts().allocations, &before)?;
        super::equal("a second product", &again, &hv)?;
        // The same of a vector that is on the device, in f64, and not of length one.
        let wide: Vec<f64> = v.iter().map(|&v| f64::from(v) * 1e3).collect();
        let on_device = curvature.vector(&wide)?.ok_or("the curvature is not on the device")?;
        let mut out = on_device.zeros()?;
        for _ in 0..2 {
            let before = cuda.counts();
            curvature.apply_on(&mut out, &on_device)?;
            let after = cuda.counts();
            if before.uploaded != after.uploaded {
                return Err("a product brings something to the device".into());
            }
        }
        curvature.apply_wide(&mut again, &wide, &mut vec![0.0; wide.len()])?;
        super::equal("a product on the device", &out.values()?, &again)?;
        Ok([curvature.gradient().to_vec(), weighted(device)?, hv])
    };
    let ([gradient, found, hv], on_cpu) = (twice(run)?, weighted(&Device::cpu()?)?);
    let (exact, plain) = (slopes_of::<f64>(net, &block, &samples), slopes_of::<f32>(net, &block, &samples));
    let direction = oracle::to_params(net, &block, &v);
    let (exact_hv, plain_hv) = (
        product_of::<f64>(net, &block, &samples, &direction, kind),
        product_of::<f32>(net, &block, &samples, &direction, kind),
    );
    let depth = 2 * products_passed(net); // there and back
    for (i, layer) in net.layers.iter().enumerate() {
        let columns = net.units().of_layer(LayerId(i as u32));
        let of_layer = (0..units.len()).filter(|&u| columns.contains(&units[u].index()));
        let part =
            |v: &[f64]| -> Vec<f64> { of_layer.clone().flat_map(|u| v[block.range(u)].to_vec()).collect() };
        let close = |what: &str, found: &[f64], exact: &[f64], plain: &[f64]| {
            let plain: Vec<f32> = part(plain).into_iter().map(|v| v as f32).collect();
            close_through(depth, &format!("{what} of {}", layer.name), &part(found), &part(exact), &plain)
        };
        close("gradient", &gradient, &exact, &plain)?;
        close("Hv", &hv, &exact_hv, &plain_hv)?;
        near(&format!("weighted gradient of {}", layer.name), &part(&found), &part(&on_cpu))?;
    }
    Ok(())
}

/// The oracle's gradient of a block.
fn slopes_of<T: Number>(net: &Network, block: &Block, samples: &Samples) -> Vec<f64> {
    let run = oracle::run::<T>(
        net,
        &oracle::constants(net),
        &samples.x,
        samples.y.words(),
        &oracle::slope(net.loss),
    );
    oracle::of_block(net, block, &run.gradient)
}

/// The oracle's product of a block.
fn product_of<T: Number>(
    net: &Network,
    block: &Block,
    samples: &Samples,
    direction: &oracle::Params<f64>,
    kind: Kind,
) -> Vec<f64> {
    let matrix = match kind {
        Kind::Hessian => oracle::Matrix::Hessian,
        Kind::Ggn => oracle::Matrix::Ggn,
        Kind::Fisher => oracle::Matrix::Fisher,
    };
    oracle::of_block(net, block, &oracle::product::<T>(net, direction, &samples.x, samples.y.words(), matrix))
}

/// A damped Gauss-Newton step on every third unit, from the CPU's gradient, whose residual is taken by the CPU's products.
pub fn solves(device: &Device, net: &Network, n: usize) -> Result<(), Failed> {
    let samples = nets::Random(11).samples(net, n);
    let units: Vec<UnitId> = (0..net.units().len() as u32).step_by(3).map(UnitId).collect();
    let (block, cpu) = (Block::of(net, &units)?, Device::cpu()?);
    let on = |device| Curvature::new(device, net, &block, &samples, Kind::Ggn, 1 << 20);
    let (expected, found) = (on(&cpu)?, on(device)?);
    let g = expected.gradient().to_vec();
    let mut scratch = vec![0.0; g.len()];
    let mut product = |out: &mut Vec<f64>, v: &Vec<f64>| expected.apply_wide(out, v, &mut scratch);
    let damping = 0.3 * largest_eigenvalue(&mut product, &g, 10)?;
    let limits = Limits { tolerance: 1e-5, products: 40 };
    let right = found.vector(&g)?.ok_or("the curvature is not on the device")?;
    let step = twice(|| {
        let mut product = |out: &mut CudaVector, v: &CudaVector| found.apply_on(out, v);
        let solved = conjugate_gradient(&mut product, &right, None, None, damping, Negative::Refuse, limits)?;
        super::equal("whether it converged", &solved.1.converged, &true)?;
        Ok(solved.0.values()?)
    })?;
    let mut left = vec![0.0; g.len()];
    product(&mut left, &step)?;
    let left: Vec<f64> = left.iter().zip(&step).map(|(h, x)| h + damping * x).collect();
    let norm = |f: &dyn Fn(usize) -> f64| (0..g.len()).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
    let residual = norm(&|i| left[i] - g[i]) / norm(&|i| g[i]);
    match residual <= 2.0 * limits.tolerance {
        true => Ok(()),
        false => Err(format!("a residual of {residual:e} by the CPU's products").into()),
    }
}

/// K-FAC of a block of all units, or of every third: moments by layer and group, the largest eigenvalue, and what the
/// inverse makes of a vector, against the CPU's.
pub fn factors(device: &Device, net: &Network, all: bool, n: usize) -> Result<(), Failed> {
    let samples = nets::Random(11).samples(net, n);
    let units: Vec<UnitId> =
        (0..net.units().len() as u32).filter(|unit| all || unit % 3 == 1).map(UnitId).collect();
    let block = Block::of(net, &units)?;
    let mut random = nets::Random(5);
    let v: Vec<f64> = (0..block.len()).map(|_| random.next() * 1e-4).collect();
    let run = |device: &Device, damping: f64| -> Result<_, Failed> {
        let kfac = Kfac::new(device, net, &block, &samples, 1 << 33 | 9)?;
        let (largest, mut moved) = (kfac.largest_eigenvalue()?, vec![f64::NAN; v.len()]);
        let inverse = kfac.inverse(device, damping)?;
        inverse.apply(device, &mut moved, &v)?;
        if let Some(cuda) = device.cuda() {
            let on_device = CudaVector::new(cuda, &v)?;
            let mut out = on_device.zeros()?;
            inverse.apply_on(&mut out, &on_device)?;
            let before = cuda.counts();
            inverse.apply_on(&mut out, &on_device)?;
            super::equal("what a second product asks for", &cuda.counts().allocations, &before.allocations)?;
            super::equal("what a product brings", &cuda.counts().uploaded, &before.uploaded)?;
            super::equal("a product on the device", &out.values()?, &moved)?;
        }
        let moments: Vec<Vec<f64>> = kfac.moments().flatten().map(<[f64]>::to_vec).collect();
        Ok((moments, largest, moved))
    };
    let damping =
        0.05 * Kfac::new(&Device::cpu()?, net, &block, &samples, 1 << 33 | 9)?.largest_eigenvalue()?;
    let (found, expected) = (twice(|| run(device, damping))?, run(&Device::cpu()?, damping)?);
    super::equal("parts", &found.0.len(), &expected.0.len())?;
    for (at, (found, expected)) in found.0.iter().zip(&expected.0).enumerate() {
        near(&format!("{} of part {}", ["A", "G"][at % 2], at / 2), found, expected)?;
    }
    near("the largest eigenvalue", &[found.1], &[expected.1])?;
    near("the inverse's product", &found.2, &expected.2)
}

/// A whole removal of texts, against the CPU's.
pub fn scrubs_texts(device: &Device) -> Result<(), Failed> {
    let text = InputKind::Text { tokens: 7 };
    let net = zoo::create("distilbert:24-8-1-2-9", text, 3, 3)?.network.freeze();
    let (samples, block) = (nets::Random(11).samples(&net, 24), Block::all(&net)?);
    let chosen = Criteria { perturbations: Some(40), max_units: Some(4), replace: 2, ..Default::default() };
    let settings = Settings {
        selection: chosen,
        damping: Some(0.1),
        limits: Limits { tolerance: 1e-6, products: 60 },
        rule: Rule::Cr, // a step that is long enough to be measured
        calibration: Calibration::One,
        gate: 1.0,
        target: Target::Loss(3.0),
        ..Default::default()
    };
    let run = |device: &Device| -> scrubjay::Result<Scrubbed> {
        let task = Task::new(device, &samples, (8..24).collect(), settings.clone());
        let mut moved = net.clone();
        let record = unlearn(&task, &mut moved, 0, &Vec::from_iter(0..8), &[])?;
        Ok((record.units, block.values(&moved)))
    };
    let (found, expected) = (twice(|| Ok(run(device)?))?, run(&Device::cpu()?)?);
    super::equal("units", &found.0, &expected.0)?;
    near("values", &found.1, &expected.1)?;
    match found.1 == block.values(&net) {
        true => Err("nothing was removed".into()),
        false => Ok(()),
    }
}

/// The chosen units, and the values of all afterwards.
type Scrubbed = (Vec<(String, usize)>, Vec<f32>);

/// A whole removal: units and step, against the CPU's, by conjugate gradient, preconditioned or not, and by K-FAC.
pub fn scrubs(device: &Device) -> Result<(), Failed> {
    let net = zoo::create("mlp:8", Shape::new(1, 1, 5), 3, 3)?.network.freeze();
    let samples = nets::Random(11).samples(&net, 40);
    let block = Block::all(&net)?;
    let run = |device: &Device, net: &Network, settings: &Settings| -> scrubjay::Result<Scrubbed> {
        let task = Task {
            train_on: (12..40).collect(),
            held_out: (30..40).collect(),
            ..Task::new(device, &samples, (12..30).collect(), settings.clone())
        };
        let mut moved = net.clone();
        let record = unlearn(&task, &mut moved, 0, &Vec::from_iter(0..12), &[])?;
        Ok((record.units, block.values(&moved)))
    };
    let chosen = Criteria { perturbations: Some(60), max_units: Some(3), ..Default::default() };
    // A solve that is well damped and goes on to its end: one that stops early is as far from another as its tolerance.
    let settings = Settings {
        selection: chosen,
        damping: Some(0.1),
        limits: Limits { tolerance: 1e-6, products: 60 },
        calibration: Calibration::One,
        gate: 1.0,
        ..Default::default()
    };
    let (found, expected) =
        (twice(|| Ok(run(device, &net, &settings)?))?, run(&Device::cpu()?, &net, &settings)?);
    super::equal("units", &found.0, &expected.0)?;
    near("values", &found.1, &expected.1)?;
    if found.0.is_empty() || found.1 == block.values(&net) {
        return Err("nothing was removed".into());
    }
    let first = Criteria { method: Method::Foci, ..chosen };
    let calibrated = Settings {
        selection: first,
        calibration: Calibration::Calibrated,
        target: Target::Loss(3.0),
        ..settings.clone()
    };
    let (found, expected) = (run(device, &net, &calibrated)?, run(&Device::cpu()?, &net, &calibrated)?);
    super::equal("units of FOCI", &found.0, &expected.0)?;
    near("calibrated values", &found.1, &expected.1)?;
    if found.1 == block.values(&net) {
        return Err("nothing was removed by a calibrated step".into());
    }
    for settings in [
        Settings { curvature: Some(Approximation::Kfac), ..settings.clone() },
        Settings { precondition: true, ..settings.clone() },
    ] {
        let (found, expected) = (run(device, &net, &settings)?, run(&Device::cpu()?, &net, &settings)?);
        super::equal("units by K-FAC", &found.0, &expected.0)?;
        near("values by K-FAC", &found.1, &expected.1)?;
        if found.1 == block.values(&net) {
            return Err("nothing was removed by K-FAC".into());
        }
    }
    Ok(())
}
