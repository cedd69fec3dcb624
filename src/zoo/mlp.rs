//! Logistic regression and multi-layer perceptrons: only 2-D weights, chained by shape, with one nonlinearity between
//! them (`hidden_act` of the config, else ReLU); the input is flattened. What `nn.Linear` saves alone, `weight` and
//! `bias`, is one too.
//!
//! Layers are in the order of the numbers in their names (1, 2, 10) where these names differ in numbers only. Any other
//! order must follow from the shapes: a model whose layers chain in two orders is refused.

use super::family::{Family, Given, Reads, start};
use super::names::{Fit, listed};
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::net::{Activation, Network, Shape, Source};

pub(super) const FAMILY: Family = Family {
    name: "mlp",
    named: |arch| matches!(arch, "mlp" | "logistic" | "linear"),
    fit,
    reads: Reads::Images { usual: image, any_size: false, compose },
};

/// Fits where every tensor is a weight matrix or a bias; no model with a norm's scale is near.
fn fit(given: &Given) -> Option<Fit> {
    let axes = |name: &str| given.source.shape(name).map_or(0, <[usize]>::len);
    let normed = |name: &&String| axes(name) == 1 && is_weight(name);
    if given.names.iter().any(|name| normed(&name)) {
        return None;
    }
    let buffers = given.normalisation();
    let placed = |name: &String| {
        (is_weight(name) && axes(name) == 2)
            || (is_bias(name) && axes(name) == 1)
            || buffers.as_ref().is_some_and(|(mean, std)| [mean, std].contains(&name))
            || name.ends_with("n_averaged")
    };
    let misplaced: Vec<String> = given.names.iter().filter(|name| !placed(name)).cloned().collect();
    let (fits, placed) = (misplaced.is_empty(), given.names.len() - misplaced.len());
    Some(Fit { missing: vec![], misplaced, fits, placed })
}

fn is_weight(name: &str) -> bool {
    name == "weight" || name.ends_with(".weight")
}

fn is_bias(name: &str) -> bool {
    name == "bias" || name.ends_with(".bias")
}

/// A row of features as long as the first weight's rows.
fn image(given: &Given) -> Result<Option<Shape>> {
    let shape = |name: &str| given.source.shape(name).map(<[usize]>::to_vec);
    let chain = chain(given.names, &shape)?;
    Ok(shape(&chain[0]).map(|first| Shape::new(1, 1, first[1])))
}

pub(super) fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let chain = chain(reading.names, &|name| source.shape(name).map(<[usize]>::to_vec))?;
    let activation = reading.activation(&["hidden_act"])?;
    if chain.len() > 1 {
        reading.saw(format!("layers in the order {}", chain.join(", ")));
        if activation.is_none() {
            reading.assume("ReLU between the layers (\"hidden_act\" in config.json names another)");
        }
    }
    let (mut b, mut x) = start(source, image, reading)?;
    let first = b.side(&chain[0], 1)?;
    if first != image.len() {
        let expected = format!("images of {first} values, which `{}` takes", chain[0]);
        return Err(Error::shape(
            "mlp",
            expected,
            format!("{}x{}x{}, {} values", image.c, image.h, image.w, image.len()),
        ));
    }
    if image.positions() > 1 {
        x = b.flatten(x);
    }
    for (i, weight) in chain.iter().enumerate() {
        if i > 0 {
            x = b.activation(x, activation.unwrap_or(Activation::Relu));
        }
        let outputs = b.side(weight, 0)?;
        let name = weight.strip_suffix(".weight").unwrap_or(weight);
        let bias = if name == "weight" { "bias".to_string() } else { format!("{name}.bias") };
        x = b.linear_named(x, name, weight, &bias, outputs)?;
    }
    b.finish(x)
}

