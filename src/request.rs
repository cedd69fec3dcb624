//! A request: which samples are to be removed, with which options, worked out and validated whole before anything
//! expensive runs.
//!
//! [`ScrubOptions`] are what a user says; what depends on the data and the model is decided here.

use crate::budget;
use crate::data::{InputKind, Labels};
use crate::error::{Error, Result};
use crate::hash;
use crate::manifest::{Manifest, listed};
use crate::ops::philox::{Stream, Use};
use crate::options::{Doubt, Pick, ScrubOptions};
use crate::perturb::check_options;
use crate::session::{Level, Session};
use crate::task::{Approximation, HoldSettings, OnPhase, SMALLEST_BATCH, Settings, Target, Task, is_convex};
use crate::train::Recipe;

/// Retained samples that are used unless a request says which.
const RETAINED: usize = 1024;
/// Samples of a batch unless a request says how many.
const BATCH: usize = 25;

/// A request, worked out on the data of a session.
#[derive(Clone, Debug)]
pub struct Request {
    /// As it was asked for; none is the set beside the training data.
    pub asked: Option<Pick>,
    /// The options as given.
    pub options: ScrubOptions,
    /// Every choice that decides the result.
    pub settings: Settings,
    /// The samples to remove, ascending.
    pub forget: Vec<usize>,
    /// The retained samples that are used.
    pub retained: Vec<usize>,
    /// What a hold trains on: the retained samples that were chosen, or all the rest.
    pub train_on: Vec<usize>,
    /// Retained samples that calibration holds out.
    pub held_out: Vec<usize>,
    /// How the retained samples came about, in words.
    pub retained_by: String,
    /// How many samples the model was trained on.
    pub n: usize,
    /// Samples removed together.
    pub batch: usize,
    /// What to know before it is carried out.
    pub warnings: Vec<String>,
}

impl Request {
    /// Works out the removal of samples of the session's data.
    ///
    /// # Errors
    /// Where a sample or an option is not understood, is not there or contradicts another, there are too few samples to
    /// calibrate on, the device lacks what is asked of it, or the model's `train.json` tells that it never saw a sample.
    pub fn new(session: &Session, forget: impl Into<Pick>, options: &ScrubOptions) -> Result<Request> {
        Request::of(session, Some(forget.into()), options)
    }

    /// Works out the removal of the set that the session was given beside its data.
    ///
    /// # Errors
    /// As [`Request::new`]; where there is no such set.
    pub fn beside(session: &Session, options: &ScrubOptions) -> Result<Request> {
        Request::of(session, None, options)
    }

    fn of(session: &Session, asked: Option<Pick>, options: &ScrubOptions) -> Result<Request> {
        options.check()?;
        check_options(session.network().kind(), options.sigma, options.replace)?;
        if session.earlier().is_some() && options.curvature != Some(Approximation::Fd) {
            return Err(Error::config("--earlier is for --curvature fd"));
        }
        let class = asked.as_ref().map_or(Ok(false), Pick::is_class)?;
        let (net, labels) = (session.network(), &session.samples().y);
        let procedure = options.procedure(net, session.validation().is_some());
        let settings = options.settings(net, procedure, class, session.manifest().and_then(trained_by))?;
        settings.check(net, session.earlier().is_some())?;
        settings.selection.precision.check(session.device())?;
        let mut forget: Vec<usize> = match &asked {
            Some(pick) => picked(pick, session, labels)?,
            None => session
                .beside()
                .ok_or_else(|| Error::config("--forget or --forget-data says what to remove"))?
                .collect(),
        };
        let chosen = forget.len();
        forget.retain(|i| session.forgotten().binary_search(i).is_err());
        if forget.is_empty() {
            return Err(Error::config(format!("all {chosen} samples were forgotten before")));
        }
        let n = options.n.unwrap_or(labels.len());
        if n < labels.len() {
            let given = labels.len();
            return Err(Error::config(format!("--n {n} is less than the {given} samples of --data")));
        }
        let at_once = class || settings.hold.is_some(); // a hold costs the same for many samples as for few
        let batch = options.batch.unwrap_or(if at_once { forget.len() } else { BATCH });
        let calibrates = settings.calibrates(net, batch.min(forget.len()));
        let ordinary = calibrates && settings.target == Target::HeldOut;
        if ordinary && session.validation().is_none() && !options.is_despite(Doubt::NoVal) {
            return Err(Error::config(
                "a request that is neither a class nor --wrong-labels needs --val. Without it the forgotten samples are compared \
                 with retained ones, of which the model is as sure, and so would hardly be forgotten. --despite no-val allows that",
            ));
        }
        let Sets { retained, train_on, held_out, retained_by } =
            Sets::new(session, &forget, options, calibrates)?;
        if calibrates {
            check_validation(session)?;
        }
        let mut request = Request {
            asked,
            options: options.clone(),
            settings,
            forget,
            retained,
            train_on,
            held_out,
            retained_by,
            n,
            batch,
            warnings: vec![],
        };
        if let Some(budget) = options.budget {
            request.fit(session, budget)?;
        }
        for batch in request.batches() {
            request.task(session, None).check(net, batch.len())?;
        }
        if request.forget.len() < chosen {
            let before = chosen - request.forget.len();
            request
                .warnings
                .push(format!("{before} of the {chosen} samples were forgotten before, and are left out"));
        }
        request.warnings.extend(request.warned(session)?);
        request.warnings.iter().for_each(|warning| session.log(Level::Warning, warning));
        Ok(request)
    }

