//! Pictures on their way to a network, as Pillow, timm, torchvision and transformers bring them there
//! (`scripts/pictures.py` recorded it).

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::tensors::{self, Tensor, TensorFile, Values};
use scrubjay::data::{
    Crop, Expected, Interpolation, LoadOptions, Loaded, Pipeline, Preprocess, Resize, Steps, load_with,
};
use scrubjay::session::Sources;
use scrubjay::zoo;
use serde_json::{Value, json};

use crate::tiny::Tiny;

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pictures").join(name)
}

/// A class folder of one picture.
fn folder(of: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("one")).unwrap();
    std::fs::copy(recorded(of), folder.path().join("one").join(of)).unwrap();
    folder
}

/// A model with these configs, of which nothing else is read.
fn model(config: Option<&Value>, preprocessor: Option<&Value>) -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let tensor = Tensor { name: "w", shape: vec![1], values: Values::F32(&[0.0]) };
    tensors::write(&folder.path().join("model.safetensors"), &[tensor], HashMap::new()).unwrap();
    for (name, value) in [("config.json", config), ("preprocessor_config.json", preprocessor)] {
        value.iter().for_each(|value| std::fs::write(folder.path().join(name), value.to_string()).unwrap());
    }
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, checkpoint)
}

fn json_of(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(recorded(name)).unwrap()).unwrap()
}

#[test]
fn resizing_has_pillows_bits() {
    let file = TensorFile::open(&recorded("resized.safetensors")).unwrap();
    let picture = folder("rgb.png");
    for name in file.names() {
        let words: Vec<&str> = name.split(' ').collect();
        let interpolation: Interpolation = serde_json::from_value(json!(words[1])).unwrap();
        let resize: Resize = words[2].parse().unwrap();
        let steps = Steps { resize: Some(resize), interpolation: Some(interpolation), crop: None };
        let expected =
            Expected { channels: Some(if words[0] == "L" { 1 } else { 3 }), ..Expected::default() };
        let Loaded { samples, .. } =
            load_with(picture.path(), &LoadOptions { steps, expected, ..Default::default() }).unwrap();
        let found: Vec<u8> = samples.x.iter().map(|value| (value * 255.0).round() as u8).collect();
        assert_eq!(found, file.stored(&name).unwrap(), "{name}");
    }
}

#[test]
fn inputs_are_those_of_timm_and_transformers() {
    let (configs, inputs) =
        (json_of("configs.json"), TensorFile::open(&recorded("inputs.safetensors")).unwrap());
    let picture = folder("rgb.png");
    for (name, config) in configs.as_object().unwrap() {
        let (_folder, checkpoint) = model(config.get("config"), config.get("preprocessor"));
        let options = Sources::default().load_options(Some(&checkpoint));
        let Loaded { samples, .. } = load_with(picture.path(), &options).unwrap();
        let (shape, expected) = (samples.shape(), inputs.f32(name).unwrap());
        assert_eq!([shape.h, shape.w, shape.c], inputs.shape(name).unwrap(), "{name}");
        // One level of a pixel is 0.004 and more; what is left is how factors are rounded.
        let worst = samples.x.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-6, "{name}: {worst}");
    }
}

#[test]
fn the_sizes_of_torchvisions_weights_are_known() {
    for row in json_of("presets.json").as_array().unwrap() {
        let (arch, weights) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
        let side = |i: usize| row[i].as_u64().unwrap() as usize;
        let expected = Pipeline {
            resize: Resize::Shortest(side(2)),
            interpolation: serde_json::from_value(row[4].clone()).unwrap(),
            crop: Crop::Centre([side(3), side(3)]),
        };
        let config = json!({"architecture": arch, "weights": weights});
        let (_folder, checkpoint) = model(Some(&config), None);
        let found = zoo::inputs(&checkpoint);
        assert_eq!(found.preprocess, Preprocess::Pictures(expected), "{row}");
        assert_eq!(found.mean, Some(vec![0.485, 0.456, 0.406]));
    }
    let config = json!({"weights": "ResNet50_Weights.IMAGENET1K_V2"});
    let found = zoo::inputs(&model(Some(&config), None).1).preprocess;
    assert!(
        matches!(found, Preprocess::Pictures(Pipeline { resize: Resize::Shortest(232), .. })),
        "{found:?}"
    );
}

#[test]
fn steps_that_are_not_known_are_refused_for_pictures_until_options_replace_them() {
    let picture = folder("rgb.png");
    for (config, preprocessor, word) in [
        (None, Some(json!({"size": 8, "do_flip_channel_order": true})), "do_flip_channel_order"),
        (None, Some(json!({"size": {"longest_edge": 8, "shortest_edge": 4}})), "longest_edge"),
        (Some(json!({"crop_pct": 0.9})), None, "input_size"),
        (Some(json!({"input_size": [3, 8, 8], "interpolation": "random"})), None, "random"),
        (Some(json!({"weights": "IMAGENET1K_V9", "architecture": "resnet50"})), None, "IMAGENET1K_V9"),
        (Some(json!({"preprocess": {"resize": "x"}})), None, "preprocess"),
    ] {
        let (_folder, checkpoint) = model(config.as_ref(), preprocessor.as_ref());
        let mut options = Sources::default().load_options(Some(&checkpoint));
        let error = load_with(picture.path(), &options).unwrap_err().to_string();
        assert!(error.contains(word), "`{word}` is not in: {error}");
        options.steps = Steps { resize: Some(Resize::None), crop: Some(Crop::None), interpolation: None };
        assert_eq!(load_with(picture.path(), &options).unwrap().samples.shape().h, 13);
    }
}

#[test]
fn a_model_trained_with_options_keeps_them_and_shows_what_it_sees() {
    let tiny = Tiny::new();
    for (class, of) in [("cat", "rgb.png"), ("dog", "palette.png")] {
        std::fs::create_dir_all(tiny.at("set").join(class)).unwrap();
        std::fs::copy(recorded(of), tiny.at("set").join(class).join(of)).unwrap();
    }
    let line = "train --arch cnn:4+8 --data @set --resize 10 --crop 8x9 --interpolation bicubic --epochs 1 --out @out";
    let run = tiny.run(line);
    assert_eq!(run.code, 0, "{}", run.err);
    let run = tiny.run("inspect --model @out --data @set --image-out @seen.png --index 1 --json");
    assert_eq!(run.code, 0, "{}", run.err);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    let steps = json!({"resize": {"shortest": 10}, "interpolation": "bicubic", "crop": {"centre": [8, 9]}});
    assert_eq!((&report["data"]["preprocess"], &report["data"]["input"]), (&steps, &json!([3, 8, 9])));
    // What was written is a picture again, and the same one.
    std::fs::create_dir_all(tiny.at("again/one")).unwrap();
    std::fs::rename(tiny.at("seen.png"), tiny.at("again/one/seen.png")).unwrap();
    let again = load_with(&tiny.at("again"), &LoadOptions::default()).unwrap();
    let options = Sources::default().load_options(Some(&Checkpoint::open(&tiny.at("out")).unwrap()));
    let seen = load_with(&tiny.at("set"), &options).unwrap();
    assert_eq!(again.samples.x, seen.samples.image(1));
    let run = tiny.run("inspect --data @set --resize 10 --mean 0.5 --std 0.25");
    assert!(
        run.out.contains("shorter side to 10, bilinear") && run.out.contains("mean 0.5, std 0.25"),
        "{}",
        run.out
    );
    let run = tiny.run("eval --model @out --data @set --crop 40");
    assert!(run.code == 1 && run.err.contains("cat/rgb.png") && run.err.contains("--resize"), "{}", run.err);
}
