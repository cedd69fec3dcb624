//! Charts as inline SVG. A chart is 340 wide, about the width of a phone, so that its letters are as large as the page's.

use super::page::escaped;
use super::svg::{circle, class, line, polyline, rect, text};

const WIDTH: f64 = 340.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const HEIGHT: f64 = 150.0;

const GRID: &str = "class=\"grid\"";
const LEVEL: &str = "class=\"level\"";
const AXIS: &str = "class=\"axis\"";

/// The points of one line.
pub struct Series<'a> {
    pub name: &'a str,
    /// The colour, by class of the style sheet.
    pub class: &'static str,
    /// In order of x.
    pub points: Vec<(f64, f64)>,
}

/// A range that is never empty.
#[derive(Clone, Copy)]
pub struct Range {
    low: f64,
    high: f64,
}

impl Range {
    /// The range of some numbers, at least `width` wide.
    pub fn of(values: impl Iterator<Item = f64>, width: f64) -> Range {
        let (low, high) = values
            .filter(|v| v.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        match low <= high {
            true if high - low >= width => Range { low, high },
            true => Range { low: (low + high - width) / 2.0, high: (low + high + width) / 2.0 },
            false => Range { low: 0.0, high: width },
        }
    }

    pub fn from(low: f64, high: f64) -> Range {
        Range { low, high }
    }

    /// The range extended to these numbers.
    pub fn with(self, values: &[f64]) -> Range {
        values.iter().fold(self, |range, &v| Range { low: range.low.min(v), high: range.high.max(v) })
    }

    fn share(self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// About `count` round numbers in the range, and the digits they need.
    fn ticks(self, count: f64) -> (Vec<f64>, usize) {
        let rough = (self.high - self.low) / count;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(rough);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        let digits = (-step.log10().floor()).max(0.0) as usize;
        ((first..=last).map(|i| i as f64 * step).collect(), digits)
    }
}

/// A figure around a drawing of this height, with a caption, and a key to the series where there are several.
fn figure(title: &str, height: f64, drawing: &str, keys: &[(&str, &str)]) -> String {
    let key = |(name, class): &(&str, &str)| format!("<span class=\"key {class}\">{}</span>", escaped(name));
    let keys = match keys.len() {
        0 | 1 => String::new(),
        _ => format!("<p class=\"keys\">{}</p>", keys.iter().map(key).collect::<Vec<_>>().join(" ")),
    };
    format!(
        "<figure><figcaption>{0}</figcaption>{keys}\
         <svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{0}\">\n{drawing}</svg></figure>\n",
        escaped(title)
    )
}

/// Lines with a dot at every point, over a grid. Series of one name share an entry of the key.
pub fn lines(title: &str, x_name: &str, series: &[Series], y: Range) -> String {
    let points = || series.iter().flat_map(|one| one.points.iter().copied());
    let x = Range::of(points().map(|(x, _)| x), 1.0);
    let at = |(px, py): (f64, f64)| {
        (LEFT + (WIDTH - LEFT - RIGHT) * x.share(px), TOP + HEIGHT * (1.0 - y.share(py)))
    };
    let bottom = TOP + HEIGHT;
    let mut out = String::new();
    if points().next().is_none() {
        text(&mut out, WIDTH / 2.0, TOP + 20.0, "middle", "nothing to show");
        return figure(title, TOP + 40.0, &out, &[]);
    }
    let (ticks, digits) = y.ticks(4.0);
    for tick in ticks {
        let (_, at) = at((x.low, tick));
        line(&mut out, GRID, (LEFT, at), (WIDTH - RIGHT, at));
        text(&mut out, LEFT - 6.0, at + 4.0, "end", &format!("{tick:.digits$}"));
    }
    for tick in x.ticks(5.0).0.into_iter().filter(|tick| tick.fract() == 0.0) {
        text(&mut out, at((tick, y.low)).0, bottom + 16.0, "middle", &format!("{tick:.0}"));
    }
    text(&mut out, (LEFT + WIDTH - RIGHT) / 2.0, bottom + 32.0, "middle", x_name);
    let mut keys: Vec<(&str, &str)> = vec![];
    for one in series {
        let places: Vec<(f64, f64)> =
            one.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).map(|p| at(*p)).collect();
        polyline(&mut out, &class(one.class), &places);
        let radius = if places.len() > 40 { 1.2 } else { 2.8 };
        for at in places {
            circle(&mut out, &class(one.class), at, radius);
        }
        if !keys.contains(&(one.name, one.class)) {
            keys.push((one.name, one.class));
        }
    }
    figure(title, bottom + 40.0, &out, &keys)
}

/// One bar per row, as a share of the longest: a name above it, a text at its right.
pub struct Bar {
    pub name: String,
    pub share: f64,
    pub text: String,
}

/// Letters that fit on a line.
const LETTERS: usize = 46;

/// A name of at most `most` letters: a longer one keeps its end.
fn shortened(name: &str, most: usize) -> String {
    let count = name.chars().count();
    match count <= most {
        true => name.into(),
        false => std::iter::once('…').chain(name.chars().skip(count + 1 - most.max(1))).collect(),
    }
}

/// Bars one below the other.
pub fn bars(title: &str, rows: &[Bar]) -> String {
    const ROW: f64 = 34.0;
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        let y = ROW * i as f64;
        let share = if row.share.is_finite() { row.share.clamp(0.0, 1.0) } else { 0.0 };
        text(
            &mut out,
            0.0,
            y + 14.0,
            "start",
            &shortened(&row.name, LETTERS.saturating_sub(row.text.chars().count())),
        );
        text(&mut out, WIDTH, y + 14.0, "end", &row.text);
        rect(&mut out, &class("track"), (0.0, y + 19.0), WIDTH, 8.0);
        rect(&mut out, &class("bar"), (0.0, y + 19.0), WIDTH * share, 8.0);
    }
    figure(title, ROW * rows.len().max(1) as f64, &out, &[])
}

