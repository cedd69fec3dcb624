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

mod gpus;
mod sources;
mod versions;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

pub use sources::Sources;

use crate::checkpoint::{Checkpoint, Rows, write_delta};
use crate::data::{self, Names, Normalise, Samples, pad_alike};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::net::Network;
use crate::soft_label::Held;
use crate::zoo::{self, Choices, Facts, Model};

/// What a session was opened from.
struct Files {
    sources: Sources,
    checkpoint: Checkpoint,
    earlier: Option<Checkpoint>,
    proxy: Option<Checkpoint>,
    manifest: Option<Manifest>,
    facts: Facts,
}

/// How far a request is, for [`Session::on_progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Batches that are done.
    pub done: usize,
    /// All batches.
    pub batches: usize,
    /// The phase of the running batch that has just ended, by its name in reports; none between batches.
    pub phase: Option<&'static str>,
}

/// How much a message of [`Session::on_log`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What is being done.
    Info,
    /// What the user should know of the data, the model or the request.
    Warning,
}

/// What is called when a run begins, after every phase of a batch and after every batch.
type OnProgress = dyn Fn(Progress) + Send + Sync;

/// What is called with a message.
type OnLog = dyn Fn(Level, &str) + Send + Sync;

/// A device, a model and its data.
pub struct Session {
    device: Device,
    network: Network,
    family: &'static str,
    samples: Arc<Samples>,
    names: Names,
    normalise: Normalise,
    shows_samples: bool,
    beside: Option<Range<usize>>,
    validation: Option<Arc<Samples>>,
    earlier: Option<Network>,
    proxy: Option<Network>,
    forgotten: Vec<usize>,
    held: Held,
    files: Option<Arc<Files>>,
    notes: Vec<String>,
    hashes: [OnceLock<String>; 2],
    stop: Arc<AtomicBool>,
    progress: Option<Arc<OnProgress>>,
    log: Option<Arc<OnLog>>,
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
            names: Names::default(),
            normalise: Normalise::default(),
            shows_samples: true,
            beside: None,
            validation: None,
            earlier: None,
            proxy: None,
            forgotten: vec![],
            held: Held::default(),
            files: None,
            notes: vec![],
            hashes: Default::default(),
            stop: Arc::default(),
            progress: None,
            log: None,
            command: None,
        })
    }

    /// Opens the files of a session.
    ///
    /// # Errors
    /// Where a file cannot be read, or does not fit the others; the message names it.
    pub fn open(device: Device, sources: Sources) -> Result<Session> {
        let checkpoint = sources.checkpoint(&sources.model)?;
        let mut options = sources.load_options(Some(&checkpoint));
        let (mut notes, mut normalise) = (vec![], None);
        let mut read = |path: &Path| -> Result<(Samples, Names)> {
            let loaded = data::load_with(path, &options)?;
            notes.extend(loaded.notes.iter().map(|note| format!("{}: {note}", path.display())));
            normalise.get_or_insert(loaded.normalise); // that of the training data
            options.go_on(loaded.names.classes.as_ref(), loaded.tokenizer.as_ref());
            Ok((loaded.samples, loaded.names))
        };
        let (mut samples, mut names) = read(&sources.data)?;
        let mut also = |path: &Option<PathBuf>| {
            let set = |path: &Path| -> Result<_> { Ok((path.to_path_buf(), read(path)?.0)) };
            path.as_deref().map(set).transpose()
        };
        let (mut validation, mut more) = (also(&sources.validation)?, also(&sources.forget_data)?);
        names.classes = names.classes.or(options.expected.classes);
        let sets = [&mut validation, &mut more].into_iter().flatten().map(|(_, set)| set);
        pad_alike(&mut std::iter::once(&mut samples).chain(sets).collect::<Vec<_>>());
        let Model { network, family, facts, .. } =
            open_model(&checkpoint, &sources.choices, &sources.data, &samples)?;
        let network = network.freeze();
        for (path, set) in [&validation, &more].into_iter().flatten() {
            if set.kind != samples.kind {
                return Err(zoo::other_inputs(path, set.kind, "--data has", samples.kind));
            }
            check_samples(path, set, &network)?;
        }
        let validation = validation.map(|(_, set)| set);
        let mut beside = None;
        if let Some((_, more)) = more {
            beside = Some(samples.y.len()..samples.y.len() + more.y.len());
            samples.extend(more)?;
        }
        notes.extend(facts.notes(checkpoint.path()));
        notes.extend(checkpoint.notes());
        type Check = fn(&Network, &Network, &str) -> Result<()>;
        let mut beside_it = |path: &Option<PathBuf>, check: Check| -> Result<_> {
            let Some(path) = path else { return Ok((None, None)) };
            let checkpoint = sources.checkpoint(path)?;
            let model = zoo::load_as(&checkpoint, &sources.choices, Some(network.kind()))?;
            notes.extend(model.facts.notes(checkpoint.path()));
            let net = model.network.freeze();
            check(&net, &network, &path.display().to_string())?;
            Ok((Some(checkpoint), Some(net)))
        };
        let (earlier, of_earlier) = beside_it(&sources.earlier, same_layers)?;
        let (proxy, of_proxy) = beside_it(&sources.proxy, same_answers)?;
        let manifest = Manifest::of(&checkpoint)?;
        Ok(Session {
            device,
            earlier: of_earlier,
            proxy: of_proxy,
            network,
            family,
            samples: Arc::new(samples),
            names,
            normalise: normalise.unwrap_or_default(),
            shows_samples: true,
            beside,
            validation: validation.map(Arc::new),
            forgotten: vec![],
            held: Held::default(),
            files: Some(Arc::new(Files { sources, checkpoint, earlier, proxy, manifest, facts })),
            notes,
            hashes: Default::default(),
            stop: Arc::default(),
            progress: None,
            log: None,
            command: None,
        })
    }

    /// How the data were read, where they could have been read otherwise, and what was assumed of a model: a sentence
    /// each, with the file's name.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// With the names of the classes and samples, for requests that choose by them.
    ///
    /// # Errors
    /// Where there are names of more or fewer samples than the session has.
    pub fn with_names(mut self, names: Names) -> Result<Session> {
        names.check(self.samples.y.len())?;
        self.names = names;
        Ok(self)
    }

    /// With validation data, for calibration and the gate.
    ///
    /// # Errors
    /// Where they do not fit the network.
    pub fn with_validation(mut self, samples: impl Into<Arc<Samples>>) -> Result<Session> {
        let samples = samples.into();
        fits(&self.network, &samples, "the validation samples")?;
        self.validation = Some(samples);
        self.hashes = Default::default();
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

    /// With a model that has not seen the samples to remove, frozen, as a hold's proxy.
    ///
    /// # Errors
    /// Where it is not frozen, takes other inputs, or has other classes.
    pub fn with_proxy(mut self, network: Network) -> Result<Session> {
        same_answers(&network, &self.network, "the proxy")?;
        self.proxy = Some(network);
        Ok(self)
    }

    /// With a flag that, once set, ends a run before its next stage; what is recorded is kept.
    pub fn with_stop(mut self, stop: Arc<AtomicBool>) -> Session {
        self.stop = stop;
        self
    }

    /// With a function that is called when a run begins, after every phase of a batch and after every batch, in the thread
    /// that called the run. Where it sets the flag of [`Session::with_stop`], the run ends and the model stays as it was.
    pub fn on_progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Session {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// With a function that is called with messages: at once with the session's notes, then with the warnings of requests
    /// and the notes of batches. It is called in the thread that called the session.
    pub fn on_log(mut self, log: impl Fn(Level, &str) + Send + Sync + 'static) -> Session {
        self.notes.iter().for_each(|note| log(Level::Warning, note));
        self.log = Some(Arc::new(log));
        self
    }

    /// Whether pages of reports show the samples that are to be forgotten, as small pictures or by their first words; by
    /// default they do.
    pub fn with_samples_shown(mut self, shown: bool) -> Session {
        self.shows_samples = shown;
        self
    }

    /// With the command that a report states.
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

    /// The training data that were given, followed by the set beside them.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// What the training data call their classes and samples.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The mean and std that the training data were normalised by, as far as the session knows.
    pub fn normalise(&self) -> &Normalise {
        &self.normalise
    }

    /// Whether pages of reports show samples.
    pub fn shows_samples(&self) -> bool {
        self.shows_samples
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

    /// The model that is given as a hold's proxy.
    pub fn proxy(&self) -> Option<&Network> {
        self.proxy.as_ref()
    }

    /// The files it was opened from.
    pub fn sources(&self) -> Option<&Sources> {
        self.files.as_ref().map(|files| &files.sources)
    }

    /// The model's files, where it was opened from some.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.files.as_ref().map(|files| &files.checkpoint)
    }

    /// What is known of the model and from where, where it was opened from files.
    pub fn facts(&self) -> Option<&Facts> {
        self.files.as_ref().map(|files| &files.facts)
    }

    /// The earlier model's files.
    pub fn earlier_checkpoint(&self) -> Option<&Checkpoint> {
        self.files.as_ref()?.earlier.as_ref()
    }

    /// The proxy's files.
    pub fn proxy_checkpoint(&self) -> Option<&Checkpoint> {
        self.files.as_ref()?.proxy.as_ref()
    }

    /// The network of files that were written of the model's, read as the model was.
    ///
    /// # Errors
    /// Where they cannot be read; where the session was not opened from files.
    pub fn reopened(&self, path: &Path) -> Result<Network> {
        let files = self.files.as_ref().ok_or_else(no_files)?;
        let checkpoint = files.sources.checkpoint(path)?;
        Ok(zoo::load_as(&checkpoint, &files.sources.choices, Some(self.network.kind()))?.network.freeze())
    }

    /// Writes the delta from the model to files that were written of it (`path`), to `out`.
    ///
    /// # Errors
    /// Where a file cannot be read or written; where the session was not opened from files.
    pub fn write_delta(&self, path: &Path, old: bool, out: &Path) -> Result<Rows> {
        let files = self.files.as_ref().ok_or_else(no_files)?;
        let after = files.sources.checkpoint(path)?;
        write_delta(&files.checkpoint, &after, &files.sources.weights, old, out)
    }

    /// What `train.json` has on the model.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.files.as_ref()?.manifest.as_ref()
    }

    /// The command that a report states.
    pub fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// The flag that ends a run.
    pub fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Reports progress.
    pub(crate) fn report_progress(&self, progress: Progress) {
        if let Some(report) = &self.progress {
            report(progress);
        }
    }

    /// Passes a message on.
    pub(crate) fn log(&self, level: Level, message: &str) {
        if let Some(log) = &self.log {
            log(level, message);
        }
    }
}

