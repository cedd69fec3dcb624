//! Checkpoints: what is written is the input byte for byte but for the changed values, whatever the type, the wrapper
//! or the number of files; and a model that is not whole is refused with its file and its tensor.

#![allow(clippy::unwrap_used, clippy::expect_used)] // in the helpers of tests too

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use scrubjay::checkpoint::{Checkpoint, Patched, save};
use scrubjay::data::Samples;
use scrubjay::data::tensors::{self, Tensor, TensorFile, Values};
use scrubjay::device::Device;
use scrubjay::net::{Network, Shape};
use scrubjay::observe::observe;
use scrubjay::zoo;
use serde_json::{Value, json};

/// A perceptron of 4, 3 and 2: names, shapes and values that every type holds exactly.
fn tiny() -> Vec<Named> {
    let values = |len: usize, from: i32| (0..len as i32).map(|i| (from + i) as f32 / 8.0).collect();
    vec![
        ("fc1.weight".into(), vec![3, 4], values(12, -5)),
        ("fc1.bias".into(), vec![3], values(3, 1)),
        ("fc2.weight".into(), vec![2, 3], values(6, -2)),
        ("fc2.bias".into(), vec![2], values(2, 3)),
    ]
}

/// Name, shape and values of a tensor.
type Named = (String, Vec<usize>, Vec<f32>);

fn write(path: &Path, all: &[Named]) {
    let all: Vec<Tensor> = all
        .iter()
        .map(|(name, shape, values)| Tensor { name, shape: shape.clone(), values: Values::F32(values) })
        .collect();
    let metadata = HashMap::from([("format".into(), "pt".into()), ("note".into(), "kept".into())]);
    tensors::write(path, &all, metadata).unwrap();
}

fn encode(values: &[f32], dtype: Dtype) -> Vec<u8> {
    let one = |v: f32| match dtype {
        Dtype::F16 => half::f16::from_f32(v).to_le_bytes().to_vec(),
        Dtype::BF16 => half::bf16::from_f32(v).to_le_bytes().to_vec(),
        Dtype::F64 => f64::from(v).to_le_bytes().to_vec(),
        Dtype::F32 => v.to_le_bytes().to_vec(),
        Dtype::I32 => (v as i32).to_le_bytes().to_vec(),
        other => panic!("{other:?}"),
    };
    values.iter().flat_map(|&v| one(v)).collect()
}

fn write_as(path: &Path, all: &[Named], dtype: Dtype) {
    let bytes: Vec<Vec<u8>> = all.iter().map(|(_, _, values)| encode(values, dtype)).collect();
    let views = all.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name.clone(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    let metadata = Some(HashMap::from([("format".to_string(), "pt".to_string())]));
    std::fs::write(path, safetensors::serialize(views, metadata).unwrap()).unwrap();
}

fn network(path: &Path) -> Network {
    zoo::load(&Checkpoint::open(path).unwrap(), None, None).unwrap().network
}

fn set(net: &mut Network, name: &str, at: usize, value: f32) {
    let param = net.params.iter_mut().find(|param| param.name == name).unwrap();
    let kept = param.order.kept(at);
    param.value[kept] = value;
}

/// Reads a model, changes values, writes it to a new folder.
fn patch(model: &Path, out: &Path, changes: &[(&str, usize, f32)]) -> Patched {
    let checkpoint = Checkpoint::open(model).unwrap();
    let before = zoo::load(&checkpoint, None, None).unwrap().network;
    let mut after = before.clone();
    changes.iter().for_each(|(name, at, value)| set(&mut after, name, *at, *value));
    std::fs::create_dir_all(out).unwrap();
    checkpoint.write_patched(&before, &after, out).unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.file_name().unwrap().to_string_lossy().into(), std::fs::read(path).unwrap()))
        .collect()
}

fn refused(path: &Path, words: &[&str]) {
    let loaded = Checkpoint::open(path).and_then(|checkpoint| zoo::load(&checkpoint, None, None).map(|_| ()));
    let error = loaded.expect_err("the model was accepted").to_string();
    for word in words.iter().copied().chain([path.to_string_lossy().as_ref()]) {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn unchanged_networks_are_written_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64] {
        let model = dir.path().join("m.safetensors");
        write_as(&model, &tiny(), dtype);
        let out = dir.path().join(format!("{dtype:?}"));
        let patched = patch(&model, &out, &[]);
        assert_eq!((patched.changed, patched.vanished), (0, 0));
        assert_eq!(patched.files, [out.join("m.safetensors")]);
        assert_eq!(files(&out), BTreeMap::from([("m.safetensors".into(), std::fs::read(&model).unwrap())]));
    }
}

