//! `scrubjay scrub`: remove samples from a model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use clap::ValueEnum;
use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::{self, Inputs, Samples, Spec, tensors};
use scrubjay::net::{LayerId, Network};
use scrubjay::observe::{check_precision, evaluate};
use scrubjay::ops::philox::{Stream, Use};
use scrubjay::receipt::{Events, Record};
use scrubjay::select::{self, Method};
use scrubjay::solve::Limits;
use scrubjay::unlearn::{
    Calibration, Config, Matrix, Rule, SMALLEST_BATCH, Target, Task, is_convex, products, unlearn,
};
use scrubjay::update::Where;
use scrubjay::{Error, net::plan, report, zoo};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::inspect::bytes;
use super::manifest::{Manifest, choose, listed};
use super::model::{ModelArgs, NormaliseArgs};
use super::train::sha256;
use super::{DeviceArgs, Outcome, PrecisionName, command_line, hash};

/// Remove training samples from a model
///
/// DIR gets the model under its own name with only the touched values changed, config files beside it, report.json and
/// report.html, and events.jsonl with one complete record per batch. Stopped at any moment and started again, it goes
/// on after the last complete record. Exit 3: a batch was not removed (report.json says which, and why).
///
/// Examples:
///   scrubjay scrub --model resnet20.safetensors --data train.safetensors --forget 7,12,100-149 --val val.safetensors --out scrubbed
///   scrubjay scrub --model model/ --data train.safetensors --forget class:3 --out scrubbed --dry-run
///   scrubjay scrub --model model/ --data rest.safetensors --n 50000 --forget-data withdrawn.safetensors --out scrubbed
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The training data, or the part of it at hand (then --n says how large it was)
    #[arg(long, value_name = "TRAIN")]
    data: PathBuf,
    #[command(flatten)]
    normalise: NormaliseArgs,
    /// The samples to remove: 7,12,100-149 (both ends included), class:3, n:20@seed, or a file of such lines
    #[arg(long, value_name = "SPEC", required_unless_present = "forget_data")]
    forget: Option<String>,
    /// The samples to remove, as a set of their own beside --data
    #[arg(long, value_name = "DATA", conflicts_with = "forget")]
    forget_data: Option<PathBuf>,
    /// The retained samples that are used; by default 1,024 of the rest at random, and all of it for repair
    #[arg(long, value_name = "SPEC")]
    retain: Option<String>,
    /// Validation data: calibration, and the gate
    #[arg(long, value_name = "DATA")]
    val: Option<PathBuf>,
    /// How many samples the model was trained on
    #[arg(long, value_name = "N")]
    n: Option<usize>,
    /// Where to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the plan (units, bytes, an estimate of the time) and stop
    #[arg(long)]
    dry_run: bool,
    /// Samples removed together; by default 25, a class at once
    #[arg(long, value_name = "B")]
    batch: Option<usize>,

    /// Noisy copies per trace; by default 1000, and 200 for each sample of a vote
    #[arg(long, value_name = "m", help_heading = "Method")]
    perturbations: Option<usize>,
    /// Standard deviation of their noise, in units of the normalised input
    #[arg(long, default_value_t = 0.1, value_parser = super::positive, help_heading = "Method")]
    sigma: f32,
    /// Precision of the passes over noisy copies, below f32 on CUDA only; the report says how far they agree with f32
    #[arg(long, value_enum, value_name = "f32|tf32|bf16|f16", help_heading = "Method")]
    precision: Option<PrecisionName>,
    /// How units are chosen; a vote of one sample is plain FOCI
    #[arg(long, value_enum, default_value = "vote", help_heading = "Method")]
    selection: SelectionName,
    /// Units at most
    #[arg(long, value_name = "K", help_heading = "Method")]
    max_units: Option<usize>,
    /// The matrix; by default ggn, and hessian for a single linear layer with --l2
    #[arg(long, value_enum, help_heading = "Method")]
    curvature: Option<MatrixName>,
    /// The model of an earlier epoch, for --curvature fd (train --keep-epochs writes some)
    #[arg(long, value_name = "M", help_heading = "Method")]
    earlier: Option<PathBuf>,
    /// Precondition the solve by K-FAC
    #[arg(long, help_heading = "Method")]
    precondition: bool,
    /// λ; by default max(1e-3, 5e-3 of the largest eigenvalue), and 0 for a single linear layer with --l2
    #[arg(long, value_name = "λ", value_parser = super::not_negative, help_heading = "Method")]
    damping: Option<f64>,
    /// The weight decay that the model was trained with
    #[arg(long, default_value_t = 0.0, value_parser = super::not_negative, help_heading = "Method")]
    l2: f64,
    /// The update rule
    #[arg(long, value_enum, default_value = "newton", help_heading = "Method")]
    update: RuleName,
    /// The step's length: scaled on held-out data, or the formula's
    #[arg(long, value_enum, default_value = "calibrated", help_heading = "Method")]
    length: LengthName,
    /// The mean loss of the forgotten to calibrate to; by default what held-out images have, for a class
    /// those of other classes under its label
    #[arg(long, value_name = "LOSS", help_heading = "Method")]
    target_loss: Option<f64>,
    /// The samples carry wrong labels: calibrate to the loss that held-out images have under these labels
    #[arg(long, conflicts_with = "target_loss", help_heading = "Method")]
    wrong_labels: bool,
    /// Calibrated steps on the way there; by default one for each 1.5 that the loss is to rise, from 2 to 16
    #[arg(long, value_name = "S", help_heading = "Method")]
    stages: Option<usize>,
    /// Mini-batches of repair after the step: retained loss down, each forgotten sample held at its target (80 is a
    /// good number, 160 for wrong labels); on the block for a class or a --target-loss, else on every unit
    #[arg(long, value_name = "K", default_value_t = 0, help_heading = "Method")]
    repair: usize,
    /// Newton steps; those after the first on the residual objective (convex models)
    #[arg(long, default_value_t = 1, help_heading = "Method")]
    iterations: usize,
    /// Relative residual of the solve
    #[arg(long, default_value_t = 1e-2, value_parser = super::not_negative, help_heading = "Method")]
    tolerance: f64,
    /// Products that the solve may spend, and later stages two fifths of; by default 25; 10 where the
    /// repair of a class, of wrong labels or towards a --target-loss follows
    #[arg(long, value_name = "K", help_heading = "Method")]
    products: Option<usize>,
    /// The largest drop of validation accuracy that is accepted, in points
    #[arg(long, default_value_t = 5.0, value_parser = super::not_negative, help_heading = "Method")]
    gate: f64,
    /// Where no unit depends on a batch: leave it, or take the best units of the first step
    #[arg(long, value_enum, default_value = "refuse", help_heading = "Method")]
    if_empty: IfEmpty,
    /// ε of a certificate, for each batch
    #[arg(long, requires = "delta", help_heading = "Certificate")]
    epsilon: Option<f64>,
    /// δ of a certificate, for each batch
    #[arg(long, requires = "epsilon", help_heading = "Certificate")]
    delta: Option<f64>,
    /// Which units get the certificate's noise; by default those outside the block, where ε is given
    #[arg(long, value_enum, help_heading = "Certificate")]
    noise: Option<NoiseName>,

    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum SelectionName {
    Foci,
    Vote,
    Cheap,
    Gradient,
    Output,
    Random,
    Full,
    One,
}

