//! Labels that are words, and the numbers of their classes.

use std::collections::BTreeSet;

use super::Labels;

/// The most labels that a sample is marked for.
const MOST: usize = 1 << 20;

/// A table of 0 and 1 that is made of lists of labels may have this many cells,
const CELLS: usize = 1 << 26;
/// and more where so large a part of them is 1. One label of a large number, or other words in every list, would fill the memory.
const FILLED: usize = 1000;

/// Refuses `labels` different labels of `samples` samples that have `marked` labels together, where nearly all cells would be 0.
///
/// # Errors
/// Where nearly all are missing everywhere, in words.
pub(super) fn check_count(labels: usize, samples: usize, marked: usize) -> Result<(), String> {
    match labels.saturating_mul(samples) <= marked.saturating_mul(FILLED).max(CELLS) {
        true => Ok(()),
        false => Err(format!(
            "has {labels} different labels for {samples} samples, which have {marked} together: nearly every row would be 0 alone; leave out labels that few samples have"
        )),
    }
}

/// A whole number; 7.0, as pandas writes it, is 7.
pub(super) fn whole(word: &str) -> Option<u32> {
    let fits = |value: &f64| value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(value);
    let float = || word.parse().ok().filter(fits);
    word.parse().ok().or_else(|| float().map(|value| value as u32))
}

/// Labels, and the names of their classes.
pub(super) type Named = (Labels, Option<Vec<String>>);

/// A sample, where it is one, and what is wrong.
pub(super) type Fault = (Option<usize>, String);

/// The labels of samples that have these words, and the names of the classes where words are no numbers: all whole numbers are
/// classes, others are numbered in the order of the sorted words. Where samples may have `several`, each word is a label.
///
/// # Errors
/// The sample without a label, where each has one; numbers that are no classes, as -1 and 0.5; more labels than can be
/// marked; the reason in words.
pub(super) fn labels(words: &[Vec<String>], several: bool) -> Result<Named, Fault> {
    if let Some(i) = words.iter().position(|words| words.len() != 1).filter(|_| !several) {
        return Err((Some(i), "has no label".into()));
    }
    let sorted: BTreeSet<&str> = words.iter().flatten().map(String::as_str).collect();
    let numbers: Option<Vec<u32>> = sorted.iter().map(|word| whole(word)).collect();
    if numbers.is_none() && sorted.iter().all(|word| word.parse::<f64>().is_ok()) {
        let bad = |words: &Vec<String>| words.iter().find(|word| whole(word).is_none()).cloned();
        let found = words.iter().enumerate().find_map(|(i, words)| Some((i, bad(words)?)));
        return Err(match found {
            Some((i, word)) => {
                let reason = format!(
                    "has the label {word}, which is no class: whole numbers from 0, or words, were expected"
                );
                (Some(i), reason)
            }
            None => (None, "has labels that are no classes".into()),
        });
    }
    let classes: Vec<&str> = sorted.into_iter().collect();
    let number = |word: &String| match &numbers {
        Some(_) => whole(word).unwrap_or(0),
        None => classes.binary_search(&word.as_str()).unwrap_or(0) as u32,
    };
    let names = numbers.is_none().then(|| classes.iter().map(ToString::to_string).collect());
    if !several {
        return Ok((words.iter().flatten().map(number).collect(), names));
    }
    let most = match &numbers {
        Some(numbers) => numbers.iter().max().map_or(0, |&most| most as usize + 1),
        None => classes.len(),
    };
    if !(1..=MOST).contains(&most) || most.checked_mul(words.len()).is_none() {
        return Err((None, format!("has {most} different labels, where 1 to {MOST} were expected")));
    }
    check_count(most, words.len(), words.iter().map(Vec::len).sum()).map_err(|reason| (None, reason))?;
    let mut rows = vec![0; most * words.len()];
    for (words, row) in words.iter().zip(rows.chunks_exact_mut(most)) {
        words.iter().for_each(|word| row[number(word) as usize] = 1);
    }
    Ok((Labels::Multi { labels: most, rows }, names))
}