#[test]
fn only_the_bytes_of_changed_values_differ_in_every_type() {
    let dir = tempfile::tempdir().unwrap();
    for (dtype, size) in [(Dtype::F32, 4), (Dtype::F16, 2), (Dtype::BF16, 2), (Dtype::F64, 8)] {
        let model = dir.path().join("m.safetensors");
        write_as(&model, &tiny(), dtype);
        let out = dir.path().join(format!("{dtype:?}"));
        let changes = [("fc1.weight", 7, 1.75), ("fc2.bias", 1, -0.5)];
        let patched = patch(&model, &out, &changes);
        assert_eq!((patched.changed, patched.vanished), (2, 0), "{dtype:?}");

        let file = TensorFile::open(&model).unwrap();
        let mut expected = std::fs::read(file.path()).unwrap();
        for (name, at, value) in changes {
            let start = file.range(name).unwrap().start + at * size;
            expected[start..start + size].copy_from_slice(&encode(&[value], dtype));
        }
        assert_eq!(std::fs::read(out.join("m.safetensors")).unwrap(), expected, "{dtype:?}");
        let read = network(&out.join("m.safetensors"));
        let mut wanted = network(&model);
        changes.iter().for_each(|(name, at, value)| set(&mut wanted, name, *at, *value));
        assert_eq!(read, wanted);
    }
}

#[test]
fn updates_too_small_for_the_stored_type_are_counted_as_vanished() {
    let dir = tempfile::tempdir().unwrap();
    let nudge = 0.5 + 1e-6; // fc1.weight[9] is 0.5: half precision cannot tell
    for (dtype, counts) in
        [(Dtype::F16, (1, 1)), (Dtype::BF16, (1, 1)), (Dtype::F32, (2, 0)), (Dtype::F64, (2, 0))]
    {
        let model = dir.path().join("m.safetensors");
        write_as(&model, &tiny(), dtype);
        let out = dir.path().join(format!("{dtype:?}"));
        let patched = patch(&model, &out, &[("fc1.weight", 9, nudge), ("fc1.bias", 0, 4.0)]);
        assert_eq!((patched.changed, patched.vanished), counts, "{dtype:?}");
    }
}

#[test]
fn values_of_wider_types_that_no_one_touched_keep_their_last_bits() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.safetensors");
    let third: Vec<f64> = (0..8).map(|i| f64::from(i) / 3.0).collect();
    let all = [
        Tensor { name: "fc.weight", shape: vec![2, 4], values: Values::F64(&third) },
        Tensor { name: "fc.bias", shape: vec![2], values: Values::F64(&third[1..3]) },
    ];
    tensors::write(&model, &all, HashMap::new()).unwrap();
    patch(&model, &dir.path().join("out"), &[("fc.weight", 5, 9.0)]);
    let written = TensorFile::open(&dir.path().join("out/m.safetensors")).unwrap();
    let mut expected = third.clone();
    expected[5] = 9.0;
    assert_eq!(written.f64("fc.weight").unwrap(), expected);
    assert_eq!(written.f64("fc.bias").unwrap(), third[1..3]);
}

#[test]
fn metadata_and_the_names_of_a_wrapper_stay() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("wrapped.safetensors");
    let wrapped: Vec<_> = tiny().into_iter().map(|(n, s, v)| (format!("module.model.{n}"), s, v)).collect();
    write(&model, &wrapped);
    assert_eq!(Checkpoint::open(&model).unwrap().names().next(), Some("fc1.bias"));
    let patched = patch(&model, &dir.path().join("out"), &[("fc2.weight", 0, 7.0)]);
    assert_eq!(patched.changed, 1);
    let (before, after) = (
        TensorFile::open(&model).unwrap(),
        TensorFile::open(&dir.path().join("out/wrapped.safetensors")).unwrap(),
    );
    assert_eq!(after.metadata()["note"], "kept");
    assert_eq!(after.metadata(), before.metadata());
    assert_eq!(after.names(), before.names());
    assert_eq!(after.f32("module.model.fc2.weight").unwrap()[0], 7.0);
    assert_eq!(after.f32("module.model.fc1.weight").unwrap(), before.f32("module.model.fc1.weight").unwrap());
}

