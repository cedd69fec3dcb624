//! `scrubjay scrub`: remove samples from a model.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use scrubjay::data::{self, tensors};
use scrubjay::doubt::doubts;
use scrubjay::estimate::Estimate;
use scrubjay::inspection::bytes;
use scrubjay::memory::Memory;
use scrubjay::options::{DeltaValues, Pick, ScrubOptions};
use scrubjay::outcome::{self, Changed, Epochs, HoldAccount, Record, Written};
use scrubjay::report;
use scrubjay::request::Request;
use scrubjay::run::{Ended, Finished};
use scrubjay::session::{Level, Session, Sources};

use super::method::MethodArgs;
use super::model::{ModelArgs, NormaliseArgs};
use super::ranks::ranks;
use super::shared::{self, DeviceArgs, Exit, command_line};

/// Remove training samples from a model
///
/// DIR gets the model under its own name, the same but for the values that changed; its config files; report.json and
/// report.html; and events.jsonl with a record of each batch. A run that was stopped goes on after the last complete record
/// when it is started again. A unit is a neuron or a channel, with the weights that compute it. Exit 3: a batch was not
/// removed (report.json says which, and why).
///
/// Examples:
///   scrubjay scrub --model resnet20.safetensors --data train.safetensors --forget 7,12,100-149 \
///       --val val.safetensors --out scrubbed
///   scrubjay scrub --model model/ --data rest.safetensors --n 50000 \
///       --forget-data withdrawn.safetensors --out scrubbed
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The training data: class folders, .npz, .safetensors, .csv .. (docs/DATA.md), or what is left of it (with --n)
    #[arg(long, value_name = "TRAIN")]
    data: PathBuf,
    #[command(flatten)]
    normalise: NormaliseArgs,
    /// The samples to remove, by index from 0: 7,12,100-149 (149 included); or class:spam, 'path:GLOB', where:site=berlin,
    /// level:1=s7 (first folder of the path), n:20@7 (20 at random, seed 7), joined by commas; or a file of such lines or of
    /// names (docs/DATA.md)
    #[arg(long, value_name = "SPEC", required_unless_present = "forget_data")]
    forget: Option<String>,
    /// The samples to remove, as a data set of their own, which --data does not have
    #[arg(long, value_name = "DATA", conflicts_with = "forget")]
    forget_data: Option<PathBuf>,
    /// The retained samples that are used, written as --forget; by default all of them for a hold, else 1,024 at random
    #[arg(long, value_name = "SPEC")]
    retain: Option<String>,
    /// Validation data that the model has not seen: forgotten samples are to look like these, and --gate is measured on them
    #[arg(long, value_name = "DATA")]
    val: Option<PathBuf>,
    /// How many samples the model was trained on; by default as many as --data has
    #[arg(long, value_name = "N")]
    n: Option<usize>,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print what would be done and how long it would take, and stop
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: write the plan as an HTML page too, with the samples that would be removed
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    html: Option<PathBuf>,
    /// Leave the samples out of HTML pages: their small pictures or first words, and what the model answers on them
    #[arg(long)]
    no_thumbnails: bool,
    /// How many samples are removed together; by default all in a hold and all of a class, else 25
    #[arg(long, value_name = "B")]
    batch: Option<usize>,

    #[command(flatten)]
    method: MethodArgs,
    /// The model of an earlier epoch, for --curvature fd (train --keep-epochs writes some)
    #[arg(long, value_name = "M", help_heading = "L-CODEC")]
    earlier: Option<PathBuf>,
    /// Write DIR/delta.safetensors too: the rows that changed, for `scrubjay apply` (new, the default); or also their old values,
    /// for `scrubjay revert` (both), from which the removed samples could be found
    #[arg(long, value_enum, value_name = "new|both", num_args = 0..=1, default_missing_value = "new")]
    delta_file: Option<DeltaValues>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print the report as JSON on stdout, in place of the table
    #[arg(long)]
    json: bool,
}

