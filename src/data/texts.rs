//! Labelled texts as people keep them: rows with a column of text and one or more of labels ([`super::records`]), made
//! into token ids by a model's tokenizer.
//!
//! Labels that are whole numbers are classes. Words are classes in the order of the model's config where it names them
//! all, else of the sorted words. Several columns of 0 and 1, or lists of words, or of 0 and 1, are several labels. A text
//! is cut at the most tokens that the model takes, and padded to the longest of its set.

mod labels;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rows::Rows;

use super::Samples;
use super::names::Names;
use super::records::{self, Records};
use super::text_options::{TextOptions, TokenizerSource};
use super::tokenizer::{self, Tokenizer};
use crate::error::{Error, Result};

/// Names of columns of text and of labels.
const TEXTS: [&str; 9] =
    ["text", "sentence", "message", "content", "question", "review", "comment", "body", "tweet"];
const LABELS: [&str; 6] = ["label", "labels", "class", "class_name", "target", "y"];

/// Texts as samples.
pub(super) struct Read {
    pub samples: Samples,
    pub names: Names,
    pub notes: Vec<String>,
    pub tokenizer: Arc<Tokenizer>,
}

/// Reads the texts of files, one after another. `known` are the classes that the model, or the training data, names, and
/// `positions` the most tokens of a text that the model takes.
///
/// # Errors
/// Where a file has no column of texts or of labels, or several that could be it; where a row misses one, or a label is no
/// class; where there is no tokenizer. The message names the file and the line, and the option that helps.
pub(super) fn read(
    files: &[PathBuf],
    options: &TextOptions,
    known: Option<&[String]>,
    positions: Option<usize>,
) -> Result<Read> {
    let path = files.first().map_or(Path::new(""), PathBuf::as_path);
    let mut sets =
        files.iter().map(|file| Ok((file.as_path(), rows(file, options)?))).collect::<Result<Vec<_>>>()?;
    let text = one(path, &sets[0].1.columns, options.text.as_deref(), &TEXTS, "texts", "--text-column")?;
    let labels = match &options.labels[..] {
        [] => vec![one(path, &sets[0].1.columns, None, &LABELS, "labels", "--label-column")?],
        names => {
            let column = |name: &String| {
                one(path, &sets[0].1.columns, Some(name), &LABELS, "labels", "--label-column")
            };
            names.iter().map(column).collect::<Result<Vec<_>>>()?
        }
    };
    let mut all = std::mem::take(&mut sets[0].1);
    let mut of_rows = vec![path; all.rows.len()];
    for (file, more) in sets.drain(1..) {
        if more.columns != all.columns {
            let (found, expected) = (more.columns.join(", "), all.columns.join(", "));
            let reason = format!("has the columns {found}, and {} has {expected}", path.display());
            return Err(Error::data(file, reason));
        }
        of_rows.extend(vec![file; more.rows.len()]);
        all.rows.extend(more.rows);
    }
    let table = Rows { path, records: all, files: of_rows };
    let texts = table.texts(text)?;
    let found = table.labels(&labels, known)?;
    let Encoded { rows, tokenizer, notes: lengths } = encode(path, &texts, options, positions)?;
    let mut notes = vec![format!(
        "texts of column `{}`, labels of column `{}`",
        table.records.columns[text],
        labels.iter().map(|&at| table.records.columns[at].as_str()).collect::<Vec<_>>().join("`, `")
    )];
    notes.extend(found.note);
    notes.extend(lengths);
    let columns = table.others(text, &labels);
    let samples = Some(texts.iter().map(|text| beginning(text)).collect());
    let names = Names { classes: found.names, samples, columns };
    let samples = Samples::of_texts(&rows.ids, &rows.mask, rows.tokens, found.labels)?;
    Ok(Read { samples, names, notes, tokenizer })
}

/// Texts as token ids.
pub(super) struct Encoded {
    pub rows: tokenizer::Rows,
    pub tokenizer: Arc<Tokenizer>,
    /// What became of their lengths.
    pub notes: Vec<String>,
}