#[derive(Clone, Copy, ValueEnum)]
enum MatrixName {
    Hessian,
    Ggn,
    Fisher,
    Kfac,
    Fd,
}

#[derive(Clone, Copy, ValueEnum)]
enum RuleName {
    Newton,
    Cr,
    Gradient,
}

#[derive(Clone, Copy, ValueEnum)]
enum LengthName {
    Calibrated,
    One,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum IfEmpty {
    Refuse,
    Cheap,
}

#[derive(Clone, Copy, ValueEnum)]
enum NoiseName {
    None,
    Outside,
    Inside,
    All,
}

/// Retained samples that are used unless --retain says which.
const RETAINED: usize = 1024;
/// Samples of a batch unless --batch says how many.
const BATCH: usize = 25;
/// What scrubbing leaves as it is.
const NEVER_TOUCHED: &str = "batch-norm statistics and affines, layer norms, embeddings, class tokens";

/// The request, worked out.
struct Request {
    samples: Samples,
    forget: Vec<usize>,
    retained: Vec<usize>,
    /// What repair draws from: --retain, or all the rest.
    repair_on: Vec<usize>,
    held_out: Vec<usize>,
    /// How the retained samples came about, in words.
    retained_by: String,
    validation: Option<Samples>,
    n: usize,
    batch: usize,
}

impl Request {
    /// The batches; what is left over joins the last one where it is too small to be calibrated by itself.
    fn batches(&self) -> Vec<&[usize]> {
        let mut batches: Vec<&[usize]> = self.forget.chunks(self.batch).collect();
        let (whole, left) = (self.forget.len() / self.batch, self.forget.len() % self.batch);
        if self.batch >= SMALLEST_BATCH && whole > 0 && (1..SMALLEST_BATCH).contains(&left) {
            batches.truncate(whole - 1);
            batches.push(&self.forget[(whole - 1) * self.batch..]);
        }
        batches
    }
}

/// Carries out the request.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let checkpoint = args.model.checkpoint()?;
    if is_same_folder(&args.out, checkpoint.folder()) {
        let reason = "is the folder of the model, which would be overwritten; choose another --out";
        return Err(Error::Config(format!("{}: {reason}", args.out.display())).into());
    }
    let samples = args.normalise.load(&args.data, &checkpoint)?;
    let model = args.model.open(&checkpoint, Some((&args.data, &samples)))?;
    let earlier = args.earlier.as_deref().map(|path| earlier(args, path, &model.network)).transpose()?;
    let config = config(args)?;
    let request = request(args, &checkpoint, samples, &model.network, &config)?;
    let warnings = warnings(args, &checkpoint, &request)?;
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let device = args.device.open()?;
    let identity = identity(&checkpoint, earlier.as_ref().map(|(file, _)| file), &request, &config);
    check_precision(&device, config.selection.precision)?;
    let stop = stop_flag()?;
    let task = Task {
        device: &device,
        samples: &request.samples,
        retained: request.retained.clone(),
        repair_on: request.repair_on.clone(),
        held_out: request.held_out.clone(),
        validation: request.validation.as_ref(),
        earlier: earlier.as_ref().map(|(_, net)| net),
        n: request.n,
        stop: &stop,
        config,
    };
    if args.dry_run {
        return dry_run(args, &task, &request, &model.network);
    }
    let report_file = args.out.join("report.json");
    if report_file.exists() {
        return finished(args, &report_file, &identity);
    }
    std::fs::create_dir_all(&args.out).map_err(Error::io(&args.out))?;
    for name in checkpoint.file_names() {
        if args.out.join(name).exists() && !args.out.join("events.jsonl").exists() {
            let reason = "is there already, and no run of scrub began it; choose another --out";
            return Err(Error::Config(format!("{}: {reason}", args.out.join(name).display())).into());
        }
    }
    let (mut events, mut records) = Events::open(&args.out, &identity)?;
    let batches = request.batches();

