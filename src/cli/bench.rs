//! `scrubjay bench`: the time of single kernels.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use regex_lite::Regex;
use scrubjay::Error;
use scrubjay::bench::{CASES, Case, Ceilings, Measured, ceilings, measured};
use scrubjay::data::tensors;
use scrubjay::device::Device;
use scrubjay::device::cuda::Resources;
use serde::Serialize;
use serde_json::{Value, json};

use super::shared::{self, DeviceArgs, Exit};

/// Time kernels, check their results, and compare each time with the least that the device needs
///
/// Bandwidth and peak rate of the device are measured first. Columns of the table:
///   median, least      the median and the shortest of the times, in microseconds
///   noise              the distance of their quartiles, as a share of the median
///   floor              the time that the device needs at least (the larger of bytes / bandwidth and
///                      operations / peak rate), as a share of the median: 100 % is the best possible
///   error              difference to plain loops in f64, in the same run
///   MHz                clock of the GPU's multiprocessors right after the run
///   regs, smem, local  registers per thread, bytes of shared memory per block and of local memory
///                      per thread (spills and arrays): the largest among the kernels launched
/// A row is printed as soon as it is measured. A case that cannot run is reported, and the others
/// continue.
/// Exit 1: a result was wrong, or a case could not run. Exit 3: slower than --fail-over allows.
///
/// Examples:
///   scrubjay bench --list
///   scrubjay bench -b '^conv' -a n=64,c=64:128:256,o=128
///   scrubjay bench -b '^conv' --dtype f16
///   scrubjay bench --out before.json;  scrubjay bench --baseline before.json --fail-over 5%
///   scrubjay bench -b '^(resnet50|vit16)' -a copies=1000,images=64,side=224
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Run the kernels whose name matches; by default all (see --list)
    #[arg(short, long, value_name = "REGEX", default_value = "", hide_default_value = true, value_parser = Regex::new)]
    bench: Regex,
    /// Run only the kernels whose operands have this type; by default all
    #[arg(long, value_name = "f32|tf32|bf16|f16", value_parser = ["f32", "tf32", "bf16", "f16"])]
    dtype: Option<String>,
    /// Other sizes than those of --list; several sizes of an axis, separated by colons, are run one after another
    #[arg(short, long, value_name = "AXIS=SIZE,..", value_delimiter = ',')]
    axis: Vec<String>,
    /// List the kernels with their axes and default sizes, and stop
    #[arg(long)]
    list: bool,
    /// Compare with the JSON of an earlier run (--out) on the same device
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Exit 3 if a kernel is slower than the baseline by more than this, and the middle halves of both runs' times do not
    /// overlap
    #[arg(long, value_name = "PERCENT", requires = "baseline", value_parser = per_cent)]
    fail_over: Option<f64>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV
    #[arg(long)]
    csv: bool,
    /// Write the JSON to a file too; it is complete after every row
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn per_cent(text: &str) -> Result<f64, String> {
    shared::not_negative(text.strip_suffix('%').unwrap_or(text)).map(|number| number / 100.0)
}

/// One kernel at one shape, and how it compares with an earlier run.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    found: Measured,
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<Compared>,
}

impl Row {
    /// The largest use of a resource by one of the kernels; none where the device does not report it.
    fn most(&self, of: fn(&Resources) -> u32) -> Option<u32> {
        self.found.launched.iter().filter_map(|kernel| kernel.resources.as_ref()).map(of).max()
    }
}

/// The comparison with an earlier run.
#[derive(Clone, Copy, Serialize)]
struct Compared {
    /// The earlier median, seconds.
    before: f64,
    /// The change of the median as a share of the earlier one.
    change: f64,
    /// `same` where the quartiles of both overlap, else `fast` or `slow`.
    status: &'static str,
}

