//! Training a model as a whole: a new one or one that exists, its data, and the folder that it is written to.
//!
//! ```text
//! Training::open (files)   ─ run   → a folder: model.safetensors, config.json, train.json
//! Training::new  (memory)  ─ train → Trained
//! ```
//!
//! `train.rs` has the steps of the optimizer. The same options give the same bytes either way.

mod folder;
mod options;
mod progress;
mod reading;
mod trained;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde_json::{Value, json};

pub use options::TrainOptions;
use progress::Reached;
use reading::{check_sources, existing_model, rest};
pub use trained::{EpochReport, Trained};

use crate::data::tokenizer::Tokenizer;
use crate::data::{
    self, Augment, InputKind, Loaded, Names, Normalise, Pipeline, Samples, Steps, TokenizerSource, pad_alike,
};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::hash;
use crate::net::{Network, TrainPass};
use crate::observe::evaluate;
use crate::options::Pick;
use crate::outcome::set_parameters;
use crate::session::{Sources, check_samples, fits};
use crate::train::{After, Epoch, train_after};
use crate::zoo::{self, TextSizes};

/// What is trained.
#[derive(Clone)]
pub enum Start {
    /// A new model of this description, as `mlp:100` (docs/MODELS.md).
    New(String),
    /// A network that exists, with its parameters, and the `config.json` that goes with it.
    Network(Box<Network>, Value),
}

/// What is done after every epoch with the pass, the config and all reports.
type AfterEpoch<'a> = dyn FnMut(&mut TrainPass, &Value, &[EpochReport]) -> Result<()> + 'a;

/// The files of a training.
struct Files {
    sources: Sources,
    arch: Option<String>,
    /// The folder of the model, where it has one.
    own: Option<PathBuf>,
    /// SHA-256 of the model's files, where it has some.
    model_sha256: Option<String>,
    /// SHA-256 of every file of the data.
    data_sha256: BTreeMap<String, String>,
    /// SHA-256 of every file of the validation data.
    validation_sha256: Option<BTreeMap<String, String>>,
}

/// A model and its data, ready to be trained.
#[derive(Clone)]
pub struct Training {
    device: Device,
    start: Start,
    options: TrainOptions,
    samples: Arc<Samples>,
    validation: Option<Arc<Samples>>,
    exclude: Option<Pick>,
    excluded: Vec<usize>,
    /// The samples that are trained on.
    indices: Vec<usize>,
    /// The names of the classes.
    classes: Option<Vec<String>>,
    /// What made token ids of texts.
    tokenizer: Option<Arc<Tokenizer>>,
    /// The steps of pictures, where some were asked for.
    pipeline: Option<Pipeline>,
    normalise: Normalise,
    augment: Augment,
    files: Option<Arc<Files>>,
    notes: Vec<String>,
    stop: Arc<AtomicBool>,
}

impl Training {
    /// A training of values in memory, which are as the network takes them.
    ///
    /// # Errors
    /// Where the samples do not fit the network or each other, or an option makes no sense.
    pub fn new(
        device: Device,
        start: Start,
        samples: impl Into<Arc<Samples>>,
        validation: Option<Arc<Samples>>,
        exclude: Option<Pick>,
        options: TrainOptions,
    ) -> Result<Training> {
        options.check()?;
        let samples = samples.into();
        if let Some(set) = validation.as_ref().filter(|set| set.kind != samples.kind) {
            let reason = format!("the validation samples are {}, the others {}", set.kind, samples.kind);
            return Err(Error::config(reason));
        }
        let excluded = match &exclude {
            Some(pick) => pick.choose(None, &samples.y, &Names::default())?,
            None => vec![],
        };
        let training = Training {
            device,
            start,
            augment: Augment::of(&samples, options.shift, options.flip, &Normalise::default())?,
            indices: rest(&samples, &excluded, "the data")?,
            options,
            samples,
            validation,
            exclude,
            excluded,
            classes: None,
            tokenizer: None,
            pipeline: None,
            normalise: Normalise::default(),
            files: None,
            notes: vec![],
            stop: Arc::default(),
        };
        training.check_start()?;
        Ok(training)
    }

