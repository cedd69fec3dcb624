//! How the time of a greedy step grows with the number of rows, beside the bound p·n²·n^(−k/(k+1)) for k chosen columns: each
//! of p candidates visits about n^(1/(k+1)) of a row's others before it may stop.
//!
//! All candidates go to their end: the last is a pair, and with groups of columns there is no race. A step makes the lists
//! of the rows' others first, whatever p is; a step with few candidates measures that (and the pair), and what more
//! candidates take beyond it is held against the bound, whose constant is fitted. The step without chosen columns, which
//! sorts each candidate, is measured and left out. Times are what all threads ran, the least of some runs.

use std::fmt::Write;
use std::path::Path;

use scrubjay::codec::{FociOptions, Matrix, foci};

use super::{Time, normal};

const ROWS: [usize; 6] = [1000, 2000, 4000, 8000, 16_000, 32_000];
const CHOSEN: [usize; 4] = [1, 2, 4, 8];
/// Candidates of a step, and of one that is little more than its lists.
const CANDIDATES: [usize; 2] = [1040, 16];
const RUNS: usize = 3;
const COLOURS: [&str; CHOSEN.len()] = ["#08519c", "#238b45", "#d94801", "#7a0177"];

/// Points (n, seconds) of one colour.
struct Series {
    name: String,
    colour: &'static str,
    measured: Vec<(f64, f64)>,
    /// Drawn dashed; none where there is no bound.
    bound: Vec<(f64, f64)>,
}

/// Prints the times and draws them.
pub fn growth(path: &Path) -> anyhow::Result<()> {
    let [many, few] = CANDIDATES;
    let times = ROWS.map(|n| Ok([steps(n, many)?, steps(n, few)?])); // seconds
    let times = times.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let mut candidates = Vec::new();
    let mut lists = Vec::new();
    println!("{:>6} {:>4} {:>14} {:>14} {:>14}", "n", "|S|", "candidates, ms", "bound, ms", "lists, ms");
    for (at, (&k, colour)) in CHOSEN.iter().zip(COLOURS).enumerate() {
        let points = |seconds: &dyn Fn([f64; 2]) -> f64| -> Vec<(f64, f64)> {
            let of_rows =
                ROWS.iter().zip(&times).map(|(&n, times)| (n as f64, seconds(times.map(|times| times[at]))));
            of_rows.filter(|&(_, seconds)| seconds > 0.0).collect() // what no tick of the clock saw is not drawn
        };
        let measured = points(&|[many, few]| many - few);
        let visits = |n: f64| (many - few) as f64 * n * n.powf(1.0 / (k + 1) as f64);
        let logs = measured.iter().map(|&(n, seconds)| (seconds / visits(n)).ln());
        let constant = (logs.sum::<f64>() / measured.len() as f64).exp(); // seconds a visit
        let bound: Vec<_> = measured.iter().map(|&(n, _)| (n, constant * visits(n))).collect();
        let made = points(&|[_, few]| few);
        for (&(n, seconds), bound) in measured.iter().zip(&bound) {
            let made = made.iter().find(|made| made.0 == n).map_or(0.0, |made| made.1);
            let [seconds, bound, made] = [seconds, bound.1, made].map(|seconds| 1e3 * seconds);
            println!("{n:>6} {k:>4} {seconds:>14.1} {bound:>14.1} {made:>14.1}");
        }
        println!(
            "       {k:>4} grows as n^{:.2}; the bound as n^{:.2}, {:.2} ns a visit",
            slope(&measured),
            1.0 + 1.0 / (k + 1) as f64,
            1e9 * constant
        );
        let name = format!("|S| = {k}");
        candidates.push(Series { name: name.clone(), colour, measured, bound });
        lists.push(Series { name, colour, measured: made, bound: Vec::new() });
    }
    let title = format!("{} candidates, |S| = k (dashed: p·n²·n^(−k/(k+1)))", thousands(many - few));
    let panels: [(&str, &[Series]); 2] =
        [(&title, &candidates), ("lists of the rows, once a step, whatever p", &lists)];
    std::fs::write(path, drawing(&panels))?;
    println!("drawn in {}", path.display());
    Ok(())
}

