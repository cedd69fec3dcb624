//! The page of a scrub: whether the samples are gone, whether the model is still good, and what changed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::chart::{Bar, Pair, Range, Series, bars, lines, pairs};
use super::forgotten::forgotten;
use super::page::{Page, Tone, duration, number, percent, thousands};
use super::summary::{Change, Effect, Summary, aim};
use crate::audit::Snapshot;
use crate::clock::Phase;
use crate::error::Result;
use crate::net::Network;
use crate::outcome::{HoldAccount, LayerAccount, Outcome, Record, SelectionAccount};
use crate::request::Request;
use crate::select::Method;
use crate::session::Session;

/// The most rows of batches, and bars of layers, that are shown.
const ROWS: usize = 200;
const LAYERS: usize = 30;
/// The most batches that are named at the top as not removed.
const BANNERS: usize = 3;

/// What the report of a scrub is made of.
pub struct ScrubReport<'a> {
    /// What it was carried out on.
    pub session: &'a Session,
    /// What was asked for.
    pub request: &'a Request,
    /// What it came to.
    pub outcome: &'a Outcome,
    /// The model's files, where they were written.
    pub files: Option<ModelFiles>,
    /// The network after it, where the caller has it.
    pub after: Option<&'a Network>,
    /// What decides the result, where a folder holds it.
    pub identity: Option<&'a str>,
}

/// The model's files, as a scrub wrote them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ModelFiles {
    /// Their names.
    pub files: Vec<String>,
    /// Values that differ from the input's as stored.
    pub changed_values: usize,
    /// Values whose change was too small for the type they are stored in.
    pub updates_lost_in_stored_type: usize,
    /// SHA-256 of the input's files.
    pub sha256_before: String,
    /// SHA-256 of these.
    pub sha256_after: String,
}

/// A scrub's report as a page.
///
/// # Errors
/// Where a sample that is to be shown cannot be read any more, or the device fails.
pub fn scrub(report: &ScrubReport) -> Result<String> {
    let ScrubReport { session, request, outcome, after, .. } = report;
    let asked = request.forget.len();
    let mut page =
        Page::new(&format!("{} of {} samples removed", thousands(outcome.removed), thousands(asked)));
    page.paragraph(&format!(
        "{} ({}) was trained on {} samples. {} of the retained ones were used ({}).",
        session.sources().map_or("A model in memory".into(), |sources| sources.model.display().to_string()),
        session.family(),
        thousands(request.n),
        thousands(request.retained.len()),
        request.retained_by,
    ));
    let summary = Summary::of(outcome);
    verdict(&mut page, outcome, &summary);
    let sum = |of: fn(&LayerAccount) -> usize| outcome.layers.iter().map(of).sum::<usize>();
    let change = |change: &Option<Change>| {
        change.as_ref().map_or("–".into(), |Change { before, after }| {
            format!("{} → {}", percent(before.accuracy), percent(after.accuracy))
        })
    };
    page.facts(
        "tiles",
        &[
            ("accuracy on the removed", change(&summary.forget)),
            ("accuracy on the retained", change(&summary.retain)),
            ("accuracy on validation data", change(&summary.validation)),
            (
                "units changed",
                format!(
                    "{} of {}",
                    thousands(sum(|layer| layer.changed)),
                    thousands(sum(|layer| layer.units))
                ),
            ),
            ("values changed", thousands(outcome.changed_values)),
            ("batches", thousands(outcome.records.len())),
            ("time", duration(outcome.seconds)),
        ],
    );
    if !outcome.notes.is_empty() {
        page.heading("Notes");
        page.list(&outcome.notes);
    }
    forgotten(&mut page, session, &request.forget, *after)?;
    evidence(&mut page, report);
    page.heading("To reproduce");
    session.command().iter().for_each(|command| page.verbatim(command));
    if let Some(files) = &report.files {
        let hashes = [
            ("SHA-256 of the model before", files.sha256_before.clone()),
            ("SHA-256 of the model after", files.sha256_after.clone()),
        ];
        page.facts("words", &hashes);
    }
    Ok(page.finish(&session.device().report(), outcome.seconds))
}

