//! The families beyond those of `zoo.rs`, from the networks that `scripts/families.py` recorded: other names of the same
//! function give the recorded logits, what is another function is refused by name, and what was changed is written and read
//! back. That each of them computes what PyTorch does, with its derivatives, is tested in `net.rs`.

use std::path::{Path, PathBuf};

use crate::torch::State;
use scrubjay::checkpoint::{Checkpoint, save};
use scrubjay::data::tensors::{self, Tensor, TensorFile, Values};
use scrubjay::data::{InputKind, Samples};
use scrubjay::device::Device;
use scrubjay::net::{Network, Shape};
use scrubjay::observe::observe;
use scrubjay::zoo::{self, Choices, Model};
use serde_json::{Value, json};

/// The recorded networks, with their configs.
pub const RECORDED: [(&str, &str); 45] = [
    ("preact_cifar", "preact-resnet"),
    ("preact_bottleneck_cifar", "preact-resnet"),
    ("wrn_meliketoy", "preact-resnet"),
    ("wrn_xternalz", "preact-resnet"),
    ("resnext_tiny", "resnet"),
    ("densenet_tiny", "densenet"),
    ("densenet_cifar", "densenet"),
    ("alexnet_tiny", "alexnet"),
    ("vgg_kuangliu", "vgg"),
    ("vgg_dropout", "vgg"),
    ("vgg_face", "vgg-face"),
    ("mobilenet_v2_tiny", "mobilenet-v2"),
    ("mobilenet_v3_small_tiny", "mobilenet-v3"),
    ("mobilenet_v3_large_tiny", "mobilenet-v3"),
    ("efficientnet_tiny", "efficientnet"),
    ("efficientnet_v2_tiny", "efficientnet-v2"),
    ("regnet_y_tiny", "regnet"),
    ("regnet_x_tiny", "regnet"),
    ("mobilenet_v2_timm", "mobilenet-v2"),
    ("mobilenet_v3_small_timm", "mobilenet-v3"),
    ("mobilenet_v3_large_timm", "mobilenet-v3"),
    ("efficientnet_timm", "efficientnet"),
    ("regnet_y_timm", "regnet"),
    ("convnext_tiny_torchvision", "convnext"),
    ("convnext_tiny_timm", "convnext"),
    ("convnext_tiny_hugging_face", "convnext"),
    ("osnet_tiny", "osnet"),
    ("osnet_ibn_tiny", "osnet"),
    ("osnet_ain_tiny", "osnet"),
    ("mlfn_tiny", "mlfn"),
    ("deit_distilled_tiny", "vit"),
    ("vit_layer_scale_tiny", "vit"),
    ("vit_registers_tiny", "vit"),
    ("deit_distilled_hugging_face", "vit"),
    ("dinov2_hugging_face", "vit"),
    ("swin_torchvision", "swin"),
    ("tf_efficientnet_timm", "efficientnet"),
    ("tf_efficientnet_v2_timm", "efficientnet-v2"),
    ("tf_mobilenet_v3_timm", "mobilenet-v3"),
    ("efficientnet_v2_timm", "efficientnet-v2"),
    ("clip_hugging_face", "vit"),
    ("clip_timm", "vit"),
    ("mixer_timm", "mixer"),
    ("swin_timm", "swin"),
    ("swin_hugging_face", "swin"),
];

pub fn file(name: &str) -> TensorFile {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nets");
    TensorFile::open(&folder.join(format!("{name}.safetensors"))).unwrap()
}

/// The network's own tensors.
pub fn state(name: &str) -> State {
    let file = file(name);
    let numbers = |name: &str| name.contains("num_batches") || name.ends_with("_index");
    let own = file.names().into_iter().filter(|name| !name.starts_with("golden.") && !numbers(name));
    own.map(|name| (name.clone(), (file.shape(&name).unwrap().to_vec(), file.f32(&name).unwrap()))).collect()
}

