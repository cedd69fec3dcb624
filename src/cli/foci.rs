//! `scrubjay foci`: which columns of a table tell about another, best first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::ProgressBar;
use scrubjay::codec::{self, Blankets, Columns, Foci, FociOptions, MemoryEstimate, Stopped, Watch};
use scrubjay::data::table::{Column, Frame, Table};
use scrubjay::data::tensors::write_whole;
use scrubjay::report::steps;
use serde_json::{Value, json};

use super::codec::{Randomness, Reading, target};
use super::shared::{self, DeviceArgs, Exit, progress};

/// Choose the columns on which another one depends, best first (FOCI)
///
/// T is the measure of `codec`: 0 where Y does not depend on a column, 1 where Y is a function of it. The first column has the
/// largest T; each next one has the largest T given those before it, until no T is above 0. Ctrl-C ends the search and keeps
/// the columns found so far.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  scrubjay foci people.csv --target income
  scrubjay foci people.csv --target income --standardize scale --max-features 5
  scrubjay foci people.csv --target income --initial age --group lat,lon --plot steps.svg
  scrubjay foci people.csv --graph --dot people.dot --resume people.jsonl
  scrubjay foci columns.safetensors --json

COL is a name or a number from 0; COLS is a list of these and of ranges: age,3,7-9.
In a .safetensors file with X [n, p] and Y [n], numbers are columns of X.")]
pub struct Args {
    /// The table: .csv, .tsv, .csv.gz, .arff, .npy, .npz, .parquet or .safetensors
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// The column Y that is to be explained by others; by default the tensor Y of a .safetensors file
    #[arg(long, value_name = "COL")]
    target: Option<String>,
    /// Choose at most this many columns
    #[arg(long, value_name = "K", value_parser = shared::at_least_one)]
    max_features: Option<u32>,
    /// Do not stop where no column adds to T, and order all of them
    #[arg(long)]
    all: bool,
    /// Columns that count as chosen from the start
    #[arg(long, value_name = "COLS")]
    initial: Option<String>,
    /// Columns that are chosen together or not at all. Can be repeated
    #[arg(long, value_name = "COLS")]
    group: Vec<String>,
    /// Run FOCI for every column on all others, which estimates its Markov blanket
    #[arg(long, conflicts_with_all = ["target", "initial", "group", "plot"])]
    graph: bool,
    /// With --graph: save finished columns in this file, and skip those that it has already
    #[arg(long, value_name = "FILE.jsonl", requires = "graph")]
    resume: Option<PathBuf>,
    /// With --graph: write the graph as a file for Graphviz
    #[arg(long, value_name = "FILE.dot", requires = "graph")]
    dot: Option<PathBuf>,
    /// Draw T step by step, and where the search stopped, as an SVG file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    randomness: Randomness,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// What FOCI chooses from: one column of the table, or a group.
struct Candidate {
    columns: Vec<usize>, // of the table
    name: String,
}

impl Candidate {
    /// Its number; a list where it is a group.
    fn number(&self) -> Value {
        match self.columns[..] {
            [column] => column.into(),
            _ => json!(self.columns),
        }
    }
}

/// Prints the columns chosen, or the graph.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let resume = args.resume.iter().filter(|file| !file.exists());
    shared::check_files(resume.chain(&args.dot).chain(&args.plot))?;
    let table = args.reading.table(&args.data)?;
    if args.graph {
        return graph(args, &table);
    }
    let y = target(&table, args.target.as_deref(), "--target")?;
    let numbers: Vec<usize> = (0..table.names().len()).filter(|&j| y != Column::Number(j)).collect();
    let columns: Vec<Column> = numbers.iter().map(|&j| Column::Number(j)).collect();
    let frame = args.reading.frame(&table, y, &columns)?;
    let p = frame.p() - 1;
    let data = Columns::from_columns_f64(&frame.values[frame.n..], frame.n, p)?;
    let Offered { candidates, initial, groups } = offered(args, &table, &frame, y, &numbers)?;
    let plain = initial.is_empty() && groups.iter().all(|group| group.len() == 1);
    let watch = Watch::default();
    let options = FociOptions {
        initial: &initial,
        groups: if plain { &[] } else { &groups },
        watch: Some(&watch),
        ..options(args)
    };
    let device = args.device.open()?;
    announce(&table, &frame, &codec::foci_memory(&device, frame.n, p, &options)?, &options);
    let chosen = AtomicUsize::new(0);
    let message = || format!("rows of step {}", chosen.load(Ordering::Relaxed) + 1);
    let mut each = |steps: usize, _| chosen.store(steps, Ordering::Relaxed);
    let found = watched(
        &watch,
        || watch.progress(),
        &message,
        || codec::foci_each(&device, frame.column(0), &data, &options, &mut each),
    )??;
    let chosen: Vec<&Candidate> = found.order.iter().map(|&at| &candidates[at]).collect();
    let names: Vec<&str> = chosen.iter().map(|candidate| candidate.name.as_str()).collect();
    if let Some(path) = &args.plot {
        let picture = steps(&names, &found, found.reason());
        device.ranks().first(|| write_whole(path, picture.as_bytes()))?;
    }
    if args.json {
        let order: Vec<Value> = chosen.iter().map(|candidate| candidate.number()).collect();
        let mut report = json!({
            "order": order, "names": names, "conditional": found.conditional,
            "cumulative": found.cumulative, "stopped": found.stopped.name(),
        });
        if frame.omitted > 0 {
            report["omitted"] = frame.omitted.into();
        }
        println!("{report}");
    } else {
        print_table(&chosen, &found);
    }
    Ok(ending(found.stopped == Stopped::Interrupted))
}

