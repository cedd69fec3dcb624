//! The server: takes requests in, decides on a batch, works it off, and begins again.

use std::collections::HashMap;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::incoming::Incoming;
use super::metrics::Metrics;
use super::policy::{Policy, Waiting};
use super::spool::{Hook, Spool};
use crate::data::choose;
use crate::doubt::doubts;
use crate::error::{Error, Result, check_stop};
use crate::hash;
use crate::identity::of_samples;
use crate::options::{Pick, ScrubOptions};
use crate::request::Request;
use crate::session::{Level, Session};
use crate::soft_label::Held;
use crate::task::SMALLEST_BATCH;

/// How long the server sleeps before it looks whether it is to stop.
const NAP: Duration = Duration::from_millis(100);
/// How long it waits at least and at most between two looks.
const POLL: RangeInclusive<Duration> = NAP..=Duration::from_secs(86400);

/// How a queue is worked off.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueOptions {
    /// How samples are removed; its `batch` and `delta_file` are none. Version v is made with the seed plus v.
    pub request: ScrubOptions,
    /// When a batch begins.
    pub policy: Policy,
    /// Versions that are kept.
    pub keep: usize,
    /// Whether to end once nothing waits; then every request is due.
    pub once: bool,
    /// How long to wait between two looks at the incoming requests, and before an error is tried again; 0.1 s to a day.
    pub poll: Duration,
}

/// What a turn of the server came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is due.
    Idle,
    /// A batch gave this version.
    Removed(u32),
    /// A batch of several requests failed; they are tried one by one.
    Split,
    /// A request was tried alone and not accepted.
    NotRemoved,
    /// A batch came to nothing, because its requests were refused.
    Refused,
}

/// Requests that got a receipt from this server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Samples removed.
    pub removed: u64,
    /// Tried and not accepted.
    pub not_removed: u64,
    /// Refused.
    pub refused: u64,
}

/// A server on one spool.
pub struct Server {
    pub(super) session: Session,
    pub(super) spool: Spool,
    pub(super) options: QueueOptions,
    pub(super) metrics: Arc<Metrics>,
    /// Requests that were read and wait, by the name of their file.
    pub(super) known: HashMap<String, (Incoming, Waiting)>,
    /// The version that the session has.
    pub(super) version: u32,
    /// Retained samples to choose from, where they are chosen.
    retain: Option<Vec<usize>>,
    /// The model that the spool began with, and its file's name where it is no folder.
    first: PathBuf,
    file: Option<OsString>,
    clock: Box<dyn Fn() -> SystemTime + Send>,
}

impl Server {
    /// Opens a spool for a session that was opened from the model that the spool began with.
    ///
    /// # Errors
    /// Where another server works there, the spool belongs to another model or other data or lost a part, the options cannot be
    /// carried out on this model, or a file cannot be read or written.
    pub fn open(session: Session, spool: &Path, options: QueueOptions) -> Result<Server> {
        let (Some(checkpoint), Some(sources)) = (session.checkpoint(), session.sources()) else {
            return Err(Error::config("a queue needs a session that was opened from files"));
        };
        options.request.check()?;
        if options.request.batch.is_some() || options.request.delta_file.is_some() {
            return Err(Error::config("a queue has batches of its own, and no delta files"));
        }
        if options.keep == 0 || options.policy.count == 0 {
            let name = if options.keep == 0 { "--keep" } else { "--batch-count" };
            return Err(Error::config(format!("{name} is at least 1")));
        }
        if !POLL.contains(&options.poll) {
            let found = options.poll.as_secs_f64();
            return Err(Error::config(format!("--poll is 0.1s to 1d, found {found}s")));
        }
        let (labels, names) = (&session.samples().y, session.names());
        let retain = match &options.request.retain {
            None => None,
            Some(Pick::Indices(indices)) => Some(indices.clone()),
            Some(Pick::Spec(text)) => Some(choose(text, &sources.data, labels, names)?),
        };
        let first = checkpoint.path().to_path_buf();
        let file = if first.is_dir() { None } else { first.file_name().map(OsString::from) };
        let model = hash::of_files_at(checkpoint.contents())?;
        let [data, _] = session.hashes(of_samples)?;
        let mut spool = Spool::open(spool)?;
        spool.bind(&model, &data)?;
        spool.check_current()?;
        let mut server = Server {
            session,
            spool,
            options,
            metrics: Arc::default(),
            known: HashMap::new(),
            version: 0,
            retain,
            first,
            file,
            clock: Box::new(SystemTime::now),
        };
        server.catch_up()?;
        server.try_options()?;
        Ok(server)
    }

