//! Model families: make a [`Network`] in train form from the tensors of a checkpoint, or from the shapes of a new
//! model.
//!
//! Each family is one file that only composes layers; this one is the registry. Widths, depths and class counts are
//! read off the tensors; the family is named by [`Choices::arch`] or `config.json`, else recognised by tensor names. What
//! tensors cannot tell is read off the config, chosen by the caller, or assumed and reported ([`Facts`]); a name, a key
//! or a tensor that may stand for another function is refused (docs/MODELS.md).

mod alexnet;
mod bert;
mod choices;
mod cifar_resnet;
mod convnext;
mod create;
mod densenet;
mod described;
mod efficientnet;
mod efficientnet_v2;
mod family;
mod graph;
mod init;
mod inputs;
mod mixer;
mod mlfn;
mod mlp;
mod mnist_vit;
mod mobilenet;
mod names;
mod osnet;
mod parts;
mod plans;
mod preact;
mod preprocessing;
mod reading;
mod regnet;
mod resnet;
mod sequential;
mod swin;
mod timm_blocks;
mod vgg;
mod vgg_face;
mod vit;

use std::path::Path;

use serde_json::Value;

pub use choices::{Choices, Stem};
pub use create::{Created, TextSizes, create, renewed, text_sizes, with_token_ids};
pub(crate) use create::{resnet50, vit16};
pub use described::{export, graph_config};
pub use inputs::{InputConfig, inputs};
pub use preprocessing::write_preprocess;
pub use reading::Facts;

use crate::checkpoint::{Checkpoint, Reader};
use crate::data::{Expected, InputKind};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::net::{Network, Shape};
use family::{Family, Given, Reads};
use names::{Fit, listed};
use reading::Reading;

/// A model read from a checkpoint.
pub struct Model {
    /// In train form; `freeze()` gives the form that the stages run.
    pub network: Network,
    /// The family's name.
    pub family: &'static str,
    /// The inputs as its config describes them.
    pub inputs: InputConfig,
    /// What is known from where.
    pub facts: Facts,
}

/// The families, in the order in which they are tried: what has the names of several is taken for the first that fits.
const FAMILIES: [Family; 24] = [
    graph::FAMILY, // which the config alone decides
    sequential::FAMILY,
    preact::FAMILY, // before ResNets, of which a wide one may have the names
    cifar_resnet::FAMILY,
    resnet::FAMILY,
    alexnet::FAMILY, // before VGG, of which a form has names that AlexNet has too
    vgg::FAMILY,
    vgg_face::FAMILY,
    densenet::FAMILY,
    mobilenet::FAMILY_2,
    mobilenet::FAMILY_3,
    efficientnet_v2::FAMILY, // before EfficientNet, of which a larger one has the names
    efficientnet::FAMILY,
    regnet::FAMILY,
    convnext::FAMILY,
    osnet::FAMILY,
    mlfn::FAMILY,
    mnist_vit::FAMILY,
    swin::FAMILY,
    mixer::FAMILY,
    vit::FAMILY,
    bert::DISTILBERT_FAMILY,
    bert::BERT_FAMILY,
    mlp::FAMILY,
];

/// Reads the model of a checkpoint. `arch` names the architecture where the config does not; `image` is the shape of
/// the data's images, where there are any (it wins over the config's: many families take any size).
///
/// # Errors
/// As [`load_as`].
pub fn load(checkpoint: &Checkpoint, arch: Option<&str>, image: Option<Shape>) -> Result<Model> {
    let choices = Choices { arch: arch.map(String::from), ..Choices::default() };
    load_as(checkpoint, &choices, image.map(InputKind::Image))
}

/// [`load`] with all that the caller can say about a model, for the images or texts of `data`.
///
/// # Errors
/// Where the architecture is not known or no family fits, or it reads images and the data are texts, or the reverse; where a tensor is missing, of another shape, left over, or
/// not finite; where the config has a key that changes the function and that the family does not support. The message
/// names it.
pub fn load_as(checkpoint: &Checkpoint, choices: &Choices, data: Option<InputKind>) -> Result<Model> {
    read(checkpoint, checkpoint.reader(), choices, data)
}

