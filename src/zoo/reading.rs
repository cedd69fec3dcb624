//! What a family reads beside the tensors: `config.json`, key by key, and the caller's choices. A reading keeps what was
//! read and what had to be assumed. In the end it refuses a key of the config that changes the function and that the
//! family did not read, and a choice that the family has no use for.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::choices::{Choices, Stem};
use crate::checkpoint::matches;
use crate::error::{Error, Result};
use crate::net::{Activation, Shape};

/// Where the parts of a model's function are known from, one line for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Read off the names and shapes of the tensors.
    pub tensors: Vec<String>,
    /// Read off `config.json`.
    pub config: Vec<String>,
    /// Chosen by the caller.
    pub chosen: Vec<String>,
    /// Neither read nor chosen: the usual is assumed, and the numbers are wrong where that is not so.
    pub assumed: Vec<String>,
    /// Keys of `config.json` that were not read and are not known to change the function.
    pub unread: Vec<String>,
}

impl Facts {
    /// What was assumed of the model at `path`, in the form in which it is reported.
    pub fn notes(&self, path: &Path) -> Vec<String> {
        self.assumed.iter().map(|fact| format!("assumed: {}: {fact}", path.display())).collect()
    }
}

/// The config, the choices and the tensors' names while a family composes its network.
pub(super) struct Reading<'a> {
    /// The names of all tensors.
    pub names: &'a [String],
    /// The architecture that a choice or the config names, in lower case.
    pub arch: Option<String>,
    /// The image's shape in the config.
    pub image: Option<Shape>,
    pub facts: Facts,
    config: &'a Value,
    choices: Choices,
    read: BTreeSet<&'static str>,
}