/// Is it forgotten, is the model still good, what is not known.
fn verdict(page: &mut Page, outcome: &Outcome, summary: &Summary) {
    let refused: Vec<&Record> = outcome.records.iter().filter(|record| !record.removed()).collect();
    for record in refused.iter().take(BANNERS) {
        page.banner(
            Tone::Bad,
            &format!("Batch {} is still in the model", record.batch),
            &format!("{} samples: {}", record.indices.len(), record.notes.join("; ")),
        );
    }
    if refused.len() > BANNERS {
        page.paragraph(&format!("{} more are listed below.", refused.len() - BANNERS));
    }
    if let Some(Change { before, after }) = summary.forget {
        let aim = summary.aim.map_or(String::new(), |aim| format!(" (aim {})", number(Some(aim), 3)));
        let numbers = format!(
            "On the removed samples accuracy went from {} to {}, the mean loss from {} to {}{aim}.",
            percent(before.accuracy),
            percent(after.accuracy),
            number(Some(before.loss), 3),
            number(Some(after.loss), 3),
        );
        match summary.effect {
            Effect::Moved => {
                page.banner(Tone::Good, "The model's answers on the removed samples moved", &numbers)
            }
            Effect::Unmoved => {
                page.banner(
                    Tone::Warning,
                    "The model's answers on the removed samples hardly moved",
                    &numbers,
                );
            }
            Effect::Nothing => page.banner(Tone::Neutral, "There was little to forget", &numbers),
            Effect::Undone => page.banner(
                Tone::Bad,
                "The samples are still in the model",
                "Rounded to the type of the files, the new values answer as the old ones did; the notes have the numbers.",
            ),
            Effect::None => {}
        }
    }
    if let Some(retain) = summary.retain {
        let set = |name: &str, Change { before, after }: Change| {
            format!("{name} from {} to {}", percent(before.accuracy), percent(after.accuracy))
        };
        let sets: Vec<String> =
            [("on retained samples", Some(retain)), ("on validation samples", summary.validation)]
                .into_iter()
                .filter_map(|(name, change)| Some(set(name, change?)))
                .collect();
        let numbers = format!("Accuracy went {}.", sets.join(", and "));
        match summary.is_damaged() {
            true => page.banner(Tone::Warning, "The model is damaged", &numbers),
            false => page.banner(Tone::Good, "The model is as good as before", &numbers),
        }
    }
    page.banner(
        Tone::Neutral,
        "Not known from this report",
        "Whether the model is like one that was trained without the samples. scrubjay verify compares it with such models.",
    );
}

/// What was chosen and changed, batch by batch.
fn evidence(page: &mut Page, report: &ScrubReport) {
    let ScrubReport { request, outcome, .. } = report;
    let records = &outcome.records;
    page.heading("Before and after");
    match &records[..] {
        [one] => page.charts(&[before_and_after(one)]),
        _ => page.charts(&[
            accuracy(records, "Removed samples: each batch before and after its removal, %", &FORGOTTEN),
            losses(records),
            accuracy(records, "The rest, %; the axis does not begin at 0", &REST),
        ]),
    }
    match request.settings.hold {
        None => chosen(page, records, request.settings.selection.method),
        Some(_) => held(page, records),
    }
    page.heading("Units changed, by layer");
    page.charts(&[changed(&outcome.layers)]);
    page.heading("What was not changed");
    page.list(&untouched(outcome));
    page.heading("Time");
    page.charts(&[phases(records)]);
    page.heading("Batches");
    let words = match records.len() {
        1 => "The one batch".into(),
        count => format!("{} batches, one by one", thousands(count)),
    };
    page.folded(&words, |page| batches(page, records));
    if let Some(privacy) = &outcome.privacy {
        page.heading("Certificate");
        page.paragraph(&format!(
            "ε = {} and δ = {} were spent. It holds {}.",
            privacy.epsilon_spent, privacy.delta_spent, privacy.holds,
        ));
    }
}