/// The token ids of texts, by the tokenizer and up to the length that the options, the model and the tokenizer say.
///
/// # Errors
/// Where there is no tokenizer, or more tokens are asked for than the model takes.
pub(super) fn encode(
    path: &Path,
    texts: &[String],
    options: &TextOptions,
    positions: Option<usize>,
) -> Result<Encoded> {
    let tokenizer = tokenizer(path, texts, &options.tokenizer)?;
    let most = most(path, &tokenizer, options.most, positions)?;
    let rows = tokenizer.rows(texts, most)?;
    let longest = rows.longest;
    let mut notes = vec![match rows.cut {
        0 => format!("texts have up to {longest} tokens, and are padded to as many"),
        1 => format!("1 text was cut at {most} tokens; it has {longest}"),
        cut => format!("{cut} texts were cut at {most} tokens; the longest has {longest}"),
    }];
    let empty = texts.iter().filter(|text| text.trim().is_empty()).count();
    if empty > 0 {
        notes.push(format!("{empty} {} empty", if empty == 1 { "text is" } else { "texts are" }));
    }
    Ok(Encoded { rows, tokenizer, notes })
}

fn rows(path: &Path, options: &TextOptions) -> Result<Records> {
    let is_text = |name: &&str| match &options.text {
        Some(chosen) => name == chosen,
        None => TEXTS.iter().any(|usual| usual.eq_ignore_ascii_case(name.trim())),
    };
    records::read(path, |first| first.iter().any(is_text))
}

/// The column of a name that is given, else the only one with a usual name.
fn one(
    path: &Path,
    columns: &[String],
    given: Option<&str>,
    usual: &[&str],
    what: &str,
    option: &str,
) -> Result<usize> {
    let listed = || columns.iter().filter(|name| !name.is_empty()).cloned().collect::<Vec<_>>().join(", ");
    if let Some(given) = given {
        return columns.iter().position(|name| name == given).ok_or_else(|| {
            Error::data(path, format!("has no column `{given}` ({option}); it has {}", listed()))
        });
    }
    let fits = |at: &usize| usual.iter().any(|name| name.eq_ignore_ascii_case(&columns[*at]));
    match (0..columns.len()).filter(fits).collect::<Vec<_>>()[..] {
        [at] => Ok(at),
        [] => Err(Error::data(
            path,
            format!(
                "has no column of {what} with a usual name ({}); {option} names it, of {}",
                usual.join(", "),
                listed()
            ),
        )),
        [first, second, ..] => Err(Error::data(
            path,
            format!(
                "could have its {what} in `{}` or `{}`; {option} says which",
                columns[first], columns[second]
            ),
        )),
    }
}

fn tokenizer(path: &Path, texts: &[String], from: &TokenizerSource) -> Result<Arc<Tokenizer>> {
    let missing = |what: String| {
        let reason = format!("holds texts, and {what}; --tokenizer names a folder or file with one");
        Error::data(path, reason)
    };
    Ok(match from {
        TokenizerSource::Ready(tokenizer) => tokenizer.clone(),
        TokenizerSource::At(at) => Arc::new(Tokenizer::open(at)?),
        TokenizerSource::Made(size) => Arc::new(Tokenizer::made(texts, *size)?),
        TokenizerSource::Beside(folder) => Arc::new(Tokenizer::within(folder)?.ok_or_else(|| {
            missing(format!("{} has no tokenizer.json and no vocab.txt", folder.display()))
        })?),
        TokenizerSource::Missing => return Err(missing("there is no tokenizer".into())),
    })
}

/// The most tokens of a text.
fn most(path: &Path, tokenizer: &Tokenizer, asked: Option<usize>, positions: Option<usize>) -> Result<usize> {
    let positions = positions.unwrap_or(usize::MAX);
    match asked {
        Some(most) if most > positions => Err(Error::config(format!(
            "{}: --max-tokens {most} is more than the {positions} positions of the model",
            path.display()
        ))),
        Some(most) => Ok(most),
        None => Ok(positions.min(tokenizer.most().unwrap_or(usize::MAX))),
    }
}

