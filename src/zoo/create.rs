//! New models: shapes from a short description, initialised as PyTorch does by default.
//!
//! `mlp:100-50` has these hidden widths; `cnn:8-16-16+64` convolutions of these widths (3×3, batch norm, ReLU, 2×2 max
//! pooling while the image is larger than 4 pixels) and, after the plus, hidden linear layers; `resnet20` (32, 44, 56,
//! 110) the CIFAR ResNets; [`super::plans`] has the published networks of other families; `distilbert:120-32-2-4-64` and
//! `bert:..` are transformers of texts with so many token ids, channels, blocks, heads and positions, and four times as many
//! hidden channels. Inputs and classes follow from the data.

use serde_json::{Value, json};

use super::choices::Choices;
use super::init::{Init, initial};
use super::reading::Reading;
use super::{bert, cifar_resnet, mlp, plans, sequential};
use crate::data::InputKind;
use crate::error::{Error, Result};
use crate::net::{Network, Shape};

/// A new model and the `config.json` that lets it be read again.
pub struct Created {
    /// In train form.
    pub network: Network,
    /// What to write beside it.
    pub config: Value,
}

/// What a description of a transformer of texts says of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextSizes {
    /// Token ids; where a description does not say them, they are those of a tokenizer.
    pub token_ids: Option<usize>,
    /// The most tokens of a text.
    pub positions: usize,
}

/// The sizes of `distilbert:64-2-4-128` (channels, blocks, heads, positions), or with the number of token ids before them; none
/// of another description.
pub fn text_sizes(spec: &str) -> Option<TextSizes> {
    let (name, sizes) = spec.split_once(':')?;
    bert::family(name)?;
    match numbers(spec, sizes).ok()?[..] {
        [token_ids, _, _, _, positions] => Some(TextSizes { token_ids: Some(token_ids), positions }),
        [_, _, _, positions] => Some(TextSizes { token_ids: None, positions }),
        _ => None,
    }
}

/// A description with `count` token ids, where it does not have their number.
pub fn with_token_ids(spec: &str, count: usize) -> String {
    match text_sizes(spec) {
        Some(TextSizes { token_ids: None, .. }) => spec.replacen(':', &format!(":{count}-"), 1),
        _ => spec.to_string(),
    }
}

/// Makes a new model of the description `spec` for images of that shape, or for texts.
///
/// # Errors
/// Where the description is not understood or does not fit the input.
pub fn create(spec: &str, input: impl Into<InputKind>, classes: usize, seed: u64) -> Result<Created> {
    let (family, widths) = spec.split_once(':').unwrap_or((spec, ""));
    match (bert::family(family), input.into()) {
        (None, InputKind::Image(image)) => of_images(spec, family, widths, image, classes, seed),
        (Some(family), InputKind::Text { tokens }) => {
            let sizes: [usize; 5] = numbers(spec, widths)?.try_into().map_err(|_| misunderstood(spec))?;
            of_texts(family, sizes, tokens, classes, seed)
        }
        (Some(_), input) => Err(Error::config(format!(
            "`{spec}` reads texts, and the data are {input}; mlp:100-50, cnn:8-16-16+64 and resnet20 read images"
        ))),
        (None, input) => Err(Error::config(format!(
            "`{spec}` reads images, and the data are {input}; distilbert:64-2-4-128 and bert:64-2-4-128 read texts"
        ))),
    }
}

/// A transformer of texts: the number of token ids, of channels, of blocks, of heads and of positions.
fn of_texts(
    family: &bert::Names,
    sizes: [usize; 5],
    tokens: usize,
    classes: usize,
    seed: u64,
) -> Result<Created> {
    let mut init = Init::new(seed);
    init.shapes.extend(family.shapes(sizes, classes));
    let config = family.config(sizes, classes);
    let network = bert::compose(&mut init, tokens, &mut reading(&config, &[]), family)?;
    Ok(Created { network, config })
}

