//! Texts to token ids as BERT's tokenizer makes them: WordPiece.
//!
//! A text is cut at the special tokens that stand in it. What is between them is normalised, split into words at white
//! space and around every punctuation mark, and each word into the longest pieces of the vocabulary, from left to right;
//! a piece within a word begins with `##`. A word that cannot be made of pieces, or has more than 100 characters, is
//! `[UNK]`. `[CLS]` comes first and `[SEP]` last.
//!
//! The ids are those of the tokenizers library, which transformers uses. Its tables of characters are those of Unicode 8,
//! so that younger marks and punctuation count as letters; it writes small letters one by one, so that a final Σ is σ.

mod beside;
mod files;
mod json;
mod made;
mod split;

use std::collections::HashMap;
use std::path::Path;

use split::{Step, cut, normalise, words};

use super::tensors::write_whole;
use crate::error::{Error, Result};

/// The files that a tokenizer is read from, as they lie beside a model.
pub const TOKENIZER_FILES: [&str; 4] =
    ["tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"];

/// Texts may be this many tokens with their padding,
const WORDS: usize = 1 << 26;
/// and more where a token has no more padding than this.
const PADDED: usize = 1000;

/// A vocabulary of pieces, and how texts become words.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokenizer {
    steps: Vec<Step>,
    pieces: HashMap<String, u32>,
    /// What a piece within a word begins with.
    prefix: String,
    /// Characters of a word at most.
    longest: usize,
    /// Bytes of a piece at most.
    widest: usize,
    unknown: u32,
    /// Tokens that are found in the text itself, before it is normalised.
    raw: Vec<(String, u32)>,
    /// Tokens that are found in the normalised text.
    normalised: Vec<(String, u32)>,
    before: Vec<u32>,
    after: Vec<u32>,
    padding: u32,
    /// Tokens of a text at most, where its files say so.
    most: Option<usize>,
    /// Whether a text that is too long loses its beginning.
    keeps_end: bool,
    special: Special,
    files: Vec<(String, Vec<u8>)>,
}

/// The ids of the tokens that are no words, where there are such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Special {
    /// `[PAD]`.
    pub pad: Option<u32>,
    /// `[UNK]`.
    pub unk: Option<u32>,
    /// `[CLS]`.
    pub cls: Option<u32>,
    /// `[SEP]`.
    pub sep: Option<u32>,
    /// `[MASK]`.
    pub mask: Option<u32>,
}

impl Special {
    /// The keys of `config.json` with their ids.
    pub fn keys(&self) -> Vec<(&'static str, u32)> {
        let all = [
            ("pad_token_id", self.pad),
            ("unk_token_id", self.unk),
            ("cls_token_id", self.cls),
            ("sep_token_id", self.sep),
            ("mask_token_id", self.mask),
        ];
        all.into_iter().filter_map(|(key, id)| Some((key, id?))).collect()
    }
}

impl Tokenizer {
    /// One more than the largest id.
    pub fn vocabulary(&self) -> usize {
        let added = self.raw.iter().chain(&self.normalised).map(|(_, id)| id);
        self.pieces.values().chain(added).max().map_or(0, |&last| last as usize + 1)
    }

    /// The ids of the tokens that are no words.
    pub fn special(&self) -> Special {
        self.special
    }

    /// Tokens of a text at most, where its files say so.
    pub fn most(&self) -> Option<usize> {
        self.most
    }

    /// Whether another tokenizer gives every text the same ids.
    pub fn reads_alike(&self, other: &Tokenizer) -> bool {
        let plain = |one: &Tokenizer| Tokenizer { files: vec![], most: None, ..one.clone() };
        plain(self) == plain(other)
    }