#[test]
fn a_folder_is_written_with_its_config_and_without_what_is_no_part_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("model"), dir.path().join("out"));
    std::fs::create_dir(&model).unwrap();
    write(&model.join("model.safetensors"), &tiny());
    let config = "{ \"architecture\":  \"mlp\", \"num_classes\": 2 }\n";
    std::fs::write(model.join("config.json"), config).unwrap();
    std::fs::write(model.join("preprocessor_config.json"), "{}").unwrap();
    std::fs::write(model.join("diary.txt"), "not for others").unwrap();
    patch(&model, &out, &[("fc1.bias", 2, 8.0)]);
    let written = files(&out);
    assert_eq!(
        written.keys().collect::<Vec<_>>(),
        ["config.json", "model.safetensors", "preprocessor_config.json"]
    );
    assert_eq!(written["config.json"], config.as_bytes());
    assert_eq!(network(&out).params.len(), 4);
}

#[test]
fn shards_stay_shards_and_only_the_one_that_changed_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("model"), dir.path().join("out"));
    std::fs::create_dir(&model).unwrap();
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    write(&model.join(one), &tiny()[..2]);
    write(&model.join(two), &tiny()[2..]);
    let index = format!(
        r#"{{"metadata":{{}},"weight_map":{{"fc1.weight":"{one}","fc1.bias":"{one}","fc2.weight":"{two}","fc2.bias":"{two}"}}}}"#
    );
    std::fs::write(model.join("model.safetensors.index.json"), &index).unwrap();
    let patched = patch(&model, &out, &[("fc2.weight", 4, 6.0)]);
    assert_eq!((patched.changed, patched.files.len()), (1, 2));
    let (before, after) = (files(&model), files(&out));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, bytes) in &before {
        assert_eq!(*bytes == after[name], name != two, "{name}");
    }

    std::fs::remove_file(model.join(two)).unwrap();
    refused(&model, &[two]);
    write(&model.join(two), &tiny()[1..]); // one tensor in both
    refused(&model, &["fc1.bias", "two of the shards"]);
    std::fs::write(model.join("model.safetensors.index.json"), r#"{"weight_map":{"a":"../b"}}"#).unwrap();
    refused(&model, &["index.json"]);
    std::fs::write(model.join("model.safetensors.index.json"), "{").unwrap();
    refused(&model, &["index.json"]);
}

#[test]
fn models_that_were_made_are_read_back_as_they_were_saved() {
    let dir = tempfile::tempdir().unwrap();
    for (spec, image) in [
        ("mlp:6-5", Shape::new(1, 1, 7)),
        ("mlp:6", Shape::new(3, 4, 2)),
        ("cnn:4-6+5", Shape::new(9, 8, 3)),
        ("resnet20", Shape::new(32, 32, 3)),
        ("resnet18:3", Shape::new(32, 32, 3)),
        ("resnet50:2", Shape::new(64, 64, 3)),
        ("wrn-10-1", Shape::new(16, 16, 1)),
        ("vgg11_bn:2", Shape::new(32, 32, 3)),
        ("vgg11:1", Shape::new(64, 64, 3)),
        ("densenet121:1", Shape::new(32, 32, 3)),
        ("mobilenet_v2:4", Shape::new(32, 32, 3)),
        ("mobilenet_v3_large:2", Shape::new(32, 32, 3)),
        ("mobilenet_v3_small", Shape::new(32, 32, 3)),
        ("efficientnet_b0:4", Shape::new(32, 32, 3)),
        ("efficientnet_v2_s:4", Shape::new(32, 32, 3)),
        ("regnet_x_400mf", Shape::new(32, 32, 3)),
        ("regnet_y_400mf:8", Shape::new(32, 32, 3)),
        ("alexnet:2", Shape::new(64, 64, 3)),
        ("osnet_x0_25:4", Shape::new(64, 32, 3)),
        ("convnext_tiny:2", Shape::new(32, 32, 3)),
        ("vit_tiny_patch16", Shape::new(32, 32, 3)),
        ("vit:8-2-2-4", Shape::new(16, 12, 3)),
        ("swin_t:3", Shape::new(224, 224, 3)),
        ("mixer:8-2-4", Shape::new(16, 16, 3)),
    ] {
        let model = dir.path().join(spec.replace([':', '+'], "_"));
        std::fs::create_dir_all(&model).unwrap();
        let made = zoo::create(spec, image, 4, 1).unwrap();
        save(&model.join("model.safetensors"), &made.network).unwrap();
        std::fs::write(model.join("config.json"), made.config.to_string()).unwrap();
        let read = zoo::load(&Checkpoint::open(&model).unwrap(), None, None).unwrap();
        assert!(read.network == made.network, "{spec}");
        assert_eq!(read.inputs.shape, Some(image), "{spec}");
        assert_eq!(read.facts.assumed, Vec::<String>::new(), "{spec}");

        let out = model.join("out");
        patch(&model, &out, &[]);
        assert_eq!(files(&out)["model.safetensors"], std::fs::read(model.join("model.safetensors")).unwrap());
    }
}