/// [`load_as`] for the samples of the file `data`. Where the model can be read, but not for these, the error names both, what each
/// has, and the option that helps.
///
/// # Errors
/// As [`load_as`].
pub fn load_for(checkpoint: &Checkpoint, choices: &Choices, data: &Path, kind: InputKind) -> Result<Model> {
    load_as(checkpoint, choices, Some(kind)).map_err(|error| match outline(checkpoint, choices) {
        Ok(model) => match (kind, model.network.kind()) {
            (InputKind::Image(found), takes @ InputKind::Image(shape)) if found != shape => {
                other_inputs(data, kind, &format!("the model {} takes", checkpoint.path().display()), takes)
            }
            _ => error,
        },
        Err(_) => error,
    })
}

/// That a file has inputs of another kind or size than is wanted; `wants` says by whom, as `--data has`.
pub fn other_inputs(path: &Path, found: InputKind, wants: &str, wanted: InputKind) -> Error {
    let remedy = match (found, wanted) {
        (InputKind::Image(a), InputKind::Image(b)) if a.c == b.c && b.positions() > 1 => {
            format!("; --resize {}x{} brings them there", b.h, b.w)
        }
        _ => String::new(),
    };
    Error::data(path, format!("has {found}, {wants} {wanted}{remedy}"))
}

/// What a model expects of data: the channels of its images, the most tokens of its texts, its outputs, the names of its
/// classes. What cannot be known without data is left open.
pub fn expected(checkpoint: &Checkpoint, choices: &Choices) -> Expected {
    let outline = outline(checkpoint, choices).ok();
    let kind = outline.as_ref().map(|model| model.network.kind());
    Expected {
        channels: match kind {
            Some(InputKind::Image(shape)) if shape.positions() > 1 => {
                Some(shape.c).filter(|channels| [1, 3].contains(channels))
            }
            _ => None,
        },
        positions: match kind {
            Some(InputKind::Text { tokens }) => Some(tokens),
            _ => None,
        },
        outputs: outline.map(|model| model.network.classes()),
        classes: inputs::class_names(checkpoint),
    }
}

/// [`load_as`] of a model whose values are not read: a network of the same form whose parameters are 0, in the time and
/// memory of the files' headers.
///
/// # Errors
/// As [`load_as`], but for values.
pub fn outline(checkpoint: &Checkpoint, choices: &Choices) -> Result<Model> {
    read(checkpoint, checkpoint.outline(), choices, None)
}

fn read(
    checkpoint: &Checkpoint,
    mut source: Reader,
    choices: &Choices,
    data: Option<InputKind>,
) -> Result<Model> {
    let named = |error| match error {
        Error::Config(reason) => Error::checkpoint(checkpoint.path(), reason), // name the model
        other => other,
    };
    let config = checkpoint.config().unwrap_or(&Value::Null);
    let inputs = inputs::read(checkpoint).map_err(named)?;
    let names: Vec<String> = checkpoint.names().map(String::from).collect();
    let given = Given { source: &source, names: &names, config };
    let arch = choices.arch.as_deref().map(|arch| vec![arch]).unwrap_or(architectures(config));
    let arch: Vec<String> = arch.into_iter().map(bare).collect();
    let family = family(checkpoint, &arch, &given)?;
    if let (Some((mean, std)), true) = (given.normalisation(), inputs.mean.is_some() || inputs.std.is_some())
    {
        let reason = format!(
            "normalises its inputs itself, by `{mean}` and `{std}`, and its config would do so before; take mean and \
             std out of the config"
        );
        return Err(Error::checkpoint(checkpoint.path(), reason));
    }
    let mut reading = Reading::new(config, choices, &names);
    reading.arch = arch.first().cloned();
    reading.image = inputs.shape;
    about_names(checkpoint, choices.arch.is_some(), &mut reading);
    let input = input(family, &given, &inputs, data, &mut reading).map_err(named)?;
    let mut network = family.network(&mut source, input, &mut reading).map_err(named)?;
    network.loss = loss(&mut reading, config).map_err(named)?;
    source.finish(family.name)?;
    if let Some(classes) = classes(config).filter(|&classes| classes != network.classes()) {
        let found = network.classes();
        let reason = format!("config.json says {classes} classes, the tensors have {found}");
        return Err(Error::checkpoint(checkpoint.path(), reason));
    }
    let facts = reading.finish(family.name).map_err(named)?;
    Ok(Model { network, family: family.name, inputs, facts })
}

