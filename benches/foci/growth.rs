//! How a greedy step grows with the number of rows n, beside the bound p·n²·n^(−k/(k+1)) for k chosen columns: each of p
//! candidates looks at about n^(1/(k+1)) of a row's others before it may stop.
//!
//! A whole step of many candidates is measured, including the lists. No candidate is pruned: the last one is a pair, and
//! with groups of columns every sum is needed. The step without chosen columns, which sorts each candidate, is measured and
//! subtracted. Times are CPU time of all threads: the least of several runs, each a mean over several steps where n is small.
//!
//! What the bound is about is counted for some rows and candidates: the others that lie no farther in the chosen columns than
//! the nearest one lies in these and the candidate together. The constants of the bounds are fitted.

use std::fmt::Write;
use std::path::Path;

use scrubjay::codec::{Columns, FociOptions, foci};
use scrubjay::device::Device;

use super::{Time, normal};

const ROWS: [usize; 6] = [1000, 2000, 4000, 8000, 16_000, 32_000];
const CHOSEN: [usize; 4] = [1, 2, 4, 8];
const CANDIDATES: usize = 8192;
const RUNS: usize = 3;
/// A run repeats the step until it has taken so many rows.
const REPEATED: usize = 4000;
/// Rows and candidates of which the others are counted.
const COUNTED: [usize; 2] = [250, 64];
const COLOURS: [&str; CHOSEN.len()] = ["#08519c", "#238b45", "#d94801", "#7a0177"];

/// One value for each of [`ROWS`] and, dashed, the bound.
struct Series {
    measured: [f64; ROWS.len()],
    bound: [f64; ROWS.len()],
}

impl Series {
    /// With a bound of this exponent, whose constant is fitted.
    fn new(measured: [f64; ROWS.len()], exponent: f64) -> Series {
        let bound = ROWS.map(|n| (n as f64).powf(exponent));
        let logs = measured.iter().zip(bound).map(|(measured, bound)| (measured / bound).ln());
        let constant = (logs.sum::<f64>() / ROWS.len() as f64).exp();
        Series { measured, bound: bound.map(|bound| constant * bound) }
    }

    /// By least squares of logarithms.
    fn exponent(&self) -> f64 {
        let mean = |of: &dyn Fn(f64, f64) -> f64| {
            let logs = ROWS.iter().zip(self.measured).map(|(&n, value)| of((n as f64).ln(), value.ln()));
            logs.sum::<f64>() / ROWS.len() as f64
        };
        let (x, y) = (mean(&|x, _| x), mean(&|_, y| y));
        mean(&|at, value| (at - x) * (value - y)) / mean(&|at, _| (at - x).powi(2))
    }
}

/// Prints times and counts, and draws them.
pub fn growth(device: &Device, path: &Path) -> anyhow::Result<()> {
    let (mut seconds, mut counts) = ([[0.0; ROWS.len()]; CHOSEN.len()], [[0.0; ROWS.len()]; CHOSEN.len()]);
    for (at, n) in ROWS.into_iter().enumerate() {
        let columns = CANDIDATES + 1 + CHOSEN[CHOSEN.len() - 1]; // the last candidate is a pair, then those chosen
        let (y, x) = normal(n, columns);
        let steps = steps(device, &y, &Columns::from_rows_f32(&x, n, columns, columns)?)?;
        for (of, &k) in CHOSEN.iter().enumerate() {
            seconds[of][at] = steps[of];
            counts[of][at] = looked_at(&x, n, k);
        }
    }
    println!(
        "{:>6} {:>4} {:>9} {:>10} {:>14} {:>10}",
        "n", "|S|", "step, ms", "bound, ms", "others, mean", "bound"
    );
    let (mut times, mut others) = (Vec::new(), Vec::new());
    for (of, k) in CHOSEN.into_iter().enumerate() {
        let exponent = 1.0 / (k + 1) as f64;
        let (time, other) = (Series::new(seconds[of], 1.0 + exponent), Series::new(counts[of], exponent));
        for (at, n) in ROWS.into_iter().enumerate() {
            println!(
                "{n:>6} {k:>4} {:>9.0} {:>10.0} {:>14.1} {:>10.1}",
                1e3 * time.measured[at],
                1e3 * time.bound[at],
                other.measured[at],
                other.bound[at]
            );
        }
        println!(
            "       {k:>4} time grows as n^{:.2}, the bound as n^{:.2}; the others as n^{:.2}, the bound as n^{exponent:.2}",
            time.exponent(),
            1.0 + exponent,
            other.exponent()
        );
        times.push(time);
        others.push(other);
    }
    let title = format!("{} candidates, s of CPU (dashed: p·n²·n^(−k/(k+1)))", thousands(CANDIDATES));
    let counted = "others of a row that a candidate looks at (dashed: n^(1/(k+1)))";
    std::fs::write(path, drawing(&[(&title, &times), (counted, &others)]))?;
    println!("drawn in {}", path.display());
    Ok(())
}

