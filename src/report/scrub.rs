//! The page of `report.json`: what a scrub did to a model.

use serde_json::Value;

use super::chart::{Bar, Range, Series, bars, lines};
use super::{Page, escaped, list, number, text, texts};

/// The most rows of batches, and bars of layers, that are shown.
const ROWS: usize = 200;
const LAYERS: usize = 30;
/// The most batches that are named at the top as not removed.
const BANNERS: usize = 3;

/// A finished scrub's report as a page.
pub fn scrub(report: &Value) -> String {
    let records = list(&report["records"]);
    let asked = list(&report["request"]["samples"]).len();
    let mut page =
        Page::new(&format!("{} of {asked} samples removed", report["removed"].as_u64().unwrap_or(0)));
    let options = &report["options"];
    page.paragraph(&format!(
        "From the model {} ({}), trained on {} samples, of which {} retained ones were used ({}).",
        text(&options["model"]),
        text(&report["family"]),
        text(&report["request"]["n"]),
        text(&report["retained"]["used"]),
        text(&report["retained"]["chosen"]),
    ));
    let layers = list(&report["layers"]);
    let sum = |key: &str| layers.iter().filter_map(|layer| layer[key].as_u64()).sum::<u64>();
    page.facts(
        "tiles",
        &[
            ("samples not removed", text(&report["not_removed"])),
            ("batches", records.len().to_string()),
            ("units changed", format!("{} of {}", sum("changed"), sum("units"))),
            ("values changed", text(&report["model"]["changed_values"])),
            ("seconds", number(report["seconds"].as_f64(), 1)),
        ],
    );
    let refused: Vec<&Value> = records.iter().filter(|record| record["removed"] == false).collect();
    for record in refused.iter().take(BANNERS) {
        page.add(&format!(
            "<p class=\"flag damaged\"><strong>Batch {} is still in the model</strong> {} samples: {}</p>",
            record["batch"].as_u64().unwrap_or(0),
            list(&record["indices"]).len(),
            escaped(&texts(&record["notes"]).join("; "))
        ));
    }
    if refused.len() > BANNERS {
        page.paragraph(&format!("{} more are listed below.", refused.len() - BANNERS));
    }
    let notes = texts(&report["notes"]);
    if !notes.is_empty() {
        page.heading("Notes");
        page.list(&notes);
    }

    evidence(&mut page, report, records);
    page.heading("To reproduce");
    page.verbatim(&text(&report["command"]));
    page.facts(
        "words",
        &[
            ("SHA-256 of the model before", text(&report["model"]["sha256_before"])),
            ("SHA-256 of the model after", text(&report["model"]["sha256_after"])),
        ],
    );
    page.paragraph(
        "Whether the samples are forgotten is shown by models that were retrained without them: scrubjay verify.",
    );
    page.finish(report)
}

/// What was chosen and changed, batch by batch.
fn evidence(page: &mut Page, report: &Value, records: &[Value]) {
    let layers = list(&report["layers"]);
    page.heading("Accuracy over the removals");
    page.charts(&[
        accuracy(records, "Forgotten samples: each batch before and after its removal, %", &FORGOTTEN, true),
        accuracy(records, "The rest, %; the axis does not begin at 0", &REST, false),
    ]);
    match report["options"]["hold"].is_null() {
        true => chosen(page, records, &text(&report["options"]["selection"])),
        false => held(page, records),
    }
    page.heading("Units changed, by layer");
    page.charts(&[changed(layers)]);
    page.heading("What was not changed");
    page.list(&untouched(report, layers));
    page.heading("Time");
    page.charts(&[phases(records)]);
    page.heading("Batches");
    page.folded(&format!("{} batches, one by one", records.len()), |page| batches(page, records));
    if let Some(holds) = report["privacy"]["holds"].as_str() {
        page.heading("Certificate");
        page.paragraph(&format!(
            "ε = {} and δ = {} were spent. It holds {holds}.",
            text(&report["privacy"]["epsilon_spent"]),
            text(&report["privacy"]["delta_spent"]),
        ));
    }
}

/// A series of accuracies: its name, set, moment and style.
type Drawn = (&'static str, &'static str, &'static str, &'static str);

const FORGOTTEN: [Drawn; 2] =
    [("before", "forget", "before", "before"), ("after", "forget", "after", "after")];
const REST: [Drawn; 2] =
    [("retained", "retain", "after", "after"), ("validation", "validation", "after", "retrained")];

