//! `scrubjay verify`: is it forgotten?

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Instant;

use scrubjay::block::Block;
use scrubjay::checkpoint::Checkpoint;
use scrubjay::comparison::{
    Behaviour, Comparison, Definition, Flag, MEASURES, Outputs, Row, SHADOWS, UNSEEN,
};
use scrubjay::data::{self, Inputs, Samples, tensors};
use scrubjay::device::Device;
use scrubjay::loss;
use scrubjay::manifest::{Manifest, json_in, listed};
use scrubjay::net::Network;
use scrubjay::task::is_convex;
use scrubjay::{Error, hash, observe, report, zoo};
use serde_json::{Map, Value, json};

use super::model::{ChoiceArgs, NormaliseArgs};
use super::shared::{self, DeviceArgs, Outcome, command_line};

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

/// The samples that all models are measured on.
struct Sets {
    samples: Samples,
    test: Samples,
    forget: Vec<usize>,
    retain: Vec<usize>,
    /// Indices in the test set of the samples that the forgotten are compared with.
    unseen: Vec<usize>,
    /// The class of all forgotten samples, where they have one in common.
    class: Option<u32>,
}

/// A model to be measured.
struct Candidate<'a> {
    path: &'a Path,
    network: Network,
    family: &'static str,
    inputs: zoo::InputConfig,
    sha256: String,
    folder: PathBuf,
    /// Its `train.json`.
    manifest: Option<Manifest>,
}

/// Compares, and reports the result.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let checkpoint = args.choices.checkpoint(&args.before)?;
    let sets = sets(args, &checkpoint)?;
    drop(checkpoint);
    let before = Candidate::open(args, &args.before, &sets)?;
    let after = Candidate::open(args, &args.after, &sets)?;
    let references = args
        .reference
        .iter()
        .map(|path| Candidate::open(args, path, &sets))
        .collect::<scrubjay::Result<Vec<_>>>()?;
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
    check_test(args, &sets, &mut notes);

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
    Ok(if found.findings.is_empty() { Outcome::Done } else { Outcome::GateNotMet })
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

/// How far a model is from the retrained ones' mean.
fn gap(found: &Comparison, measure: &Definition, row: &Row) -> Option<f64> {
    Some((measure.of)(row)? - found.retrained(measure)?.mean)
}

fn sets(args: &Args, checkpoint: &Checkpoint) -> scrubjay::Result<Sets> {
    let samples = args.normalise.load(&args.data, checkpoint)?;
    let test = args.normalise.load(&args.test, checkpoint)?;
    if test.kind != samples.kind {
        let reason = format!("has {}, --data has {}", test.kind, samples.kind);
        return Err(Error::data(&args.test, reason));
    }
    let within = |text: &str| data::choose(text, &args.data, &samples.y);
    let forget = within(&args.forget)?;
    let mut forgotten = vec![false; samples.y.len()];
    forget.iter().for_each(|&i| forgotten[i] = true);
    let retain = match &args.retain {
        Some(text) => within(text)?,
        None => (0..samples.y.len()).filter(|&i| !forgotten[i]).collect(),
    };
    if let Some(i) = retain.iter().find(|&&i| forgotten[i]) {
        return Err(Error::config(format!("sample {i} is to be forgotten and to be retained")));
    }
    if retain.is_empty() {
        return Err(Error::config("nothing is left to retain: every sample is to be forgotten"));
    }
    let class = forget.first().and_then(|&i| samples.y.class_of(i));
    let class = class.filter(|&class| forget.iter().all(|&i| samples.y.class_of(i) == Some(class)));
    let unseen: Vec<usize> =
        (0..test.y.len()).filter(|&i| class.is_none() || test.y.class_of(i) == class).collect();
    if unseen.len() < UNSEEN {
        let of = class.map_or(String::new(), |class| format!(" of class {class}, like all forgotten ones,"));
        let reason = format!(
            "holds {} samples{of} to tell the forgotten from; membership inference needs {UNSEEN}",
            unseen.len()
        );
        return Err(Error::data(&args.test, reason));
    }
    Ok(Sets { samples, test, forget, retain, unseen, class })
}