/// A single batch, set by set.
fn before_and_after(record: &Record) -> String {
    let (before, after) = (&record.account.before, record.account.after());
    let pair = |name, of: fn(&Snapshot) -> Option<f64>| {
        Some(Pair { name, before: of(before)?, after: after.and_then(of) })
    };
    let sets = [
        pair("removed samples", |at| Some(at.forget.accuracy)),
        pair("retained samples", |at| Some(at.retain.accuracy)),
        pair("validation samples", |at| at.validation.map(|set| set.accuracy)),
    ];
    pairs("Accuracy before and after, %", &sets.into_iter().flatten().collect::<Vec<_>>())
}

/// A line of accuracies: its name, its class, and the value of a record.
type Drawn = (&'static str, &'static str, fn(&Record) -> Option<f64>);

const FORGOTTEN: [Drawn; 2] = [
    ("before", "before", |record| Some(record.account.before.forget.accuracy)),
    ("after", "after", |record| Some(record.account.after()?.forget.accuracy)),
];
const REST: [Drawn; 2] = [
    ("retained", "after", |record| Some(record.account.after()?.retain.accuracy)),
    ("validation", "retrained", |record| Some(record.account.after()?.validation?.accuracy)),
];

/// The values of the batches that were removed, against the number of samples removed.
fn series(records: &[Record], drawn: &[Drawn], scale: f64) -> Vec<Series<'static>> {
    let one = |&(name, class, of): &Drawn| {
        let mut removed = 0;
        let mut points = vec![];
        for record in records.iter().filter(|record| record.removed()) {
            removed += record.indices.len();
            points.extend(of(record).map(|value| (removed as f64, scale * value)));
        }
        Series { name, class, points }
    };
    drawn.iter().map(one).filter(|one| !one.points.is_empty()).collect()
}

fn range(series: &[Series], least: f64) -> Range {
    Range::of(series.iter().flat_map(|one| one.points.iter().map(|point| point.1)), least)
}

fn accuracy(records: &[Record], title: &str, drawn: &[Drawn]) -> String {
    let series = series(records, drawn, 100.0);
    let forgotten = drawn.iter().any(|one| one.0 == "before");
    let range = if forgotten { Range::from(0.0, 100.0) } else { range(&series, 1.0) };
    lines(title, "samples removed", &series, range)
}

/// The removed samples' mean loss beside what was aimed at.
fn losses(records: &[Record]) -> String {
    const DRAWN: [Drawn; 3] = [
        ("before", "before", |record| Some(record.account.before.forget.loss)),
        ("after", "after", |record| Some(record.account.after()?.forget.loss)),
        ("aim", "level", aim),
    ];
    let series = series(records, &DRAWN, 1.0);
    let range = range(&series, 0.1).with(&[0.0]);
    lines("Removed samples: mean loss of each batch, and its aim", "samples removed", &series, range)
}

/// Which units were chosen, and why.
fn chosen(page: &mut Page, records: &[Record], method: Method) {
    page.heading("What was chosen, and on what evidence");
    page.paragraph(
        "T measures how much of the loss's movement under noise a unit's activation explains: 0 is independence, 1 a \
         function. The noise level is what the largest first-step T reaches when the losses are permuted; a T below it \
         may be chance.",
    );
    match records {
        [one] => page.charts(&[scores(records, method), first_step(&one.account.selection)]),
        _ => page.charts(&[first_steps(records), scores(records, method)]),
    }
    page.list(&agreements(records));
}

/// What a hold held the removed samples at, and what it reached.
fn held(page: &mut Page, records: &[Record]) {
    page.heading("What a model without the samples would answer");
    page.paragraph(
        "A proxy that has not seen the samples gives their soft labels; the new model is held at them. Each cell has the \
         soft labels' value, then the new model's.",
    );
    let row = |record: &Record, hold: &HoldAccount| {
        let (target, reached) = (&hold.target, &hold.reached);
        let pair = |target: f64, reached: f64, digits| {
            format!("{} / {}", number(Some(target), digits), number(Some(reached), digits))
        };
        vec![
            record.batch.to_string(),
            hold.proxy.name().into(),
            pair(100.0 * target.accuracy, 100.0 * reached.accuracy, 1),
            pair(target.loss, reached.loss, 3),
            pair(100.0 * target.confidence, 100.0 * reached.confidence, 1),
        ]
    };
    let held = records.iter().filter_map(|record| Some(row(record, record.account.hold.as_ref()?)));
    let head = ["batch", "proxy", "accuracy, %", "loss", "largest probability, %"];
    page.table("batches", &head, &held.take(ROWS).collect::<Vec<_>>());
}