/// Seconds of a step with as many columns chosen as [`CHOSEN`] has.
fn steps(device: &Device, y: &[f64], data: &Columns) -> anyhow::Result<[f64; CHOSEN.len()]> {
    let p = CANDIDATES;
    let groups: Vec<Vec<usize>> = (0..p - 1).map(|j| vec![j]).chain([vec![p - 1, p]]).collect();
    let chosen: Vec<usize> = (p + 1..data.p()).collect();
    let repeats = REPEATED.div_ceil(data.n());
    let selection = |k: usize| -> anyhow::Result<f64> {
        let options = FociOptions {
            groups: &groups,
            initial: &chosen[..k],
            all: true,
            max_features: Some(1),
            ..Default::default()
        };
        let start = Time::now();
        for _ in 0..repeats {
            foci(device, y, data, &options)?;
        }
        Ok(Time::now().since(start).cpu / repeats as f64)
    };
    let (mut first, mut least) = (f64::INFINITY, [f64::INFINITY; CHOSEN.len()]);
    for _ in 0..RUNS {
        first = first.min(selection(0)?);
        for (least, k) in least.iter_mut().zip(CHOSEN) {
            *least = least.min(selection(k)?);
        }
    }
    Ok(least.map(|least| least - first))
}

/// The others of a row that lie no farther in k columns than the nearest in these and a candidate, on average.
fn looked_at(x: &[f32], n: usize, k: usize) -> f64 {
    let [rows, candidates] = COUNTED;
    let columns = x.len() / n;
    let row = |i: usize| &x[i * columns..(i + 1) * columns];
    let mut total = 0;
    for i in (0..n).step_by(n / rows) {
        let (mut distances, mut best) = (vec![f32::INFINITY; n], vec![f32::INFINITY; candidates]);
        for j in (0..n).filter(|&j| j != i) {
            let square = |(a, b): (&f32, &f32)| (a - b) * (a - b);
            let pairs = || row(i).iter().zip(row(j));
            distances[j] = pairs().rev().take(k).map(square).sum();
            for (best, pair) in best.iter_mut().zip(pairs()) {
                *best = best.min(distances[j] + square(pair));
            }
        }
        total += best.iter().map(|&best| distances.iter().filter(|&&d| d <= best).count()).sum::<usize>();
    }
    total as f64 / (n.div_ceil(n / rows) * candidates) as f64
}

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 44.0;
const GAP: f64 = 68.0;

/// Panels side by side, all axes logarithmic.
fn drawing(panels: &[(&str, &[Series])]) -> String {
    let x = (ROWS[0] as f64 / 1.2, ROWS[ROWS.len() - 1] as f64 * 1.2);
    let share = |value: f64, (low, high): (f64, f64)| (value / low).ln() / (high / low).ln();
    let bottom = TOP + HEIGHT;
    let (width, height) = (LEFT + panels.len() as f64 * (WIDTH + GAP) - GAP + 24.0, bottom + 56.0);
    let mut svg = String::new();
    let mut add = |line: std::fmt::Arguments| {
        let _ = writeln!(svg, "{line}"); // a String takes everything
    };
    add(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    ));
    for (number, (title, series)) in panels.iter().enumerate() {
        let left = LEFT + number as f64 * (WIDTH + GAP);
        let values = || series.iter().flat_map(|one| one.measured);
        let y = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        let y = (10f64.powf(y.0.log10().floor()), 10f64.powf(y.1.log10().ceil()));
        let place = |n: f64, value: f64| (left + WIDTH * share(n, x), bottom - HEIGHT * share(value, y));
        add(format_args!("<text x=\"{left}\" y=\"24\">{title}</text>"));
        for decade in y.0.log10().round() as i32..=y.1.log10().round() as i32 {
            let value = 10f64.powi(decade);
            let (_, at) = place(x.0, value);
            add(format_args!(
                "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                left + WIDTH,
                left - 6.0,
                at + 4.5
            ));
        }
        for n in ROWS {
            let (at, _) = place(n as f64, y.0);
            add(format_args!(
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#eee\"/>\n\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                thousands(n)
            ));
        }
        add(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">rows n</text>",
            left + WIDTH / 2.0,
            bottom + 42.0
        ));
        for (line, (one, colour)) in series.iter().zip(COLOURS).enumerate() {
            let points = |values: [f64; ROWS.len()]| {
                ROWS.into_iter().zip(values).map(|(n, value)| place(n as f64, value))
            };
            let path =
                |values| -> String { points(values).map(|(x, y)| format!("{x:.1},{y:.1} ")).collect() };
            add(format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-dasharray=\"5 4\"/>\n\
                 <polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path(one.bound).trim_end(),
                path(one.measured).trim_end()
            ));
            for (x, y) in points(one.measured) {
                add(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"));
            }
            let key = TOP + 18.0 * (line + 1) as f64;
            add(format_args!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.1}\" y=\"{key:.1}\">|S| = {}</text>",
                left + 14.0,
                key - 4.5,
                left + 24.0,
                CHOSEN[line]
            ));
        }
    }
    svg + "</svg>\n"
}

fn thousands(n: usize) -> String {
    format!("{},{:03}", n / 1000, n % 1000)
}