/// Times, checks, prints.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    shared::check_files(&args.out)?;
    let of_type = |case: &&Case| args.dtype.as_ref().is_none_or(|dtype| dtype == case.dtype);
    let named = CASES.iter().filter(|case| args.bench.is_match(case.name));
    let cases: Vec<&Case> = named.filter(of_type).collect();
    if cases.is_empty() {
        let dtype = args.dtype.as_ref().map_or(String::new(), |dtype| format!(" and has --dtype {dtype}"));
        let reason = format!("no kernel matches `{}`{dtype}; --list shows them", args.bench);
        return Err(Error::config(reason).into());
    }
    if args.list {
        list(args, &cases);
        return Ok(Exit::Done);
    }
    let axes = axes(&args.axis, &cases)?;
    let baseline = args.baseline.as_ref().map(|path| baseline(path)).transpose()?;
    let device = args.device.open()?;
    if let Some(baseline) = &baseline
        && baseline["device"] != json!(device.report())
    {
        let (then, now) = (&baseline["device"], json!(device.report()));
        return Err(Error::config(format!("--baseline was measured on {then}; this is {now}")).into());
    }
    let cases: Vec<&Case> = cases.into_iter().filter(|case| case.runs_on(&device)).collect();
    if cases.is_empty() {
        return Err(Error::config("every kernel that matches is for CUDA alone").into());
    }
    let ceilings = ceilings(&device)?;
    let shapes = cases.into_iter().flat_map(|case| shapes(case, &axes).into_iter().map(move |of| (case, of)));
    let shapes: Vec<(&Case, Vec<usize>)> = shapes.collect();
    let width = shapes.iter().map(|(case, sizes)| case.shape(sizes).len()).max().unwrap_or(0).max(5);
    let table = !args.json && !args.csv;
    if table {
        print_head(&device, &ceilings, width);
    }
    let (mut rows, mut missing) = (vec![], None);
    for (case, sizes) in &shapes {
        match row(&device, case, sizes, &ceilings, baseline.as_ref()) {
            Ok(row) => {
                if table {
                    print_row(&row, width);
                }
                rows.push(row);
            }
            Err(error) => {
                eprintln!("{} {}: {error}", case.name, case.shape(sizes));
                missing.get_or_insert(error);
            }
        }
        if let Some(path) = &args.out {
            let report = format!("{:#}\n", report(&device, &ceilings, &rows));
            tensors::write_whole(path, report.as_bytes())?;
        }
    }
    match (args.json, args.csv) {
        (true, _) => println!("{:#}", report(&device, &ceilings, &rows)),
        (_, true) => print_csv(&rows)?,
        _ => {}
    }
    match missing {
        Some(error) => Err(error.into()),
        None => judged(&rows, args.fail_over),
    }
}

/// How the command ends: a wrong result is an error, a kernel that became slower by more than the limit a gate not met.
fn judged(rows: &[Row], limit: Option<f64>) -> anyhow::Result<Exit> {
    if let Some(row) = rows.iter().map(|row| &row.found).find(|row| !row.passes) {
        let (kernel, error, tolerance) = (row.kernel, row.check.error, row.check.tolerance);
        let what = format!(
            "the result of {kernel} at {} is off by {error:.1e}; {tolerance:.1e} is allowed",
            row.shape
        );
        return Err(anyhow::anyhow!(what));
    }
    let slower = |row: &&Row| {
        row.compared.zip(limit).is_some_and(|(now, limit)| now.status == "slow" && now.change > limit)
    };
    let slower: Vec<String> =
        rows.iter().filter(slower).map(|row| format!("{} {}", row.found.kernel, row.found.shape)).collect();
    if slower.is_empty() {
        return Ok(Exit::Done);
    }
    eprintln!("slower than the baseline: {}", slower.join("; "));
    Ok(Exit::GateNotMet)
}

fn list(args: &Args, cases: &[&Case]) {
    let axes =
        |case: &Case| case.axes.iter().map(|(name, size)| format!("{name}={size}")).collect::<Vec<_>>();
    if args.json {
        let all: Vec<Value> = cases.iter().map(|case| case.json()).collect();
        return println!("{:#}", json!({ "kernels": all }));
    }
    for case in cases {
        println!("{:<14} {:<52} {}", case.name, case.about, axes(case).join(","));
    }
}

/// The sizes that were asked for, by axis.
fn axes(words: &[String], cases: &[&Case]) -> scrubjay::Result<BTreeMap<String, Vec<usize>>> {
    let mut axes = BTreeMap::new();
    for word in words {
        let wrong =
            || Error::config(format!("--axis {word}: AXIS=SIZE with whole numbers above 0 was expected"));
        let (name, sizes) = word.split_once('=').ok_or_else(wrong)?;
        let sizes = sizes.split(':').map(|size| size.parse().ok().filter(|&size: &usize| size > 0));
        let sizes = sizes.collect::<Option<Vec<usize>>>().ok_or_else(wrong)?;
        if !cases.iter().any(|case| case.axes.iter().any(|(axis, _)| *axis == name)) {
            return Err(Error::config(format!(
                "--axis {word}: no kernel that was chosen has an axis `{name}`"
            )));
        }
        axes.insert(name.to_string(), sizes);
    }
    Ok(axes)
}

/// Every combination of a case's sizes.
fn shapes(case: &Case, axes: &BTreeMap<String, Vec<usize>>) -> Vec<Vec<usize>> {
    let mut shapes = vec![vec![]];
    for (name, default) in case.axes {
        let sizes = axes.get(*name).cloned().unwrap_or_else(|| vec![*default]);
        let longer =
            |shape: &Vec<usize>| sizes.iter().map(|&size| [&shape[..], &[size]].concat()).collect::<Vec<_>>();
        shapes = shapes.iter().flat_map(longer).collect();
    }
    shapes
}