pub fn config(name: &str) -> Value {
    match name {
        "convnext_tiny_hugging_face" => json!({
            "architectures": ["ConvNextForImageClassification"], "model_type": "convnext", "layer_norm_eps": 1e-3,
            "hidden_act": "gelu", "layer_scale_init_value": 0.5, "drop_path_rate": 0.0, "patch_size": 4, "num_stages": 4,
            "hidden_sizes": [8, 12, 16, 16], "depths": [1, 1, 2, 1], "initializer_range": 0.02, "num_channels": 3,
        }),
        "deit_distilled_tiny" | "vit_layer_scale_tiny" => json!({"num_heads": 3}),
        "vit_registers_tiny" => json!({"num_heads": 3, "reg_tokens": 2, "no_embed_class": true}),
        "deit_distilled_hugging_face" => json!({
            "architectures": ["DeiTForImageClassificationWithTeacher"], "model_type": "deit", "hidden_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48, "hidden_act": "gelu",
            "layer_norm_eps": 1e-12, "image_size": 16, "patch_size": 8, "qkv_bias": true,
        }),
        "dinov2_hugging_face" => json!({
            "architectures": ["Dinov2ForImageClassification"], "model_type": "dinov2", "hidden_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 3, "mlp_ratio": 2, "hidden_act": "gelu",
            "layer_norm_eps": 1e-6, "image_size": 16, "patch_size": 8, "layerscale_value": 1.0,
            "use_swiglu_ffn": false, "apply_layernorm": true, "use_mask_token": false, "reshape_hidden_states": true,
        }),
        "clip_hugging_face" => json!({
            "architectures": ["CLIPForImageClassification"], "model_type": "clip", "initializer_factor": 1.0,
            "logit_scale_init_value": 2.6592, "projection_dim": 512, "text_config": {"num_attention_heads": 8},
            "vision_config": {
                "model_type": "clip_vision_model", "hidden_act": "quick_gelu", "hidden_size": 24, "image_size": 16,
                "intermediate_size": 48, "layer_norm_eps": 1e-5, "num_attention_heads": 3, "num_channels": 3,
                "num_hidden_layers": 2, "patch_size": 8, "projection_dim": 512, "attention_dropout": 0.0,
            },
        }),
        "clip_timm" => json!({"num_heads": 3, "act_layer": "quick_gelu"}),
        "tf_efficientnet_timm" | "tf_efficientnet_v2_timm" | "tf_mobilenet_v3_timm" => {
            json!({"pad_type": "same"})
        }
        "swin_hugging_face" => json!({
            "architectures": ["SwinForImageClassification"], "model_type": "swin", "image_size": 16, "patch_size": 2,
            "num_channels": 3, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, "mlp_ratio": 2.0,
            "qkv_bias": true, "hidden_act": "gelu", "use_absolute_embeddings": false, "layer_norm_eps": 1e-3,
            "hidden_size": 16, "num_layers": 2, "out_features": ["stage2"], "out_indices": [2], "encoder_stride": 32,
            "drop_path_rate": 0.1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
            "stage_names": ["stem", "stage1", "stage2"], "initializer_range": 0.02,
        }),
        _ => Value::Null,
    }
}

/// The recorded images, as the engine has them.
pub fn images(name: &str) -> Samples {
    let file = file(name);
    let [n, c, h, w] = file.shape("golden.x").unwrap()[..] else { panic!("{name}: no images") };
    let (shape, x) = (Shape::new(h, w, c), file.f32("golden.x").unwrap());
    let pixel = |i: usize, at: usize| (0..c).map(move |k| (i * c + k) * h * w + at);
    let order = (0..n).flat_map(|i| (0..h * w).flat_map(move |at| pixel(i, at)));
    Samples {
        kind: InputKind::Image(shape),
        x: order.map(|at| x[at]).collect(),
        y: file.labels("golden.label").unwrap().into(),
        stream: None,
    }
}

/// A folder with a model.
pub struct Folder(pub tempfile::TempDir);

impl Folder {
    pub fn new(state: &State, config: &Value) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        let all: Vec<Tensor> = state
            .iter()
            .map(|(name, (shape, values))| Tensor { name, shape: shape.clone(), values: Values::F32(values) })
            .collect();
        tensors::write(&folder.model(), &all, Default::default()).unwrap();
        if !config.is_null() {
            std::fs::write(folder.0.path().join("config.json"), config.to_string()).unwrap();
        }
        folder
    }

    fn model(&self) -> PathBuf {
        self.0.path().join("model.safetensors")
    }

    pub fn load(&self, shape: Option<Shape>) -> scrubjay::Result<Model> {
        zoo::load(&Checkpoint::open(self.0.path())?, None, shape)
    }
}

pub fn logits(net: &Network, samples: &Samples) -> Vec<f32> {
    observe(&Device::cpu().unwrap(), &net.freeze(), samples).unwrap().logits
}

/// The model gives the recorded logits of `name`, and is of that family.
fn right(name: &str, folder: &Folder, family: &str) {
    let samples = images(name);
    let model = folder.load(Some(samples.shape())).unwrap();
    assert_eq!(model.family, family, "{name}");
    let (found, expected) = (logits(&model.network, &samples), file(name).f64("golden.logits").unwrap());
    let size = expected.iter().map(|v| v * v).sum::<f64>().sqrt();
    let off = found.iter().zip(&expected).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum::<f64>().sqrt();
    // Ten times the error of PyTorch's f32 run, which the script keeps below 8e-6.
    assert!(off <= 8e-5 * size, "{name}: {found:?}, and not {expected:?}");
}