    /// With another clock than the system's.
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + 'static) -> Server {
        self.clock = Box::new(clock);
        self
    }

    /// With numbers that were made before it was opened.
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Server {
        *metrics.numbers() = self.metrics.numbers().clone();
        self.metrics = metrics;
        self
    }

    /// Calls a function before every change of the spool; where it fails, the server ends there. For tests of what a kill
    /// leaves.
    #[doc(hidden)]
    pub fn on_change(&mut self, hook: Box<Hook>) {
        self.spool.on_change(hook);
    }

    /// What it has done, for a [`super::Responder`].
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// The folder of incoming requests.
    pub fn incoming(&self) -> PathBuf {
        self.spool.incoming()
    }

    /// The newest version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What the requests of this server came to.
    pub fn served(&self) -> Served {
        let numbers = self.metrics.numbers();
        Served { removed: numbers.removed, not_removed: numbers.not_removed, refused: numbers.refused }
    }

    /// Works until the session's stop flag is set, or with [`QueueOptions::once`] until nothing waits. Where the file system
    /// refuses something, it is told once and tried again, unless the server is to end.
    ///
    /// # Errors
    /// Where it was stopped before everything was worked off and was to do so, or something fails that another try does not
    /// mend.
    pub fn serve(&mut self) -> Result<Served> {
        let once = self.options.once;
        loop {
            if self.session.stop().load(Ordering::Relaxed) {
                return if once && self.is_left()? { Err(interrupted()) } else { Ok(self.served()) };
            }
            match self.turn() {
                Ok(turn) => {
                    self.metrics.numbers().error = None;
                    match turn {
                        Turn::Idle if once => return Ok(self.served()),
                        Turn::Idle => self.wait(),
                        _ => {}
                    }
                }
                Err(Error::Interrupted { .. }) if self.session.stop().load(Ordering::Relaxed) => {}
                Err(Error::Interrupted { .. }) if !once => return Ok(self.served()),
                Err(Error::Interrupted { .. }) => return Err(interrupted()),
                Err(error @ Error::Io { .. }) if !once => {
                    self.tell(&error);
                    self.wait();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a batch is not over, or a file waits.
    fn is_left(&self) -> Result<bool> {
        Ok(self.spool.journal()?.is_some() || self.spool.list()?.iter().any(|file| file.is_file))
    }

    /// Prints an error after which the server tries again, once.
    fn tell(&self, error: &Error) {
        let text = error.to_string();
        let mut numbers = self.metrics.numbers();
        numbers.errors += 1;
        if numbers.error.as_ref() != Some(&text) {
            let again = self.options.poll.as_secs_f64();
            self.session.log(Level::Warning, &format!("{text}; tried again every {again} s"));
            numbers.error = Some(text);
        }
    }

    fn wait(&self) {
        let end = Instant::now() + self.options.poll;
        while !self.session.stop().load(Ordering::Relaxed) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// One turn: goes on with the batch that is worked off, else takes requests in and begins a batch where one is due.
    ///
    /// # Errors
    /// Where the file system refuses, the user stops, or the device or the data fail. The spool is then as another turn, or
    /// another server, can go on from.
    pub fn turn(&mut self) -> Result<Turn> {
        check_stop(self.session.stop())?;
        self.catch_up()?;
        if let Some(journal) = self.spool.journal()? {
            return self.work(journal);
        }
        let (waiting, failed) = self.take_in()?;
        let count = self.options.policy.batch(&waiting, self.now(), self.options.once);
        if count == 0 {
            return failed.map_or(Ok(Turn::Idle), Err);
        }
        match self.begin(&waiting[..count])? {
            Some(journal) => self.work(journal),
            None => Ok(Turn::Refused),
        }
    }

    /// The time.
    pub(super) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// The time in seconds since 1970.
    pub(super) fn seconds(&self) -> u64 {
        self.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// Moves the session to the newest version, and tells it what that has forgotten.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        let current = self.spool.current()?;
        if current < self.version {
            let reason = format!("`current` leads back from version {} to {current}", self.version);
            return Err(Error::config(reason));
        }
        if current > self.version {
            let all = (self.version + 1..=current).map(|version| self.spool.held(version));
            let all = all.collect::<Result<Vec<Held>>>()?;
            self.session.move_to(&self.model(current))?;
            for held in all {
                let kept = if held.soft_labels.is_empty() { Held::default() } else { held.clone() };
                self.session.forget(&held.indices, &kept)?;
            }
            self.version = current;
        }
        let mut numbers = self.metrics.numbers();
        numbers.version = self.version;
        numbers.forgotten = self.session.forgotten().len();
        drop(numbers);
        // Of the version of a batch that is not over, everything is still needed.
        let over = self.spool.journal()?.map_or(current, |journal| current.min(journal.version - 1));
        self.spool.prune(self.options.keep, over)
    }

    /// A version of the model, as a path that opens it.
    pub(super) fn model(&self, version: u32) -> PathBuf {
        if version == 0 {
            return self.first.clone();
        }
        let folder = self.spool.version(version);
        self.file.as_ref().map_or(folder.clone(), |file| folder.join(file))
    }

    /// The options of a batch that is to give a version without `samples`.
    pub(super) fn options_of(&self, version: u32, samples: &[usize]) -> ScrubOptions {
        let forgotten = self.session.forgotten();
        let stays = |i: &usize| samples.binary_search(i).is_err() && forgotten.binary_search(i).is_err();
        let retain =
            self.retain.as_ref().map(|all| Pick::Indices(all.iter().copied().filter(stays).collect()));
        let request = self.options.request.clone();
        let seed = request.seed.wrapping_add(u64::from(version));
        ScrubOptions { retain, batch: Some(samples.len()), seed, ..request }
    }

    /// Refuses options that no request could be carried out with, by a request that is not carried out.
    fn try_options(&self) -> Result<()> {
        let session = &self.session;
        let excluded = session.manifest().and_then(|manifest| manifest.excluded()).unwrap_or_default();
        let left = (0..session.samples().y.len())
            .filter(|i| session.forgotten().binary_search(i).is_err() && !excluded.contains(i));
        let some: Vec<usize> = left.take(SMALLEST_BATCH).collect();
        if some.is_empty() {
            return Ok(());
        }
        let options = self.options_of(self.version + 1, &some);
        doubts(session, &Request::new(session, some, &options)?).map(drop)
    }
}

fn interrupted() -> Error {
    Error::Interrupted {
        kept: "what was worked off is in the spool; the same command goes on from there".into(),
    }
}