/// The weights in the order in which each one's rows are the next one's columns.
fn chain(names: &[String], shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<Vec<String>> {
    let mut weights: Vec<(String, usize, usize)> = vec![];
    for name in names.iter().filter(|name| is_weight(name)) {
        match shape(name).as_deref() {
            Some(&[o, i]) => weights.push((name.clone(), o, i)),
            found => {
                let found = found.unwrap_or(&[]);
                let reason = format!("tensor `{name}` has shape {found:?}, where an MLP has a matrix");
                return Err(Error::config(reason));
            }
        }
    }
    weights.sort_by_key(|(name, ..)| natural(name));
    let numbered = |a: usize, b: usize| texts(&weights[a].0) == texts(&weights[b].0);
    let follows = |a: usize, b: usize| weights[a].1 == weights[b].2;
    let all: Vec<usize> = (0..weights.len()).collect();
    let mut orders = vec![];
    // Layers whose names differ in numbers only keep the order of these numbers, if any such order chains.
    for keeps_numbers in [true, false] {
        if orders.is_empty() {
            let may_follow = |order: &[usize], next: usize| {
                let earlier = |i: usize| i < next && !order.contains(&i) && numbered(i, next);
                !(keeps_numbers && (0..weights.len()).any(earlier))
            };
            search(&mut vec![], &all, &follows, &may_follow, &mut orders);
        }
    }
    let named = |order: &Vec<usize>| order.iter().map(|&i| weights[i].0.clone()).collect::<Vec<String>>();
    match &orders[..] {
        [order] => Ok(named(order)),
        [] => {
            let all = weights.iter().map(|(name, o, i)| format!("`{name}` [{o}, {i}]"));
            let all: Vec<String> = all.collect();
            let reason = "the weights' shapes do not chain into an MLP";
            Err(Error::config(format!("{reason}: {}", all.join(", "))))
        }
        [one, other, ..] => Err(Error::config(format!(
            "the order of the layers cannot be told: {} chain, and so do {}; a config.json of the architecture \
             \"sequential\" lists them, as {{\"layers\": [\"flatten\", {{\"linear\": \"{}\"}}, \"relu\", ..]}}",
            listed(&named(one)),
            listed(&named(other)),
            weights[one[0]].0.trim_end_matches(".weight"),
        ))),
    }
}

/// Extends `order` by the layers that may come next, until two whole orders are found.
fn search(
    order: &mut Vec<usize>,
    all: &[usize],
    follows: &dyn Fn(usize, usize) -> bool,
    may_follow: &dyn Fn(&[usize], usize) -> bool,
    found: &mut Vec<Vec<usize>>,
) {
    if order.len() == all.len() && !order.is_empty() {
        found.push(order.clone());
        return;
    }
    for &next in all {
        let chains = order.last().is_none_or(|&last| follows(last, next));
        if found.len() < 2 && chains && !order.contains(&next) && may_follow(order, next) {
            order.push(next);
            search(order, all, follows, may_follow, found);
            order.pop();
        }
    }
}

/// The parts of a name between its numbers.
fn texts(name: &str) -> Vec<String> {
    natural(name).into_iter().map(|(text, _)| text).collect()
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
        let wide = order(&[("a.weight", &[5, 4]), ("b.weight", &[3, 5, 1])]).unwrap_err().to_string();
        assert!(wide.contains("`b.weight`") && wide.contains("[3, 5, 1]"), "{wide}");
    }

    #[test]
    fn layers_that_chain_in_two_orders_are_refused() {
        let ambiguous =
            order(&[("hidden.weight", &[20, 20]), ("input.weight", &[20, 20]), ("output.weight", &[4, 20])]);
        let error = ambiguous.unwrap_err().to_string();
        for word in ["`hidden.weight`, `input.weight`", "`input.weight`, `hidden.weight`", "\"layers\""] {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
        // Numbers decide among the layers that have them, shapes about the others.
        let headed = order(&[
            ("body.0.weight", &[6, 6]),
            ("body.2.weight", &[6, 6]),
            ("body.10.weight", &[6, 6]),
            ("head.weight", &[3, 6]),
        ]);
        assert_eq!(headed.unwrap(), ["body.0.weight", "body.2.weight", "body.10.weight", "head.weight"]);
        assert!(order(&[("body.0.weight", &[6, 6]), ("head.weight", &[6, 6])]).is_err());
        // One chain alone is taken even against the numbers.
        let against = order(&[("fc1.weight", &[3, 5]), ("fc2.weight", &[5, 4])]);
        assert_eq!(against.unwrap(), ["fc2.weight", "fc1.weight"]);
    }
}