/// Carries out the request.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    match args.dry_run {
        true => shared::check_files(&args.html)?,
        false => shared::check_folder(&args.out)?,
    }
    let options = args.options();
    options.check()?;
    let device = args.device.open()?;
    let bar = shared::progress(0, "batches");
    let shown = bar.clone();
    let session = Session::open(device, args.sources())?
        .with_command(command_line())
        .with_samples_shown(!args.no_thumbnails)
        .with_stop(shared::stop_flag()?)
        .on_progress(move |progress| {
            shown.set_length(progress.batches as u64);
            shown.set_position(progress.done as u64);
        });
    let told = Arc::new(AtomicBool::new(false));
    let begun = told.clone();
    let session = session.on_log(move |level, message| match (level, begun.load(Ordering::Relaxed)) {
        (Level::Warning, true) => eprintln!("warning: {message}"),
        (Level::Warning, false) => eprintln!("{message}"), // how files were read
        (Level::Info, _) => {}
    });
    told.store(true, Ordering::Relaxed);
    ranks().first(|| session.check_out(&args.out))?;
    let request = match &args.forget {
        Some(text) => Request::new(&session, text.as_str(), &options)?,
        None => Request::beside(&session, &options)?,
    };
    let labels = &session.samples().y;
    eprintln!("to be forgotten: {}", data::listing(&request.forget, labels, session.names()));
    if args.dry_run {
        let (started, doubts) = (Instant::now(), doubts(&session, &request)?);
        doubts.iter().for_each(|doubt| eprintln!("warning: {doubt}"));
        let estimate = session.estimate(&request)?;
        if let Some(file) = &args.html {
            let seconds = started.elapsed().as_secs_f64();
            session.device().ranks().first(|| {
                let page = report::planned(&session, &request, &estimate, &doubts, seconds)?;
                tensors::write_whole(file, page.as_bytes())
            })?;
        }
        print_estimate(args, &estimate);
        return Ok(Exit::Done);
    }
    let ended = session.run(&request, &args.out)?;
    bar.finish_and_clear();
    if !session.device().ranks().leads() {
        return Ok(Exit::Done); // rank 0 says how it ended
    }
    match ended {
        Ended::Before(run) => print_finished(args, &run),
        Ended::Now(outcome, _) => {
            print(args, &outcome)?;
            Ok(if outcome.not_removed == 0 { Exit::Done } else { Exit::GateNotMet })
        }
    }
}

impl Args {
    fn sources(&self) -> Sources {
        let mut sources = Sources {
            model: self.model.model.clone(),
            choices: self.model.choices.choices(),
            ignore: self.model.choices.ignored(),
            weights: self.model.choices.weights(),
            data: self.data.clone(),
            forget_data: self.forget_data.clone(),
            validation: self.val.clone(),
            earlier: self.earlier.clone(),
            proxy: self.method.proxy_model(),
            ..Sources::default()
        };
        self.normalise.write(&mut sources);
        sources
    }

    fn options(&self) -> ScrubOptions {
        ScrubOptions {
            retain: self.retain.as_deref().map(Pick::from),
            n: self.n,
            batch: self.batch,
            delta_file: self.delta_file,
            ..self.method.options()
        }
    }
}

/// Prints a run that had been finished before.
fn print_finished(args: &Args, run: &Finished) -> anyhow::Result<Exit> {
    eprintln!("{}: already finished with these inputs and options; nothing was changed", args.out.display());
    if args.json {
        println!("{}", stored_report(&run.report)?);
    }
    if run.not_removed > 0 {
        eprintln!("{} samples were not removed then; report.json says why", run.not_removed);
    }
    Ok(Exit::Done)
}

/// A report, on one line.
fn stored_report(path: &std::path::Path) -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::from_slice(&tensors::read(path)?)?)
}

/// The estimate in words: units, bytes, and a time.
fn print_estimate(args: &Args, estimate: &Estimate) {
    if args.json {
        println!("{}", serde_json::json!(estimate));
        return;
    }
    let nothing = match &args.html {
        Some(file) => format!("written    {}, and nothing else", file.display()),
        None => "nothing was written".into(),
    };
    let Estimate { samples, batches, batch, retained, retained_by, held_out, units, .. } = estimate;
    match batches {
        1 => println!("samples    {samples} in one batch"),
        _ => println!("samples    {samples} in {batches} batches of at most {batch}"),
    }
    if let Some(Epochs { proxy, hold, cost }) = estimate.epochs {
        println!("proxy      {proxy} epochs of {} retained samples, for each batch", estimate.trained_on);
        println!(
            "hold       {hold} epochs of these, with as many forgotten samples beside them, for each batch"
        );
        println!("cost       {cost:.1} epochs of retraining, for each batch");
        print_memory(&estimate.memory);
        println!("time       about {:.0} s", estimate.seconds_at_most);
        println!("{nothing}");
        return;
    }
    println!("retained   {retained}: {retained_by}; {held_out} held out to calibrate");
    println!("units      at most {} of {units}", estimate.units_at_most);
    println!(
        "observe    {} noisy copies a batch, {} for their activations",
        estimate.copies_per_batch,
        bytes(estimate.activation_bytes)
    );
    println!(
        "products   at most {} in {} stages; {} per thread, at most {} kept between them{}",
        estimate.products_at_most,
        estimate.stages_at_most,
        bytes(estimate.products_bytes),
        bytes(estimate.kept_bytes),
        match estimate.memory.kept_share {
            share if share < 1.0 =>
                format!(", {:.1} % of what they read; the rest is computed again", 100.0 * share),
            _ => String::new(),
        }
    );
    print_memory(&estimate.memory);
    println!("time       at most about {:.0} s, and the time of FOCI", estimate.seconds_at_most);
    println!("{nothing}");
}

