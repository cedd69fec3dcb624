//! Which part of a PyTorch file is the weights: the file's own dictionary of tensors, or one that a training checkpoint
//! has under a key, as `state_dict`. Where there are several and none was chosen, all are listed; none is guessed.

use std::collections::{HashMap, HashSet};

use crate::pickle::{Id, Object, Pickle, Tensor};

/// The tensors of one dictionary, in its order.
#[derive(Debug)]
pub(super) struct Weights {
    /// Where it is, as `state_dict` or `ema/shadow`; empty for the file's own.
    pub key: String,
    pub tensors: Vec<(String, Tensor)>,
    /// Other keys of the file that have tensors, as those of an optimizer.
    pub others: Vec<String>,
}

/// How a caller writes the file's own dictionary.
pub(super) const OWN: &str = ".";

/// The weights of a pickle: those of the first chosen key that it has; where none is chosen, the only ones.
///
/// # Errors
/// In words: where there are none, or several, or none at the keys; where the model itself was pickled; or a tensor is of
/// a kind that is not read.
pub(super) fn weights(pickle: &Pickle, chosen: &[String]) -> Result<Weights, String> {
    let mut found = vec![];
    if let Object::Dict(dict) = pickle.root() {
        gather(pickle, "", dict, 2, &mut HashSet::new(), &mut found);
    }
    if found.is_empty() {
        return Err(match module(pickle) {
            Some((class, at)) => pickled(&class, &at),
            None => "holds no dictionary of tensors".into(),
        });
    }
    let listed = found.iter().map(|(key, _)| shown(key)).collect::<Vec<_>>().join(", ");
    let taken = match (chosen, &found[..]) {
        ([], [only]) => only,
        ([], _) => return Err(format!("has several sets of weights ({listed}); --weights KEY chooses one")),
        (keys, all) => {
            let first = keys.iter().find_map(|wanted| all.iter().find(|(key, _)| shown(key) == wanted));
            let keys = || keys.join("` and `");
            first.ok_or_else(|| format!("has no weights under `{}`; it has {listed}", keys()))?
        }
    };
    let (key, dict) = taken;
    Ok(Weights { key: key.clone(), tensors: tensors(pickle, dict)?, others: others(pickle, key) })
}

/// The keys of the file's own dictionary, but for the one of the weights, that have tensors at any depth.
fn others(pickle: &Pickle, weights: &str) -> Vec<String> {
    let Object::Dict(dict) = pickle.root() else { return vec![] };
    let taken = weights.split('/').next().unwrap_or_default();
    let mut seen = HashSet::new();
    let mut found = vec![];
    for &(key, value) in dict {
        let Object::Text(key) = pickle.get(key) else { continue };
        // A tensor of the file's own dictionary is one of the weights where that dictionary is chosen.
        let own = taken.is_empty() && matches!(pickle.get(value), Object::Tensor(_));
        if **key != *taken && !own && has_tensors(pickle, value, &mut seen) {
            found.push(key.to_string());
        }
    }
    found
}

/// Whether an object is or has a tensor of floats; objects that were seen before are passed over.
fn has_tensors(pickle: &Pickle, object: Id, seen: &mut HashSet<Id>) -> bool {
    let mut left = vec![object];
    while let Some(id) = left.pop() {
        match pickle.get(id) {
            Object::Tensor(tensor) if tensor.storage.is_float() => return true,
            Object::Tuple(items) | Object::List(items) if seen.insert(id) => left.extend(items),
            Object::Dict(pairs) if seen.insert(id) => left.extend(pairs.iter().map(|pair| pair.1)),
            _ => {}
        }
    }
    false
}

fn shown(key: &str) -> &str {
    if key.is_empty() { OWN } else { key }
}

/// A dictionary, and where it is.
type Found<'a> = (String, &'a [(Id, Id)]);

/// The dictionaries that have tensors of floats, down to a depth; one that several keys share counts once.
fn gather<'a>(
    pickle: &'a Pickle,
    path: &str,
    dict: &'a [(Id, Id)],
    depth: usize,
    seen: &mut HashSet<Id>,
    found: &mut Vec<Found<'a>>,
) {
    let floats = dict.iter().any(|&(key, value)| match (pickle.get(key), pickle.get(value)) {
        // A lone number, as the best loss so far, makes no weights.
        (Object::Text(_), Object::Tensor(tensor)) => tensor.storage.is_float() && !tensor.shape.is_empty(),
        _ => false,
    });
    if floats {
        found.push((path.to_string(), dict));
    }
    for &(key, value) in dict.iter().filter(|_| depth > 0) {
        if let (Object::Text(key), Object::Dict(inner)) = (pickle.get(key), pickle.get(value))
            && seen.insert(value)
        {
            let path = if path.is_empty() { key.to_string() } else { format!("{path}/{key}") };
            gather(pickle, &path, inner, depth - 1, seen, found);
        }
    }
}

/// The tensors of a dictionary. A name that is there twice has its last value, as in Python.
fn tensors(pickle: &Pickle, dict: &[(Id, Id)]) -> Result<Vec<(String, Tensor)>, String> {
    let mut all: Vec<(String, Tensor)> = vec![];
    let mut places = HashMap::new();
    for &(key, value) in dict {
        let Object::Text(name) = pickle.get(key) else { continue };
        match pickle.get(value) {
            Object::Tensor(tensor) => match places.get(name) {
                Some(&at) => all[at] = (name.to_string(), (**tensor).clone()),
                None => {
                    places.insert(name.clone(), all.len());
                    all.push((name.to_string(), (**tensor).clone()));
                }
            },
            Object::Opaque(class) if class.starts_with("torch._") => {
                return Err(format!("tensor `{name}` is made by {class}, which is not read here"));
            }
            _ => {} // no weights: a counter of epochs, options and the like
        }
    }
    Ok(all)
}

/// The class of a pickled model, and the key that it is under.
fn module(pickle: &Pickle) -> Option<(String, String)> {
    let class = |object: &Object| match object {
        Object::Opaque(class) if class.contains('.') => Some(class.to_string()),
        _ => None,
    };
    match pickle.root() {
        Object::Dict(dict) => dict.iter().find_map(|&(key, value)| match pickle.get(key) {
            Object::Text(key) if !key.contains("opt") && !key.contains("arg") && !key.contains("sched") => {
                class(pickle.get(value)).map(|class| (class, format!("[\"{key}\"]")))
            }
            _ => None,
        }),
        root => class(root).map(|class| (class, String::new())),
    }
}

/// Why a pickled model is refused, and how its weights are saved.
fn pickled(class: &str, at: &str) -> String {
    format!(
        "holds an object of the class {class}, which only its code can read; save its weights where that code is:\n  \
         import torch\n  model = torch.load(\"FILE\", weights_only=False){at}\n  torch.save(model.state_dict(), \"weights.pth\")"
    )
}
