//! `scrubjay train`: trains a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use scrubjay::data::tokenizer::Tokenizer;
use scrubjay::data::{
    self, Augment, CifarLabels, Labels, Loaded, Normalise, Pipeline, Samples, Steps, TokenizerSource,
    pad_alike, tensors,
};
use scrubjay::device::Device;
use scrubjay::loss::Loss;
use scrubjay::net::{Network, TrainPass};
use scrubjay::observe::evaluate;
use scrubjay::session::{Sources, check_samples};
use scrubjay::train::{Decayed, Epoch, Optimizer, Recipe, Schedule, train};
use scrubjay::zoo::{self, TextSizes};
use scrubjay::{Error, checkpoint, hash};
use serde_json::{Value, json};

use super::model::{NormaliseArgs, TensorArgs, chosen, load, print_notes};
use super::shared::{self, DeviceArgs, Exit};

/// Train a new model, or continue to train one
///
/// DIR gets model.safetensors and config.json, which --model reads again, and train.json with the
/// options, the SHA-256 of the data, the samples left out and the epochs. A model that is there
/// already is replaced. The same seed gives the same model again; one trained on a GPU differs from
/// one trained on the CPU by rounding. --seeds K trains K models, with seed S in DIR/seed-S, and
/// keeps those that are finished, so that it can be stopped and started again.
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
    #[arg(long, value_name = "E", default_value_t = 20, value_parser = shared::at_least_one)]
    epochs: u32,
    /// Samples per mini-batch
    #[arg(long, value_name = "B", default_value_t = 64, value_parser = shared::at_least_one)]
    batch_size: u32,
    /// The largest learning rate; --schedule lowers it
    #[arg(long, value_name = "RATE", default_value_t = 0.05, value_parser = shared::positive)]
    lr: f32,
    /// Momentum of SGD
    #[arg(long, value_name = "M", default_value_t = 0.9)]
    momentum: f32,
    /// The optimizer: SGD with momentum, or Adam
    #[arg(long, value_enum, value_name = "sgd|adam", default_value_t = Optimizer::Sgd)]
    optimizer: Optimizer,
    /// Weight decay, as PyTorch's optimizers have it
    #[arg(long, value_name = "W", default_value_t = 5e-4)]
    weight_decay: f32,
    /// The parameters that weight decay is for
    #[arg(long, value_enum, value_name = "all|weights", default_value_t = Decayed::All)]
    decay: Decayed,
    /// Epochs at the beginning in which the learning rate rises to --lr
    #[arg(long, value_name = "E", default_value_t = 0)]
    warm_up: u32,
    /// Shift each image at random by up to this many pixels in each direction, whenever it is trained on; what is uncovered is
    /// black. 4 is usual for CIFAR
    #[arg(long, value_name = "PIXELS", default_value_t = 0)]
    shift: u32,
    /// Mirror each image left to right with probability 1/2, whenever it is trained on
    #[arg(long)]
    flip: bool,
    /// How the learning rate falls
    #[arg(long, value_enum, value_name = "constant|cosine|step", default_value_t = Schedule::Cosine)]
    schedule: Schedule,
    /// The seed of initial weights and the order of samples
    #[arg(long, value_name = "S", default_value_t = 0)]
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

/// What all seeds have in common.
struct Task<'a> {
    args: &'a Args,
    device: Device,
    samples: Samples,
    /// The names of their classes.
    classes: Option<Vec<String>>,
    /// What made token ids of texts.
    tokenizer: Option<Arc<Tokenizer>>,
    /// Their steps, where some were asked for.
    pipeline: Option<Pipeline>,
    val: Option<Samples>,
    normalise: Normalise,
    /// What is changed in images at random.
    augment: Augment,
    existing: Option<checkpoint::Checkpoint>,
    excluded: Vec<usize>,
    /// The samples that are trained on.
    indices: Vec<usize>,
    /// SHA-256 of every file of the data.
    data_sha256: BTreeMap<String, String>,
}

