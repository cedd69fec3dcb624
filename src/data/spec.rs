//! Choosing samples: `7,12,100-149` (both ends included), `class:spam` or `class:3`, `path:GLOB`, `where:site=berlin`,
//! `level:1=s7`, `n:20@seed`, joined by commas; or a file with one of these, or the name of a sample, a line.
//!
//! What has commas in it stands in double quotes. [`Spec`] is read before the data are; names are looked up when samples
//! are chosen, and an error lists the nearest ones.

mod nearest;
mod parse;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::Path;

use nearest::nearest;
use parse::{Condition, FORMS, Found, Part, parts, parts_of_file};

use super::{Labels, Names};
use crate::error::{Error, Result};
use crate::ops::philox::{Stream, Use};

/// A choice of samples, not yet applied to a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    text: String,
    parts: Vec<Part>,
}

impl Spec {
    /// Reads a choice; a text that names a file stands for the lines of that file.
    ///
    /// A file may begin with a byte order mark and with one word as the header of its only column; `#` begins a comment;
    /// lines may stand in double quotes, and numbers be written as 7.0.
    ///
    /// # Errors
    /// Where a part is not understood; the message names it.
    pub fn parse(text: &str) -> Result<Spec> {
        let path = Path::new(text);
        if !path.is_file() {
            return Spec::parse_text(text);
        }
        let parts = parts_of_file(path)?;
        if parts.is_empty() {
            let reason = format!("{text}: chooses no samples: no line has an index or another choice");
            return Err(Error::config(reason));
        }
        Ok(Spec { text: text.into(), parts })
    }

    /// Reads a choice without looking for a file of its name.
    ///
    /// # Errors
    /// Where a part is not understood; the message names it.
    pub fn parse_text(text: &str) -> Result<Spec> {
        let parts = parts(text).map_err(Error::Config)?;
        if parts.is_empty() {
            return Err(Error::config(format!("`{text}` chooses no samples: {FORMS} was expected")));
        }
        Ok(Spec { text: text.into(), parts })
    }

    /// Reads lines as those of a file: each the name of a sample, else a choice; errors call the file `what`.
    pub fn of_lines(what: &str, lines: &[String]) -> Spec {
        let line =
            |(line, number): (&String, usize)| Part::Line(what.into(), number, line.clone(), parts(line));
        Spec { text: what.into(), parts: lines.iter().zip(1..).map(line).collect() }
    }

    /// The text it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// That the first line of a file was left out as the header of its column, in words; a line that is the name of a sample is
    /// none.
    pub fn header(&self, names: &Names) -> Option<String> {
        match self.parts.first() {
            Some(Part::Line(path, line, word, Ok(parts)))
                if parts.is_empty() && !names.samples.iter().flatten().any(|name| name == word) =>
            {
                Some(format!("{}: line {line}, `{word}`, is left out as a header", path.display()))
            }
            _ => None,
        }
    }

    /// Whether the choice is one class and nothing else.
    pub fn is_class(&self) -> bool {
        match &self.parts[..] {
            [Part::Class(_)] => true,
            [Part::Line(_, _, _, Ok(parts))] => matches!(parts[..], [Part::Class(_)]),
            _ => false,
        }
    }

    /// The chosen samples of a set with these labels and names: ascending, each once. Of several labels, `class:3` chooses
    /// the samples that have label 3.
    ///
    /// # Errors
    /// Where an index is outside the set, a class, a column or a name does not occur, or more samples are asked for than
    /// there are.
    pub fn choose(&self, labels: &Labels, names: &Names) -> Result<Vec<usize>> {
        let set = Set { labels, names, by_name: OnceCell::new() };
        let mut chosen = vec![];
        for part in &self.parts {
            chosen.extend(set.choose(part).map_err(Error::Config)?);
        }
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }
}

