//! The table, from the cells alone: methods beside the retrained models, and the aims beside what was measured.

use std::fmt::Write;

use scrubjay::verify::{self, Measures};

use crate::{Cell, RETRAINED};

/// One aim: set-up, request, method, the measure, and the least and the largest value that meet the aim.
struct Aim(&'static str, &'static str, &'static str, What, f64, f64);

#[derive(Clone, Copy, PartialEq)]
enum What {
    Distance,
    Gap,
    Rank,
    Epochs,
    /// The gap, with the best other method's as the bound.
    Rivals,
}

const ONE_STEP: &str = "ours: all units";
const TWO_STEPS: &str = "ours: all units, two iterations";
const HOLD: &str = "ours: hold";
const VOTE: &str = "ours: vote";

const AIMS: &[Aim] = &[
    Aim("A", "25 random", ONE_STEP, What::Distance, 0.0, 0.03),
    Aim("A", "100 random", ONE_STEP, What::Distance, 0.0, 0.06),
    Aim("A", "25 random", TWO_STEPS, What::Distance, 0.0, 0.01),
    Aim("A", "100 random", TWO_STEPS, What::Distance, 0.0, 0.01),
    Aim("B", "25 random", HOLD, What::Gap, 0.0, 0.9),
    Aim("B", "100 random", HOLD, What::Gap, 0.0, 0.7),
    Aim("B", "class 3", HOLD, What::Gap, 0.0, 0.2),
    Aim("N", "100 random", HOLD, What::Gap, 0.0, 0.9),
    Aim("N", "mislabelled", HOLD, What::Gap, 0.0, 0.5),
    Aim("C", "100 random", HOLD, What::Gap, 0.0, 1.0),
    Aim("C", "100 random", HOLD, What::Rivals, 0.0, 0.0),
    Aim("C", "class 3", HOLD, What::Gap, 0.0, 0.3),
    Aim("C", "class 3", VOTE, What::Gap, 0.0, 0.4),
    Aim("C", "class 3", VOTE, What::Rivals, 0.0, 0.0),
    Aim("C", "class 3", VOTE, What::Rank, 20.0, 80.0),
    Aim("M", "100 random", HOLD, What::Gap, 0.0, 0.6),
    Aim("M", "300 random", HOLD, What::Gap, 0.0, 0.6),
    Aim("M", "600 random", HOLD, What::Gap, 0.0, 0.6),
    Aim("M", "1000 random", HOLD, What::Gap, 0.0, 0.6),
    Aim("B", "100 random", HOLD, What::Epochs, 0.0, 10.0),
    Aim("N", "mislabelled", HOLD, What::Epochs, 0.0, 10.0),
    Aim("C", "class 3", HOLD, What::Epochs, 0.0, 7.5),
];

/// The retrained cells that a cell is compared with: those of the same draw.
fn references<'a>(all: &'a [Cell], cell: &Cell) -> Vec<&'a Cell> {
    let same = all.iter().filter(|other| {
        other.method == RETRAINED
            && (&other.setup, &other.request, other.draw) == (&cell.setup, &cell.request, cell.draw)
    });
    same.collect()
}

/// The other retrained cells of a retrained cell's draw; itself, where there is no other.
fn others<'a>(retrained: &[&'a Cell], cell: &'a Cell) -> Vec<&'a Cell> {
    let same = retrained.iter().filter(|other| other.draw == cell.draw && other.seed != cell.seed);
    let same: Vec<&Cell> = same.copied().collect();
    if same.is_empty() { vec![cell] } else { same }
}

/// The cells of one row: a method at one setting, over seeds.
struct Row<'a> {
    cells: Vec<&'a Cell>,
    references: Vec<Vec<&'a Cell>>,
}