    let mut net = model.network.clone();
    for record in &records {
        record.replay(&mut net)?;
    }
    let bar = super::progress(batches.len() as u64, "batches");
    bar.set_position(records.len() as u64);
    for (i, batch) in batches.iter().enumerate().skip(records.len()) {
        let gone: Vec<usize> =
            records.iter().filter(|r| r.removed).flat_map(|r| r.indices.iter().copied()).collect();
        let record = unlearn(&task, &mut net, i, batch, &gone).map_err(|error| match error {
            Error::Interrupted { .. } => Error::Interrupted {
                kept: format!(
                    "{i} of {} batches are in {}; the same command goes on from there",
                    batches.len(),
                    args.out.display()
                ),
            },
            other => other,
        })?;
        events.write(&record)?;
        records.push(record);
        bar.inc(1);
    }
    bar.finish_and_clear();

    let patched = checkpoint.write_patched(&model.network, &net, &args.out)?;
    let written =
        patched.files.iter().map(|file| tensors::read(file)).collect::<scrubjay::Result<Vec<_>>>()?;
    let removed: usize = records.iter().filter(|r| r.removed).map(|r| r.indices.len()).sum();
    let accounts: Vec<Value> = records.iter().map(without_values).collect();
    let report = json!({
        "scrubjay": env!("CARGO_PKG_VERSION"),
        "report": "scrub",
        "command": command_line(),
        "identity": identity,
        "family": model.family,
        "device": device.report(),
        "gpu": device.reading(),
        "options": options(args, &task.config),
        "request": {
            "samples": request.forget,
            "sha256": hash(request.forget.iter().map(|i| i.to_le_bytes().to_vec())),
            "n": request.n,
            "batch": request.batch,
        },
        "retained": {"used": request.retained.len(), "held_out": request.held_out.len(), "chosen": request.retained_by},
        "removed": removed,
        "not_removed": request.forget.len() - removed,
        "privacy": privacy(&records, &task.config),
        "notes": warnings,
        "never_touched": NEVER_TOUCHED,
        "model": {
            "files": patched.files.iter().map(|f| f.file_name().map(|n| n.to_string_lossy())).collect::<Vec<_>>(),
            "changed_values": patched.changed,
            "updates_lost_in_stored_type": patched.vanished,
            "sha256_before": hash(checkpoint.contents().map(<[u8]>::to_vec)),
            "sha256_after": hash(written.into_iter()),
        },
        "layers": layers(&model.network, &net, &records),
        "records": accounts,
        "seconds": started.elapsed().as_secs_f64(),
    });
    tensors::write_whole(&args.out.join("report.html"), report::scrub(&report).as_bytes())?;
    tensors::write_whole(&report_file, serde_json::to_string_pretty(&report)?.as_bytes())?;
    print(args, &report, &records)?;
    Ok(if removed == request.forget.len() { Outcome::Done } else { Outcome::GateNotMet })
}

