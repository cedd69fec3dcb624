//! Flags: what is wrong with a model, by its measures and those of retrained models.

use serde::Serialize;

use super::measures::{MEASURES, Row, Spread, spread};

/// What is wrong with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flag {
    /// The forgotten samples still look like members.
    Remembers,
    /// They look less like members than samples that were never seen.
    OverForgets,
    /// Some of them look more and others less like members than they should, which the means hide.
    Uneven,
    /// Retained or test accuracy is lost.
    Damaged,
}

/// A flag, the measure that raised it, and the numbers in words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub flag: Flag,
    /// The measure that raised it.
    pub measure: &'static str,
    /// The numbers.
    pub text: String,
}

/// A flag by one measure: raised where a model differs from the references' mean by more than `least` and by more than
/// three of their standard deviations.
struct Rule {
    measure: &'static str,
    least: f64,
    above: Option<Flag>,
    below: Option<Flag>,
    /// The mean to compare with where there is only one reference.
    single: f64,
}

/// The rules; both directions have the same margins.
#[rustfmt::skip]
const RULES: [Rule; 8] = {
    use Flag::{Damaged, OverForgets, Remembers, Uneven};
    [
        Rule { measure: "auc", least: 0.05, above: Some(Remembers), below: Some(OverForgets), single: 0.5 },
        Rule { measure: "likelihood_auc", least: 0.05, above: Some(Remembers), below: Some(OverForgets), single: 0.5 },
        Rule { measure: "rank", least: 30.0, above: Some(OverForgets), below: Some(Remembers), single: 50.0 },
        Rule { measure: "rank_lowest", least: 0.25, above: Some(Remembers), below: None, single: 0.5 },
        Rule { measure: "rank_highest", least: 0.25, above: Some(OverForgets), below: None, single: 0.5 },
        Rule { measure: "rank_beyond", least: 0.25, above: Some(Uneven), below: None, single: 1.0 },
        Rule { measure: "retain_accuracy", least: 0.01, above: None, below: Some(Damaged), single: 1.0 },
        Rule { measure: "test_accuracy", least: 0.01, above: None, below: Some(Damaged), single: 1.0 },
    ]
};

/// The flags of a model.
pub(super) fn findings(row: &Row, references: &[Row]) -> Vec<Finding> {
    let finding = |rule: &Rule| {
        let measure = MEASURES.iter().find(|measure| measure.key == rule.measure)?;
        let ours = (measure.of)(row)?;
        let single = Spread { mean: rule.single, deviation: None };
        let theirs = spread(references, measure.of).unwrap_or(single);
        let margin = (3.0 * theirs.deviation.unwrap_or(0.0)).max(rule.least);
        let flag = match ours - theirs.mean {
            gap if gap > margin => rule.above?,
            gap if gap < -margin => rule.below?,
            _ => return None,
        };
        let words = match flag {
            Flag::Remembers => {
                "the forgotten samples are more familiar to it than to models that never saw them"
            }
            Flag::OverForgets => {
                "the forgotten samples are less familiar to it than to models that never saw them"
            }
            Flag::Uneven => "it remembers some of the forgotten samples and over-forgets others",
            Flag::Damaged => "the rest has suffered",
        };
        let number = |value: f64| format!("{:.*}", measure.digits, measure.scale * value);
        let spread = theirs.deviation.map_or(String::new(), |deviation| format!(" ± {}", number(deviation)));
        let unit = if measure.unit.is_empty() { String::new() } else { format!(" {}", measure.unit) };
        let text = format!(
            "{} {}{unit}, retrained {}{spread}{unit}: {words}",
            measure.name,
            number(ours),
            number(theirs.mean)
        );
        Some(Finding { flag, measure: measure.key, text })
    };
    let mut found: Vec<Finding> = RULES.iter().filter_map(finding).collect();
    // Losses beyond the references on one side only raise that side's flag.
    let sides = found.iter().any(|one| one.measure.starts_with("rank") && one.flag != Flag::Uneven);
    found.retain(|one| one.flag != Flag::Uneven || !sides);
    found
}