/// What a network is to read: the data's, else the config's, else the usual.
fn input(
    family: &Family,
    given: &Given,
    config: &InputConfig,
    data: Option<InputKind>,
    reading: &mut Reading,
) -> Result<InputKind> {
    match &family.reads {
        Reads::Images { usual, any_size, .. } => {
            if let Some(known) = data.or(config.shape.map(InputKind::Image)) {
                return Ok(known);
            }
            let unsaid = "does not say the size of its images; config.json needs \"input_size\": [c, h, w]";
            let shape = usual(given)?.ok_or_else(|| Error::config(unsaid))?;
            if *any_size {
                let size = format!("{}x{}", shape.h, shape.w);
                reading.assume(format!("images of {size}, the usual size: the tensors take any"));
            }
            Ok(shape.into())
        }
        Reads::Either { said, .. } => {
            let known = data.or(said(given.config)?).or(config.shape.map(InputKind::Image));
            let unsaid =
                "does not say what it reads; config.json needs \"input_size\": [c, h, w], or \"tokens\"";
            known.ok_or_else(|| Error::config(unsaid))
        }
        Reads::Texts { most, .. } => {
            if *config != InputConfig::default() {
                let reason = "config.json: mean, std and the size of images are for a model of images, and the \
                              family reads texts";
                return Err(Error::config(reason));
            }
            let longest = most(given).map(|tokens| InputKind::Text { tokens });
            data.or(longest).ok_or_else(|| Error::config("has no table of positions"))
        }
    }
}

/// Keeps what is known from where about the family and the names.
fn about_names(checkpoint: &Checkpoint, chosen: bool, reading: &mut Reading) {
    match (&reading.arch, chosen) {
        (Some(arch), false) => reading.facts.config.push(format!("the architecture `{arch}`")),
        (Some(arch), true) => reading.facts.chosen.push(format!("the architecture `{arch}`")),
        (None, _) => reading.saw("the family, by the names"),
    }
    let left_out = checkpoint.ignored().iter().map(|pattern| format!("without the tensors `{pattern}`"));
    reading.facts.chosen.extend(left_out);
    if let Some(key) = checkpoint.weights() {
        reading.saw(format!("the weights under `{key}`"));
    }
    let prefix = checkpoint.prefix();
    if !prefix.is_empty() {
        reading.saw(format!("names behind `{prefix}`"));
    }
    let unknown = prefix.split_terminator('.').find(|part| !WRAPPERS.contains(part));
    if let Some(part) = unknown {
        reading.assume(format!(
            "the wrapper `{part}`, with which all names begin, adds nothing to the function"
        ));
    }
}

/// Names of wrappers that are known to add nothing.
const WRAPPERS: [&str; 8] = ["module", "_orig_mod", "model", "net", "network", "backbone", "1", "base_model"];

