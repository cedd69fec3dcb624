//! The parts of a choice, read from text or from the lines of a file.

use std::path::{Path, PathBuf};

use super::super::encoding::read_text;
use crate::error::Result;

/// Something found, or what is wrong, in words.
pub type Found<T> = std::result::Result<T, String>;

/// A part of a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Indices from one to another, both included.
    Range(usize, usize),
    /// Every sample of a class, by its name or number.
    Class(String),
    /// Every sample whose name fits a pattern.
    Path(String),
    /// Every sample of which all of these hold.
    Where(Vec<Condition>),
    /// Every sample with this word at this level of its path, from 1.
    Level(usize, String),
    /// A number of random samples, without replacement.
    Random(usize, u64),
    /// The sample of a name.
    Name(String),
    /// A line of a file: the sample of this name, else what the line says.
    Line(PathBuf, usize, String, Found<Vec<Part>>),
}

/// A column has a word, or has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub column: String,
    pub equal: bool,
    pub word: String,
}

/// What a user may write.
pub const FORMS: &str = "an index, a range 100-149, class:NAME, path:GLOB, where:COLUMN=WORD, level:1=NAME or n:20@seed (or the \
                     name of a file of such lines)";

/// The lines of a file.
pub fn parts_of_file(path: &Path) -> Result<Vec<Part>> {
    let bytes = read_text(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut found = vec![];
    for (line, number) in text.lines().zip(1..) {
        let plain = comment_cut(line).trim();
        if plain.is_empty() {
            continue;
        }
        let parts = parts(line);
        if found.is_empty() && is_header(plain) && matches!(parts.as_deref(), Ok([Part::Name(_)])) {
            found.push(Part::Line(path.into(), number, plain.into(), Ok(vec![])));
            continue;
        }
        found.push(Part::Line(path.into(), number, unquoted(plain).into(), parts));
    }
    // A header alone chooses nothing.
    if found.iter().all(|part| matches!(part, Part::Line(_, _, _, Ok(parts)) if parts.is_empty())) {
        found.clear();
    }
    Ok(found)
}

/// A line without its comment.
fn comment_cut(line: &str) -> &str {
    let mut quoted = false;
    let end = line.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == '#' && !quoted
    });
    end.map_or(line, |(at, _)| &line[..at])
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
pub fn parts(text: &str) -> Found<Vec<Part>> {
    let mut all = vec![];
    for line in text.lines().map(comment_cut) {
        let (mut word, mut quoted) = (String::new(), false);
        for c in line.chars().chain([',']) {
            match c {
                '"' => quoted = !quoted,
                ',' if !quoted => all.push(std::mem::take(&mut word)),
                _ => word.push(c),
            }
        }
        if quoted {
            return Err(format!("`{line}`: a double quote opens and is not closed"));
        }
    }
    all.iter().map(|word| word.trim()).filter(|word| !word.is_empty()).map(part).collect()
}

fn part(text: &str) -> Found<Part> {
    let wrong = || format!("`{text}` chooses no samples: {FORMS} was expected");
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
    if let Some((form, rest)) = text.split_once(':') {
        let rest = rest.trim();
        match form {
            _ if rest.is_empty() => return Err(wrong()),
            "class" => return Ok(Part::Class(rest.into())),
            "path" => return Ok(Part::Path(rest.into())),
            "where" => return rest.split('&').map(condition).collect::<Found<_>>().map(Part::Where),
            "level" => {
                let (level, word) = rest.split_once('=').ok_or_else(wrong)?;
                let level = Some(number(level)?).filter(|&level| level > 0).ok_or_else(wrong)?;
                return Ok(Part::Level(level, word.trim().into()));
            }
            "n" => {
                let (count, seed) = rest.split_once('@').unwrap_or((rest, "0"));
                let count = Some(number(count)?).filter(|&count| count > 0).ok_or_else(wrong)?;
                return Ok(Part::Random(count, seed.trim().parse().map_err(|_| wrong())?));
            }
            _ => {}
        }
    }
    if let Some(index) = whole(text) {
        return Ok(Part::Range(index, index));
    }
    match text.split_once('-').map(|(from, to)| (number(from), number(to))) {
        Some((Ok(from), Ok(to))) if from > to => Err(format!("the range `{text}` ends before it begins")),
        Some((Ok(from), Ok(to))) => Ok(Part::Range(from, to)),
        _ if text.chars().any(char::is_alphabetic) && !text.contains(':') => Ok(Part::Name(text.into())),
        _ => Err(wrong()),
    }
}

/// A column and a word, with = or != between them.
fn condition(text: &str) -> Found<Condition> {
    let wrong = || format!("`{text}` is no condition: COLUMN=WORD or COLUMN!=WORD was expected");
    let (column, word) = text.split_once('=').ok_or_else(wrong)?;
    let (column, equal) = match column.strip_suffix('!') {
        Some(column) => (column, false),
        None => (column, true),
    };
    match column.trim() {
        "" => Err(wrong()),
        column => Ok(Condition { column: column.into(), equal, word: word.trim().into() }),
    }
}

/// An index; 7.0 and 7e0, as numpy writes whole numbers, are 7.
fn whole(text: &str) -> Option<usize> {
    const EXACT: f64 = (1u64 << 53) as f64;
    let float =
        |text: &str| text.parse::<f64>().ok().filter(|v| (0.0..EXACT).contains(v) && v.fract() == 0.0);
    text.parse().ok().or_else(|| float(text).map(|value| value as usize))
}
