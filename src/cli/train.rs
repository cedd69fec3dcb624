//! `scrubjay train`: a model from data.

use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use scrubjay::data::{self, Inputs, Normalise, Samples, Spec, tensors};
use scrubjay::observe::evaluate;
use scrubjay::train::{Config, Epoch, Optimizer, Schedule, train};
use scrubjay::{Error, checkpoint, zoo};
use serde_json::json;

use super::{DeviceArgs, Outcome};

/// Train a model, or train one further
///
/// DIR gets model.safetensors and config.json, which --model opens again, and train.json: options, samples, epochs.
/// --exclude leaves samples out: the same seed then gives the model that never saw them.
///
/// Examples:
///   scrubjay train --arch mlp:100 --data MNIST/raw --out mlp --epochs 10
///   scrubjay train --arch resnet20 --data train.safetensors --val test.safetensors --out resnet --exclude class:3
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A new model: mlp:100-50 (hidden widths), cnn:8-16-16+64 (convolutions + hidden layers), resnet20 ..
    #[arg(long, value_name = "SPEC", required_unless_present = "model")]
    arch: Option<String>,
    /// A model to train further
    #[arg(long, value_name = "M", conflicts_with = "arch")]
    model: Option<PathBuf>,
    /// Labelled data: .safetensors (x, y), idx images, CIFAR binary
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// Data to report accuracy on, after every epoch
    #[arg(long, value_name = "DATA")]
    val: Option<PathBuf>,
    /// Where to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Samples to leave out: 7,12,100-149, class:3, n:20@seed, or a file of such lines
    #[arg(long, value_name = "SPEC")]
    exclude: Option<String>,
    /// Mean per channel of values from 0 to 1
    #[arg(long, value_name = "M,..", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// Standard deviation per channel
    #[arg(long, value_name = "S,..", value_delimiter = ',')]
    std: Option<Vec<f32>>,
    /// Classes; by default one more than the largest label
    #[arg(long)]
    classes: Option<usize>,
    /// Passes over the data
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Samples of a mini-batch
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// The rate at the start
    #[arg(long, default_value_t = 0.05, value_parser = super::positive)]
    lr: f32,
    /// Momentum of SGD
    #[arg(long, default_value_t = 0.9)]
    momentum: f32,
    /// The optimizer
    #[arg(long, value_enum, default_value = "sgd")]
    optimizer: OptimizerName,
    /// Weight decay
    #[arg(long, default_value_t = 5e-4)]
    weight_decay: f32,
    /// How the rate falls
    #[arg(long, value_enum, default_value = "cosine")]
    schedule: ScheduleName,
    /// Seed of initial weights and of the order of samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum OptimizerName {
    Sgd,
    Adam,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScheduleName {
    Constant,
    Cosine,
}

