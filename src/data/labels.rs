//! The labels of a set of samples: a class each, or a row of 0 and 1.
//!
//! A sample's labels are `width` words, the form in which [`Loss`] takes them: a class number, or a 0 or 1 per label. So a
//! chunk's labels are one slice for both kinds, on the CPU and on a GPU.

use std::ops::Range;

use super::tensors::TensorFile;
use crate::error::{Error, Result};
use crate::loss::Loss;

/// The labels of `n` samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// One class each, `[n]`.
    Classes(Vec<u32>),
    /// A 0 or 1 for each of several labels.
    Multi {
        /// How many labels, at least one.
        labels: usize,
        /// `[n, labels]`.
        rows: Vec<u32>,
    },
}

impl From<Vec<u32>> for Labels {
    fn from(classes: Vec<u32>) -> Labels {
        Labels::Classes(classes)
    }
}

impl FromIterator<u32> for Labels {
    fn from_iter<T: IntoIterator<Item = u32>>(classes: T) -> Labels {
        Labels::Classes(classes.into_iter().collect())
    }
}

impl Labels {
    /// Reads the tensor of this name of a file with `n` samples: `[n]` or `[n, 1]` whole numbers are classes, `[n, labels]` of 0 and 1
    /// are rows.
    ///
    /// # Errors
    /// Where the shape is another or an element is not such a label; the message names the file and the sample.
    pub fn read(file: &TensorFile, name: &str, n: usize) -> Result<Labels> {
        let shape = file.shape(name)?;
        let refuse = |reason: String| Error::record(file.path(), format!("tensor `{name}`"), reason);
        match *shape {
            [len] | [len, 1] if len == n => {
                Ok(Labels::Classes(whole(file, name, u32::MAX, |i| format!("sample {i}"))?))
            }
            [len, labels] if len == n && labels > 0 => {
                let at = |i: usize| format!("sample {}, label {}", i / labels, i % labels);
                Ok(Labels::Multi { labels, rows: whole(file, name, 1, at)? })
            }
            _ => Err(refuse(format!(
                "has shape {shape:?}, where [{n}] of classes or [{n}, labels] of 0 and 1 was expected"
            ))),
        }
    }

    /// How many samples have them.
    pub fn len(&self) -> usize {
        self.words().len() / self.width()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.words().is_empty()
    }

    /// Words per sample: 1, or one per label.
    pub fn width(&self) -> usize {
        match self {
            Labels::Classes(_) => 1,
            Labels::Multi { labels, .. } => *labels,
        }
    }

    /// All of them, `[n, width]`.
    pub fn words(&self) -> &[u32] {
        match self {
            Labels::Classes(classes) => classes,
            Labels::Multi { rows, .. } => rows,
        }
    }

    /// All of them, to be changed. What a network does not take is refused where it is used.
    pub fn words_mut(&mut self) -> &mut [u32] {
        match self {
            Labels::Classes(classes) => classes,
            Labels::Multi { rows, .. } => rows,
        }
    }

    /// Those of the samples in `range`, `[range.len(), width]`.
    pub fn part(&self, range: Range<usize>) -> &[u32] {
        &self.words()[range.start * self.width()..range.end * self.width()]
    }

    /// Those of sample `i`, `[width]`.
    pub fn of(&self, i: usize) -> &[u32] {
        self.part(i..i + 1)
    }

    /// Those of the samples at these indices, in this order.
    pub fn subset(&self, indices: &[usize]) -> Labels {
        let words = indices.iter().flat_map(|&i| self.of(i)).copied().collect();
        match self {
            Labels::Classes(_) => Labels::Classes(words),
            Labels::Multi { labels, .. } => Labels::Multi { labels: *labels, rows: words },
        }
    }

    /// The class of sample `i`; none where samples have several labels.
    pub fn class_of(&self, i: usize) -> Option<u32> {
        match self {
            Labels::Classes(classes) => classes.get(i).copied(),
            Labels::Multi { .. } => None,
        }
    }

    /// Whether sample `i` is of this class, or has this label.
    pub fn has(&self, i: usize, class: u32) -> bool {
        match self {
            Labels::Classes(classes) => classes[i] == class,
            Labels::Multi { .. } => self.of(i).get(class as usize) == Some(&1),
        }
    }

    /// The least number of outputs a network for these labels has: one more than the largest class, or one per label.
    pub fn outputs(&self) -> usize {
        match self {
            Labels::Classes(classes) => classes.iter().max().map_or(0, |&last| last as usize + 1),
            Labels::Multi { labels, .. } => *labels,
        }
    }

