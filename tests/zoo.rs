//! Models are read as what they are: the logits of each recognised form are those of plain loops in f64, what tensors do
//! not tell is read off the config, chosen or reported as assumed, and what may stand for another function is refused
//! by name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::torch::{self, Map, ResNet, State, Stored};
use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::Samples;
use scrubjay::data::tensors::{self, Tensor, TensorFile, Values};
use scrubjay::device::Device;
use scrubjay::observe::observe;
use scrubjay::zoo::{self, Choices, Facts, Stem};
use serde_json::{Value, json};

/// Numbers by a 64-bit linear congruential generator, from −1 to 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn add(&mut self, state: &mut State, name: &str, shape: &[usize], centre: f32, spread: f32) {
        let values = (0..shape.iter().product()).map(|_| centre + spread * self.next()).collect();
        state.insert(name.into(), (shape.to_vec(), values));
    }

    fn layer(&mut self, state: &mut State, name: &str, shape: &[usize], bias: bool) {
        let fan_in: usize = shape[1..].iter().product();
        self.add(state, &format!("{name}.weight"), shape, 0.0, (6.0 / fan_in as f32).sqrt());
        if bias {
            self.add(state, &format!("{name}.bias"), &shape[..1], 0.0, 0.3);
        }
    }

    fn norm(&mut self, state: &mut State, name: &str, c: usize, batch: bool) {
        self.add(state, &format!("{name}.weight"), &[c], 1.0, 0.3);
        self.add(state, &format!("{name}.bias"), &[c], 0.0, 0.3);
        if batch {
            self.add(state, &format!("{name}.running_mean"), &[c], 0.0, 0.3);
            self.add(state, &format!("{name}.running_var"), &[c], 1.0, 0.5);
        }
    }
}

/// A ResNet of one basic block a stage.
fn resnet(kernel: usize, stages: usize, shortcut: &str, head: &str) -> State {
    let (mut random, mut state) = (Random(kernel as u64), State::new());
    random.layer(&mut state, "conv1", &[4, 3, kernel, kernel], false);
    random.norm(&mut state, "bn1", 4, true);
    let mut last = 4;
    for stage in 1..=stages {
        let (name, width) = (format!("layer{stage}.0"), 2 + 2 * stage);
        random.layer(&mut state, &format!("{name}.conv1"), &[width, last, 3, 3], false);
        random.norm(&mut state, &format!("{name}.bn1"), width, true);
        random.layer(&mut state, &format!("{name}.conv2"), &[width, width, 3, 3], false);
        random.norm(&mut state, &format!("{name}.bn2"), width, true);
        if stage > 1 {
            random.layer(&mut state, &format!("{name}.{shortcut}.0"), &[width, last, 1, 1], false);
            random.norm(&mut state, &format!("{name}.{shortcut}.1"), width, true);
        }
        last = width;
    }
    random.layer(&mut state, head, &[5, last], true);
    state
}

fn reference(stride: usize, pool: bool) -> ResNet {
    ResNet { stride, pool, act: torch::relu, eps: 1e-5, shortcut: "downsample", head: "fc" }
}

/// torchvision's ViT of two blocks: 4×4 patches of 8×8 images.
fn vit(d: usize) -> State {
    let (mut random, mut state) = (Random(7), State::new());
    random.layer(&mut state, "conv_proj", &[d, 3, 4, 4], true);
    random.add(&mut state, "class_token", &[1, 1, d], 0.0, 0.5);
    random.add(&mut state, "encoder.pos_embedding", &[1, 5, d], 0.0, 0.5);
    for i in 0..2 {
        let part = |part: &str| format!("encoder.layers.encoder_layer_{i}.{part}");
        random.norm(&mut state, &part("ln_1"), d, false);
        random.layer(&mut state, &part("in"), &[3 * d, d], true);
        for end in ["weight", "bias"] {
            let tensor = state.remove(&part(&format!("in.{end}"))).unwrap();
            state.insert(part(&format!("self_attention.in_proj_{end}")), tensor);
        }
        random.layer(&mut state, &part("self_attention.out_proj"), &[d, d], true);
        random.norm(&mut state, &part("ln_2"), d, false);
        random.layer(&mut state, &part("mlp.0"), &[2 * d, d], true);
        random.layer(&mut state, &part("mlp.3"), &[d, 2 * d], true);
    }
    random.norm(&mut state, "encoder.ln", d, false);
    random.layer(&mut state, "heads.head", &[5, d], true);
    state
}

fn renamed(state: &State, pairs: &[(&str, &str)]) -> State {
    let rename = |name: &str| pairs.iter().fold(name.to_string(), |name, (old, new)| name.replace(old, new));
    state.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
}