/// For each batch that was observed below f32, its agreement with f32.
fn agreements(records: &[Record]) -> Vec<String> {
    let sentence = |record: &Record| {
        let found = record.account.selection.agreement?;
        Some(format!(
            "Batch {} was observed in {}. The first {} copies of {} traces were observed in f32 too: Spearman's correlation \
             of the losses is {} at least, and {} % of the units chosen are the same.",
            record.batch,
            found.precision.name(),
            found.copies,
            found.traces,
            number(found.spearman, 4),
            number(Some(100.0 * found.overlap), 0),
        ))
    };
    records.iter().take(ROWS).filter_map(sentence).collect()
}

/// The first-step T of a single batch, beside the noise level.
fn first_step(selection: &SelectionAccount) -> String {
    let values = [("largest T of the first step", selection.first_t), ("noise level", selection.noise_level)];
    let bar = |(name, value): &(&str, Option<f64>)| {
        let value = (*value)?;
        Some(Bar { name: (*name).into(), share: value, text: number(Some(value), 3) })
    };
    bars("Evidence of the first step", &values.iter().filter_map(bar).collect::<Vec<_>>())
}

fn first_steps(records: &[Record]) -> String {
    let of = |value: fn(&SelectionAccount) -> Option<f64>| -> Vec<(f64, f64)> {
        let point = |record: &Record| Some((record.batch as f64, value(&record.account.selection)?));
        records.iter().filter_map(point).collect()
    };
    let series = [
        Series { name: "largest T of the first step", class: "after", points: of(|found| found.first_t) },
        Series { name: "noise level", class: "level", points: of(|found| found.noise_level) },
    ];
    let range = range(&series, 0.1).with(&[0.0]);
    lines("Largest T of the first step, by batch", "batch", &series, range)
}

/// The scores of the chosen units of each batch, in order of choice.
fn scores(records: &[Record], method: Method) -> String {
    const BATCHES: usize = 40;
    let mut series: Vec<Series> = vec![];
    let mut levels: Vec<f64> = vec![];
    let (title, foci) = match method {
        Method::Foci | Method::One => ("T of each step, given the units before it", true),
        Method::Vote => ("What each unit gained in the vote, in order of choice", false),
        Method::Gradient => ("Norm of each unit's gradient, in order of choice", false),
        Method::Cheap => ("First-step T of each unit, in order of choice", false),
        Method::Random | Method::Full | Method::Output => ("Nothing was measured to choose by", false),
    };
    for record in records.iter().take(BATCHES) {
        let selection = &record.account.selection;
        let scores = selection.scores.iter().enumerate();
        let points: Vec<(f64, f64)> = scores.map(|(i, score)| (i as f64 + 1.0, *score)).collect();
        if !points.is_empty() {
            levels.extend(selection.noise_level.filter(|_| foci));
            series.push(Series { name: "a batch", class: "after", points });
        }
    }
    let steps = series.iter().map(|one| one.points.len()).max().unwrap_or(1) as f64;
    for level in &levels {
        let points = vec![(1.0, *level), (steps, *level)];
        series.push(Series { name: "noise level", class: "level", points });
    }
    let range = range(&series, 1e-3).with(&[0.0]);
    lines(title, if foci { "step" } else { "unit" }, &series, range)
}

/// The part of a network that a layer belongs to: its name up to the first part with a number, as `layer1` or `blocks.3`.
pub(super) fn stage(layer: &str) -> &str {
    let mut end = 0;
    for part in layer.split('.') {
        end += part.len();
        if part.contains(|c: char| c.is_ascii_digit()) {
            return &layer[..end];
        }
        end += 1;
    }
    layer
}