#[test]
fn filters_are_patched_where_the_file_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let made = zoo::create("cnn:3", Shape::new(4, 4, 2), 2, 1).unwrap();
    save(&model.join("model.safetensors"), &made.network).unwrap();
    std::fs::write(model.join("config.json"), made.config.to_string()).unwrap();
    let file = TensorFile::open(&model.join("model.safetensors")).unwrap();
    for name in ["conv1.weight", "head.weight"] {
        let mut expected = file.f32(name).unwrap();
        let at = expected.len() - 4;
        expected[at] = 5.0;
        patch(&model, &dir.path().join("out"), &[(name, at, 5.0)]);
        let written = TensorFile::open(&dir.path().join("out/model.safetensors")).unwrap();
        assert_eq!(written.f32(name).unwrap(), expected);
    }
}

#[test]
fn a_tensor_that_does_not_fit_is_named_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("bad.safetensors");
    let with = |change: &dyn Fn(&mut Vec<Named>)| {
        let mut all = tiny();
        change(&mut all);
        write(&model, &all);
    };
    with(&|all| all[1] = ("fc1.bias".into(), vec![5], vec![0.0; 5]));
    refused(&model, &["fc1.bias", "[5]", "[3]"]);
    with(&|all| all[2] = ("fc2.weight".into(), vec![2, 9], vec![0.0; 18]));
    refused(&model, &["fc2.weight", "chain"]);
    with(&|all| all[2] = ("fc2.weight".into(), vec![2, 1, 3], vec![0.0; 6]));
    refused(&model, &["fc2.weight"]);
    with(&|all| drop(all.remove(2)));
    refused(&model, &["fc2.bias", "no place"]);
    with(&|all| all.push(("scale".into(), vec![1, 1, 1], vec![1.0])));
    refused(&model, &["scale"]);
    with(&|all| all.push(("other.bias".into(), vec![2], vec![1.0; 2])));
    refused(&model, &["other.bias", "no place"]);
    for (bad, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        with(&|all| all[2].2[4] = bad);
        refused(&model, &["fc2.weight", "element 4", word]);
    }
    write_as(&model, &tiny(), Dtype::I32);
    refused(&model, &["fc1.weight", "I32", "floats"]);
}

#[test]
fn a_tensor_that_a_family_needs_is_named_where_it_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let made = zoo::create("resnet20", Shape::new(32, 32, 3), 4, 1).unwrap();
    save(&model.join("model.safetensors"), &made.network).unwrap();
    std::fs::write(model.join("config.json"), made.config.to_string()).unwrap();
    let file = TensorFile::open(&model.join("model.safetensors")).unwrap();
    for missing in ["layer2.1.conv2.weight", "layer1.0.bn1.running_var", "linear.weight"] {
        let all: Vec<_> = file
            .names()
            .into_iter()
            .filter(|name| name != missing)
            .map(|name| (name.clone(), file.shape(&name).unwrap().to_vec(), file.f32(&name).unwrap()))
            .collect();
        write(&model.join("model.safetensors"), &all);
        refused(&model, &[missing]);
    }
}

#[test]
fn a_config_that_contradicts_the_tensors_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    write(&model.join("model.safetensors"), &tiny());
    std::fs::write(model.join("config.json"), r#"{"num_classes": 10}"#).unwrap();
    refused(&model, &["10 classes", "have 2"]);
    std::fs::write(model.join("config.json"), "[1, ").unwrap();
    refused(&model, &["config.json"]);
}

#[test]
fn files_that_are_no_models_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.safetensors");
    write(&model, &tiny());
    let whole = std::fs::read(&model).unwrap();
    for len in [0, 3, 40, whole.len() - 1] {
        std::fs::write(&model, &whole[..len]).unwrap();
        refused(&model, &["safetensors file"]);
    }
    std::fs::write(&model, [&whole[..], &[0]].concat()).unwrap();
    refused(&model, &["something follows"]);
    write(&model, &[]);
    refused(&model, &["no tensors"]);
    refused(&dir.path().join("absent.safetensors"), &[]);
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    refused(&empty, &["neither model.safetensors nor"]);
}

