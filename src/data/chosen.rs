//! Chosen samples as a user reads them: how many, and the first few with their names and classes.

use serde::Serialize;

use super::{Labels, Names};

/// How many are shown.
const FEW: usize = 5;

/// A chosen sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its index.
    pub index: usize,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// The name of its class, else its number; of several labels, those that it has.
    pub class: String,
}

/// The first few of some samples.
pub fn shown(chosen: &[usize], labels: &Labels, names: &Names) -> Vec<Shown> {
    first_shown(FEW, chosen, labels, names)
}

/// The first `most` of some samples.
pub fn first_shown(most: usize, chosen: &[usize], labels: &Labels, names: &Names) -> Vec<Shown> {
    let class = |number: u32| match names.classes.as_ref().and_then(|all| all.get(number as usize)) {
        Some(name) => name.clone(),
        None => number.to_string(),
    };
    let one = |&index: &usize| {
        let classes: Vec<String> = match labels.class_of(index) {
            Some(number) => vec![class(number)],
            None => (0..labels.width() as u32).filter(|&label| labels.has(index, label)).map(class).collect(),
        };
        let name = names.samples.as_ref().and_then(|all| all.get(index).cloned());
        Shown { index, name, class: classes.join(", ") }
    };
    chosen.iter().take(most).map(one).collect()
}

/// How many samples are chosen of how many, and the first few, a line each.
pub fn listing(chosen: &[usize], labels: &Labels, names: &Names) -> String {
    let samples = if chosen.len() == 1 { "sample" } else { "samples" };
    let mut text = format!("{} {samples} of {}", chosen.len(), labels.len());
    for Shown { index, name, class } in shown(chosen, labels, names) {
        let name = name.map_or(String::new(), |name| format!("  {name}"));
        text.push_str(&format!("\n  {index:>7}  {class}{name}"));
    }
    if chosen.len() > FEW {
        text.push_str("\n       ..");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_are_listed_with_names_and_classes() {
        let words = |text: &str| Some(text.split(' ').map(String::from).collect::<Vec<_>>());
        let names = Names { classes: words("ham spam"), samples: words("a b c d e f g"), columns: vec![] };
        let labels = Labels::from(vec![0, 1, 0, 1, 0, 2, 0]);
        let text = listing(&[0, 1, 5], &labels, &names);
        assert_eq!(text, "3 samples of 7\n        0  ham  a\n        1  spam  b\n        5  2  f");
        let none = Names::default();
        assert_eq!(listing(&[1], &labels, &none), "1 sample of 7\n        1  1");
        assert!(listing(&[0, 1, 2, 3, 4, 5], &labels, &names).ends_with("4  ham  e\n       .."));
        let several = Labels::Multi { labels: 2, rows: vec![1, 1, 0, 0] };
        let classes: Vec<String> =
            shown(&[0, 1], &several, &names).into_iter().map(|one| one.class).collect();
        assert_eq!(classes, ["ham, spam", ""]);
    }
}