fn row(
    device: &Device,
    case: &Case,
    sizes: &[usize],
    ceilings: &Ceilings,
    baseline: Option<&Value>,
) -> scrubjay::Result<Row> {
    let found = measured(device, case, sizes, ceilings)?;
    let timing = &found.timing;
    let compared = baseline.and_then(|baseline| {
        let earlier = baseline["rows"].as_array()?;
        let same = |row: &&Value| row["kernel"] == found.kernel && row["shape"] == found.shape.as_str();
        let earlier = earlier.iter().find(same)?;
        let number = |value: &Value| value.as_f64();
        let before = number(&earlier["median"])?;
        let quartiles = [number(&earlier["quartiles"][0])?, number(&earlier["quartiles"][1])?];
        let status = match &timing.quartiles {
            [low, _] if *low > quartiles[1] => "slow",
            [_, high] if *high < quartiles[0] => "fast",
            _ => "same",
        };
        Some(Compared { before, change: timing.median / before - 1.0, status })
    });
    Ok(Row { found, compared })
}

fn baseline(path: &std::path::Path) -> anyhow::Result<Value> {
    let found: Value = serde_json::from_slice(&tensors::read(path)?)
        .with_context(|| format!("{}: the JSON of an earlier `bench --json` was expected", path.display()))?;
    match found["rows"].is_array() && found["device"].is_object() {
        true => Ok(found),
        false => Err(Error::data(path, "is not the JSON of an earlier `bench --json`").into()),
    }
}

fn report(device: &Device, ceilings: &Ceilings, rows: &[Row]) -> Value {
    json!({
        "scrubjay": env!("CARGO_PKG_VERSION"),
        "device": device.report(),
        "gpu": device.reading(),
        "ceilings": ceilings,
        "rows": rows,
    })
}

fn print_head(device: &Device, ceilings: &Ceilings, width: usize) {
    if let Some(reading) = device.reading() {
        println!("{}: {reading}", device.why());
    }
    print!("measured: {:.1} GB/s, {:.3} TFLOP/s", ceilings.bandwidth / 1e9, ceilings.peak / 1e12);
    for (dtype, peak) in [("tf32", ceilings.tf32), ("bf16 and f16", ceilings.half)] {
        if let Some(peak) = peak {
            print!(", {:.3} in {dtype}", peak / 1e12);
        }
    }
    println!();
    println!(
        "{:<13} {:<width$} {:<5} {:>11} {:>6} {:>11} {:>8} {:>8} {:>6} {:<7} {:>8} {:>5} {:>4} {:>6} {:>5} check",
        "kernel",
        "shape",
        "dtype",
        "median µs",
        "noise",
        "least µs",
        "GB/s",
        "TFLOP/s",
        "floor",
        "bound",
        "error",
        "MHz",
        "regs",
        "smem",
        "local"
    );
}

fn print_row(row: &Row, width: usize) {
    let (found, Measured { timing, check, .. }) = (&row.found, &row.found);
    let number = |value: Option<u32>| value.map_or("-".to_string(), |value| value.to_string());
    let rate = |count: f64, unit: f64| match count > 0.0 {
        true => format!("{:.3}", count / timing.median / unit),
        false => "-".into(),
    };
    print!(
        "{:<13} {:<width$} {:<5} {:>11.1} {:>5.1}% {:>11.1} {:>8} {:>8} {:>5.1}% {:<7} {:>8.1e} {:>5} {:>4} {:>6} {:>5} {}",
        found.kernel,
        found.shape,
        found.dtype,
        1e6 * timing.median,
        100.0 * timing.noise(),
        1e6 * timing.least,
        rate(found.bytes, 1e9),
        rate(found.flops, 1e12),
        100.0 * found.floor / timing.median,
        found.bound,
        check.error,
        number(found.sm_clock),
        number(row.most(|kernel| kernel.registers)),
        number(row.most(|kernel| kernel.shared)),
        number(row.most(|kernel| kernel.local)),
        if found.passes { "pass" } else { "FAIL" },
    );
    match row.compared {
        Some(now) => println!("  {:+.1}% {}", 100.0 * now.change, now.status),
        None => println!(),
    }
}

fn print_csv(rows: &[Row]) -> anyhow::Result<()> {
    let mut out = csv::Writer::from_writer(super::output::Output);
    out.write_record([
        "kernel",
        "shape",
        "dtype",
        "samples",
        "median_s",
        "least_s",
        "q1_s",
        "q3_s",
        "bytes",
        "flops",
        "floor_s",
        "bound",
        "error",
        "tolerance",
        "passes",
        "sm_clock_mhz",
        "registers",
        "shared_bytes",
        "local_bytes",
    ])?;
    for row in rows {
        let (found, Measured { timing, check, .. }) = (&row.found, &row.found);
        out.serialize((
            found.kernel,
            &found.shape,
            found.dtype,
            timing.samples,
            timing.median,
            timing.least,
            timing.quartiles,
            found.bytes,
            found.flops,
            found.floor,
            found.bound,
            check.error,
            check.tolerance,
            found.passes,
            (
                found.sm_clock,
                row.most(|kernel| kernel.registers),
                row.most(|kernel| kernel.shared),
                row.most(|kernel| kernel.local),
            ),
        ))?;
    }
    Ok(out.flush()?)
}
