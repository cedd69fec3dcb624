//! Logistic regression and multi-layer perceptrons: only 2-D weights, chained by shape, with ReLU between them; the
//! input is flattened. Layers are in the natural order of their names (1, 2, 10) where their shapes chain, else in an
//! order that does.

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::net::{Builder, Network, Shape, Source};
use crate::{Error, Result};

pub(super) fn fits(_: &dyn Source) -> bool {
    true // the last resort: `compose` reports what does not fit
}

/// A row of features as long as the first weight's rows.
pub(super) fn image(checkpoint: &Checkpoint) -> Result<Option<Shape>> {
    let names: Vec<String> = checkpoint.names().map(String::from).collect();
    let shape = |name: &str| checkpoint.shape(name).map(<[usize]>::to_vec);
    let chain = chain(&names, &shape)?;
    Ok(shape(&chain[0]).map(|first| Shape::new(1, 1, first[1])))
}

pub(super) fn compose(source: &mut dyn Source, image: Shape, _: &Value, names: &[String]) -> Result<Network> {
    let chain = chain(names, &|name| source.shape(name).map(<[usize]>::to_vec))?;
    let (mut b, mut x) = Builder::new(source, image);
    let first = b.side(&chain[0], 1)?;
    if first != image.len() {
        let expected = format!("images of {first} values (`{}` reads so many)", chain[0]);
        return Err(Error::shape("mlp", expected, format!("{}x{}x{}", image.c, image.h, image.w)));
    }
    if image.positions() > 1 {
        x = b.flatten(x);
    }
    for (i, weight) in chain.iter().enumerate() {
        if i > 0 {
            x = b.relu(x);
        }
        let outputs = b.side(weight, 0)?;
        let name = weight.strip_suffix(".weight").unwrap_or(weight);
        x = b.linear_named(x, name, weight, &format!("{name}.bias"), outputs)?;
    }
    b.finish(x)
}

/// The weights in the order in which each one's rows are the next one's columns.
fn chain(names: &[String], shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<Vec<String>> {
    let mut weights: Vec<(String, usize, usize)> = vec![];
    for name in names {
        match shape(name).as_deref() {
            Some(&[o, i]) => weights.push((name.clone(), o, i)),
            Some(&[_]) if name.ends_with("bias") => {}
            _ => {
                let reason = format!(
                    "tensor `{name}` is no weight matrix or bias of an MLP, and no other family fits"
                );
                return Err(Error::config(format!("{reason}; --arch names one")));
            }
        }
    }
    weights.sort_by_key(|(name, ..)| natural(name));
    let chains = |order: &[usize]| order.windows(2).all(|pair| weights[pair[0]].1 == weights[pair[1]].2);
    let mut order: Vec<usize> = (0..weights.len()).collect();
    if weights.is_empty() || !(chains(&order) || search(&mut order, 0, &chains)) {
        let listed: Vec<String> = weights.iter().map(|(name, o, i)| format!("`{name}` [{o}, {i}]")).collect();
        let reason = "the weights' shapes do not chain into an MLP";
        return Err(Error::config(format!("{reason}: {}", listed.join(", "))));
    }
    Ok(order.into_iter().map(|i| weights[i].0.clone()).collect())
}

/// Tries the orders of `order[from..]` until one chains.
fn search(order: &mut [usize], from: usize, chains: &dyn Fn(&[usize]) -> bool) -> bool {
    if from == order.len() {
        return chains(order);
    }
    for i in from..order.len() {
        order.swap(from, i);
        if chains(&order[..=from]) && search(order, from + 1, chains) {
            return true;
        }
        order.swap(from, i);
    }
    false
}

/// A name as text and numbers, so that 10 comes after 2.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = vec![];
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let digits = rest[text..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - text);
        parts.push((rest[..text].to_string(), rest[text..text + digits].parse().unwrap_or(u64::MAX)));
        rest = &rest[text + digits..];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(weights: &[(&str, &[usize])]) -> Result<Vec<String>> {
        let names: Vec<String> = weights.iter().map(|(name, _)| name.to_string()).collect();
        chain(&names, &|name| weights.iter().find(|(n, _)| *n == name).map(|(_, s)| s.to_vec()))
    }

    #[test]
    fn layers_follow_their_numbers_where_that_chains_and_their_shapes_otherwise() {
        let numbered = order(&[
            ("fc10.weight", &[3, 4]),
            ("fc2.weight", &[4, 4]),
            ("fc2.bias", &[4]),
            ("fc1.weight", &[4, 4]),
        ]);
        assert_eq!(numbered.unwrap(), ["fc1.weight", "fc2.weight", "fc10.weight"]);
        let named = order(&[("hidden.weight", &[5, 4]), ("head.weight", &[3, 5])]);
        assert_eq!(named.unwrap(), ["hidden.weight", "head.weight"]);
        assert!(order(&[("a.weight", &[5, 4]), ("b.weight", &[3, 6])]).is_err());
        assert!(
            order(&[("a.weight", &[5, 4]), ("scale", &[3])]).unwrap_err().to_string().contains("`scale`")
        );
    }
}
