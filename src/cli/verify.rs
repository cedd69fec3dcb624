//! `scrubjay verify`: is it forgotten?

mod checks;
mod models;
mod table;

use std::path::PathBuf;
use std::time::Instant;

use scrubjay::checkpoint::Checkpoint;
use scrubjay::comparison::{Comparison, Definition, MEASURES, Row, SHADOWS, Sets};
use scrubjay::data::{self, Inputs, tensors};
use scrubjay::{Error, hash, report};
use serde_json::{Map, Value, json};

use self::checks::{check_alike, check_before, check_distinct, check_receipt, check_reference, check_test};
use self::models::Candidate;
use self::table::{gap, print};
use super::model::{ChoiceArgs, NormaliseArgs};
use super::shared::{self, DeviceArgs, Exit, command_line};

/// Compare an unlearned model with models retrained without the samples
///
/// Every measure is also computed for the retrained models, each against the others. A model that
/// remembers the samples is flagged, and so is one that over-forgets them: on which they stand out
/// more than unseen samples do. docs/REPORT.md defines the measures and flags. On CUDA the logits
/// differ from the CPU's by rounding. Exit 3: a flag was raised.
///
/// Examples:
///   scrubjay train --arch mlp:50 --data train.safetensors --exclude 0-99 --seeds 5 --out retrained
///   scrubjay verify --before model/ --after scrubbed/ --reference retrained/seed-* --data train.safetensors --forget 0-99 --test test.safetensors --html verify.html
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The model before: a .safetensors file, or a directory with model.safetensors and config.json
    #[arg(long, value_name = "A")]
    before: PathBuf,
    /// The model after
    #[arg(long, value_name = "B")]
    after: PathBuf,
    /// Models trained without the samples; five or more show how much such models differ
    #[arg(long, value_name = "R", num_args = 1.., required = true)]
    reference: Vec<PathBuf>,
    #[command(flatten)]
    choices: ChoiceArgs,
    /// The data that the model before was trained on
    #[arg(long, value_name = "TRAIN")]
    data: PathBuf,
    /// The samples that were to be removed: 7,12,100-149 (both ends included), class:3, n:20@seed, or a file of such
    /// lines
    #[arg(long, value_name = "SPEC")]
    forget: String,
    /// The retained samples to measure on; by default all others
    #[arg(long, value_name = "SPEC")]
    retain: Option<String>,
    /// Test data that no model has seen
    #[arg(long, value_name = "DATA")]
    test: PathBuf,
    #[command(flatten)]
    normalise: NormaliseArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write the report as an HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the report as a JSON file
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
}

/// Compares, and reports the result.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let checkpoint = args.choices.checkpoint(&args.before)?;
    let sets = sets(args, &checkpoint)?;
    drop(checkpoint);
    let open = |path| Candidate::open(&args.choices, path, (&args.data, &args.test), &sets);
    let before = open(&args.before)?;
    let after = open(&args.after)?;
    let references = args.reference.iter().map(|path| open(path)).collect::<scrubjay::Result<Vec<_>>>()?;
    let mut notes = vec![];
    for other in references.iter().chain([&after]) {
        check_alike(&before, other)?;
    }
    check_distinct(&before, &after, &references)?;
    let data = hash::of_files(&args.data)?;
    check_before(&before, &data, &sets, &mut notes)?;
    for reference in &references {
        check_reference(reference, &before, &data, &sets, &mut notes)?;
    }
    check_receipt(&before, &after, &sets, &mut notes)?;
    check_test(&args.test, &sets, &mut notes);

    let device = args.device.open()?;
    let bar = shared::progress(2 + references.len() as u64, "models");
    let behaviour = |model: &Candidate| {
        let found = model.behaviour(&device, &sets);
        bar.inc(1);
        found
    };
    let theirs = references.iter().map(behaviour).collect::<scrubjay::Result<Vec<_>>>()?;
    let (was, is) = (behaviour(&before)?, behaviour(&after)?);
    bar.finish_and_clear();
    let (classes, loss) = (before.network.classes(), before.network.loss);
    let found = Comparison::new(&was, &is, &theirs, &sets.unseen, classes, loss)?;
    if !found.remembered {
        notes.push(
            "the model before shows no memory of these samples either: there was little to forget".into(),
        );
    }
    if references.len() < SHADOWS {
        notes.push(format!(
            "{} of {SHADOWS} references that a likelihood ratio and a spread need at least: train --seeds 5 makes five",
            references.len()
        ));
    }

    let models = [&before, &after];
    let mut report = report_of(args, &sets, &models, &references, &found, &notes);
    report["device"] = device.report();
    report["seconds"] = json!(started.elapsed().as_secs_f64());
    let written = write(args, &report);
    if args.json {
        println!("{report}");
    } else {
        print(&found, &sets, &notes);
    }
    written?;
    Ok(if found.findings.is_empty() { Exit::Done } else { Exit::GateNotMet })
}

