//! The page of a verification: a model before and after, compared with models retrained without the samples.

use super::chart::{columns, histograms};
use super::page::{Page, Tone, number, thousands};
use super::verified::{Label, ModelReport, SampleReport, VerifyReport};
use crate::comparison::{Definition, Flag, MEASURES, Row};

/// The most forgotten samples that are shown one by one.
const ROWS: usize = 100;

/// A verification's report as a page.
pub fn verify(report: &VerifyReport) -> String {
    let sets = &report.sets;
    let mut page = Page::new("Is it forgotten?");
    let class = sets.forget.class.map_or(String::new(), |class| format!(", all of label {class}"));
    page.paragraph(&format!(
        "{} forgotten samples{class}, {} retained and {} test samples; a model before and after, beside {} that never saw \
         the forgotten ones.",
        thousands(sets.forget.n),
        thousands(sets.retain.n),
        thousands(sets.test.n),
        report.references.len(),
    ));
    verdict(&mut page, report);
    if !report.notes.is_empty() {
        page.heading("Notes");
        page.list(&report.notes);
    }

    page.heading("Measures");
    page.paragraph(
        "Every number stands beside what retrained models show, each held against the others: mean ± standard \
         deviation.",
    );
    let head = ["", "before", "after", "retrained", "gap before", "gap after"];
    page.table("measures", &head, &measures(report));
    page.heading("Losses of the forgotten samples");
    let losses = |of: fn(&SampleReport) -> f64| report.samples.iter().map(of).collect();
    let losses = histograms(
        "Where the losses lie; heights are shares of each set",
        &[
            ("before", "before", losses(|sample| sample.losses.before)),
            ("after", "after", losses(|sample| sample.losses.after)),
            (
                "retrained",
                "retrained",
                report.samples.iter().flat_map(|sample| sample.losses.references.iter().copied()).collect(),
            ),
        ],
    );
    page.charts(&[losses, ranks(report)]);
    samples(&mut page, report);
    page.heading("What the measures are");
    let shown = MEASURES.iter().filter(|measure| (measure.of)(&report.after.measures).is_some());
    page.facts("words", &shown.map(|measure| (measure.name, measure.text.into())).collect::<Vec<_>>());
    models(&mut page, report);
    if let Some(command) = &report.command {
        page.heading("To reproduce");
        page.verbatim(command);
    }
    page.finish(&report.device, report.seconds)
}

/// The flags, or that there is none.
fn verdict(page: &mut Page, report: &VerifyReport) {
    for finding in &report.findings {
        let (tone, words) = match finding.flag {
            Flag::Remembers => (Tone::Bad, "The model still remembers"),
            Flag::OverForgets => (Tone::Odd, "The model over-forgets"),
            Flag::Uneven => (Tone::Odd, "The model forgets unevenly"),
            Flag::Damaged => (Tone::Warning, "The model is damaged"),
        };
        page.banner(tone, words, &finding.text);
    }
    match (report.findings.is_empty(), report.remembered) {
        (false, _) => {}
        (true, true) => page.banner(
            Tone::Good,
            "No flag",
            "By membership, rank and accuracy the model after is within what retrained models show. With few samples or few \
             references small differences stay hidden.",
        ),
        (true, false) => page.banner(
            Tone::Neutral,
            "There was little to forget",
            "The model before shows no memory of these samples by the same measures, and the model after shows none either.",
        ),
    }
}

fn measures(report: &VerifyReport) -> Vec<Vec<String>> {
    let row = |measure: &Definition| {
        let scaled = |value: Option<f64>| value.map(|value| value * measure.scale);
        let shown = |value: Option<f64>| number(scaled(value), measure.digits);
        let of = |row: &Row| (measure.of)(row);
        of(&report.after.measures)?;
        let retrained = report.retrained.get(measure.key).copied().flatten();
        let gaps = report.gaps.get(measure.key);
        let gap = |gap: Option<f64>| match scaled(gap) {
            Some(gap) => format!("{gap:+.*}", measure.digits),
            None => "–".into(),
        };
        Some(vec![
            [measure.name, measure.unit].join(if measure.unit.is_empty() { "" } else { ", " }),
            shown(of(&report.before.measures)),
            shown(of(&report.after.measures)),
            match retrained.and_then(|spread| spread.deviation) {
                Some(deviation) => {
                    format!("{} ±\u{a0}{}", shown(retrained.map(|s| s.mean)), shown(Some(deviation)))
                }
                None => shown(retrained.map(|spread| spread.mean)),
            },
            gap(gaps.and_then(|gap| gap.before)),
            gap(gaps.and_then(|gap| gap.after)),
        ])
    };
    MEASURES.iter().filter_map(row).collect()
}

/// The files of the models, where they come from some.
fn models(page: &mut Page, report: &VerifyReport) {
    let retrained = report.references.iter().map(|reference| ("retrained", reference));
    let all = [("before", &report.before), ("after", &report.after)].into_iter().chain(retrained);
    let row = |(name, model): (&str, &ModelReport)| {
        Some(vec![name.into(), model.path.as_ref()?.display().to_string(), model.sha256.clone()?])
    };
    let rows: Vec<Vec<String>> = all.filter_map(row).collect();
    if !rows.is_empty() {
        page.heading("Models");
        page.table("models", &["", "model", "SHA-256"], &rows);
    }
}

/// How many of the retrained models have a lower loss, over the forgotten samples.
fn ranks(report: &VerifyReport) -> String {
    let k = report.references.len();
    let mut shares = vec![0.0; k + 1];
    for sample in &report.samples {
        let below = (sample.losses.rank / 100.0 * k as f64).round() as usize;
        shares[below.min(k)] += 100.0 / report.samples.len() as f64;
    }
    let title = "After: % of the forgotten samples, by how many retrained models have a lower loss. Like retrained is \
                 level (dashed); the left is remembered, the right over-forgotten";
    columns(title, "retrained models with a lower loss", &shares, 100.0 / (k + 1) as f64)
}

/// The forgotten samples, those that differ most from the retrained models first.
fn samples(page: &mut Page, report: &VerifyReport) {
    let mut samples: Vec<&SampleReport> = report.samples.iter().collect();
    let off = |sample: &SampleReport| (sample.losses.rank - 50.0).abs();
    samples.sort_by(|a, b| off(b).total_cmp(&off(a)));
    let row = |sample: &&SampleReport| {
        let theirs = || sample.losses.references.iter().copied();
        vec![
            sample.index.to_string(),
            match &sample.label {
                Label::Class(class) => class.to_string(),
                Label::Several(labels) => format!("{labels:?}"),
            },
            number(Some(sample.losses.before), 3),
            number(Some(sample.losses.after), 3),
            format!("{} to {}", number(theirs().reduce(f64::min), 3), number(theirs().reduce(f64::max), 3)),
            number(Some(sample.losses.rank), 0),
            number(sample.losses.likelihood_ratio, 2),
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
