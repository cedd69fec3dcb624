//! Labelled text as tokens: `input_ids` and `attention_mask` of a .safetensors file, beside the labels `y`.
//!
//! One input is `2 t` words: t token ids, then t words of mask, 1 where the token is attended. A network reads inputs as
//! f32, so the words stand there as bits ([`f32::from_bits`]), which copies leave as they are.

use std::ops::Range;
use std::path::Path;

use super::tensors::TensorFile;
use super::{Inputs, Labels};
use crate::ops::Shape;
use crate::ops::tokens::Tokens;
use crate::{Error, Result};

/// What one input of a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// An image, normalised, NHWC.
    Image(Shape),
    /// A sequence of this many tokens, and its mask.
    Text {
        /// t.
        tokens: usize,
    },
}

impl InputKind {
    /// The shape that inputs have in memory: the image's, or 2 rows of t words.
    pub fn shape(self) -> Shape {
        match self {
            InputKind::Image(shape) => shape,
            InputKind::Text { tokens } => Shape::new(2, tokens, 1),
        }
    }
}

/// Labelled sequences of tokens in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// t, the length of every sequence.
    pub tokens: usize,
    /// Token ids and masks, `[n, 2, t]`.
    pub x: Vec<u32>,
    /// `[n]`.
    pub y: Labels,
}

impl Text {
    /// What one input is.
    pub fn kind(&self) -> InputKind {
        InputKind::Text { tokens: self.tokens }
    }

    /// Sequence `i`.
    pub fn tokens_of(&self, i: usize) -> Tokens<'_> {
        let (ids, mask) = self.x[2 * self.tokens * i..2 * self.tokens * (i + 1)].split_at(self.tokens);
        Tokens { ids, mask }
    }

    /// The sequences at these indices, in this order.
    pub fn subset(&self, indices: &[usize]) -> Text {
        let words = |&i: &usize| &self.x[2 * self.tokens * i..2 * self.tokens * (i + 1)];
        let x = indices.iter().flat_map(words).copied().collect();
        Text { tokens: self.tokens, x, y: self.y.subset(indices) }
    }

    /// Refuses sequences that a network cannot take: longer than its positions, or with an id beyond its vocabulary.
    ///
    /// # Errors
    /// Where there is one; the message names the sample and the position.
    pub fn check(&self, path: &Path, vocabulary: usize, positions: usize) -> Result<()> {
        if self.tokens > positions {
            return Err(Error::record(
                path,
                "tensor `input_ids`",
                format!("has rows of {} tokens, and the model has positions for {positions}", self.tokens),
            ));
        }
        for row in 0..self.y.len() {
            let ids = self.tokens_of(row).ids;
            if let Some(at) = ids.iter().position(|&id| id as usize >= vocabulary) {
                let reason = format!("{} is beyond the vocabulary of {vocabulary}", ids[at]);
                return Err(Error::record(path, place("input_ids", row, at), reason));
            }
        }
        Ok(())
    }
}

impl Inputs for Text {
    fn label_width(&self) -> usize {
        self.y.width()
    }

    fn len(&self) -> usize {
        self.y.len()
    }

    fn shape(&self) -> Shape {
        self.kind().shape()
    }

    /// `y` is `[range.len(), width]`.
    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) {
        y.copy_from_slice(self.y.part(range.clone()));
        let words = &self.x[2 * self.tokens * range.start..2 * self.tokens * range.end];
        x.iter_mut().zip(words).for_each(|(x, &word)| *x = f32::from_bits(word));
    }
}

fn place(tensor: &str, row: usize, at: usize) -> String {
    format!("tensor `{tensor}`, sample {row}, position {at}")
}

