//! Requests of several batches: what a repair does to those that went before, and a stop in the middle of one.

use std::sync::atomic::{AtomicBool, Ordering};

use scrubjay::data::{self, Samples};
use scrubjay::device::Device;
use scrubjay::net::Network;
use scrubjay::observe::evaluate;
use scrubjay::select::Method;
use scrubjay::task::{Settings, Task};
use scrubjay::train::{self, Optimizer, Schedule, train};
use scrubjay::unlearn::unlearn;
use scrubjay::{Error, Result, zoo};

const TRAINED: usize = 1200;

/// A network that has learned the first digits by heart, and the digits.
fn learned(device: &Device) -> Result<(Network, Samples)> {
    let samples = data::digits()?;
    let mut net = zoo::create("mlp:32", samples.shape(), 10, 1)?.network;
    let recipe = train::Recipe {
        epochs: 30,
        batch: 32,
        rate: 0.05,
        momentum: 0.9,
        optimizer: Optimizer::Sgd,
        weight_decay: 0.0,
        schedule: Schedule::Cosine,
        seed: 1,
    };
    train(device, &mut net, &samples, &Vec::from_iter(0..TRAINED), &recipe, &mut |_, _| Ok(true))?;
    Ok((net.freeze(), samples))
}

fn task<'a>(
    device: &'a Device,
    samples: &'a Samples,
    validation: &'a Samples,
    n: usize,
    stop: &'a AtomicBool,
) -> Task<'a> {
    let retained = Vec::from_iter(80..TRAINED);
    let mut settings = Settings { repair: 80, gate: 1.0, ..Settings::default() };
    settings.selection.method = Method::Full;
    Task { validation: Some(validation), n, stop, ..Task::new(device, samples, retained, settings) }
}

#[test]
fn samples_of_earlier_batches_are_held_with_the_new_ones() -> Result<()> {
    let device = Device::cpu()?;
    let (net, samples) = learned(&device)?;
    let unseen = Vec::from_iter(TRAINED..samples.y.len());
    let validation = Samples { kind: samples.kind, x: vec![], y: samples.y.subset(&unseen), stream: None };
    let x = unseen.iter().flat_map(|&i| samples.image(i).unwrap().to_vec()).collect();
    let validation = Samples { x, ..validation };
    let (first, second) = (Vec::from_iter(0..40), Vec::from_iter(40..80));
    let stop = AtomicBool::new(false);
    let loss =
        |net: &Network| -> Result<f64> { Ok(evaluate(&device, net, &samples.subset(&first))?.mean_loss()) };
    let mut once = net.clone();
    let record = unlearn(&task(&device, &samples, &validation, TRAINED, &stop), &mut once, 0, &first, &[])?;
    assert!(record.removed, "{:?}", record.notes);
    let (mut held, mut let_go) = (once.clone(), once.clone());
    for (net, earlier) in [(&mut held, &first[..]), (&mut let_go, &[])] {
        let n = TRAINED - (first.len() - earlier.len());
        let record = unlearn(&task(&device, &samples, &validation, n, &stop), net, 1, &second, earlier)?;
        assert!(record.removed, "{:?}", record.notes);
    }
    let (own, held, let_go) = (loss(&once)?, loss(&held)?, loss(&let_go)?);
    assert!(
        held > let_go && held > 0.8 * own,
        "{own} after its own batch, then {held}, or {let_go} if let go"
    );
    Ok(())
}

#[test]
fn a_stop_in_a_vote_leaves_the_network_as_it_was() -> Result<()> {
    let device = Device::cpu()?;
    let samples = data::digits()?;
    let net = zoo::create("mlp:8", samples.shape(), 10, 1)?.network.freeze();
    let stop = AtomicBool::new(false);
    let mut task = task(&device, &samples, &samples, TRAINED, &stop);
    task.settings.selection.method = Method::Vote;
    stop.store(true, Ordering::Relaxed);
    let mut moved = net.clone();
    let stopped = unlearn(&task, &mut moved, 0, &Vec::from_iter(0..20), &[]);
    assert!(matches!(stopped, Err(Error::Interrupted { .. })), "{stopped:?}");
    assert!(moved == net);
    Ok(())
}