    /// Brings a hold within a budget, and tells what that took.
    fn fit(&mut self, session: &Session, budget: f64) -> Result<()> {
        let Some(settings) = &self.settings.hold else { return Ok(()) };
        let earlier = session.held().indices.len();
        let behind = |held: &mut usize, batch: &[usize]| {
            *held += batch.len();
            Some(*held)
        };
        let held: Vec<usize> = self.batches().into_iter().scan(earlier, behind).collect();
        let images = matches!(session.network().kind(), InputKind::Image(_));
        let all = self.train_on.len();
        let fitted = budget::fit(budget, settings, all, &held, images)?;
        let mut means = vec![];
        if fitted.proxy != settings.proxy {
            means.push("soft labels from neighbours".to_string());
        }
        if fitted.retained < all {
            let chosen = Stream::new(self.settings.seed, Use::Choice, 10).choose(all, fitted.retained);
            self.train_on = chosen.into_iter().map(|i| self.train_on[i]).collect();
            self.train_on.sort_unstable();
            means.push(format!("{} of {all} retained samples", fitted.retained));
        }
        if !means.is_empty() {
            let means = means.join(" and ");
            self.warnings.push(format!("--budget {budget}: the hold makes do with {means}"));
        }
        self.settings.hold = Some(HoldSettings { proxy: fitted.proxy, ..settings.clone() });
        Ok(())
    }

    /// The batches; what is left over joins the last one where it is too small to be calibrated by itself.
    pub fn batches(&self) -> Vec<&[usize]> {
        let mut batches: Vec<&[usize]> = self.forget.chunks(self.batch).collect();
        let (whole, left) = (self.forget.len() / self.batch, self.forget.len() % self.batch);
        if self.batch >= SMALLEST_BATCH && whole > 0 && (1..SMALLEST_BATCH).contains(&left) {
            batches.truncate(whole - 1);
            batches.push(&self.forget[(whole - 1) * self.batch..]);
        }
        batches
    }

    /// What the pipeline is given; `on_phase` is called with the name of every phase of a batch when it ends.
    pub fn task<'a>(&self, session: &'a Session, on_phase: Option<&'a OnPhase<'a>>) -> Task<'a> {
        Task {
            device: session.device(),
            samples: session.samples(),
            retained: self.retained.clone(),
            train_on: self.train_on.clone(),
            held_out: self.held_out.clone(),
            validation: session.validation(),
            earlier: session.earlier(),
            proxy: session.proxy(),
            n: self.n - session.forgotten().len(),
            held: session.held(),
            stop: session.stop(),
            stages: None,
            on_phase,
            settings: self.settings.clone(),
        }
    }

    /// What it leaves as it is, in words.
    pub fn never_touched(&self) -> &'static str {
        match self.settings.hold.as_ref().map(|hold| hold.block) {
            Some(None) => "none; a hold trains every parameter on",
            None | Some(Some(_)) => {
                "batch-norm statistics and affines, layer norms, embeddings, class tokens"
            }
        }
    }

    /// What to know before the request is carried out.
    fn warned(&self, session: &Session) -> Result<Vec<String>> {
        let mut warnings = vec![];
        for pick in [&self.asked, &self.options.retain].into_iter().flatten() {
            warnings.extend(pick.header(session.names())?);
        }
        if let (Some(manifest), Some(sources)) = (session.manifest(), session.sources())
            && let Some(excluded) = manifest.excluded()
        {
            let model = sources.model.display();
            if manifest.trained_on(&hash::of_files(&sources.data)?) {
                // Of a set beside the data it tells nothing.
                let forget = if self.asked.is_some() { self.forget.as_slice() } else { &[] };
                let absent: Vec<usize> = forget.iter().copied().filter(|i| excluded.contains(i)).collect();
                if !absent.is_empty() {
                    return Err(Error::config(format!(
                        "{} of the {} samples to remove were not in the training data of {model}, by its train.json: {}",
                        absent.len(),
                        self.forget.len(),
                        listed(&absent)
                    )));
                }
                let also = self.retained.iter().filter(|i| excluded.contains(i)).count();
                if also > 0 {
                    warnings.push(format!(
                        "{also} of the {} retained samples were not in the training data of {model} either, by its train.json",
                        self.retained.len()
                    ));
                }
            } else if self.options.n.is_none() {
                warnings.push(format!(
                    "{model} was trained on other data than --data, by its train.json: the samples to remove may be others \
                     (--n says how many it was trained on, where --data is a part of them)"
                ));
            }
        }
        if !self.held_out.is_empty() {
            warnings.push(format!(
                "calibrated on {} retained samples: the model was trained on them and is surer of them than of unseen \
                 ones, so that a request without a class or --wrong-labels is hardly forgotten; give --val",
                self.held_out.len()
            ));
        }
        Ok(warnings)
    }
}

