//! Tests that the number of chunks that run at a time changes no bit.

use super::super::plan::side_by_side;
use super::*;
use crate::data::Samples;
use crate::net::Shape;
use crate::ops::philox::{Stream, Use};
use crate::zoo;

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
    let at_once = |spec: &str| {
        let net = zoo::create(spec, Shape::new(16, 16, 3), 3, 1).unwrap().network;
        Plan { chunk: 1, ..Plan::training(&net, 64).unwrap() }.at_once(&net, 1 << 24, 2)
    };
    assert_eq!((at_once("mlp:9"), at_once("resnet18:1")), (2, 1 << 24));
}