/// What is chosen from, with columns of the frame by number, from 0 after Y.
struct Offered {
    candidates: Vec<Candidate>,
    initial: Vec<usize>,
    groups: Vec<Vec<usize>>, // by candidate
}

/// The groups that are named and each of the other columns; `numbers` are the table's columns without the target `y`.
fn offered(
    args: &Args,
    table: &Table,
    frame: &Frame,
    y: Column,
    numbers: &[usize],
) -> scrubjay::Result<Offered> {
    let of = |&column: &usize| -> Vec<usize> {
        let at = numbers.iter().position(|&j| j == column);
        at.map_or(Vec::new(), |at| frame.spans[at + 1].clone().map(|j| j - 1).collect())
    };
    let listed = |list: &str| -> scrubjay::Result<Vec<usize>> {
        let mut found = Vec::new();
        for column in table.find(list)? {
            match column {
                Column::Number(j) if column != y => found.push(j),
                Column::Number(_) | Column::Target => {
                    return Err(scrubjay::Error::config(format!("`{list}` has the target itself")));
                }
            }
        }
        Ok(found)
    };
    let initial = args.initial.as_deref().map_or(Ok(Vec::new()), listed)?;
    let mut candidates = Vec::new();
    for list in &args.group {
        candidates.push(listed(list)?);
    }
    let together = candidates.concat();
    let alone = numbers.iter().filter(|j| !together.contains(j) && !initial.contains(j));
    candidates.extend(alone.map(|&j| vec![j]));
    let groups = candidates.iter().map(|columns| columns.iter().flat_map(of).collect()).collect();
    let named = |columns: Vec<usize>| {
        let names: Vec<&str> = columns.iter().map(|&j| table.names()[j].as_str()).collect();
        Candidate { name: names.join("+"), columns }
    };
    Ok(Offered {
        initial: initial.iter().flat_map(of).collect(),
        groups,
        candidates: candidates.into_iter().map(named).collect(),
    })
}

fn options(args: &Args) -> FociOptions<'static> {
    FociOptions {
        max_features: args.max_features.map(|k| k as usize),
        all: args.all,
        standardize: args.randomness.standardize,
        ties: args.randomness.ties(),
        noise: args.randomness.noise,
        seed: args.randomness.seed,
        ..FociOptions::default()
    }
}

/// The number of chosen columns for which the memory is reported, unless --max-features gives one.
const CHOSEN: usize = 10;

/// Reports on stderr how much memory the search takes.
fn announce(table: &Table, frame: &Frame, memory: &MemoryEstimate, options: &FociOptions) {
    let chosen = options.max_features.unwrap_or(CHOSEN).min(frame.p());
    let data = table.bytes() + size_of_val(&frame.values[..]);
    eprintln!(
        "{} rows, {} columns: at most {} MiB with {chosen} chosen; {}",
        frame.n,
        frame.p() - 1,
        memory.total(data, chosen).div_ceil(1 << 20),
        memory.method
    );
}

fn ending(interrupted: bool) -> Exit {
    match interrupted {
        true => Exit::GateNotMet,
        false => Exit::Done,
    }
}

