//! Tests of training.

use super::super::everything::{Any, everything};
use super::super::plan::side_by_side;
use super::*;
use crate::data::Samples;
use crate::net::{Builder, Conv, Shape};
use crate::ops::philox::{Stream, Use};
use crate::zoo;

const CLASSES: usize = 4;

fn samples(n: usize, seed: u32) -> Samples {
    let mut stream = Stream::new(seed.into(), Use::Choice, 1);
    let shape = Shape::new(6, 6, 2);
    let x = (0..n * shape.len()).map(|_| stream.normal()).collect();
    let y: Vec<u32> = (0..n).map(|_| stream.below(CLASSES) as u32).collect();
    Samples { kind: shape.into(), x, y: y.into(), stream: None }
}

fn devices() -> [Device; 2] {
    [Device::cpu().unwrap(), Device::emulated(1).unwrap()]
}

fn length(of: &[Vec<f32>]) -> f64 {
    of.iter().flatten().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn a_tilt_towards_other_labels_gives_their_gradient() {
    let (n, own) = (9, samples(9, 1));
    let other = Samples { y: samples(9, 2).y, ..own.clone() };
    for device in devices() {
        let gradients = |batch: &Samples, tilt: Option<Tilt>| {
            let mut net = zoo::create("cnn:4+8", own.kind, CLASSES, 1).unwrap().network;
            let mut pass = TrainPass::new(&device, &mut net, n, Optimizer::Sgd).unwrap();
            // Twice: what is launched a second time is replayed.
            for _ in 0..2 {
                match tilt {
                    Some(tilt) => pass.tilted_step(batch, tilt).unwrap(),
                    None => pass.step(batch).unwrap(),
                };
            }
            pass.gradients().unwrap()
        };
        let mut offsets = vec![0.0; n * CLASSES];
        for (i, row) in offsets.chunks_exact_mut(CLASSES).enumerate() {
            row[own.y.words()[i] as usize] += 2.0;
            row[other.y.words()[i] as usize] -= 2.0;
        }
        let found = gradients(&own, Some(Tilt { factors: &[2.0; 9], offsets: &offsets }));
        let expected = gradients(&other, None);
        let off: Vec<Vec<f32>> = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| 0.5 * a - b).collect())
            .collect();
        // Both round as often; a few roundings of f32 each.
        assert!(length(&off) < 1e-6 * length(&expected), "{} of {}", length(&off), length(&expected));
        let mut net = zoo::create("cnn:4+8", own.kind, CLASSES, 1).unwrap().network;
        let mut pass = TrainPass::new(&device, &mut net, n, Optimizer::Sgd).unwrap();
        let short = Tilt { factors: &[1.0; 9], offsets: &offsets[1..] };
        assert!(matches!(pass.tilted_step(&own, short), Err(Error::Shape { .. })));
    }
}

#[test]
fn gradients_are_shortened_together_and_only_where_they_are_longer() {
    let batch = samples(7, 3);
    for device in devices() {
        let mut net = zoo::create("cnn:4+8", batch.kind, CLASSES, 1).unwrap().network;
        let start = net.clone();
        let mut pass = TrainPass::new(&device, &mut net, 7, Optimizer::Sgd).unwrap();
        pass.step(&batch).unwrap();
        let whole = pass.gradients().unwrap();
        let norm = pass.clip(1e6).unwrap();
        assert!((norm - length(&whole)).abs() < 1e-6 * norm, "{norm} {}", length(&whole));
        assert_eq!(pass.gradients().unwrap(), whole);
        pass.clip(0.25 * norm).unwrap();
        let quarter = pass.gradients().unwrap();
        for (a, b) in quarter.iter().flatten().zip(whole.iter().flatten()) {
            assert!((a - 0.25 * b).abs() <= 1e-6 * b.abs(), "{a} {b}");
        }
        pass.update(&Update { rate: 1.0, momentum: 0.0, decay: 0.0, step: 1 }).unwrap();
        let moved = pass.network().unwrap().clone();
        let way = |i: usize| -> Vec<f32> {
            let pairs = start.params[i].value.iter().zip(moved.params[i].value.iter());
            pairs.map(|(before, after)| before - after).collect()
        };
        let ways: Vec<Vec<f32>> =
            (0..start.params.len()).filter(|&i| start.params[i].trained).map(way).collect();
        assert!((length(&ways) - 0.25 * norm).abs() < 1e-5 * norm);
        // The next step is as long as it is.
        pass.step(&batch).unwrap();
        assert!(pass.clip(1e6).unwrap() > 0.3 * norm);
    }
}

