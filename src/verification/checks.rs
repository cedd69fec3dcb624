//! What is checked before models are compared: that they are alike and distinct, and by their manifests and reports,
//! what they have seen.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::models::{Candidate, Sets};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, json_in, listed};
use crate::net::Network;

/// Refuses a model with another tokenizer than the one that made token ids of the texts.
pub(super) fn check_tokenizer(model: &Candidate, used: Option<&Tokenizer>) -> Result<()> {
    let Some(used) = used else { return Ok(()) };
    match Tokenizer::within(&model.folder)? {
        Some(own) if !own.reads_alike(used) => {
            let reason = "has another tokenizer than --before, and texts are read with that one";
            Err(Error::checkpoint(&model.path, reason))
        }
        _ => Ok(()),
    }
}

/// Checks that two models have the same layers and the same inputs.
pub(super) fn check_alike(before: &Candidate, other: &Candidate) -> Result<()> {
    let refuse = |reason: String| Err(Error::checkpoint(&other.path, reason));
    let a = before.path.display();
    if other.family != before.family {
        return refuse(format!("is of the family {}, {a} of {}", other.family, before.family));
    }
    if other.network.loss != before.network.loss {
        let (ours, theirs) = (before.network.loss, other.network.loss);
        return refuse(format!("has the loss {theirs:?}, {a} {ours:?}"));
    }
    let (ours, theirs) = (&before.network.params, &other.network.params);
    if let Some((p, q)) = ours.iter().zip(theirs).find(|(p, q)| (&p.name, &p.shape) != (&q.name, &q.shape)) {
        return refuse(format!(
            "is of another architecture than {a}: its `{}` is {:?}, there `{}` is {:?}",
            q.name, q.shape, p.name, p.shape
        ));
    }
    if ours.len() != theirs.len() {
        return refuse(format!(
            "is of another architecture than {a}: {} tensors, there {}",
            theirs.len(),
            ours.len()
        ));
    }
    for (what, p, q) in
        [("mean", &before.inputs.mean, &other.inputs.mean), ("std", &before.inputs.std, &other.inputs.std)]
    {
        if let (Some(p), Some(q)) = (p, q)
            && p != q
        {
            return refuse(format!("normalises its inputs otherwise than {a}: {what} {q:?}, there {p:?}"));
        }
    }
    Ok(())
}

/// Checks that a reference is neither the model before nor after, nor given twice: its gap to itself would be 0.
pub(super) fn check_distinct(before: &Candidate, after: &Candidate, references: &[Candidate]) -> Result<()> {
    let mut seen = BTreeMap::from([
        (&before.sha256, ("the model before", &before.path)),
        (&after.sha256, ("the model after", &after.path)),
    ]);
    for reference in references {
        if let Some((what, path)) = seen.insert(&reference.sha256, ("another reference", &reference.path)) {
            return Err(Error::config(format!(
                "the reference {} is byte for byte {what}, {}",
                reference.path.display(),
                path.display()
            )));
        }
    }
    Ok(())
}

/// [`check_distinct`] of networks in memory, by their parameters, bit for bit.
pub(super) fn check_networks(before: &Network, after: &Network, references: &[Network]) -> Result<()> {
    let same = |a: &Network, b: &Network| {
        let bits = |a: &[f32], b: &[f32]| a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits()));
        a.params.len() == b.params.len()
            && a.params.iter().zip(&b.params).all(|(a, b)| bits(&a.value, &b.value))
    };
    for (i, reference) in references.iter().enumerate() {
        let mut others = [("the model before", before), ("the model after", after)]
            .into_iter()
            .chain(references[..i].iter().map(|other| ("another reference", other)));
        if let Some((what, _)) = others.find(|(_, other)| same(reference, other)) {
            return Err(Error::config(format!("reference {i} has the parameters of {what}, bit for bit")));
        }
    }
    Ok(())
}

/// Checks that the model before has seen the samples, as far as its manifest shows.
pub(super) fn check_before(
    before: &Candidate,
    data: &BTreeMap<String, String>,
    sets: &Sets,
    notes: &mut Vec<String>,
) -> Result<()> {
    let Some(manifest) = &before.manifest else { return Ok(()) };
    let Some(excluded) = manifest.excluded() else { return Ok(()) };
    let path = before.path.display();
    if !manifest.trained_on(data) {
        notes.push(format!(
            "{path} was trained on other data than --data, by its train.json: the samples to forget may be others"
        ));
        return Ok(());
    }
    let absent: Vec<usize> = sets.forget.iter().copied().filter(|i| excluded.contains(i)).collect();
    match absent.is_empty() {
        true => Ok(()),
        false => Err(Error::config(format!(
            "{} of the {} samples to forget were not in the training data of {path}, by its train.json: {}",
            absent.len(),
            sets.forget.len(),
            listed(&absent)
        ))),
    }
}