/// The names of timm for the ViT above.
const TIMM: [(&str, &str); 12] = [
    ("conv_proj", "patch_embed.proj"),
    ("class_token", "cls_token"),
    ("encoder.pos_embedding", "pos_embed"),
    ("encoder.layers.encoder_layer_", "blocks."),
    ("ln_1", "norm1"),
    ("ln_2", "norm2"),
    ("self_attention.in_proj_", "attn.qkv."),
    ("self_attention.out_proj", "attn.proj"),
    ("mlp.0", "mlp.fc1"),
    ("mlp.3", "mlp.fc2"),
    ("encoder.ln", "norm"),
    ("heads.head", "head"),
];

fn write(path: &Path, state: &State) {
    let all: Vec<Tensor> = state
        .iter()
        .map(|(name, (shape, values))| Tensor { name, shape: shape.clone(), values: Values::F32(values) })
        .collect();
    tensors::write(path, &all, HashMap::new()).unwrap();
}

/// A folder with a model, and a config where there is one.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(state: &State, config: &Value) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        write(&folder.at("model.safetensors"), state);
        if !config.is_null() {
            std::fs::write(folder.at("config.json"), config.to_string()).unwrap();
        }
        folder
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The logits of three images of `side`, and where the model's function is known from.
    fn logits(&self, choices: &Choices, x: &Samples) -> (Vec<f32>, Facts) {
        let checkpoint = Checkpoint::open(self.0.path()).unwrap();
        let model = zoo::load_as(&checkpoint, choices, Some(x.kind)).unwrap();
        let trace = observe(&Device::cpu().unwrap(), &model.network.freeze(), x).unwrap();
        (trace.logits, model.facts)
    }

    fn refused(&self, choices: &Choices, x: &Samples, words: &[&str]) {
        let loaded = Checkpoint::open(self.0.path()).and_then(|c| zoo::load_as(&c, choices, Some(x.kind)));
        let error = loaded.err().expect("the model was accepted").to_string();
        words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
    }

    fn inspect(&self, options: &[&str]) -> Output {
        let program = env!("CARGO_BIN_EXE_scrubjay");
        Command::new(program).args(["inspect", "--model"]).arg(self.0.path()).args(options).output().unwrap()
    }
}

fn images(h: usize, w: usize, c: usize) -> Samples {
    let mut random = Random(5);
    let x = (0..3 * h * w * c).map(|_| 1.5 * random.next()).collect();
    Samples { kind: scrubjay::net::Shape::new(h, w, c).into(), x, y: vec![0; 3].into(), stream: None }
}

/// The images as PyTorch has them.
fn maps(samples: &Samples) -> Vec<Map> {
    let shape = samples.shape();
    let map = |image: &[f32]| {
        let v = (0..shape.c).flat_map(|c| image.iter().skip(c).step_by(shape.c));
        Map { c: shape.c, h: shape.h, w: shape.w, v: v.map(|&v| f64::from(v)).collect() }
    };
    samples.x.chunks(shape.len()).map(map).collect()
}

fn right(found: &[f32], expected: impl Iterator<Item = Vec<f64>>) {
    let expected: Vec<f64> = expected.flatten().collect();
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().map(|v| v * v).sum::<f64>().sqrt();
    let off = found.iter().zip(&expected).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum::<f64>().sqrt();
    assert!(off <= 1e-5 * size && size > 0.1, "off by {off:e} of {size}: {found:?} {expected:?}");
}

fn none() -> Choices {
    Choices::default()
}

fn mlp(names: [&str; 3], sides: [usize; 4]) -> State {
    let (mut random, mut state) = (Random(3), State::new());
    for (name, sides) in names.iter().zip(sides.windows(2)) {
        random.layer(&mut state, name, &[sides[1], sides[0]], true);
    }
    state
}

#[test]
fn the_nonlinearity_of_an_mlp_is_the_configs_or_reported_as_assumed() {
    let (state, x) = (mlp(["fc1", "fc2", "fc3"], [6, 5, 4, 3]), images(1, 1, 6));
    let expected = |act: torch::Function| {
        let (state, x) = (state.clone(), maps(&x));
        x.into_iter().map(move |x| {
            ["fc1", "fc2", "fc3"].iter().enumerate().fold(x.v, |x, (i, name)| {
                let x = if i > 0 { x.into_iter().map(act).collect() } else { x };
                torch::linear(&state, &format!("{name}.weight"), &format!("{name}.bias"), &x)
            })
        })
    };
    let functions: [(&str, torch::Function); 7] = [
        ("relu", torch::relu),
        ("tanh", f64::tanh),
        ("gelu", torch::gelu),
        ("sigmoid", |x| 1.0 / (1.0 + (-x).exp())),
        ("silu", |x| x / (1.0 + (-x).exp())),
        ("swish", |x| x / (1.0 + (-x).exp())),
        ("softplus", |x| x.exp().ln_1p()),
    ];
    for (word, function) in functions {
        let config = json!({"architecture": "mlp", "hidden_act": word});
        let (logits, facts) = Folder::new(&state, &config).logits(&none(), &x);
        right(&logits, expected(function));
        assert!(facts.assumed.is_empty() && facts.config.iter().any(|fact| fact.contains(word)), "{facts:?}");
    }
    let (logits, facts) = Folder::new(&state, &Value::Null).logits(&none(), &x);
    right(&logits, expected(torch::relu));
    assert!(facts.assumed[0].contains("ReLU"), "{facts:?}");
    for (key, value) in
        [("hidden_act", "mish"), ("activation", "tanh"), ("act_layer", "tanh"), ("norm", "batch")]
    {
        let config = json!({"architecture": "mlp", key: value});
        Folder::new(&state, &config).refused(&none(), &x, &[key, value]);
    }
}