/// The model of --earlier, which must have the layers of the model.
fn earlier(args: &Args, path: &Path, net: &Network) -> scrubjay::Result<(Checkpoint, Network)> {
    if !matches!(args.curvature, Some(MatrixName::Fd)) {
        return Err(Error::config("--earlier is for --curvature fd"));
    }
    let checkpoint = args.model.choices.checkpoint(path)?;
    let choices = args.model.choices.choices();
    let earlier = zoo::load_as(&checkpoint, &choices, Some(net.input()))?.network.freeze();
    match earlier.layers == net.layers && earlier.input() == net.input() {
        true => Ok((checkpoint, earlier)),
        false => Err(Error::config(format!("{}: has other layers than --model", path.display()))),
    }
}

/// Whether both are there and are one folder, whatever they are called.
fn is_same_folder(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn config(args: &Args) -> scrubjay::Result<Config> {
    for (name, zero) in [
        ("--perturbations", args.perturbations == Some(0) || args.perturbations == Some(1)),
        ("--max-units", args.max_units == Some(0)),
        ("--batch", args.batch == Some(0)),
        ("--stages", args.stages == Some(0)),
        ("--iterations", args.iterations == 0),
        ("--products", args.products == Some(0)),
        ("--n", args.n == Some(0)),
    ] {
        if zero {
            return Err(Error::config(format!("{name} is too small")));
        }
    }
    if args.target_loss.is_some_and(|loss| !loss.is_finite() || loss <= 0.0) {
        return Err(Error::config("--target-loss is a number above 0"));
    }
    let method = match args.selection {
        SelectionName::Foci => Method::Foci,
        SelectionName::Vote => Method::Vote,
        SelectionName::Cheap => Method::Cheap,
        SelectionName::Gradient => Method::Gradient,
        SelectionName::Output => Method::Output,
        SelectionName::Random => Method::Random,
        SelectionName::Full => Method::Full,
        SelectionName::One => Method::One,
    };
    let observes = matches!(method, Method::Foci | Method::Vote | Method::Cheap | Method::One);
    if args.precision.is_some() && !observes {
        return Err(Error::config("--precision is for a --selection that observes noisy copies"));
    }
    let class =
        args.forget.as_deref().map(Spec::parse).transpose()?.is_some_and(|spec| spec.class().is_some());
    let privacy = args.epsilon.zip(args.delta);
    let noise = match (args.noise, privacy) {
        (Some(NoiseName::None), _) | (None, None) => Where::None,
        (Some(NoiseName::Outside), _) | (None, Some(_)) => Where::Outside,
        (Some(NoiseName::Inside), _) => Where::Inside,
        (Some(NoiseName::All), _) => Where::All,
    };
    if noise != Where::None && privacy.is_none() {
        return Err(Error::config("--noise needs --epsilon and --delta"));
    }
    let target = match args.target_loss {
        Some(loss) => Target::Loss(loss),
        None if args.wrong_labels => Target::WrongLabels,
        None if class => Target::Class,
        None => Target::HeldOut,
    };
    Ok(Config {
        selection: select::Config {
            method,
            perturbations: args.perturbations,
            sigma: args.sigma,
            max_units: args.max_units,
            share: if class { 0.05 } else { 0.2 },
            precision: PrecisionName::of(args.precision),
            seed: args.seed,
        },
        curvature: args.curvature.map(|name| match name {
            MatrixName::Hessian => Matrix::Hessian,
            MatrixName::Ggn => Matrix::Ggn,
            MatrixName::Fisher => Matrix::Fisher,
            MatrixName::Kfac => Matrix::Kfac,
            MatrixName::Fd => Matrix::Fd,
        }),
        damping: args.damping,
        l2: args.l2,
        rule: match args.update {
            RuleName::Newton => Rule::Newton,
            RuleName::Cr => Rule::Cr,
            RuleName::Gradient => Rule::Gradient,
        },
        calibration: match args.length {
            LengthName::Calibrated => Calibration::Calibrated,
            LengthName::One => Calibration::One,
        },
        target,
        stages: args.stages,
        repair: args.repair,
        iterations: args.iterations,
        limits: Limits {
            tolerance: args.tolerance,
            products: args.products.unwrap_or_else(|| products(target, args.repair)),
        },
        precondition: args.precondition,
        privacy,
        noise,
        gate: args.gate / 100.0,
        if_empty_cheap: args.if_empty == IfEmpty::Cheap,
        seed: args.seed,
        ..Config::default()
    })
}

fn request(
    args: &Args,
    checkpoint: &Checkpoint,
    mut samples: Samples,
    net: &Network,
    config: &Config,
) -> scrubjay::Result<Request> {
    let spec = args.forget.as_deref().map(Spec::parse).transpose()?;
    let forget = match (&args.forget, &args.forget_data) {
        (Some(text), _) => choose(text, &args.data, &samples.y)?,
        (None, Some(path)) => {
            let more = args.normalise.load(path, checkpoint)?;
            if more.shape != samples.shape {
                return Err(Error::data(
                    path,
                    format!("has images of {:?}, --data of {:?}", more.shape, samples.shape),
                ));
            }
            data::check_classes(path, &more.y, net.classes())?;
            let first = samples.y.len();
            samples.x.extend(more.x);
            samples.y.extend(more.y);
            (first..samples.y.len()).collect()
        }
        (None, None) => return Err(Error::config("--forget or --forget-data says what to remove")),
    };
    let at_hand = samples.y.len();
    let n = args.n.unwrap_or(at_hand);
    if n < at_hand {
        return Err(Error::config(format!("--n {n} is less than the {at_hand} samples at hand")));
    }
    let mut away = vec![false; at_hand];
    forget.iter().for_each(|&i| away[i] = true);
    let rest: Vec<usize> = (0..at_hand).filter(|&i| !away[i]).collect();
    let convex = is_convex(net, config.l2);
    let (mut retained, retained_by) = match &args.retain {
        Some(text) => {
            let first_set = if args.forget_data.is_some() { at_hand - forget.len() } else { at_hand };
            let chosen = choose(text, &args.data, &samples.y[..first_set])?;
            if let Some(i) = chosen.iter().find(|&&i| away[i]) {
                return Err(Error::config(format!("sample {i} is to be forgotten and to be retained")));
            }
            (chosen, format!("--retain {text}"))
        }
        None if rest.len() <= RETAINED || convex => (rest.clone(), "all the rest".to_string()),
        None => {
            let chosen = Stream::new(args.seed, Use::Choice, 3).choose(rest.len(), RETAINED);
            let by = format!("{RETAINED} of {} at random (n:{RETAINED}@{})", rest.len(), args.seed);
            (chosen.into_iter().map(|i| rest[i]).collect(), by)
        }
    };
    if retained.is_empty() {
        return Err(Error::config("nothing is left to retain: every sample at hand is to be forgotten"));
    }
    let class = spec.is_some_and(|spec| spec.class().is_some());
    let batch = args.batch.unwrap_or(if class { forget.len() } else { BATCH });
    let calibrates = config.calibration == Calibration::Calibrated
        && !convex
        && !matches!(config.target, Target::Loss(_))
        && batch.min(forget.len()) >= SMALLEST_BATCH;
    let mut held_out = vec![];
    if calibrates && args.val.is_none() {
        let out = Stream::new(args.seed, Use::Choice, 4).choose(retained.len(), retained.len() / 10);
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
    let mut repair_on = if args.retain.is_some() { retained.clone() } else { rest };
    repair_on.retain(|&i| !away[i]);
    let validation = match &args.val {
        Some(path) => {
            let validation = args.normalise.load(path, checkpoint)?;
            if validation.shape != samples.shape {
                return Err(Error::data(
                    path,
                    format!("has images of {:?}, --data of {:?}", validation.shape, samples.shape),
                ));
            }
            data::check_classes(path, &validation.y, net.classes())?;
            let count = validation.y.len();
            if calibrates && count < SMALLEST_BATCH {
                let reason = format!(
                    "holds {count} samples to calibrate on; {SMALLEST_BATCH} are needed, or --length one"
                );
                return Err(Error::data(path, reason));
            }
            Some(validation)
        }
        None => None,
    };
    Ok(Request { samples, forget, retained, repair_on, held_out, retained_by, validation, n, batch })
}

/// What to know before a request is carried out.
///
/// # Errors
/// Where the `train.json` of the model says that it never saw samples of the request.
fn warnings(args: &Args, checkpoint: &Checkpoint, request: &Request) -> scrubjay::Result<Vec<String>> {
    let mut warnings = vec![];
    let model = args.model.model.display();
    let manifest = Manifest::of(checkpoint)?;
    if let Some((manifest, excluded)) = manifest.as_ref().and_then(|m| Some((m, m.excluded()?))) {
        if manifest.trained_on(&sha256(&args.data)?) {
            // Of a set beside the data it tells nothing.
            let forget = if args.forget.is_some() { request.forget.as_slice() } else { &[] };
            let absent: Vec<usize> = forget.iter().copied().filter(|i| excluded.contains(i)).collect();
            if !absent.is_empty() {
                return Err(Error::config(format!(
                    "{} of the {} samples to remove were not in the training data of {model}, by its train.json: {}",
                    absent.len(),
                    request.forget.len(),
                    listed(&absent)
                )));
            }
            let also = request.retained.iter().filter(|i| excluded.contains(i)).count();
            if also > 0 {
                warnings.push(format!(
                    "{also} of the {} retained samples were not in the training data of {model} either, by its train.json",
                    request.retained.len()
                ));
            }
        } else if args.n.is_none() {
            warnings.push(format!(
                "{model} was trained on other data than --data, by its train.json: the samples to remove may be others \
                 (--n says how many it was trained on, where --data is a part of them)"
            ));
        }
    }
    if !request.held_out.is_empty() {
        warnings.push(format!(
            "calibrated on {} retained samples: the model was trained on them and is surer of them than of unseen \
             ones, so that a request without a class or --wrong-labels is hardly forgotten; give --val",
            request.held_out.len()
        ));
    }
    Ok(warnings)
}

fn samples_hash(samples: &Samples) -> Vec<u8> {
    let mut digest = Sha256::new();
    samples.x.iter().for_each(|v| digest.update(v.to_le_bytes()));
    samples.y.iter().for_each(|v| digest.update(v.to_le_bytes()));
    digest.finalize().to_vec()
}

/// What decides the result, as one hash.
fn identity(
    checkpoint: &Checkpoint,
    earlier: Option<&Checkpoint>,
    request: &Request,
    config: &Config,
) -> String {
    let numbers = |v: &[usize]| v.iter().flat_map(|i| (*i as u64).to_le_bytes()).collect::<Vec<u8>>();
    let mut parts: Vec<Vec<u8>> = vec![env!("CARGO_PKG_VERSION").into()];
    for checkpoint in [Some(checkpoint), earlier].into_iter().flatten() {
        parts.extend(checkpoint.contents().map(<[u8]>::to_vec));
    }
    parts.push(samples_hash(&request.samples));
    parts.extend(request.validation.as_ref().map(samples_hash));
    parts.extend(
        [&request.forget, &request.retained, &request.repair_on, &request.held_out].map(|v| numbers(v)),
    );
    parts.push(format!("{config:?} {} {}", request.n, request.batch).into());
    hash(parts.into_iter())
}

/// A flag that Ctrl-C sets.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    let flag = FLAG.get_or_init(|| Arc::new(AtomicBool::new(false))).clone();
    let set = flag.clone();
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(1); // asked twice
        }
        eprintln!("stopping after the current step; once more stops at once (what is recorded is kept)");
    })?;
    Ok(flag)
}

