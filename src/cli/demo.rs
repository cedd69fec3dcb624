//! `scrubjay demo`: train, scrub and compare, on data that ships with the program.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use scrubjay::audit::share_removed;
use scrubjay::block::Block;
use scrubjay::data::file::check_folder;
use scrubjay::data::tensors::{self, Tensor, Values};
use scrubjay::data::{self, Inputs, Samples};
use scrubjay::device::Device;
use scrubjay::net::{Network, Shape};
use scrubjay::observe::evaluate;
use scrubjay::ops::philox::{Stream, Use};
use scrubjay::options::ScrubOptions;
use scrubjay::outcome::Record;
use scrubjay::request::Request;
use scrubjay::select::Method;
use scrubjay::session::Session;
use scrubjay::task::Procedure;
use scrubjay::train::{Recipe, train};
use scrubjay::{Error, checkpoint, zoo};
use serde_json::{Value, json};

use super::shared::{self, DeviceArgs, Exit};

/// Train a small network with 25 wrong labels, remove them, and compare with a network that never saw them
///
/// The data, 1,797 images of handwritten digits, ship with the program. The samples are removed by a hold, as `scrub` would
/// do by default, and for comparison by L-CODEC on the units that it chooses, on random units and on the output layer. The
/// demo takes less than a minute on two cores, and writes before/model.safetensors, after/model.safetensors (of the hold) and
/// report.json to --out. With --data-out it writes the data alone, to try the other commands on.
///
/// Examples:
///   scrubjay demo
///   scrubjay demo --data-out digits
///   scrubjay demo --clean --seed 3 --json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Remove 25 ordinary samples instead of 25 with wrong labels
    #[arg(long)]
    clean: bool,
    /// The seed of the split, the wrong labels, training and scrubbing
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// The folder to write
    #[arg(long, default_value = "scrubjay-demo", value_name = "DIR")]
    out: PathBuf,
    /// Write train.safetensors, val.safetensors, test.safetensors and forget.txt (the samples with wrong labels) to this folder
    /// and stop
    #[arg(long, value_name = "DIR")]
    data_out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

const ARCH: &str = "cnn:16-32+64";
const FORGET: usize = 25;
const TEST: usize = 397;
const HELD_OUT: usize = 200;
const EPOCHS: usize = 40;
const WEIGHT_DECAY: f32 = 1e-3;

/// The split: all images once, in a seeded order.
struct Split {
    /// Training images, labels as trained on.
    train: Arc<Samples>,
    /// Their true labels.
    truth: Vec<u32>,
    /// The samples to forget, ascending.
    forget: Vec<usize>,
    /// All other training samples.
    retain: Vec<usize>,
    held_out: Arc<Samples>,
    test: Samples,
}

/// One row of the table.
struct Row {
    name: &'static str,
    net: Network,
    seconds: f64,
    units: Option<usize>,
    parameters: Option<usize>,
    note: Option<String>,
}

/// Runs the demonstration.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    check_folder(args.data_out.as_ref().unwrap_or(&args.out))?;
    let split = split(args)?;
    if let Some(folder) = &args.data_out {
        return write_data(folder, &split);
    }
    let device = args.device.open()?;
    let everything: Vec<usize> = (0..split.train.y.len()).collect();

    let bar = shared::progress(2 * EPOCHS as u64, "epochs: training with the samples, and without");
    let (original, original_seconds) = trained(args, &device, &split, &everything, &bar)?;
    let (retrained, retrained_seconds) = trained(args, &device, &split, &split.retain, &bar)?;
    bar.finish_and_clear();

    let session = Session::new(device.clone(), original.freeze(), split.train.clone())?
        .with_validation(split.held_out.clone())?;
    let scrub = |name, options| scrubbed(&session, &split, name, &options);
    let bar = shared::progress(4, "scrubs: the hold, the voted block, a random block, the output layer");
    let (held, record) = scrub("hold", options(args, &split))?;
    bar.inc(1);
    let after = held.net.clone();
    let (voted, vote) = scrub("L-CODEC", of_lcodec(args, &split, Method::Vote, None))?;
    bar.inc(1);
    let units = vote.units.len();
    let mut rows = vec![Row::trained("original", &original, original_seconds), held, voted];
    for (name, method) in [("random block", Method::Random), ("output layer", Method::Output)] {
        rows.push(scrub(name, of_lcodec(args, &split, method, Some(units.max(1))))?.0);
        bar.inc(1);
    }
    bar.finish_and_clear();
    rows.push(Row::trained("retrained", &retrained, retrained_seconds));

    save(args, &split, "before", &original.freeze())?;
    save(args, &split, "after", &after)?;
    let table = rows
        .iter()
        .map(|row| measure(&device, &split, &rows[0].net, row))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let report = json!({
        "scrubjay": env!("CARGO_PKG_VERSION"),
        "seed": args.seed,
        "kind": if args.clean { "ordinary samples" } else { "wrong labels" },
        "device": device.report(),
        "forget": split.forget,
        "labels_trained_on": split.train.y.subset(&split.forget).words(),
        "labels_true": split.forget.iter().map(|&i| split.truth[i]).collect::<Vec<_>>(),
        "rows": table,
        "hold": told(&record),
        "lcodec": told(&vote),
    });
    tensors::write_whole(&args.out.join("report.json"), serde_json::to_string_pretty(&report)?.as_bytes())?;
    if args.json {
        println!("{report}");
    } else {
        print(args, &split, &table, &vote);
    }
    Ok(if record.removed() { Exit::Done } else { Exit::GateNotMet })
}