#[test]
fn the_order_of_layers_is_not_guessed() {
    let (state, x) = (mlp(["input", "hidden", "output"], [6, 6, 6, 3]), images(1, 1, 6));
    Folder::new(&state, &Value::Null).refused(&none(), &x, &["hidden", "input", "\"layers\""]);
    let layers = json!([{"linear": "input"}, "relu", {"linear": "hidden"}, "relu", {"linear": "output"}]);
    let config = json!({"architecture": "sequential", "layers": layers});
    let (logits, _) = Folder::new(&state, &config).logits(&none(), &x);
    let numbered = mlp(["fc1", "fc2", "fc3"], [6, 6, 6, 3]);
    assert_eq!(logits, Folder::new(&numbered, &Value::Null).logits(&none(), &x).0);
}

#[test]
fn a_linear_layer_saved_alone_is_a_model() {
    let mut state = State::new();
    Random(1).layer(&mut state, "fc", &[3, 6], true);
    let (state, x) = (renamed(&state, &[("fc.", "")]), images(1, 1, 6));
    let (logits, facts) = Folder::new(&state, &Value::Null).logits(&none(), &x);
    right(&logits, maps(&x).into_iter().map(|x| torch::linear(&state, "weight", "bias", &x.v)));
    assert!(facts.assumed.is_empty(), "{facts:?}");
}

#[test]
fn the_stem_of_a_resnet_is_chosen_read_or_reported_as_assumed() {
    let x = images(32, 32, 3);
    for (kernel, usual) in [(3, "stride1"), (7, "stride2+pool")] {
        let state = resnet(kernel, 4, "downsample", "fc");
        for (stem, text, stride, pool) in [
            (Stem::Stride1, "stride1", 1, false),
            (Stem::Stride1Pool, "stride1+pool", 1, true),
            (Stem::Stride2, "stride2", 2, false),
            (Stem::Stride2Pool, "stride2+pool", 2, true),
        ] {
            let expected = || maps(&x).into_iter().map(|x| reference(stride, pool).logits(&state, &x));
            let chosen = Choices { stem: Some(stem), ..none() };
            let (logits, facts) = Folder::new(&state, &Value::Null).logits(&chosen, &x);
            right(&logits, expected());
            assert!(facts.chosen[0].contains(text), "{facts:?}");
            let config = json!({"architecture": "resnet18", "stem": text});
            let (logits, facts) = Folder::new(&state, &config).logits(&none(), &x);
            right(&logits, expected());
            assert!(facts.assumed.is_empty(), "{facts:?}");
            if text == usual {
                let (logits, facts) = Folder::new(&state, &Value::Null).logits(&none(), &x);
                right(&logits, expected());
                assert!(facts.assumed.iter().any(|fact| fact.contains("--stem")), "{facts:?}");
            }
        }
    }
    let other = Folder::new(&resnet(5, 4, "downsample", "fc"), &Value::Null);
    other.refused(&none(), &x, &["5x5", "--stem", "stride1+pool"]);
    let (logits, _) = other.logits(&Choices { stem: Some(Stem::Stride2), ..none() }, &x);
    let state = resnet(5, 4, "downsample", "fc");
    right(&logits, maps(&x).into_iter().map(|x| reference(2, false).logits(&state, &x)));
    let gray = images(32, 32, 1);
    other.refused(&none(), &gray, &["3 channels", "have 1"]);
}

#[test]
fn the_resnets_of_cifar_code_are_read_under_their_names() {
    let x = images(32, 32, 3);
    for stages in [3, 4] {
        let state = resnet(3, stages, "shortcut", "linear");
        let expected = ResNet { shortcut: "shortcut", head: "linear", ..reference(1, false) };
        let (logits, facts) = Folder::new(&state, &Value::Null).logits(&none(), &x);
        right(&logits, maps(&x).into_iter().map(|x| expected.logits(&state, &x)));
        assert!(!facts.assumed.is_empty());
    }
}