/// Accuracy against the number of samples removed; for the other samples, including the value before the first batch.
fn accuracy(records: &[Value], title: &str, drawn: &[Drawn], forgotten: bool) -> String {
    let of = |record: &Value, when: &str, set: &str| {
        record["account"][when][set]["accuracy"].as_f64().map(|share| 100.0 * share)
    };
    let mut series = vec![];
    for &(name, set, when, class) in drawn {
        let mut points = vec![];
        let first = records.first().and_then(|record| of(record, "before", set)).filter(|_| !forgotten);
        points.extend(first.map(|accuracy| (0.0, accuracy)));
        let mut removed = 0;
        for record in records.iter().filter(|record| record["removed"] == true) {
            removed += list(&record["indices"]).len();
            points.extend(of(record, when, set).map(|accuracy| (removed as f64, accuracy)));
        }
        if !points.is_empty() {
            series.push(Series { name, class, points });
        }
    }
    let values = series.iter().flat_map(|one| one.points.iter().map(|point| point.1));
    let range = if forgotten { Range::from(0.0, 100.0) } else { Range::of(values, 1.0) };
    lines(title, "samples removed", &series, range)
}

/// Which units were chosen, and why.
fn chosen(page: &mut Page, records: &[Value], method: &str) {
    page.heading("What was chosen, and on what evidence");
    page.paragraph(
        "T measures how much of the loss's movement under noise a unit's activation explains: 0 is independence, 1 a \
         function. The noise level is what the largest first-step T reaches when the losses are permuted; a T below it \
         may be chance.",
    );
    page.charts(&[first_steps(records), scores(records, method)]);
    page.list(&agreements(records));
}

/// What a hold held the forgotten samples at, and what it reached.
fn held(page: &mut Page, records: &[Value]) {
    page.heading("What a model without the samples would answer");
    page.paragraph(
        "A proxy that has not seen the samples gives their soft labels; the new model is held at them. Each cell has the \
         soft labels' value, then the new model's.",
    );
    let pair = |record: &Value, key: &str, scale: f64, digits: usize| {
        let of = |side: &str| record["account"][side][key].as_f64().map(|value| scale * value);
        format!("{} / {}", number(of("target"), digits), number(of("reached"), digits))
    };
    let row = |record: &Value| {
        vec![
            text(&record["batch"]),
            text(&record["account"]["proxy"]),
            pair(record, "accuracy", 100.0, 1),
            pair(record, "loss", 1.0, 3),
            pair(record, "confidence", 100.0, 1),
        ]
    };
    let head = ["batch", "proxy", "accuracy, %", "loss", "largest probability, %"];
    page.table("batches", &head, &records.iter().take(ROWS).map(row).collect::<Vec<_>>());
}

/// For each batch that was observed below f32, its agreement with f32.
fn agreements(records: &[Value]) -> Vec<String> {
    let sentence = |record: &Value| {
        let found = record["account"]["selection"]["agreement"].as_object()?;
        Some(format!(
            "Batch {} was observed in {}. The first {} copies of {} traces were observed in f32 too: Spearman's correlation \
             of the losses is {} at least, and {} % of the units chosen are the same.",
            text(&record["batch"]),
            text(&found["precision"]),
            text(&found["copies"]),
            text(&found["traces"]),
            number(found["spearman"].as_f64(), 4),
            number(found["overlap"].as_f64().map(|share| 100.0 * share), 0),
        ))
    };
    records.iter().take(ROWS).filter_map(sentence).collect()
}

fn first_steps(records: &[Value]) -> String {
    let of = |key: &str| -> Vec<(f64, f64)> {
        let value = |record: &Value| record["account"]["selection"][key].as_f64();
        records.iter().enumerate().filter_map(|(i, record)| Some((i as f64, value(record)?))).collect()
    };
    let series = [
        Series { name: "largest T of the first step", class: "after", points: of("first_t") },
        Series { name: "noise level", class: "level", points: of("noise_level") },
    ];
    let values = series.iter().flat_map(|one| one.points.iter().map(|point| point.1));
    let range = Range::of(values, 0.1).with(&[0.0]);
    lines("Largest T of the first step, by batch", "batch", &series, range)
}

/// The scores of the chosen units of each batch, in order of choice.
fn scores(records: &[Value], method: &str) -> String {
    const BATCHES: usize = 40;
    let mut series: Vec<Series> = vec![];
    let mut levels: Vec<f64> = vec![];
    let foci = matches!(method, "foci" | "one");
    for record in records.iter().take(BATCHES) {
        let selection = &record["account"]["selection"];
        let scores = list(&selection["scores"]).iter().filter_map(Value::as_f64);
        let points: Vec<(f64, f64)> = scores.enumerate().map(|(i, score)| (i as f64 + 1.0, score)).collect();
        if !points.is_empty() {
            levels.extend(selection["noise_level"].as_f64().filter(|_| foci));
            series.push(Series { name: "a batch", class: "after", points });
        }
    }
    let steps = series.iter().map(|one| one.points.len()).max().unwrap_or(1) as f64;
    for level in &levels {
        let points = vec![(1.0, *level), (steps, *level)];
        series.push(Series { name: "noise level", class: "level", points });
    }
    let title = match method {
        "foci" | "one" => "T of each step, given the units before it",
        "vote" => "What each unit gained in the vote, in order of choice",
        "gradient" => "Norm of each unit's gradient, in order of choice",
        "cheap" => "First-step T of each unit, in order of choice",
        _ => "Nothing was measured to choose by",
    };
    let values = series.iter().flat_map(|one| one.points.iter().map(|point| point.1));
    let range = Range::of(values, 1e-3).with(&[0.0]);
    lines(title, if foci { "step" } else { "unit" }, &series, range)
}