/// The first words of a text, in one line.
fn beginning(text: &str) -> String {
    const CHARACTERS: usize = 60;
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let between = if line.is_empty() { "" } else { " " };
        if line.chars().count() + between.len() + word.chars().count() > CHARACTERS {
            let most = if line.is_empty() { CHARACTERS } else { 0 };
            line.extend(word.chars().take(most));
            line.push('…');
            break;
        }
        line.push_str(between);
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::{InputKind, Labels};
    use super::*;

    /// Small words, each a piece.
    fn options() -> TextOptions {
        let tokenizer = Tokenizer::made(&["red green blue red green blue"], 100).unwrap();
        TextOptions { tokenizer: TokenizerSource::Ready(Arc::new(tokenizer)), ..TextOptions::default() }
    }

    fn read_as(name: &str, text: &str, options: &TextOptions, known: Option<&[&str]>) -> Result<Read> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let known: Option<Vec<String>> = known.map(|names| names.iter().map(ToString::to_string).collect());
        read(&[path], options, known.as_deref(), Some(8))
    }

    fn read_csv(text: &str) -> Result<Read> {
        read_as("t.csv", text, &options(), None)
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rows_become_texts_classes_and_names() {
        let found =
            read_csv("id,Text,label,site\n7,red  green,spam,x\n8,\"\",ham,\n9,blue 🙂 red,spam,y\n").unwrap();
        assert_eq!(found.samples.y, Labels::from(vec![1, 0, 1]));
        assert_eq!(found.names.classes, Some(strings(&["ham", "spam"])));
        assert_eq!(found.names.samples, Some(strings(&["red green", "", "blue 🙂 red"])));
        let columns =
            vec![("id".into(), strings(&["7", "8", "9"])), ("site".into(), strings(&["x", "", "y"]))];
        assert_eq!(found.names.columns, columns);
        let notes = found.notes.join("; ");
        for words in ["column `Text`", "column `label`", "ham, spam", "up to 5 tokens", "1 text is empty"] {
            assert!(notes.contains(words), "{words} {notes}");
        }
        let numbers = read_csv("label,sentence\n2,red\n0.0,blue\n").unwrap();
        assert_eq!((numbers.samples.y, numbers.names.classes), (vec![2, 0].into(), None));
        let known =
            read_as("t.jsonl", "{\"text\": \"red\", \"label\": true}", &options(), Some(&["no", "yes"]))
                .unwrap();
        assert_eq!((known.samples.y, known.names.classes), (vec![1].into(), Some(strings(&["no", "yes"]))));
        let sms = read_as("SMSSpamCollection", "spam\tred\nham\tblue\n", &options(), None).unwrap();
        assert_eq!(sms.samples.y, Labels::from(vec![1, 0]));
        let trec =
            read_as("t.label", "NUM:dist How red ?\nABBR:exp What blue ?\n", &options(), None).unwrap();
        assert_eq!(trec.names.classes, Some(strings(&["ABBR:exp", "NUM:dist"])));
        let made = TextOptions { tokenizer: TokenizerSource::Made(50), ..options() };
        assert!(read_as("t.csv", "text,y\nred,0\n", &made, None).unwrap().tokenizer.vocabulary() < 50);
    }

    #[test]
    fn words_have_the_numbers_that_the_model_gives_them() {
        let text = "text,label\nred,spam\nblue,ham\n";
        let y = |known: &[&str]| read_as("t.csv", text, &options(), Some(known)).map(|found| found.samples.y);
        assert_eq!(y(&["spam", "other", "ham"]).unwrap(), vec![0, 2].into());
        assert_eq!(y(&["LABEL_0", "LABEL_1"]).unwrap(), vec![1, 0].into());
        assert!(y(&["spam", "eggs"]).unwrap_err().to_string().contains("`ham`"));
    }

    #[test]
    #[cfg(feature = "parquet")]
    fn parquet_files_name_their_classes() {
        // Written by pyarrow 26, zstd, with the metadata of Hugging Face's datasets.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/messages.parquet");
        let known = strings(&["spam", "ham"]);
        let y = |known: Option<&[String]>| {
            read(std::slice::from_ref(&path), &options(), known, None).unwrap().samples.y
        };
        assert_eq!((y(None), y(Some(&known[..]))), (vec![1, 0, 1].into(), vec![0, 1, 0].into()));
        let names = read(std::slice::from_ref(&path), &options(), None, None).unwrap().names;
        assert_eq!(names.classes, Some(strings(&["ham", "spam"])));
        assert_eq!(names.samples, Some(strings(&["Free prize", "See you later", "é 🙂"])));
        assert_eq!(names.columns[0], ("sender".into(), strings(&["a", "", "c"])));
        assert_eq!(names.columns[1].1[2], "[\"x\",\"y\"]");
    }

    #[test]
    fn several_labels_are_columns_or_lists() {
        let chosen = TextOptions { labels: strings(&["rude", "loud"]), ..options() };
        let found = read_as("t.csv", "text,loud,rude\nred,1,0\nblue,1.0,1\n", &chosen, None).unwrap();
        assert_eq!(found.samples.y, Labels::Multi { labels: 2, rows: vec![0, 1, 1, 1] });
        assert_eq!(found.names.classes, Some(strings(&["rude", "loud"])));
        let lists = |text: &str| read_as("t.jsonl", text, &options(), None);
        let words = "{\"text\": \"red\", \"labels\": [\"rude\"]}\n{\"text\": \"blue\", \"labels\": [\"rude\", \"loud\"]}";
        let found = lists(words).unwrap();
        assert_eq!(found.samples.y, Labels::Multi { labels: 2, rows: vec![0, 1, 1, 1] });
        let bits = "{\"text\": \"red\", \"labels\": [0, 1]}\n{\"text\": \"blue\", \"labels\": [1, 1]}";
        assert_eq!(lists(bits).unwrap().samples.y, found.samples.y);
        for (text, words) in [
            (
                "{\"text\": \"red\", \"labels\": [0, 1]}\n{\"text\": \"a\", \"labels\": [1]}",
                &["line 2", "[1]"][..],
            ),
            (
                "{\"text\": \"red\", \"labels\": [0, 1]}\n{\"text\": \"a\", \"labels\": 1}",
                &["line 2", "a list"],
            ),
            ("{\"text\": \"red\", \"labels\": []}", &["no label in any row"]),
        ] {
            let error = lists(text).map(|found| found.samples).unwrap_err().to_string();
            words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
        }
    }

    #[test]
    fn texts_are_cut_at_the_positions_or_as_asked() {
        let text = "text,label\nred red red red red red red red red,0\nblue,1\n";
        let found = read_csv(text).unwrap();
        assert!(
            found.notes.join("; ").contains("1 text was cut at 8 tokens; it has 11"),
            "{:?}",
            found.notes
        );
        let fewer = TextOptions { most: Some(4), ..options() };
        let kind = read_as("t.csv", text, &fewer, None).unwrap().samples.kind;
        assert_eq!(kind, InputKind::Text { tokens: 4 });
        let more = TextOptions { most: Some(9), ..options() };
        let error = read_as("t.csv", text, &more, None).map(|found| found.samples).unwrap_err().to_string();
        assert!(error.contains("--max-tokens 9") && error.contains("8 positions"), "{error}");
    }

    #[test]
    fn faults_name_the_line_and_the_option() {
        let refused = |text: &str, words: &[&str]| {
            let error = read_csv(text).map(|found| found.samples).unwrap_err().to_string();
            words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
        };
        refused("text,label\nred,1\nblue,\n", &["t.csv: line 3", "no `label`"]);
        refused("text,label\nred,1\nblue,0.5\n", &["line 3", "0.5", "whole numbers"]);
        refused("text,label\nred,-1\n", &["line 2", "-1"]);
        refused("v1,v2,,\nham,red,,\n", &["no column of texts", "--text-column", "v1, v2"]);
        refused("text,question,label\na,b,0\n", &["`text` or `question`", "--text-column"]);
        refused("text,score\na,0\n", &["no column of labels", "--label-column", "score"]);
        let many: String = (0..1500).map(|i| format!("red,w{i}\n")).collect();
        refused(&format!("text,label\n{many}"), &["1500 different words", "--label-column"]);
        let json = |text: &str| {
            read_as("t.jsonl", text, &options(), None).map(|found| found.samples).unwrap_err().to_string()
        };
        assert!(
            json("{\"text\": 5, \"label\": 0}").contains("line 1: has `text` 5, where a text was expected")
        );
        assert!(json("{\"text\": \"a\", \"label\": 0}\n{\"label\": 0}").contains("line 2: has no `text`"));
        assert!(json("{\"text\": \"a\", \"label\": {}}").contains("line 1: has an object"));
        let none = TextOptions { tokenizer: TokenizerSource::Missing, ..options() };
        let error = read_as("t.csv", "text,label\na,0\n", &none, None)
            .map(|found| found.samples)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no tokenizer") && error.contains("--tokenizer"), "{error}");
        let other = TextOptions { text: Some("body".into()), ..options() };
        let error = read_as("t.csv", "text,label\na,0\n", &other, None)
            .map(|found| found.samples)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no column `body` (--text-column); it has text, label"), "{error}");
    }

    #[test]
    fn the_first_words_stand_for_a_text() {
        assert_eq!(beginning(" a\n\tb \u{7}c "), "a b c");
        let long = beginning(&"word ".repeat(20));
        assert_eq!(long, format!("{}…", "word ".repeat(12).trim_end()));
        assert_eq!(beginning(&"x".repeat(70)).chars().count(), 61);
    }
}
