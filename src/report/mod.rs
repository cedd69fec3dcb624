//! Report: a report in JSON as one page of HTML for people.
//!
//! The page is one file with its styles and charts, without scripts or external resources. It follows the reader's
//! light or dark setting. On a phone tables scroll, and charts keep a readable letter size. It is generated from the
//! JSON alone (docs/REPORT.md), and every text is escaped.

mod chart;
mod scrub;
mod steps;
mod svg;
mod verify;

use std::fmt::Write;

use serde_json::Value;

pub use scrub::scrub;
pub use steps::steps;
pub use verify::verify;

const STYLE: &str = include_str!("style.css");

/// Text for HTML and SVG, between tags and in quoted attributes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A page in the making.
struct Page {
    body: String,
}

impl Page {
    fn new(title: &str) -> Page {
        let body = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{0}</title>\n<style>\n{STYLE}</style>\n\
             </head>\n<body>\n<main>\n<h1>{0}</h1>\n",
            escaped(title)
        );
        Page { body }
    }

    /// Adds markup unescaped.
    fn add(&mut self, markup: &str) {
        self.body.push_str(markup);
        self.body.push('\n');
    }

    fn heading(&mut self, text: &str) {
        self.add(&format!("<h2>{}</h2>", escaped(text)));
    }

    fn paragraph(&mut self, text: &str) {
        self.add(&format!("<p>{}</p>", escaped(text)));
    }

    /// A command or a hash, in a monospaced font.
    fn verbatim(&mut self, text: &str) {
        self.add(&format!("<pre>{}</pre>", escaped(text)));
    }

    fn list(&mut self, items: &[String]) {
        let items: String = items.iter().map(|item| format!("<li>{}</li>", escaped(item))).collect();
        self.add(&format!("<ul>{items}</ul>"));
    }

    /// A list of names and values.
    fn facts(&mut self, class: &str, facts: &[(&str, String)]) {
        let fact = |(name, text): &(&str, String)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>", escaped(name), escaped(text))
        };
        self.add(&format!(
            "<dl class=\"{class}\">{}</dl>",
            facts.iter().map(fact).collect::<Vec<_>>().join("\n")
        ));
    }

    /// A table with a class of the style sheet; the first cell of a row is its heading.
    fn table(&mut self, class: &str, head: &[&str], rows: &[Vec<String>]) {
        let mut table = format!("<div class=\"wide {class}\"><table>\n<thead><tr>");
        let mut put = |text: std::fmt::Arguments| {
            let _ = table.write_fmt(text); // a String takes everything
        };
        head.iter().for_each(|cell| put(format_args!("<th scope=\"col\">{}</th>", escaped(cell))));
        put(format_args!("</tr></thead>\n<tbody>\n"));
        for row in rows {
            for (i, cell) in row.iter().enumerate() {
                match i {
                    0 => put(format_args!("<tr><th scope=\"row\">{}</th>", escaped(cell))),
                    _ => put(format_args!("<td>{}</td>", escaped(cell))),
                }
            }
            put(format_args!("</tr>\n"));
        }
        put(format_args!("</tbody></table></div>"));
        self.add(&table);
    }

    /// Charts side by side, where the page is wide enough.
    fn charts(&mut self, charts: &[String]) {
        self.add(&format!("<div class=\"charts\">\n{}</div>", charts.concat()));
    }

    /// A part that is collapsed until it is opened.
    fn folded(&mut self, summary: &str, fill: impl FnOnce(&mut Page)) {
        self.add(&format!("<details><summary>{}</summary>", escaped(summary)));
        fill(self);
        self.add("</details>");
    }

    fn finish(mut self, report: &Value) -> String {
        let device = &report["device"];
        let text = format!(
            "scrubjay {}; {}; {} threads; {} s",
            text(&report["scrubjay"]),
            text(&device["name"]),
            text(&device["threads"]),
            number(report["seconds"].as_f64(), 1),
        );
        self.add(&format!("<footer>{}</footer>\n</main>\n</body>\n</html>", escaped(&text)));
        self.body
    }
}

/// A value as text: a string unchanged, null as a dash, anything else as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".into(),
        other => other.to_string(),
    }
}

/// A number with `digits` digits after the point, or a dash for none.
fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".into(), |value| format!("{value:.digits$}"))
}