/// The model of these tensors is refused with these words.
fn refused(state: &State, config: &Value, shape: Shape, words: &[&str]) {
    let loaded = Folder::new(state, config).load(Some(shape));
    let error = loaded.err().unwrap_or_else(|| panic!("accepted, where {words:?} was expected")).to_string();
    words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
}

fn renamed(state: &State, rename: impl Fn(&str) -> String) -> State {
    state.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
}

#[test]
fn every_recorded_network_is_told_by_its_tensors_and_says_what_was_assumed() {
    for (name, family) in RECORDED {
        let folder = Folder::new(&state(name), &config(name));
        right(name, &folder, family);
        let model = folder.load(Some(images(name).shape())).unwrap();
        assert!(!model.facts.tensors.is_empty(), "{name}: {:?}", model.facts);
        // Where nothing names the architecture, what is not in the tensors is assumed.
        let named = config(name).get("model_type").is_some();
        assert_eq!(model.facts.assumed.is_empty(), named, "{name}: {:?}", model.facts);
    }
}

#[test]
fn what_was_changed_is_written_and_read_back_in_every_family() {
    for (name, _) in RECORDED {
        let (folder, out, shape) =
            (Folder::new(&state(name), &config(name)), tempfile::tempdir().unwrap(), images(name).shape());
        let before = folder.load(Some(shape)).unwrap().network;
        let mut after = before.clone();
        let weights = after.layers.iter().flat_map(|layer| [Some(layer.weight), layer.bias]).flatten();
        let changed: Vec<_> = weights.collect();
        for param in &changed {
            let values = &mut after.params[param.index()].value;
            let last = values.len() - 1;
            values[last] += 0.25;
        }
        let checkpoint = Checkpoint::open(folder.0.path()).unwrap();
        let patched = checkpoint.write_patched(&before, &after, out.path()).unwrap();
        assert_eq!((patched.changed, patched.vanished), (changed.len(), 0), "{name}");
        let read =
            |path: &Path| zoo::load(&Checkpoint::open(path).unwrap(), None, Some(shape)).unwrap().network;
        assert_eq!(read(out.path()).params, after.params, "{name}");
        // And a new file of a network alone, under PyTorch's names.
        save(&folder.model(), &after).unwrap();
        let (mine, theirs) = (logits(&read(folder.0.path()), &images(name)), logits(&after, &images(name)));
        assert_eq!(mine, theirs, "{name}");
    }
}

#[test]
fn an_outline_has_the_form_of_the_model_and_no_values() {
    for (name, _) in RECORDED {
        let folder = Folder::new(&state(name), &config(name));
        let checkpoint = Checkpoint::open(folder.0.path()).unwrap();
        let outline = zoo::outline(&checkpoint, &Choices::default()).unwrap().network;
        let model = zoo::load(&checkpoint, None, Some(outline.input())).unwrap().network;
        assert_eq!(outline.layers, model.layers, "{name}");
        for (mine, theirs) in outline.params.iter().zip(&model.params) {
            assert_eq!((&mine.name, &mine.shape), (&theirs.name, &theirs.shape));
            assert!(mine.value.len() == theirs.value.len() && mine.value.iter().all(|&v| v == 0.0), "{name}");
        }
    }
}

#[test]
fn other_names_of_the_same_tensors_give_the_same_logits() {
    // torchvision's first DenseNets.
    let first = |name: &str| {
        let parts = [("norm1", "norm.1"), ("conv1", "conv.1"), ("norm2", "norm.2"), ("conv2", "conv.2")];
        let inside = name.contains("denselayer");
        parts.iter().filter(|_| inside).fold(name.to_string(), |name, (new, old)| name.replace(new, old))
    };
    right("densenet_tiny", &Folder::new(&renamed(&state("densenet_tiny"), first), &Value::Null), "densenet");
    let caffe = renamed(&state("vgg_face"), |name| name.replace("conv_", "conv"));
    right("vgg_face", &Folder::new(&caffe, &Value::Null), "vgg-face");
    let wrapped = renamed(&state("efficientnet_tiny"), |name| format!("module.{name}"));
    right("efficientnet_tiny", &Folder::new(&wrapped, &Value::Null), "efficientnet");
    let head = renamed(&state("mobilenet_v2_tiny"), |name| name.replace("classifier.1.", "classifier.1.1."));
    right("mobilenet_v2_tiny", &Folder::new(&head, &Value::Null), "mobilenet-v2");
}

