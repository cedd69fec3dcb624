//! A new vocabulary, for a new model: the characters and the words that are frequent in some texts.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::json;

use super::Tokenizer;
use super::beside::ROLES;
use super::split::{Bert, normalise, words};
use crate::error::{Error, Result};

impl Tokenizer {
    /// The tokenizer of a vocabulary of at most `size` pieces, made of texts: the special tokens; characters that begin a
    /// word and that stand within one, the most frequent ones in up to half of the rest; then words, by how often they
    /// occur, at least twice. Letters are small. Ties are in the order of the characters' numbers.
    ///
    /// # Errors
    /// Where no token is left for words.
    pub fn made(texts: &[impl AsRef<str>], size: usize) -> Result<Tokenizer> {
        let special = ROLES.map(|(_, token)| token); // in the order of their ids
        let left = size.checked_sub(special.len()).filter(|&left| left > 1).ok_or_else(|| {
            Error::config(format!(
                "of {size} tokens of a vocabulary {} are special, which leaves too few for words",
                special.len()
            ))
        })?;
        let steps = Bert { clean: true, chinese: true, accents: None, lower: true }.steps();
        let (mut whole, mut letters) = (HashMap::new(), HashMap::new());
        for text in texts {
            let plain = normalise(&steps, text.as_ref());
            for word in words(&plain) {
                *whole.entry(word.to_string()).or_insert(0usize) += 1;
            }
        }
        for (word, count) in &whole {
            for (i, letter) in word.chars().enumerate() {
                let piece = if i == 0 { letter.to_string() } else { format!("##{letter}") };
                *letters.entry(piece).or_insert(0usize) += count;
            }
        }
        let mut pieces = frequent(letters, 1);
        pieces.truncate(left / 2);
        let mut longer = frequent(whole, 2);
        longer.retain(|word| word.chars().nth(1).is_some());
        longer.truncate(left - pieces.len());
        let lines = special.map(String::from).into_iter().chain(pieces).chain(longer);
        let lines: String = lines.map(|piece| piece + "\n").collect();
        let config = json!({"tokenizer_class": "BertTokenizer", "do_lower_case": true});
        Tokenizer::of_parts(lines.into_bytes(), &config)
    }
}

/// The words that occur at least so often, the most frequent first.
fn frequent(counts: HashMap<String, usize>, least: usize) -> Vec<String> {
    let mut all: Vec<(String, usize)> = counts.into_iter().filter(|(_, count)| *count >= least).collect();
    all.sort_unstable_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
    all.into_iter().map(|(word, _)| word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_characters_and_words_are_pieces() {
        let texts = ["Ab ab, abc!", "ab cé", "cc"];
        let tokenizer = Tokenizer::made(&texts, 100).unwrap();
        let (name, lines) = &tokenizer.files[0];
        let expected = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n##b\na\n##c\nc\n!\n##e\n,\nab\n";
        assert_eq!((name.as_str(), std::str::from_utf8(lines).unwrap()), ("vocab.txt", expected));
        assert_eq!(tokenizer.encode("AB abc bz", 9).unwrap().ids, [2, 12, 12, 7, 1, 3]);
        let small = Tokenizer::made(&texts, 9).unwrap();
        assert_eq!(small.files[0].1, b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n##b\na\nab\n");
        assert!(Tokenizer::made(&texts, 6).unwrap_err().to_string().contains("too few for words"));
        let config = serde_json::from_slice::<serde_json::Value>(&tokenizer.files[1].1).unwrap();
        assert_eq!(
            (tokenizer.files[1].0.as_str(), &config["do_lower_case"]),
            ("tokenizer_config.json", &json!(true))
        );
    }
}
