//! Training on CUDA: batch norm and whole gradients as closely as plain loops in f32 give them, optimizers with the
//! CPU's bits, and steps that allocate nothing and bring nothing but the batch.

use libtest_mimic::Failed;

use scrubjay::data::Samples;
use scrubjay::device::Device;
use scrubjay::net::{Network, TrainPass};
use scrubjay::ops::Shape;
use scrubjay::ops::Strided;
use scrubjay::ops::cpu::optimizer::update;
use scrubjay::ops::cuda::{batch_norm, loss, optimizer, shape};
use scrubjay::ops::optimizer::{Memory, Optimizer, Update};
use scrubjay::ops::philox::{Stream, Use};
use scrubjay::zoo;

use super::checks::{adds, allowed_through, close, plus, products_passed, same_bits, values, wide, writes};
use super::dual::Number;
use super::{Case, all_equal, cuda, equal, few, large, nets, oracle, twice};
use super::{batch_norm as reference, optimizer as steps};

/// Every case, with its name.
pub fn cases() -> Vec<(String, Case)> {
    let mut cases: Vec<(String, Case)> = vec![];
    // beyond a warp's channels; beyond a block's positions, and a chunk's
    for (n, c) in
        [(1, 1), (2, 31), (31, 3), (63, 32), (65, 33), (129, 40), (257, 2), (1000, 5), (300, 64), (9000, 16)]
    {
        if large() || n < 300 {
            cases.push((format!("batch_norm/n={n},c={c}"), Box::new(move |d| batch_norms(d, n, c))));
        }
    }
    for kind in [Optimizer::Sgd, Optimizer::Adam] {
        for len in if few() { vec![33] } else { vec![1, 31, 255, 256, 257, 1000] } {
            let name = format!("optimizer/{kind:?},len={len}").to_lowercase();
            cases.push((name, Box::new(move |d| moves(d, kind, len))));
        }
    }
    for (n, len, stride) in [(1, 1, 1), (3, 31, 33), (33, 7, 7), (5, 300, 512)] {
        let name = format!("sum_rows/n={n},len={len},stride={stride}");
        cases.push((name, Box::new(move |d| sums_rows(d, n, len, stride))));
    }
    for n in [1, 31, 32, 33, 300] {
        cases.push((format!("score/n={n}"), Box::new(move |d| scores(d, n))));
    }
    // the thread sanitizer does not see how Rust's threads wait for each other
    for case in nets::CASES.into_iter().filter(|_| !few()) {
        let gradients = move |d: &Device| derives(d, &case.network(7)?, 7);
        cases.push((format!("train_gradient/{}", case.name), Box::new(gradients)));
        for kind in [Optimizer::Sgd, Optimizer::Adam] {
            let name = format!("train/{},{kind:?}", case.name).to_lowercase();
            cases.push((name, Box::new(move |d| trains(d, &case.network(7)?, kind, 5))));
        }
    }
    if large() {
        let trained = move |d: &Device| {
            let made = zoo::create("resnet20", Shape::new(8, 8, 3), 4, 3)?;
            trains(d, &made.network, Optimizer::Sgd, 2)
        };
        cases.push(("train/resnet20".into(), Box::new(trained)));
    }
    cases.push(("training/shapes".into(), Box::new(refuses)));
    cases
}