fn changed(layers: &[Value]) -> String {
    let touched = |layer: &&Value| layer["changed"].as_u64().unwrap_or(0) > 0;
    let few = layers.len() <= LAYERS;
    let shown: Vec<&Value> = layers.iter().filter(|layer| few || touched(layer)).collect();
    let bar = |layer: &&Value| {
        let of = |key: &str| layer[key].as_u64().unwrap_or(0);
        Bar {
            name: text(&layer["name"]),
            share: of("changed") as f64 / of("units") as f64,
            text: match [0, of("changed")].contains(&of("chosen")) {
                true => format!("{} of {}", of("changed"), of("units")),
                false => format!("{} of {} ({} chosen)", of("changed"), of("units"), of("chosen")),
            },
        }
    };
    bars("Units changed", &shown.iter().map(bar).collect::<Vec<_>>())
}

fn untouched(report: &Value, layers: &[Value]) -> Vec<String> {
    let names: Vec<String> =
        layers.iter().filter(|layer| layer["changed"] == 0).map(|layer| text(&layer["name"])).collect();
    let mut items = vec![format!("Never: {}.", text(&report["never_touched"]))];
    items.push(match names.len() {
        0 => "Every layer has units that changed.".into(),
        n => format!("{n} of {} layers as a whole: {}.", layers.len(), names.join(", ")),
    });
    items.push(
        "Every unit that is not counted above: its values are those of the input file, bit for bit.".into(),
    );
    if let Some(lost) = report["model"]["updates_lost_in_stored_type"].as_u64().filter(|&lost| lost > 0) {
        items.push(format!("{lost} values whose change was too small for the type they are stored in."));
    }
    items
}

fn phases(records: &[Value]) -> String {
    let mut phases: Vec<(String, f64)> = vec![];
    for (name, seconds) in
        records.iter().filter_map(|record| record["account"]["seconds"].as_object()).flatten()
    {
        let seconds = seconds.as_f64().unwrap_or(0.0);
        match phases.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += seconds,
            None => phases.push((name.clone(), seconds)),
        }
    }
    phases.sort_by(|a, b| b.1.total_cmp(&a.1));
    let whole: f64 = phases.iter().map(|phase| phase.1).sum();
    let bar = |(name, seconds): &(String, f64)| Bar {
        name: name.clone(),
        share: seconds / whole,
        text: format!("{seconds:.2} s"),
    };
    bars(
        &format!("Seconds per phase, all batches; {whole:.2} s together"),
        &phases.iter().map(bar).collect::<Vec<_>>(),
    )
}

fn batches(page: &mut Page, records: &[Value]) {
    let change = |record: &Value, set: &str, what: &str, scale: f64, digits: usize| {
        let at = |when: &str| record["account"][when][set][what].as_f64().map(|value| scale * value);
        format!("{} → {}", number(at("before"), digits), number(at("after"), digits))
    };
    let row = |record: &Value| {
        vec![
            text(&record["batch"]),
            list(&record["indices"]).len().to_string(),
            if record["removed"] == true { "yes" } else { "no" }.into(),
            list(&record["units"]).len().to_string(),
            change(record, "forget", "loss", 1.0, 3),
            change(record, "forget", "accuracy", 100.0, 1),
            change(record, "retain", "accuracy", 100.0, 2),
            number(record["account"]["length"]["scale"].as_f64(), 2),
        ]
    };
    let head =
        ["batch", "samples", "removed", "units", "forget loss", "forget acc., %", "retain acc., %", "length"];
    page.table("batches", &head, &records.iter().take(ROWS).map(row).collect::<Vec<_>>());
    if records.len() > ROWS {
        page.paragraph(&format!("The other {} are in report.json.", records.len() - ROWS));
    }
    let noted = |record: &Value| {
        let notes = texts(&record["notes"]);
        (!notes.is_empty()).then(|| format!("Batch {}: {}", text(&record["batch"]), notes.join("; ")))
    };
    page.list(&records.iter().take(ROWS).filter_map(noted).collect::<Vec<_>>());
}
