//! A request as a file: who asks, by what id, and which samples are to be forgotten.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::data::{Labels, Names, Spec};
use crate::error::{Error, Result};
use crate::hash;

/// The version of the format.
const VERSION: u32 = 1;
/// Bytes of a request's file at most.
pub const LONGEST: u64 = 1 << 20;
/// Letters of an id at most.
const LONGEST_ID: usize = 100;

/// A request as it came in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The version of the format, 1.
    pub version: u32,
    /// The id: letters, digits, `-` and `_`; the file is called `ID.json`.
    pub id: String,
    /// The samples.
    pub forget: Forget,
    /// Why, for the receipt.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whatever the sender wants to find in the receipt.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// The samples that a request names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Forget {
    /// As `scrub --forget` takes them, but for the name of a file: `7,12,100-149`, `class:spam`, `path:GLOB` and the like.
    Spec(String),
    /// A list; a text in it is what a line of a list in a file is: the name of a sample, or a choice.
    List(Vec<Item>),
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Item {
    /// An index.
    Index(usize),
    /// A name or a choice.
    Line(String),
}

/// Whether a text can be an id.
pub fn is_id(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !text.is_empty() && text.len() <= LONGEST_ID && text.chars().all(known)
}

impl Submission {
    /// Reads the bytes of `ID.json`.
    ///
    /// # Errors
    /// Where they are no request of this format, or one of another id.
    pub fn parse(id: &str, bytes: &[u8]) -> Result<Submission> {
        let value: Value = serde_json::from_slice(bytes).map_err(|e| {
            Error::config(format!(
                "is not JSON: {e} (a file that is still written must have another name, and be renamed when it is whole)"
            ))
        })?;
        match value.get("version").and_then(Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                let reason = format!("has version {version}; this server reads version {VERSION}");
                return Err(Error::config(reason));
            }
            None => {
                return Err(Error::config(format!(
                    "has no \"version\": {VERSION}; a request is {{\"version\": {VERSION}, \"id\": \"{id}\", \"forget\": \"7,12\"}}"
                )));
            }
        }
        let submission: Submission = serde_json::from_slice(bytes).map_err(|e| match e.to_string() {
            text if text.contains("untagged enum") => Error::config(
                "\"forget\" is neither a text, as 7,12,100-149, nor a list of indices and names",
            ),
            text => Error::config(text),
        })?;
        if submission.id != id {
            let found = &submission.id;
            return Err(Error::config(format!(
                "has the id `{found}`; a file is called by its id, {found}.json"
            )));
        }
        Ok(submission)
    }

    /// The hash of what it asks for; how the JSON is laid out does not count.
    pub fn sha256(&self) -> String {
        hash::of_parts(std::iter::once(self.content().to_string()))
    }

    /// What it asks for, for a receipt.
    pub fn content(&self) -> Value {
        json!({"forget": self.forget, "reason": self.reason, "metadata": self.metadata})
    }

    /// The samples, ascending, each once.
    ///
    /// # Errors
    /// Where one is not among those with these labels and names.
    pub fn samples(&self, labels: &Labels, names: &Names) -> Result<Vec<usize>> {
        match &self.forget {
            Forget::Spec(text) => Spec::parse_text(text)?.choose(labels, names),
            Forget::List(items) if items.is_empty() => Err(Error::config("the list of samples is empty")),
            Forget::List(items) => {
                let text = |item: &Item| match item {
                    Item::Index(index) => index.to_string(),
                    Item::Line(line) => line.clone(),
                };
                let lines: Vec<String> = items.iter().map(text).collect();
                Spec::of_lines("forget", &lines).choose(labels, names)
            }
        }
    }

    /// The text of a class, where it is one class and nothing else.
    pub fn class(&self) -> Option<&str> {
        match &self.forget {
            Forget::Spec(text) => Spec::parse_text(text).ok().filter(Spec::is_class).map(|_| text.as_str()),
            Forget::List(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Submission> {
        Submission::parse("a-1", text.as_bytes())
    }

    #[test]
    fn samples_are_named_as_scrub_names_them() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        let names = Names {
            classes: Some(words("cat dog")),
            samples: Some(words("s1/a.png s1/b.png s7/a.png s7/b.png")),
            columns: vec![("site".into(), words("x y x y"))],
        };
        let labels = Labels::from(vec![0, 1, 1, 0]);
        for (forget, expected) in [
            ("\"0, 2-3\"", &[0, 2, 3][..]),
            ("\"class:dog\"", &[1, 2]),
            ("\"path:s7/*\"", &[2, 3]),
            ("\"where:site=x\"", &[0, 2]),
            ("[3, 0, 3]", &[0, 3]),
            ("[\"s1/b.png\", 0, \"class:dog\"]", &[0, 1, 2]),
        ] {
            let text = format!("{{\"version\": 1, \"id\": \"a-1\", \"forget\": {forget}}}");
            let submission = parsed(&text).unwrap();
            assert_eq!(submission.samples(&labels, &names).unwrap(), expected, "{forget}");
            assert_eq!(submission.class().is_some(), forget == "\"class:dog\"");
        }
        // A name of a file is no list: a request reads nothing on the server.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "1\n").unwrap();
        let forget = Forget::Spec(file.path().to_string_lossy().into_owned());
        let text = json!({"version": 1, "id": "a-1", "forget": forget}).to_string();
        assert!(parsed(&text).unwrap().samples(&labels, &names).is_err());
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_reason() {
        for (text, word) in [
            ("", "is not JSON"),
            ("{\"version\": 1, \"id\": \"a-1\", \"for", "is not JSON"),
            ("[]", "\"version\""),
            ("{\"id\": \"a-1\", \"forget\": [1]}", "\"version\""),
            ("{\"version\": 2, \"id\": \"a-1\", \"forget\": [1]}", "version 2"),
            ("{\"version\": 1, \"id\": \"a-2\", \"forget\": [1]}", "`a-2`"),
            ("{\"version\": 1, \"id\": \"a-1\"}", "forget"),
            ("{\"version\": 1, \"id\": \"a-1\", \"forget\": [-1]}", "\"forget\""),
            ("{\"version\": 1, \"id\": \"a-1\", \"forget\": {}}", "\"forget\""),
            ("{\"version\": 1, \"id\": \"a-1\", \"forget\": [1], \"reson\": \"x\"}", "`reson`"),
            ("{\"version\": 1, \"id\": \"a-1\", \"forget\": [1], \"metadata\": 3}", "map"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
        let empty = parsed("{\"version\": 1, \"id\": \"a-1\", \"forget\": []}").unwrap();
        assert!(empty.samples(&Labels::from(vec![0]), &Names::default()).is_err());
        for id in ["", ".", "a.b", "a/b", "a b", "ä", &"x".repeat(101)] {
            assert!(!is_id(id), "{id}");
        }
        assert!(is_id("2026-12-01_A4"));
    }

    #[test]
    fn the_layout_of_the_json_is_no_part_of_the_content() {
        let text = |forget: &str, metadata: &str| {
            let text =
                format!("{{ \"id\":\"a-1\",\n\"version\":1, \"forget\":{forget}, \"metadata\":{metadata}}}");
            parsed(&text).unwrap().sha256()
        };
        assert_eq!(text("[1, 2]", "{\"a\":1, \"b\":2}"), text("[1,2]", "{\"b\":2,\"a\":1}"));
        assert_ne!(text("[1, 2]", "{}"), text("[1, 3]", "{}"));
        assert_ne!(text("[1, 2]", "{}"), text("[1, 2]", "{\"a\":1}"));
    }
}
