//! What `verify` prints.

use scrubjay::comparison::{Flag, MEASURES};
use scrubjay::verification::{Sets, Verified};

/// Prints the measures, the flags and the notes.
pub fn print(found: &Verified, sets: &Sets) {
    let Verified { comparison: found, notes } = found;
    println!(
        "{} forgotten, {} retained and {} test samples; the forgotten are compared with {} unseen test samples{}\n",
        sets.forget.len(),
        sets.retain.len(),
        sets.test.y.len(),
        sets.unseen.len(),
        sets.class.map_or(String::new(), |class| format!(" (class {class})"))
    );
    let retrained = format!("retrained ({})", found.references.len());
    println!(
        "{:<36}{:>10}{:>10}{:>20}{:>12}{:>11}",
        "", "before", "after", retrained, "gap before", "gap after"
    );
    let mut defined = vec![];
    for measure in &MEASURES {
        let number = |value: Option<f64>, plus: bool| match value {
            Some(value) if plus => format!("{:+.*}", measure.digits, value * measure.scale),
            Some(value) => format!("{:.*}", measure.digits, value * measure.scale),
            None => "-".to_string(),
        };
        let of = |row| number((measure.of)(row), false);
        if (measure.of)(&found.after).is_none() {
            continue;
        }
        let retrained = found.retrained(measure);
        let retrained = match retrained.and_then(|spread| spread.deviation) {
            Some(deviation) => {
                format!("{} ± {}", number(retrained.map(|s| s.mean), false), number(Some(deviation), false))
            }
            None => number(retrained.map(|spread| spread.mean), false),
        };
        println!(
            "{:<36}{:>10}{:>10}{retrained:>20}{:>12}{:>11}",
            [measure.name, measure.unit].join(if measure.unit.is_empty() { "" } else { ", " }),
            of(&found.before),
            of(&found.after),
            number(found.gap(measure, &found.before), true),
            number(found.gap(measure, &found.after), true),
        );
        defined.push(measure);
    }
    println!();
    for measure in defined {
        println!("{}: {}", measure.name, measure.text);
    }
    println!();
    notes.iter().for_each(|note| println!("note: {note}"));
    for finding in &found.findings {
        let word = match finding.flag {
            Flag::Remembers => "REMEMBERS    ",
            Flag::OverForgets => "OVER-FORGETS ",
            Flag::Uneven => "UNEVEN       ",
            Flag::Damaged => "DAMAGED      ",
        };
        println!("{word}{}", finding.text);
    }
    if found.findings.is_empty() {
        println!(
            "no flag: by membership, rank and accuracy the model after is within what retrained models show"
        );
    }
}
