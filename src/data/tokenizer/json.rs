//! tokenizer.json, the file of the tokenizers library.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::beside::Added;
use super::split::{Bert, Step};
use crate::error::{Error, Result};

type Object = Map<String, Value>;

/// What a tokenizer.json says, or a vocabulary and its config.
pub(super) struct Said {
    pub steps: Vec<Step>,
    pub pieces: HashMap<String, u32>,
    pub prefix: String,
    pub longest: usize,
    pub unknown: u32,
    pub added: Added,
    pub before: Vec<u32>,
    pub after: Vec<u32>,
}

/// Reads the bytes of a tokenizer.json.
///
/// # Errors
/// Where a part is missing, or of a kind that is not read; the message names it.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Said> {
    let whole: Value =
        serde_json::from_slice(bytes).map_err(|e| Error::data(path, format!("is not JSON: {e}")))?;
    let at = Json { path };
    let model = at.object(whole.get("model"), "model")?;
    let bare = model.contains_key("continuing_subword_prefix") && !model.contains_key("merges");
    let kind = model.get("type").and_then(Value::as_str).unwrap_or(if bare { WORD_PIECE } else { "missing" });
    if kind != WORD_PIECE {
        return Err(
            at.refuse("model", format!("has type {kind}; {WORD_PIECE}, which BERT has, is read here"))
        );
    }
    let mut pieces = HashMap::new();
    for (piece, id) in at.object(model.get("vocab"), "vocab")? {
        pieces.insert(piece.clone(), at.id(id, "vocab")?);
    }
    let text = |key: &str, usual: &str| model.get(key).and_then(Value::as_str).unwrap_or(usual).to_string();
    let unknown = text("unk_token", "[UNK]");
    let unknown = *pieces.get(&unknown).ok_or_else(|| {
        at.refuse("model", format!("has no piece `{unknown}` for words that are not in the vocabulary"))
    })?;
    at.check_words(whole.get("pre_tokenizer"))?;
    let mut added = Added::default();
    for token in whole.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        added.add(path, token, at.id(token.get("id").unwrap_or(&Value::Null), "added_tokens")?)?;
    }
    let (before, after) = at.around(whole.get("post_processor"), &pieces)?;
    Ok(Said {
        steps: at.steps(whole.get("normalizer"))?,
        prefix: text("continuing_subword_prefix", "##"),
        longest: model.get("max_input_chars_per_word").and_then(Value::as_u64).unwrap_or(100) as usize,
        unknown,
        added,
        before,
        after,
        pieces,
    })
}

const WORD_PIECE: &str = "WordPiece";

/// A tokenizer.json, for messages.
struct Json<'a> {
    path: &'a Path,
}