/// A record without its values.
fn told(record: &Record) -> Value {
    json!({
        "removed": record.removed(),
        "fate": record.fate,
        "notes": record.notes,
        "units": record.units,
        "account": record.account,
    })
}

impl Row {
    /// Of a network that was trained, and not scrubbed.
    fn trained(name: &'static str, net: &Network, seconds: f64) -> Row {
        Row { name, net: net.freeze(), seconds, units: None, parameters: None, note: None }
    }
}

/// The row of one scrub, and its record.
fn scrubbed(
    session: &Session,
    split: &Split,
    name: &'static str,
    options: &ScrubOptions,
) -> scrubjay::Result<(Row, Record)> {
    let started = Instant::now();
    let request = Request::new(session, split.forget.clone(), options)?;
    let mut scrubbed = session.scrub(&request)?;
    let record = scrubbed.records.pop().filter(|_| scrubbed.records.is_empty());
    let record = record.ok_or_else(|| Error::config("the demo removes its samples in one batch"))?;
    let row = Row {
        name,
        net: scrubbed.network,
        seconds: started.elapsed().as_secs_f64(),
        units: record.account.step.is_some().then_some(record.units.len()),
        parameters: record.account.step.as_ref().map(|step| step.parameters),
        note: (!record.removed()).then(|| json!(record.notes).to_string()),
    };
    Ok((row, record))
}

/// Writes a model that --model opens.
fn save(args: &Args, split: &Split, folder: &str, net: &Network) -> anyhow::Result<()> {
    let folder = args.out.join(folder);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    checkpoint::save(&folder.join("model.safetensors"), net)?;
    let config = zoo::create(ARCH, split.train.shape(), 10, args.seed)?.config;
    tensors::write_whole(&folder.join("config.json"), serde_json::to_string_pretty(&config)?.as_bytes())?;
    Ok(())
}

/// Writes the three sets, and the list of the samples to forget.
fn write_data(folder: &Path, split: &Split) -> anyhow::Result<Exit> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    for (name, samples) in [("train", &*split.train), ("val", &split.held_out), ("test", &split.test)] {
        let (n, Shape { h, w, c }) = (samples.y.len(), samples.shape());
        let y: Vec<i64> = samples.y.words().iter().copied().map(i64::from).collect();
        let tensors = [
            Tensor { name: "x", shape: vec![n, c, h, w], values: Values::F32(&samples.x) },
            Tensor { name: "y", shape: vec![n], values: Values::I64(&y) },
        ];
        let path = folder.join(format!("{name}.safetensors"));
        tensors::write(&path, &tensors, HashMap::new())?;
        println!("{}: {n} digits", path.display());
    }
    let (path, count) = (folder.join("forget.txt"), split.forget.len());
    let lines: String = split.forget.iter().map(|i| format!("{i}\n")).collect();
    tensors::write_whole(&path, lines.as_bytes())?;
    println!("{}: {count} of train.safetensors", path.display());
    Ok(Exit::Done)
}

fn split(args: &Args) -> scrubjay::Result<Split> {
    let digits = data::digits()?;
    let mut order: Vec<usize> = (0..digits.y.len()).collect();
    let mut stream = Stream::new(args.seed, Use::Choice, 5);
    stream.shuffle(&mut order);
    let take = |indices: &[usize]| digits.copy(indices);
    let (test, rest) = order.split_at(TEST);
    let (held_out, train) = rest.split_at(HELD_OUT);
    let mut train = take(train)?;
    let truth = train.y.words().to_vec();
    let forget = stream.choose(truth.len(), FORGET);
    if !args.clean {
        let mut labels = truth.clone();
        for &i in &forget {
            labels[i] = (truth[i] + 1 + stream.below(9) as u32) % 10;
        }
        train.y = labels.into();
    }
    let retain = (0..truth.len()).filter(|i| !forget.contains(i)).collect();
    let (train, held_out) = (Arc::new(train), Arc::new(take(held_out)?));
    Ok(Split { train, truth, forget, retain, held_out, test: take(test)? })
}

fn trained(
    args: &Args,
    device: &Device,
    split: &Split,
    indices: &[usize],
    bar: &indicatif::ProgressBar,
) -> scrubjay::Result<(Network, f64)> {
    let started = Instant::now();
    let mut net = zoo::create(ARCH, split.train.shape(), 10, args.seed)?.network;
    let config = Recipe {
        epochs: EPOCHS,
        batch: 32,
        rate: 0.05,
        weight_decay: WEIGHT_DECAY,
        seed: args.seed,
        ..Recipe::default()
    };
    train(device, &mut net, &split.train, indices, &config, &mut |_, _| {
        bar.inc(1);
        Ok(true)
    })?;
    Ok((net, started.elapsed().as_secs_f64()))
}