fn no_files() -> Error {
    Error::config("a session of values in memory has no files")
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
    let model = zoo::load_for(checkpoint, choices, path, samples.kind)?;
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

/// Refuses samples that are no inputs of a network, or whose labels do not fit it; `what` they are, in words.
///
/// # Errors
/// Where they are of another kind or shape, a token is beyond the vocabulary, or a label does not fit the outputs.
pub fn fits(network: &Network, samples: &Samples, what: &str) -> Result<()> {
    if samples.kind != network.kind() {
        let reason = format!("{what} are {}, the network takes {}", samples.kind, network.kind());
        return Err(Error::config(reason));
    }
    network.check_tokens(&samples.x, 0)?;
    samples.y.check(network.loss, network.classes(), 0)
}

fn same_answers(proxy: &Network, network: &Network, what: &str) -> Result<()> {
    if !proxy.is_frozen() {
        return Err(Error::config(format!("{what} is in train form; freeze it first")));
    }
    match proxy.input() == network.input() && proxy.classes() == network.classes() {
        true => Ok(()),
        false => Err(Error::config(format!("{what}: takes other inputs than --model, or has other classes"))),
    }
}

fn same_layers(earlier: &Network, network: &Network, what: &str) -> Result<()> {
    match earlier.layers == network.layers && earlier.input() == network.input() {
        true => Ok(()),
        false => Err(Error::config(format!("{what}: has other layers than --model"))),
    }
}
