//! Labelled texts as tokens: `input_ids` and `attention_mask` of a .safetensors file, beside the labels `y`.

use std::path::Path;

use super::tensors::TensorFile;
use super::{InputKind, Labels, Samples};
use crate::error::{Error, Result};

/// The tensor whose presence tells a file of texts.
pub(super) const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const TYPES: &str = "token_type_ids";

fn place(tensor: &str, row: usize, at: usize) -> String {
    format!("tensor `{tensor}`, sample {row}, position {at}")
}

/// Refuses the texts of a file where an id is beyond a network's vocabulary. Images have none.
///
/// # Errors
/// Where there is one; the message names the sample and the position.
pub fn check_ids(path: &Path, samples: &Samples, vocabulary: usize) -> Result<()> {
    for row in 0..samples.y.len() {
        let Some(text) = samples.text(row) else { return Ok(()) };
        if let Some(at) = text.ids.iter().position(|&id| id as usize >= vocabulary) {
            let reason = format!("{} is beyond the vocabulary of {vocabulary}", text.ids[at]);
            return Err(Error::record(path, place(IDS, row, at), reason));
        }
    }
    Ok(())
}

/// Reads labelled texts: `input_ids` `[n, t]` and `attention_mask` `[n, t]` of integers, and `y` `[n]` of classes or
/// `[n, labels]` of 0 and 1. Whether the ids fit a vocabulary is for [`check_ids`].
///
/// # Errors
/// Where a tensor is missing or of another shape or type, an id is negative, a mask is neither 0 nor 1, a sample has no
/// attended token or a type other than 0, or there are no samples; the message names file, tensor and sample.
pub(super) fn read(file: &TensorFile) -> Result<Samples> {
    let path = file.path();
    let refuse = |tensor: &str, reason: String| Error::record(path, format!("tensor `{tensor}`"), reason);
    let &[n, tokens] = file.shape(IDS)? else {
        let found = file.shape(IDS)?;
        return Err(refuse(IDS, format!("has shape {found:?}, where [n, tokens] was expected")));
    };
    if n == 0 || tokens == 0 {
        return Err(refuse(IDS, format!("has shape [{n}, {tokens}]: no tokens")));
    }
    let shape = file.shape(MASK)?;
    if shape != [n, tokens] {
        let reason = format!("has shape {shape:?}, where [{n}, {tokens}] was expected, as `{IDS}` has");
        return Err(refuse(MASK, reason));
    }
    let words = |tensor: &str, most: u32, expected: &str| -> Result<Vec<u32>> {
        let word = |(i, v): (usize, i64)| match u32::try_from(v) {
            Ok(word) if word <= most => Ok(word),
            _ => {
                Err(Error::record(path, place(tensor, i / tokens, i % tokens), format!("{v} is {expected}")))
            }
        };
        file.integers(tensor)?.into_iter().enumerate().map(word).collect()
    };
    let (ids, mask) = (words(IDS, u32::MAX, "no token id")?, words(MASK, 1, "neither 0 nor 1")?);
    if let Some(row) = mask.chunks_exact(tokens).position(|mask| mask.iter().all(|&word| word == 0)) {
        return Err(Error::record(path, format!("tensor `{MASK}`, sample {row}"), "has no attended token"));
    }
    if file.has(TYPES)
        && let Some(i) = file.integers(TYPES)?.into_iter().position(|kind| kind != 0)
    {
        let reason = "is not 0; texts of several token types are not read here";
        return Err(Error::record(path, place(TYPES, i / tokens, i % tokens), reason));
    }
    Ok(Samples {
        kind: InputKind::Text { tokens },
        x: rows(&ids, &mask, tokens),
        y: Labels::read(file, "y", n)?,
        stream: None,
    })
}

/// The words of texts as [`Samples::x`] has them: of each its ids, then its mask.
fn rows(ids: &[u32], mask: &[u32], tokens: usize) -> Vec<f32> {
    let rows = ids.chunks_exact(tokens).zip(mask.chunks_exact(tokens));
    rows.flat_map(|(ids, mask)| ids.iter().chain(mask)).map(|&word| f32::from_bits(word)).collect()
}

/// Pads the texts of several sets on the right to the longest of all, so that one network reads them; images stay as they
/// are. Where the mask is 0 the id is 0.
pub fn pad_alike(sets: &mut [&mut Samples]) {
    let of = |set: &Samples| match set.kind {
        InputKind::Text { tokens } => tokens,
        InputKind::Image(_) => 0,
    };
    let longest = sets.iter().map(|set| of(set)).max().unwrap_or(0);
    sets.iter_mut().for_each(|set| set.pad(longest));
}