/// Reads labelled text: `input_ids` `[n, t]` and `attention_mask` `[n, t]` of integers, and `y` `[n]` of classes or
/// `[n, labels]` of 0 and 1. Whether the ids fit a vocabulary is for [`Text::check`].
///
/// # Errors
/// Where a tensor is missing or of another shape or type, an id is negative, a mask is neither 0 nor 1, a sample has no
/// attended token, or there are no samples; the message names file, tensor and sample.
pub fn read_text(path: &Path) -> Result<Text> {
    let file = TensorFile::open(path)?;
    let refuse = |tensor: &str, reason: String| Error::record(path, format!("tensor `{tensor}`"), reason);
    let &[n, tokens] = file.shape("input_ids")? else {
        let found = file.shape("input_ids")?;
        return Err(refuse("input_ids", format!("has shape {found:?}, where [n, tokens] was expected")));
    };
    if n == 0 || tokens == 0 {
        return Err(refuse("input_ids", format!("has shape [{n}, {tokens}]: no tokens")));
    }
    let shape = file.shape("attention_mask")?;
    if shape != [n, tokens] {
        let reason = format!("has shape {shape:?}, where [{n}, {tokens}] was expected, as `input_ids` has");
        return Err(refuse("attention_mask", reason));
    }
    let read = |tensor: &str, most: u32, expected: &str| -> Result<Vec<u32>> {
        let word = |(i, v): (usize, i64)| match u32::try_from(v) {
            Ok(word) if word <= most => Ok(word),
            _ => {
                Err(Error::record(path, place(tensor, i / tokens, i % tokens), format!("{v} is {expected}")))
            }
        };
        file.integers(tensor)?.into_iter().enumerate().map(word).collect()
    };
    let ids = read("input_ids", u32::MAX, "no token id")?;
    let mask = read("attention_mask", 1, "neither 0 nor 1")?;
    if let Some(row) = mask.chunks_exact(tokens).position(|mask| mask.iter().all(|&word| word == 0)) {
        return Err(Error::record(
            path,
            format!("tensor `attention_mask`, sample {row}"),
            "has no attended token",
        ));
    }
    let rows = ids.chunks_exact(tokens).zip(mask.chunks_exact(tokens));
    let x = rows.flat_map(|(ids, mask)| ids.iter().chain(mask)).copied().collect();
    Ok(Text { tokens, x, y: Labels::read(&file, n)? })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::tensors::{Tensor, Values, write};
    use super::*;

    /// A file of two samples of three tokens, in which one tensor is replaced, or left out where it is empty.
    fn read(replaced: &str, shape: &[usize], values: &[i64]) -> Result<Text> {
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
        read_text(&path)
    }

    #[test]
    fn ids_masks_and_labels_are_read() {
        let text = read("", &[], &[]).unwrap();
        assert_eq!(text.kind().shape(), Shape::new(2, 3, 1));
        assert_eq!(text.x, [7, 8, 9, 1, 1, 1, 7, 5, 0, 1, 1, 0]);
        assert_eq!(text.y, Labels::Classes(vec![4, 0]));
        assert_eq!((text.tokens_of(1).ids, text.tokens_of(1).mask), (&[7, 5, 0][..], &[1, 1, 0][..]));
        assert_eq!(text.subset(&[1]).x, text.x[6..]);
        let rows = read("y", &[2, 2], &[1, 0, 0, 1]).unwrap();
        let (mut x, mut y) = ([f32::NAN; 6], [9; 2]);
        rows.fill(&mut x, &mut y, 1..2);
        assert_eq!((x.map(f32::to_bits), y), ([7, 5, 0, 1, 1, 0], [0, 1]));
        let (path, fits) = (Path::new("d"), |vocabulary, positions| (vocabulary, positions));
        assert!([fits(10, 3), fits(100, 8)].into_iter().all(|(v, p)| text.check(path, v, p).is_ok()));
    }

    #[test]
    fn faults_name_file_tensor_and_sample() {
        let refused = |result: Result<Text>, words: &[&str]| {
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
        let text = read("", &[], &[]).unwrap();
        let error = |vocabulary, positions| {
            text.check(Path::new("d.st"), vocabulary, positions).unwrap_err().to_string()
        };
        assert_eq!(
            error(9, 3),
            "d.st: tensor `input_ids`, sample 0, position 2: 9 is beyond the vocabulary of 9"
        );
        assert!(error(10, 2).contains("positions for 2"), "{}", error(10, 2));
    }

    #[test]
    fn floats_are_no_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.safetensors");
        let tensors = [
            Tensor { name: "input_ids", shape: vec![1, 1], values: Values::F32(&[1.0]) },
            Tensor { name: "attention_mask", shape: vec![1, 1], values: Values::I64(&[1]) },
            Tensor { name: "y", shape: vec![1], values: Values::I64(&[0]) },
        ];
        write(&path, &tensors, HashMap::new()).unwrap();
        let text = read_text(&path).unwrap_err().to_string();
        assert!(text.contains("`input_ids`") && text.contains("integers were expected"), "{text}");
    }
}