// --- the same weights under the names of two libraries

/// Numbers by a 64-bit linear congruential generator, from −1 to 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Values around `centre`.
    fn tensor(&mut self, name: &str, shape: &[usize], centre: f32) -> Named {
        let fan_in: usize = shape[1..].iter().product();
        let size = if shape.len() > 1 { (3.0 / fan_in as f32).sqrt() } else { 0.3 };
        let values = (0..shape.iter().product()).map(|_| centre + size * self.next()).collect();
        (name.into(), shape.to_vec(), values)
    }

    /// Weight and bias.
    fn layer(&mut self, all: &mut Vec<Named>, name: &str, shape: &[usize]) {
        all.push(self.tensor(&format!("{name}.weight"), shape, 0.0));
        all.push(self.tensor(&format!("{name}.bias"), &shape[..1], 0.0));
    }

    /// A norm of `c` channels; batch norm has running statistics and a counter.
    fn norm(&mut self, all: &mut Vec<Named>, name: &str, c: usize, batch: bool) {
        all.push(self.tensor(&format!("{name}.weight"), &[c], 1.0));
        all.push(self.tensor(&format!("{name}.bias"), &[c], 0.0));
        if batch {
            all.push(self.tensor(&format!("{name}.running_mean"), &[c], 0.0));
            all.push(self.tensor(&format!("{name}.running_var"), &[c], 1.0));
        }
    }
}

const DIM: usize = 12;

/// timm's names: 4×4 patches of 8×8 images, two blocks of three heads, five classes.
fn timm_vit(last: &str) -> Vec<Named> {
    let (mut random, mut all) = (Random(7), vec![]);
    random.layer(&mut all, "patch_embed.proj", &[DIM, 3, 4, 4]);
    all.push(random.tensor("cls_token", &[1, 1, DIM], 0.0));
    all.push(random.tensor("pos_embed", &[1, 5, DIM], 0.0));
    for i in 0..2 {
        random.norm(&mut all, &format!("blocks.{i}.norm1"), DIM, false);
        random.layer(&mut all, &format!("blocks.{i}.attn.qkv"), &[3 * DIM, DIM]);
        random.layer(&mut all, &format!("blocks.{i}.attn.proj"), &[DIM, DIM]);
        random.norm(&mut all, &format!("blocks.{i}.norm2"), DIM, false);
        random.layer(&mut all, &format!("blocks.{i}.mlp.fc1"), &[20, DIM]);
        random.layer(&mut all, &format!("blocks.{i}.mlp.fc2"), &[DIM, 20]);
    }
    random.norm(&mut all, last, DIM, false);
    random.layer(&mut all, "head", &[5, DIM]);
    all
}

/// The same under `ViTForImageClassification`'s names: queries, keys and values apart.
fn hugging_face_vit(timm: &[Named], root: &str) -> Vec<Named> {
    let mut out = vec![];
    for (name, shape, values) in timm {
        let (module, end) = name.rsplit_once('.').unwrap_or((name, ""));
        if module.ends_with("attn.qkv") {
            let block = module.replace("blocks", &format!("{root}.encoder.layer")).replace(".attn.qkv", "");
            let third = values.len() / 3;
            for (i, part) in ["query", "key", "value"].iter().enumerate() {
                let mut shape = shape.clone();
                shape[0] /= 3;
                let part_values = values[i * third..(i + 1) * third].to_vec();
                out.push((format!("{block}.attention.attention.{part}.{end}"), shape, part_values));
            }
            continue;
        }
        let name = match name.as_str() {
            "cls_token" => format!("{root}.embeddings.cls_token"),
            "pos_embed" => format!("{root}.embeddings.position_embeddings"),
            name => name
                .replace("patch_embed.proj", &format!("{root}.embeddings.patch_embeddings.projection"))
                .replace("blocks", &format!("{root}.encoder.layer"))
                .replace("norm1", "layernorm_before")
                .replace("norm2", "layernorm_after")
                .replace("attn.proj", "attention.output.dense")
                .replace("mlp.fc1", "intermediate.dense")
                .replace("mlp.fc2", "output.dense")
                .replace("head.", "classifier."),
        };
        let name = if name.starts_with("norm.") { format!("{root}.layer{name}") } else { name };
        out.push((name, shape.clone(), values.clone()));
    }
    out
}

