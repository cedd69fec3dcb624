//! Choosing samples: `7,12,100-149` (both ends included), `class:3`, `n:20@seed`, joined by commas, or a file of such
//! lines.

use std::path::Path;

use super::Labels;
use super::tensors;
use crate::ops::philox::{Stream, Use};
use crate::{Error, Result};

/// A choice of samples, not yet applied to a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Indices from one to another, both included.
    Range(usize, usize),
    /// Every sample of a class.
    Class(u32),
    /// A number of random samples, without replacement.
    Random(usize, u64),
}

impl Spec {
    /// Reads a choice; a text that names a file stands for the lines of that file.
    ///
    /// # Errors
    /// Where a part is not understood; the message names it.
    pub fn parse(text: &str) -> Result<Spec> {
        let path = Path::new(text);
        let lines = match path.is_file() {
            true => {
                let bytes = tensors::read(path)?;
                String::from_utf8(bytes).map_err(|_| Error::data(path, "is not text"))?
            }
            false => text.to_string(),
        };
        let parts = lines
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default())
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(part)
            .collect::<Result<Vec<_>>>()?;
        if parts.is_empty() {
            return Err(Error::config(format!("`{text}` chooses no samples")));
        }
        Ok(Spec { text: text.into(), parts })
    }

    /// The text it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The class, where the choice is one class and nothing else.
    pub fn class(&self) -> Option<u32> {
        match self.parts[..] {
            [Part::Class(class)] => Some(class),
            _ => None,
        }
    }

    /// The chosen samples of a set with these labels: ascending, each once. Of several labels, `class:3` chooses the
    /// samples that have label 3.
    ///
    /// # Errors
    /// Where an index is outside the set, a class does not occur, or more samples are asked for than there are.
    pub fn choose(&self, labels: &Labels) -> Result<Vec<usize>> {
        let n = labels.len();
        let mut chosen = vec![];
        for part in &self.parts {
            match *part {
                Part::Range(from, to) => {
                    if to >= n {
                        return Err(Error::config(format!("sample {to} of a set of {n} (the first is 0)")));
                    }
                    chosen.extend(from..=to);
                }
                Part::Class(class) => {
                    let before = chosen.len();
                    chosen.extend((0..n).filter(|&i| labels.has(i, class)));
                    if chosen.len() == before {
                        return Err(Error::config(format!("no sample has class {class}")));
                    }
                }
                Part::Random(count, _) if count > n => {
                    return Err(Error::config(format!("{count} samples of a set of {n}")));
                }
                Part::Random(count, seed) => {
                    chosen.extend(Stream::new(seed, Use::Choice, 0).choose(n, count))
                }
            }
        }
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }
}

/// The samples that a choice takes of the data of a file, which an error names.
///
/// # Errors
/// Where the choice is none, or takes what is not there.
pub fn choose(text: &str, path: &Path, labels: &Labels) -> Result<Vec<usize>> {
    Spec::parse(text)?.choose(labels).map_err(|error| match error {
        Error::Config(reason) => Error::Config(format!("{}: {reason}", path.display())),
        other => other,
    })
}

fn part(text: &str) -> Result<Part> {
    let wrong = || {
        let forms = "an index, a range 100-149, class:3 or n:20@seed";
        Error::config(format!(
            "`{text}` chooses no samples: {forms} (or the name of a file of such lines) was expected"
        ))
    };
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
    if let Some(class) = text.strip_prefix("class:") {
        return Ok(Part::Class(class.trim().parse().map_err(|_| wrong())?));
    }
    if let Some(random) = text.strip_prefix("n:") {
        let (count, seed) = random.split_once('@').unwrap_or((random, "0"));
        let count = number(count)?;
        return match count {
            0 => Err(wrong()),
            _ => Ok(Part::Random(count, seed.trim().parse().map_err(|_| wrong())?)),
        };
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (number(from)?, number(to)?);
    if from > to {
        return Err(Error::config(format!("the range `{text}` ends before it begins")));
    }
    Ok(Part::Range(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_chooses_ascending_and_once() {
        let labels = Labels::from(vec![0, 1, 2, 1, 0, 1]);
        let choose = |text: &str| Spec::parse(text).unwrap().choose(&labels);
        assert_eq!(choose("4, 1-2,1").unwrap(), [1, 2, 4]);
        assert_eq!(choose("class:1").unwrap(), [1, 3, 5]);
        assert_eq!(choose("n:6@3").unwrap(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(choose("n:2@3").unwrap(), choose("n:2@3").unwrap());
        assert_eq!(Spec::parse("class:1").unwrap().class(), Some(1));
        assert_eq!(Spec::parse("class:1,0").unwrap().class(), None);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("forget.txt");
        std::fs::write(&path, "0 # the first\n\n3-4\n").unwrap();
        assert_eq!(Spec::parse(path.to_str().unwrap()).unwrap().choose(&labels).unwrap(), [0, 3, 4]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let labels = Labels::from(vec![0, 1]);
        for (text, word) in
            [("2", "sample 2"), ("class:7", "class 7"), ("n:3@1", "3 samples"), ("0-5", "sample 5")]
        {
            let error = Spec::parse(text).unwrap().choose(&labels).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        for text in ["", "x", "3-1", "class:", "n:0", "1;2", "-3", "n:2@x"] {
            assert!(Spec::parse(text).is_err(), "{text}");
        }
    }
}