/// Trains, with a line per epoch.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let existing = args.model.as_deref().map(checkpoint::Checkpoint::open).transpose()?;
    let said = existing.as_ref().map(zoo::inputs).unwrap_or_default();
    let normalise = Normalise { mean: args.mean.clone().or(said.mean), std: args.std.clone().or(said.std) };
    let samples = data::load(&args.data, &normalise)?;
    let val = args.val.as_deref().map(|path| data::load(path, &normalise)).transpose()?;
    let labels = samples.y.iter().copied().max().unwrap_or(0) as usize + 1;
    let (mut net, mut config) = match (&existing, &args.arch) {
        (Some(checkpoint), _) => {
            let model = zoo::load(checkpoint, None, Some(samples.shape()))?;
            (model.network, checkpoint.config().cloned().unwrap_or(json!({"architecture": model.family})))
        }
        (None, Some(arch)) => {
            let made = zoo::create(arch, samples.shape(), args.classes.unwrap_or(labels), args.seed)?;
            (made.network, made.config)
        }
        (None, None) => return Err(Error::config("--arch or --model says what to train").into()),
    };
    for (set, path) in [(Some(&samples), &args.data), (val.as_ref(), args.val.as_ref().unwrap_or(&args.data))]
    {
        let Some(set) = set else { continue };
        data::check_labels(&set.y, 0, net.classes()).map_err(|e| Error::data(path, e.to_string()))?;
    }
    if let Some(map) = config.as_object_mut() {
        normalise.mean.iter().for_each(|mean| drop(map.insert("mean".into(), json!(mean))));
        normalise.std.iter().for_each(|std| drop(map.insert("std".into(), json!(std))));
    }
    let excluded = match &args.exclude {
        Some(text) => Spec::parse(text)?.choose(&samples.y)?,
        None => vec![],
    };
    let mut used = vec![true; samples.y.len()];
    excluded.iter().for_each(|&i| used[i] = false);
    let indices: Vec<usize> = (0..samples.y.len()).filter(|&i| used[i]).collect();
    let options = Config {
        epochs: args.epochs as usize,
        batch: args.batch_size as usize,
        rate: args.lr,
        momentum: args.momentum,
        optimizer: match args.optimizer {
            OptimizerName::Sgd => Optimizer::Sgd,
            OptimizerName::Adam => Optimizer::Adam,
        },
        weight_decay: args.weight_decay,
        schedule: match args.schedule {
            ScheduleName::Constant => Schedule::Constant,
            ScheduleName::Cosine => Schedule::Cosine,
        },
        seed: args.seed,
    };
    if let Some(model) = &args.model {
        let folder = if model.is_dir() { model.as_path() } else { model.parent().unwrap_or(model) };
        if folder.canonicalize().is_ok_and(|folder| args.out.canonicalize().is_ok_and(|out| out == folder)) {
            return Err(Error::config("--out is the folder of --model, which would be overwritten").into());
        }
    }
    let device = args.device.open()?;
    std::fs::create_dir_all(&args.out).map_err(Error::io(&args.out))?;
    let started = Instant::now();
    let mut epochs = vec![];
    if !args.json {
        println!(
            "epoch     loss  accuracy{}  seconds",
            if val.is_some() { "  val loss  val accuracy" } else { "" }
        );
    }
    train(&device, &mut net, &samples, &indices, &options, &mut |net, epoch: Epoch| {
        let scores = val.as_ref().map(|val: &Samples| evaluate(&device, &net.freeze(), val)).transpose()?;
        let seconds = started.elapsed().as_secs_f64();
        if !args.json {
            let val = scores.as_ref().map_or(String::new(), |scores| {
                format!("  {:>8.4}  {:>10.2} %", scores.mean_loss(), 100.0 * scores.accuracy())
            });
            println!(
                "{:>5}  {:>7.4}  {:>6.2} %{val}  {seconds:>7.1}",
                epoch.epoch,
                epoch.loss,
                100.0 * epoch.accuracy
            );
        }
        epochs.push(json!({
            "epoch": epoch.epoch, "loss": epoch.loss, "accuracy": epoch.accuracy,
            "val_loss": scores.as_ref().map(|s| s.mean_loss()), "val_accuracy": scores.as_ref().map(|s| s.accuracy()),
            "seconds": seconds,
        }));
        Ok(true)
    })?;
    checkpoint::save(&args.out.join("model.safetensors"), &net)?;
    tensors::write_whole(&args.out.join("config.json"), serde_json::to_string_pretty(&config)?.as_bytes())?;
    let manifest = json!({
        "scrubjay": env!("CARGO_PKG_VERSION"),
        "arch": args.arch,
        "model": args.model,
        "data": args.data,
        "n": indices.len(),
        "excluded": excluded,
        "options": options,
        "device": device.report(),
        "epochs": epochs,
    });
    tensors::write_whole(&args.out.join("train.json"), serde_json::to_string_pretty(&manifest)?.as_bytes())?;
    if args.json {
        println!("{manifest}");
    } else {
        println!("written to {}", args.out.display());
    }
    Ok(Outcome::Done)
}
