//! The keys that docs/REPORT.md documents, held to a report.

use std::collections::BTreeSet;

use serde_json::Value;

pub const DOCS: &str = include_str!("../../docs/REPORT.md");

/// The keys in the first column of the table under a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let start = DOCS.find(&format!("### {heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let section = DOCS[start + 4..].split("\n#").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.flat_map(|row| row[1..].split('|').next().unwrap().split(", "));
    cells.map(|key| key.trim().trim_matches('`').to_string()).collect()
}

/// Every path to a value that is no object and no list; an empty list is a path with `[]`.
fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                paths(value, &if at.is_empty() { key.clone() } else { format!("{at}.{key}") }, found);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            list.iter().for_each(|value| paths(value, &format!("{at}[]"), found));
        }
        Value::Array(_) => drop(found.insert(format!("{at}[]"))),
        _ => drop(found.insert(at.to_string())),
    }
}

/// Whether a documented key, `*` standing for any one name, is this path, or lies in it where it is null or empty here.
fn fits(key: &str, path: &str) -> bool {
    let (key, path): (Vec<&str>, Vec<&str>) = (key.split('.').collect(), path.split('.').collect());
    let empty = |k: &str, p: &str| p.ends_with("[]") && k.strip_prefix(p) == Some("[]"); // a list of lists
    let same = |(k, p): (&&str, &&str)| k == p || *k == "*" && !p.ends_with(']') || empty(k, p);
    key.len() >= path.len() && key.iter().zip(&path).all(same)
}

/// Every key of the reports is documented, and every documented key is in one of them.
pub fn check(heading: &str, reports: &[Value]) {
    let keys = documented(heading);
    let mut found = BTreeSet::new();
    reports.iter().for_each(|report| paths(report, "", &mut found));
    for path in &found {
        let known = keys.iter().any(|key| fits(key, path));
        assert!(known, "{heading}: `{path}` is not documented");
    }
    for key in &keys {
        assert!(
            found.iter().any(|path| fits(key, path)),
            "{heading}: `{key}` is documented and not in a report"
        );
    }
}