    /// Opens the files of a training: the data and validation data of `sources`, and its model, or with `arch` a new one.
    ///
    /// # Errors
    /// Where a file cannot be read or does not fit the others; where there is neither a model nor `arch`, or both.
    pub fn open(
        device: Device,
        sources: Sources,
        arch: Option<&str>,
        exclude: Option<Pick>,
        options: TrainOptions,
    ) -> Result<Training> {
        options.check()?;
        let model = !sources.model.as_os_str().is_empty();
        check_sources(&sources, arch, model, &options)?;
        let existing = if model { Some(sources.checkpoint(&sources.model)?) } else { None };
        let mut reading = sources.load_options(existing.as_ref());
        if let Some(TextSizes { token_ids, positions }) = arch.and_then(zoo::text_sizes) {
            reading.expected.positions = Some(positions);
            if let (TokenizerSource::Made(size), Some(count)) = (&mut reading.texts.tokenizer, token_ids) {
                *size = count;
            }
        }
        let own = existing.as_ref().and_then(|model| model.folder().canonicalize().ok());
        let normalise = reading.normalise.or(&reading.config);
        let path = &sources.data;
        let loaded = data::load_with(path, &reading)?;
        let note = |path: &Path, notes: &[String]| -> Vec<String> {
            notes.iter().map(|note| format!("{}: {note}", path.display())).collect()
        };
        let mut notes = note(path, &loaded.notes);
        reading.go_on(loaded.names.classes.as_ref(), loaded.tokenizer.as_ref());
        let mut validation = None;
        if let Some(path) = &sources.validation {
            let loaded = data::load_with(path, &reading)?;
            notes.extend(note(path, &loaded.notes));
            validation = Some(loaded.samples);
        }
        let Loaded { mut samples, mut names, pipeline, tokenizer, .. } = loaded;
        names.classes = names.classes.or(reading.expected.classes);
        pad_alike(&mut std::iter::once(&mut samples).chain(&mut validation).collect::<Vec<_>>());
        let excluded = match &exclude {
            Some(pick) => pick.choose(Some(path), &samples.y, &names)?,
            None => vec![],
        };
        if let Some(pick) = &exclude {
            notes.extend(pick.header(&names)?);
            notes.push(format!("left out: {}", data::listing(&excluded, &samples.y, &names)));
        }
        let indices = rest(&samples, &excluded, &path.display().to_string())?;
        let mut model_sha256 = None;
        let start = match (arch, existing) {
            (Some(arch), _) => Start::New(arch.into()),
            (None, Some(checkpoint)) => {
                model_sha256 = Some(hash::of_files_at(checkpoint.contents())?);
                let (network, config) = existing_model(&checkpoint, &sources, &samples, &mut notes)?;
                Start::Network(Box::new(network), config)
            }
            (None, None) => return Err(Error::config("--arch or --model says what to train")),
        };
        let augment = Augment::of(&samples, options.shift, options.flip, &normalise)?;
        let data_sha256 = hash::of_files(path)?;
        let validation_sha256 = sources.validation.as_deref().map(hash::of_files).transpose()?;
        let arch = arch.map(String::from);
        let training = Training {
            device,
            start,
            options,
            validation: validation.map(Arc::new),
            samples: Arc::new(samples),
            exclude,
            excluded,
            indices,
            classes: names.classes,
            tokenizer,
            pipeline: pipeline.filter(|_| sources.steps != Steps::default()),
            normalise,
            augment,
            files: Some(Arc::new(Files { sources, arch, own, model_sha256, data_sha256, validation_sha256 })),
            notes,
            stop: Arc::default(),
        };
        training.check_start()?;
        Ok(training)
    }

    /// With a flag that, once set, ends a training before its next batch.
    pub fn with_stop(mut self, stop: Arc<AtomicBool>) -> Training {
        self.stop = stop;
        self
    }

    /// How the files were read, where they could have been read otherwise, what is left out, and what was assumed of a model: a
    /// sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What its samples are.
    pub fn kind(&self) -> InputKind {
        self.samples.kind
    }

    /// How many samples it trains on.
    pub fn count(&self) -> usize {
        self.indices.len()
    }

    /// Refuses samples that the model cannot take.
    fn check_start(&self) -> Result<()> {
        match &self.start {
            Start::New(_) => Ok(()), // it is made for the samples
            Start::Network(network, _) => self.check_samples(network),
        }
    }

    /// Refuses samples that a network cannot take; the message names file and sample.
    fn check_samples(&self, network: &Network) -> Result<()> {
        let Some(Files { sources, .. }) = self.files.as_deref() else {
            let sets =
                [(Some(&self.samples), "the samples"), (self.validation.as_ref(), "the validation samples")];
            let given = sets.into_iter().filter_map(|(set, what)| Some((set?, what)));
            return given.into_iter().try_for_each(|(set, what)| fits(network, set, what));
        };
        check_samples(&sources.data, &self.samples, network)?;
        let (Some(set), Some(path)) = (&self.validation, &sources.validation) else { return Ok(()) };
        if set.kind != self.samples.kind {
            return Err(zoo::other_inputs(path, set.kind, "--data has", self.samples.kind));
        }
        check_samples(path, set, network)
    }

    /// The path of the data, for messages.
    fn data(&self) -> &Path {
        self.files.as_ref().map_or(Path::new("the data"), |files| &files.sources.data)
    }