fn of_images(
    spec: &str,
    family: &str,
    widths: &str,
    image: Shape,
    classes: usize,
    seed: u64,
) -> Result<Created> {
    let mut config = json!({
        "architecture": family,
        "num_classes": classes,
        "input_size": [image.c, image.h, image.w],
    });
    let mut init = Init::new(seed);
    let network = match family {
        "mlp" | "logistic" => {
            let mut last = image.len();
            for (i, width) in numbers(spec, widths)?.into_iter().chain([classes]).enumerate() {
                init.layer(&format!("fc{}", i + 1), &[width, last], true);
                last = width;
            }
            config["hidden_act"] = json!("relu");
            let names = init.names();
            mlp::compose(&mut init, image, &mut reading(&config, &names))?
        }
        "cnn" => {
            let (convs, hidden) = widths.split_once('+').unwrap_or((widths, ""));
            let mut layers = vec![];
            let mut shape = image;
            for (i, width) in numbers(spec, convs)?.into_iter().enumerate() {
                let (conv, norm) = (format!("conv{}", i + 1), format!("bn{}", i + 1));
                init.layer(&conv, &[width, shape.c, 3, 3], false);
                init.batch_norm(&norm, width);
                shape.c = width;
                layers.extend([
                    json!({"conv": conv, "padding": 1}),
                    json!({"batch_norm": norm}),
                    json!("relu"),
                ]);
                if shape.h.min(shape.w) > 4 {
                    layers.push(json!({"max_pool": 2}));
                    (shape.h, shape.w) = (shape.h / 2, shape.w / 2);
                }
            }
            layers.push(json!("flatten"));
            let mut last = shape.len();
            for (i, width) in numbers(spec, hidden)?.into_iter().enumerate() {
                init.layer(&format!("fc{}", i + 1), &[width, last], true);
                layers.extend([json!({"linear": format!("fc{}", i + 1)}), json!("relu")]);
                last = width;
            }
            init.layer("head", &[classes, last], true);
            layers.push(json!({"linear": "head"}));
            config["architecture"] = json!("sequential");
            config["layers"] = json!(layers);
            sequential::compose(&mut init, image, &mut reading(&config, &[]))?
        }
        _ => {
            let described = (spec, family, &numbers(spec, widths)?[..]);
            if let Some(plan) = plans::declare(&mut init, described, image, classes)? {
                let (network, config) = plan.network(&mut init, image, classes)?;
                return Ok(Created { network, config });
            }
            let depth = family.strip_prefix("resnet").and_then(|depth| depth.parse::<usize>().ok());
            let depth = depth.filter(|depth| *depth >= 8 && (depth - 2) % 6 == 0 && widths.is_empty());
            let depth = depth.ok_or_else(|| misunderstood(spec))?;
            declare_cifar_resnet(&mut init, (depth - 2) / 6, image.c, classes);
            cifar_resnet::compose(&mut init, image, &mut reading(&config, &[]))?
        }
    };
    Ok(Created { network, config })
}

/// torchvision's ResNet-50, of `width` channels in the stem (64 as published).
///
/// # Errors
/// Where it does not fit the image.
pub(crate) fn resnet50(image: Shape, classes: usize, width: usize, seed: u64) -> Result<Network> {
    Ok(create(&format!("resnet50:{width}"), image, classes, seed)?.network)
}

/// timm's ViT with patches of 16 by 16 (ViT-B has 12 blocks of 768 channels); one head per 64 channels, at least one.
///
/// # Errors
/// Where it does not fit the image.
pub(crate) fn vit16(image: Shape, classes: usize, width: usize, depth: usize, seed: u64) -> Result<Network> {
    let heads = (width / 64).max(1);
    Ok(create(&format!("vit:{width}-{depth}-{heads}-16"), image, classes, seed)?.network)
}

fn reading<'a>(config: &'a Value, names: &'a [String]) -> Reading<'a> {
    Reading::new(config, &Choices::default(), names)
}

fn misunderstood(spec: &str) -> Error {
    Error::config(format!(
        "`{spec}` is no model that can be made; for images there are mlp:100-50 and cnn:8-16-16+64 (widths from 1 to 65536), resnet20 and \
         other published networks (docs/MODELS.md lists them), and for texts distilbert:64-2-4-128 and bert:64-2-4-128 (channels, \
         blocks, heads, positions), with the number of token ids before these where the data have no words"
    ))
}

/// Widths joined by dashes.
fn numbers(spec: &str, widths: &str) -> Result<Vec<usize>> {
    let parts = widths.split('-').filter(|part| !part.is_empty());
    let number = |part: &str| part.parse::<usize>().ok().filter(|width| (1..=65_536).contains(width));
    parts.map(|part| number(part).ok_or_else(|| misunderstood(spec))).collect()
}

