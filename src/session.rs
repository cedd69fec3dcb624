//! A session: a device, a model and its data, on which requests are carried out.
//!
//! It is opened from files ([`Session::open`]) or made of values in memory ([`Session::new`]). The command line, and every
//! program that uses the library, goes this way (`estimate.rs` and `run.rs` hold the three methods on the right):
//!
//! ```text
//! Session ─ Request::new → Request ─ estimate → Estimate   (nothing is written)
//!                                  ├ scrub    → Scrubbed   (in memory)
//!                                  └ run      → Outcome    (a folder: model, report, records to go on from)
//! ```

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::checkpoint::Checkpoint;
use crate::data::{self, CifarLabels, LoadOptions, Loaded, Normalise, Samples};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::net::Network;
use crate::zoo::{self, Choices, Model};

/// The files of a session.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The model: a `.safetensors` file, one of torch.save's, or a directory with such a file and `config.json`.
    pub model: PathBuf,
    /// What the tensors of the model do not tell.
    pub choices: Choices,
    /// Patterns of tensors that play no part in the logits, as `aux.*`; they are written unchanged.
    pub ignore: Vec<String>,
    /// Keys of the weights in PyTorch files that have several, as `state_dict`: the first that a file has is taken.
    pub weights: Vec<String>,
    /// The training data, or the part of it at hand.
    pub data: PathBuf,
    /// Mean and standard deviation in place of the config's.
    pub normalise: Normalise,
    /// Which labels of CIFAR-100.
    pub cifar_labels: CifarLabels,
    /// A set to remove that is not among the data.
    pub forget_data: Option<PathBuf>,
    /// Validation data: calibration, and the gate.
    pub validation: Option<PathBuf>,
    /// The model of an earlier epoch, for finite differences.
    pub earlier: Option<PathBuf>,
}

impl Sources {
    /// A model and its training data, and nothing else.
    pub fn new(model: impl Into<PathBuf>, data: impl Into<PathBuf>) -> Sources {
        Sources { model: model.into(), data: data.into(), ..Sources::default() }
    }

    /// Reads a model's files.
    fn checkpoint(&self, model: &Path) -> Result<Checkpoint> {
        Checkpoint::open_with(model, &self.ignore, &self.weights)
    }

    /// Reads data of a model, normalised as these files are.
    ///
    /// # Errors
    /// As [`data::load_with`].
    pub fn load(&self, path: &Path, checkpoint: &Checkpoint) -> Result<Loaded> {
        let config = zoo::inputs(checkpoint);
        let options = LoadOptions {
            normalise: self.normalise.clone(),
            config: Normalise { mean: config.mean, std: config.std },
            labels: self.cifar_labels,
        };
        data::load_with(path, &options)
    }
}

/// What a session was opened from.
struct Files {
    sources: Sources,
    checkpoint: Checkpoint,
    earlier: Option<Checkpoint>,
    manifest: Option<Manifest>,
}

/// How far a request is, for [`Session::on_progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Batches that are done.
    pub done: usize,
    /// All batches.
    pub batches: usize,
}

/// What is called when a run begins and after every batch.
type OnProgress = dyn Fn(Progress) + Send + Sync;

/// A device, a model and its data.
pub struct Session {
    device: Device,
    network: Network,
    family: &'static str,
    samples: Arc<Samples>,
    beside: Option<Range<usize>>,
    validation: Option<Arc<Samples>>,
    earlier: Option<Network>,
    files: Option<Files>,
    notes: Vec<String>,
    stop: Arc<AtomicBool>,
    progress: Option<Box<OnProgress>>,
    command: Option<String>,
}

impl Session {
    /// A session of values in memory: a frozen network, and the data that it was trained on.
    ///
    /// # Errors
    /// Where the network is not frozen, or the data do not fit it.
    pub fn new(device: Device, network: Network, samples: impl Into<Arc<Samples>>) -> Result<Session> {
        let samples = samples.into();
        if !network.is_frozen() {
            return Err(Error::config("the network is in train form; freeze it first"));
        }
        fits(&network, &samples, "the samples")?;
        Ok(Session {
            device,
            network,
            family: "in memory",
            samples,
            beside: None,
            validation: None,
            earlier: None,
            files: None,
            notes: vec![],
            stop: Arc::default(),
            progress: None,
            command: None,
        })
    }