/// The units that changed, layer by layer, or stage by stage where there are many layers.
fn changed(layers: &[LayerAccount]) -> String {
    let mut rows: Vec<(Cow<str>, [usize; 3])> = vec![];
    for layer in layers {
        let name = if layers.len() > LAYERS { stage(&layer.name) } else { &layer.name };
        let counts = [layer.units, layer.chosen, layer.changed];
        match rows.last_mut().filter(|(last, _)| last == name) {
            Some((_, sums)) => sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count),
            None => rows.push((name.into(), counts)),
        }
    }
    let bar = |(name, [units, chosen, changed]): &(Cow<str>, [usize; 3])| Bar {
        name: name.to_string(),
        share: *changed as f64 / *units as f64,
        text: match [0, *changed].contains(chosen) {
            true => format!("{} of {}", thousands(*changed), thousands(*units)),
            false => {
                format!("{} of {} ({} chosen)", thousands(*changed), thousands(*units), thousands(*chosen))
            }
        },
    };
    bars("Units changed", &rows.iter().map(bar).collect::<Vec<_>>())
}

fn untouched(outcome: &Outcome) -> Vec<String> {
    let layers = &outcome.layers;
    let names: Vec<&str> =
        layers.iter().filter(|layer| layer.changed == 0).map(|layer| layer.name.as_str()).collect();
    let mut items = vec![format!("Never: {}.", outcome.never_touched)];
    items.push(match names.len() {
        0 => "Every layer has units that changed.".into(),
        n => format!("{n} of {} layers as a whole: {}.", layers.len(), names.join(", ")),
    });
    items.push(
        "Every unit that is not counted above: its values are those of the input file, bit for bit.".into(),
    );
    if outcome.lost_updates > 0 {
        let lost = thousands(outcome.lost_updates);
        items.push(format!("{lost} values whose change was too small for the type they are stored in."));
    }
    items
}

fn phases(records: &[Record]) -> String {
    let mut sums: BTreeMap<Phase, f64> = BTreeMap::new();
    for (phase, seconds) in records.iter().flat_map(|record| &record.account.seconds) {
        *sums.entry(*phase).or_default() += seconds;
    }
    let mut phases: Vec<(Phase, f64)> = sums.into_iter().collect();
    phases.sort_by(|a, b| b.1.total_cmp(&a.1));
    let whole: f64 = phases.iter().map(|phase| phase.1).sum();
    let bar = |(phase, seconds): &(Phase, f64)| Bar {
        name: phase.name().into(),
        share: seconds / whole,
        text: duration(*seconds),
    };
    let title = format!("Time of each phase, all batches; {} together", duration(whole));
    bars(&title, &phases.iter().map(bar).collect::<Vec<_>>())
}

fn batches(page: &mut Page, records: &[Record]) {
    let row = |record: &Record| {
        let account = &record.account;
        let change = |of: fn(&Snapshot) -> f64, digits: usize| {
            let after = account.after().map(of);
            format!("{} → {}", number(Some(of(&account.before)), digits), number(after, digits))
        };
        vec![
            record.batch.to_string(),
            thousands(record.indices.len()),
            if record.removed() { "yes" } else { "no" }.into(),
            thousands(record.units.len()),
            change(|at| at.forget.loss, 3),
            change(|at| 100.0 * at.forget.accuracy, 1),
            change(|at| 100.0 * at.retain.accuracy, 2),
            number(account.step.as_ref().map(|step| step.length.scale), 2),
        ]
    };
    let head =
        ["batch", "samples", "removed", "units", "forget loss", "forget acc., %", "retain acc., %", "length"];
    page.table("batches", &head, &records.iter().take(ROWS).map(row).collect::<Vec<_>>());
    if records.len() > ROWS {
        page.paragraph(&format!("The other {} are in report.json.", thousands(records.len() - ROWS)));
    }
    let noted = |record: &Record| {
        (!record.notes.is_empty()).then(|| format!("Batch {}: {}", record.batch, record.notes.join("; ")))
    };
    page.list(&records.iter().take(ROWS).filter_map(noted).collect::<Vec<_>>());
}