impl Row<'_> {
    fn mean(&self, f: impl Fn(&Cell) -> f64) -> f64 {
        mean(self.cells.iter().map(|cell| f(cell)))
    }

    fn gaps(&self) -> Vec<f64> {
        let pairs = self.cells.iter().zip(&self.references);
        let gap = |(cell, references): (&&Cell, &Vec<&Cell>)| {
            let others: Vec<Measures> = references.iter().map(|other| other.measured.measures()).collect();
            verify::average_gap(cell.measured.measures(), &others).unwrap_or(f64::NAN)
        };
        pairs.map(gap).collect()
    }

    fn gap(&self) -> f64 {
        mean(self.gaps().into_iter())
    }

    /// Mean percentile of the forgotten samples' losses among the retrained models'.
    fn rank(&self) -> f64 {
        let pairs = self.cells.iter().zip(&self.references);
        mean(pairs.map(|(cell, references)| {
            let others: Vec<Vec<f64>> =
                references.iter().map(|other| other.measured.losses.clone()).collect();
            verify::ranks(&cell.measured.losses, &others).map_or(f64::NAN, |ranks| mean(ranks.into_iter()))
        }))
    }

    /// Seconds over those of an epoch, both as means, since a busy machine makes single ones mislead.
    fn epochs(&self) -> f64 {
        let epoch = mean(self.references.iter().flatten().map(|reference| reference.epoch));
        self.mean(|cell| cell.seconds) / epoch
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let all: Vec<f64> = values.collect();
    all.iter().sum::<f64>() / all.len() as f64
}

fn deviation(values: &[f64]) -> f64 {
    let middle = mean(values.iter().copied());
    let squares: f64 = values.iter().map(|v| (v - middle).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0).max(1.0)).sqrt()
}

/// The rows of one request, tuned: of each method the setting with the least predicted gap.
fn rows<'a>(all: &'a [Cell], setup: &str, request: &str) -> Vec<Row<'a>> {
    let mut settings: Vec<Row> = vec![];
    for cell in all.iter().filter(|cell| cell.setup == setup && cell.request == request) {
        if cell.method == RETRAINED {
            continue;
        }
        let same =
            |row: &&mut Row| row.cells[0].method == cell.method && row.cells[0].setting == cell.setting;
        match settings.iter_mut().find(same) {
            Some(row) => {
                row.cells.push(cell);
                row.references.push(references(all, cell));
            }
            None => settings.push(Row { cells: vec![cell], references: vec![references(all, cell)] }),
        }
    }
    let mut tuned: Vec<Row> = vec![];
    for row in settings {
        let predicted = |row: &Row| row.mean(|cell| cell.measured.predicted_gap);
        match tuned.iter_mut().find(|other| other.cells[0].method == row.cells[0].method) {
            Some(other) if predicted(&row) < predicted(other) => *other = row,
            Some(_) => {}
            None => tuned.push(row),
        }
    }
    tuned
}

fn is_ours(method: &str) -> bool {
    method.starts_with("ours")
}

/// The whole table; aims are left out of a `quick` one, whose models are not theirs.
pub fn markdown(all: &[Cell], quick: bool) -> String {
    let mut text = String::new();
    let mut seen: Vec<(&str, &str)> = vec![];
    for cell in all {
        let key = (cell.setup.as_str(), cell.request.as_str());
        if !seen.contains(&key) {
            seen.push(key);
        }
    }
    seen.sort_by_key(|(setup, _)| "ABNCM".find(setup));
    for &(setup, request) in &seen {
        one(&mut text, all, setup, request);
    }
    if !quick {
        aims(&mut text, all);
    }
    text
}

