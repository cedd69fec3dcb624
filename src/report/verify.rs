//! The page of a verification: a model before and after, compared with models retrained without the samples.

use serde_json::Value;

use super::chart::{columns, histograms};
use super::{Page, escaped, list, number, text, texts};
use crate::comparison::MEASURES;

/// The most forgotten samples that are shown one by one.
const ROWS: usize = 100;

/// A verification's report as a page.
pub fn verify(report: &Value) -> String {
    let findings = list(&report["findings"]);
    let references = list(&report["references"]);
    let mut page = Page::new("Is it forgotten?");
    let sets = &report["sets"];
    let class =
        sets["forget"]["class"].as_u64().map_or(String::new(), |class| format!(", all of label {class}"));
    page.paragraph(&format!(
        "{} forgotten samples{class}, {} retained and {} test samples; a model before and after, beside {} that \
         never saw the forgotten ones.",
        text(&sets["forget"]["n"]),
        text(&sets["retain"]["n"]),
        text(&sets["test"]["n"]),
        references.len(),
    ));
    for finding in findings {
        let (class, words) = match finding["flag"].as_str() {
            Some("remembers") => ("remembers", "The model still remembers"),
            Some("over-forgets") => ("over-forgets", "The model over-forgets"),
            Some("uneven") => ("uneven", "The model forgets unevenly"),
            _ => ("damaged", "The model is damaged"),
        };
        page.add(&format!(
            "<p class=\"flag {class}\"><strong>{words}</strong> {}</p>",
            escaped(&text(&finding["text"]))
        ));
    }
    if findings.is_empty() {
        page.add(
            "<p class=\"flag none\"><strong>No flag</strong> By membership, rank and accuracy the model after is \
             within what retrained models show. With few samples or few references small differences stay hidden.</p>",
        );
    }
    let notes = texts(&report["notes"]);
    if !notes.is_empty() {
        page.heading("Notes");
        page.list(&notes);
    }

    page.heading("Measures");
    page.paragraph(
        "Every number stands beside what retrained models show, each held against the others: mean ± standard \
         deviation.",
    );
    let head = ["", "before", "after", "retrained", "gap before", "gap after"];
    page.table("measures", &head, &measures(report));
    page.heading("Losses of the forgotten samples");
    let losses = |key: &str| list(&report["samples"]).iter().filter_map(|s| s[key].as_f64()).collect();
    let theirs =
        list(&report["samples"]).iter().flat_map(|s| list(&s["references"])).filter_map(Value::as_f64);
    let losses = histograms(
        "Where the losses lie; heights are shares of each set",
        &[
            ("before", "before", losses("before")),
            ("after", "after", losses("after")),
            ("retrained", "retrained", theirs.collect()),
        ],
    );
    page.charts(&[losses, ranks(report, references.len())]);
    samples(&mut page, report);
    page.heading("What the measures are");
    let defined = MEASURES.iter().filter_map(|measure| {
        let shown = !report["after"]["measures"][measure.key].is_null();
        let text = report["definitions"][measure.key].as_str().filter(|_| shown)?;
        Some((measure.name, text.to_string()))
    });
    page.facts("words", &defined.collect::<Vec<_>>());
    page.heading("Models");
    let model = |name: &str, model: &Value| vec![name.into(), text(&model["path"]), text(&model["sha256"])];
    let mut models = vec![model("before", &report["before"]), model("after", &report["after"])];
    models.extend(references.iter().map(|reference| model("retrained", reference)));
    page.table("models", &["", "model", "SHA-256"], &models);
    page.heading("To reproduce");
    page.verbatim(&text(&report["command"]));
    page.finish(report)
}

fn measures(report: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![];
    for measure in &MEASURES {
        let scaled = |value: &Value| value.as_f64().map(|value| value * measure.scale);
        let shown = |value: &Value| number(scaled(value), measure.digits);
        let of = |model: &str| &report[model]["measures"][measure.key];
        if of("after").is_null() {
            continue;
        }
        let retrained = &report["retrained"][measure.key];
        let gap = |when: &str| match scaled(&report["gaps"][measure.key][when]) {
            Some(gap) => format!("{gap:+.*}", measure.digits),
            None => "–".into(),
        };
        rows.push(vec![
            [measure.name, measure.unit].join(if measure.unit.is_empty() { "" } else { ", " }),
            shown(of("before")),
            shown(of("after")),
            match retrained["deviation"].is_null() {
                true => shown(&retrained["mean"]),
                false => format!("{} ±\u{a0}{}", shown(&retrained["mean"]), shown(&retrained["deviation"])),
            },
            gap("before"),
            gap("after"),
        ]);
    }
    rows
}

/// How many of the `k` retrained models have a lower loss, over the forgotten samples.
fn ranks(report: &Value, k: usize) -> String {
    let samples = list(&report["samples"]);
    let mut shares = vec![0.0; k + 1];
    for rank in samples.iter().filter_map(|sample| sample["rank"].as_f64()) {
        let below = (rank / 100.0 * k as f64).round() as usize;
        shares[below.min(k)] += 100.0 / samples.len() as f64;
    }
    let title = "After: % of the forgotten samples, by how many retrained models have a lower loss. Like retrained is \
                 level (dashed); the left is remembered, the right over-forgotten";
    columns(title, "retrained models with a lower loss", &shares, 100.0 / (k + 1) as f64)
}

/// The forgotten samples, those that differ most from the retrained models first.
fn samples(page: &mut Page, report: &Value) {
    let mut samples: Vec<&Value> = list(&report["samples"]).iter().collect();
    let off = |sample: &Value| (sample["rank"].as_f64().unwrap_or(50.0) - 50.0).abs();
    samples.sort_by(|a, b| off(b).total_cmp(&off(a)));
    let row = |sample: &&Value| {
        let theirs: Vec<f64> = list(&sample["references"]).iter().filter_map(Value::as_f64).collect();
        let least = theirs.iter().copied().reduce(f64::min);
        let most = theirs.iter().copied().reduce(f64::max);
        vec![
            text(&sample["index"]),
            text(&sample["label"]),
            number(sample["before"].as_f64(), 3),
            number(sample["after"].as_f64(), 3),
            format!("{} to {}", number(least, 3), number(most, 3)),
            number(sample["rank"].as_f64(), 0),
            number(sample["likelihood_ratio"].as_f64(), 2),
        ]
    };
    let words = match samples.len() > ROWS {
        true => format!("{ROWS} of {} samples one by one, those that stand out most first", samples.len()),
        false => "Sample by sample, those that stand out most first".into(),
    };
    page.folded(&words, |page| {
        let head = ["sample", "label", "loss before", "loss after", "retrained", "rank", "likelihood ratio"];
        page.table("samples", &head, &samples.iter().take(ROWS).map(row).collect::<Vec<_>>());
    });
}