/// The family, from an architecture's names and the tensors.
fn family(checkpoint: &Checkpoint, arch: &[String], given: &Given) -> Result<&'static Family> {
    let fits: Vec<Option<Fit>> = FAMILIES.iter().map(|family| (family.fit)(given)).collect();
    let fitting = |i: &usize| fits[*i].as_ref().is_some_and(|fit| fit.fits);
    let mut candidates: Vec<usize> = (0..FAMILIES.len()).collect();
    for arch in arch {
        candidates.retain(|&i| FAMILIES[i].name == arch || (FAMILIES[i].named)(arch));
        if candidates.is_empty() {
            let path = checkpoint.path().display();
            let mut reason = format!("{path}: architecture `{arch}` is not known; there are {}", known());
            if let Some(i) = (0..FAMILIES.len()).find(fitting) {
                let name = FAMILIES[i].name;
                reason += &format!(
                    "; its tensors fit {name}: --arch {name} takes it for one, if that is what it is"
                );
            }
            return Err(Error::config(reason));
        }
    }
    if let Some(i) = candidates.iter().copied().find(fitting) {
        return Ok(&FAMILIES[i]);
    }
    let short = |i: &usize| fits[*i].as_ref().map(|fit| (*i, fit));
    let short = candidates.iter().filter_map(short).filter(|(_, fit)| !arch.is_empty() || fit.placed > 0);
    let nearest = short.min_by_key(|(_, fit)| fit.missing.len() + fit.misplaced.len());
    let prefix = match checkpoint.prefix() {
        "" => String::new(),
        prefix => format!(" (names behind `{prefix}`)"),
    };
    let reason = match nearest {
        Some((i, fit)) if arch.is_empty() => {
            format!(
                "fits no family that is known here{prefix}; nearest is {}: {}",
                FAMILIES[i].name,
                fit.misfits()
            )
        }
        Some((i, fit)) => format!("does not fit the family {}{prefix}: {}", FAMILIES[i].name, fit.misfits()),
        None => format!(
            "fits no family that is known here{prefix}: no family has tensors like {}",
            listed(given.names)
        ),
    };
    let remedy = "--ignore PATTERN leaves out tensors that play no part in the logits";
    Err(Error::checkpoint(checkpoint.path(), format!("{reason}. --arch names one of {}; {remedy}", known())))
}

fn known() -> String {
    FAMILIES.map(|family| family.name).join(", ")
}

/// A name in lower case, without a publisher before and a tag of weights behind (`timm/resnet18.a1_in1k`).
fn bare(arch: &str) -> String {
    let name = arch.rsplit('/').next().unwrap_or(arch);
    name.split('.').next().unwrap_or(name).to_ascii_lowercase()
}

/// The names of the architecture in a config: timm's `architecture`, Hugging Face's `model_type` and first of
/// `architectures`; a family must know all that there are.
fn architectures(config: &Value) -> Vec<&str> {
    let listed = config.get("architectures").and_then(|listed| listed.get(0));
    let keys = ["architecture", "arch", "model_type"].map(|key| config.get(key));
    keys.into_iter().flatten().chain(listed).filter_map(Value::as_str).collect()
}

/// The number of classes in a config: `num_classes`, `num_labels`, or the number of entries of `id2label`.
fn classes(config: &Value) -> Option<usize> {
    let number = |key: &str| config.get(key).and_then(Value::as_u64).map(|classes| classes as usize);
    let named = || config.get("id2label").and_then(Value::as_object).map(|names| names.len());
    number("num_classes").or_else(|| number("num_labels")).or_else(named)
}

/// The loss of a config: `problem_type` in Hugging Face's words, and `label_smoothing`.
fn loss(reading: &mut Reading, config: &Value) -> Result<Loss> {
    let smoothing = reading.number(&["label_smoothing"])?.and(config["label_smoothing"].as_f64());
    let loss = match reading.word("problem_type")?.as_deref() {
        None | Some("single_label_classification") => {
            Loss::CrossEntropy { smoothing: smoothing.unwrap_or(0.0) }
        }
        Some("multi_label_classification") => Loss::BinaryCrossEntropy,
        Some(other) => {
            let known = "single_label_classification and multi_label_classification";
            return Err(Error::config(format!(
                "config.json: \"problem_type\": \"{other}\" is not known here; there are {known}"
            )));
        }
    };
    loss.check()?;
    Ok(loss)
}

/// Writes a loss to a config, as [`load`] reads it.
pub fn write_loss(config: &mut serde_json::Map<String, Value>, loss: Loss) {
    match loss {
        Loss::CrossEntropy { smoothing } if smoothing > 0.0 => {
            config.insert("label_smoothing".into(), smoothing.into());
        }
        Loss::CrossEntropy { .. } => {}
        Loss::BinaryCrossEntropy => {
            config.insert("problem_type".into(), "multi_label_classification".into());
        }
    }
}