    /// Appends the labels of further samples.
    ///
    /// # Errors
    /// Where they are of the other kind, or of another number of labels.
    pub fn extend(&mut self, more: &Labels) -> Result<()> {
        match (&mut *self, more) {
            (Labels::Classes(words), Labels::Classes(more)) => words.extend(more),
            (Labels::Multi { labels, rows }, Labels::Multi { labels: other, rows: more })
                if labels == other =>
            {
                rows.extend(more);
            }
            (Labels::Classes(_) | Labels::Multi { .. }, Labels::Classes(_) | Labels::Multi { .. }) => {
                let (found, expected) = (more.kind(), self.kind());
                return Err(Error::config(format!("{found} cannot be put after {expected}")));
            }
        }
        Ok(())
    }

    /// Refuses labels that do not fit a network with this loss and this number of outputs. The message names the
    /// sample; the first of these is sample `first`.
    ///
    /// # Errors
    /// Where the kind does not fit the loss, or a label does not fit the outputs.
    pub fn check(&self, loss: Loss, classes: usize, first: usize) -> Result<()> {
        match (self, loss) {
            (Labels::Multi { labels, .. }, Loss::BinaryCrossEntropy) if *labels != classes => {
                Err(Error::config(format!(
                    "the samples have {labels} labels each, but the model has {classes} outputs"
                )))
            }
            (Labels::Classes(words), Loss::CrossEntropy { .. })
            | (Labels::Multi { rows: words, .. }, Loss::BinaryCrossEntropy) => {
                check_words(words, loss, classes, first)
            }
            // A model of one label takes [n, 1] of 0 and 1, which were read as classes.
            (Labels::Classes(words), Loss::BinaryCrossEntropy) if classes == 1 => {
                check_words(words, loss, classes, first)
            }
            (Labels::Classes(_), Loss::BinaryCrossEntropy) => Err(Error::config(format!(
                "the samples have one class each, but the model has {classes} labels; give y as [n, {classes}] of 0 and 1"
            ))),
            (Labels::Multi { labels, .. }, Loss::CrossEntropy { .. }) => Err(Error::config(format!(
                "the samples have {labels} labels each, but the model has one of {classes} classes; give y as [n]"
            ))),
        }
    }

    fn kind(&self) -> String {
        match self {
            Labels::Classes(_) => "classes".into(),
            Labels::Multi { labels, .. } => format!("rows of {labels} labels"),
        }
    }
}

/// Refuses label words `[n, width]` out of range: the check of a chunk. The message names the sample; the first of these is
/// sample `first`.
///
/// # Errors
/// Where a word is no class below `classes`, or neither 0 nor 1.
pub fn check_words(words: &[u32], loss: Loss, classes: usize, first: usize) -> Result<()> {
    match loss {
        Loss::CrossEntropy { .. } => match words.iter().position(|&label| label as usize >= classes) {
            Some(i) => {
                let (sample, label) = (first + i, words[i]);
                Err(Error::config(format!(
                    "sample {sample} has label {label}, classes are 0 to {}",
                    classes.saturating_sub(1)
                )))
            }
            None => Ok(()),
        },
        Loss::BinaryCrossEntropy => match words.iter().position(|&word| word > 1) {
            Some(i) => Err(Error::config(format!(
                "sample {} has {} for label {}, where 0 or 1 was expected",
                first + i / classes.max(1),
                words[i],
                i % classes.max(1)
            ))),
            None => Ok(()),
        },
    }
}