fn batch_norms(device: &Device, n: usize, c: usize) -> Result<(), Failed> {
    let (cuda, len, eps) = (cuda(device)?, n * c, 1e-5);
    let [x, dy, start] = [1, 2, 3].map(|seed| values(len, seed));
    let [gamma, beta, running] = [4, 5, 6].map(|seed| values(c, seed));
    let [on_x, on_dy, on_gamma, on_beta] =
        [cuda.upload(&x)?, cuda.upload(&dy)?, cuda.upload(&gamma)?, cuda.upload(&beta)?];
    let parts = || cuda.alloc::<f64>(batch_norm::parts(n, c));
    let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<u64>>();
    let found = twice(|| {
        let mut out = cuda.alloc(2 * c)?;
        batch_norm::moments(cuda, out.output(), parts()?.output(), on_x.input(), c)?;
        Ok(bits(cuda.download(&out)?))
    })?;
    let moments: Vec<f64> = found.into_iter().map(f64::from_bits).collect();
    for i in 0..c {
        let of_channel = reference::channel(&wide::<f64>(&x), c, i);
        let (mean, var) = reference::moments(&of_channel);
        // Sums of n values in f64, of which none is larger than 2 (and so no square of a difference than 16).
        let allowed = 16.0 * n as f64 * f64::EPSILON;
        let off = (moments[i] - mean).abs().max((moments[c + i] - var).abs());
        if off.is_nan() || off > allowed {
            return Err(format!("moments of channel {i}: off by {off:e}, allowed {allowed:e}").into());
        }
    }
    let on_moments = cuda.upload(&moments)?;
    let on_moments = on_moments.input();
    let y = writes(cuda, len, |y| {
        let (gamma, beta) = (on_gamma.input(), on_beta.input());
        batch_norm::forward(cuda, y, on_x.input(), on_moments, gamma, beta, eps)
    })?;
    // The bits of a plain loop on these moments.
    let scale = |i: usize| (f64::from(gamma[i]) / (moments[c + i] + f64::from(eps)).sqrt()) as f32;
    let plain = (0..len).map(|at| (x[at] - moments[at % c] as f32) * scale(at % c) + beta[at % c]);
    same_bits("y", &y, &plain.collect::<Vec<f32>>())?;
    let exact = reference::forward::<f64>(&wide(&x), &wide(&gamma), &wide(&beta), eps);
    close("y", &y, &exact, &reference::forward(&x, &gamma, &beta, eps))?;

    let found = twice(|| {
        let mut out = cuda.alloc(2 * c)?;
        let (dy, x) = (on_dy.input(), on_x.input());
        batch_norm::sums(cuda, out.output(), parts()?.output(), dy, x, on_moments, eps)?;
        Ok(bits(cuda.download(&out)?))
    })?;
    let sums: Vec<f64> = found.into_iter().map(f64::from_bits).collect();
    let narrow: Vec<f32> = sums.iter().map(|&sum| sum as f32).collect();
    let exact = reference::sums::<f64>(&wide(&dy), &wide(&x), c, eps);
    close("Σ dy, Σ dy x̂", &narrow, &exact, &reference::sums(&dy, &x, c, eps))?;
    let on_sums = cuda.upload(&sums)?;
    let dx = adds(cuda, &start, |dx| {
        let (dy, x, gamma) = (on_dy.input(), on_x.input(), on_gamma.input());
        batch_norm::backward(cuda, dx, dy, x, on_moments, on_sums.input(), gamma, eps)
    })?;
    let exact = reference::backward::<f64>(&wide(&dy), &wide(&x), &wide(&gamma), eps);
    let plain = plus(&start, &reference::backward(&dy, &x, &gamma, eps));
    close("dx", &dx, &plus(&wide(&start), &exact), &plain)?;

    let gradient = adds(cuda, &beta, |out| batch_norm::add_gradient(cuda, out, on_sums.input().part(0..c)))?;
    same_bits("dβ", &gradient, &plus(&beta, &narrow[..c]))?;
    let factor = n as f64 / (n as f64 - 1.0).max(1.0);
    let moved = adds(cuda, &running, |out| {
        batch_norm::move_running(cuda, out, on_moments.part(c..2 * c), factor, 0.1)
    })?;
    let target = |i: usize| (moments[c + i] * factor) as f32;
    let expected = (0..c).map(|i| running[i] + 0.1 * (target(i) - running[i]));
    same_bits("running variance", &moved, &expected.collect::<Vec<f32>>())
}

