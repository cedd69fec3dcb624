//! One person removed from a classifier of faces; beside retraining, a random block and no update.
//!
//! The data are the faces of ORL: 40 people, ten pictures each, of which six are trained on, one is held out and three are for tests.
//!
//!     SCRUBJAY_DATA=DATA cargo run --release --example person

mod beside;

use beside::{Removals, data, folder, lines};
use scrubjay::data::{Resize, Steps};
use scrubjay::training::TrainOptions;
use scrubjay::{Result, Sources};

fn main() -> Result<()> {
    let (faces, folder) = (data("faces/orl")?, folder("person")?);
    let list = |name: &str, pictures: std::ops::RangeInclusive<usize>| {
        let of = |person: usize| {
            let faces = faces.join(format!("s{person}"));
            pictures.clone().map(move |i| format!("{},s{person}", faces.join(format!("{i}.pgm")).display()))
        };
        lines(folder.join(name), std::iter::once("path,label".into()).chain((1..=40).flat_map(of)))
    };
    Removals {
        name: "person",
        sources: Sources {
            data: list("train.csv", 1..=6)?,
            validation: Some(list("val.csv", 7..=7)?),
            steps: Steps { resize: Some(Resize::Exact([32, 26])), ..Steps::default() },
            ..Sources::default()
        },
        test: list("test.csv", 8..=10)?,
        arch: "cnn:8-16+64",
        options: TrainOptions { epochs: 40, batch_size: 16, lr: 0.02, ..TrainOptions::default() },
        seeds: 3,
        removals: vec![("Person s7 of ORL", "class:s7")],
    }
    .compare()
}