/// The samples that a choice takes of the data of a file, which an error names. Names in a list may begin with the path of
/// the data.
///
/// # Errors
/// Where the choice is none, or takes what is not there.
pub fn choose(text: &str, path: &Path, labels: &Labels, names: &Names) -> Result<Vec<usize>> {
    let mut spec = Spec::parse(text)?;
    let before = format!("{}/", path.display().to_string().trim_end_matches('/'));
    for part in &mut spec.parts {
        if let Part::Name(name) | Part::Line(_, _, name, _) = part
            && let Some(inside) = name.strip_prefix(&before)
        {
            *name = inside.into();
        }
    }
    spec.choose(labels, names).map_err(|error| match error {
        Error::Config(reason) => Error::Config(format!("{}: {reason}", path.display())),
        other => other,
    })
}

/// The reason why an index beyond the end of a set is refused.
pub(crate) fn beyond(sample: usize, n: usize) -> String {
    format!(
        "sample {sample} of a set of {n} does not exist; the first is 0, the last {}",
        n.saturating_sub(1)
    )
}

/// The samples to choose from.
struct Set<'a> {
    labels: &'a Labels,
    names: &'a Names,
    /// By name the first sample that has it, and how many have it; made where a name is looked up.
    by_name: OnceCell<HashMap<&'a str, (usize, usize)>>,
}