    /// Opens the files of a session.
    ///
    /// # Errors
    /// Where a file cannot be read, or does not fit the others; the message names it.
    pub fn open(device: Device, sources: Sources) -> Result<Session> {
        let checkpoint = sources.checkpoint(&sources.model)?;
        let mut notes = vec![];
        let mut read = |path: &Path| -> Result<Samples> {
            let Loaded { samples, notes: more } = sources.load(path, &checkpoint)?;
            notes.extend(more.iter().map(|note| format!("{}: {note}", path.display())));
            Ok(samples)
        };
        let mut samples = read(&sources.data)?;
        let Model { network, family, facts, .. } =
            open_model(&checkpoint, &sources.choices, &sources.data, &samples)?;
        let network = network.freeze();
        let mut like = |path: &Path, samples: &Samples| -> Result<Samples> {
            let more = read(path)?;
            if more.kind != samples.kind {
                let reason = format!("has {}, --data has {}", more.kind, samples.kind);
                return Err(Error::data(path, reason));
            }
            check_samples(path, &more, &network)?;
            Ok(more)
        };
        let validation = sources.validation.as_deref().map(|path| like(path, &samples)).transpose()?;
        let mut beside = None;
        if let Some(path) = &sources.forget_data {
            let more = like(path, &samples)?;
            beside = Some(samples.y.len()..samples.y.len() + more.y.len());
            samples.x.extend(more.x);
            samples.y.extend(&more.y)?;
        }
        notes.extend(facts.notes(checkpoint.path()));
        notes.extend(checkpoint.notes());
        let earlier = sources.earlier.as_deref().map(|path| sources.checkpoint(path)).transpose()?;
        let of_earlier = earlier.as_ref().map(|checkpoint| {
            let model = zoo::load_as(checkpoint, &sources.choices, Some(network.kind()))?;
            notes.extend(model.facts.notes(checkpoint.path()));
            let net = model.network.freeze();
            same_layers(&net, &network, &checkpoint.path().display().to_string())?;
            Ok(net)
        });
        let manifest = Manifest::of(&checkpoint)?;
        Ok(Session {
            device,
            earlier: of_earlier.transpose()?,
            network,
            family,
            samples: Arc::new(samples),
            beside,
            validation: validation.map(Arc::new),
            files: Some(Files { sources, checkpoint, earlier, manifest }),
            notes,
            stop: Arc::default(),
            progress: None,
            command: None,
        })
    }

    /// How the data were read, where they could have been read otherwise, and what was assumed of a model: a sentence
    /// each, with the file's name.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// With validation data, for calibration and the gate.
    ///
    /// # Errors
    /// Where they do not fit the network.
    pub fn with_validation(mut self, samples: impl Into<Arc<Samples>>) -> Result<Session> {
        let samples = samples.into();
        fits(&self.network, &samples, "the validation samples")?;
        self.validation = Some(samples);
        Ok(self)
    }

    /// With the network of an earlier epoch, for finite differences.
    ///
    /// # Errors
    /// Where it has other layers.
    pub fn with_earlier(mut self, network: Network) -> Result<Session> {
        same_layers(&network, &self.network, "the earlier network")?;
        self.earlier = Some(network);
        Ok(self)
    }

    /// With a flag that, once set, ends a run before its next stage; what is recorded is kept.
    pub fn with_stop(mut self, stop: Arc<AtomicBool>) -> Session {
        self.stop = stop;
        self
    }

    /// With a function that is called when a run begins and after every batch.
    pub fn on_progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Session {
        self.progress = Some(Box::new(progress));
        self
    }

    /// With the command that a report tells of.
    pub fn with_command(mut self, command: String) -> Session {
        self.command = Some(command);
        self
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The model as it is before any request, frozen.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The model's family.
    pub fn family(&self) -> &'static str {
        self.family
    }

    /// The training data at hand, with the set beside them at their end.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// The indices of the set that was given beside the training data.
    pub fn beside(&self) -> Option<Range<usize>> {
        self.beside.clone()
    }

    /// The validation data.
    pub fn validation(&self) -> Option<&Samples> {
        self.validation.as_deref()
    }

    /// The network of an earlier epoch.
    pub fn earlier(&self) -> Option<&Network> {
        self.earlier.as_ref()
    }

    /// The files it was opened from.
    pub fn sources(&self) -> Option<&Sources> {
        self.files.as_ref().map(|files| &files.sources)
    }

    /// The model's files, where it was opened from some.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.files.as_ref().map(|files| &files.checkpoint)
    }

    /// The earlier model's files.
    pub fn earlier_checkpoint(&self) -> Option<&Checkpoint> {
        self.files.as_ref()?.earlier.as_ref()
    }

    /// What `train.json` tells of the model.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.files.as_ref()?.manifest.as_ref()
    }

    /// The command that a report tells of.
    pub fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// The flag that ends a run.
    pub fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Tells of progress.
    pub(crate) fn report_progress(&self, done: usize, batches: usize) {
        if let Some(progress) = &self.progress {
            progress(Progress { done, batches });
        }
    }
}

/// Reads a model for the images or texts of a file.
///
/// # Errors
/// As [`zoo::load_as`] and [`check_samples`].
pub fn open_model(
    checkpoint: &Checkpoint,
    choices: &Choices,
    path: &Path,
    samples: &Samples,
) -> Result<Model> {
    let model = zoo::load_as(checkpoint, choices, Some(samples.kind))?;
    check_samples(path, samples, &model.network)?;
    Ok(model)
}

/// Refuses the samples of a file that a network cannot take.
///
/// # Errors
/// Where a label is none of the network's, or a token id is beyond its vocabulary; the message names file and sample.
pub fn check_samples(path: &Path, samples: &Samples, network: &Network) -> Result<()> {
    data::check_labels(path, &samples.y, network.loss, network.classes())?;
    match network.vocabulary() {
        Some(vocabulary) => data::check_ids(path, samples, vocabulary),
        None => Ok(()),
    }
}

fn fits(network: &Network, samples: &Samples, what: &str) -> Result<()> {
    if samples.kind != network.kind() {
        let reason = format!("{what} are {}, the network takes {}", samples.kind, network.kind());
        return Err(Error::config(reason));
    }
    network.check_tokens(&samples.x, 0)?;
    samples.y.check(network.loss, network.classes(), 0)
}

fn same_layers(earlier: &Network, network: &Network, what: &str) -> Result<()> {
    match earlier.layers == network.layers && earlier.input() == network.input() {
        true => Ok(()),
        false => Err(Error::config(format!("{what}: has other layers than --model"))),
    }
}