/// The defaults of `scrub`, on all retained samples.
fn options(args: &Args, split: &Split) -> ScrubOptions {
    ScrubOptions {
        retain: Some(split.retain.clone().into()),
        wrong_labels: !args.clean,
        l2: f64::from(WEIGHT_DECAY),
        gate: 1.0, // the table shows what happens, whatever it is
        seed: args.seed,
        ..ScrubOptions::default()
    }
}

/// Those of L-CODEC; random blocks are as large as the voted one.
fn of_lcodec(args: &Args, split: &Split, method: Method, units: Option<usize>) -> ScrubOptions {
    ScrubOptions {
        method: Some(Procedure::Lcodec),
        selection: Some(method),
        max_units: units,
        l2: 0.0,
        ..options(args, split)
    }
}

fn measure(device: &Device, split: &Split, original: &Network, row: &Row) -> anyhow::Result<Value> {
    let of = |samples: &dyn Inputs| evaluate(device, &row.net, samples);
    let forget = of(&split.train.subset(&split.forget))?;
    let retain = of(&split.train.subset(&split.retain))?;
    let test = of(&split.test)?;
    let right = forget.predicted.iter().zip(&split.forget).filter(|(p, i)| **p == split.truth[**i]).count();
    Ok(json!({
        "name": row.name,
        "forget_accuracy": forget.accuracy(),
        "forget_accuracy_true_labels": right as f64 / split.forget.len() as f64,
        "forget_loss": forget.mean_loss(),
        "retain_accuracy": retain.accuracy(),
        "retain_loss": retain.mean_loss(),
        "test_accuracy": test.accuracy(),
        "test_loss": test.mean_loss(),
        "gradient_share_removed": share(device, split, original, &row.net)?,
        "units": row.units,
        "parameters": row.parameters,
        "seconds": row.seconds,
        "note": row.note,
    }))
}

/// The share of the forgotten samples' gradient removed, over all units (MATH.md, Eq. 14).
fn share(device: &Device, split: &Split, original: &Network, net: &Network) -> scrubjay::Result<f64> {
    let block = Block::all(original)?;
    let (forget, retain) = (split.train.subset(&split.forget), split.train.subset(&split.retain));
    let (n, m) = (split.train.y.len(), split.forget.len());
    let sum: Vec<f64> = block.gradient(device, original, &forget)?.iter().map(|g| g * m as f64).collect();
    let before = block.gradient(device, original, &retain)?;
    let after = block.gradient(device, net, &retain)?;
    Ok(share_removed(&block.values(original), &block.values(net), &before, &after, &sum, n, m, 0.0))
}

fn print(args: &Args, split: &Split, table: &[Value], record: &Record) {
    let what = if args.clean { "ordinary training samples" } else { "training samples with a wrong label" };
    println!(
        "A small convolutional network was trained on {} digits, {FORGET} {what} among them;",
        split.train.y.len()
    );
    println!("then those {FORGET} were removed.\n");
    println!(
        "                 forget acc  true label  forget loss  retain acc  retain loss  test acc  gradient gone  units  parameters  seconds"
    );
    for row in table {
        let percent = |key: &str| row[key].as_f64().map_or("-".into(), |v| format!("{:.1} %", 100.0 * v));
        let count = |key: &str| row[key].as_u64().map_or("-".into(), |v| v.to_string());
        println!(
            "{:<15}  {:>10}  {:>10}  {:>11.3}  {:>10}  {:>11.4}  {:>8}  {:>13}  {:>5}  {:>10}  {:>7.2}",
            row["name"].as_str().unwrap_or_default(),
            percent("forget_accuracy"),
            percent("forget_accuracy_true_labels"),
            row["forget_loss"].as_f64().unwrap_or(f64::NAN),
            percent("retain_accuracy"),
            row["retain_loss"].as_f64().unwrap_or(f64::NAN),
            percent("test_accuracy"),
            percent("gradient_share_removed"),
            count("units"),
            count("parameters"),
            row["seconds"].as_f64().unwrap_or(0.0),
        );
        if let Some(note) = row["note"].as_str() {
            println!("                 {note}");
        }
    }
    let selection = &record.account.selection;
    println!("\nforget acc    share of the {FORGET} that the network still classifies as it was trained to");
    println!("true label    share of them classified as they should be");
    println!(
        "gradient gone share of their gradient removed from the objective; in a network it decides nothing"
    );
    println!(
        "T1            {:.2}: how strongly the loss depends on the first unit of L-CODEC, where chance reaches {:.2}",
        selection.first_t.unwrap_or(f64::NAN),
        selection.noise_level.unwrap_or(f64::NAN)
    );
    println!(
        "\nWritten to {}: before/ and after/ (model.safetensors, config.json), report.json.",
        args.out.display()
    );
    println!("Next, on a model of your own:");
    println!("  scrubjay inspect --model MODEL");
    println!(
        "  scrubjay scrub --model MODEL --data TRAIN --forget 7,12,100-149 --val VALIDATION --out DIR --dry-run"
    );
}