impl Set<'_> {
    fn choose(&self, part: &Part) -> Found<Vec<usize>> {
        let n = self.labels.len();
        match part {
            Part::Range(_, to) if *to >= n => Err(beyond(*to, n)),
            Part::Range(from, to) => Ok((*from..=*to).collect()),
            Part::Class(class) => self.of_class(class),
            Part::Path(pattern) => self.of_path(pattern),
            Part::Where(conditions) => self.of_conditions(conditions),
            Part::Level(level, word) => self.of_level(*level, word),
            Part::Random(count, _) if *count > n => {
                Err(format!("{count} samples of a set of {n} were asked for"))
            }
            Part::Random(count, seed) => Ok(Stream::new(*seed, Use::Choice, 0).choose(n, *count)),
            Part::Name(name) => self.of_name(name)?.ok_or_else(|| {
                let near = self.names.samples.as_deref().map_or(String::new(), |all| nearest(name, all));
                format!(
                    "`{name}` is no file that exists, no name of a sample, and no choice of samples{near}"
                )
            }),
            Part::Line(path, line, name, parts) => {
                if let Some(found) = self.of_name(name)? {
                    return Ok(found);
                }
                let at = |reason| format!("{}: line {line}: {reason}", path.display());
                let parts = parts.as_ref().map_err(|reason| at(reason.clone()))?;
                let chosen = parts.iter().map(|part| self.choose(part)).collect::<Found<Vec<_>>>();
                Ok(chosen.map_err(at)?.concat())
            }
        }
    }

    fn of_class(&self, class: &str) -> Found<Vec<usize>> {
        let known = self.names.classes.as_deref().unwrap_or_default();
        let number = match known.iter().position(|name| name == class) {
            Some(number) => number as u32,
            None => class.parse().map_err(|_| match known {
                [] => format!("the data do not name their classes, so that class:{class} has to be a number"),
                known => format!("there is no class `{class}`{}", nearest(class, known)),
            })?,
        };
        let last = self.labels.outputs().saturating_sub(1);
        self.some(
            |i| self.labels.has(i, number),
            || format!("no sample has class {class}; the first class is 0, the last {last}"),
        )
    }

    fn of_path(&self, pattern: &str) -> Found<Vec<usize>> {
        let names = self.sample_names("path:")?;
        let glob = glob::Pattern::new(pattern)
            .map_err(|e| format!("`path:{pattern}`: {} at character {}", e.msg, e.pos + 1))?;
        let by = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let folder = format!("{}/", pattern.trim_end_matches('/'));
        let fits = |name: &str| glob.matches_with(name, by) || name.starts_with(&folder);
        self.some(
            |i| fits(&names[i]),
            || format!("no name of a sample fits `{pattern}`{}", nearest(pattern, names)),
        )
    }

    fn of_conditions(&self, conditions: &[Condition]) -> Found<Vec<usize>> {
        let columns = &self.names.columns;
        let column = |condition: &Condition| {
            columns.iter().find(|(name, _)| *name == condition.column).map(|(_, words)| words).ok_or_else(
                || {
                    let known: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
                    match known[..] {
                        [] => {
                            format!(
                                "the data have no columns, and so no column `{}`; choose by index or class",
                                condition.column
                            )
                        }
                        _ => format!(
                            "the data have no column `{}`{}",
                            condition.column,
                            nearest(&condition.column, &known)
                        ),
                    }
                },
            )
        };
        let words = conditions.iter().map(column).collect::<Found<Vec<_>>>()?;
        for (Condition { column, equal, word }, words) in conditions.iter().zip(&words) {
            if *equal && !words.contains(word) {
                return Err(format!("no sample has {column} = {word}{}", nearest(word, words)));
            }
        }
        let holds = |i: usize| {
            conditions
                .iter()
                .zip(&words)
                .all(|(condition, words)| (words[i] == condition.word) == condition.equal)
        };
        self.some(holds, || "no sample fits all of these conditions".into())
    }

    fn of_level(&self, level: usize, word: &str) -> Found<Vec<usize>> {
        let names = self.sample_names("level:")?;
        let at = |name: &str| name.split('/').nth(level - 1).unwrap_or_default().to_string();
        self.some(
            |i| at(&names[i]) == word,
            || {
                let words: Vec<String> = names.iter().map(|name| at(name)).collect();
                format!("no name of a sample has `{word}` at level {level}{}", nearest(word, &words))
            },
        )
    }

    /// The sample of a name; none where there is none.
    fn of_name(&self, name: &str) -> Found<Option<Vec<usize>>> {
        let by_name = self.by_name.get_or_init(|| {
            let mut by_name = HashMap::new();
            for (i, name) in self.names.samples.iter().flatten().enumerate() {
                by_name.entry(name.as_str()).or_insert((i, 0)).1 += 1;
            }
            by_name
        });
        match by_name.get(name.strip_prefix("./").unwrap_or(name)) {
            None => Ok(None),
            Some((first, 1)) => Ok(Some(vec![*first])),
            Some((_, count)) => Err(format!("{count} samples have the name `{name}`; choose by index")),
        }
    }

    fn sample_names(&self, form: &str) -> Found<&[String]> {
        self.names.samples.as_deref().ok_or_else(|| {
            format!(
                "the data do not name their samples, which {form} needs; choose by index, as 7,12,100-149"
            )
        })
    }

    /// The samples of which something holds; where there are none, what to say.
    fn some(&self, holds: impl Fn(usize) -> bool, none: impl Fn() -> String) -> Found<Vec<usize>> {
        let chosen: Vec<usize> = (0..self.labels.len()).filter(|&i| holds(i)).collect();
        if chosen.is_empty() { Err(none()) } else { Ok(chosen) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[u32]) -> impl Fn(&str) -> Result<Vec<usize>> {
        let labels = Labels::from(labels.to_vec());
        move |text| Spec::parse(text)?.choose(&labels, &Names::default())
    }

    #[test]
    fn every_form_chooses_ascending_and_once() {
        let choose = of(&[0, 1, 2, 1, 0, 1]);
        assert_eq!(choose("4, 1-2,1").unwrap(), [1, 2, 4]);
        assert_eq!(choose("class:1").unwrap(), [1, 3, 5]);
        assert_eq!(choose("n:6@3").unwrap(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(choose("n:2@3").unwrap(), choose("n:2@3").unwrap());
        assert!(Spec::parse("class:1").unwrap().is_class());
        assert!(!Spec::parse("class:1,0").unwrap().is_class());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("forget.txt");
        std::fs::write(&path, "0 # the first\n\n3-4\n").unwrap();
        assert_eq!(choose(path.to_str().unwrap()).unwrap(), [0, 3, 4]);
    }

    /// Six samples: two people at two sites.
    fn named() -> (Labels, Names) {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        let names = Names {
            classes: Some(words("cat dog 10")),
            samples: Some(words("s1/a.png s1/b.png s7/a.png s7/b.png s7/x/c.png d,e.png")),
            columns: vec![
                ("site".into(), words("berlin berlin paris paris paris berlin")),
                ("year".into(), words("2019 2020 2019 2020 2020 2020")),
            ],
        };
        (vec![0, 1, 2, 1, 0, 1].into(), names)
    }

    #[test]
    fn samples_are_chosen_by_names() {
        let (labels, names) = named();
        let choose = |text: &str| Spec::parse(text).unwrap().choose(&labels, &names).unwrap();
        for (text, expected) in [
            ("class:dog", &[1, 3, 5][..]),
            ("class:0", &[0, 4]),
            ("class:10", &[2]),
            ("class:2", &[2]),
            ("path:s1/*", &[0, 1]),
            ("path:s7/*", &[2, 3]),
            ("path:s7", &[2, 3, 4]),
            ("path:**/a.png", &[0, 2]),
            ("path:s?/[ab].png, 5", &[0, 1, 2, 3, 5]),
            ("where:site=berlin", &[0, 1, 5]),
            ("where:site!=berlin & year=2020", &[3, 4]),
            ("where:site=paris,where:year=2019", &[0, 2, 3, 4]),
            ("level:1=s7", &[2, 3, 4]),
            ("level:2=a.png", &[0, 2]),
            ("\"path:d,e.png\",0", &[0, 5]),
            ("path:\"d,e.png\"", &[5]),
            ("s1/b.png,./s7/a.png", &[1, 2]),
        ] {
            assert_eq!(choose(text), expected, "{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.csv");
        for (text, expected) in [
            ("name\ns1/a.png\r\nd,e.png\nclass:dog\n", &[0, 1, 3, 5][..]),
            ("\u{feff}\"d,e.png\"\n4 # and this\n", &[4, 5]),
            ("faces/s7/a.png\n", &[2]),
        ] {
            std::fs::write(&path, text).unwrap();
            let found = super::choose(path.to_str().unwrap(), Path::new("faces/"), &labels, &names).unwrap();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn lists_that_other_programs_write_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.csv");
        let choose = of(&[0; 12]);
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            choose(path.to_str().unwrap())
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
            (b"1\n12\n", &["line 2", "sample 12"]),
            (b"\x93NUMPY\x01", &["f.csv", "not text"]),
            (b"index\n", &["chooses no samples"]),
        ] {
            let error = read(bytes).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        let error = choose("absent.txt").unwrap_err().to_string();
        assert!(error.contains("`absent.txt` is no file that exists"), "{error}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let choose = of(&[0, 1]);
        for (text, word) in [
            ("2", "sample 2"),
            ("class:7", "class 7"),
            ("class:spam", "do not name their classes"),
            ("path:*", "do not name their samples"),
            ("where:a=b", "no columns"),
            ("n:3@1", "3 samples"),
            ("0-5", "sample 5"),
        ] {
            let error = choose(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        for text in
            ["", "3-1", "class:", "n:0", "1;2", "-3", "n:2@x", "where:x", "level:0=a", "level:a", "\"1"]
        {
            assert!(Spec::parse(text).is_err(), "{text}");
        }
        let (labels, names) = named();
        for (text, words) in [
            ("class:dgo", &["no class `dgo`", "there are `dog`, "][..]),
            ("where:sight=berlin", &["no column `sight`", "`site`"]),
            ("where:site=Berlim", &["no sample has site = Berlim", "`berlin`"]),
            ("where:site=berlin&year=2021", &["year = 2021", "`2020`"]),
            ("where:site=paris&site=berlin", &["no sample fits all"]),
            ("path:s2/*", &["`s2/*`", "nearest of 6", "`s1/a.png`"]),
            ("path:[", &["`path:[`"]),
            ("level:1=s8", &["`s8` at level 1", "`s7`"]),
            ("s1/c.png", &["no name of a sample", "`s1/a.png`"]),
        ] {
            let error = Spec::parse(text).unwrap().choose(&labels, &names).unwrap_err().to_string();
            words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
        }
    }
}
