//! `scrubjay train`: trains a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use scrubjay::options::Pick;
use scrubjay::session::Sources;
use scrubjay::train::{Decayed, Optimizer, Schedule};
use scrubjay::training::{EpochReport, TrainOptions, Training};
use scrubjay::{Error, Result};
use serde_json::{Value, json};

use super::model::{NormaliseArgs, TensorArgs};
use super::ranks::ranks;
use super::shared::{self, DeviceArgs, Exit};

/// Train a new model, or continue to train one
///
/// DIR gets model.safetensors and config.json, which --model reads again, and train.json with the
/// options, the SHA-256 of the data, the samples left out and the epochs. A training that was stopped
/// goes on after its last epochs when it is started again; one that is finished is kept, and no other
/// model is replaced. The same seed gives the same model again; one trained on a GPU differs from one
/// trained on the CPU by rounding. --seeds K trains K models, with seed S in DIR/seed-S.
///
/// Examples:
///   scrubjay train --arch mlp:100 --data MNIST/raw --out mlp --epochs 10
///   scrubjay train --arch resnet20 --data train.safetensors --val test.safetensors --out resnet \
///       --exclude class:cat --shift 4 --flip
///   scrubjay train --arch mlp:50 --data MNIST/raw --out never-saw --exclude 0-99 --seeds 10
///   scrubjay train --arch distilbert:64-2-4-128 --data sms.csv --optimizer adam --lr 1e-3 \
///       --out texts
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A new model: mlp:100-50 (hidden widths), cnn:8-16-16+64 (widths of convolutions + of hidden layers), resnet20,
    /// resnet18, vgg16_bn, vit:64-6-4-4 .. or for texts distilbert:64-2-4-128 (channels, blocks, heads, tokens) or bert:..
    /// (docs/MODELS.md lists all)
    #[arg(long, value_name = "SPEC", required_unless_present = "model")]
    arch: Option<String>,
    /// An existing model, to continue from
    #[arg(long, value_name = "M", conflicts_with = "arch")]
    model: Option<PathBuf>,
    #[command(flatten)]
    tensors: TensorArgs,
    /// Labelled data: class folders, a manifest (.csv, .json), .tar, .parquet, .safetensors (x, y), .npz, MNIST, CIFAR, STL-10;
    /// texts: .csv, .tsv, .jsonl .. (docs/DATA.md)
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// Validation data, on which accuracy is reported after every epoch
    #[arg(long, value_name = "DATA")]
    val: Option<PathBuf>,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Samples to leave out, written as --forget of `scrub`, for a model that never saw them
    #[arg(long, value_name = "SPEC")]
    exclude: Option<String>,
    #[command(flatten)]
    normalise: NormaliseArgs,
    /// Label smoothing of a new model's loss, from 0 to below 1, as PyTorch's CrossEntropyLoss has it
    #[arg(long, value_name = "E", conflicts_with = "model")]
    label_smoothing: Option<f64>,
    /// Number of classes; by default one more than the largest label
    #[arg(long, value_name = "C")]
    classes: Option<usize>,
    /// How many times the data are passed over
    #[arg(long, value_name = "E", default_value_t = TrainOptions::default().epochs as u32, value_parser = shared::at_least_one)]
    epochs: u32,
    /// Samples per mini-batch
    #[arg(long, value_name = "B", default_value_t = TrainOptions::default().batch_size as u32, value_parser = shared::at_least_one)]
    batch_size: u32,
    /// The largest learning rate; --schedule lowers it
    #[arg(long, value_name = "RATE", default_value_t = TrainOptions::default().lr, value_parser = shared::positive)]
    lr: f32,
    /// Momentum of SGD
    #[arg(long, value_name = "M", default_value_t = TrainOptions::default().momentum)]
    momentum: f32,
    /// The optimizer: SGD with momentum, or Adam
    #[arg(long, value_enum, value_name = "sgd|adam", default_value_t = TrainOptions::default().optimizer)]
    optimizer: Optimizer,
    /// Weight decay, as PyTorch's optimizers have it
    #[arg(long, value_name = "W", default_value_t = TrainOptions::default().weight_decay)]
    weight_decay: f32,
    /// The parameters that weight decay is for
    #[arg(long, value_enum, value_name = "all|weights", default_value_t = TrainOptions::default().decay)]
    decay: Decayed,
    /// Epochs at the beginning in which the learning rate rises to --lr
    #[arg(long, value_name = "E", default_value_t = TrainOptions::default().warm_up as u32)]
    warm_up: u32,
    /// Shift each image at random by up to this many pixels in each direction, whenever it is trained on; what is uncovered is
    /// black. 4 is usual for CIFAR
    #[arg(long, value_name = "PIXELS", default_value_t = TrainOptions::default().shift as u32)]
    shift: u32,
    /// Mirror each image left to right with probability 1/2, whenever it is trained on
    #[arg(long)]
    flip: bool,
    /// How the learning rate falls
    #[arg(long, value_enum, value_name = "constant|cosine|step", default_value_t = TrainOptions::default().schedule)]
    schedule: Schedule,
    /// The seed of initial weights and the order of samples
    #[arg(long, value_name = "S", default_value_t = TrainOptions::default().seed)]
    seed: u64,
    /// Train K models, with the seeds S, S + 1 and so on
    #[arg(long, value_name = "K", value_parser = shared::at_least_one)]
    seeds: Option<u32>,
    /// Also keep the model after these epochs, in DIR/epoch-E
    #[arg(long, value_name = "E,..", value_delimiter = ',', value_parser = shared::at_least_one)]
    keep_epochs: Vec<u32>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    fn sources(&self) -> Sources {
        let mut sources = Sources {
            model: self.model.clone().unwrap_or_default(),
            data: self.data.clone(),
            validation: self.val.clone(),
            ..Sources::default()
        };
        self.tensors.fill(&mut sources);
        self.normalise.write(&mut sources);
        sources
    }

    fn options(&self) -> TrainOptions {
        TrainOptions {
            epochs: self.epochs as usize,
            batch_size: self.batch_size as usize,
            lr: self.lr,
            momentum: self.momentum,
            optimizer: self.optimizer,
            weight_decay: self.weight_decay,
            decay: self.decay,
            warm_up: self.warm_up as usize,
            shift: self.shift as usize,
            flip: self.flip,
            schedule: self.schedule,
            seed: self.seed,
            label_smoothing: self.label_smoothing,
            classes: self.classes,
        }
    }

    /// Trains one model into `folder`, with a line per epoch.
    fn train(&self, training: &Training, seed: u64, folder: &Path) -> Result<Value> {
        let keep: Vec<usize> = self.keep_epochs.iter().map(|&epoch| epoch as usize).collect();
        let is_finished = training.finished(seed, folder)?.is_some();
        let begun = if is_finished { 0 } else { training.begun(seed, folder)? };
        if begun > 0 {
            eprintln!("{}: goes on after epoch {begun} of {}", folder.display(), self.epochs);
        }
        let manifest = training.run(seed, folder, &keep, &mut |report| {
            if !self.json {
                print_epoch(report, report.epoch == begun + 1);
            }
            Ok(())
        })?;
        match is_finished {
            true => eprintln!(
                "{}: already finished with these inputs and options; nothing was changed",
                folder.display()
            ),
            false if self.json => {}
            false => println!("written to {}", folder.display()),
        }
        Ok(manifest)
    }
}