/// A finished folder: the same request again changes nothing, another is refused.
fn finished(args: &Args, report: &Path, identity: &str) -> anyhow::Result<Outcome> {
    let text = tensors::read(report)?;
    let found: Value = serde_json::from_slice(&text)
        .map_err(|e| Error::data(report, format!("is not a report of scrubjay: {e}")))?;
    if found.get("identity").and_then(Value::as_str) != Some(identity) {
        let reason =
            "was made with another model, data, request or options; choose another --out, or remove it";
        return Err(Error::Config(format!("{}: {reason}", args.out.display())).into());
    }
    eprintln!("{}: already finished with these inputs and options; nothing was changed", args.out.display());
    if args.json {
        println!("{found}");
    }
    if let Some(left) = found.get("not_removed").and_then(Value::as_u64).filter(|&left| left > 0) {
        eprintln!("{left} samples were not removed then; report.json says why");
    }
    Ok(Outcome::Done)
}

/// The plan in words: units, bytes, and an estimate of the time from a few timed passes.
fn dry_run(args: &Args, task: &Task, request: &Request, net: &Network) -> anyhow::Result<Outcome> {
    let d = net.units().len();
    let selection = &task.config.selection;
    let (voters, copies) = match selection.method {
        Method::Vote if request.batch.min(request.forget.len()) > 1 => {
            (request.batch.min(request.forget.len()).min(40), 200)
        }
        Method::Vote | Method::Foci | Method::Cheap | Method::One => {
            (request.batch.min(request.forget.len()), 1000)
        }
        _ => (0, 0),
    };
    let copies = selection.perturbations.unwrap_or(copies);
    let forward = plan::Plan::forward(net, copies.max(1));
    let rows = vec![plan::Rows::All; net.layers.len()];
    let products = plan::Plan::new(net, rows, plan::Purpose::Linearised, request.retained.len());
    let kept = products.kept_bytes() * request.retained.len().div_ceil(products.chunk);
    let some: Vec<usize> = request.retained.iter().copied().take(64).collect();
    let timed = Instant::now();
    evaluate(task.device, net, &request.samples.subset(&some))?;
    let pass = timed.elapsed().as_secs_f64() / some.len() as f64;
    let batches = request.batches().len();
    // In forward passes: a gradient is about three, a product at most four.
    let (stages, products_at_most) = task.config.at_most(request.batch.min(request.forget.len()));
    let solve = request.retained.len() as f64 * (5.0 + 3.0 * stages as f64 + 4.0 * products_at_most as f64);
    let repair = (task.config.repair * 2 * 64 * 3) as f64;
    let observe = (voters * copies) as f64;
    let validation = request.validation.as_ref().map_or(0, Inputs::len) as f64;
    let seconds = batches as f64 * pass * (observe + solve + repair + 2.0 * validation);
    let plan = json!({
        "samples": request.forget.len(),
        "batches": batches,
        "batch": request.batch,
        "retained": request.retained.len(),
        "retained_by": request.retained_by,
        "held_out": request.held_out.len(),
        "n": request.n,
        "units": d,
        "units_at_most": selection.max_units.unwrap_or((selection.share * d as f64).round().max(1.0) as usize),
        "copies_per_batch": voters * copies,
        "observe_bytes": forward.bytes() + 4 * copies * d,
        "products_bytes": products.bytes(),
        "kept_bytes": kept.min(task.config.memory),
        "stages_at_most": stages,
        "products_at_most": products_at_most,
        "seconds_at_most": seconds,
    });
    if args.json {
        println!("{plan}");
        return Ok(Outcome::Done);
    }
    println!("samples    {} in {batches} batches of at most {}", request.forget.len(), request.batch);
    println!(
        "retained   {}: {}; {} held out to calibrate",
        request.retained.len(),
        request.retained_by,
        request.held_out.len()
    );
    println!("units      at most {} of {d}", plan["units_at_most"]);
    println!(
        "observe    {} noisy copies a batch, {} for their activations",
        voters * copies,
        bytes(4 * copies * d)
    );
    println!(
        "products   at most {products_at_most} in {stages} stages; {} a worker, at most {} kept between them",
        bytes(products.bytes()),
        bytes(kept.min(task.config.memory))
    );
    println!("time       about {seconds:.0} s at most, without the selection's statistics");
    println!("nothing was written");
    Ok(Outcome::Done)
}