/// Trains, with a line per epoch.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let task = Task::open(args)?;
    let Some(count) = args.seeds else {
        let manifest = task.train(args.seed, &args.out)?;
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
        if let Some(manifest) = task.finished(seed, &folder(seed))? {
            finished.insert(seed, manifest);
        }
    }
    let left = count as usize - finished.len();
    let seconds = if left > 0 { task.cost()? } else { 0.0 };
    let words = if count == 1 { "model" } else { "models" };
    eprintln!(
        "{count} {words}: {} finished, {left} to train, about {:.0} s ({seconds:.1} s each, {} epochs of {} samples)",
        finished.len(),
        seconds * left as f64,
        args.epochs,
        task.indices.len()
    );
    let mut models = vec![];
    for seed in args.seed..=last {
        let (manifest, kept) = match finished.remove(&seed) {
            Some(manifest) => (manifest, true),
            None => (task.train(seed, &folder(seed))?, false),
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

impl<'a> Task<'a> {
    /// Reads data and model, and opens the device.
    fn open(args: &'a Args) -> scrubjay::Result<Task<'a>> {
        if args.model.is_none() && !args.tensors.is_empty() {
            return Err(Error::config("--heads, --stem, --ignore and --weights are for --model"));
        }
        let existing = args.model.as_deref().map(|path| args.tensors.checkpoint(path)).transpose()?;
        let mut sources = Sources { choices: args.tensors.choices(), ..Sources::default() };
        args.normalise.write(&mut sources);
        let mut options = sources.load_options(existing.as_ref());
        if let Some(TextSizes { token_ids, positions }) = args.arch.as_deref().and_then(zoo::text_sizes) {
            options.expected.positions = Some(positions);
            if let (TokenizerSource::Made(size), Some(count)) = (&mut options.texts.tokenizer, token_ids) {
                *size = count;
            }
        }
        let normalise = options.normalise.or(&options.config);
        let loaded = load(&args.data, &options)?;
        options.go_on(loaded.names.classes.as_ref(), loaded.tokenizer.as_ref());
        let mut val =
            args.val.as_deref().map(|path| load(path, &options)).transpose()?.map(|val| val.samples);
        let Loaded { mut samples, mut names, pipeline, tokenizer, .. } = loaded;
        let pipeline = pipeline.filter(|_| sources.steps != Steps::default());
        names.classes = names.classes.or(options.expected.classes);
        pad_alike(&mut std::iter::once(&mut samples).chain(&mut val).collect::<Vec<_>>());
        let excluded = match &args.exclude {
            Some(text) => chosen("left out", text, &args.data, &samples.y, &names)?,
            None => vec![],
        };
        let mut used = vec![true; samples.y.len()];
        excluded.iter().for_each(|&i| used[i] = false);
        let indices: Vec<usize> = (0..samples.y.len()).filter(|&i| used[i]).collect();
        if indices.is_empty() {
            let left = if excluded.is_empty() {
                "holds no samples"
            } else {
                "--exclude leaves no samples to train on"
            };
            return Err(Error::config(format!("{}: {left}", args.data.display())));
        }
        let folder = existing.as_ref().and_then(|model| model.folder().canonicalize().ok());
        if folder.is_some_and(|folder| args.out.canonicalize().is_ok_and(|out| out == folder)) {
            return Err(Error::config("--out is the folder of --model, which would be overwritten"));
        }
        let augment = Augment::of(&samples, args.shift as usize, args.flip, &normalise)?;
        let data_sha256 = hash::of_files(&args.data)?;
        let device = args.device.open()?;
        Ok(Task {
            args,
            device,
            samples,
            classes: names.classes,
            tokenizer,
            pipeline,
            val,
            normalise,
            augment,
            existing,
            excluded,
            indices,
            data_sha256,
        })
    }

    fn options(&self, seed: u64) -> Recipe {
        let args = self.args;
        Recipe {
            epochs: args.epochs as usize,
            batch: args.batch_size as usize,
            rate: args.lr,
            momentum: args.momentum,
            optimizer: args.optimizer,
            weight_decay: args.weight_decay,
            decayed: args.decay,
            schedule: args.schedule,
            warm_up: args.warm_up as usize,
            augment: self.augment.clone(),
            seed,
        }
    }

    /// The loss of a new network: what its labels ask for.
    fn loss(&self) -> scrubjay::Result<Loss> {
        let smoothing = self.args.label_smoothing;
        let loss = match self.samples.y {
            Labels::Classes(_) => Loss::CrossEntropy { smoothing: smoothing.unwrap_or(0.0) },
            Labels::Multi { .. } if smoothing.is_some() => {
                return Err(Error::config("--label-smoothing is for samples of one class each"));
            }
            Labels::Multi { .. } => Loss::BinaryCrossEntropy,
        };
        loss.check()?;
        Ok(loss)
    }

    /// The network to start from, and the `config.json` that goes with it.
    fn start(&self, seed: u64) -> scrubjay::Result<(Network, Value)> {
        let (net, mut config) = match (&self.existing, &self.args.arch) {
            (Some(checkpoint), _) => {
                let model = zoo::load_as(checkpoint, &self.args.tensors.choices(), Some(self.samples.kind))?;
                print_notes(checkpoint, &model.facts);
                let config = checkpoint.config().cloned();
                (model.network, config.unwrap_or(json!({"architecture": model.family})))
            }
            (None, Some(arch)) => {
                let named = self.classes.as_ref().map(Vec::len); // also those that no sample has
                let classes =
                    data::class_count(&self.args.data, &self.samples.y, self.args.classes.or(named))?;
                let mut made = zoo::create(&self.sized(arch)?, self.samples.kind, classes, seed)?;
                made.network.loss = self.loss()?;
                if let Some(config) = made.config.as_object_mut() {
                    zoo::write_loss(config, made.network.loss);
                    let special = self.tokenizer.iter().flat_map(|tokenizer| tokenizer.special().keys());
                    config.extend(special.map(|(key, id)| (key.to_string(), json!(id))));
                }
                (made.network, made.config)
            }
            (None, None) => return Err(Error::config("--arch or --model says what to train")),
        };
        check_samples(&self.args.data, &self.samples, &net)?;
        if let (Some(val), Some(path)) = (&self.val, &self.args.val) {
            if val.kind != self.samples.kind {
                let reason = format!("has {}, --data has {}", val.kind, self.samples.kind);
                return Err(Error::data(path, reason));
            }
            check_samples(path, val, &net)?;
        }
        if let Some(map) = config.as_object_mut() {
            self.args.tensors.write(map);
            self.normalise.mean.iter().for_each(|mean| drop(map.insert("mean".into(), json!(mean))));
            if let Some(names) = self.classes.as_ref().filter(|names| names.len() == net.classes()) {
                let names = names.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name)));
                map.insert("id2label".into(), names.collect());
            }
            self.pipeline.iter().for_each(|pipeline| zoo::write_preprocess(map, pipeline));
            self.normalise.std.iter().for_each(|std| drop(map.insert("std".into(), json!(std))));
        }
        Ok((net, config))
    }

    /// A description of a new model with the token ids of the tokenizer, where there is one.
    fn sized(&self, arch: &str) -> scrubjay::Result<String> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(arch.into()) };
        match zoo::text_sizes(arch).and_then(|sizes| sizes.token_ids) {
            Some(count) if count < tokenizer.vocabulary() => Err(Error::config(format!(
                "--arch {arch} has {count} token ids, and the tokenizer {}; leave the number out, or raise it",
                tokenizer.vocabulary()
            ))),
            _ => Ok(zoo::with_token_ids(arch, tokenizer.vocabulary())),
        }
    }

    /// The part of `train.json` that is known before the training.
    fn manifest(&self, seed: u64) -> Value {
        json!({
            "scrubjay": env!("CARGO_PKG_VERSION"),
            "arch": self.args.arch,
            "model": self.args.model,
            "read_by": (!self.args.tensors.is_empty()).then(|| self.args.tensors.given()),
            "data": self.args.data,
            "data_sha256": self.data_sha256,
            "n": self.indices.len(),
            "exclude": self.args.exclude,
            "excluded": self.excluded,
            "cifar_labels": (self.args.normalise.cifar_labels == CifarLabels::Coarse).then_some("coarse"),
            "normalise": {"mean": self.normalise.mean, "std": self.normalise.std},
            "preprocess": self.pipeline,
            "classes": self.args.classes,
            "options": self.options(seed),
        })
    }

    /// The `train.json` of a training that was finished.
    ///
    /// # Errors
    /// Where the folder holds another training; it is not overwritten.
    fn finished(&self, seed: u64, folder: &Path) -> scrubjay::Result<Option<Value>> {
        let path = folder.join("train.json");
        if !path.exists() {
            return Ok(None);
        }
        let found: Value = serde_json::from_slice(&tensors::read(&path)?)
            .map_err(|e| Error::data(&path, format!("is not JSON: {e}")))?;
        let wanted = self.manifest(seed);
        let known = |of: &Value, key: &str| of.get(key).cloned().unwrap_or_default();
        let differs = |key: &&String| *key != "scrubjay" && known(&found, key) != known(&wanted, key);
        match wanted.as_object().and_then(|wanted| wanted.keys().find(differs)) {
            None => Ok(Some(found)),
            Some(key) => {
                let (there, here) = (&found[key], &wanted[key]);
                let reason =
                    format!("is of another training: {key} was {there} and is {here}; choose another --out");
                Err(Error::config(format!("{}: {reason}", path.display())))
            }
        }
    }

    /// Seconds that one training takes, by the second of two batches (the first one warms up).
    fn cost(&self) -> scrubjay::Result<f64> {
        let (mut net, _) = self.start(self.args.seed)?;
        let batch = (self.args.batch_size as usize).min(self.indices.len());
        let mut pass = TrainPass::new(&self.device, &mut net, batch, self.options(self.args.seed).optimizer)?;
        let mut seconds = 0.0;
        for _ in 0..2 {
            let start = Instant::now();
            pass.step(&self.samples.subset(&self.indices[..batch]))?;
            seconds = start.elapsed().as_secs_f64();
        }
        Ok(seconds * f64::from(self.args.epochs) * self.indices.len().div_ceil(batch) as f64)
    }

    /// Trains one model into `folder`; `train.json` is written last and marks it as finished.
    fn train(&self, seed: u64, folder: &Path) -> anyhow::Result<Value> {
        let (args, device) = (self.args, &self.device);
        let (mut net, config) = self.start(seed)?;
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let started = Instant::now();
        let mut epochs = vec![];
        if !args.json {
            let val = if self.val.is_some() { "  val loss  val accuracy" } else { "" };
            println!("epoch     loss  accuracy{val}  seconds");
        }
        let options = self.options(seed);
        let save = |folder: &Path, net: &Network| -> scrubjay::Result<()> {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
            checkpoint::save(&folder.join("model.safetensors"), net)?;
            self.tokenizer.as_ref().map_or(Ok(()), |tokenizer| tokenizer.save(folder))?;
            write_json(&folder.join("config.json"), &config)
        };
        train(device, &mut net, &self.samples, &self.indices, &options, &mut |net, epoch: Epoch| {
            let scores = self.val.as_ref().map(|val| evaluate(device, &net.freeze(), val)).transpose()?;
            let seconds = started.elapsed().as_secs_f64();
            if !args.json {
                let val = scores.as_ref().map_or(String::new(), |scores| {
                    format!("  {:>8.4}  {:>10.2} %", scores.mean_loss(), 100.0 * scores.accuracy())
                });
                let Epoch { epoch, loss, accuracy } = epoch;
                println!("{epoch:>5}  {loss:>7.4}  {:>6.2} %{val}  {seconds:>7.1}", 100.0 * accuracy);
            }
            epochs.push(json!({
                "epoch": epoch.epoch, "loss": epoch.loss, "accuracy": epoch.accuracy,
                "val_loss": scores.as_ref().map(|s| s.mean_loss()),
                "val_accuracy": scores.as_ref().map(|s| s.accuracy()),
                "seconds": seconds,
            }));
            if args.keep_epochs.iter().any(|&kept| kept as usize == epoch.epoch) {
                save(&folder.join(format!("epoch-{}", epoch.epoch)), net)?;
            }
            Ok(true)
        })?;
        save(folder, &net)?;
        let mut manifest = self.manifest(seed);
        manifest["device"] = json!(device.report());
        manifest["epochs"] = json!(epochs);
        write_json(&folder.join("train.json"), &manifest)?;
        if !args.json {
            println!("written to {}", folder.display());
        }
        Ok(manifest)
    }
}

fn write_json(path: &Path, value: &Value) -> scrubjay::Result<()> {
    tensors::write_whole(path, format!("{value:#}").as_bytes())
}