/// The memory of the host that a request takes, and what the machine has.
fn print_memory(memory: &Memory) {
    let free = memory.free.map_or("unknown how much is left".into(), |free| {
        format!("{} are left ({})", bytes(free.bytes), free.source)
    });
    println!(
        "memory     at most about {}, in the phase of {}; {} are in use already, {free}",
        bytes(memory.bytes),
        memory.phase,
        bytes(memory.in_use)
    );
    let parts: Vec<String> =
        memory.parts.iter().map(|part| format!("{} for {}", bytes(part.bytes), part.what)).collect();
    println!("           {}", parts.join(", "));
}

/// A number before and after, or before alone.
fn change(before: f64, after: Option<f64>, scale: f64, digits: usize) -> String {
    let shown = |value: f64| format!("{:.digits$}", value * scale);
    match (before.is_finite(), after.filter(|value| value.is_finite())) {
        (true, Some(after)) => format!("{} -> {}", shown(before), shown(after)),
        (true, None) => shown(before),
        (false, _) => String::new(),
    }
}

fn print_record(record: &Record) {
    let account = &record.account;
    let (before, step) = (&account.before, account.step.as_ref());
    let (forget, retain) = (account.after().map(|s| s.forget), account.after().map(|s| s.retain));
    let number = |value: Option<f64>| {
        value.filter(|value| value.is_finite()).map_or("-".into(), |value| format!("{value:.2}"))
    };
    println!(
        "{:>5}  {:>7}  {:>9}  {:>5}  {:<19}  {:<15}  {:<15}  {:<13}  {}",
        record.batch,
        record.indices.len(),
        record.fate.name(),
        if record.changed == Changed::EveryParameter { "all".into() } else { record.units.len().to_string() },
        change(before.forget.loss, forget.map(|after| after.loss), 1.0, 4),
        change(before.forget.accuracy, forget.map(|after| after.accuracy), 100.0, 1),
        change(before.retain.accuracy, retain.map(|after| after.accuracy), 100.0, 2),
        format!("{} ({})", number(account.selection.first_t), number(account.selection.noise_level)),
        number(step.map(|step| step.length.scale)),
    );
    if let Some(HoldAccount { target, reached, epochs, .. }) = &account.hold {
        println!(
            "       aim: a loss of {:.4} ({:.1} % right); reached {:.4} ({:.1} %); cost {:.1} epochs of training",
            target.loss,
            100.0 * target.accuracy,
            reached.loss,
            100.0 * reached.accuracy,
            epochs.cost
        );
    }
    record.notes.iter().for_each(|note| println!("       {note}"));
}

fn print(args: &Args, outcome: &outcome::Outcome) -> anyhow::Result<()> {
    if args.json {
        println!("{}", stored_report(&args.out.join("report.json"))?);
        return Ok(());
    }
    println!(
        "batch  samples     result  units  forget loss          forget acc, %    retain acc, %    T1 (chance)    length"
    );
    outcome.records.iter().for_each(print_record);
    if outcome.records.iter().any(|record| record.account.step.is_some()) {
        println!(
            "\nT1      how strongly the loss depends on the first unit, from 0 to 1, and what chance reaches"
        );
        println!("length  of the step; 1 is that of the formula");
    }
    println!("\nremoved      {} samples; not removed {}", outcome.removed, outcome.not_removed);
    println!("changed      {} values of the model", outcome.changed_values);
    if let Some(Written { before, after, .. }) = &outcome.written {
        println!(
            "as written   forget loss {}, forget acc {}, retain acc {}",
            change(before.forget.loss, Some(after.forget.loss), 1.0, 4),
            change(before.forget.accuracy, Some(after.forget.accuracy), 100.0, 1),
            change(before.retain.accuracy, Some(after.retain.accuracy), 100.0, 2),
        );
    }
    println!("unchanged    {}", outcome.never_touched);
    if let Some(privacy) = &outcome.privacy {
        println!(
            "certificate  epsilon {:?} and delta {:?} spent; it holds {}",
            privacy.epsilon_spent, privacy.delta_spent, privacy.holds
        );
    }
    println!("written      {} ({:.1} s)", args.out.display(), outcome.seconds);
    Ok(())
}