/// Refuses validation samples that are too few to calibrate on.
fn check_validation(session: &Session) -> Result<()> {
    let Some(count) = session.validation().map(|validation| validation.y.len()) else { return Ok(()) };
    if count >= SMALLEST_BATCH {
        return Ok(());
    }
    let reason =
        format!("holds {count} samples to calibrate on; {SMALLEST_BATCH} are needed, or --length one");
    Err(match session.sources().and_then(|sources| sources.validation.as_deref()) {
        Some(path) => Error::data(path, reason),
        None => Error::config(format!("the validation set {reason}")),
    })
}

/// How a model was trained, by its `train.json`.
fn trained_by(manifest: &Manifest) -> Option<Recipe> {
    serde_json::from_value(manifest.0.get("options")?.clone()).ok()
}

/// The samples of a choice.
fn picked(pick: &Pick, session: &Session, labels: &Labels) -> Result<Vec<usize>> {
    pick.choose(session.sources().map(|sources| &*sources.data), labels, session.names())
}

/// The retained samples, and what they are for.
struct Sets {
    retained: Vec<usize>,
    train_on: Vec<usize>,
    held_out: Vec<usize>,
    retained_by: String,
}

impl Sets {
    fn new(session: &Session, forget: &[usize], options: &ScrubOptions, calibrates: bool) -> Result<Sets> {
        let labels = &session.samples().y;
        let mut away = vec![false; labels.len()];
        forget.iter().chain(session.forgotten()).for_each(|&i| away[i] = true);
        let rest: Vec<usize> = (0..labels.len()).filter(|&i| !away[i]).collect();
        let (mut retained, retained_by) = match &options.retain {
            Some(pick) => {
                let chosen = match session.beside() {
                    Some(beside) => {
                        let first_set: Vec<usize> = (0..beside.start).collect();
                        picked(pick, session, &labels.subset(&first_set))?
                    }
                    None => picked(pick, session, labels)?,
                };
                if let Some(i) = chosen.iter().find(|&&i| away[i]) {
                    let is = match forget.contains(i) {
                        true => "is to be forgotten and",
                        false => "was forgotten before and is",
                    };
                    return Err(Error::config(format!("sample {i} {is} to be retained")));
                }
                let words = pick.text().map_or("by index".into(), |text| format!("--retain {text}"));
                (chosen, words)
            }
            None if rest.len() <= RETAINED || is_convex(session.network(), options.l2) => {
                (rest.clone(), "all the rest".to_string())
            }
            None => {
                let chosen = Stream::new(options.seed, Use::Choice, 3).choose(rest.len(), RETAINED);
                let by = format!("{RETAINED} of {} at random (n:{RETAINED}@{})", rest.len(), options.seed);
                (chosen.into_iter().map(|i| rest[i]).collect(), by)
            }
        };
        if retained.is_empty() {
            return Err(Error::config(
                "nothing is left to retain: every sample of --data is to be forgotten",
            ));
        }
        let mut held_out = vec![];
        if calibrates && session.validation().is_none() {
            let out = Stream::new(options.seed, Use::Choice, 4).choose(retained.len(), retained.len() / 10);
            held_out = out.iter().map(|&i| retained[i]).collect();
            let mut kept = vec![true; retained.len()];
            out.iter().for_each(|&i| kept[i] = false);
            let mut kept = kept.iter();
            retained.retain(|_| kept.next() == Some(&true));
            if held_out.len() < SMALLEST_BATCH {
                return Err(Error::config(format!(
                    "too few retained samples to hold {SMALLEST_BATCH} out for calibration; give --val, or --length one"
                )));
            }
        }
        held_out.iter().for_each(|&i| away[i] = true);
        let mut train_on = if options.retain.is_some() { retained.clone() } else { rest };
        train_on.retain(|&i| !away[i]);
        Ok(Sets { retained, train_on, held_out, retained_by })
    }
}