fn options(args: &Args, config: &Config) -> Value {
    json!({
        "model": args.model.model,
        "data": args.data,
        "forget": args.forget,
        "forget_data": args.forget_data,
        "retain": args.retain,
        "val": args.val,
        "selection": config.selection.method,
        "perturbations": config.selection.perturbations,
        "sigma": config.selection.sigma,
        "max_units": config.selection.max_units,
        "share": config.selection.share,
        "precision": config.selection.precision,
        "curvature": config.curvature.map(|kind| format!("{kind:?}").to_lowercase()),
        "earlier": args.earlier,
        "precondition": config.precondition,
        "damping": config.damping,
        "l2": config.l2,
        "update": config.rule,
        "length": config.calibration,
        "target": config.target,
        "stages": config.stages,
        "repair": config.repair,
        "iterations": config.iterations,
        "tolerance": config.limits.tolerance,
        "products": config.limits.products,
        "gate": config.gate,
        "if_empty": if config.if_empty_cheap { "cheap" } else { "refuse" },
        "epsilon": config.privacy.map(|p| p.0),
        "delta": config.privacy.map(|p| p.1),
        "noise": config.noise,
        "seed": config.seed,
    })
}

/// What was spent, in numbers and words.
fn privacy(records: &[Record], config: &Config) -> Value {
    let Some((epsilon, delta)) = config.privacy.filter(|_| config.noise != Where::None) else {
        return Value::Null;
    };
    let removals = records.iter().filter(|record| record.removed).count() as f64;
    json!({
        "epsilon_spent": epsilon * removals,
        "delta_spent": delta * removals,
        "noise": config.noise,
        "holds": "only where the loss is strongly convex with the damping and weight decay used, and the formula's constants (M = 0.25, L = 1) bound it, and for the formula's own length; a neural network's loss is not, and a calibrated step is outside it",
    })
}