/// Runs `work` with a progress bar on stderr; Ctrl-C stops the watch, a second one ends the program.
fn watched<R: Send>(
    watch: &Watch,
    at: impl Fn() -> (usize, usize) + Sync,
    message: &(impl Fn() -> String + Sync),
    work: impl FnOnce() -> R + Send,
) -> anyhow::Result<R> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(1); // asked twice
        }
    })?;
    let finished = AtomicBool::new(false);
    let bar: ProgressBar = progress(0, &message());
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = String::new();
            while !finished.load(Ordering::Relaxed) {
                if ASKED.load(Ordering::Relaxed) && !watch.stopped() {
                    bar.suspend(|| {
                        eprintln!("stopping with what is found so far; press Ctrl-C again to end at once")
                    });
                    watch.stop();
                }
                let (done, total) = at();
                let now = message();
                if now != last {
                    bar.reset(); // the remaining time is that of this step
                    bar.set_message(now.clone());
                    last = now;
                }
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
        let result = work();
        finished.store(true, Ordering::Relaxed);
        result
    });
    bar.finish_and_clear();
    Ok(result)
}

/// Prints the blanket of every column.
fn graph(args: &Args, table: &Table) -> anyhow::Result<Exit> {
    let columns: Vec<Column> = (0..table.names().len()).map(Column::Number).collect();
    let Some((&first, others)) = columns.split_first() else {
        return Err(scrubjay::Error::config("the table has no columns").into());
    };
    let frame = args.reading.frame(table, first, others)?;
    if frame.p() != columns.len() {
        return Err(scrubjay::Error::config("a graph takes no column as one per category").into());
    }
    let data = Columns::from_columns_f64(&frame.values, frame.n, frame.p())?;
    let watch = Watch::default();
    let options = FociOptions { watch: Some(&watch), ..options(args) };
    let device = args.device.open()?;
    announce(table, &frame, &codec::graph_memory(&device, frame.n, frame.p(), &options)?, &options);
    let mut kept = None; // of rank 0
    let known = match &args.resume {
        Some(path) => device.ranks().first(|| {
            let (opened, known) = Blankets::open(path, &frame.values, frame.n, &options)?;
            kept = Some(opened);
            Ok(known)
        })?,
        None => BTreeMap::new(),
    };
    if !known.is_empty() {
        eprintln!("{} of {} columns are finished already", known.len(), frame.p());
    }
    let done = AtomicUsize::new(known.len());
    let at = || (done.load(Ordering::Relaxed), frame.p());
    let found = watched(&watch, at, &|| "columns".to_string(), || {
        codec::graph(&device, &data, &options, &known, &|column, blanket| {
            done.fetch_add(1, Ordering::Relaxed);
            kept.as_ref().map_or(Ok(()), |kept| kept.write(column, blanket))
        })
    })??;
    if let Some(path) = &args.dot {
        device.ranks().first(|| write_whole(path, found.dot(table.names()).as_bytes()))?;
    }
    let names = table.names();
    let interrupted = found.blankets.iter().any(Option::is_none);
    if args.json {
        println!("{}", found.json(names));
        return Ok(ending(interrupted));
    }
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("column".len());
    println!("{:<width$}  {:>10}  blanket", "column", "T together");
    for (name, blanket) in names.iter().zip(&found.blankets) {
        let Some(blanket) = blanket else {
            println!("{name:<width$}  {:>10}  not looked at", "");
            continue;
        };
        let t = blanket.cumulative.last().copied().flatten().map_or("-".into(), |t| format!("{t:.6}"));
        let listed: Vec<&str> = blanket.order.iter().map(|&j| names[j].as_str()).collect();
        println!("{name:<width$}  {t:>10}  {}", listed.join(", "));
    }
    if interrupted {
        println!("stopped: interrupted; the other columns were not looked at");
    }
    Ok(ending(interrupted))
}

fn print_table(chosen: &[&Candidate], found: &Foci) {
    let number = |t: Option<f64>| t.map_or("undefined".to_string(), |t| format!("{t:.6}"));
    let column =
        |candidate: &Candidate| candidate.columns.iter().map(usize::to_string).collect::<Vec<_>>().join("+");
    let longest = |of: &dyn Fn(&Candidate) -> usize, least: usize| {
        chosen.iter().map(|candidate| of(candidate)).max().unwrap_or(0).max(least)
    };
    let width = longest(&|candidate| candidate.name.chars().count(), "name".len());
    let digits = longest(&|candidate| column(candidate).len(), "column".len());
    if chosen.is_empty() {
        println!("nothing chosen");
    } else {
        println!(
            "{:>4}  {:>digits$}  {:<width$}  {:>14}  {:>10}",
            "step", "column", "name", "T given before", "T together"
        );
    }
    for (step, candidate) in chosen.iter().enumerate() {
        let (given, together) = (number(found.conditional[step]), number(found.cumulative[step]));
        let (column, name) = (column(candidate), &candidate.name);
        println!("{:>4}  {column:>digits$}  {name:<width$}  {given:>14}  {together:>10}", step + 1);
    }
    println!("stopped: {}", found.reason());
}
