//! FOCI's T by step as an SVG file of its own: T together as a line, T given those before as bars.

use super::page::escaped;
use super::svg::{circle, line, polyline, rect, slanted, text};
use crate::codec::Foci;

const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const HEIGHT: f64 = 240.0;
const STEP: f64 = 36.0;

/// The chart of what FOCI found, with the columns' names in order of choice, and why and where it stopped.
pub fn steps(names: &[&str], found: &Foci, reason: &str) -> String {
    let values = || found.cumulative.iter().chain(&found.conditional).copied().flatten();
    let greatest = values().fold(1.0, f64::max);
    let least = values().fold(0.0, f64::min);
    let x = |step: usize| LEFT + STEP * (step as f64 + 0.75);
    let y = |t: f64| TOP + HEIGHT * (greatest - t) / (greatest - least);
    let (end, bottom) = (x(names.len()), TOP + HEIGHT);
    let (width, height) = ((end + 2.0 * STEP).max(560.0), bottom + 150.0);
    let title = format!("T together (line), T given those before (bars); stopped: {reason}");
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" \
         aria-label=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n",
        escaped(&title)
    );
    rect(&mut svg, "fill=\"white\"", (0.0, 0.0), width, height);
    text(&mut svg, LEFT, 20.0, "start", &title);
    for quarter in 0..=4 {
        let t = least + (greatest - least) * f64::from(quarter) / 4.0;
        line(&mut svg, "stroke=\"#ddd\"", (LEFT, y(t)), (end, y(t)));
        text(&mut svg, LEFT - 6.0, y(t) + 4.0, "end", &format!("{t:.2}"));
    }
    let mut together = Vec::new();
    for (step, name) in names.iter().enumerate() {
        let at = x(step);
        if let Some(t) = found.conditional[step] {
            rect(&mut svg, "fill=\"#9ecae1\"", (at - 8.0, y(t.max(0.0))), 16.0, (y(0.0) - y(t)).abs());
        }
        if let Some(t) = found.cumulative[step] {
            together.push((at, y(t)));
            circle(&mut svg, "fill=\"#08519c\"", (at, y(t)), 3.0);
        }
        slanted(&mut svg, at, bottom + 14.0, name);
    }
    polyline(&mut svg, "fill=\"none\" stroke=\"#08519c\"", &together);
    line(&mut svg, "stroke=\"#a50f15\" stroke-dasharray=\"4\"", (end, TOP), (end, bottom));
    text(&mut svg, end + 4.0, TOP + 10.0, "start", "stop");
    svg.push_str("</svg>\n");
    svg
}