fn folder(dir: &Path, name: &str, all: &[Named], config: &Value) -> std::path::PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    write(&folder.join("model.safetensors"), all);
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    folder
}

/// What a model says of four random images of the size that it names.
fn logits(model: &Path) -> (String, Vec<f32>) {
    let model = zoo::load(&Checkpoint::open(model).unwrap(), None, None).unwrap();
    let (net, mut random) = (model.network.freeze(), Random(3));
    let x = (0..4 * net.input().len()).map(|_| random.next()).collect();
    let samples = Samples { kind: net.kind(), x, y: vec![0; 4].into(), stream: None };
    (model.family.into(), observe(&Device::cpu().unwrap(), &net, &samples).unwrap().logits)
}

/// The same to rounding, and not all equal.
fn agree(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 2e-6 * (1.0 + a.abs()), "{a} {b}");
    }
    assert!(a.iter().any(|v| (v - a[0]).abs() > 0.1), "{a:?}");
}

fn hugging_face_vit_config(eps: f64) -> Value {
    json!({
        "architectures": ["ViTForImageClassification"], "model_type": "vit", "num_attention_heads": 3,
        "hidden_act": "gelu", "layer_norm_eps": eps, "image_size": 8, "patch_size": 4, "num_channels": 3,
        "id2label": {"0": "a", "1": "b", "2": "c", "3": "d", "4": "e"},
    })
}

#[test]
fn a_vision_transformer_is_the_same_function_under_the_names_of_timm_and_of_hugging_face() {
    let dir = tempfile::tempdir().unwrap();
    let timm = timm_vit("norm");
    let config = json!({"architecture": "vit_tiny_patch4", "num_classes": 5, "model_args": {"num_heads": 3}});
    let (family, expected) = logits(&folder(dir.path(), "timm", &timm, &config));
    assert_eq!(family, "vit");
    for root in ["vit", "deit"] {
        let named = hugging_face_vit(&timm, root);
        let found = logits(&folder(dir.path(), root, &named, &hugging_face_vit_config(1e-6)));
        assert_eq!(found.0, "vit");
        agree(&found.1, &expected);
    }
    let renamed = |name: &str| {
        [
            ("encoder.layer", "layers"),
            ("attention.attention.query", "attention.q_proj"),
            ("attention.attention.key", "attention.k_proj"),
            ("attention.attention.value", "attention.v_proj"),
            ("attention.output.dense", "attention.o_proj"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
        ]
        .iter()
        .fold(name.to_string(), |name, (old, new)| name.replace(old, new))
    };
    let newer: Vec<Named> =
        hugging_face_vit(&timm, "vit").into_iter().map(|(n, s, v)| (renamed(&n), s, v)).collect();
    assert!(newer.iter().any(|(name, ..)| name == "vit.layers.1.attention.v_proj.bias"));
    agree(&logits(&folder(dir.path(), "newer", &newer, &hugging_face_vit_config(1e-6))).1, &expected);
    let headless: Vec<Named> = newer.into_iter().filter(|(name, ..)| name != "classifier.weight").collect();
    let headless = folder(dir.path(), "headless", &headless, &hugging_face_vit_config(1e-6));
    refused(&headless, &["classifier.weight"]);

    // The config decides, and a value that it cannot have is refused.
    let named = hugging_face_vit(&timm, "vit");
    let config = hugging_face_vit_config(1e-6);
    let with = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        folder(dir.path(), "other", &named, &config)
    };
    for (key, value) in [
        ("layer_norm_eps", json!(0.1)),
        ("hidden_act", json!("relu")),
        ("num_attention_heads", json!(4)),
        ("layer_norm_eps", Value::Null), // 1e-12
    ] {
        let off = logits(&with(key, value.clone())).1.iter().zip(&expected).any(|(a, b)| a != b);
        assert!(off, "{key} {value}");
    }
    refused(&with("hidden_act", json!("mish")), &["mish", "gelu, silu"]);
    refused(&with("id2label", json!({"0": "a", "1": "b"})), &["2 classes", "have 5"]);
    refused(&with("num_attention_heads", json!(5)), &["5 attention heads", "12 channels"]);

    // A distillation token stands behind the class token.
    let distilled: Vec<Named> = hugging_face_vit(&timm, "deit")
        .into_iter()
        .map(|(name, mut shape, mut values)| {
            if name.ends_with("position_embeddings") {
                shape[1] += 1;
                values.extend_from_within(..DIM);
            }
            (name, shape, values)
        })
        .chain([Random(9).tensor("deit.embeddings.distillation_token", &[1, 1, DIM], 0.0)])
        .collect();
    assert_eq!(logits(&folder(dir.path(), "distilled", &distilled, &config)).1.len(), 20);
}

