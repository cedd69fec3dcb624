//! Checkpoints: what is written is the input byte for byte but for the changed values, whatever the type, the wrapper or
//! the number of files; and a model that is not whole is refused with its file and its tensor.

#![allow(clippy::unwrap_used, clippy::expect_used)] // in the helpers of tests too

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use scrubjay::checkpoint::{Checkpoint, Patched, save};
use scrubjay::data::tensors::{self, Tensor, TensorFile, Values};
use scrubjay::net::{Network, Shape};
use scrubjay::zoo;

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
        let mut expected = file.bytes().to_vec();
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
    ] {
        let model = dir.path().join(spec.replace([':', '+'], "_"));
        std::fs::create_dir_all(&model).unwrap();
        let made = zoo::create(spec, image, 4, 1).unwrap();
        save(&model.join("model.safetensors"), &made.network).unwrap();
        std::fs::write(model.join("config.json"), made.config.to_string()).unwrap();
        let read = zoo::load(&Checkpoint::open(&model).unwrap(), None, None).unwrap();
        assert!(read.network == made.network, "{spec}");
        assert_eq!(read.inputs.shape, Some(image), "{spec}");

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