#[test]
fn what_a_config_says_of_a_resnet_is_computed_or_refused_by_name() {
    let (state, x) = (resnet(7, 4, "downsample", "fc"), images(32, 32, 3));
    let config = json!({"architecture": "resnet18", "num_classes": 5, "global_pool": "avg",
        "model_args": {"act_layer": "gelu", "bn_eps": 0.01, "output_stride": 32, "norm_layer": null}});
    let (logits, facts) = Folder::new(&state, &config).logits(&none(), &x);
    let expected = ResNet { act: torch::gelu, eps: 0.01, ..reference(2, true) };
    right(&logits, maps(&x).into_iter().map(|x| expected.logits(&state, &x)));
    assert!(facts.assumed.is_empty() && facts.config.iter().any(|fact| fact.contains("bn_eps")), "{facts:?}");
    for (key, value) in [
        ("act_layer", json!("mish")),
        ("output_stride", json!(16)),
        ("global_pool", json!("max")),
        ("aa_layer", json!("blurpool")),
        ("norm_layer", json!("groupnorm")),
        ("stem_type", json!("deep")),
        ("replace_stem_pool", json!(true)),
    ] {
        let config = json!({"architecture": "resnet18", "model_args": {key: value}});
        Folder::new(&state, &config).refused(&none(), &x, &[key]);
    }
    for (key, value) in [
        ("hidden_act", json!("gelu")),
        ("output_stride", json!(8)),
        ("global_pool", json!("avgmax")),
        ("dilation", json!(2)),
        ("layer_norm_eps", json!(1e-3)),
        ("replace_stride_with_dilation", json!([false, true, true])),
        ("layer_type", json!("bottleneck")),
        ("input_size", json!([3, 32])),
        ("mean", json!("0.5")),
    ] {
        let config = json!({"architecture": "resnet18", key: value});
        Folder::new(&state, &config).refused(&none(), &x, &[key]);
    }
}

#[test]
fn the_keys_that_libraries_always_write_are_accepted() {
    let timm = json!({
        "architecture": "resnet18", "num_classes": 5, "num_features": 10, "global_pool": "avg",
        "model_args": {"num_classes": 5, "drop_path_rate": 0.1, "zero_init_last": false, "act_layer": null},
        "pretrained_cfg": {
            "tag": "a1_in1k", "custom_load": false, "input_size": [3, 32, 32], "fixed_input_size": false,
            "interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center", "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225], "num_classes": 5, "pool_size": [7, 7], "first_conv": "conv1",
            "classifier": "fc",
        },
    });
    let (_, facts) =
        Folder::new(&resnet(7, 4, "downsample", "fc"), &timm).logits(&none(), &images(32, 32, 3));
    assert!(facts.assumed.is_empty(), "{facts:?}");
    let hugging_face = json!({
        "architectures": ["ViTForImageClassification"], "attention_probs_dropout_prob": 0.0, "encoder_stride": 16,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "hidden_size": 12, "id2label": {"0": "a", "1": "b", "2": "c",
        "3": "d", "4": "e"}, "image_size": 8, "initializer_range": 0.02, "intermediate_size": 24,
        "label2id": {"a": 0}, "layer_norm_eps": 1e-6, "model_type": "vit", "num_attention_heads": 3,
        "num_channels": 3, "num_hidden_layers": 2, "patch_size": 4, "pooler_act": "tanh", "pooler_output_size": 12,
        "problem_type": "single_label_classification", "qkv_bias": true, "torch_dtype": "float32",
        "transformers_version": "4.57.0",
    });
    let (state, x) = (vit(12), images(8, 8, 3));
    let (logits, facts) = Folder::new(&state, &hugging_face).logits(&none(), &x);
    right(&logits, maps(&x).into_iter().map(|x| torch::vit(&state, &x, 3)));
    assert!(facts.assumed.is_empty(), "{facts:?}");
    let mut regression = hugging_face.clone();
    regression["problem_type"] = json!("regression");
    Folder::new(&state, &regression).refused(&none(), &x, &["problem_type", "regression"]);
    let old = json!({
        "architectures": ["ResNetForImageClassification"], "depths": [1, 1, 1, 1], "downsample_in_bottleneck": false,
        "downsample_in_first_stage": false, "embedding_size": 4, "hidden_act": "relu", "hidden_sizes": [4, 6, 8, 10],
        "layer_type": "basic", "model_type": "resnet", "num_channels": 3, "out_features": ["stage4"],
        "out_indices": [4], "stage_names": ["stem", "stage1"], "use_cache": true, "output_attentions": false,
        "pad_token_id": null, "bos_token_id": 3, "tie_word_embeddings": true, "chunk_size_feed_forward": 0,
    });
    let (_, facts) = Folder::new(&resnet(7, 4, "downsample", "fc"), &old).logits(&none(), &images(32, 32, 3));
    assert!(facts.assumed.is_empty(), "{facts:?}");
}

