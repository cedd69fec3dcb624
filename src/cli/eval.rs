//! `scrubjay eval`: accuracy and loss of a model.

use std::path::PathBuf;
use std::time::Instant;

use scrubjay::observe::evaluate;

use super::model::{ModelArgs, NormaliseArgs, load};
use super::shared::{DeviceArgs, Exit};

/// Measure accuracy and loss of a model on labelled data
///
/// Examples:
///   scrubjay eval --model resnet20.safetensors --data test.safetensors --mean .485,.456,.406 \
///       --std .229,.224,.225
///   scrubjay eval --model my-model/ --data MNIST/raw/t10k-images-idx3-ubyte.gz --json
///   scrubjay eval --model vit/ --data photos/val
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Labelled data: class folders, a manifest (.csv, .json), .tar, .parquet, .safetensors (x, y), .npz, MNIST, CIFAR, STL-10;
    /// texts: .csv, .tsv, .jsonl .. (docs/DATA.md). DATA#test is the test part of a set that has one
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    #[command(flatten)]
    normalise: NormaliseArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Prints accuracy, loss and the accuracy of each class.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let checkpoint = args.model.checkpoint()?;
    let options = args.normalise.load_options(Some(&checkpoint), args.model.choices.choices());
    let data = load(&args.data, &options)?.samples;
    let model = args.model.open(&checkpoint, Some((&args.data, &data)))?;
    let device = args.device.open()?;
    let start = Instant::now();
    let scores = evaluate(&device, &model.network, &data)?;
    let seconds = start.elapsed().as_secs_f64();
    let classes = scores.by_output(&model.network);
    if args.json {
        let classes: Vec<_> =
            classes.iter().map(|(right, n)| serde_json::json!({"correct": right, "n": n})).collect();
        println!(
            "{}",
            serde_json::json!({
                "n": scores.losses.len(),
                "correct": scores.correct(),
                "accuracy": scores.accuracy(),
                "loss": scores.mean_loss(),
                "classes": classes,
                "family": model.family,
                "device": device.report(),
                "images_at_once": scores.chunk,
                "seconds": seconds,
            })
        );
        return Ok(Exit::Done);
    }
    println!("samples   {}", scores.losses.len());
    println!("correct   {}  ({:.2} %)", scores.correct(), 100.0 * scores.accuracy());
    println!("loss      {:.4}", scores.mean_loss());
    for (class, (right, n)) in classes.iter().enumerate().filter(|(_, (_, n))| *n > 0) {
        println!("class {class:<4}{right} of {n}  ({:.1} %)", 100.0 * *right as f64 / *n as f64);
    }
    println!("time      {seconds:.2} s, {} images at once", scores.chunk);
    Ok(Exit::Done)
}