#[test]
fn names_of_published_architectures_are_known_and_those_of_others_refused() {
    for (name, family, known, other) in [
        ("preact_cifar", "preact-resnet", "preact_resnet18", "preact_resnet18_se"),
        ("wrn_xternalz", "preact-resnet", "WRN-28-10", "wrn-28-10-swish"),
        ("wrn_meliketoy", "preact-resnet", "wide_resnet28_10", "wide_resnest28"),
        ("resnext_tiny", "resnet", "resnext50_32x4d", "seresnext50_32x4d"),
        ("densenet_tiny", "densenet", "densenet121.tv_in1k", "densenetblur121d"),
        ("mobilenet_v2_tiny", "mobilenet-v2", "mobilenet_v2", "mobilenet_v2_se"),
        ("mobilenet_v3_small_tiny", "mobilenet-v3", "mobilenet_v3_small", "mobilenet_v3_large"),
        ("mobilenet_v3_large_tiny", "mobilenet-v3", "mobilenet_v3_large", "mobilenet_v3_small"),
        ("efficientnet_tiny", "efficientnet", "efficientnet_b0", "efficientnet_lite0"),
        ("efficientnet_v2_tiny", "efficientnet-v2", "efficientnet_v2_s", "efficientnet_b0"),
        ("regnet_y_tiny", "regnet", "regnet_y_400mf", "regnetz_b16"),
        ("mobilenet_v2_timm", "mobilenet-v2", "mobilenetv2_100.ra_in1k", "tf_mobilenetv2_100"),
        (
            "mobilenet_v3_small_timm",
            "mobilenet-v3",
            "mobilenetv3_small_100",
            "tf_mobilenetv3_small_minimal_100",
        ),
        ("efficientnet_timm", "efficientnet", "timm/efficientnet_b0.ra_in1k", "tf_efficientnet_lite0"),
        ("tf_efficientnet_timm", "efficientnet", "tf_efficientnet_b0.ns_jft_in1k", "tf_efficientnet_es"),
        ("tf_efficientnet_v2_timm", "efficientnet-v2", "tf_efficientnetv2_b0.in1k", "gc_efficientnetv2_rw_t"),
        ("efficientnet_v2_timm", "efficientnet-v2", "efficientnetv2_rw_t", "efficientnet_b0"),
        ("swin_torchvision", "swin", "swin_t", "swin_v2_t"),
        ("swin_timm", "swin", "swin_tiny_patch4_window7_224.ms_in1k", "swinv2_tiny_window8_256"),
        ("mixer_timm", "mixer", "mixer_b16_224.goog_in21k", "gmixer_24_224"),
        ("regnet_y_timm", "regnet", "regnety_004.tv2_in1k", "regnetv_040"),
        ("convnext_tiny_timm", "convnext", "timm/convnext_tiny.fb_in1k", "convnextv2_tiny"),
        ("alexnet_tiny", "alexnet", "alexnet", "zfnet"),
        ("osnet_tiny", "osnet", "osnet_x0_25", "osnet_ibn_x1_0"),
        ("osnet_ibn_tiny", "osnet", "osnet_ibn_x1_0", "osnet_x1_0"),
        ("osnet_ain_tiny", "osnet", "osnet_ain_x1_0", "osnet_ibn_x1_0"),
        ("mlfn_tiny", "mlfn", "mlfn", "hacnn"),
        ("vgg_face", "vgg-face", "vgg_face", "vgg_m"),
    ] {
        let shape = images(name).shape();
        right(name, &Folder::new(&state(name), &json!({"architecture": known})), family);
        let error = Folder::new(&state(name), &json!({"architecture": other})).load(Some(shape));
        let error = error.err().unwrap_or_else(|| panic!("{name} was taken for {other}")).to_string();
        assert!(
            error.contains(other) || error.contains("names another") || error.contains("does not fit"),
            "{error}"
        );
    }
}