#[test]
fn training_goes_on_from_what_was_kept_to_the_same_bits() {
    for device in devices() {
        for optimizer in [Optimizer::Sgd, Optimizer::Adam] {
            let steps = |pass: &mut TrainPass, range: Range<u32>| {
                for step in range {
                    pass.step(&samples(7, step)).unwrap();
                    let step = step as i32 + 1;
                    pass.update(&Update { rate: 0.1, momentum: 0.9, decay: 1e-3, step }).unwrap();
                }
            };
            let mut net = zoo::create("cnn:4+8", samples(1, 1).kind, CLASSES, 1).unwrap().network;
            let mut pass = TrainPass::new(&device, &mut net, 7, optimizer).unwrap();
            steps(&mut pass, 0..2);
            let (mut kept, memory) = (pass.network().unwrap().clone(), pass.state().unwrap().memory.concat());
            steps(&mut pass, 2..4);
            let expected = pass.network().unwrap().clone();
            let mut again = TrainPass::new(&device, &mut kept, 7, optimizer).unwrap();
            assert!(again.remember(&memory[1..]).is_err());
            again.remember(&memory).unwrap();
            steps(&mut again, 2..4);
            assert!(*again.network().unwrap() == expected, "{optimizer:?}");
        }
    }
}

#[test]
fn fewer_chunks_at_a_time_give_the_same_bits() {
    let (n, shape) = (37, Shape::new(4, 4, 2));
    let mut stream = Stream::new(3, Use::Choice, 1);
    let x = (0..n * shape.len()).map(|_| stream.normal()).collect();
    let y: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
    let samples = Samples { kind: shape.into(), x, y: y.into(), stream: None };
    let device = Device::cpu().unwrap();
    let (factors, offsets) = (vec![0.5; n], (0..3 * n).map(|i| 0.01 * i as f32).collect::<Vec<_>>());
    let run = |at_once: Option<usize>| {
        let mut net = zoo::create("vit:8-1-2-2", shape, 3, 1).unwrap().network;
        let mut pass = TrainPass::new(&device, &mut net, n, Optimizer::Sgd).unwrap();
        let Place::Host(host) = &mut pass.place else { panic!() };
        assert!(host.chunks.len() > 4);
        host.chunks.truncate(at_once.unwrap_or(usize::MAX));
        let steps = [
            pass.step(&samples).unwrap(),
            pass.tilted_step(&samples, Tilt { factors: &factors, offsets: &offsets }).unwrap(),
        ];
        (steps, pass.gradients().unwrap())
    };
    let all = run(None);
    assert!(all.1.iter().flatten().any(|&g| g != 0.0));
    for at_once in [1, 3] {
        assert!(run(Some(at_once)) == all, "{at_once}");
    }
}

#[test]
fn large_chunks_run_one_a_thread_as_memory_allows_but_with_a_batch_norm_all() {
    let gib = 1 << 30;
    assert_eq!(side_by_side(16, gib / 16, 2, Some(1)), 16);
    assert_eq!(side_by_side(16, gib / 8, 4, None), 4);
    assert_eq!([1, 5, 60].map(|free| side_by_side(16, gib, 8, Some(free * gib))), [1, 2, 8]);
    assert_eq!(side_by_side(3, gib, 8, Some(60 * gib)), 3);
    let room = |spec: &str, ranks, free: Option<usize>| {
        let net = zoo::create(spec, Shape::new(32, 32, 3), 3, 1).unwrap().network;
        let (plan, room) = Plan::training_by(&net, 640, 2, ranks, free).unwrap();
        (plan.chunk, room)
    };
    let all = |again| Room { chunks: 16, gradients: 16, again };
    assert_eq!(room("mlp:9", 1, None), (40, all(false)));
    assert_eq!(room("resnet18:1", 1, None), (40, all(false)));
    let large = [Some(64 * gib), Some(gib), None].map(|free| room("resnet18:32", 1, free).1);
    let few = |again| Room { chunks: 20, gradients: 2, again };
    assert_eq!(large, [few(false), few(true), few(false)]);
    assert_eq!(room("resnet18:32", 2, Some(gib)).1, Room { chunks: 10, gradients: 10, again: true });
}