fn one(text: &mut String, all: &[Cell], setup: &str, request: &str) {
    let references: Vec<&Cell> = all
        .iter()
        .filter(|cell| cell.method == RETRAINED && cell.setup == setup && cell.request == request)
        .collect();
    if references.is_empty() {
        return;
    }
    let retrained = Row {
        references: references.iter().map(|cell| others(&references, cell)).collect(),
        cells: references,
    };
    let floor = match setup {
        "A" => "0".into(), // the optimum is one
        _ => format!("{:.2} ± {:.2}", retrained.gap(), deviation(&retrained.gaps())),
    };
    let auc = 100.0 * retrained.mean(|cell| cell.measured.auc);
    let convex = setup == "A";
    let title = if convex { " distance |" } else { "" };
    let _ = writeln!(text, "### {setup}: {request} (epoch: {:.2} s)\n", retrained.mean(|cell| cell.epoch));
    let _ = writeln!(
        text,
        "| method | setting | runs | forget | retain | test | forget loss | retain loss | test loss | gap | AUC (retrained {auc:.1}) | rank |{title} seconds | epochs |"
    );
    let _ = writeln!(text, "|{}", " --- |".repeat(14 + usize::from(convex)));
    let mut line = |name: &str, row: &Row, gap: String, rank: String, distance: Option<f64>| {
        let percent = |f: &dyn Fn(&Cell) -> f64| format!("{:.1}", 100.0 * row.mean(f));
        let loss = |f: &dyn Fn(&Cell) -> f64| match row.mean(f) {
            loss if loss >= 1e3 => format!("{loss:.0e}"),
            loss => format!("{loss:.3}"),
        };
        let distance = match (convex, distance) {
            (false, _) => String::new(),
            (true, Some(distance)) => format!(" {distance:.3} |"),
            (true, None) => " 0 |".into(),
        };
        let unmoved = row.cells.iter().filter(|cell| !cell.note.is_empty()).count();
        let refused = if unmoved > 0 { format!(" ({unmoved} refused)") } else { String::new() };
        let _ = writeln!(
            text,
            "| {name} | {}{refused} | {} | {} | {} | {} | {} | {} | {} | {gap} | {} | {rank} |{distance} {:.2} | {:.1} |",
            row.cells[0].setting,
            row.cells.len(),
            percent(&|cell| cell.measured.forget),
            percent(&|cell| cell.measured.retain),
            percent(&|cell| cell.measured.test),
            loss(&|cell| cell.measured.forget_loss),
            loss(&|cell| cell.measured.retain_loss),
            loss(&|cell| cell.measured.test_loss),
            percent(&|cell| cell.measured.auc),
            row.mean(|cell| cell.seconds),
            row.epochs(),
        );
    };
    for row in rows(all, setup, request) {
        let gap = format!("{:.2} ± {:.2}", row.gap(), deviation(&row.gaps()));
        let distance = Some(row.mean(|cell| cell.distance.unwrap_or(f64::NAN)));
        let name = row.cells[0].method.clone();
        let shown = if is_ours(&name) { format!("**{name}**") } else { name };
        line(&shown, &row, gap, format!("{:.0}", row.rank()), distance);
    }
    line(RETRAINED, &retrained, format!("{floor} (floor)"), "50".into(), None);
    let _ = writeln!(text);
}

fn aims(text: &mut String, all: &[Cell]) {
    let _ = writeln!(text, "### Aims\n\n| set-up | request | method | what | aim | measured | |");
    let _ = writeln!(text, "| --- | --- | --- | --- | --- | --- | --- |");
    for Aim(setup, request, method, what, least, most) in AIMS {
        let rows = rows(all, setup, request);
        let found = rows.iter().find(|row| row.cells[0].method == *method);
        let rival = |row: &&Row| row.cells[0].method != "none" && !is_ours(&row.cells[0].method);
        let others = rows.iter().filter(rival).map(Row::gap);
        let most = if *what == What::Rivals { others.fold(f64::INFINITY, f64::min) } else { *most };
        let name = match what {
            What::Distance => "distance",
            What::Gap => "gap",
            What::Rank => "rank",
            What::Epochs => "seconds over an epoch's",
            What::Rivals => "gap, below every other method's",
        };
        let found = found.filter(|_| most.is_finite());
        let value = found.map(|row| match what {
            What::Distance => row.mean(|cell| cell.distance.unwrap_or(f64::NAN)),
            What::Gap | What::Rivals => row.gap(),
            What::Rank => row.rank(),
            What::Epochs => row.epochs(),
        });
        let aim = if *least > 0.0 { format!("{least} to {most}") } else { format!("≤ {most:.2}") };
        let (shown, verdict) = match value {
            None => ("-".into(), "not measured"),
            Some(value) if (*least..=most).contains(&value) => (format!("{value:.3}"), "met"),
            Some(value) => (format!("{value:.3}"), "**missed**"),
        };
        let _ = writeln!(text, "| {setup} | {request} | {method} | {name} | {aim} | {shown} | {verdict} |");
    }
}