/// A list, empty where there is none.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The texts of a list.
fn texts(value: &Value) -> Vec<String> {
    list(value).iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NASTY: &str = "<script>alert(\"1\")</script> & 'x' é";

    /// A value with every text and key replaced by one that would break a page.
    fn nasty(value: &Value) -> Value {
        match value {
            Value::String(_) => json!(NASTY),
            Value::Array(list) => Value::Array(list.iter().map(nasty).collect()),
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), nasty(value))).collect(),
            other => other.clone(),
        }
    }

    fn check(page: &str) {
        assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
        for word in ["<script", "javascript:", "http://", "https://", "url(", "@import", "NaN", "inf"] {
            assert!(!page.contains(word), "`{word}` is in the page");
        }
        // Tags open and close in turn.
        let mut open: Vec<&str> = vec![];
        for tag in page.split('<').skip(1) {
            let tag = tag.split('>').next().unwrap();
            let name = tag.split_whitespace().next().unwrap().trim_end_matches('/');
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') || ["!DOCTYPE", "meta"].contains(&name) => {}
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    fn scrubbed() -> Value {
        let record = |batch: usize, removed: bool| {
            json!({
                "batch": batch, "indices": [2 * batch, 2 * batch + 1], "removed": removed, "notes": ["a note"],
                "units": [["fc1", 3]],
                "account": {
                    "before": {"forget": {"loss": 0.1, "accuracy": 1.0}, "retain": {"loss": 0.1, "accuracy": 1.0},
                        "validation": {"loss": 0.2, "accuracy": 0.9}},
                    "after": {"forget": {"loss": 2.0, "accuracy": 0.5}, "retain": {"loss": 0.1, "accuracy": 0.99},
                        "validation": {"loss": 0.2, "accuracy": 0.89}},
                    "selection": {"first_t": 0.4, "noise_level": 0.1, "scores": [0.4, 0.2, 0.1]},
                    "length": {"scale": 3.0},
                    "seconds": {"select": 0.2, "solve": 0.1},
                },
            })
        };
        json!({
            "scrubjay": "0", "report": "scrub", "command": "scrubjay scrub", "family": "mlp", "seconds": 1.0,
            "device": {"name": "cpu", "threads": 2}, "options": {"selection": "foci", "data": "train", "model": "m"},
            "request": {"samples": [0, 1, 2, 3], "n": 10, "batch": 2}, "removed": 2, "not_removed": 2,
            "retained": {"used": 6, "held_out": 0, "chosen": "all the rest"},
            "privacy": {"epsilon_spent": 1.0, "delta_spent": 1e-5, "holds": "rarely"},
            "never_touched": "batch norm", "layers": [{"name": "fc1", "units": 8, "chosen": 1, "changed": 1},
                {"name": "fc2", "units": 3, "chosen": 0, "changed": 0}],
            "model": {"changed_values": 9, "updates_lost_in_stored_type": 1, "sha256_before": "a", "sha256_after": "b"},
            "records": [record(0, true), record(1, false)],
        })
    }

    fn held() -> Value {
        let mut report = scrubbed();
        report["options"]["hold"] = json!({"proxy": "trained"});
        let of = |accuracy: f64| json!({"accuracy": accuracy, "loss": 1.0, "confidence": 0.5});
        report["records"][0]["account"]["target"] = of(0.75);
        report["records"][0]["account"]["reached"] = of(0.5);
        report
    }

    fn verified() -> Value {
        let row = json!({"forget_accuracy": 0.5, "auc": 0.5, "rank": null});
        let model = json!({"path": "m", "sha256": "a", "measures": row});
        json!({
            "scrubjay": "0", "report": "verify", "command": "scrubjay verify", "family": "mlp", "seconds": 1.0,
            "device": {"name": "cpu", "threads": 2},
            "sets": {"data": "t", "forget": {"n": 2, "spec": "0-1", "class": 3}, "retain": {"n": 3, "spec": null},
                "test": {"n": 20, "data": "u"}, "unseen": 20},
            "before": model, "after": model, "references": [model, model],
            "retrained": {"forget_accuracy": {"mean": 0.5, "deviation": 0.1}, "auc": {"mean": 0.5, "deviation": null}},
            "gaps": {"forget_accuracy": {"before": 0.1, "after": -0.1}},
            "findings": [{"flag": "remembers", "measure": "auc", "text": "it does"},
                {"flag": "over-forgets", "measure": "rank", "text": "it does"}],
            "notes": ["a note"],
            "samples": [{"index": 0, "label": 3, "before": 0.0, "after": 2.0, "references": [1.0, 3.0], "rank": 50.0,
                "likelihood_ratio": null}, {"index": 1, "label": 3, "before": 0.1, "after": 90.0,
                "references": [1.0, 3.0], "rank": 100.0, "likelihood_ratio": null}],
            "definitions": {"auc": "what it is"},
        })
    }

    #[test]
    fn pages_are_whole_and_hold_no_script_whatever_the_texts_are() {
        for (report, page) in
            [(scrubbed(), scrub as fn(&Value) -> String), (held(), scrub), (verified(), verify)]
        {
            check(&page(&report));
            let nasty = page(&nasty(&report));
            check(&nasty);
            assert!(nasty.contains(&escaped(NASTY)));
            assert!(page(&report).contains("<svg"));
        }
    }

    #[test]
    fn a_report_with_nothing_in_it_is_a_page_still() {
        check(&scrub(&json!({})));
        check(&verify(&json!({})));
        let mut refused = scrubbed(); // no unit depends on it: there is no measure after
        refused["records"] = json!([{"batch": 0, "indices": [0], "removed": false, "notes": ["not removed"],
            "account": {"before": {"forget": {"loss": 0.1, "accuracy": 1.0}}}}]);
        check(&scrub(&refused));
    }

    #[test]
    fn a_hold_shows_its_soft_labels_and_no_choice_of_units() {
        let (held, chosen) = (scrub(&held()), scrub(&scrubbed()));
        assert!(held.contains("75.0 / 50.0") && !held.contains("noise level"));
        assert!(chosen.contains("noise level") && !chosen.contains("soft label"));
    }

    #[test]
    fn flags_both_ways_are_shown_alike() {
        let page = verify(&verified());
        let banner = |flag: &str| page.matches(&format!("<p class=\"flag {flag}\">")).count();
        assert_eq!(
            (banner("remembers"), banner("over-forgets"), banner("damaged"), banner("none")),
            (1, 1, 0, 0)
        );
    }
}
