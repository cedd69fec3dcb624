//! Which attributes of an image a network's loss leans on, by FOCI; and what is left of that once the images that taught it
//! are removed, beside retraining, a random block and no update.
//!
//! Nine in ten of the threes in the training data carry bright patches in two corners, and no other digit does. The network
//! learns the patches. The table has a row for each held-out digit, half of which carry the patches whatever they show:
//! the patches, whether it is a three, how much ink there is and where, and noise. T is the share of the loss's variation
//! that columns explain (Azadkia and Chatterjee 2021).
//!
//!     cargo run --release --example attributes

use scrubjay::codec::{Columns, FociOptions, StatisticOptions, foci, statistic};
use scrubjay::data::{self, Samples};
use scrubjay::net::Network;
use scrubjay::observe::evaluate;
use scrubjay::ops::philox::{Stream, Use};
use scrubjay::select::Method;
use scrubjay::task::Procedure;
use scrubjay::train::{Recipe, train};
use scrubjay::{Device, Request, Result, ScrubOptions, Session, zoo};

const TRAINED: usize = 1100;
const HELD_OUT: usize = 200;
const THREE: u32 = 3;
const NAMES: [&str; 7] = ["patches", "three", "ink", "row", "column", "noise 1", "noise 2"];

fn main() -> Result<()> {
    let device = Device::cpu()?;
    let digits = data::digits()?;
    let mut samples = digits.part(0..TRAINED)?;
    let held_out = digits.part(TRAINED..TRAINED + HELD_OUT)?;
    let mut test = digits.part(TRAINED + HELD_OUT..digits.y.len())?;
    let mut stream = Stream::new(1, Use::Choice, 0);
    let mut draw = |share: f64| stream.uniform() < share;
    let three = |set: &Samples, i: usize| set.y.words()[i] == THREE;
    let patched: Vec<usize> =
        (0..TRAINED).filter(|&i| draw(if three(&samples, i) { 0.9 } else { 0.0 })).collect();
    patched.iter().for_each(|&i| patch(&mut samples, i));
    let carries: Vec<bool> = (0..test.y.len()).map(|_| draw(0.5)).collect();
    (0..carries.len()).filter(|&i| carries[i]).for_each(|i| patch(&mut test, i));
    let net = trained(&device, &samples, &Vec::from_iter(0..TRAINED))?;

    let table = table(&test, &carries);
    let columns = Columns::from_columns_f64(&table, carries.len(), NAMES.len())?;
    let losses = |net: &Network| -> Result<Vec<f64>> {
        Ok(evaluate(&device, net, &test)?.losses.iter().map(|&loss| loss.into()).collect())
    };
    let found = foci(&device, &losses(&net)?, &columns, &FociOptions::default())?;
    println!("what the loss of the network leans on, in the order of FOCI:");
    for (&column, t) in found.order.iter().zip(&found.cumulative) {
        println!("  {:<8}  T = {:.3} with those before it", NAMES[column], t.unwrap_or(f64::NAN));
    }

    println!(
        "\n{} training images with patches removed:\n{:<22}  {:>12}  {:>12}  {:>7}  {:>15}",
        patched.len(),
        "",
        "with patches",
        "without",
        "loss",
        "T(loss, patches)"
    );
    let show = |name: &str, net: &Network| -> Result<()> {
        let scores = evaluate(&device, net, &test)?;
        let right = |with: bool| {
            let of: Vec<usize> = (0..carries.len()).filter(|&i| carries[i] == with).collect();
            let right = of.iter().filter(|&&i| scores.predicted[i] == scores.labels[i]).count();
            100.0 * right as f64 / of.len() as f64
        };
        let t = statistic(&device, &losses(net)?, &columns, &[0], &[], &StatisticOptions::default())?;
        println!(
            "{name:<22}  {:>10.1} %  {:>10.1} %  {:>7.3}  {:>13.3}",
            right(true),
            right(false),
            scores.mean_loss(),
            t.value.unwrap_or(f64::NAN)
        );
        Ok(())
    };
    show("no update", &net)?;
    let kept: Vec<usize> = (0..TRAINED).filter(|i| !patched.contains(i)).collect();
    let session = Session::new(Device::cpu()?, net, samples.clone())?.with_validation(held_out)?;
    let lcodec = |selection| ScrubOptions {
        method: Some(Procedure::Lcodec),
        selection: Some(selection),
        batch: Some(patched.len()),
        gate: 1.0,
        ..ScrubOptions::DEFAULT
    };
    for (name, options) in [
        ("hold", ScrubOptions { method: Some(Procedure::Hold), gate: 1.0, ..ScrubOptions::DEFAULT }),
        ("L-CODEC, voted block", lcodec(Method::Vote)),
        ("L-CODEC, random block", lcodec(Method::Random)),
    ] {
        let request = Request::new(&session, patched.clone(), &options)?;
        show(name, &session.scrub(&request)?.network)?;
    }
    show("retrained without them", &trained(&device, &samples, &kept)?)
}

/// The pixels of the patches, in the upper left and the lower right corner.
const PATCHES: [usize; 8] = [0, 1, 8, 9, 54, 55, 62, 63];

/// Puts the patches into image `i`.
fn patch(samples: &mut Samples, i: usize) {
    let image = &mut samples.x[64 * i..64 * (i + 1)];
    PATCHES.into_iter().for_each(|at| image[at] = 1.0);
}

/// The attributes of images, column by column. What there is of ink is measured outside the patches.
fn table(samples: &Samples, carries: &[bool]) -> Vec<f64> {
    let (n, mut noise) = (carries.len(), Stream::new(2, Use::Choice, 0));
    let mut table = vec![0.0; n * NAMES.len()];
    for (i, &carried) in carries.iter().enumerate() {
        let image = &samples.x[64 * i..64 * (i + 1)];
        let (mut ink, mut row, mut column) = (0.0, 0.0, 0.0);
        for (at, &value) in image.iter().enumerate().filter(|(at, _)| !PATCHES.contains(at)) {
            let value = f64::from(value);
            (ink, row, column) =
                (ink + value, row + value * (at / 8) as f64, column + value * (at % 8) as f64);
        }
        let three = samples.y.words()[i] == THREE;
        let drawn = [f64::from(noise.normal()), f64::from(noise.normal())];
        let values = [
            f64::from(u8::from(carried)),
            f64::from(u8::from(three)),
            ink,
            row / ink,
            column / ink,
            drawn[0],
            drawn[1],
        ];
        values.into_iter().enumerate().for_each(|(j, value)| table[j * n + i] = value);
    }
    table
}

/// A perceptron trained on some of the samples, frozen.
fn trained(device: &Device, samples: &Samples, indices: &[usize]) -> Result<Network> {
    let mut net = zoo::create("mlp:50", samples.shape(), 10, 1)?.network;
    let recipe =
        Recipe { epochs: 30, batch: 32, rate: 0.05, weight_decay: 1e-3, seed: 1, ..Recipe::default() };
    train(device, &mut net, samples, indices, &recipe, &mut |_, _| Ok(true))?;
    Ok(net.freeze())
}
