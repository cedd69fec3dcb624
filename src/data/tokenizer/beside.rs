//! The files beside a vocabulary: tokenizer_config.json and special_tokens_map.json.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::encoding::read_text;
use super::Special;
use crate::error::{Error, Result};

pub(super) const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";

/// The roles of special tokens, and BERT's words for them.
pub(super) const ROLES: [(&str, &str); 5] = [
    ("pad_token", "[PAD]"),
    ("unk_token", "[UNK]"),
    ("cls_token", "[CLS]"),
    ("sep_token", "[SEP]"),
    ("mask_token", "[MASK]"),
];

/// Above this, `model_max_length` says that there is no limit.
const NO_LIMIT: f64 = 1e9;

type Object = Map<String, Value>;

/// Tokens that texts are cut at.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// Those that are looked for in a text as it is.
    pub raw: Vec<(String, u32)>,
    /// Those that are looked for once it is normalised.
    pub normalised: Vec<(String, u32)>,
}

impl Added {
    /// Puts a token where it is looked for.
    pub fn add(&mut self, path: &Path, added: &Value, id: u32) -> Result<()> {
        let flag = |key: &str| added.get(key).and_then(Value::as_bool);
        let content = added.get("content").and_then(Value::as_str).unwrap_or_default();
        if flag("single_word") == Some(true) {
            let reason = format!("`{content}` is to be found as a single word only, which is not read here");
            return Err(Error::record(path, "added tokens", reason));
        }
        match flag("normalized").unwrap_or(flag("special") != Some(true)) {
            _ if content.is_empty() => {}
            true => self.normalised.push((content.into(), id)),
            false => self.raw.push((content.into(), id)),
        }
        Ok(())
    }
}

/// The files beside a vocabulary.
pub(super) struct Beside {
    folder: PathBuf,
    config: Object,
    map: Object,
    /// By name.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Beside {
    pub fn of(path: &Path) -> Result<Beside> {
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let mut files = vec![];
        let mut read = |name: &str| -> Result<Object> {
            let path = folder.join(name);
            if !path.is_file() {
                return Ok(Object::new());
            }
            let bytes = read_text(&path)?;
            let object = serde_json::from_slice(&bytes)
                .map_err(|e| Error::data(&path, format!("is no JSON object: {e}")))?;
            files.push((name.to_string(), bytes));
            Ok(object)
        };
        let (config, map) = (read(CONFIG)?, read(MAP)?);
        Ok(Beside { folder, config, map, files })
    }

    /// A config that is in memory.
    pub fn of_config(config: &Value) -> Beside {
        let files = vec![(CONFIG.to_string(), format!("{config:#}").into_bytes())];
        let config = config.as_object().cloned().unwrap_or_default();
        Beside { folder: PathBuf::new(), config, map: Object::new(), files }
    }

    fn refuse(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::record(&self.folder.join(CONFIG), format!("`{key}`"), reason)
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.refuse(key, format!("is {other}, where true or false was expected"))),
        }
    }

    /// Refuses what changes BERT's words and is not done here.
    pub fn check_basic(&self) -> Result<()> {
        if self.flag("do_basic_tokenize")? == Some(false) {
            return Err(self.refuse(
                "do_basic_tokenize",
                "is false: texts that are split into words already are not read",
            ));
        }
        let class = self.config.get("tokenizer_class").and_then(Value::as_str).unwrap_or("BertTokenizer");
        let known = ["BertTokenizer", "DistilBertTokenizer", "BertTokenizerFast", "DistilBertTokenizerFast"];
        match known.contains(&class) || class == "PreTrainedTokenizerFast" {
            true => Ok(()),
            false => Err(self.refuse("tokenizer_class", format!("is {class}; BertTokenizer is read here"))),
        }
    }

    /// The word for a role, as its text or as an object with it.
    pub fn token(&self, role: &str) -> Result<String> {
        let said = [&self.config, &self.map].into_iter().find_map(|of| of.get(role).filter(|v| !v.is_null()));
        let usual = ROLES.into_iter().find(|(known, _)| *known == role).map_or("", |(_, usual)| usual);
        let Some(said) = said else { return Ok(usual.into()) };
        let text = said.as_str().or(said.get("content").and_then(Value::as_str));
        text.map(String::from)
            .ok_or_else(|| self.refuse(role, format!("is {said}, where a token was expected")))
    }

    /// The ids of the roles.
    pub fn special(&self, pieces: &HashMap<String, u32>) -> Result<Special> {
        let id = |role: &str| Ok(pieces.get(&self.token(role)?).copied());
        Ok(Special {
            pad: id("pad_token")?,
            unk: id("unk_token")?,
            cls: id("cls_token")?,
            sep: id("sep_token")?,
            mask: id("mask_token")?,
        })
    }

    /// The special tokens that a vocabulary has, and those that the config adds.
    pub fn added(&self, pieces: &HashMap<String, u32>) -> Result<Added> {
        let mut added = Added::default();
        for (role, _) in ROLES {
            let token = self.token(role)?;
            added.raw.extend(pieces.get(&token).map(|&id| (token, id)));
        }
        let more = self.config.get("added_tokens_decoder").and_then(Value::as_object);
        for (id, token) in more.into_iter().flatten() {
            let wrong = || self.refuse("added_tokens_decoder", format!("has `{id}`, which is no id"));
            added.add(&self.folder.join(CONFIG), token, id.parse().map_err(|_| wrong())?)?;
        }
        Ok(added)
    }

    pub fn most(&self) -> Result<Option<usize>> {
        match self.config.get("model_max_length").filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(most) if most > NO_LIMIT => Ok(None),
                Some(most) if most >= 1.0 => Ok(Some(most as usize)),
                _ => Err(self.refuse(
                    "model_max_length",
                    format!("is {value}, where a number of tokens was expected"),
                )),
            },
        }
    }

    pub fn keeps_end(&self) -> Result<bool> {
        let side = |key: &str| self.config.get(key).and_then(Value::as_str).unwrap_or("right");
        if side("padding_side") != "right" {
            let reason = format!("is {}; texts are padded on the right here", side("padding_side"));
            return Err(self.refuse("padding_side", reason));
        }
        match side("truncation_side") {
            "right" => Ok(false),
            "left" => Ok(true),
            other => {
                Err(self.refuse("truncation_side", format!("is {other}, where left or right was expected")))
            }
        }
    }
}