#[test]
fn an_architecture_of_an_unknown_name_is_refused_even_where_its_tensors_fit() {
    let (state, x) = (resnet(7, 4, "downsample", "fc"), images(32, 32, 3));
    for arch in [
        "resnetaa50",
        "resnetblur50",
        "seresnet50",
        "resnet50d",
        "resnet50_gn",
        "resnetrs50",
        "resnetv2_50",
        "cat",
    ] {
        for config in
            [json!({"architecture": arch}), json!({"model_type": arch}), json!({"architectures": [arch]})]
        {
            let folder = Folder::new(&state, &config);
            folder.refused(&none(), &x, &[&format!("`{arch}` is not known"), "--arch resnet"]);
            let (_, facts) = folder.logits(&Choices { arch: Some("resnet".into()), ..none() }, &x);
            assert!(facts.chosen[0].contains("resnet"), "{facts:?}");
        }
    }
    for arch in [
        "resnet18",
        "resnet18.a1_in1k",
        "timm/resnet-18",
        "tv_resnet50",
        "resnext50_32x4d",
        "wide_resnet50_2",
    ] {
        Folder::new(&state, &json!({"architecture": arch})).logits(&none(), &x);
    }
    let (state, x) = (renamed(&vit(12), &TIMM), images(8, 8, 3));
    for arch in [
        "vit_base_patch16_rpn_224",
        "vit_base_patch16_siglip_224",
        "deit3_small_patch16_224",
        "vitamin_small",
    ] {
        let config = json!({"architecture": arch, "num_heads": 3});
        Folder::new(&state, &config).refused(&none(), &x, &[arch, "is not known"]);
    }
}

#[test]
fn a_vit_has_the_names_of_torchvision_or_timm_and_the_heads_that_are_said() {
    let (state, x) = (vit(12), images(8, 8, 3));
    let timm = renamed(&state, &TIMM);
    let first = renamed(&state, &[("mlp.0", "mlp.linear_1"), ("mlp.3", "mlp.linear_2")]);
    let plain = renamed(&state, &[("heads.head", "heads")]);
    let inside = renamed(&state, &[("heads.head", "heads.1")]);
    for heads in [1, 3, 4] {
        for state in [&state, &first, &timm, &plain, &inside] {
            let expected = || maps(&x).into_iter().map(|x| torch::vit(&vit(12), &x, heads));
            let config = json!({"num_heads": heads});
            right(&Folder::new(state, &config).logits(&none(), &x).0, expected());
            let chosen = Choices { heads: Some(heads), ..none() };
            right(&Folder::new(state, &Value::Null).logits(&chosen, &x).0, expected());
        }
    }
    Folder::new(&timm, &Value::Null).refused(&none(), &x, &["heads", "12 channels", "--heads"]);
    let chosen = Choices { heads: Some(5), ..none() };
    Folder::new(&timm, &Value::Null).refused(&chosen, &x, &["5 attention heads", "12 channels"]);
    for (config, heads, assumed) in [
        (json!(null), 3, true),
        (json!({"architecture": "vit_tiny_patch16_224"}), 3, false),
        (json!({"architecture": "vit_mini"}), 3, true),
        (json!({"model_type": "vit"}), 12, true),
        (json!({"architecture": "vit_tiny_patch16_224", "model_args": {"num_heads": 6}}), 6, false),
    ] {
        let state = vit(192);
        let (logits, facts) = Folder::new(&renamed(&state, &TIMM), &config).logits(&none(), &x);
        right(&logits, maps(&x).into_iter().map(|x| torch::vit(&state, &x, heads)));
        assert_eq!(facts.assumed.iter().any(|fact| fact.contains("--heads")), assumed, "{config} {facts:?}");
    }
    for key in ["no_embed_class", "qk_norm", "pre_norm", "pool_include_prefix", "attn_layer", "block_fn"] {
        let config = json!({"architecture": "vit_tiny", "num_heads": 3, "model_args": {key: true}});
        Folder::new(&timm, &config).refused(&none(), &x, &[key]);
    }
}