/// A network of the same architecture and loss with new initial values, in train form.
pub fn renewed(net: &Network, seed: u64) -> Network {
    let mut new = net.thaw();
    for (place, param) in new.params.iter_mut().enumerate() {
        param.value = initial(seed, place, param.role, param.value.len()).into();
    }
    new
}

/// The tensors of a CIFAR ResNet with this many blocks in each of its three stages.
fn declare_cifar_resnet(init: &mut Init, blocks: usize, channels: usize, classes: usize) {
    init.normed("conv1", "bn1", &[16, channels, 3, 3]);
    let mut last = 16;
    for (stage, width) in [(1, 16), (2, 32), (3, 64)] {
        for block in 0..blocks {
            let part = |part: &str| format!("layer{stage}.{block}.{part}");
            init.normed(&part("conv1"), &part("bn1"), &[width, last, 3, 3]);
            init.normed(&part("conv2"), &part("bn2"), &[width, width, 3, 3]);
            last = width;
        }
    }
    init.layer("linear", &[classes, 64], true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_become_models_of_the_stated_widths() {
        let image = Shape::new(28, 28, 1);
        let mlp = create("mlp:100", image, 10, 1).unwrap().network;
        assert_eq!((mlp.parameters(), mlp.units().len()), (79_510, 110));
        let cnn = create("cnn:8-16-16+64", image, 10, 1).unwrap().network;
        assert_eq!(cnn.units().len(), 8 + 16 + 16 + 64 + 10);
        let resnet = create("resnet20", Shape::new(32, 32, 3), 10, 1).unwrap().network;
        assert_eq!(resnet.layers.len(), 20);
        assert_eq!(create("mlp:100", image, 10, 1).unwrap().network, mlp);
        let other = create("mlp:100", image, 10, 2).unwrap().network;
        assert_ne!(other, mlp);
        let renewed = renewed(&mlp.freeze(), 2);
        assert_eq!((renewed.nodes == mlp.nodes, renewed.is_frozen()), (true, false));
        assert!(renewed.params.iter().zip(&mlp.params).all(|(a, b)| a.name == b.name && a.value != b.value));
        let text = InputKind::Text { tokens: 12 };
        let distilbert = create("distilbert:120-32-2-4-32", text, 5, 1).unwrap().network;
        assert_eq!((distilbert.units().len(), distilbert.kind()), (2 * (5 * 32 + 128) + 32 + 5, text));
        assert_eq!((distilbert.vocabulary(), distilbert.ordinary.clone()), (Some(120), 1..120));
        let bert = create("bert:120-32-2-4-32", text, 5, 1).unwrap().network;
        assert_eq!(bert.parameters(), distilbert.parameters() + 2 * 32);
        for (spec, input) in [("mlp:4", text), ("bert:9-8-1-2-12", image.into()), ("bert:9-8-1-3-12", text)] {
            assert!(create(spec, input, 2, 1).is_err(), "{spec}");
        }
        assert_eq!(text_sizes("bert:8-1-2-12"), Some(TextSizes { token_ids: None, positions: 12 }));
        assert_eq!((text_sizes("mlp:8-1-2-12"), text_sizes("bert:8")), (None, None));
        assert_eq!(with_token_ids("bert:8-1-2-12", 9), "bert:9-8-1-2-12");
        assert_eq!(with_token_ids("bert:7-8-1-2-12", 9), "bert:7-8-1-2-12");
        for spec in ["bert", "bert:9-8-1-2", "bert:9-8-1-2-11", "distilbert:9-8-1-2-12-1"] {
            assert!(create(spec, text, 2, 1).is_err(), "{spec}");
        }
        let published = Shape::new(224, 224, 3);
        let running = 2 * 26_560; // statistics
        assert_eq!(resnet50(published, 1000, 64, 1).unwrap().parameters(), 25_557_032 + running);
        assert_eq!(vit16(published, 1000, 768, 12, 1).unwrap().parameters(), 86_567_656);
        for spec in ["mlp:0", "mlp:x", "resnet21", "cat", "cnn:8+x"] {
            assert!(create(spec, image, 10, 1).is_err(), "{spec}");
        }
    }
}