/// Seconds of a step of `p` candidates with as many columns chosen as [`CHOSEN`] has.
fn steps(n: usize, p: usize) -> anyhow::Result<[f64; CHOSEN.len()]> {
    let [.., most] = CHOSEN;
    let columns = p + 1 + most; // the last candidate is a pair, then those chosen
    let (y, x) = normal(n, columns);
    let data = Matrix::rows_f32(&x, n, columns, columns)?;
    let groups: Vec<Vec<usize>> = (0..p - 1).map(|j| vec![j]).chain([vec![p - 1, p]]).collect();
    let chosen: Vec<usize> = (p + 1..columns).collect();
    let selection = |k: usize| -> anyhow::Result<f64> {
        let options = FociOptions {
            groups: &groups,
            initial: &chosen[..k],
            all: true,
            max_features: Some(1),
            ..Default::default()
        };
        let start = Time::now();
        foci(&y, &data, &options)?;
        Ok(Time::now().since(start).cpu)
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

/// The exponent of a power law, by least squares of logarithms.
fn slope(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<_> = points.iter().map(|&(x, y)| (x.ln(), y.ln())).collect();
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / logs.len() as f64;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    mean(&|p| (p.0 - x) * (p.1 - y)) / mean(&|p| (p.0 - x).powi(2))
}

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 44.0;
const GAP: f64 = 68.0;

/// Panels side by side, both axes logarithmic and the same for all.
fn drawing(panels: &[(&str, &[Series])]) -> String {
    let points = || panels.iter().flat_map(|(_, series)| series.iter()).flat_map(|one| &one.measured);
    let range = |of: &dyn Fn(&(f64, f64)) -> f64| {
        points().map(of).fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (x, y) = (range(&|p| p.0), range(&|p| p.1));
    let x = (x.0 / 1.2, x.1 * 1.2);
    let y = (10f64.powf(y.0.log10().floor()), 10f64.powf(y.1.log10().ceil()));
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
        let place =
            |&(n, seconds): &(f64, f64)| (left + WIDTH * share(n, x), bottom - HEIGHT * share(seconds, y));
        add(format_args!("<text x=\"{left}\" y=\"24\">{title}</text>"));
        for decade in y.0.log10().round() as i32..=y.1.log10().round() as i32 {
            let seconds = 10f64.powi(decade);
            let (_, at) = place(&(x.0, seconds));
            add(format_args!(
                "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{seconds}</text>",
                left + WIDTH,
                left - 6.0,
                at + 4.5
            ));
        }
        for n in ROWS {
            let (at, _) = place(&(n as f64, y.0));
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
        for (line, one) in series.iter().enumerate() {
            let path = |points: &[(f64, f64)]| -> String {
                points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1} ")).collect()
            };
            let colour = one.colour;
            add(format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-dasharray=\"5 4\"/>\n\
                 <polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path(&one.bound).trim_end(),
                path(&one.measured).trim_end()
            ));
            for (x, y) in one.measured.iter().map(place) {
                add(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"));
            }
            let key = TOP + 18.0 * (line + 1) as f64;
            add(format_args!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.1}\" y=\"{key:.1}\">{}</text>",
                left + 14.0,
                key - 4.5,
                left + 24.0,
                one.name
            ));
        }
    }
    add(format_args!(
        "<text transform=\"translate(16,{:.1}) rotate(-90)\" text-anchor=\"middle\">seconds of CPU</text>\n</svg>",
        TOP + HEIGHT / 2.0
    ));
    svg
}

fn thousands(n: usize) -> String {
    format!("{},{:03}", n / 1000, n % 1000)
}