/// Three steps of an optimizer: the CPU's bits, which are a plain loop's.
fn moves(device: &Device, kind: Optimizer, len: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let mut stream = Stream::new(9, Use::Choice, len as u32);
    let mut normal = |scale: f32| (0..len).map(|_| scale * stream.normal()).collect::<Vec<f32>>();
    let (start, sums) = (normal(0.3), [normal(5.0), normal(1e-4), normal(40.0)]);
    let (factor, momentum, decay) = (1.0 / 7.0, 0.9, 5e-4);
    let step = |number: i32| Update { rate: 0.05 / number as f32, momentum, decay, step: number };
    let found = twice(|| {
        let mut w = cuda.upload(&start)?;
        let mut memory = Memory::new(kind, || cuda.upload(&vec![0.0; len]))?;
        for (number, sums) in (1..).zip(&sums) {
            let (step, sums) = (step(number), cuda.upload(sums)?);
            let now = cuda.upload(&optimizer::now(factor, &step))?;
            optimizer::update(cuda, w.output(), &mut memory, sums.input(), now.input(), &step)?;
        }
        Ok(cuda.download(&w)?.into_iter().map(f32::to_bits).collect::<Vec<_>>())
    })?;
    let (mut w, mut plain) = (start.clone(), start);
    let mut memory = Memory::new(kind, || Ok(vec![0.0; len]))?;
    let (mut first, mut second) = (vec![0.0; len], vec![0.0; len]);
    for (number, sums) in (1..).zip(&sums) {
        let (step, gradient) = (step(number), sums.iter().map(|sum| sum * factor).collect::<Vec<_>>());
        update(&mut w, &mut memory, &gradient, &step);
        let step = steps::Step { rate: step.rate, momentum, decay, number };
        match kind {
            Optimizer::Sgd => steps::sgd(&mut plain, &mut first, &gradient, &step),
            Optimizer::Adam => steps::adam(&mut plain, &mut first, &mut second, &gradient, &step),
        }
    }
    same_bits("the CPU's", &w, &plain)?;
    same_bits("w", &found.into_iter().map(f32::from_bits).collect::<Vec<_>>(), &w)
}

fn sums_rows(device: &Device, n: usize, len: usize, stride: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (x, start) = (values(2 + (n - 1) * stride + len, 1), values(len, 2));
    let on_x = cuda.upload(&x)?;
    let found =
        adds(cuda, &start, |y| shape::add_sum(cuda, y, on_x.input(), n, Strided { first: 2, stride }))?;
    let sum = |i: usize| (0..n).map(|row| f64::from(x[2 + row * stride + i])).sum::<f64>() as f32;
    same_bits("y", &found, &(0..len).map(|i| start[i] + sum(i)).collect::<Vec<_>>())
}

fn scores(device: &Device, n: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    // Whole numbers, whose sums are exact.
    let losses: Vec<f32> = (0..n).map(|i| (i * 7 % 31) as f32).collect();
    let (predicted, labels): (Vec<u32>, Vec<u32>) =
        (0..n as u32).map(|i| (i % 5, i * 3 % 5 + i / 7 % 2)).unzip();
    let on = [cuda.upload(&predicted)?, cuda.upload(&labels)?];
    let on_losses = cuda.upload(&losses)?;
    let found = twice(|| {
        let mut out = cuda.alloc(2)?;
        loss::score(cuda, out.output(), on_losses.input(), on[0].input(), on[1].input())?;
        Ok(cuda.download(&out)?)
    })?;
    let right = predicted.iter().zip(&labels).filter(|(a, b)| a == b).count();
    all_equal("scores", &found, &[losses.iter().map(|&l| f64::from(l)).sum(), right as f64])
}