    /// Writes the files that it was read from to a folder, each complete or not at all.
    ///
    /// # Errors
    /// Where one cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        self.files.iter().try_for_each(|(name, bytes)| write_whole(&folder.join(name), bytes))
    }

    /// The token ids of a text, with those that come first and last; a longer text than `most` tokens is cut.
    ///
    /// # Errors
    /// Where the tokens that come first and last are more than `most`.
    pub fn encode(&self, text: &str, most: usize) -> Result<Encoded> {
        let around = self.before.len() + self.after.len();
        let left = most.checked_sub(around).filter(|&left| left > 0).ok_or_else(|| {
            Error::config(format!(
                "of {most} tokens of a text {around} are special, which leaves none for words (--max-tokens)"
            ))
        })?;
        let mut ids = vec![];
        for (part, token) in cut(text, &self.raw) {
            let plain = self.normalise(part);
            for (part, token) in cut(&plain, &self.normalised) {
                words(part).for_each(|word| self.word(word, &mut ids));
                ids.extend(token);
            }
            ids.extend(token);
        }
        let whole = ids.len() + around;
        match self.keeps_end {
            true => drop(ids.drain(..ids.len().saturating_sub(left))),
            false => ids.truncate(left),
        }
        Ok(Encoded { ids: [&self.before[..], &ids, &self.after].concat(), whole })
    }

    fn normalise(&self, text: &str) -> String {
        normalise(&self.steps, text)
    }

    /// The pieces of a word.
    fn word(&self, word: &str, ids: &mut Vec<u32>) {
        let (first, mut start) = (ids.len(), 0);
        let mut piece = String::new();
        if word.chars().nth(self.longest).is_some() {
            ids.push(self.unknown);
            return;
        }
        while start < word.len() {
            let most = start.saturating_add(self.widest).min(word.len());
            let most = (start..=most).rfind(|&end| word.is_char_boundary(end)).unwrap_or(start);
            let longest = word[start..most].char_indices().rev().find_map(|(at, last)| {
                let end = start + at + last.len_utf8();
                piece.clear();
                piece.push_str(if start > 0 { &self.prefix } else { "" });
                piece.push_str(&word[start..end]);
                Some((*self.pieces.get(&piece)?, end))
            });
            match longest {
                Some((id, end)) => {
                    ids.push(id);
                    start = end;
                }
                None => {
                    ids.truncate(first);
                    ids.push(self.unknown);
                    return;
                }
            }
        }
    }

    /// Texts as rows of equal length, that of the longest: ids, then the mask, which is 0 at padding.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; and where nearly all would be padding.
    pub fn rows(&self, texts: &[impl AsRef<str>], most: usize) -> Result<Rows> {
        let texts = texts.iter().map(|text| self.encode(text.as_ref(), most)).collect::<Result<Vec<_>>>()?;
        let tokens = texts.iter().map(|text| text.ids.len()).max().unwrap_or(0);
        let cut = texts.iter().filter(|text| text.whole > text.ids.len()).count();
        let longest = texts.iter().map(|text| text.whole).max().unwrap_or(0);
        let (n, own) = (texts.len(), texts.iter().map(|text| text.ids.len()).sum::<usize>());
        if n.saturating_mul(tokens) > own.saturating_mul(PADDED).max(WORDS) {
            return Err(Error::config(format!(
                "{n} texts of {} tokens on average are padded to the {tokens} of the longest; --max-tokens cuts it",
                own / n.max(1)
            )));
        }
        let (mut ids, mut mask) = (vec![], vec![]);
        for Encoded { ids: own, .. } in &texts {
            let padding = tokens - own.len();
            ids.extend(own.iter().copied().chain(std::iter::repeat_n(self.padding, padding)));
            mask.extend(std::iter::repeat_n(1, own.len()).chain(std::iter::repeat_n(0, padding)));
        }
        Ok(Rows { tokens, ids, mask, cut, longest })
    }
}

/// A text as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// With those that come first and last.
    pub ids: Vec<u32>,
    /// How many there would be if nothing had been cut.
    pub whole: usize,
}