/// A tensor as whole numbers up to `most`; `at` says where element i is.
fn whole(file: &TensorFile, name: &str, most: u32, at: impl Fn(usize) -> String) -> Result<Vec<u32>> {
    let refuse = |i: usize, found: String| {
        let expected =
            if most == 1 { "is neither 0 nor 1" } else { "is no class: a whole number from 0 was expected" };
        Error::record(file.path(), format!("tensor `{name}`, {}", at(i)), format!("{found} {expected}"))
    };
    if file.is_float(name)? {
        let label = |(i, v): (usize, f64)| match v >= 0.0 && v <= f64::from(most) && v.fract() == 0.0 {
            true => Ok(v as u32),
            false => Err(refuse(i, v.to_string())),
        };
        return file.f64(name)?.into_iter().enumerate().map(label).collect();
    }
    let label = |(i, v): (usize, i64)| match u32::try_from(v) {
        Ok(label) if label <= most => Ok(label),
        _ => Err(refuse(i, v.to_string())),
    };
    file.integers(name)?.into_iter().enumerate().map(label).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::tensors::{Tensor, Values, write};
    use super::*;

    fn read(shape: &[usize], values: Values, n: usize) -> Result<Labels> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.safetensors");
        write(&path, &[Tensor { name: "y", shape: shape.to_vec(), values }], HashMap::new()).unwrap();
        Labels::read(&TensorFile::open(&path).unwrap(), "y", n)
    }

    #[test]
    fn classes_and_rows_are_read_from_integers_and_floats() {
        assert_eq!(read(&[2], Values::I64(&[3, 0]), 2).unwrap(), Labels::Classes(vec![3, 0]));
        assert_eq!(read(&[2], Values::F32(&[3.0, 0.0]), 2).unwrap(), Labels::Classes(vec![3, 0]));
        assert_eq!(read(&[2, 1], Values::I64(&[3, 0]), 2).unwrap(), Labels::Classes(vec![3, 0]));
        let rows = Labels::Multi { labels: 2, rows: vec![1, 0, 1, 1] };
        assert_eq!(read(&[2, 2], Values::I64(&[1, 0, 1, 1]), 2).unwrap(), rows);
        assert_eq!(read(&[2, 2], Values::F32(&[1.0, 0.0, 1.0, 1.0]), 2).unwrap(), rows);
    }

    #[test]
    fn what_is_no_label_is_named() {
        let refused = |result: Result<Labels>, words: &[&str]| {
            let text = result.unwrap_err().to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        refused(read(&[2], Values::I64(&[3, -1]), 2), &["d.safetensors", "sample 1", "-1 is no class"]);
        refused(read(&[2], Values::F32(&[0.5, 0.0]), 2), &["sample 0", "0.5 is no class"]);
        refused(read(&[2, 2], Values::I64(&[1, 0, 1, 2]), 2), &["sample 1, label 1", "neither 0 nor 1"]);
        refused(read(&[2, 2], Values::F32(&[1.0, 0.5, 1.0, 1.0]), 2), &["sample 0, label 1", "0.5"]);
        refused(read(&[3], Values::I64(&[0, 1, 2]), 2), &["shape [3]", "[2]"]);
        refused(read(&[2, 0], Values::I64(&[]), 2), &["shape [2, 0]"]);
    }

    #[test]
    fn parts_and_subsets_keep_rows_whole() {
        let rows = Labels::Multi { labels: 2, rows: vec![1, 0, 0, 1, 1, 1] };
        assert_eq!((rows.len(), rows.width(), rows.outputs()), (3, 2, 2));
        assert_eq!(rows.part(1..3), [0, 1, 1, 1]);
        assert_eq!(rows.subset(&[2, 0]), Labels::Multi { labels: 2, rows: vec![1, 1, 1, 0] });
        assert!(rows.has(0, 0) && !rows.has(0, 1) && !rows.has(0, 2));
        assert_eq!(rows.class_of(0), None);
        let mut classes = Labels::Classes(vec![4, 1]);
        assert_eq!((classes.len(), classes.outputs(), classes.class_of(0)), (2, 5, Some(4)));
        assert!(classes.has(1, 1) && !classes.has(0, 1));
        classes.extend(&Labels::Classes(vec![7])).unwrap();
        assert_eq!(classes.words(), [4, 1, 7]);
        assert!(classes.extend(&rows).is_err());
    }

    #[test]
    fn labels_must_fit_the_loss_and_the_outputs() {
        let (classes, soft) = (Labels::Classes(vec![0, 2]), Loss::CrossEntropy { smoothing: 0.1 });
        let rows = Labels::Multi { labels: 2, rows: vec![1, 0, 0, 1] };
        assert!(classes.check(soft, 3, 0).is_ok() && rows.check(Loss::BinaryCrossEntropy, 2, 0).is_ok());
        let refused = |result: Result<()>, word: &str| {
            let text = result.unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        };
        refused(classes.check(soft, 2, 10), "sample 11 has label 2");
        refused(classes.check(Loss::BinaryCrossEntropy, 3, 0), "one class each");
        refused(rows.check(soft, 2, 0), "one of 2 classes");
        refused(rows.check(Loss::BinaryCrossEntropy, 3, 0), "2 labels each, but the model has 3 outputs");
        let wrong = Labels::Multi { labels: 2, rows: vec![1, 0, 0, 7] };
        refused(wrong.check(Loss::BinaryCrossEntropy, 2, 5), "sample 6 has 7 for label 1");
    }
}