fn size(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Loss, gradient and running statistics of one step. The gradient of each parameter against exact slopes along random
/// directions, as closely as a plain loop in f32 gives those; the rest against the CPU's.
fn derives(device: &Device, net: &Network, n: usize) -> Result<(), Failed> {
    const DIRECTIONS: usize = 3;
    let samples = nets::Random(11).samples(net, n);
    let run = |device: &Device| -> Result<_, Failed> {
        let mut moved = net.clone();
        let mut pass = TrainPass::new(device, &mut moved, n, Optimizer::Sgd)?;
        let step = pass.step(&samples)?;
        let gradients = pass.gradients()?;
        Ok((step, gradients, pass.network()?.clone()))
    };
    let (step, gradients, moved) = twice(|| run(device))?;
    let (expected, _, expected_moved) = run(&Device::cpu()?)?;
    equal("how many are right", &step.correct, &expected.correct)?;
    // Sums in f64, on both sides, of values that differ by roundings in f32, of which each pass has a few.
    close_to("the loss", &[step.loss as f32], &[expected.loss as f32], 1e-6)?;
    for ((param, expected), before) in moved.params.iter().zip(&expected_moved.params).zip(&net.params) {
        match param.trained {
            true => equal(&param.name, &param.value, &before.value)?,
            false => close_to(&param.name, &param.value, &expected.value, 1e-6)?,
        }
    }
    let mut random = nets::Random(0x7a1e);
    let whole = size(&gradients.iter().flat_map(|g| wide::<f64>(g)).collect::<Vec<_>>());
    for (i, param) in net.params.iter().enumerate().filter(|(_, param)| param.trained) {
        let (mut found, mut exact, mut plain, mut longest) = (vec![], vec![], vec![], 0.0f64);
        for _ in 0..DIRECTIONS {
            let mut direction: oracle::Params<f64> =
                net.params.iter().map(|p| vec![0.0; p.value.len()]).collect();
            direction[i].iter_mut().for_each(|d| *d = random.next());
            found.push(gradients[i].iter().zip(&direction[i]).map(|(&g, d)| f64::from(g) * d).sum::<f64>());
            exact.push(oracle::batch_slope::<f64>(net, &direction, &samples.x, samples.y.words()));
            plain.push(oracle::batch_slope::<f32>(net, &direction, &samples.x, samples.y.words()).value());
            longest = longest.max(size(&direction[i]));
        }
        let differences = |a: &[f64]| a.iter().zip(&exact).map(|(a, b)| a - b).collect::<Vec<_>>();
        // A bias before a norm that takes it off again has no gradient but rounding.
        let allowed = match size(&exact) < 1e-9 * whole {
            true => 16.0 * f64::from(f32::EPSILON) * whole * longest,
            false => allowed_through(2 * products_passed(net), size(&differences(&plain)), size(&exact)), // there and back
        };
        let off = size(&differences(&found));
        if off.is_nan() || off > allowed {
            let what = &param.name;
            return Err(format!("gradient of {what}: off by {off:e}, allowed {allowed:e}").into());
        }
    }
    Ok(())
}

/// Fails unless ‖found − expected‖ ≤ part · ‖expected‖.
fn close_to(what: &str, found: &[f32], expected: &[f32], part: f64) -> Result<(), Failed> {
    let off =
        size(&found.iter().zip(expected).map(|(&a, &b)| f64::from(a) - f64::from(b)).collect::<Vec<_>>());
    let allowed = part * size(&wide::<f64>(expected));
    if off <= allowed { Ok(()) } else { Err(format!("{what}: off by {off:e}, allowed {allowed:e}").into()) }
}

/// Steps on whole batches and smaller ones: the same bits again, the CPU's weights but for what roundings make of them,
/// and nothing that is allocated or brought but the batch and four numbers.
fn trains(device: &Device, net: &Network, kind: Optimizer, steps: usize) -> Result<(), Failed> {
    let samples = nets::Random(11).samples(net, 16);
    let batches: [&[usize]; 5] = [
        &[0, 1, 2, 3, 4, 5, 6],
        &[7, 8, 9, 10, 11],
        &[12, 13, 14, 15, 0, 1, 2],
        &[3, 9, 6, 12, 1],
        &[5, 15, 8, 10, 11, 2, 14],
    ];
    let rate = if kind == Optimizer::Adam { 1e-3 } else { 0.02 };
    let run = |device: &Device| -> Result<Network, Failed> {
        let mut moved = net.clone();
        let mut pass = TrainPass::new(device, &mut moved, 7, kind)?;
        for (number, batch) in (1..).zip(&batches[..steps]) {
            let before = device.cuda().map(|cuda| cuda.counts());
            pass.step(&samples.subset(batch))?;
            pass.update(&Update { rate: rate / number as f32, momentum: 0.9, decay: 1e-3, step: number })?;
            if let (Some(before), Some(cuda), true) = (before, device.cuda(), number > 1) {
                let (after, image) = (cuda.counts(), net.input().len() + net.label_width());
                equal("memory of a later step", &after.allocations, &before.allocations)?;
                equal(
                    "what it brings",
                    &(after.uploaded - before.uploaded),
                    &(4 * (batch.len() * image + 4)),
                )?;
            }
        }
        Ok(pass.network()?.clone())
    };
    let first = silent(net, &samples, batches[0])?;
    let (found, expected) = (twice(|| run(device))?, run(&Device::cpu()?)?);
    for (i, param) in found.params.iter().enumerate().filter(|(i, _)| !first.contains(i)) {
        let moved = |of: &Network| -> Vec<f32> {
            of.params[i].value.iter().zip(net.params[i].value.iter()).map(|(a, b)| a - b).collect()
        };
        // A pass is the CPU's to 1e-5, as `near` has it, and there are five at most.
        close_to(&format!("the way of {}", param.name), &moved(&found), &moved(&expected), 5e-5)?;
    }
    Ok(())
}

/// Parameters whose gradient is nothing but rounding.
fn silent(net: &Network, samples: &Samples, batch: &[usize]) -> Result<Vec<usize>, Failed> {
    let (mut moved, device) = (net.clone(), Device::cpu()?);
    let mut pass = TrainPass::new(&device, &mut moved, batch.len(), Optimizer::Sgd)?;
    pass.step(&samples.subset(batch))?;
    let sizes: Vec<f64> = pass.gradients()?.iter().map(|g| size(&wide::<f64>(g))).collect();
    let small = 1e-6 * size(&sizes);
    Ok((0..sizes.len()).filter(|&i| net.params[i].trained && sizes[i] < small).collect())
}

fn refuses(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (six, two, wide) =
        (cuda.upload(&[0.0f32; 6])?, cuda.upload(&[0.0f32; 2])?, cuda.upload(&[0.0f64; 4])?);
    let (mut y, mut out, labels) = (cuda.alloc(6)?, cuda.alloc(4)?, cuda.upload(&[0u32; 2])?);
    let mut parts = cuda.alloc(batch_norm::parts(3, 2))?;
    let mut memory = Memory::new(Optimizer::Sgd, || cuda.upload(&[0.0f32; 2]))?;
    let step = Update { rate: 0.1, momentum: 0.9, decay: 0.0, step: 1 };
    let (x, c2, m) = (six.input(), two.input(), wide.input());
    let taken = [
        batch_norm::moments(cuda, out.output(), parts.output(), x, 4).is_ok(),
        batch_norm::moments(cuda, out.output().split_at(3).0, parts.output(), x, 2).is_ok(),
        batch_norm::moments(cuda, out.output(), parts.output().split_at(1).0, x, 2).is_ok(),
        batch_norm::forward(cuda, y.output(), x, m.part(0..2), c2, c2, 1e-5).is_ok(),
        batch_norm::forward(cuda, y.output(), x, m, c2, x, 1e-5).is_ok(),
        batch_norm::sums(cuda, out.output(), parts.output(), c2, x, m, 1e-5).is_ok(),
        batch_norm::backward(cuda, y.output(), x, c2, m, m, c2, 1e-5).is_ok(),
        batch_norm::add_gradient(cuda, y.output(), m).is_ok(),
        batch_norm::move_running(cuda, y.output(), m, 1.0, 0.1).is_ok(),
        optimizer::update(cuda, y.output(), &mut memory, x, x.part(0..4), &step).is_ok(),
        optimizer::update(cuda, y.output().split_at(2).0, &mut memory, x, x.part(0..4), &step).is_ok(),
        optimizer::update(cuda, y.output().split_at(2).0, &mut memory, c2, c2, &step).is_ok(),
        shape::add_sum(cuda, y.output(), x, 2, Strided { first: 0, stride: 1 }).is_ok(),
        loss::score(cuda, out.output(), c2, labels.input(), labels.input()).is_ok(),
        loss::score(cuda, out.output().split_at(2).0, x, labels.input(), labels.input()).is_ok(),
    ];
    match taken.iter().position(|&taken| taken) {
        Some(at) => Err(format!("case {at} was taken").into()),
        None => Ok(()),
    }
}
