//! FOCI: the time of one greedy step with |S| columns chosen, of whole selections, and of one T (medians), by the clock and
//! by what the threads ran, which other programs on the machine lengthen less. Correct first: values of a small case
//! against the definition.
//!
//!     cargo bench --bench foci -- [steps] [whole] [large] [single] [growth] [--threads T]
//!
//! Without a name all but `growth`, which draws benches/growth.svg. Opponents: `python3 benches/opponents.py foci`.

#[path = "../../tests/cases/codec.rs"]
#[allow(dead_code)] // the tests use all of it
mod cases;
mod growth;
#[path = "../../tests/reference/codec.rs"]
#[allow(dead_code)]
mod reference;

use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;

use anyhow::Context;
use cases::Kind;
use scrubjay::codec::{Columns, FociOptions, StatisticOptions, foci, foci_each, statistic};
use scrubjay::device::{Choice, Device};

const N: usize = 1000;

fn main() -> anyhow::Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let Some(at) = args.iter().position(|arg| arg == "--bench") else {
        return Ok(()); // cargo test --benches: nothing to test here that tests/codec.rs does not
    };
    args.remove(at);
    let mut threads = 0;
    if let Some(at) = args.iter().position(|arg| arg == "--threads") {
        threads = args.get(at + 1).context("--threads needs a number")?.parse()?;
        args.drain(at..at + 2);
    }
    if args.is_empty() {
        args.extend(["steps", "whole", "large", "single"].map(String::from));
    }
    let device = Device::open(Choice::Cpu, threads)?;
    check(&device)?;
    println!(
        "{:<44} {:>10} {:>10} {:>10} {:>10}  {} threads",
        "case",
        "median ms",
        "least",
        "most",
        "CPU ms",
        device.threads()
    );
    for part in &args {
        match part.as_str() {
            "steps" => steps(&device)?,
            "whole" => whole(&device)?,
            "large" => large(&device)?,
            "single" => single(&device)?,
            "growth" => {
                growth::growth(&device, &Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/growth.svg"))?
            }
            other => anyhow::bail!("the parts are steps, whole, large, single and growth, not {other}"),
        }
    }
    Ok(())
}

/// One step at a time.
fn steps(device: &Device) -> anyhow::Result<()> {
    for (p, runs) in [(1000, 9), (27_560, 3)] {
        let (y, x) = normal(N, p);
        let data = Columns::from_rows_f32(&x, N, p, p)?;
        let mut times = vec![Vec::new(); 9];
        for _ in 0..runs {
            let run = step_times(device, &y, &data)?;
            times.iter_mut().zip(run).for_each(|(times, time)| times.push(time));
        }
        for chosen in [0, 1, 2, 4, 8] {
            print_line(&format!("step/n={N},p={p},|S|={chosen}"), &mut times[chosen]);
        }
    }
    Ok(())
}

/// The steps with 0 to 8 columns chosen. Y is noise, and every step goes on (`all`), so that |S| is known.
fn step_times(device: &Device, y: &[f64], data: &Columns) -> scrubjay::Result<Vec<Time>> {
    let mut times = Vec::new();
    let mut last = Time::now();
    let options = FociOptions { all: true, max_features: Some(9), ..Default::default() };
    foci_each(device, y, data, &options, &mut |_, _| {
        let now = Time::now();
        times.push(now.since(last));
        last = now;
    })?;
    Ok(times)
}

/// Seconds since some beginning.
#[derive(Clone, Copy)]
struct Time {
    wall: f64,
    /// All threads together; that of the clock where the system does not say.
    cpu: f64,
}

impl Time {
    fn now() -> Time {
        static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
        let wall = BEGINNING.elapsed().as_secs_f64();
        Time { wall, cpu: Time::threads().unwrap_or(wall) }
    }

    /// Of Linux: the nanoseconds that each thread ran are the first number.
    fn threads() -> Option<f64> {
        let mut nanoseconds = 0.0;
        for thread in std::fs::read_dir("/proc/self/task").ok()? {
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            nanoseconds += text.split_whitespace().next()?.parse::<f64>().ok()?;
        }
        Some(1e-9 * nanoseconds)
    }

    fn since(self, earlier: Time) -> Time {
        Time { wall: self.wall - earlier.wall, cpu: self.cpu - earlier.cpu }
    }
}

