//! Model families: make a [`Network`] in train form from the tensors of a checkpoint, or from the shapes of a new
//! model.
//!
//! Each family is one file that only composes layers; this one is the registry. Widths, depths and class counts are
//! read off the tensors; the family is named by `--arch` or `config.json`, else recognised by tensor names.

mod cifar_resnet;
mod create;
mod mlp;
mod mnist_vit;
mod resnet;
mod sequential;
mod vgg;
mod vit;

use serde_json::Value;

pub use create::{Created, create};
pub(crate) use create::{resnet50, vit16};

use crate::checkpoint::Checkpoint;
use crate::loss::Loss;
use crate::net::{Activation, Builder, Network, Shape, Source};
use crate::{Error, Result};

/// A model read from a checkpoint.
pub struct Model {
    /// In train form; `freeze()` gives the form that the stages run.
    pub network: Network,
    /// The family's name.
    pub family: &'static str,
    /// The inputs as its config describes them.
    pub inputs: InputConfig,
}

/// A model's inputs as its config describes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputConfig {
    /// Mean per channel, of values from 0 to 1.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel.
    pub std: Option<Vec<f32>>,
    /// The image's shape.
    pub shape: Option<Shape>,
}

/// A family of models.
struct Family {
    name: &'static str,
    /// Whether the name of an architecture belongs to this family.
    named: fn(&str) -> bool,
    /// Whether the tensors look like this family.
    fits: fn(&dyn Source) -> bool,
    /// The image shape where neither data nor config give one.
    image: fn(&Checkpoint) -> Result<Option<Shape>>,
    /// Composes the network; the value is `config.json` or null.
    compose: fn(&mut dyn Source, Shape, &Value, &[String]) -> Result<Network>,
}

const FAMILIES: [Family; 7] = [
    Family {
        name: "sequential",
        named: |arch| matches!(arch, "sequential" | "small_cnn"),
        fits: sequential::fits,
        image: |_| Ok(None),
        compose: sequential::compose,
    },
    Family {
        name: "resnet-cifar",
        named: |arch| arch.starts_with("resnet"),
        fits: cifar_resnet::fits,
        image: |_| Ok(Some(Shape::new(32, 32, 3))),
        compose: cifar_resnet::compose,
    },
    Family {
        name: "resnet",
        named: |arch| ["resnet", "resnext", "wide_resnet"].iter().any(|name| arch.starts_with(name)),
        fits: resnet::fits,
        image: |_| Ok(Some(Shape::new(224, 224, 3))),
        compose: resnet::compose,
    },
    Family {
        name: "vgg",
        named: |arch| arch.starts_with("vgg"),
        fits: vgg::fits,
        image: |_| Ok(Some(Shape::new(224, 224, 3))),
        compose: vgg::compose,
    },
    Family {
        name: "vit-mnist",
        named: |arch| arch == "vit-mnist" || arch == "mnist_vit",
        fits: mnist_vit::fits,
        image: |_| Ok(Some(Shape::new(28, 28, 1))),
        compose: mnist_vit::compose,
    },
    Family {
        name: "vit",
        named: |arch| arch.starts_with("vit") || arch.starts_with("deit"),
        fits: vit::fits,
        image: |checkpoint| Ok(vit::image(checkpoint)),
        compose: vit::compose,
    },
    Family {
        name: "mlp",
        named: |arch| matches!(arch, "mlp" | "logistic" | "linear"),
        fits: mlp::fits,
        image: mlp::image,
        compose: mlp::compose,
    },
];

/// Reads the model of a checkpoint. `arch` names the architecture where the config does not; `image` is the shape of
/// the data's images, where there are any (it wins over the config's: many families take any size).
///
/// # Errors
/// Where no family fits, or a tensor is missing, of another shape, left over, or not finite; the message names it.
pub fn load(checkpoint: &Checkpoint, arch: Option<&str>, image: Option<Shape>) -> Result<Model> {
    let config = checkpoint.config().unwrap_or(&Value::Null);
    let inputs = inputs(checkpoint);
    let mut reader = checkpoint.reader();
    let family = family(checkpoint, arch.or_else(|| architecture(config)), &reader)?;
    let named = |error| match error {
        Error::Config(reason) => Error::checkpoint(checkpoint.path(), reason), // name the model
        other => other,
    };
    let shape = match image.or(inputs.shape) {
        Some(shape) => shape,
        None => (family.image)(checkpoint).map_err(named)?.ok_or_else(|| {
            Error::checkpoint(
                checkpoint.path(),
                "does not say the size of its images; config.json needs \"input_size\": [c, h, w]",
            )
        })?,
    };
    let names: Vec<String> = checkpoint.names().map(String::from).collect();
    let mut network = (family.compose)(&mut reader, shape, config, &names).map_err(named)?;
    network.loss = loss(config).map_err(named)?;
    reader.finish()?;
    if let Some(classes) = classes(config).filter(|&classes| classes != network.classes()) {
        let found = network.classes();
        let reason = format!("config.json says {classes} classes, the tensors have {found}");
        return Err(Error::checkpoint(checkpoint.path(), reason));
    }
    Ok(Model { network, family: family.name, inputs })
}

