//! The token ids of whole corpora are those of transformers, by their SHA-256 (tests/data/wordpiece, scripts/wordpiece.py).

use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};
use scrubjay::data::tokenizer::Tokenizer;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The texts of a corpus.
type Texts = Result<Vec<String>, Failed>;

/// Every case.
pub fn trials() -> Vec<Trial> {
    let data = std::env::var_os("SCRUBJAY_DATA").map(|folder| PathBuf::from(folder).join("text"));
    let ignored = data.is_none();
    let why = if ignored { " (SCRUBJAY_DATA is not set)" } else { "" };
    let mut trials = vec![];
    for (corpus, read) in [("sms-spam", sms as fn(&Path) -> Texts), ("trec", trec)] {
        for vocabulary in ["uncased", "cased"] {
            let data = data.clone().unwrap_or_default();
            let case = move || check(&read(&data)?, vocabulary, corpus);
            trials.push(
                Trial::test(format!("tokens/{corpus},{vocabulary}{why}"), case).with_ignored_flag(ignored),
            );
        }
    }
    trials
}

fn check(texts: &[String], vocabulary: &str, corpus: &str) -> Result<(), Failed> {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wordpiece");
    let cases: Value = serde_json::from_slice(&std::fs::read(recorded.join("cases.json"))?)?;
    let limit = cases["limit"].as_u64().ok_or("no limit")? as usize;
    let tokenizer = Tokenizer::open(&recorded.join(vocabulary))?;
    let mut digest = Sha256::new();
    for text in texts {
        let ids = tokenizer.encode(text, limit)?.ids;
        std::iter::once(ids.len() as u32).chain(ids).for_each(|word| digest.update(word.to_le_bytes()));
    }
    let found: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, cases["corpora"][vocabulary][corpus].as_str().unwrap_or_default());
    Ok(())
}

/// What stands behind the first mark of this kind in every line.
fn behind(text: &str, mark: char) -> Vec<String> {
    text.lines().filter_map(|line| Some(line.split_once(mark)?.1.to_string())).collect()
}

fn sms(data: &Path) -> Texts {
    Ok(behind(&std::fs::read_to_string(data.join("sms-spam/SMSSpamCollection"))?, '\t'))
}

/// In Latin-1.
fn trec(data: &Path) -> Texts {
    let bytes = std::fs::read(data.join("trec/train_5500.label"))?;
    Ok(behind(&bytes.into_iter().map(char::from).collect::<String>(), ' '))
}
