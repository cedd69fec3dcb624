//! How far a training into a folder is: what it goes on from where it was stopped, and whether the folder is free for it.
//!
//! After an epoch the values of all parameters, what the optimizer remembers and the reports of the epochs are kept beside what the
//! training writes, in `train.stage`, with all that decides its result. Keeping takes about a twentieth of the time at most: after
//! the first epoch it is left out until twenty times as long has passed as it took.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::trained::{EpochReport, NAME};
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::manifest::json_in;
use crate::net::State;
use crate::stage::Kept;

/// The name of what is kept.
const STAGE: &str = "train.stage";
/// The manifest of a training that is finished.
pub(super) const MANIFEST: &str = "train.json";
/// Keeping may take one part in so many of the time.
const SHARE: u32 = 20;

/// Where a training was stopped.
pub(super) struct Reached {
    /// The reports of the epochs that are done; at least one.
    pub epochs: Vec<EpochReport>,
    /// The value of every parameter after them, in the network's order.
    pub values: Vec<f32>,
    /// What the optimizer remembers then.
    pub memory: Vec<f32>,
}

/// The training of a folder.
pub(super) struct Progress {
    folder: PathBuf,
    kept: Kept,
    /// All that decides the result.
    training: Value,
    /// When it was kept last, and how long that took.
    last: Option<(Instant, Duration)>,
}

impl Progress {
    /// That of a training, by all that decides its result, into `folder`, which rank 0 alone reads and writes.
    pub fn of(folder: &Path, training: Value, ranks: &Communicator) -> Progress {
        let kept = Kept::of(folder, STAGE).among(ranks);
        Progress { folder: folder.into(), kept, training, last: None }
    }

    /// The `train.json` of the same training, where it was finished in the folder; `manifest` is what it is to begin with.
    ///
    /// # Errors
    /// Where the folder has another training, or a model that no training began.
    pub fn finished(&self, manifest: &Value) -> Result<Option<Value>> {
        if let Some(found) = json_in(&self.folder, MANIFEST)? {
            return match difference("", &found, manifest, &["scrubjay", "device", "epochs"]) {
                None => Ok(Some(found)),
                Some(differs) => {
                    let reason =
                        format!("is of another training: {differs}; choose another --out, or remove it");
                    Err(Error::config(format!("{}: {reason}", self.folder.join(MANIFEST).display())))
                }
            };
        }
        let there =
            [NAME, "config.json"].map(|name| self.folder.join(name)).into_iter().find(|file| file.exists());
        match there.filter(|_| !self.kept.path().exists()) {
            None => Ok(None),
            Some(file) => {
                let reason = "is there already, and no training began it; choose another --out, or remove it";
                Err(Error::config(format!("{}: {reason}", file.display())))
            }
        }
    }

    /// Where the training was stopped, where it was.
    ///
    /// # Errors
    /// Where what is kept is of another training, or damaged.
    pub fn reached(&self) -> Result<Option<Reached>> {
        let Some(file) = self.kept.read()? else { return Ok(None) };
        let words = file.metadata();
        let path = self.kept.path();
        let damaged =
            || Error::data(path, "is not what a training keeps; remove it, and the training begins anew");
        let json = |key: &str| {
            words.get(key).and_then(|text| serde_json::from_str::<Value>(text).ok()).ok_or_else(damaged)
        };
        if let Some(differs) = difference("", &json("training")?, &self.training, &[]) {
            let reason = format!(
                "is of another training: {differs}; give what it was begun with, choose another --out, or remove it"
            );
            return Err(Error::config(format!("{}: {reason}", path.display())));
        }
        let epochs: Vec<EpochReport> = serde_json::from_value(json("epochs")?).map_err(|_| damaged())?;
        match epochs.is_empty() {
            true => Err(damaged()),
            false => Ok(Some(Reached { epochs, values: file.f32("values")?, memory: file.f32("memory")? })),
        }
    }

    /// Whether it is time to keep how far it is.
    pub fn is_due(&self) -> bool {
        self.last.is_none_or(|(at, took)| at.elapsed() >= SHARE * took)
    }

    /// Keeps how far it is, and waits until that is on the disk.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn keep(&mut self, epochs: &[EpochReport], state: &State) -> Result<()> {
        let begun = Instant::now();
        let words = [("training", self.training.to_string()), ("epochs", json!(epochs).to_string())];
        self.kept.write(state, [], words)?;
        self.last = Some((Instant::now(), begun.elapsed()));
        Ok(())
    }

    /// Removes what was kept.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn clear(&self) -> Result<()> {
        self.kept.clear()
    }
}

/// The first place where two JSON values differ, `left_out` keys of theirs apart, in words.
fn difference(at: &str, was: &Value, is: &Value, left_out: &[&str]) -> Option<String> {
    let (Value::Object(a), Value::Object(b)) = (was, is) else {
        return (was != is).then(|| format!("{at} was {} and is {}", shown(was), shown(is)));
    };
    let keys = a.keys().chain(b.keys()).filter(|key| !left_out.contains(&key.as_str()));
    keys.into_iter().find_map(|key| {
        let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        difference(&at, &of(a), &of(b), &[])
    })
}

/// A value as JSON; a number that is an f32 as short as that.
fn shown(value: &Value) -> String {
    let narrow = value.as_f64().filter(|_| value.is_f64()).map(|wide| (wide, wide as f32));
    match narrow {
        Some((wide, narrow)) if f64::from(narrow) == wide => narrow.to_string(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named_by_its_place() {
        let (was, is) =
            (json!({"a": 1, "o": {"rate": 0.5}, "n": null}), json!({"a": 2, "o": {"rate": 0.1, "warm": 3}}));
        let found = |left_out: &[&str]| difference("", &was, &is, left_out);
        assert_eq!(found(&[]).as_deref(), Some("a was 1 and is 2"));
        assert_eq!(found(&["a"]).as_deref(), Some("o.rate was 0.5 and is 0.1"));
        assert_eq!(
            difference("", &json!({"o": {}}), &json!({"o": {"warm": 3}}), &[]).as_deref(),
            Some("o.warm was null and is 3")
        );
        assert_eq!(found(&["a", "o"]), None);
        assert_eq!(
            difference("lr", &json!(0.01f32), &json!(0.1), &[]).as_deref(),
            Some("lr was 0.01 and is 0.1")
        );
    }
}