/// The family, from an architecture's name and the tensors.
fn family(checkpoint: &Checkpoint, arch: Option<&str>, source: &dyn Source) -> Result<&'static Family> {
    let Some(arch) = arch else {
        return FAMILIES.iter().find(|family| (family.fits)(source)).ok_or_else(|| {
            let reason =
                format!("is no family that is known here by its tensor names; --arch takes {}", known());
            Error::checkpoint(checkpoint.path(), reason)
        });
    };
    let arch = arch.to_ascii_lowercase();
    let named: Vec<&Family> = FAMILIES.iter().filter(|f| f.name == arch || (f.named)(&arch)).collect();
    let fitting = named.iter().find(|family| (family.fits)(source)).or(named.last());
    fitting
        .copied()
        .ok_or_else(|| Error::config(format!("architecture `{arch}` is not known; there are {}", known())))
}

fn known() -> String {
    FAMILIES.map(|family| family.name).join(", ")
}

/// The name of the architecture in a config: timm's `architecture`, Hugging Face's `model_type` or first of
/// `architectures`.
fn architecture(config: &Value) -> Option<&str> {
    let listed = config.get("architectures").and_then(|listed| listed.get(0));
    config.get("architecture").or(config.get("model_type")).or(listed).and_then(Value::as_str)
}

/// The number of classes in a config: `num_classes`, `num_labels`, or the number of entries of `id2label`.
fn classes(config: &Value) -> Option<usize> {
    let number = |key: &str| config.get(key).and_then(Value::as_u64).map(|classes| classes as usize);
    let named = || config.get("id2label").and_then(Value::as_object).map(|names| names.len());
    number("num_classes").or_else(|| number("num_labels")).or_else(named)
}

/// The loss of a config: `problem_type` in Hugging Face's words, and `label_smoothing`.
fn loss(config: &Value) -> Result<Loss> {
    let loss = match config.get("problem_type").and_then(Value::as_str) {
        None | Some("single_label_classification") => {
            let smoothing = config.get("label_smoothing").filter(|value| !value.is_null());
            let smoothing = smoothing.map_or(Some(0.0), Value::as_f64);
            Loss::CrossEntropy {
                smoothing: smoothing.ok_or_else(|| Error::config("\"label_smoothing\" is no number"))?,
            }
        }
        Some("multi_label_classification") => Loss::BinaryCrossEntropy,
        Some(other) => {
            let known = "single_label_classification and multi_label_classification";
            return Err(Error::config(format!(
                "\"problem_type\": \"{other}\" is not known; there are {known}"
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

/// The nonlinearity that a config's `hidden_act` names, in Hugging Face's words.
fn activation(config: &Value, default: Activation) -> Result<Activation> {
    match config.get("hidden_act").and_then(Value::as_str) {
        None => Ok(default),
        Some(word) => Activation::named(word).ok_or_else(|| {
            let names = Activation::names();
            Error::config(format!("\"hidden_act\": \"{word}\" is not known here; there are {names}"))
        }),
    }
}

/// Image size and normalisation from timm's and Hugging Face's configs.
pub fn inputs(checkpoint: &Checkpoint) -> InputConfig {
    let config = checkpoint.config().unwrap_or(&Value::Null);
    let preprocessor = checkpoint.preprocessor().unwrap_or(&Value::Null);
    let timm = config.get("pretrained_cfg").unwrap_or(config);
    let numbers = |value: Option<&Value>| -> Option<Vec<f32>> {
        value?.as_array()?.iter().map(|v| v.as_f64().map(|v| v as f32)).collect()
    };
    let sides = |value: Option<&Value>| -> Option<Vec<usize>> {
        value?.as_array()?.iter().map(|v| v.as_u64().map(|v| v as usize)).collect()
    };
    let timm_shape = sides(timm.get("input_size")).and_then(|s| match s[..] {
        [c, h, w] => Some(Shape::new(h, w, c)),
        _ => None,
    });
    let hugging_face_shape = || {
        let side = config.get("image_size")?.as_u64()? as usize;
        let c = config.get("num_channels").and_then(Value::as_u64).unwrap_or(3) as usize;
        Some(Shape::new(side, side, c))
    };
    InputConfig {
        mean: numbers(timm.get("mean")).or_else(|| numbers(preprocessor.get("image_mean"))),
        std: numbers(timm.get("std")).or_else(|| numbers(preprocessor.get("image_std"))),
        shape: timm_shape.or_else(hugging_face_shape),
    }
}

/// The class count of a head's weight.
fn rows(b: &Builder, weight: &str) -> Result<usize> {
    b.side(weight, 0)
}