    /// The network to start from, and the `config.json` that goes with it.
    fn start(&self, seed: u64) -> Result<(Network, Value)> {
        let (net, mut config) = match &self.start {
            Start::Network(network, config) => ((**network).clone(), config.clone()),
            Start::New(arch) => {
                let named = self.classes.as_ref().map(Vec::len); // also those that no sample has
                let classes =
                    data::class_count(self.data(), &self.samples.y, self.options.classes.or(named))?;
                let mut made = zoo::create(&self.sized(arch)?, self.samples.kind, classes, seed)?;
                made.network.loss = self.options.loss(&self.samples.y)?;
                if let Some(config) = made.config.as_object_mut() {
                    zoo::write_loss(config, made.network.loss);
                    let special = self.tokenizer.iter().flat_map(|tokenizer| tokenizer.special().keys());
                    config.extend(special.map(|(key, id)| (key.to_string(), json!(id))));
                }
                self.check_samples(&made.network)?;
                (made.network, made.config)
            }
        };
        if let Some(map) = config.as_object_mut() {
            if let Some(Files { sources: Sources { choices, .. }, .. }) = self.files.as_deref() {
                let heads =
                    choices.heads.iter().map(|heads| ("num_attention_heads".to_string(), json!(heads)));
                map.extend(heads);
                map.extend(choices.stem.iter().map(|stem| ("stem".to_string(), json!(stem))));
            }
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
    fn sized(&self, arch: &str) -> Result<String> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(arch.into()) };
        match zoo::text_sizes(arch).and_then(|sizes| sizes.token_ids) {
            Some(count) if count < tokenizer.vocabulary() => Err(Error::config(format!(
                "--arch {arch} has {count} token ids, and the tokenizer {}; leave the number out, or raise it",
                tokenizer.vocabulary()
            ))),
            _ => Ok(zoo::with_token_ids(arch, tokenizer.vocabulary())),
        }
    }

    /// Seconds that one training takes, by the second of two batches (the first one warms up).
    ///
    /// # Errors
    /// As [`Training::train`].
    pub fn cost(&self) -> Result<f64> {
        let (mut net, _) = self.start(self.options.seed)?;
        let batch = self.options.batch_size.min(self.indices.len());
        let mut pass = TrainPass::new(&self.device, &mut net, batch, self.options.optimizer)?;
        let mut seconds = 0.0;
        for _ in 0..2 {
            let start = Instant::now();
            pass.step(&self.samples.subset(&self.indices[..batch]))?;
            seconds = start.elapsed().as_secs_f64();
        }
        Ok(seconds * self.options.epochs as f64 * self.indices.len().div_ceil(batch) as f64)
    }

    /// Trains one model in memory; `each` is called after every epoch, and may end the training with an error.
    ///
    /// # Errors
    /// Where the model cannot be made or does not fit the data, or the loss is no longer finite; those of `each`;
    /// [`Error::Interrupted`] where it was stopped.
    pub fn train(&self, seed: u64, each: &mut dyn FnMut(&EpochReport) -> Result<()>) -> Result<Trained> {
        let one = |training: &Training, each: &mut dyn FnMut(&EpochReport) -> Result<()>| {
            let (network, config) = training.start(seed)?;
            let mut after = |_: &mut TrainPass, _: &Value, reports: &[EpochReport]| {
                reports.last().map_or(Ok(()), &mut *each)
            };
            training.go(seed, network, config, None, &mut after)
        };
        self.together(
            |training| one(training, &mut *each),
            |training| one(training, &mut |_| Ok(())).map(drop),
        )
    }

    /// Trains on each GPU of the device. Only the first one reports.
    fn together<R>(
        &self,
        first: impl FnOnce(&Training) -> Result<R>,
        others: impl Fn(&Training) -> Result<()> + Sync,
    ) -> Result<R> {
        if self.device.count() == 1 {
            return first(self);
        }
        let on = |device: &Device| Training { device: device.clone(), ..self.clone() };
        self.device.together(|device| first(&on(device)), |device| others(&on(device)))
    }

    /// Trains from the beginning, or from where it was stopped.
    fn go(
        &self,
        seed: u64,
        mut network: Network,
        config: Value,
        from: Option<Reached>,
        each: &mut AfterEpoch,
    ) -> Result<Trained> {
        let started = Instant::now();
        let recipe = self.options.recipe(&self.augment, seed);
        let (mut epochs, memory) = match from {
            Some(Reached { epochs, values, memory }) => {
                set_parameters(&mut network, &values)?;
                (epochs, memory)
            }
            None => (vec![], vec![]),
        };
        let before = epochs.last().map_or(0.0, |report| report.seconds);
        let after = After { epochs: epochs.len(), memory: &memory };
        let mut then = |pass: &mut TrainPass, epoch: Epoch| {
            let of_validation =
                |set: &Arc<Samples>| evaluate(&self.device, &pass.network()?.freeze(), &**set);
            let scores = self.validation.as_ref().map(of_validation).transpose()?;
            epochs.push(EpochReport::new(epoch, scores.as_ref(), before + started.elapsed().as_secs_f64()));
            each(pass, &config, &epochs)?;
            Ok(true)
        };
        train_after(
            &self.device,
            &mut network,
            &self.samples,
            &self.indices,
            &recipe,
            after,
            &self.stop,
            &mut then,
        )?;
        Ok(Trained { network, config, tokenizer: self.tokenizer.clone(), epochs })
    }
}