/// A network whose convolution is used three times and whose batch norm twice, each in parts of their own.
fn shared() -> Network {
    let mut any = Any(Stream::new(1, Use::Weights, 0));
    let (mut b, x) = Builder::new(&mut any, Shape::new(6, 6, 2));
    let conv = Conv::square(3, 1, 1);
    let mut x = b.conv(x, "stem", 4, conv).unwrap();
    for _ in 0..2 {
        let y = b.conv(x, "shared", 4, conv).unwrap();
        let y = b.batch_norm(y, "norm").unwrap();
        let y = b.relu(y);
        x = b.add(x, y).unwrap();
    }
    let x = b.conv(x, "shared", 4, conv).unwrap();
    let x = b.global_pool(x);
    let x = b.linear(x, "head", 3).unwrap();
    b.finish(x).unwrap()
}

#[test]
fn fewer_gradients_and_values_that_are_computed_again_give_the_same_bits() {
    let device = Device::cpu().unwrap();
    for net in [shared(), everything().unwrap()] {
        let (n, kind, classes) = (37, net.input(), net.classes());
        let mut stream = Stream::new(3, Use::Choice, 1);
        let mut batch = |n: usize| {
            let x = (0..n * kind.len()).map(|_| stream.normal()).collect();
            let y: Vec<u32> = (0..n).map(|i| (i % classes) as u32).collect();
            Samples { kind: kind.into(), x, y: y.into(), stream: None }
        };
        let batches = [batch(n), batch(n), batch(8)];
        let (factors, offsets) =
            (vec![0.5; n], (0..classes * n).map(|i| 0.01 * i as f32).collect::<Vec<_>>());
        let run = |gradients: usize, again: bool| {
            let mut net = net.clone();
            let mut plan = Plan::training(&net, n).unwrap();
            let (chunks, kept) = (n.div_ceil(plan.chunk), plan.bytes());
            if again {
                plan.program = plan.program.again().unwrap();
                assert!(plan.bytes() < kept);
            }
            let room = Room { chunks, gradients: gradients.min(chunks), again };
            let host = Host::with(&net, plan, room, Optimizer::Sgd).unwrap();
            assert_eq!(host.few.is_some(), gradients < chunks);
            let mut pass = TrainPass::new(&device, &mut net, n, Optimizer::Sgd).unwrap();
            pass.place = Place::Host(Box::new(host));
            let mut found = vec![];
            for batch in &batches {
                let tilt = Tilt { factors: &factors, offsets: &offsets };
                let step = match batch.y.len() == n {
                    true => pass.tilted_step(batch, tilt).unwrap(),
                    false => pass.step(batch).unwrap(),
                };
                found.push((step, pass.gradients().unwrap()));
                pass.update(&Update { rate: 0.1, momentum: 0.9, decay: 0.0, step: 1 }).unwrap();
            }
            (found, net)
        };
        let expected = run(usize::MAX, false);
        for (gradients, again) in [(1, false), (3, false), (usize::MAX, true), (2, true)] {
            assert!(run(gradients, again) == expected, "{gradients} {again}");
        }
    }
}

#[test]
fn a_gpu_computes_values_again_where_a_batch_does_not_fit_to_the_same_bits() {
    let (n, net) = (5, everything().unwrap());
    let mut stream = Stream::new(4, Use::Choice, 1);
    let x = (0..n * net.input().len()).map(|_| stream.normal()).collect();
    let batch = Samples { kind: net.kind(), x, y: vec![1; n].into(), stream: None };
    let run = |device: &Device| -> Result<(Step, Vec<Vec<f32>>)> {
        let mut net = net.clone();
        let mut pass = TrainPass::new(device, &mut net, n, Optimizer::Sgd)?;
        // Twice: what is launched a second time is replayed.
        pass.step(&batch)?;
        Ok((pass.step(&batch)?, pass.gradients()?))
    };
    let Err(Error::Memory { bytes, .. }) = run(&Device::emulated_with(1, 1 << 26, 1).unwrap()) else {
        panic!("it fits")
    };
    let plan = Plan::training(&net, n).unwrap();
    assert!(plan.clone().less().program.work < plan.program.work);
    assert!(run(&Device::emulated_with(1, 1 << 26, bytes).unwrap()).unwrap() == run(&devices()[1]).unwrap());
}