/// timm's head of a VGG reads a larger image at several places, and a smaller one enlarged.
#[test]
fn a_vgg_of_timm_takes_images_of_any_size_as_timm_does() {
    let (mut random, mut state) = (Random(8), State::new());
    random.layer(&mut state, "features.0", &[4, 3, 3, 3], true);
    random.layer(&mut state, "pre_logits.fc1", &[6, 4, 2, 2], true);
    random.layer(&mut state, "pre_logits.fc2", &[6, 6, 1, 1], true);
    random.layer(&mut state, "head.fc", &[5, 6], true);
    let folder = Folder::new(&state, &json!({"architecture": "vgg11"}));
    for side in [4, 8, 10] {
        let x = images(side, side, 3);
        let expected = maps(&x).into_iter().map(|x| {
            let x = torch::map(torch::conv(&state, "features.0", &x, 1, 1), torch::relu);
            let x = torch::map(torch::conv(&state, "pre_logits.fc1", &torch::halved(&x), 1, 0), torch::relu);
            let x = torch::map(torch::conv(&state, "pre_logits.fc2", &x, 1, 0), torch::relu);
            torch::linear(&state, "head.fc.weight", "head.fc.bias", &torch::means(&x))
        });
        right(&folder.logits(&none(), &x).0, expected);
    }
    for (key, value) in [("global_pool", "max"), ("act_layer", "mish"), ("norm", "group")] {
        Folder::new(&state, &json!({"architecture": "vgg11", key: value})).refused(
            &none(),
            &images(4, 4, 3),
            &[key],
        );
    }
}

#[test]
fn images_of_another_size_are_refused_in_the_words_of_the_user() {
    let folder = Folder::new(&vit(12), &json!({"num_heads": 3}));
    for (h, w) in [(12, 12), (4, 16), (9, 9)] {
        folder.refused(&none(), &images(h, w, 3), &["takes 8x8 images", &format!("these are {h}x{w}")]);
    }
    folder.refused(&none(), &images(8, 8, 1), &["3 channels", "8x8 images of 1 channel"]);
}

#[test]
fn wrappers_and_replaced_heads_are_understood_and_written_back_under_their_names() {
    let (state, x) = (resnet(3, 4, "downsample", "fc"), images(32, 32, 3));
    let expected = Folder::new(&state, &Value::Null).logits(&none(), &x).0;
    let wrapped = |prefix: &str| -> State {
        state.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect()
    };
    let buffer = |value: f32| (vec![1, 3, 1, 1], vec![value; 3]);
    let with = |mut state: State, all: &[(&str, Stored)]| {
        state.extend(all.iter().map(|(name, tensor)| ((*name).to_string(), tensor.clone())));
        state
    };
    let identity =
        |module: &str| [(format!("{module}mean"), buffer(0.0)), (format!("{module}std"), buffer(1.0))];
    let normalised = |state: State, module: &str| {
        let pair = identity(module);
        with(state, &[(&pair[0].0, pair[0].1.clone()), (&pair[1].0, pair[1].1.clone())])
    };
    for (state, assumed) in [
        (wrapped("module."), None),
        (wrapped("module._orig_mod.model."), None),
        (wrapped("net."), None),
        (wrapped("backbone."), None),
        (with(wrapped("module."), &[("n_averaged", (vec![], vec![5.0]))]), None),
        (normalised(wrapped("1."), "0."), None),
        (normalised(wrapped("model."), "normalize."), None),
        (normalised(wrapped(""), "normalize."), None),
        (wrapped("student."), Some("student")),
        (renamed(&state, &[("fc.", "fc.1.")]), Some("fc.1")),
        (wrapped("module.").into_iter().map(|(n, t)| (n.replace("fc.", "fc.0."), t)).collect(), Some("fc.0")),
    ] {
        let folder = Folder::new(&state, &Value::Null);
        let (logits, facts) = folder.logits(&none(), &x);
        let off = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "{off} {:?}", state.keys().next());
        let more = facts.assumed.iter().find(|fact| !fact.contains("ResNet") && !fact.contains("--stem"));
        match assumed {
            Some(word) => assert!(more.is_some_and(|fact| fact.contains(word)), "{facts:?}"),
            None => assert_eq!(more, None),
        }
        round_trip(&folder, &[]);
    }
    let two = with(renamed(&state, &[("fc.", "fc.3.")]), &[("fc.0.weight", (vec![10, 10], vec![0.1; 100]))]);
    Folder::new(&two, &Value::Null).refused(&none(), &x, &["head `fc`", "`fc.0`, `fc.3`"]);
}

/// Changes one value of the first layer, writes the model, and finds its bytes changed there alone.
fn round_trip(folder: &Folder, ignored: &[String]) {
    let checkpoint = Checkpoint::open_without(folder.0.path(), ignored).unwrap();
    let before = zoo::load(&checkpoint, None, None).unwrap().network;
    let mut after = before.clone();
    let changed = after.layers[0].weight.index();
    after.params[changed].value[0] = 9.5;
    let out = tempfile::tempdir().unwrap();
    let patched = checkpoint.write_patched(&before, &after, out.path()).unwrap();
    assert_eq!((patched.changed, patched.vanished), (1, 0));
    let (old, new) = (
        TensorFile::open(&folder.at("model.safetensors")).unwrap(),
        TensorFile::open(&out.path().join("model.safetensors")).unwrap(),
    );
    let stored = format!("{}{}", checkpoint.prefix(), before.params[changed].name);
    let mut expected = std::fs::read(old.path()).unwrap();
    let at = old.range(&stored).unwrap().start;
    expected[at..at + 4].copy_from_slice(&9.5f32.to_le_bytes());
    assert!(expected == std::fs::read(new.path()).unwrap(), "other bytes changed");
}