impl Samples {
    /// Pads texts on the right to this many tokens; longer ones and images stay as they are. Where the mask is 0 the id is 0.
    pub fn pad(&mut self, tokens: usize) {
        let InputKind::Text { tokens: own } = self.kind else { return };
        if own >= tokens {
            return;
        }
        let padding = vec![0.0; tokens - own];
        let parts = self.x.chunks_exact(own).flat_map(|part| [part, padding.as_slice()]); // ids, mask, ids, ..
        self.x = parts.collect::<Vec<_>>().concat();
        self.kind = InputKind::Text { tokens };
    }

    /// Texts in memory, of this many tokens each: token ids `[n, tokens]`, their mask, which is 1 where a token is attended,
    /// and labels. Whether the ids fit a vocabulary is checked where a network runs on them.
    ///
    /// # Errors
    /// Where there are none, lengths do not fit each other, a mask is neither 0 nor 1, or a text has no attended token; the
    /// message names the sample.
    pub fn of_texts(ids: &[u32], mask: &[u32], tokens: usize, y: Labels) -> Result<Samples> {
        let n = y.len();
        let expected = n.checked_mul(tokens).filter(|&len| len > 0);
        if expected != Some(ids.len()) || expected != Some(mask.len()) {
            let found = format!("{} ids and {} words of mask", ids.len(), mask.len());
            return Err(Error::shape("texts", format!("[{n}, {tokens}], not empty, of both"), found));
        }
        if let Some(i) = mask.iter().position(|&word| word > 1) {
            let (row, at) = (i / tokens, i % tokens);
            let reason = format!("the mask at position {at} is {}, neither 0 nor 1", mask[i]);
            return Err(Error::config(format!("sample {row}: {reason}")));
        }
        if let Some(row) = mask.chunks_exact(tokens).position(|mask| mask.iter().all(|&word| word == 0)) {
            return Err(Error::config(format!("sample {row} has no attended token")));
        }
        Ok(Samples { kind: InputKind::Text { tokens }, x: rows(ids, mask, tokens), y, stream: None })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::tensors::{Tensor, Values, write};
    use super::super::{Inputs, load};
    use super::*;
    use crate::ops::Shape;

    /// A file of two samples of three tokens, in which one tensor is replaced, or left out where it is empty.
    fn read(replaced: &str, shape: &[usize], values: &[i64]) -> Result<Samples> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.safetensors");
        let good: [(&str, &[usize], &[i64]); 3] = [
            ("input_ids", &[2, 3], &[7, 8, 9, 7, 5, 0]),
            ("attention_mask", &[2, 3], &[1, 1, 1, 1, 1, 0]),
            ("y", &[2], &[4, 0]),
        ];
        let mut tensors = vec![];
        for (name, of, own) in good {
            let (shape, values) = if name == replaced { (shape, values) } else { (of, own) };
            if !shape.is_empty() {
                tensors.push(Tensor { name, shape: shape.to_vec(), values: Values::I64(values) });
            }
        }
        write(&path, &tensors, HashMap::new()).unwrap();
        super::read(&TensorFile::open(&path)?)
    }

    fn words(x: &[f32]) -> Vec<u32> {
        x.iter().map(|word| word.to_bits()).collect()
    }

    #[test]
    fn ids_masks_and_labels_are_read() {
        let text = read("", &[], &[]).unwrap();
        assert_eq!((text.kind, text.shape()), (InputKind::Text { tokens: 3 }, Shape::new(2, 3, 1)));
        assert_eq!(words(&text.x), [7, 8, 9, 1, 1, 1, 7, 5, 0, 1, 1, 0]);
        assert_eq!(text.y, Labels::Classes(vec![4, 0]));
        let one = text.text(1).unwrap();
        assert_eq!((one.ids, one.mask), (&[7, 5, 0][..], &[1, 1, 0][..]));
        let (mut x, mut y) = ([f32::NAN; 6], [9; 1]);
        text.subset(&[1]).fill(&mut x, &mut y, 0..1).unwrap();
        assert_eq!((words(&x), y), (vec![7, 5, 0, 1, 1, 0], [0]));
        let rows = read("y", &[2, 2], &[1, 0, 0, 1]).unwrap();
        let (mut x, mut y) = ([f32::NAN; 6], [9; 2]);
        rows.fill(&mut x, &mut y, 1..2).unwrap();
        assert_eq!((words(&x), y), (vec![7, 5, 0, 1, 1, 0], [0, 1]));
        assert!(check_ids(Path::new("d"), &text, 10).is_ok());
    }

    #[test]
    fn texts_in_memory_are_those_of_a_file() {
        let (ids, mask) = ([7, 8, 9, 7, 5, 0], [1, 1, 1, 1, 1, 0]);
        assert_eq!(
            Samples::of_texts(&ids, &mask, 3, vec![4, 0].into()).unwrap(),
            read("", &[], &[]).unwrap()
        );
        let refused = |ids: &[u32], mask: &[u32], tokens| {
            Samples::of_texts(ids, mask, tokens, vec![4, 0].into()).unwrap_err().to_string()
        };
        assert!(refused(&ids[1..], &mask, 3).contains("5 ids"));
        assert!(refused(&[], &[], 0).contains("not empty"));
        assert!(refused(&ids, &[1, 1, 1, 2, 1, 0], 3).contains("sample 1: the mask at position 0 is 2"));
        assert!(refused(&ids, &[1, 1, 1, 0, 0, 0], 3).contains("sample 1 has no attended token"));
    }