fn print_epoch(report: &EpochReport, is_first: bool) {
    let EpochReport { epoch, loss, accuracy, val_loss, val_accuracy, seconds } = report;
    if is_first {
        let val = if val_loss.is_some() { "  val loss  val accuracy" } else { "" };
        println!("epoch     loss  accuracy{val}  seconds");
    }
    let val = val_loss
        .zip(*val_accuracy)
        .map_or(String::new(), |(loss, accuracy)| format!("  {loss:>8.4}  {:>10.2} %", 100.0 * accuracy));
    println!("{epoch:>5}  {loss:>7.4}  {:>6.2} %{val}  {seconds:>7.1}", 100.0 * accuracy);
}

/// Trains, with a line per epoch.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    shared::check_folder(&args.out)?;
    let device = args.device.open()?;
    let exclude = args.exclude.as_deref().map(Pick::from);
    let training = Training::open(device, args.sources(), args.arch.as_deref(), exclude, args.options())?;
    training.notes().iter().for_each(|note| eprintln!("{note}"));
    ranks().first(|| training.check_out(&args.out))?;
    let Some(count) = args.seeds else {
        let manifest = args.train(&training, args.seed, &args.out)?;
        if args.json {
            println!("{manifest}");
        }
        return Ok(Exit::Done);
    };
    let last = args.seed.checked_add(u64::from(count) - 1);
    let last = last.ok_or_else(|| Error::config("--seed and --seeds go beyond the largest seed there is"))?;
    let folder = |seed: u64| args.out.join(format!("seed-{seed}"));
    let mut finished = BTreeMap::new();
    for seed in args.seed..=last {
        if let Some(manifest) = training.finished(seed, &folder(seed))? {
            finished.insert(seed, manifest);
        }
    }
    let left = count as usize - finished.len();
    let seconds = if left > 0 { training.cost()? } else { 0.0 };
    let words = if count == 1 { "model" } else { "models" };
    eprintln!(
        "{count} {words}: {} finished, {left} to train, about {:.0} s ({seconds:.1} s each, {} epochs of {} samples)",
        finished.len(),
        seconds * left as f64,
        args.epochs,
        training.count()
    );
    let mut models = vec![];
    for seed in args.seed..=last {
        let (manifest, kept) = match finished.remove(&seed) {
            Some(manifest) => (manifest, true),
            None => (args.train(&training, seed, &folder(seed))?, false),
        };
        if kept && !args.json {
            println!("{} is finished; kept", folder(seed).display());
        }
        models.push(json!({"seed": seed, "folder": folder(seed), "kept": kept, "train": manifest}));
    }
    if args.json {
        println!("{}", json!({"models": models}));
    }
    Ok(Exit::Done)
}
