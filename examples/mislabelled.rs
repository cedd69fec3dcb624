//! Wrong labels found by their influence on held-out data, and removed; beside retraining, random blocks and no update.
//!
//! 60 of 1,200 digits get a wrong label, and a small network is trained on them all. The influence of a sample on the loss of
//! clean held-out digits is −g_valᵀ (H + λI)⁻¹ g, on the block of the output layer (Koh and Liang 2017). The 60 most harmful
//! samples are then removed by both methods.
//!
//!     cargo run --release --example mislabelled

use scrubjay::block::Block;
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::data::{self, Samples};
use scrubjay::net::{Network, UnitId};
use scrubjay::observe::evaluate;
use scrubjay::select::Method;
use scrubjay::solve::{BlockVector, Limits, Vector, minres};
use scrubjay::task::Procedure;
use scrubjay::train::{Recipe, train};
use scrubjay::{Device, Request, Result, ScrubOptions, Session, zoo};

const TRAINED: usize = 1200;
const HELD_OUT: usize = 300;
const WRONG: usize = 60;

fn main() -> Result<()> {
    let device = Device::cpu()?;
    let digits = data::digits()?;
    let mut samples = digits.part(0..TRAINED)?;
    let held_out = digits.part(TRAINED..TRAINED + HELD_OUT)?;
    let test = digits.part(TRAINED + HELD_OUT..digits.y.len())?;
    let wrong: Vec<usize> = (0..WRONG).map(|i| i * TRAINED / WRONG + i % 7).collect();
    wrong.iter().for_each(|&i| samples.y.words_mut()[i] = (samples.y.words()[i] + 1 + i as u32 % 9) % 10);
    let net = trained(&device, &samples, &Vec::from_iter(0..TRAINED))?;

    let influence = influence(&device, &net, &samples, &held_out)?;
    let mut found = Vec::from_iter(0..TRAINED);
    found.sort_by(|&a, &b| influence[b].total_cmp(&influence[a]));
    found.truncate(WRONG);
    let right = found.iter().filter(|i| wrong.contains(i)).count();
    println!(
        "{right} of the {WRONG} most harmful samples have a wrong label; by chance {}",
        WRONG * WRONG / TRAINED
    );

    // What each model answers to the samples that were found, and how good it is on others.
    let found_samples = samples.copy(&found)?;
    let show = |name: &str, net: &Network| -> Result<()> {
        let of = |set: &Samples| evaluate(&device, net, set);
        let (gone, others) = (of(&found_samples)?, of(&test)?);
        println!(
            "{name:<22}  {:>6.1} %  {:>6.2}  {:>6.1} %  {:>7.3}",
            100.0 * gone.accuracy(),
            gone.mean_loss(),
            100.0 * others.accuracy(),
            others.mean_loss()
        );
        Ok(())
    };
    println!("\n{:<22}  {:>8}  {:>6}  {:>8}  {:>7}", "", "found", "loss", "test", "loss");
    show("no update", &net)?;
    let kept: Vec<usize> = (0..TRAINED).filter(|i| !found.contains(i)).collect();
    let session = Session::new(Device::cpu()?, net, samples.clone())?.with_validation(held_out)?;
    let lcodec = |selection| ScrubOptions {
        method: Some(Procedure::Lcodec),
        selection: Some(selection),
        wrong_labels: true,
        batch: Some(WRONG),
        gate: 1.0,
        ..ScrubOptions::DEFAULT
    };
    for (name, options) in [
        ("hold", ScrubOptions { method: Some(Procedure::Hold), gate: 1.0, ..ScrubOptions::DEFAULT }),
        ("L-CODEC, voted block", lcodec(Method::Vote)),
        ("L-CODEC, random block", lcodec(Method::Random)),
    ] {
        let request = Request::new(&session, found.clone(), &options)?;
        show(name, &session.scrub(&request)?.network)?;
    }
    show("retrained without them", &trained(&device, &samples, &kept)?)
}

/// A perceptron trained on some of the samples, frozen.
fn trained(device: &Device, samples: &Samples, indices: &[usize]) -> Result<Network> {
    let mut net = zoo::create("mlp:50", samples.shape(), 10, 1)?.network;
    let recipe =
        Recipe { epochs: 30, batch: 32, rate: 0.05, weight_decay: 1e-3, seed: 1, ..Recipe::default() };
    train(device, &mut net, samples, indices, &recipe, &mut |_, _| Ok(true))?;
    Ok(net.freeze())
}

/// By how much each sample raises the held-out loss, to first order: −g_valᵀ (H + λI)⁻¹ g, of which H is the Gauss–Newton
/// matrix on the output layer.
fn influence(device: &Device, net: &Network, samples: &Samples, held_out: &Samples) -> Result<Vec<f64>> {
    let last = net.layer_named(&net.layers[net.layers.len() - 1].name)?;
    let units: Vec<UnitId> = net.units().of_layer(last).map(|unit| UnitId(unit as u32)).collect();
    let block = Block::of(net, &units)?;
    let curvature = Curvature::new(device, net, &block, samples, Kind::Ggn, 1 << 30)?;
    let gradient = curvature.block_vector(&block.gradient(device, net, held_out)?)?;
    let mut product = |out: &mut BlockVector, v: &BlockVector| curvature.product(out, v);
    let (step, _) = minres(&mut product, &gradient, 1e-2, Limits { tolerance: 1e-4, products: 200 })?;
    let one = |i: usize| -> Result<f64> {
        let own = curvature.block_vector(&block.gradient(device, net, &samples.subset(&[i]))?)?;
        Ok(-step.dot(&own)?)
    };
    (0..samples.y.len()).map(one).collect()
}
