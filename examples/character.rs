//! One character removed from a classifier of handwritten characters; beside retraining, a random block and no update.
//!
//! The data are a part of Omniglot: 146 characters of alphabets of all kinds, each drawn by 20 people, of whom 14 are trained on, two
//! are held out and four are for tests. Needs the program `unzip`.
//!
//!     SCRUBJAY_DATA=DATA cargo run --release --example character

mod beside;

use std::path::{Path, PathBuf};
use std::process::Command;

use beside::{Removals, data, folder, lines};
use scrubjay::data::{Resize, Steps};
use scrubjay::training::TrainOptions;
use scrubjay::{Error, Result, Sources};

fn main() -> Result<()> {
    let folder = folder("character")?;
    let archive = data("omniglot/images_background_small1.zip")?;
    let done = Command::new("unzip").arg("-nq").arg(&archive).arg("-d").arg(&folder).status();
    if !done.is_ok_and(|status| status.success()) {
        return Err(Error::config(format!("{}: the program unzip did not unpack it", archive.display())));
    }
    let mut drawings = vec![]; // as alphabet/character, in order, with the drawings in order
    for alphabet in entries(&folder.join("images_background_small1"))? {
        for character in entries(&alphabet)? {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            drawings.push((format!("{}-{}", name(&alphabet), name(&character)), entries(&character)?));
        }
    }
    let list = |name: &str, people: std::ops::Range<usize>| {
        let of = |(character, files): &(String, Vec<PathBuf>)| -> Vec<String> {
            let row =
                |file: &PathBuf| Some(format!("{},{character}", std::path::absolute(file).ok()?.display()));
            files[people.clone()].iter().filter_map(row).collect()
        };
        lines(folder.join(name), std::iter::once("path,label".into()).chain(drawings.iter().flat_map(of)))
    };
    Removals {
        name: "character",
        sources: Sources {
            data: list("train.csv", 0..14)?,
            validation: Some(list("val.csv", 14..16)?),
            steps: Steps { resize: Some(Resize::Exact([28, 28])), ..Steps::default() },
            ..Sources::default()
        },
        test: list("test.csv", 16..20)?,
        arch: "cnn:16-32+128",
        options: TrainOptions { epochs: 20, lr: 0.05, shift: 2, ..TrainOptions::default() },
        seeds: 3,
        removals: vec![("One character of Omniglot", "class:Korean-character05")],
    }
    .compare()
}

/// What a folder holds, in order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        found.push(entry.map_err(Error::io(folder))?.path());
    }
    found.sort();
    Ok(found)
}