#[test]
fn a_model_that_normalises_its_inputs_does_so_here() {
    let (plain, x) = (resnet(3, 4, "downsample", "fc"), images(32, 32, 3));
    let (mean, std) = ([0.4, 0.5, -0.6f32], [0.2, 0.3, 0.25f32]);
    let mut state = plain.clone();
    state.insert("normalize.mean".into(), (vec![3], mean.to_vec()));
    state.insert("normalize.std".into(), (vec![3], std.to_vec()));
    let (logits, facts) = Folder::new(&state, &Value::Null).logits(&none(), &x);
    let normalised = maps(&x).into_iter().map(|mut x| {
        let positions = x.h * x.w;
        for (i, v) in x.v.iter_mut().enumerate() {
            *v = (*v - f64::from(mean[i / positions])) / f64::from(std[i / positions]);
        }
        reference(1, false).logits(&plain, &x)
    });
    right(&logits, normalised);
    assert!(facts.tensors.iter().any(|fact| fact.contains("normalize.mean")), "{facts:?}");
    round_trip(&Folder::new(&state, &Value::Null), &[]);
    let twice = json!({"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]});
    Folder::new(&state, &twice).refused(&none(), &x, &["normalize.mean", "config"]);
    state.insert("normalize.std".into(), (vec![3], vec![0.2, 0.0, 0.3]));
    Folder::new(&state, &Value::Null).refused(&none(), &x, &["normalize.std", "above 0"]);
    state.insert("normalize.std".into(), (vec![2], vec![0.2, 0.1]));
    Folder::new(&state, &Value::Null).refused(&none(), &x, &["normalize.std", "3 values"]);
}

#[test]
fn tensors_without_a_place_are_named_with_the_option_that_leaves_them_out() {
    let mut state = resnet(3, 4, "downsample", "fc");
    let x = images(32, 32, 3);
    let expected = Folder::new(&state, &Value::Null).logits(&none(), &x).0;
    Random(2).layer(&mut state, "aux.fc", &[5, 4], true);
    let folder = Folder::new(&state, &Value::Null);
    folder.refused(&none(), &x, &["aux.fc.bias", "resnet", "--ignore 'aux.fc.*'"]);
    for pattern in ["aux.*", "aux.fc.*", "*aux*"] {
        let checkpoint = Checkpoint::open_without(folder.0.path(), &[pattern.into()]).unwrap();
        let model = zoo::load(&checkpoint, None, Some(x.shape())).unwrap();
        assert!(model.facts.chosen[0].contains(pattern), "{:?}", model.facts);
        let network = model.network.freeze();
        assert_eq!(observe(&Device::cpu().unwrap(), &network, &x).unwrap().logits, expected);
        round_trip(&folder, &[pattern.into()]);
    }
    let error = Checkpoint::open_without(folder.0.path(), &["auxiliary.*".into()]).err().unwrap().to_string();
    assert!(error.contains("`auxiliary.*`"), "{error}");
}

#[test]
fn an_unknown_model_is_told_the_nearest_family_and_what_does_not_fit() {
    let x = images(32, 32, 3);
    let state = renamed(&resnet(3, 4, "downsample", "fc"), &[("fc.", "last.")]);
    let words = ["nearest is resnet", "`fc.weight` is missing", "`last.bias`, `last.weight`"];
    Folder::new(&state, &Value::Null).refused(&none(), &x, &words);
    let state = renamed(&vit(12), &[("self_attention", "mixer")]);
    Folder::new(&state, &Value::Null).refused(&none(), &x, &["nearest is vit", "mixer.in_proj_weight"]);
    let strange = renamed(
        &vit(12),
        &[("encoder", "body"), ("conv_proj", "input"), ("heads", "output"), ("class", "a")],
    );
    Folder::new(&strange, &Value::Null).refused(&none(), &x, &["fits no family", "`a_token`"]);
    for state in [state, strange] {
        let loaded = Checkpoint::open(Folder::new(&state, &Value::Null).0.path());
        let error = loaded.and_then(|c| zoo::load(&c, None, Some(x.shape()))).err().unwrap().to_string();
        assert!(!error.contains("MLP") && !error.contains("nearest is mlp"), "{error}");
    }
}

#[test]
fn a_layer_that_is_used_twice_fits_twice() {
    let mut state = State::new();
    Random(4).layer(&mut state, "conv", &[4, 2, 3, 3], true);
    Random(5).layer(&mut state, "fc", &[5, 256], true);
    let x = images(8, 8, 2);
    let (conv, fc) = (json!({"conv": "conv", "padding": 1}), json!({"linear": "fc"}));
    let model = |layers: Value| Folder::new(&state, &json!({"architecture": "sequential", "layers": layers}));
    model(json!([conv, "relu", "flatten", fc, fc])).refused(&none(), &x, &["`fc", "[5, 5]", "[5, 256]"]);
    model(json!([conv, conv, "flatten", fc])).refused(&none(), &x, &["`conv`", "2 channels"]);
    let gray =
        json!({"architecture": "sequential", "input_size": [1, 8, 8], "layers": [conv, "global_pool"]});
    Folder::new(&state, &gray).refused(&none(), &x, &["1 channels", "have 2"]);
    for (layer, word) in [
        (json!({"conv": "conv", "padding": 1, "padding_mode": "reflect"}), "padding_mode"),
        (json!({"max_pool": 2, "ceil_mode": true}), "ceil_mode"),
        (json!({"batch_norm": "bn", "eps": "small"}), "eps"),
        (json!({"linear": "fc", "conv": "conv"}), "linear"),
    ] {
        model(json!([layer])).refused(&none(), &x, &[word]);
    }
}

#[test]
fn inspect_prints_what_was_read_and_what_was_assumed() {
    let mut state = resnet(7, 4, "downsample", "fc");
    Random(9).layer(&mut state, "conv1", &[4, 1, 7, 7], false);
    let folder = Folder::new(&state, &json!({"author": "a", "batch_norm_eps": 1e-5}));
    let output = folder.inspect(&[]);
    let (text, said) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).to_string());
    assert!(output.status.success(), "{said}");
    for word in [
        "1 x 224 x 224",
        "tensors     a stem of 4 filters of 7x7",
        "config      batch_norm_eps",
        "assumed     ",
    ] {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert!(text.contains("not read    author") && said.contains("assumed: "), "{text}{said}");
    let output = folder.inspect(&["--json", "--stem", "stride1+pool"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["chosen"], json!(["the stem stride1+pool"]));
    assert_eq!(report["config_keys_not_read"], json!(["author"]));
    assert_eq!(folder.inspect(&["--stem", "stride3"]).status.code(), Some(2));
    let unused = folder.inspect(&["--heads", "3"]);
    assert!(!unused.status.success() && String::from_utf8_lossy(&unused.stderr).contains("--heads"));
}

#[test]
fn training_goes_on_from_a_model_that_is_read_by_choice_and_what_it_writes_needs_none() {
    let (state, x) = (renamed(&vit(12), &TIMM), images(8, 8, 3));
    let (folder, out) = (Folder::new(&state, &Value::Null), tempfile::tempdir().unwrap());
    let data = out.path().join("data.safetensors");
    let chw: Vec<f32> = maps(&x).into_iter().flat_map(|map| map.v).map(|v| v as f32).collect();
    let all = [
        Tensor { name: "x", shape: vec![3, 3, 8, 8], values: Values::F32(&chw) },
        Tensor { name: "y", shape: vec![3], values: Values::I64(&[0, 1, 2]) },
    ];
    tensors::write(&data, &all, HashMap::new()).unwrap();
    let train = |options: &[&str], out: &Path| {
        let mut train = Command::new(env!("CARGO_BIN_EXE_scrubjay"));
        train.args(["train", "--epochs", "1", "--lr", "1e-30", "--device", "cpu", "--data"]).arg(&data);
        train.args(options).arg("--out").arg(out).output().unwrap()
    };
    let model = folder.0.path().to_str().unwrap();
    let trained = out.path().join("trained");
    let done = train(&["--model", model, "--heads", "4"], &trained);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // At so low a rate it stays the model that was read, and it is read again without an option.
    let checkpoint = Checkpoint::open(&trained).unwrap();
    let again = zoo::load_as(&checkpoint, &none(), Some(x.kind)).unwrap();
    let found = observe(&Device::cpu().unwrap(), &again.network.freeze(), &x).unwrap().logits;
    right(&found, maps(&x).into_iter().map(|x| torch::vit(&vit(12), &x, 4)));
    let refused = |options: &[&str], word: &str| {
        let failed = train(options, &out.path().join("none"));
        let said = String::from_utf8_lossy(&failed.stderr).to_string();
        assert!(!failed.status.success() && said.contains(word), "{said}");
    };
    refused(&["--model", model], "--heads");
    refused(&["--arch", "mlp:4", "--heads", "4"], "--model");
}
