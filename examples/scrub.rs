//! Removes 20 samples with wrong labels from a small network, all in memory, and tells what that did.
//!
//!     cargo run --release --example scrub

use scrubjay::data;
use scrubjay::train::{self, train};
use scrubjay::{Device, Request, Result, ScrubOptions, Session, zoo};

const TRAINED: usize = 1200;
const WRONG: usize = 20;

fn main() -> Result<()> {
    let device = Device::cpu()?;
    let digits = data::digits()?;
    let (mut samples, validation) = (digits.part(0..TRAINED)?, digits.part(TRAINED..digits.y.len())?);
    samples.y.words_mut()[..WRONG].iter_mut().for_each(|label| *label = (*label + 1) % 10);
    let mut net = zoo::create("cnn:8-16+32", samples.shape(), 10, 1)?.network;
    let recipe = train::Recipe {
        epochs: 30,
        batch: 32,
        rate: 0.05,
        weight_decay: 1e-3,
        seed: 1,
        ..train::Recipe::default()
    };
    train(&device, &mut net, &samples, &Vec::from_iter(0..TRAINED), &recipe, &mut |_, _| Ok(true))?;

    let session = Session::new(device, net.freeze(), samples)?.with_validation(validation)?;
    let options = ScrubOptions { wrong_labels: true, ..ScrubOptions::DEFAULT };
    let request = Request::new(&session, Vec::from_iter(0..WRONG), &options)?;
    let estimate = session.estimate(&request)?;
    println!(
        "about {:.0} s at most, {} units of {}",
        estimate.seconds_at_most, estimate.units_at_most, estimate.units
    );
    for record in session.scrub(&request)?.records {
        println!("batch {}: {}", record.batch, if record.removed() { "removed" } else { "not removed" });
        record.notes.iter().for_each(|note| println!("  {note}"));
        let before = record.account.before;
        if let Some(step) = &record.account.step {
            println!("  units             {} ({} parameters)", record.units.len(), step.parameters);
            println!("  loss of these     {:.3} -> {:.3}", before.forget.loss, step.after.forget.loss);
            println!(
                "  retained accuracy {:.4} -> {:.4}",
                before.retain.accuracy, step.after.retain.accuracy
            );
        }
    }
    Ok(())
}