#[test]
fn a_mean_over_tokens_leaves_the_class_token_out() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"architecture": "vit_tiny", "num_heads": 3, "global_pool": "avg"});
    let normed = logits(&folder(dir.path(), "fc_norm", &timm_vit("fc_norm"), &config)).1;
    let unsaid = json!({"architecture": "vit_tiny", "num_heads": 3});
    assert_eq!(logits(&folder(dir.path(), "unsaid", &timm_vit("fc_norm"), &unsaid)).1, normed);

    // Without blocks the class token meets no other: then only its absence from the mean leaves no trace.
    let few = |token: f32| {
        let mut all = timm_vit("fc_norm");
        all.retain(|(name, ..)| !name.starts_with("blocks.1"));
        for (name, _, values) in &mut all {
            match name.as_str() {
                "cls_token" => values.fill(token),
                "blocks.0.attn.proj.weight" => values.fill(0.0),
                _ => {}
            }
        }
        logits(&folder(dir.path(), "few", &all, &config)).1
    };
    assert_eq!(few(0.5), few(-3.0));
    let token = json!({"architecture": "vit_tiny", "num_heads": 3, "global_pool": "token"});
    assert_ne!(logits(&folder(dir.path(), "token", &timm_vit("fc_norm"), &token)).1, normed);
    let map = json!({"architecture": "vit_tiny", "num_heads": 3, "global_pool": "map"});
    refused(&folder(dir.path(), "map", &timm_vit("norm"), &map), &["global_pool", "map", "avg and token"]);
}

/// torchvision's names: four stages of one block each, 32×32 images.
fn torchvision_resnet(bottleneck: bool) -> Vec<Named> {
    let (mut random, mut all) = (Random(11), vec![]);
    let mut conv = |all: &mut Vec<Named>, conv: String, norm: String, shape: [usize; 4]| {
        all.push(random.tensor(&format!("{conv}.weight"), &shape, 0.0));
        random.norm(all, &norm, shape[0], true);
    };
    conv(&mut all, "conv1".into(), "bn1".into(), [6, 3, 7, 7]);
    let mut last = 6;
    for (stage, width) in [(1, 8), (2, 8), (3, 12), (4, 16)] {
        let name = format!("layer{stage}.0");
        let inner = width / 2;
        let shapes = match bottleneck {
            true => vec![[inner, last, 1, 1], [inner, inner, 3, 3], [width, inner, 1, 1]],
            false => vec![[width, last, 3, 3], [width, width, 3, 3]],
        };
        for (k, shape) in shapes.into_iter().enumerate() {
            conv(&mut all, format!("{name}.conv{}", k + 1), format!("{name}.bn{}", k + 1), shape);
        }
        let down = format!("{name}.downsample");
        conv(&mut all, format!("{down}.0"), format!("{down}.1"), [width, last, 1, 1]);
        last = width;
    }
    random.layer(&mut all, "fc", &[4, last]);
    all
}

/// The same under `ResNetForImageClassification`'s names.
fn hugging_face_resnet(torchvision: &[Named]) -> Vec<Named> {
    let rename = |name: &str| {
        let Some(rest) = name.strip_prefix("layer") else {
            return name
                .replace("conv1.", "resnet.embedder.embedder.convolution.")
                .replace("bn1.", "resnet.embedder.embedder.normalization.")
                .replace("fc.", "classifier.1.");
        };
        let [stage, block, part, end]: [&str; 4] = match rest.split('.').collect::<Vec<_>>()[..] {
            [stage, block, "downsample", i, end] => [stage, block, if i == "0" { "c" } else { "n" }, end],
            [stage, block, part, end] => [stage, block, part, end],
            _ => panic!("{name}"),
        };
        let stage = stage.parse::<usize>().unwrap() - 1;
        let layer = |digits: &str| format!("layer.{}", digits.parse::<usize>().unwrap() - 1);
        let part = match part {
            "c" => "shortcut.convolution".to_string(),
            "n" => "shortcut.normalization".to_string(),
            part => match part.strip_prefix("conv") {
                Some(k) => format!("{}.convolution", layer(k)),
                None => format!("{}.normalization", layer(&part[2..])),
            },
        };
        format!("resnet.encoder.stages.{stage}.layers.{block}.{part}.{end}")
    };
    torchvision.iter().map(|(name, shape, values)| (rename(name), shape.clone(), values.clone())).collect()
}

