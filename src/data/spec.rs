//! Choosing samples: `7,12,100-149` (both ends included), `class:3`, `n:20@seed`, joined by commas, or a file of such
//! lines.

use std::path::Path;

use super::Labels;
use super::encoding::read_text;
use crate::error::{Error, Result};
use crate::ops::philox::{Stream, Use};

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
    /// A file may begin with a byte order mark and with one word as the header of its only column; `#` begins a comment;
    /// numbers may stand in double quotes, and be written as 7.0.
    ///
    /// # Errors
    /// Where a part is not understood; the message names it, and file and line.
    pub fn parse(text: &str) -> Result<Spec> {
        let path = Path::new(text);
        let parts = match path.is_file() {
            true => parts_of_file(path)?,
            false => parts(text).map_err(Error::Config)?,
        };
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

fn parts_of_file(path: &Path) -> Result<Vec<Part>> {
    let text = String::from_utf8(read_text(path)?)
        .map_err(|_| Error::data(path, "is not text; a list of indices, one a line, was expected"))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).zip(1..);
    let (mut found, mut header) = (Vec::new(), true);
    for (line, number) in lines.filter(|(line, _)| !line.is_empty()) {
        match parts(line) {
            Ok(more) => found.extend(more),
            Err(_) if header && is_header(line) => {}
            Err(reason) => {
                return Err(Error::config(format!("{}: line {number}: {reason}", path.display())));
            }
        }
        header = false;
    }
    Ok(found)
}

/// Whether a line is the name of a column, as of a list that pandas or R wrote.
fn is_header(line: &str) -> bool {
    let word = unquoted(line);
    !word.is_empty() && word.chars().all(|c| c.is_alphabetic() || c == '_' || c == ' ')
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// The parts of a line, or what is wrong with one.
fn parts(line: &str) -> std::result::Result<Vec<Part>, String> {
    line.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.split(','))
        .map(|text| unquoted(text.trim()))
        .filter(|text| !text.is_empty())
        .map(part)
        .collect()
}

fn part(text: &str) -> std::result::Result<Part, String> {
    let wrong = || {
        let forms = "an index, a range 100-149, class:3 or n:20@seed";
        format!("`{text}` chooses no samples: {forms} (or the name of a file of such lines) was expected")
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
    if let Some(index) = whole(text) {
        return Ok(Part::Range(index, index));
    }
    if Path::new(text).extension().is_some_and(|end| end.to_string_lossy().chars().all(char::is_alphabetic)) {
        return Err(format!("`{text}` is no file that exists, and no choice of samples"));
    }
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let (from, to) = (number(from)?, number(to)?);
    if from > to {
        return Err(format!("the range `{text}` ends before it begins"));
    }
    Ok(Part::Range(from, to))
}

/// An index; 7.0 and 7e0, as numpy writes whole numbers, are 7.
fn whole(text: &str) -> Option<usize> {
    const EXACT: f64 = (1u64 << 53) as f64;
    let float =
        |text: &str| text.parse::<f64>().ok().filter(|v| (0.0..EXACT).contains(v) && v.fract() == 0.0);
    text.parse().ok().or_else(|| float(text).map(|value| value as usize))
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
    fn lists_that_other_programs_write_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.csv");
        let labels = Labels::from(vec![0; 12]);
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Spec::parse(path.to_str().unwrap()).and_then(|spec| spec.choose(&labels))
        };
        for bytes in [
            &b"\xef\xbb\xbf1\n2\n3\n"[..],
            b"\xff\xfe1\0\n\x002\0\n\x003\0",
            b"index\r\n1\r\n2\r\n3\r\n",
            b"# chosen\n\"sample id\"\n\"1\"\n\"2\"\n\"3\"\n",
            b"1.000000000000000000e+00\n2.000000000000000000e+00\n3.0\n",
        ] {
            assert_eq!(read(bytes).unwrap(), [1, 2, 3], "{}", String::from_utf8_lossy(bytes));
        }
        for (bytes, words) in [
            (&b",index\n0,1\n1,2\n"[..], &["f.csv: line 1", "`index`"][..]),
            (b"1\nindex\n2\n", &["line 2", "`index`"]),
            (b"index\nname\n2\n", &["line 2", "`name`"]),
            (b"1\n2.5\n", &["line 2", "`2.5`"]),
            (b"1\n-2\n", &["line 2", "`-2`"]),
            (b"clas:3\n", &["line 1", "`clas:3`"]),
            (b"\x93NUMPY\x01", &["f.csv", "not text"]),
            (b"index\n", &["chooses no samples"]),
        ] {
            let error = read(bytes).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        let error = Spec::parse("absent.txt").unwrap_err().to_string();
        assert!(error.contains("`absent.txt` is no file that exists"), "{error}");
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
