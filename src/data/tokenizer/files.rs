//! A tokenizer's files: tokenizer.json, or vocab.txt, with tokenizer_config.json and special_tokens_map.json beside it.
//!
//! What is neither WordPiece nor BERT's way to words is refused by name, because other ids would make other texts.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::super::encoding::read_text;
use super::Tokenizer;
use super::beside::{Beside, CONFIG};
use super::json::{self, Said};
use super::split::{Bert, Step};
use crate::error::{Error, Result};

const JSON: &str = "tokenizer.json";
const VOCABULARY: &str = "vocab.txt";

/// Files of other kinds of tokenizers.
const OTHERS: [&str; 5] =
    ["merges.txt", "vocab.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"];

impl Tokenizer {
    /// Reads the tokenizer of a folder: tokenizer.json where there is one, else vocab.txt, each with
    /// tokenizer_config.json; or one of these two files itself (any `.txt` is a vocabulary).
    ///
    /// # Errors
    /// Where there is none, or one of another kind than BERT's; the message names the file and the part.
    pub fn open(path: &Path) -> Result<Tokenizer> {
        if !path.is_dir() {
            return Tokenizer::of_file(path);
        }
        match Tokenizer::within(path)? {
            Some(tokenizer) => Ok(tokenizer),
            None => Err(Error::data(path, format!("has neither {JSON} nor {VOCABULARY}{}", others(path)))),
        }
    }

    /// The tokenizer of a folder, where there is one.
    ///
    /// # Errors
    /// As [`Tokenizer::open`], but for one that is missing.
    pub fn within(folder: &Path) -> Result<Option<Tokenizer>> {
        let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        match file(JSON).or_else(|| file(VOCABULARY)) {
            Some(path) => Tokenizer::of_file(&path).map(Some),
            None => Ok(None),
        }
    }

    fn of_file(path: &Path) -> Result<Tokenizer> {
        let (bytes, beside) = (read_text(path)?, Beside::of(path)?);
        match path.extension().is_some_and(|end| end.eq_ignore_ascii_case("json")) {
            true => {
                let said = json::read(path, &bytes)?;
                check_case(path, &said, &beside)?;
                Tokenizer::of(said, (JSON, bytes), beside)
            }
            false => Tokenizer::of(vocabulary(path, &bytes, &beside)?, (VOCABULARY, bytes), beside),
        }
    }

    /// The tokenizer of a vocabulary and a config in memory.
    pub(super) fn of_parts(words: Vec<u8>, config: &Value) -> Result<Tokenizer> {
        let beside = Beside::of_config(config);
        let said = vocabulary(Path::new(VOCABULARY), &words, &beside)?;
        Tokenizer::of(said, (VOCABULARY, words), beside)
    }

    fn of(said: Said, own: (&str, Vec<u8>), beside: Beside) -> Result<Tokenizer> {
        let Said { steps, pieces, prefix, longest, unknown, added, before, after } = said;
        let special = beside.special(&pieces)?;
        let mut tokenizer = Tokenizer {
            steps,
            widest: pieces.keys().map(String::len).max().unwrap_or(0),
            pieces,
            prefix,
            longest,
            unknown,
            raw: added.raw,
            normalised: vec![],
            before,
            after,
            padding: special.pad.unwrap_or(0),
            most: beside.most()?,
            keeps_end: beside.keeps_end()?,
            special,
            files: std::iter::once((own.0.to_string(), own.1)).chain(beside.files).collect(),
        };
        let plain = added.normalised.into_iter().map(|(token, id)| (tokenizer.normalise(&token), id));
        tokenizer.normalised = plain.filter(|(token, _)| !token.is_empty()).collect();
        Ok(tokenizer)
    }
}

/// A vocabulary, one piece a line, and what its config says.
fn vocabulary(path: &Path, bytes: &[u8], beside: &Beside) -> Result<Said> {
    let mut pieces = HashMap::new();
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|&byte| byte == b'\n');
    for (line, id) in lines.zip(0u32..) {
        let piece = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line))
            .map_err(|_| Error::record(path, format!("line {}", id + 1), "is not UTF-8"))?;
        pieces.insert(piece.to_string(), id);
    }
    beside.check_basic()?;
    let id = |role: &str| -> Result<u32> {
        let token = beside.token(role)?;
        pieces.get(&token).copied().ok_or_else(|| {
            Error::data(path, format!("has no line `{token}`, the {role} (one piece a line was expected)"))
        })
    };
    let bert = Bert {
        clean: true,
        chinese: beside.flag("tokenize_chinese_chars")?.unwrap_or(true),
        accents: beside.flag("strip_accents")?,
        lower: match beside.flag("do_lower_case")? {
            Some(lower) => lower,
            None => lower_by(path, &pieces)?,
        },
    };
    Ok(Said {
        steps: bert.steps(),
        prefix: "##".into(),
        longest: 100,
        unknown: id("unk_token")?,
        added: beside.added(&pieces)?,
        before: vec![id("cls_token")?],
        after: vec![id("sep_token")?],
        pieces,
    })
}

/// Refuses a config that contradicts a tokenizer.json.
fn check_case(path: &Path, said: &Said, beside: &Beside) -> Result<()> {
    match beside.flag("do_lower_case")? {
        Some(lower) if lower != said.steps.contains(&Step::Lowercase) => {
            let reason = format!("contradicts {CONFIG} beside it, where do_lower_case is {lower}");
            Err(Error::record(path, "`normalizer`", reason))
        }
        _ => Ok(()),
    }
}

/// What files of other tokenizers a folder has, for an error.
fn others(folder: &Path) -> String {
    match OTHERS.into_iter().find(|name| folder.join(name).is_file()) {
        Some(name) => format!("; {name} is of another kind of tokenizer than WordPiece, which is read here"),
        None => "; --tokenizer names a folder or file with one".into(),
    }
}

/// Whether a vocabulary without a config is one of small letters.
fn lower_by(path: &Path, pieces: &HashMap<String, u32>) -> Result<bool> {
    let capital = |piece: &&String| !piece.starts_with('[') && piece.chars().any(char::is_uppercase);
    match pieces.keys().filter(capital).min() {
        None => Ok(true),
        Some(piece) => Err(Error::data(
            path,
            format!(
                "has pieces with capital letters, as `{piece}`; {CONFIG} beside it has to say whether texts keep theirs: \
                 {{\"do_lower_case\": false}}, or true"
            ),
        )),
    }
}