/// The report (docs/REPORT.md), but for device and seconds.
fn report_of(
    args: &Args,
    sets: &Sets,
    [before, after]: &[&Candidate; 2],
    references: &[Candidate],
    found: &Comparison,
    notes: &[String],
) -> Value {
    let samples: Vec<Value> = sets
        .forget
        .iter()
        .zip(&found.samples)
        .map(|(&i, sample)| {
            let mut entry = json!(sample);
            entry["index"] = json!(i);
            entry["label"] = match sets.samples.y.class_of(i) {
                Some(class) => json!(class),
                None => json!(sets.samples.y.of(i)),
            };
            entry
        })
        .collect();
    let model =
        |model: &Candidate, row: &Row| json!({"path": model.path, "sha256": model.sha256, "measures": row});
    let pairs = references.iter().zip(&found.references);
    json!({
        "scrubjay": env!("CARGO_PKG_VERSION"),
        "report": "verify",
        "command": command_line(),
        "family": before.family,
        "sets": {
            "data": args.data,
            "forget": {"spec": args.forget, "n": sets.forget.len(), "class": sets.class},
            "retain": {"spec": args.retain, "n": sets.retain.len()},
            "test": {"data": args.test, "n": sets.test.len()},
            "unseen": sets.unseen.len(),
        },
        "before": model(before, &found.before),
        "after": model(after, &found.after),
        "references": pairs.map(|(reference, row)| model(reference, row)).collect::<Vec<_>>(),
        "retrained": by_measure(|measure| json!(found.retrained(measure))),
        "gaps": by_measure(|measure| json!({
            "before": gap(found, measure, &found.before),
            "after": gap(found, measure, &found.after),
        })),
        "findings": found.findings,
        "notes": notes,
        "samples": samples,
        "definitions": by_measure(|measure| json!(measure.text)),
    })
}

/// Writes the page and the JSON where they are asked for.
fn write(args: &Args, report: &Value) -> anyhow::Result<()> {
    if let Some(path) = &args.html {
        tensors::write_whole(path, report::verify(report).as_bytes())?;
    }
    if let Some(path) = &args.out {
        tensors::write_whole(path, serde_json::to_string_pretty(report)?.as_bytes())?;
    }
    Ok(())
}

fn by_measure(value: impl Fn(&Definition) -> Value) -> Map<String, Value> {
    MEASURES.iter().map(|measure| (measure.key.to_string(), value(measure))).collect()
}

fn sets(args: &Args, checkpoint: &Checkpoint) -> scrubjay::Result<Sets> {
    let samples = args.normalise.load(&args.data, checkpoint)?;
    let test = args.normalise.load(&args.test, checkpoint)?;
    if test.kind != samples.kind {
        let reason = format!("has {}, --data has {}", test.kind, samples.kind);
        return Err(Error::data(&args.test, reason));
    }
    let within = |text: &str| data::choose(text, &args.data, &samples.y);
    let (forget, retain) = (within(&args.forget)?, args.retain.as_deref().map(within).transpose()?);
    Sets::new(samples.into(), test.into(), forget, retain, &args.test)
}