    #[test]
    fn sets_are_padded_to_the_longest() {
        let mut short = Samples::of_texts(&[7, 8, 9], &[1, 1, 1], 1, vec![0, 1, 2].into()).unwrap();
        let mut long = read("", &[], &[]).unwrap();
        let before = long.clone();
        pad_alike(&mut [&mut short, &mut long]);
        assert_eq!((short.kind, &long), (InputKind::Text { tokens: 3 }, &before));
        assert_eq!(words(&short.x), [7, 0, 0, 1, 0, 0, 8, 0, 0, 1, 0, 0, 9, 0, 0, 1, 0, 0]);
        let one = short.text(1).unwrap();
        assert_eq!((one.ids, one.mask), (&[8, 0, 0][..], &[1, 0, 0][..]));
    }

    #[test]
    fn faults_name_file_tensor_and_sample() {
        let refused = |result: Result<Samples>, words: &[&str]| {
            let text = result.unwrap_err().to_string();
            assert!(words.iter().all(|word| text.contains(word)) && text.contains("d.safetensors"), "{text}");
        };
        refused(read("input_ids", &[], &[]), &["`input_ids`", "not in the file"]);
        refused(read("attention_mask", &[], &[]), &["`attention_mask`", "not in the file"]);
        refused(read("y", &[], &[]), &["`y`", "not in the file"]);
        refused(read("input_ids", &[6], &[0; 6]), &["`input_ids`", "[6]", "[n, tokens]"]);
        refused(read("input_ids", &[2, 0], &[]), &["no tokens"]);
        refused(
            read("input_ids", &[2, 3], &[7, 8, 9, 7, -5, 0]),
            &["sample 1, position 1", "-5 is no token id"],
        );
        refused(
            read("input_ids", &[2, 3], &[7, 8, 1 << 32, 7, 5, 0]),
            &["sample 0, position 2", "4294967296"],
        );
        refused(read("attention_mask", &[2, 2], &[1; 4]), &["`attention_mask`", "[2, 2]", "[2, 3]"]);
        refused(
            read("attention_mask", &[2, 3], &[1, 2, 1, 1, 1, 0]),
            &["sample 0, position 1", "2 is neither 0 nor 1"],
        );
        refused(read("attention_mask", &[2, 3], &[1, 1, 1, 0, 0, 0]), &["sample 1", "no attended token"]);
        refused(read("y", &[3], &[0; 3]), &["`y`", "shape [3]"]);
        let error = check_ids(Path::new("d.st"), &read("", &[], &[]).unwrap(), 9).unwrap_err().to_string();
        assert_eq!(error, "d.st: tensor `input_ids`, sample 0, position 2: 9 is beyond the vocabulary of 9");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.safetensors");
        let integers = |name| Tensor { name, shape: vec![1, 1], values: Values::I64(&[1]) };
        let floats = |name| Tensor { name, shape: vec![1, 1], values: Values::F32(&[1.0]) };
        let refused = |first: Tensor, normalise: &crate::data::Normalise, word: &str| {
            let y = Tensor { name: "y", shape: vec![1], values: Values::I64(&[0]) };
            write(&path, &[first, floats("x"), integers("attention_mask"), y], HashMap::new()).unwrap();
            let text = load(&path, normalise).unwrap_err().to_string();
            assert!(text.contains(word) && text.contains("d.safetensors"), "{text}");
        };
        refused(integers("input_ids"), &Default::default(), "both");
        let only = [
            floats("input_ids"),
            integers("attention_mask"),
            Tensor { name: "y", shape: vec![1], values: Values::I64(&[0]) },
        ];
        write(&path, &only, HashMap::new()).unwrap();
        let text = load(&path, &Default::default()).unwrap_err().to_string();
        assert!(text.contains("`input_ids`") && text.contains("integers were expected"), "{text}");
        let typed =
            [integers("input_ids"), integers("attention_mask"), integers("token_type_ids"), integers("y")];
        write(&path, &typed, HashMap::new()).unwrap();
        let text = load(&path, &Default::default()).unwrap_err().to_string();
        assert!(text.contains("`token_type_ids`, sample 0, position 0"), "{text}");
        let good = [integers("input_ids"), integers("attention_mask"), integers("y")];
        write(&path, &good, HashMap::new()).unwrap();
        let given = crate::data::Normalise { mean: Some(vec![0.5]), std: None };
        let text = load(&path, &given).unwrap_err().to_string();
        assert!(text.contains("--mean") && text.contains("texts"), "{text}");
    }
}
