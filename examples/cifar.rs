//! 100 images, and a class, removed from a ResNet-20 on CIFAR-10; beside retraining, a random block and no update.
//!
//! The images lie as mosaics of 1,000 tiles of 32 x 32 pixels. Three are trained on, so that it takes half an hour on a CPU of two
//! cores; `TRAINED` takes more of the twelve.
//!
//!     SCRUBJAY_DATA=DATA cargo run --release --example cifar

mod beside;

use std::collections::HashMap;
use std::path::PathBuf;

use beside::{Removals, data, folder};
use scrubjay::data::tensors::{self, Tensor, Values};
use scrubjay::training::TrainOptions;
use scrubjay::{Error, Result, Sources};

/// Mosaics that are trained on.
const TRAINED: usize = 3;
const SIDE: usize = 32;
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

fn main() -> Result<()> {
    Removals {
        name: "cifar",
        sources: Sources {
            data: part("train", "train", 0..TRAINED)?,
            validation: Some(part("val", "test", 0..1)?),
            ..Sources::default()
        },
        test: part("test", "test", 1..3)?,
        arch: "resnet20",
        options: TrainOptions {
            epochs: 24,
            batch_size: 64,
            lr: 0.1,
            weight_decay: 5e-4,
            shift: 4,
            flip: true,
            ..TrainOptions::default()
        },
        seeds: 1,
        removals: vec![("100 images of CIFAR-10", "n:100@1"), ("The class of cats of CIFAR-10", "class:3")],
    }
    .compare()
}

/// The images of some mosaics with their labels, as a file that is normalised already.
fn part(name: &str, of: &str, mosaics: std::ops::Range<usize>) -> Result<PathBuf> {
    let labels = data(&format!("cifar10/{of}-labels.u8"))?;
    let labels = std::fs::read(&labels).map_err(Error::io(&labels))?;
    let (mut x, mut y) = (vec![], vec![]);
    for number in mosaics {
        let path = data(&format!("cifar10/{of}-{number:02}.webp"))?;
        let picture = image::open(&path).map_err(|e| Error::data(&path, e.to_string()))?.to_rgb8();
        let across = picture.width() as usize / SIDE;
        let tiles = across * (picture.height() as usize / SIDE);
        for tile in 0..tiles {
            let (left, top) = (tile % across * SIDE, tile / across * SIDE);
            for channel in 0..3 {
                for at in 0..SIDE * SIDE {
                    let pixel = picture.get_pixel((left + at % SIDE) as u32, (top + at / SIDE) as u32);
                    x.push((f32::from(pixel[channel]) / 255.0 - MEAN[channel]) / STD[channel]);
                }
            }
            y.push(i64::from(labels[number * tiles + tile]));
        }
    }
    let path = folder("cifar")?.join(format!("{name}.safetensors"));
    let all = [
        Tensor { name: "x", shape: vec![y.len(), 3, SIDE, SIDE], values: Values::F32(&x) },
        Tensor { name: "y", shape: vec![y.len()], values: Values::I64(&y) },
    ];
    tensors::write(&path, &all, HashMap::new())?;
    Ok(path)
}