impl<'a> Reading<'a> {
    pub fn new(config: &'a Value, choices: &Choices, names: &'a [String]) -> Reading<'a> {
        let (choices, facts, read) = (choices.clone(), Facts::default(), BTreeSet::new());
        Reading { names, arch: None, image: None, facts, config, choices, read }
    }

    /// The value of a key, in timm's `model_args` or else at the top; null is none.
    fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        let arguments = self.config.get("model_args").and_then(|arguments| arguments.get(key));
        let value = arguments.or(self.config.get(key)).filter(|value| !value.is_null())?;
        if self.read.insert(key) {
            self.facts.config.push(format!("{key} = {value}"));
        }
        Some(value)
    }

    /// The value of one of several keys of the same meaning.
    ///
    /// # Errors
    /// Where two are there and differ, or `read` gives none: the value is not `what`.
    fn one<T: PartialEq>(
        &mut self,
        keys: &[&'static str],
        what: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let mut found: Option<(&str, T)> = None;
        for &key in keys {
            let Some(value) = self.value(key) else { continue };
            let value = read(value).ok_or_else(|| refusal(key, value, &format!("is not {what}")))?;
            match &found {
                Some((other, earlier)) if *earlier != value => {
                    return Err(Error::config(format!(
                        "config.json: \"{key}\" and \"{other}\" contradict each other"
                    )));
                }
                _ => found = Some((key, value)),
            }
        }
        Ok(found.map(|(_, value)| value))
    }

    /// A word of the config.
    pub fn word(&mut self, key: &'static str) -> Result<Option<String>> {
        self.one(&[key], "a string", |value| value.as_str().map(String::from))
    }

    /// Yes or no; no where the config has nothing.
    pub fn flag(&mut self, key: &'static str) -> Result<bool> {
        Ok(self.one(&[key], "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// A positive number, as the eps of a norm.
    pub fn number(&mut self, keys: &[&'static str]) -> Result<Option<f32>> {
        let positive = |value: &Value| value.as_f64().filter(|v| *v > 0.0 && v.is_finite());
        Ok(self.one(keys, "a number above 0", positive)?.map(|value| value as f32))
    }

    /// A nonlinearity in Hugging Face's and timm's words.
    pub fn activation(&mut self, keys: &[&'static str]) -> Result<Option<Activation>> {
        let word = self.one(keys, "a string", |value| value.as_str().map(String::from))?;
        word.map(|word| {
            Activation::named(&word).ok_or_else(|| {
                let (keys, names) = (keys.join("\" or \""), Activation::names());
                let reason = format!("\"{word}\" is not known here; there are {names}");
                Error::config(format!("config.json: \"{keys}\": {reason}"))
            })
        })
        .transpose()
    }

    /// Reads keys of which only one value is what the family computes.
    ///
    /// # Errors
    /// Where the config has another value; the message names key and value.
    pub fn only(&mut self, expected: &[(&'static str, Value)]) -> Result<()> {
        for (key, wanted) in expected {
            if let Some(value) = self.value(key)
                && value != wanted
            {
                return Err(refusal(
                    key,
                    value,
                    &format!("is not supported for this family; only {wanted} is"),
                ));
            }
        }
        Ok(())
    }

    /// A size that the tensors show.
    ///
    /// # Errors
    /// Where the config has another.
    pub fn agrees(&mut self, key: &'static str, found: impl Into<Value>) -> Result<()> {
        let found = found.into();
        match self.value(key).filter(|&said| *said != found) {
            Some(said) => Err(refusal(key, said, &format!("is not what the tensors have, {found}"))),
            None => Ok(()),
        }
    }

    /// The ids of tokens under a key: a number, or a list of them. A negative one stands for none.
    ///
    /// # Errors
    /// Where the value is neither.
    pub fn ids(&mut self, key: &'static str) -> Result<Vec<u64>> {
        let read = |value: &Value| {
            let numbers = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            let numbers = numbers.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>()?;
            Some(numbers.into_iter().filter_map(|id| u64::try_from(id).ok()).collect())
        };
        Ok(self.one(&[key], "a token id", read)?.unwrap_or_default())
    }

    /// The number of attention heads that was chosen, or that the config has.
    pub fn heads(&mut self) -> Result<Option<usize>> {
        let count = |value: &Value| value.as_u64().map(|count| count as usize);
        let read = self.one(&["num_heads", "num_attention_heads", "n_heads"], "a whole number", count)?;
        let Some(heads) = self.choices.heads.take() else { return Ok(read) };
        self.facts.chosen.push(format!("{heads} attention heads"));
        Ok(Some(heads))
    }

    /// The stem that was chosen, or that the config has.
    pub fn stem(&mut self) -> Result<Option<Stem>> {
        let read = self.value("stem").map(Stem::deserialize).transpose();
        let read = read.map_err(|error| Error::config(format!("config.json: \"stem\": {error}")))?;
        let Some(stem) = self.choices.stem.take() else { return Ok(read) };
        self.facts.chosen.push(format!("the stem {}", stem.name()));
        Ok(Some(stem))
    }

    /// A value of any form, as the list of layers of a sequential model.
    pub fn object(&mut self, key: &'static str) -> Option<&'a Value> {
        self.read.insert(key);
        self.config.get(key)
    }

    /// Whether the config is one of Hugging Face's library.
    pub fn is_hugging_face(&self) -> bool {
        self.config.get("model_type").is_some()
    }

    /// Keeps what was read off the tensors.
    pub fn saw(&mut self, fact: impl Into<String>) {
        self.facts.tensors.push(fact.into());
    }

    /// Keeps what nothing says.
    pub fn assume(&mut self, fact: impl Into<String>) {
        self.facts.assumed.push(fact.into());
    }

    /// What was read and assumed.
    ///
    /// # Errors
    /// Where the config has a key that changes the function and was not read, or a choice was not used.
    pub fn finish(mut self, family: &str) -> Result<Facts> {
        let unused = [("--heads", self.choices.heads.is_some()), ("--stem", self.choices.stem.is_some())];
        if let Some((option, _)) = unused.iter().find(|(_, left)| *left) {
            return Err(Error::config(format!("the family {family} has no use for {option}")));
        }
        let refuse = |key: &str, value: &Value| {
            let remedy = "take it out of config.json if it does not change the function";
            refusal(key, value, &format!("is not supported for the family {family}; {remedy}"))
        };
        for (key, value) in self.config.as_object().into_iter().flatten() {
            if value.is_null() || self.read.contains(key.as_str()) || DESCRIBED.contains(&key.as_str()) {
                continue;
            }
            if key == "model_args" {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let known = self.read.contains(key.as_str()) || any(ARGUMENTS, key);
                    if !known && !value.is_null() {
                        return Err(refuse(&format!("model_args.{key}"), value));
                    }
                }
                continue;
            }
            if changes_the_function(key) {
                return Err(refuse(key, value));
            }
            self.facts.unread.push(key.clone());
        }
        Ok(self.facts)
    }
}

fn refusal(key: &str, value: &Value, reason: &str) -> Error {
    Error::config(format!("config.json: \"{key}\": {value} {reason}"))
}

fn any(patterns: &[&str], key: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, key))
}

/// Keys that the registry reads itself, or that describe data and classes.
const DESCRIBED: [&str; 18] = [
    "architecture",
    "architectures",
    "arch",
    "model_type",
    "num_classes",
    "num_labels",
    "id2label",
    "label2id",
    "input_size",
    "image_size",
    "mean",
    "std",
    "pretrained_cfg",
    "preprocess",
    "weights",
    "crop_pct",
    "crop_mode",
    "interpolation",
];

/// Arguments of timm's models that do not change the function in evaluation, or that the tensors' shapes show.
const ARGUMENTS: &[&str] = &[
    "img_size",
    "in_chans",
    "num_classes",
    "pretrained",
    "*drop*_rate",
    "weight_init",
    "zero_init_last",
    "zero_init_residual",
    "embed_dim",
    "depth",
    "mlp_ratio",
    "patch_size",
    "qkv_bias",
    "layers",
    "channels",
    "dynamic_img_size",
    "strict_img_size",
    "cardinality",
    "base_width",
    "groups",
    "width_per_group",
    "ls_init_value",
    "depths",
    "dims",
];

/// Whether a key of a config is likely to change a model's function: one of its words is about activations, pooling,
/// norms, strides, attention and the like, and it is none of the keys that are known not to.
fn changes_the_function(key: &str) -> bool {
    let mut words = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            words.push('_');
        }
        words.push(c.to_ascii_lowercase());
    }
    words.split(|c: char| !c.is_ascii_alphabetic()).any(|word| WORDS.contains(&word)) && !any(HARMLESS, key)
}

const WORDS: &[&str] = &[
    "act",
    "activation",
    "activations",
    "nonlinearity",
    "relu",
    "gelu",
    "silu",
    "glu",
    "swiglu",
    "slope",
    "pool",
    "pools",
    "pooling",
    "maxpool",
    "avgpool",
    "norm",
    "norms",
    "normalization",
    "bn",
    "ln",
    "batchnorm",
    "layernorm",
    "eps",
    "epsilon",
    "head",
    "heads",
    "nhead",
    "stride",
    "strides",
    "dilation",
    "dilations",
    "dilate",
    "stem",
    "kernel",
    "kernels",
    "padding",
    "pad",
    "pos",
    "position",
    "positional",
    "embed",
    "rope",
    "rotary",
    "attn",
    "attention",
    "residual",
    "residuals",
    "skip",
    "skips",
    "shortcut",
    "downsample",
    "downsampling",
    "scale",
    "scales",
    "temperature",
    "logit",
    "logits",
    "softmax",
    "bias",
    "se",
    "squeeze",
    "aa",
    "antialias",
    "blur",
    "block",
    "blocks",
    "layer",
    "layers",
    "nodes",
    "mlp",
    "token",
    "tokens",
    "cls",
    "reg",
    "register",
    "registers",
    "window",
    "preact",
    "init",
    "groups",
    "cardinality",
    "forward",
    "prenorm",
    "postnorm",
    "ceil",
    "bilinear",
    "interpolate",
    "multiplier",
];

/// Keys with such a word that do not change the function in evaluation, or that the tensors' shapes show.
const HARMLESS: &[&str] = &[
    "num_hidden_layers",
    "num_layers",
    "hidden_layers",
    "initializer_range",
    "initializer_factor",
    "pooler_*",
    "pool_size",
    "crop_*",
    "*_token_id",
    "*_token_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "output_attentions",
    "add_cross_attention",
    "cross_attention_hidden_size",
    "attention_probs_dropout_prob",
    "attention_dropout",
    "attn_dropout",
    "chunk_size_feed_forward",
    "qkv_bias",
    "use_mask_token",
    "encoder_stride",
    "embed_dim",
    "mlp_ratio",
    "gradient_checkpointing",
    "zero_init_*",
    "weight_init",
    "in_head",
    "return_dict",
    "layer_scale_init_value",
    "logit_scale_init_value",
    "pruned_heads",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "attn_implementation",
    "num_blocks",
    "label_tokens",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_changes_the_function_is_refused_by_name_unless_it_was_read() {
        for key in
            ["hidden_act", "bn_eps", "global_pool", "outputStride", "layer_scale", "num_heads", "normLayer"]
        {
            let config = json!({key: 3});
            let reading = Reading::new(&config, &Choices::default(), &[]);
            let error = reading.finish("mlp").unwrap_err().to_string();
            assert!(error.contains(&format!("\"{key}\": 3")) && error.contains("mlp"), "{error}");
        }
        for key in ["act_layer", "norm_layer", "anything"] {
            let config = json!({"model_args": {key: "x", "img_size": 3}});
            let error =
                Reading::new(&config, &Choices::default(), &[]).finish("vit").unwrap_err().to_string();
            assert!(error.contains(&format!("model_args.{key}")), "{error}");
        }
        let config = json!({"hidden_act": "tanh", "author": "a", "norm_layer": null, "pad_token_id": 0});
        let mut reading = Reading::new(&config, &Choices::default(), &[]);
        assert_eq!(reading.activation(&["hidden_act"]).unwrap(), Some(Activation::Tanh));
        let facts = reading.finish("mlp").unwrap();
        assert_eq!(facts.config, ["hidden_act = \"tanh\""]);
        assert_eq!(facts.unread, ["author", "pad_token_id"]);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_and_so_are_two_that_differ() {
        let config =
            json!({"layer_norm_eps": "1e-6", "hidden_act": 3, "num_heads": 4, "num_attention_heads": 3});
        let mut reading = Reading::new(&config, &Choices::default(), &[]);
        assert!(reading.number(&["layer_norm_eps"]).unwrap_err().to_string().contains("layer_norm_eps"));
        assert!(reading.activation(&["hidden_act"]).unwrap_err().to_string().contains("hidden_act"));
        assert!(reading.heads().unwrap_err().to_string().contains("contradict"));
    }

    #[test]
    fn a_choice_without_use_is_refused_and_stems_are_read_as_they_are_written() {
        let choices = Choices { heads: Some(3), ..Choices::default() };
        let error = Reading::new(&Value::Null, &choices, &[]).finish("mlp").unwrap_err().to_string();
        assert!(error.contains("--heads"), "{error}");
        for text in ["stride1", "stride1+pool", "stride2", "stride2+pool"] {
            let config = json!({"stem": text});
            let stem = Reading::new(&config, &Choices::default(), &[]).stem().unwrap().unwrap();
            assert_eq!(stem.name(), text);
            assert_eq!((stem.stride() == 2, stem.pool()), (text.contains('2'), text.contains("pool")));
        }
        let config = json!({"stem": "stride3"});
        let error = Reading::new(&config, &Choices::default(), &[]).stem().unwrap_err().to_string();
        assert!(error.contains("stride3") && error.contains("`stride2+pool`"), "{error}");
    }
}
