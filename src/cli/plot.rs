//! Charts as SVG, written by hand: no more than lines, dots and words.

use std::fmt::Write;

use scrubjay::codec::Foci;
use scrubjay::report::escaped;

const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const HEIGHT: f64 = 240.0;
const STEP: f64 = 36.0;

/// T together (line) and T given those before (bars) by step, and where and why it stopped.
pub fn steps(names: &[&str], found: &Foci, reason: &str) -> String {
    let values = || found.cumulative.iter().chain(&found.conditional).copied().flatten();
    let greatest = values().fold(1.0, f64::max);
    let least = values().fold(0.0, f64::min);
    let x = |step: usize| LEFT + STEP * (step as f64 + 0.75);
    let y = |t: f64| TOP + HEIGHT * (greatest - t) / (greatest - least);
    let end = x(names.len());
    let (width, height) = ((end + 2.0 * STEP).max(560.0), TOP + HEIGHT + 150.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\">T together (line), T given those before (bars); stopped: {}</text>\n",
        escaped(reason)
    );
    let mut add = |line: std::fmt::Arguments| {
        let _ = writeln!(svg, "{line}"); // a String takes everything
    };
    for quarter in 0..=4 {
        let t = least + (greatest - least) * f64::from(quarter) / 4.0;
        let at = y(t);
        add(format_args!(
            "<line x1=\"{LEFT}\" x2=\"{end:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"
        ));
        add(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{t:.2}</text>",
            LEFT - 6.0,
            at + 4.0
        ));
    }
    let mut line = String::new();
    for (step, name) in names.iter().enumerate() {
        let at = x(step);
        if let Some(t) = found.conditional[step] {
            let (top, size) = (y(t.max(0.0)), (y(0.0) - y(t)).abs());
            add(format_args!(
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"16\" height=\"{size:.1}\" fill=\"#9ecae1\"/>",
                at - 8.0
            ));
        }
        if let Some(t) = found.cumulative[step] {
            let _ = write!(line, "{at:.1},{:.1} ", y(t));
            add(format_args!("<circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"#08519c\"/>", y(t)));
        }
        let below = TOP + HEIGHT + 14.0;
        add(format_args!(
            "<text transform=\"translate({at:.1},{below:.1}) rotate(45)\">{}</text>",
            escaped(name)
        ));
    }
    add(format_args!("<polyline points=\"{}\" fill=\"none\" stroke=\"#08519c\"/>", line.trim_end()));
    add(format_args!(
        "<line x1=\"{end:.1}\" x2=\"{end:.1}\" y1=\"{TOP}\" y2=\"{:.1}\" stroke=\"#a50f15\" stroke-dasharray=\"4\"/>",
        TOP + HEIGHT
    ));
    add(format_args!(
        "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#a50f15\">stop</text>\n</svg>",
        end + 4.0,
        TOP + 10.0
    ));
    svg
}