#[test]
fn variants_that_compute_something_else_are_refused_by_what_does_not_fit() {
    let shape = |name: &str| images(name).shape();
    // Where the stride and the shortcut are cannot be told without biases.
    let mut wide = state("wrn_meliketoy");
    wide.retain(|name, _| !name.contains("conv") || !name.ends_with("bias"));
    refused(&wide, &Value::Null, shape("wrn_meliketoy"), &["pre-activation blocks without biases"]);
    let with = |name: &str, tensor: &str, of: &str| {
        let mut state = state(name);
        let copy = state[of].clone();
        state.insert(tensor.into(), copy);
        state
    };
    // A squeeze in a pre-activation block, ConvNeXt V2's norm, running statistics of instance norm, batch norm in VGG-Face.
    let squeeze = with("preact_cifar", "layer1.0.fc1.weight", "layer1.0.conv1.weight");
    refused(&squeeze, &Value::Null, shape("preact_cifar"), &["layer1.0.fc1.weight"]);
    let grn = with("convnext_tiny_timm", "stages.0.blocks.0.mlp.grn.weight", "stages.0.blocks.0.norm.weight");
    refused(&grn, &Value::Null, shape("convnext_tiny_timm"), &["stages.0.blocks.0.mlp.grn.weight"]);
    let norms = with("osnet_ibn_tiny", "conv2.0.IN.running_mean", "conv2.0.conv3.bn.weight");
    refused(&norms, &Value::Null, shape("osnet_ibn_tiny"), &["conv2.0.IN.running_mean"]);
    let norms = with("vgg_face", "bn_1_1.running_mean", "conv_1_1.bias");
    refused(&norms, &Value::Null, shape("vgg_face"), &["bn_1_1.running_mean"]);
    // Other filters and other numbers of blocks than those that were published.
    let mut other = state("alexnet_tiny");
    other.insert("features.0.weight".into(), (vec![4, 3, 5, 5], vec![0.5; 4 * 3 * 25]));
    refused(&other, &Value::Null, shape("alexnet_tiny"), &["features.0", "5x5", "11x11"]);
    let mut other = state("mobilenet_v3_small_tiny");
    let wider = other["features.4.block.1.0.weight"].0[0];
    other.insert("features.4.block.1.0.weight".into(), (vec![wider, 1, 3, 3], vec![0.1; wider * 9]));
    refused(&other, &Value::Null, shape("mobilenet_v3_small_tiny"), &["features.4.block", "5x5"]);
    let mut deeper = state("efficientnet_tiny");
    let last: Vec<_> = deeper.iter().filter(|(name, _)| name.starts_with("features.2.1.")).collect();
    let more: Vec<_> = last
        .into_iter()
        .map(|(name, tensor)| (name.replace("features.2.1.", "features.2.2."), tensor.clone()))
        .collect();
    deeper.extend(more);
    refused(&deeper, &Value::Null, shape("efficientnet_tiny"), &["[1, 3, 2, 3, 3, 4, 1]", "bn_eps"]);
    let folder = Folder::new(&deeper, &json!({"bn_eps": 1e-5}));
    assert_eq!(folder.load(Some(shape("efficientnet_tiny"))).unwrap().family, "efficientnet");
    let mut fused = state("efficientnet_tiny");
    let [outputs, inputs] = [0, 1].map(|axis| fused["features.2.0.block.0.0.weight"].0[axis]);
    fused.insert(
        "features.2.0.block.0.0.weight".into(),
        (vec![outputs, inputs, 3, 3], vec![0.1; outputs * inputs * 9]),
    );
    refused(&fused, &Value::Null, shape("efficientnet_tiny"), &["features.2.0.block", "EfficientNetV2"]);
    // Images of another size than a head takes that reads all values.
    for name in ["vgg_kuangliu", "vgg_dropout", "vgg_face"] {
        refused(&state(name), &Value::Null, Shape::new(96, 96, 3), &["images of another size"]);
    }
}

#[test]
fn keys_of_a_config_are_honoured_or_refused() {
    let samples = images("convnext_tiny_timm");
    let recorded = logits(
        &Folder::new(&state("convnext_tiny_timm"), &Value::Null).load(Some(samples.shape())).unwrap().network,
        &samples,
    );
    for key in [json!({"act_layer": "relu"}), json!({"layer_norm_eps": 0.25})] {
        let folder = Folder::new(&state("convnext_tiny_timm"), &key);
        let net = folder.load(Some(samples.shape())).unwrap().network;
        assert_ne!(logits(&net, &samples), recorded, "{key}");
    }
    for (name, key, word) in [
        ("convnext_tiny_timm", json!({"model_args": {"use_grn": true}}), "use_grn"),
        ("densenet_tiny", json!({"global_pool": "max"}), "global_pool"),
        ("efficientnet_tiny", json!({"output_stride": 16}), "output_stride"),
        ("regnet_x_tiny", json!({"se_ratio": 0.25}), "se_ratio"),
        ("mobilenet_v2_tiny", json!({"num_heads": 3}), "num_heads"),
    ] {
        refused(&state(name), &key, images(name).shape(), &[word]);
    }
}