/// Whole selections from tables that fit in a cache or nearly.
fn whole(device: &Device) -> anyhow::Result<()> {
    for p in [100, 1000] {
        let (y, x) = planted(N, p);
        selection(device, &format!("foci/n={N},p={p}"), &y, &Columns::from_rows_f32(&x, N, p, p)?, 9, None)?;
    }
    let (y, x) = planted(200, 4876);
    let data = Columns::from_rows_f32(&x, 200, 4876, 4876)?;
    selection(device, "foci/n=200,p=4876,at most 6 (one voter)", &y, &data, 9, Some(6))?;
    let (y, columns) = (cases::column(Kind::Normal, N, 1, u32::MAX), discrete(1000));
    let data = Columns::from_columns_f64(&columns, N, 1000)?;
    let four = FociOptions { max_features: Some(4), all: true, ..Default::default() };
    time(&format!("foci/n={N},p=1000,binary, 4 steps"), 9, || foci(device, &y, &data, &four).map(drop))
}

/// A whole selection from a large table.
fn large(device: &Device) -> anyhow::Result<()> {
    let (n, p) = (10_000, 1000);
    let (y, x) = planted(n, p);
    selection(device, &format!("foci/n={n},p={p}"), &y, &Columns::from_rows_f32(&x, n, p, p)?, 1, None)
}

/// One T of many rows.
fn single(device: &Device) -> anyhow::Result<()> {
    let n = 100_000;
    let (y, x) = planted(n, 5);
    let data = Columns::from_rows_f32(&x, n, 5, 5)?;
    time(&format!("T/n={n}, given one column"), 5, || {
        statistic(device, &y, &data, &[2], &[1], &StatisticOptions::default()).map(drop)
    })
}

fn selection(
    device: &Device,
    name: &str,
    y: &[f64],
    data: &Columns,
    runs: usize,
    most: Option<usize>,
) -> anyhow::Result<()> {
    let options = FociOptions { max_features: most, ..Default::default() };
    let found = foci(device, y, data, &options)?.order.len();
    time(&format!("{name} ({found} found)"), runs, || foci(device, y, data, &options).map(drop))
}

fn time(name: &str, runs: usize, run: impl Fn() -> scrubjay::Result<()>) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Time::now();
        run()?;
        times.push(Time::now().since(start));
    }
    print_line(name, &mut times);
    Ok(())
}

fn print_line(name: &str, times: &mut [Time]) {
    times.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    let cpu = times[times.len() / 2].cpu;
    times.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    let [median, least, most] = [times.len() / 2, 0, times.len() - 1].map(|at| times[at].wall);
    let [median, least, most, cpu] = [median, least, most, cpu].map(|seconds| 1e3 * seconds);
    println!("{name:<44} {median:>10.2} {least:>10.2} {most:>10.2} {cpu:>10.2}");
}

fn check(device: &Device) -> scrubjay::Result<()> {
    let (y, x) = planted(150, 24);
    let data = Columns::from_rows_f32(&x, 150, 24, 24)?;
    let found =
        foci(device, &y, &data, &FociOptions { all: true, max_features: Some(5), ..Default::default() })?;
    let columns: Vec<_> = (0..24).map(|j| data.column(j)).collect();
    for (step, &chosen) in found.order.iter().enumerate() {
        let t = reference::step(&y, &columns, &found.order[..step]);
        let differs = |a: Option<f64>| a.zip(t[chosen]).is_none_or(|(a, b)| (a - b).abs() > 1e-12);
        assert!(!differs(found.conditional[step]), "{:?} is not {:?}", found.conditional[step], t[chosen]);
    }
    Ok(())
}

/// Independent normal columns, row-major, and a Y of its own.
fn normal(n: usize, p: usize) -> (Vec<f64>, Vec<f32>) {
    let mut x = vec![0.0; n * p];
    for j in 0..p {
        let column = cases::column(Kind::Normal, n, 7, j as u32);
        column.iter().enumerate().for_each(|(i, &value)| x[i * p + j] = value as f32);
    }
    (cases::column(Kind::Normal, n, 7, u32::MAX), x)
}

/// Y depends on four of the columns.
fn planted(n: usize, p: usize) -> (Vec<f64>, Vec<f32>) {
    let (noise, x) = normal(n, p);
    let at = |i: usize, j: usize| f64::from(x[i * p + j * p / 5]);
    let y = (0..n).map(|i| at(i, 1) * at(i, 2) + at(i, 3).sin() + at(i, 4) + 0.1 * noise[i]).collect();
    (y, x)
}

fn discrete(p: usize) -> Vec<f64> {
    (0..p).flat_map(|j| cases::column(Kind::Binary, N, 3, j as u32)).collect()
}