fn without_values(record: &Record) -> Value {
    json!({
        "batch": record.batch,
        "indices": record.indices,
        "removed": record.removed,
        "notes": record.notes,
        "units": record.units,
        "account": record.account,
    })
}

/// Units of every layer: how many there are, were chosen for a batch that was removed, and differ from before.
fn layers(before: &Network, after: &Network, records: &[Record]) -> Vec<Value> {
    let removed = records.iter().filter(|record| record.removed);
    let chosen: BTreeSet<&(String, usize)> = removed.flat_map(|record| &record.units).collect();
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    let of_layer = |i: usize| {
        let (layer, id) = (&before.layers[i], LayerId(i as u32));
        let differs = |row: &usize| {
            let unit = |net: &Network| {
                let weight = bits(&net.weight(id)[row * layer.fan_in..(row + 1) * layer.fan_in]);
                (weight, net.bias(id).map(|bias| bias[*row].to_bits()))
            };
            unit(before) != unit(after)
        };
        json!({
            "name": layer.name,
            "units": layer.outputs,
            "chosen": chosen.iter().filter(|(name, _)| *name == layer.name).count(),
            "changed": (0..layer.outputs).filter(differs).count(),
        })
    };
    (0..before.layers.len()).map(of_layer).collect()
}

fn print(args: &Args, report: &Value, records: &[Record]) -> anyhow::Result<()> {
    if args.json {
        println!("{report}");
        return Ok(());
    }
    println!(
        "batch  samples  removed  units  forget loss          forget acc       retain acc       T1 (noise)     length"
    );
    for record in records {
        let account = &record.account;
        let of = |when: &str, set: &str, what: &str| account[when][set][what].as_f64();
        let change = |set: &str, what: &str, scale: f64, digits: usize| match (
            of("before", set, what),
            of("after", set, what),
        ) {
            (Some(a), Some(b)) => format!("{:.digits$} -> {:.digits$}", a * scale, b * scale),
            (Some(a), None) => format!("{:.digits$}", a * scale),
            _ => String::new(),
        };
        let number = |value: &Value| value.as_f64().map_or("-".into(), |v| format!("{v:.2}"));
        println!(
            "{:>5}  {:>7}  {:>7}  {:>5}  {:<19}  {:<15}  {:<15}  {:<13}  {}",
            record.batch,
            record.indices.len(),
            if record.removed { "yes" } else { "no" },
            record.units.len(),
            change("forget", "loss", 1.0, 4),
            change("forget", "accuracy", 100.0, 1),
            change("retain", "accuracy", 100.0, 2),
            format!(
                "{} ({})",
                number(&account["selection"]["first_t"]),
                number(&account["selection"]["noise_level"])
            ),
            number(&account["length"]["scale"]),
        );
        record.notes.iter().for_each(|note| println!("       {note}"));
    }
    println!("\nremoved      {} samples; not removed {}", report["removed"], report["not_removed"]);
    println!("changed      {} values of the model", report["model"]["changed_values"]);
    println!("never touched: {NEVER_TOUCHED}");
    if let Some(words) = report["privacy"]["holds"].as_str() {
        println!(
            "certificate  epsilon {} and delta {} spent; it holds {words}",
            report["privacy"]["epsilon_spent"], report["privacy"]["delta_spent"]
        );
    }
    println!("written      {} ({:.1} s)", args.out.display(), report["seconds"].as_f64().unwrap_or(0.0));
    Ok(())
}