/// A share before and after.
pub struct Pair {
    pub name: &'static str,
    pub before: f64,
    /// None where nothing was tried.
    pub after: Option<f64>,
}

/// Shares in per cent, before and after: a name, and a bar for each.
pub fn pairs(title: &str, rows: &[Pair]) -> String {
    const ROW: f64 = 56.0;
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        let y = ROW * i as f64;
        text(&mut out, 0.0, y + 14.0, "start", row.name);
        for (below, class_of, share) in [(19.0, "before", Some(row.before)), (34.0, "after", row.after)] {
            let Some(share) = share.filter(|share| share.is_finite()) else { continue };
            let most = WIDTH - LEFT - RIGHT;
            rect(&mut out, &class("track"), (0.0, y + below), most, 11.0);
            rect(&mut out, &class(class_of), (0.0, y + below), most * share.clamp(0.0, 1.0), 11.0);
            text(&mut out, WIDTH, y + below + 10.0, "end", &format!("{:.1}", 100.0 * share));
        }
    }
    figure(title, ROW * rows.len().max(1) as f64, &out, &[("before", "before"), ("after", "after")])
}

/// A column for each share, numbered from 0, and a dashed level.
pub fn columns(title: &str, x_name: &str, shares: &[f64], level: f64) -> String {
    let bottom = TOP + HEIGHT;
    let range = Range::from(0.0, 1.0).with(shares).with(&[level]);
    let at = |share: f64| TOP + HEIGHT * (1.0 - range.share(share));
    let mut out = String::new();
    let (ticks, digits) = range.ticks(4.0);
    for tick in ticks {
        line(&mut out, GRID, (LEFT, at(tick)), (WIDTH - RIGHT, at(tick)));
        text(&mut out, LEFT - 6.0, at(tick) + 4.0, "end", &format!("{tick:.digits$}"));
    }
    let width = (WIDTH - LEFT - RIGHT) / shares.len().max(1) as f64;
    let every = shares.len().div_ceil(12).max(1);
    for (i, &share) in shares.iter().enumerate() {
        let x = LEFT + width * i as f64;
        rect(&mut out, &class("after"), (x + 0.1 * width, at(share)), 0.8 * width, bottom - at(share));
        if i % every == 0 {
            text(&mut out, x + width / 2.0, bottom + 16.0, "middle", &i.to_string());
        }
    }
    line(&mut out, LEVEL, (LEFT, at(level)), (WIDTH - RIGHT, at(level)));
    text(&mut out, (LEFT + WIDTH - RIGHT) / 2.0, bottom + 32.0, "middle", x_name);
    figure(title, bottom + 40.0, &out, &[])
}