impl<'a> Candidate<'a> {
    fn open(args: &Args, path: &'a Path, sets: &Sets) -> scrubjay::Result<Candidate<'a>> {
        let checkpoint = args.choices.checkpoint(path)?;
        let model = args.choices.open(&checkpoint, Some((&args.data, &sets.samples)))?;
        data::check_labels(&args.test, &sets.test.y, model.network.loss, model.network.classes())?;
        Ok(Candidate {
            path,
            network: model.network,
            family: model.family,
            inputs: zoo::inputs(&checkpoint),
            sha256: hash::of_files_at(checkpoint.contents())?,
            folder: checkpoint.folder().into(),
            manifest: Manifest::of(&checkpoint)?,
        })
    }

    fn behaviour(&self, device: &Device, sets: &Sets) -> scrubjay::Result<Behaviour> {
        let (net, classes, width) = (&self.network, self.network.classes(), self.network.label_width());
        let outputs = |inputs: &dyn Inputs, labels: &[u32]| {
            let trace = observe::outputs(device, net, inputs)?;
            if let Some(i) = trace.logits.iter().position(|logit| !logit.is_finite()) {
                let reason = format!("gives a logit of {}", trace.logits[i]);
                return Err(Error::checkpoint(self.path, reason));
            }
            let mut predicted = vec![0; labels.len()];
            net.loss.predict(&mut predicted, &trace.logits, classes)?;
            let surprisals = observe::surprisals(net, &trace, labels)?;
            Ok(Outputs {
                losses: surprisals.into_iter().map(f64::from).collect(),
                accuracy: loss::right(&predicted, labels, width) as f64 / trace.m as f64,
                logits: trace.logits,
            })
        };
        let part = |indices: &[usize]| {
            outputs(&sets.samples.subset(indices), sets.samples.y.subset(indices).words())
        };
        // One linear layer has a convex loss, whatever the weight decay.
        let convex = is_convex(&self.network, 1.0);
        Ok(Behaviour {
            forget: part(&sets.forget)?,
            retain: part(&sets.retain)?,
            test: outputs(&sets.test, sets.test.y.words())?,
            weights: if convex { Some(Block::all(&self.network)?.values(&self.network)) } else { None },
        })
    }
}

/// Checks that two models have the same layers and the same inputs.
fn check_alike(before: &Candidate, other: &Candidate) -> scrubjay::Result<()> {
    let refuse = |reason: String| Err(Error::checkpoint(other.path, reason));
    let a = before.path.display();
    if other.family != before.family {
        return refuse(format!("is of the family {}, {a} of {}", other.family, before.family));
    }
    if other.network.loss != before.network.loss {
        let (ours, theirs) = (before.network.loss, other.network.loss);
        return refuse(format!("has the loss {theirs:?}, {a} {ours:?}"));
    }
    let (ours, theirs) = (&before.network.params, &other.network.params);
    if let Some((p, q)) = ours.iter().zip(theirs).find(|(p, q)| (&p.name, &p.shape) != (&q.name, &q.shape)) {
        return refuse(format!(
            "is of another architecture than {a}: its `{}` is {:?}, there `{}` is {:?}",
            q.name, q.shape, p.name, p.shape
        ));
    }
    if ours.len() != theirs.len() {
        return refuse(format!(
            "is of another architecture than {a}: {} tensors, there {}",
            theirs.len(),
            ours.len()
        ));
    }
    for (what, p, q) in
        [("mean", &before.inputs.mean, &other.inputs.mean), ("std", &before.inputs.std, &other.inputs.std)]
    {
        if let (Some(p), Some(q)) = (p, q)
            && p != q
        {
            return refuse(format!("normalises its inputs otherwise than {a}: {what} {q:?}, there {p:?}"));
        }
    }
    Ok(())
}

/// Checks that a reference is neither the model before nor after, nor given twice: its gap to itself would be 0.
fn check_distinct(before: &Candidate, after: &Candidate, references: &[Candidate]) -> scrubjay::Result<()> {
    let mut seen = BTreeMap::from([
        (&before.sha256, ("the model before", before.path)),
        (&after.sha256, ("the model after", after.path)),
    ]);
    for reference in references {
        if let Some((what, path)) = seen.insert(&reference.sha256, ("another reference", reference.path)) {
            return Err(Error::config(format!(
                "the reference {} is byte for byte {what}, {}",
                reference.path.display(),
                path.display()
            )));
        }
    }
    Ok(())
}

/// Checks that the model before has seen the samples, as far as its manifest shows.
fn check_before(
    before: &Candidate,
    data: &BTreeMap<String, String>,
    sets: &Sets,
    notes: &mut Vec<String>,
) -> scrubjay::Result<()> {
    let Some(manifest) = &before.manifest else { return Ok(()) };
    let Some(excluded) = manifest.excluded() else { return Ok(()) };
    let path = before.path.display();
    if !manifest.trained_on(data) {
        notes.push(format!(
            "{path} was trained on other data than --data, by its train.json: the samples to forget may be others"
        ));
        return Ok(());
    }
    let absent: Vec<usize> = sets.forget.iter().copied().filter(|i| excluded.contains(i)).collect();
    match absent.is_empty() {
        true => Ok(()),
        false => Err(Error::config(format!(
            "{} of the {} samples to forget were not in the training data of {path}, by its train.json: {}",
            absent.len(),
            sets.forget.len(),
            listed(&absent)
        ))),
    }
}

/// Checks that a reference has not seen the samples and was otherwise trained as the model before, as far as manifests
/// show.
fn check_reference(
    reference: &Candidate,
    before: &Candidate,
    data: &BTreeMap<String, String>,
    sets: &Sets,
    notes: &mut Vec<String>,
) -> scrubjay::Result<()> {
    let path = reference.path.display();
    let manifest = reference.manifest.as_ref();
    let Some((manifest, excluded)) = manifest.and_then(|manifest| Some((manifest, manifest.excluded()?)))
    else {
        notes.push(format!("{path} has no train.json: that it never saw the samples is taken on trust"));
        return Ok(());
    };
    if !manifest.trained_on(data) {
        notes.push(format!(
            "{path} was trained on other data than --data, by its train.json: whether it saw the samples cannot be told"
        ));
        return Ok(());
    }
    let seen: Vec<usize> = sets.forget.iter().copied().filter(|i| !excluded.contains(i)).collect();
    if !seen.is_empty() {
        return Err(Error::config(format!(
            "the reference {path} was trained with {} of the {} samples to forget, by its train.json: {}",
            seen.len(),
            sets.forget.len(),
            listed(&seen)
        )));
    }
    if let Some(model) = manifest.0.get("model").and_then(Value::as_str) {
        notes.push(format!("{path} was trained further from {model}, which may have seen the samples"));
    }
    let also: Vec<usize> = sets.retain.iter().copied().filter(|i| excluded.contains(i)).collect();
    if !also.is_empty() {
        notes.push(format!(
            "{path} has not seen {} of the {} retained samples either: {}",
            also.len(),
            sets.retain.len(),
            listed(&also)
        ));
    }
    let options = |manifest: &Manifest| manifest.0.get("options").and_then(Value::as_object).cloned();
    if let (Some(theirs), Some(ours)) = (options(manifest), before.manifest.as_ref().and_then(options)) {
        let differs = |key: &&String| *key != "seed" && theirs.get(*key) != ours.get(*key);
        if let Some(key) = ours.keys().find(differs) {
            let said = |options: &Map<String, Value>| options.get(key).cloned().unwrap_or_default();
            notes.push(format!(
                "{path} was trained otherwise than the model before: {key} is {}, there {}",
                said(&theirs),
                said(&ours)
            ));
        }
    }
    Ok(())
}

/// Checks that the report of a scrub beside the model after is about this model and these samples.
fn check_receipt(
    before: &Candidate,
    after: &Candidate,
    sets: &Sets,
    notes: &mut Vec<String>,
) -> scrubjay::Result<()> {
    let Some(report) = json_in(&after.folder, "report.json")? else { return Ok(()) };
    let path = after.path.display();
    if report["model"]["sha256_before"].as_str().is_some_and(|hash| hash != before.sha256) {
        notes.push(format!("{path} was scrubbed from another model than --before, by its report.json"));
    }
    if report["request"]["samples"].is_array() && report["request"]["samples"] != json!(sets.forget) {
        notes.push(format!("{path} was scrubbed of other samples than --forget, by its report.json"));
    }
    if let Some(left) = report["not_removed"].as_u64().filter(|&left| left > 0) {
        notes.push(format!("{left} samples were not removed from {path}, by its report.json"));
    }
    Ok(())
}

/// Notes test images that are in the training data too: they are not unseen.
fn check_test(args: &Args, sets: &Sets, notes: &mut Vec<String>) {
    let key = |samples: &Samples, i: usize| {
        let mut hasher = DefaultHasher::new();
        samples.image(i).iter().for_each(|value| value.to_bits().hash(&mut hasher));
        hasher.finish()
    };
    let known: HashSet<u64> = (0..sets.samples.y.len()).map(|i| key(&sets.samples, i)).collect();
    let again = (0..sets.test.y.len()).filter(|&i| known.contains(&key(&sets.test, i))).count();
    if again > 0 {
        notes.push(format!(
            "{again} of the {} images of {} are in --data too: they are not unseen",
            sets.test.y.len(),
            args.test.display()
        ));
    }
}

fn print(found: &Comparison, sets: &Sets, notes: &[String]) {
    println!(
        "{} forgotten, {} retained, {} test samples, {} of them unseen ones to hold against the forgotten{}\n",
        sets.forget.len(),
        sets.retain.len(),
        sets.test.y.len(),
        sets.unseen.len(),
        sets.class.map_or(String::new(), |class| format!(" (class {class})"))
    );
    let retrained = format!("retrained ({})", found.references.len());
    println!(
        "{:<36}{:>10}{:>10}{:>20}{:>12}{:>11}",
        "", "before", "after", retrained, "gap before", "gap after"
    );
    let mut defined = vec![];
    for measure in &MEASURES {
        let number = |value: Option<f64>, plus: bool| match value {
            Some(value) if plus => format!("{:+.*}", measure.digits, value * measure.scale),
            Some(value) => format!("{:.*}", measure.digits, value * measure.scale),
            None => "-".to_string(),
        };
        let of = |row| number((measure.of)(row), false);
        if (measure.of)(&found.after).is_none() {
            continue;
        }
        let retrained = found.retrained(measure);
        let retrained = match retrained.and_then(|spread| spread.deviation) {
            Some(deviation) => {
                format!("{} ± {}", number(retrained.map(|s| s.mean), false), number(Some(deviation), false))
            }
            None => number(retrained.map(|spread| spread.mean), false),
        };
        println!(
            "{:<36}{:>10}{:>10}{retrained:>20}{:>12}{:>11}",
            [measure.name, measure.unit].join(if measure.unit.is_empty() { "" } else { ", " }),
            of(&found.before),
            of(&found.after),
            number(gap(found, measure, &found.before), true),
            number(gap(found, measure, &found.after), true),
        );
        defined.push(measure);
    }
    println!();
    for finding in &found.findings {
        let word = match finding.flag {
            Flag::Remembers => "REMEMBERS    ",
            Flag::OverForgets => "OVER-FORGETS ",
            Flag::Uneven => "UNEVEN       ",
            Flag::Damaged => "DAMAGED      ",
        };
        println!("{word}{}", finding.text);
    }
    if found.findings.is_empty() {
        println!(
            "no flag: by membership, rank and accuracy the model after is within what retrained models show"
        );
    }
    notes.iter().for_each(|note| println!("note: {note}"));
    println!();
    for measure in defined {
        println!("{}: {}", measure.name, measure.text);
    }
}
