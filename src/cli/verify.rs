//! `scrubjay verify`: compare a model with models retrained without the samples.

mod table;

use std::path::PathBuf;
use std::time::Instant;

use scrubjay::data::tensors;
use scrubjay::options::Pick;
use scrubjay::report::{self, VerifyReport};
use scrubjay::session::Sources;
use scrubjay::verification::{Question, Verification};

use self::table::print;
use super::model::{ChoiceArgs, NormaliseArgs};
use super::shared::{self, DeviceArgs, Exit, command_line};

/// Compare an unlearned model with models retrained without the samples
///
/// Every measure is also computed for the retrained models, each against the others. A model is flagged where it
/// remembers the samples, where it over-forgets them (they stand out more than unseen samples do), and where it is damaged.
/// docs/REPORT.md defines the measures and flags. On a GPU the logits differ from the CPU's by rounding. Exit 3: a flag was
/// raised.
///
/// Examples:
///   scrubjay train --arch mlp:50 --data train.safetensors --exclude 0-99 --seeds 5 --out retrained
///   scrubjay verify --before model/ --after scrubbed/ --reference retrained/seed-* \
///       --data train.safetensors --forget 0-99 --test test.safetensors --html verify.html
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The model before: a .safetensors, .pth or .onnx file, or a directory with such a file and config.json
    #[arg(long, value_name = "A")]
    before: PathBuf,
    /// The model after: a file, or the folder that `scrub` wrote
    #[arg(long, value_name = "B")]
    after: PathBuf,
    /// One or more models trained without the samples (train --exclude); five or more show how much such models differ
    #[arg(long, value_name = "R", num_args = 1.., required = true)]
    reference: Vec<PathBuf>,
    #[command(flatten)]
    choices: ChoiceArgs,
    /// The data that the model before was trained on
    #[arg(long, value_name = "TRAIN")]
    data: PathBuf,
    /// The samples that were to be removed, written as --forget of `scrub`
    #[arg(long, value_name = "SPEC")]
    forget: String,
    /// The retained samples to measure on, written as --forget; by default all others
    #[arg(long, value_name = "SPEC")]
    retain: Option<String>,
    /// Test data that no model has seen
    #[arg(long, value_name = "DATA")]
    test: PathBuf,
    #[command(flatten)]
    normalise: NormaliseArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print the report as JSON on stdout, in place of the table
    #[arg(long)]
    json: bool,
    /// Write the report as an HTML page too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the report as a JSON file too
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
}

/// Compares, and reports the result.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    shared::check_files(args.html.iter().chain(&args.out))?;
    let started = Instant::now();
    let verification = Verification::open(question(args))?;
    verification.reading.iter().for_each(|note| eprintln!("{note}"));
    eprintln!("forgotten: {}", verification.forgotten);
    let device = args.device.open()?;
    let bar = shared::progress(2 + verification.references.len() as u64, "models");
    let found = verification.run(&device, |done| {
        bar.set_position(done as u64);
        Ok(())
    })?;
    bar.finish_and_clear();
    let mut report = VerifyReport::new(&verification, &found, &device);
    report.command = Some(command_line());
    report.seconds = started.elapsed().as_secs_f64();
    let json = serde_json::to_value(&report)?;
    let written = device.ranks().first(|| write(args, &report, &json));
    match args.json {
        true => println!("{json}"),
        false => print(&found, &verification.sets),
    }
    written?;
    Ok(if found.comparison.findings.is_empty() { Exit::Done } else { Exit::GateNotMet })
}

fn question(args: &Args) -> Question {
    let mut sources = Sources {
        choices: args.choices.choices(),
        ignore: args.choices.ignored(),
        weights: args.choices.weights(),
        ..Sources::new(&args.before, &args.data)
    };
    args.normalise.write(&mut sources);
    Question {
        sources,
        after: args.after.clone(),
        references: args.reference.clone(),
        forget: args.forget.as_str().into(),
        retain: args.retain.as_deref().map(Pick::from),
        test: args.test.clone(),
    }
}

/// Writes the page and the JSON where they are asked for.
fn write(args: &Args, report: &VerifyReport, json: &serde_json::Value) -> scrubjay::Result<()> {
    if let Some(path) = &args.html {
        tensors::write_whole(path, report::verify(report).as_bytes())?;
    }
    if let Some(path) = &args.out {
        tensors::write_whole(path, format!("{json:#}").as_bytes())?;
    }
    Ok(())
}