/// Checks that a reference has not seen the samples and was otherwise trained as the model before, as far as manifests
/// show.
pub(super) fn check_reference(
    reference: &Candidate,
    before: &Candidate,
    data: &BTreeMap<String, String>,
    sets: &Sets,
    notes: &mut Vec<String>,
) -> Result<()> {
    let path = reference.path.display();
    let manifest = reference.manifest.as_ref();
    let Some((manifest, excluded)) = manifest.and_then(|manifest| Some((manifest, manifest.excluded()?)))
    else {
        notes.push(format!("{path} has no train.json: that it never saw the samples is taken on trust"));
        return Ok(());
    };
    if !manifest.trained_on(data) {
        notes.push(format!(
            "{path} was trained on other data than --data, by its train.json: whether it saw the samples cannot be told"
        ));
        return Ok(());
    }
    let seen: Vec<usize> = sets.forget.iter().copied().filter(|i| !excluded.contains(i)).collect();
    if !seen.is_empty() {
        return Err(Error::config(format!(
            "the reference {path} was trained with {} of the {} samples to forget, by its train.json: {}",
            seen.len(),
            sets.forget.len(),
            listed(&seen)
        )));
    }
    if let Some(model) = manifest.0.get("model").and_then(Value::as_str) {
        notes.push(format!("{path} was trained further from {model}, which may have seen the samples"));
    }
    let also: Vec<usize> = sets.retain.iter().copied().filter(|i| excluded.contains(i)).collect();
    if !also.is_empty() {
        notes.push(format!(
            "{path} has not seen {} of the {} retained samples either: {}",
            also.len(),
            sets.retain.len(),
            listed(&also)
        ));
    }
    let options = |manifest: &Manifest| manifest.0.get("options").and_then(Value::as_object).cloned();
    if let (Some(theirs), Some(ours)) = (options(manifest), before.manifest.as_ref().and_then(options)) {
        let differs = |key: &&String| *key != "seed" && theirs.get(*key) != ours.get(*key);
        if let Some(key) = ours.keys().find(differs) {
            let said = |options: &Map<String, Value>| options.get(key).cloned().unwrap_or_default();
            notes.push(format!(
                "{path} was trained otherwise than the model before: {key} is {}, there {}",
                said(&theirs),
                said(&ours)
            ));
        }
    }
    Ok(())
}

/// Checks that the report of a scrub beside the model after is about this model and these samples.
pub(super) fn check_receipt(
    before: &Candidate,
    after: &Candidate,
    sets: &Sets,
    notes: &mut Vec<String>,
) -> Result<()> {
    let Some(report) = json_in(&after.folder, "report.json")? else { return Ok(()) };
    let path = after.path.display();
    if report["model"]["sha256_before"].as_str().is_some_and(|hash| hash != before.sha256) {
        notes.push(format!("{path} was scrubbed from another model than --before, by its report.json"));
    }
    if report["request"]["samples"].is_array() && report["request"]["samples"] != json!(sets.forget) {
        notes.push(format!("{path} was scrubbed of other samples than --forget, by its report.json"));
    }
    if let Some(left) = report["not_removed"].as_u64().filter(|&left| left > 0) {
        notes.push(format!("{left} samples were not removed from {path}, by its report.json"));
    }
    Ok(())
}

/// A note where test images are in the training data too: they are not unseen.
pub(super) fn seen_before(path: &Path, sets: &Sets) -> Result<Option<String>> {
    let key = |image: &[f32]| {
        let mut hasher = DefaultHasher::new();
        image.iter().for_each(|value| value.to_bits().hash(&mut hasher));
        hasher.finish()
    };
    let (mut known, mut again) = (HashSet::new(), 0);
    sets.samples.each(|image| {
        known.insert(key(image));
    })?;
    sets.test.each(|image| again += usize::from(known.contains(&key(image))))?;
    Ok((again > 0).then(|| {
        format!(
            "{again} of the {} samples of {} are in the training data too: they are not unseen",
            sets.test.y.len(),
            path.display()
        )
    }))
}