#[test]
fn a_resnet_is_the_same_function_under_the_names_of_torchvision_and_of_hugging_face() {
    let dir = tempfile::tempdir().unwrap();
    for (bottleneck, layers) in [(false, "basic"), (true, "bottleneck")] {
        let torchvision = torchvision_resnet(bottleneck);
        let config = json!({"architecture": "resnet18", "input_size": [3, 32, 32]});
        let (family, expected) = logits(&folder(dir.path(), "torchvision", &torchvision, &config));
        assert_eq!(family, "resnet");
        let config = json!({
            "architectures": ["ResNetForImageClassification"], "model_type": "resnet", "layer_type": layers,
            "hidden_act": "relu", "downsample_in_first_stage": false, "image_size": 32,
            "id2label": {"0": "a", "1": "b", "2": "c", "3": "d"},
        });
        let named = hugging_face_resnet(&torchvision);
        let model = folder(dir.path(), "hugging_face", &named, &config);
        let found = logits(&model);
        assert_eq!(found.0, "resnet");
        agree(&found.1, &expected);
        for (key, value) in [
            ("hidden_act", json!("gelu")),
            ("downsample_in_first_stage", json!(true)),
            ("downsample_in_bottleneck", json!(true)),
        ] {
            let mut other = config.clone();
            other[key] = value;
            let same = logits(&folder(dir.path(), "other", &named, &other)).1 == found.1;
            assert_eq!(same, key == "downsample_in_bottleneck" && !bottleneck, "{layers} {key}");
        }
        // Module order: a block's shortcut comes first.
        let net = network(&model);
        assert_eq!(net.layers[1].name, "resnet.encoder.stages.0.layers.0.shortcut.convolution");
    }
}

#[test]
fn scrubbing_a_model_of_hugging_face_writes_only_the_chosen_rows() {
    let dir = tempfile::tempdir().unwrap();
    let model = folder(
        dir.path(),
        "model",
        &hugging_face_vit(&timm_vit("norm"), "vit"),
        &hugging_face_vit_config(1e-12),
    );
    let mut random = Random(21);
    let x: Vec<f32> = (0..120 * 192).map(|_| random.next()).collect();
    let y: Vec<i64> = (0..120).map(|i| i % 5).collect();
    let all = [
        Tensor { name: "x", shape: vec![120, 3, 8, 8], values: Values::F32(&x) },
        Tensor { name: "y", shape: vec![120], values: Values::I64(&y) },
    ];
    tensors::write(&dir.path().join("train.safetensors"), &all, HashMap::new()).unwrap();
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let run = Command::new(env!("CARGO_BIN_EXE_scrubjay"))
        .args(["scrub", "--model", &at("model"), "--data", &at("train.safetensors"), "--out", &at("out")])
        .args(["--forget", "0-9", "--batch", "10", "--perturbations", "100", "--max-units", "6"])
        .args(["--if-empty", "cheap", "--despite", "no-val,near-chance", "--device", "cpu"])
        .output()
        .unwrap();
    let code = run.status.code();
    assert!(code == Some(0) || code == Some(3), "{}", String::from_utf8_lossy(&run.stderr));
    let report: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("out/report.json")).unwrap()).unwrap();
    assert!(report["model"]["changed_values"].as_u64().unwrap() > 0, "{report}");

    let before = TensorFile::open(&model.join("model.safetensors")).unwrap();
    let written = std::fs::read(dir.path().join("out/model.safetensors")).unwrap();
    let mut expected = std::fs::read(before.path()).unwrap();
    for unit in report["records"][0]["units"].as_array().unwrap() {
        let (layer, row) = (unit[0].as_str().unwrap(), unit[1].as_u64().unwrap() as usize);
        for end in ["weight", "bias"] {
            let name = format!("{layer}.{end}");
            let (range, rows) = (before.range(&name).unwrap(), before.shape(&name).unwrap()[0]);
            let len = range.len() / rows;
            let row = range.start + row * len..range.start + (row + 1) * len;
            expected[row.clone()].copy_from_slice(&written[row]);
        }
    }
    assert!(written == expected, "bytes outside the chosen rows changed");
    assert_eq!(files(&dir.path().join("out"))["config.json"], files(&model)["config.json"]);
}