impl Json<'_> {
    fn refuse(&self, part: &str, reason: impl Into<String>) -> Error {
        Error::record(self.path, format!("`{part}`"), reason)
    }

    fn object<'v>(&self, value: Option<&'v Value>, part: &str) -> Result<&'v Object> {
        value.and_then(Value::as_object).ok_or_else(|| self.refuse(part, "is missing, or no object"))
    }

    fn id(&self, value: &Value, part: &str) -> Result<u32> {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.refuse(part, format!("has {value}, where a token id was expected")))
    }

    /// The name of a part, and the parts of a sequence.
    fn list<'v>(&self, part: &str, value: &'v Value, key: &str) -> Result<Vec<(&'v str, &'v Value)>> {
        let kind =
            value.get("type").and_then(Value::as_str).ok_or_else(|| self.refuse(part, "has no type"))?;
        match value.get(key).and_then(Value::as_array).filter(|_| kind == "Sequence") {
            None => Ok(vec![(kind, value)]),
            Some(list) => {
                let parts = list.iter().map(|one| self.list(part, one, key)).collect::<Result<Vec<_>>>()?;
                Ok(parts.concat())
            }
        }
    }

    fn steps(&self, normaliser: Option<&Value>) -> Result<Vec<Step>> {
        let Some(normaliser) = normaliser.filter(|value| !value.is_null()) else { return Ok(vec![]) };
        let mut steps = vec![];
        for (kind, of) in self.list("normalizer", normaliser, "normalizers")? {
            let flag = |key: &str, usual: bool| of.get(key).and_then(Value::as_bool).unwrap_or(usual);
            match kind {
                "BertNormalizer" => steps.extend(
                    Bert {
                        clean: flag("clean_text", true),
                        chinese: flag("handle_chinese_chars", true),
                        accents: of.get("strip_accents").and_then(Value::as_bool),
                        lower: flag("lowercase", true),
                    }
                    .steps(),
                ),
                "NFC" => steps.push(Step::Nfc),
                "NFD" => steps.push(Step::Nfd),
                "NFKC" => steps.push(Step::Nfkc),
                "NFKD" => steps.push(Step::Nfkd),
                "Lowercase" => steps.push(Step::Lowercase),
                "StripAccents" => steps.push(Step::Marks),
                other => {
                    let reason = format!(
                        "is {other}, which is not read here; BertNormalizer, NFC, NFD, NFKC, NFKD, Lowercase and StripAccents are"
                    );
                    return Err(self.refuse("normalizer", reason));
                }
            }
        }
        Ok(steps)
    }

    /// Refuses other ways to words than BERT's.
    fn check_words(&self, pre: Option<&Value>) -> Result<()> {
        let parts = match pre.filter(|value| !value.is_null()) {
            Some(pre) => self.list("pre_tokenizer", pre, "pretokenizers")?,
            None => vec![("missing", &Value::Null)],
        };
        match parts[..] {
            [("BertPreTokenizer", _)] => Ok(()),
            _ => {
                let kinds: Vec<&str> = parts.iter().map(|(kind, _)| *kind).collect();
                let reason = format!(
                    "is {}; BertPreTokenizer, which splits around punctuation, is read here",
                    kinds.join(", ")
                );
                Err(self.refuse("pre_tokenizer", reason))
            }
        }
    }

    /// The tokens before and behind a text.
    fn around(&self, post: Option<&Value>, pieces: &HashMap<String, u32>) -> Result<(Vec<u32>, Vec<u32>)> {
        const PART: &str = "post_processor";
        let Some(post) = post.filter(|value| !value.is_null()) else { return Ok((vec![], vec![])) };
        let (mut before, mut after, mut seen) = (vec![], vec![], false);
        match post.get("type").and_then(Value::as_str).unwrap_or("missing") {
            "BertProcessing" => {
                let id = |key: &str| {
                    self.id(post.get(key).and_then(|pair| pair.get(1)).unwrap_or(&Value::Null), PART)
                };
                return Ok((vec![id("cls")?], vec![id("sep")?]));
            }
            "TemplateProcessing" => {}
            other => {
                let reason = format!("is {other}; TemplateProcessing and BertProcessing are read here");
                return Err(self.refuse(PART, reason));
            }
        }
        for item in post.get("single").and_then(Value::as_array).into_iter().flatten() {
            let (kind, of) = item.as_object().and_then(|item| item.iter().next()).unzip();
            let of = of.unwrap_or(&Value::Null);
            if of.get("type_id").and_then(Value::as_u64).unwrap_or(0) != 0 {
                return Err(self.refuse(PART, "gives a single text another token type than 0"));
            }
            match kind.map(String::as_str) {
                Some("Sequence") => seen = true,
                _ => {
                    let name = of.get("id").and_then(Value::as_str).unwrap_or_default();
                    let listed =
                        post.get("special_tokens").and_then(|all| all.get(name)?.get("ids")?.as_array());
                    let ids = match listed {
                        Some(ids) => ids.iter().map(|id| self.id(id, PART)).collect::<Result<Vec<_>>>()?,
                        None => pieces.get(name).map(|&id| vec![id]).ok_or_else(|| {
                            self.refuse(PART, format!("has `{name}`, which is no token of the vocabulary"))
                        })?,
                    };
                    if seen { after.extend(ids) } else { before.extend(ids) }
                }
            }
        }
        match seen {
            true => Ok((before, after)),
            false => Err(self.refuse(PART, "has no place for the text")),
        }
    }
}