/// A loss with two significant digits.
fn two_digits(loss: f64) -> String {
    let digits = (1.0 - loss.max(LEAST).log10().floor()).max(0.0) as usize;
    format!("{loss:.digits$}")
}

/// Smaller losses are drawn as this.
const LEAST: f64 = 1e-6;

/// Histograms of losses on one logarithmic axis, one below the other; heights are shares of each set.
pub fn histograms(title: &str, sets: &[(&str, &'static str, Vec<f64>)]) -> String {
    const PANEL: f64 = 64.0;
    const GAP: f64 = 28.0;
    const PER_DECADE: f64 = 4.0;
    let log = |loss: f64| loss.max(LEAST).log10();
    let all = || sets.iter().flat_map(|set| set.2.iter().copied().filter(|loss| loss.is_finite()).map(log));
    let range = Range::of(all(), 1e-9);
    let (low, high) = (range.low.floor(), (range.high + 1e-9).ceil().max(range.low.floor() + 1.0));
    let bins = ((high - low) * PER_DECADE) as usize;
    let shares = |losses: &[f64]| -> Vec<f64> {
        let mut counts = vec![0.0; bins];
        for loss in losses.iter().filter(|loss| loss.is_finite()) {
            counts[(((log(*loss) - low) * PER_DECADE) as usize).min(bins - 1)] += 1.0 / losses.len() as f64;
        }
        counts
    };
    let counted: Vec<Vec<f64>> = sets.iter().map(|set| shares(&set.2)).collect();
    let most = counted.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
    let width = (WIDTH - 2.0 * RIGHT) / bins as f64;
    let mut out = String::new();
    for (i, ((name, style, losses), shares)) in sets.iter().zip(&counted).enumerate() {
        let bottom = (PANEL + GAP) * (i + 1) as f64;
        let mut sorted = losses.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).map_or("–".into(), |m| two_digits(*m));
        text(&mut out, RIGHT, bottom - PANEL - 4.0, "start", &format!("{name}: median loss {median}"));
        for (bin, share) in shares.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            let height = (PANEL - 4.0) * share / most;
            let corner = (RIGHT + width * bin as f64 + 0.5, bottom - height);
            rect(&mut out, &class(style), corner, width - 1.0, height);
        }
        line(&mut out, AXIS, (RIGHT, bottom), (WIDTH - RIGHT, bottom));
    }
    let bottom = (PANEL + GAP) * sets.len() as f64;
    let every = if high - low > 6.0 { 2 } else { 1 };
    for decade in (low as i32..=high as i32).step_by(every) {
        let x = RIGHT + width * PER_DECADE * (f64::from(decade) - low);
        line(&mut out, AXIS, (x, bottom), (x, bottom + 4.0));
        let digits = (-decade).max(0) as usize;
        // A long number at the left edge must stay within the drawing.
        let (x, anchor) = if digits > 3 && x < LEFT { (0.0, "start") } else { (x, "middle") };
        text(&mut out, x, bottom + 16.0, anchor, &format!("{:.digits$}", 10f64.powi(decade)));
    }
    text(&mut out, WIDTH / 2.0, bottom + 32.0, "middle", "loss, logarithmic");
    figure(title, bottom + 40.0, &out, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(shortened("fc1", 3), "fc1");
        assert_eq!(shortened("layer1.conv", 6), "….conv");
        let bar = Bar { name: "é".repeat(99), share: f64::NAN, text: "1 of 2".repeat(20) };
        assert!(bars("", &[bar]).contains("width=\"0.0\""));
    }

    #[test]
    fn losses_show_two_digits_whatever_their_size() {
        let all = [12.34, 1.234, 0.01234, 1.6e-4, 0.0].map(two_digits);
        assert_eq!(all, ["12", "1.2", "0.012", "0.00016", "0.0000000"]);
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(Range::from(0.0, 100.0).ticks(4.0), (vec![0.0, 50.0, 100.0], 0));
        let (ticks, digits) = Range::from(0.91, 0.99).ticks(4.0);
        assert_eq!((ticks.len(), digits), (4, 2));
        assert!(ticks.iter().all(|tick| (0.91..=0.99 + 1e-12).contains(tick)));
        for range in [Range::of([].into_iter(), 1.0), Range::of([f64::NAN, 5.0].into_iter(), 0.1)] {
            assert!(range.high > range.low && !range.ticks(4.0).0.is_empty());
        }
    }
}