/// Texts as rows of equal length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The length of a row.
    pub tokens: usize,
    /// `[n, tokens]`.
    pub ids: Vec<u32>,
    /// `[n, tokens]`, 1 at a token and 0 at padding.
    pub mask: Vec<u32>,
    /// How many texts were cut.
    pub cut: usize,
    /// The tokens of the longest text before it was cut.
    pub longest: usize,
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use serde_json::{Value, json};
    use sha2::{Digest, Sha256};

    use super::*;

    fn recorded() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wordpiece")
    }

    fn cases() -> Value {
        serde_json::from_slice(&std::fs::read(recorded().join("cases.json")).unwrap()).unwrap()
    }

    fn opened(name: &str) -> Tokenizer {
        Tokenizer::open(&recorded().join(name)).unwrap()
    }

    fn hex(digest: Sha256) -> String {
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn hard_strings_have_the_ids_of_transformers() {
        let cases = cases();
        for name in ["uncased", "cased"] {
            let of_json = opened(name);
            let of_words = opened(&format!("{name}/vocab.txt"));
            for case in cases["strings"].as_array().unwrap() {
                let text = case["text"].as_str().unwrap();
                let expected: Vec<u32> = serde_json::from_value(case[name].clone()).unwrap();
                for tokenizer in [&of_json, &of_words] {
                    assert_eq!(tokenizer.encode(text, 10_000).unwrap().ids, expected, "{name}: {text:?}");
                }
            }
            assert_eq!((of_json.vocabulary(), of_json.most()), (700, Some(512)));
            let special =
                [("pad_token_id", 0), ("unk_token_id", 1), ("cls_token_id", 2), ("sep_token_id", 3)];
            assert_eq!(of_words.special().keys()[..4], special);
        }
    }

    #[test]
    fn every_character_of_many_blocks_makes_the_words_of_transformers() {
        let cases = cases();
        for name in ["uncased", "cased"] {
            let tokenizer = opened(name);
            let mut digest = Sha256::new();
            for block in cases["blocks"].as_array().unwrap() {
                let end = |i: usize| block[i].as_u64().unwrap() as u32;
                // A surrogate is no character, and Python's script has none in its blocks.
                for c in (end(0)..=end(1)).filter_map(char::from_u32) {
                    let plain = tokenizer.normalise(&format!("a{c}b"));
                    let parts: Vec<&str> = words(&plain).collect();
                    digest.update(format!("{plain}\0{}\u{2}", parts.join("\u{1}")));
                }
            }
            assert_eq!(hex(digest), cases["words"][name].as_str().unwrap(), "{name}");
        }
    }

    #[test]
    fn long_texts_are_cut_and_short_ones_padded() {
        let tokenizer = opened("uncased");
        let whole = tokenizer.encode("good love good love", 6).unwrap();
        assert_eq!((whole.ids.len(), whole.whole), (6, 6));
        let cut = tokenizer.encode("good love good love", 4).unwrap();
        assert_eq!((&cut.ids[..3], cut.ids[3], cut.whole), (&whole.ids[..3], 3, 6));
        let rows = tokenizer.rows(&["good love good love", "", "good"], 5).unwrap();
        assert_eq!((rows.tokens, rows.cut, rows.longest), (5, 1, 6));
        assert_eq!(rows.ids[5..], [2, 3, 0, 0, 0, 2, whole.ids[1], 3, 0, 0]);
        assert_eq!(rows.mask, [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0]);
        assert!(tokenizer.encode("good", 2).unwrap_err().to_string().contains("none for words"));
        let mut end = tokenizer.clone();
        end.keeps_end = true;
        assert_eq!(end.encode("good love good good", 4).unwrap().ids[1..3], [whole.ids[1]; 2]);
    }

    /// A folder with these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
        dir
    }

    const WORDS: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred\n##der\n[url]\n";

    #[test]
    fn a_config_beside_a_vocabulary_is_honoured() {
        let ids = |config: &str, text: &str| {
            let dir = folder(&[("vocab.txt", WORDS), ("tokenizer_config.json", config)]);
            Tokenizer::open(dir.path()).unwrap().encode(text, 99).unwrap().ids
        };
        assert_eq!(ids("{}", "Rédder RED [url]"), [2, 5, 6, 5, 1, 1, 1, 3]);
        assert_eq!(ids(r#"{"do_lower_case": false}"#, "red RED"), [2, 5, 1, 3]);
        assert_eq!(ids(r#"{"strip_accents": false}"#, "réd"), [2, 1, 3]);
        let added = r#"{"added_tokens_decoder": {"7": {"content": "[URL]", "special": false}}}"#;
        assert_eq!(ids(added, "red[uRl]red"), [2, 5, 7, 5, 3]);
        let other = r#"{"cls_token": {"content": "[MASK]"}, "model_max_length": 1e30}"#;
        assert_eq!(ids(other, "red"), [4, 5, 3]);
        let windows = folder(&[("v.txt", &format!("\u{feff}{}", WORDS.replace('\n', "\r\n")))]);
        let tokenizer = Tokenizer::open(&windows.path().join("v.txt")).unwrap();
        assert_eq!(
            (tokenizer.encode("redder", 9).unwrap().ids, tokenizer.vocabulary()),
            (vec![2, 5, 6, 3], 8)
        );
    }

    #[test]
    fn other_tokenizers_are_refused_by_name() {
        let refused = |files: &[(&str, &str)], words: &[&str]| {
            let error = Tokenizer::open(folder(files).path()).unwrap_err().to_string();
            words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
        };
        refused(&[], &["neither tokenizer.json nor vocab.txt", "--tokenizer"]);
        refused(&[("merges.txt", "")], &["merges.txt", "WordPiece"]);
        refused(&[("vocab.txt", "red\n")], &["vocab.txt", "[UNK]"]);
        refused(&[("vocab.txt", &format!("{WORDS}The\n"))], &["capital", "`The`", "do_lower_case"]);
        let config = |text: &'static str| [("vocab.txt", WORDS), ("tokenizer_config.json", text)];
        refused(
            &config(r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#),
            &["tokenizer_config.json", "Japanese"],
        );
        refused(&config(r#"{"do_basic_tokenize": false}"#), &["`do_basic_tokenize`"]);
        refused(&config(r#"{"padding_side": "left"}"#), &["`padding_side`", "left"]);
        refused(&config(r#"{"do_lower_case": "no"}"#), &["`do_lower_case`", "true or false"]);
        refused(&config(r#"{"model_max_length": 0}"#), &["`model_max_length`"]);
        refused(&config("[]"), &["tokenizer_config.json", "no JSON object"]);
        let whole: Value =
            serde_json::from_slice(&std::fs::read(recorded().join("uncased/tokenizer.json")).unwrap())
                .unwrap();
        for (part, value, words) in [
            (
                "model",
                json!({"type": "BPE", "vocab": {}, "merges": []}),
                &["`model`", "BPE", "WordPiece"][..],
            ),
            ("model", json!({"type": "Unigram"}), &["Unigram"]),
            ("pre_tokenizer", json!({"type": "ByteLevel"}), &["`pre_tokenizer`", "ByteLevel"]),
            ("pre_tokenizer", Value::Null, &["`pre_tokenizer`", "missing"]),
            ("normalizer", json!({"type": "Replace"}), &["`normalizer`", "Replace"]),
            ("post_processor", json!({"type": "RobertaProcessing"}), &["`post_processor`", "Roberta"]),
            (
                "added_tokens",
                json!([{"id": 0, "content": "x", "single_word": true}]),
                &["`x`", "single word"],
            ),
        ] {
            let mut changed = whole.clone();
            changed[part] = value;
            refused(&[("tokenizer.json", &changed.to_string())], words);
        }
        let lower = whole.to_string();
        refused(
            &[("tokenizer.json", &lower), ("tokenizer_config.json", r#"{"do_lower_case": false}"#)],
            &["tokenizer.json", "contradicts", "do_lower_case"],
        );
        let mut plain = whole;
        plain["post_processor"] = Value::Null;
        let steps = json!([{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]);
        plain["normalizer"] = json!({"type": "Sequence", "normalizers": steps});
        let dir = folder(&[("tokenizer.json", &plain.to_string())]);
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        let bert = opened("uncased").encode("Góod", 9).unwrap().ids;
        assert_eq!(tokenizer.encode("Góod", 9).unwrap().ids, bert[1..bert.len() - 1]);
    }
}
