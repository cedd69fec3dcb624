//! The commands as they are run: a fault of inputs or options is reported in one line with the file or the option
//! in it, under the documented exit code, and nothing is written.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use std::collections::HashMap;
use std::sync::Arc;

use scrubjay::data::tensors::{self, Tensor, Values};
use scrubjay::train::Optimizer;
use scrubjay::training::{Start, TrainOptions, Training};
use scrubjay::{Device, Pick, Sources, data};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::tiny::{FEATURES, Folder, N, Run, Tiny, samples, write_samples};

/// What a wrong command leaves: this code, these words, and a folder without `out`.
fn refused(tiny: &Tiny, line: &str, code: i32, words: &[&str]) {
    let Run { code: found, out, err } = tiny.run(line);
    assert_eq!(found, code, "{line}\n{err}");
    let error =
        err.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{line}\n{err}"));
    for word in words {
        assert!(err.contains(word), "{line}\n`{word}` is not in: {error}");
    }
    assert!(error.matches("(os error").count() <= 1, "{line}\nsaid twice: {error}");
    assert_eq!(out, "", "{line}");
    assert!(!tiny.at("out").exists(), "{line}: something was written");
}

const EVAL: &str = "eval --model @m.safetensors --data";
const SCRUB: &str = "scrub --model @m.safetensors --data @train.safetensors --despite no-val --out @out";

#[test]
fn missing_files_and_folders_in_their_place_are_named() {
    let tiny = Tiny::new();
    std::fs::create_dir(tiny.at("folder")).unwrap();
    std::fs::create_dir(tiny.at("folder.safetensors")).unwrap();
    std::fs::write(tiny.at("notes.txt"), "x").unwrap();
    for (line, word) in [
        ("eval --model @absent.safetensors --data @train.safetensors", "absent.safetensors"),
        ("inspect --model @absent.safetensors", "absent.safetensors"),
        ("eval --model @folder --data @train.safetensors", "neither model.safetensors"),
        ("eval --model @m.safetensors --data @absent.safetensors", "absent.safetensors"),
        ("eval --model @m.safetensors --data @folder", "directory"),
        ("eval --model @m.safetensors --data @folder.safetensors", "directory"),
        ("eval --model @m.safetensors --data @notes.txt", "notes.txt"),
        ("eval --model @notes.txt --data @train.safetensors", "notes.txt"),
        ("eval --model @m.safetensors --data @m.safetensors", "tensor `x`"),
        ("eval --model @train.safetensors --data @train.safetensors", "train.safetensors"),
        ("observe --model @m.safetensors --input @folder --out @out", "folder"),
        ("observe --model @m.safetensors --input @train.safetensors --out @folder", "is a directory"),
        ("observe --model @m.safetensors --input @train.safetensors --out @absent/out", "absent"),
        ("curvature --model @m.safetensors --input @train.safetensors --block @folder --out @out", "folder"),
        ("curvature --model @m.safetensors --input @train.safetensors --block @absent --out @out", "absent"),
        ("scrub --model @m.safetensors --data @absent.safetensors --forget 1 --out @out", "absent"),
        (
            "scrub --model @m.safetensors --data @train.safetensors --forget @absent.txt --out @out",
            "absent.txt",
        ),
    ] {
        let code = if line.contains("--forget @absent.txt") { 2 } else { 1 };
        refused(&tiny, line, code, &[word]);
    }
    refused(&tiny, &format!("{SCRUB} --forget 1-20 --val @absent.safetensors"), 1, &["absent.safetensors"]);
    refused(&tiny, &format!("{SCRUB} --forget-data @absent.safetensors"), 1, &["absent.safetensors"]);
}

#[test]
fn a_precision_below_f32_is_for_noisy_copies_on_cuda() {
    let tiny = Tiny::new();
    let observe = "observe --model @m.safetensors --input @train.safetensors --out @out --device cpu";
    refused(&tiny, &format!("{SCRUB} --forget 1-20 --device cpu --precision bf16"), 2, &["bf16", "CUDA"]);
    refused(&tiny, &format!("{SCRUB} --forget 1-20 --selection random --precision f32"), 2, &["--selection"]);
    refused(&tiny, &format!("{observe} --perturbations 5 --precision f16"), 2, &["f16", "CUDA"]);
    refused(&tiny, &format!("{observe} --precision tf32"), 2, &["--perturbations"]);
    let run = tiny.run(&format!("{observe} --perturbations 5 --precision f32"));
    assert_eq!(run.code, 0, "{}", run.err);
}

#[test]
fn data_that_do_not_fit_are_refused_with_the_sample() {
    let tiny = Tiny::new();
    let (mut x, mut y) = samples();
    y[7] = 9;
    write_samples(&tiny.at("labels.safetensors"), &x, &y);
    let words = ["labels.safetensors: sample 7 has label 9, classes are 0 to 2"];
    refused(&tiny, &format!("{EVAL} @labels.safetensors"), 1, &words);
    refused(&tiny, "observe --model @m.safetensors --input @labels.safetensors --out @out", 1, &words);
    refused(&tiny, &format!("{SCRUB} --forget 0-19 --val @labels.safetensors"), 1, &words);
    refused(&tiny, &format!("{SCRUB} --forget-data @labels.safetensors"), 1, &words);
    let train = "train --arch mlp:4 --data @labels.safetensors --classes 3 --epochs 1 --out @out";
    refused(&tiny, train, 1, &words);
    y[7] = -1;
    write_samples(&tiny.at("negative.safetensors"), &x, &y);
    refused(&tiny, &format!("{EVAL} @negative.safetensors"), 1, &["negative.safetensors", "sample 7", "-1"]);
    y[7] = 1;
    write_samples(&tiny.at("narrow.safetensors"), &x[..5 * N], &y);
    write_samples(&tiny.at("empty.safetensors"), &[], &[]);
    x[5 * FEATURES + 2] = f32::NAN;
    write_samples(&tiny.at("nan.safetensors"), &x, &y);
    for (name, words) in [
        ("nan", &["nan.safetensors", "sample 5", "NaN"][..]),
        ("narrow", &["narrow.safetensors", "m.safetensors takes"][..]),
        ("empty", &["empty.safetensors", "no samples"][..]),
    ] {
        refused(&tiny, &format!("{EVAL} @{name}.safetensors"), 1, words);
        refused(
            &tiny,
            &format!("observe --model @m.safetensors --input @{name}.safetensors --out @out"),
            1,
            words,
        );
        refused(
            &tiny,
            &format!("scrub --model @m.safetensors --data @{name}.safetensors --forget 0 --out @out"),
            1,
            words,
        );
        let file = format!("{name}.safetensors");
        refused(&tiny, &format!("{SCRUB} --forget 0-19 --val @{file}"), 1, &[&file]);
        refused(&tiny, &format!("{SCRUB} --forget-data @{file}"), 1, &[&file]);
    }
    let whole = std::fs::read(tiny.at("train.safetensors")).unwrap();
    std::fs::write(tiny.at("cut.safetensors"), &whole[..whole.len() - 9]).unwrap();
    refused(&tiny, &format!("{EVAL} @cut.safetensors"), 1, &["cut.safetensors", "truncated"]);
    refused(&tiny, &format!("{EVAL} @train.safetensors --mean 0,0"), 1, &["mean has 2 values"]);
    refused(&tiny, &format!("{EVAL} @train.safetensors --std 0"), 1, &["std"]);
}

#[test]
fn images_of_another_size_name_data_model_and_remedy() {
    let folder = Folder::new();
    for side in [6, 8] {
        let (n, path) = (20, folder.at(&format!("{side}.safetensors")));
        let x: Vec<f32> = (0..n * side * side).map(|i| (i % 7) as f32 / 7.0).collect();
        let y: Vec<i64> = (0..n as i64).map(|i| i % 2).collect();
        let all = [
            Tensor { name: "x", shape: vec![n, 1, side, side], values: Values::F32(&x) },
            Tensor { name: "y", shape: vec![n], values: Values::I64(&y) },
        ];
        tensors::write(&path, &all, HashMap::new()).unwrap();
    }
    for arch in ["mlp:4", "cnn:4+8", "vit:8-1-1-4"] {
        let model = arch.split(':').next().unwrap();
        folder.done(&format!(
            "train --arch {arch} --data @8.safetensors --epochs 1 --out @{model} --device cpu"
        ));
        let takes = format!("{model} takes images of 8x8");
        let words = ["6.safetensors: has images of 6x6", &takes, "--resize 8x8"];
        folder.refused(&format!("eval --model @{model} --data @6.safetensors"), &[1], &words);
        let scrub = format!("scrub --model @{model} --forget 0-3 --out @out");
        folder.refused(&format!("{scrub} --data @6.safetensors"), &[1], &words);
        folder.refused(&format!("train --model @{model} --data @6.safetensors --out @out"), &[1], &words);
        let words = ["6.safetensors: has images of 6x6", "--data has images of 8x8", "--resize 8x8"];
        folder.refused(&format!("{scrub} --data @8.safetensors --val @6.safetensors"), &[1], &words);
    }
}

#[test]
fn requests_that_cannot_be_are_usage_errors() {
    let tiny = Tiny::new();
    for (options, words) in [
        ("--forget 200", &["sample 200", "200"][..]),
        ("--forget 3,190-205", &["sample 205"][..]),
        ("--forget 9-3", &["9-3", "ends before"][..]),
        ("--forget class:7", &["class 7"][..]),
        ("--forget n:201@1", &["201"][..]),
        ("--forget n:0@1", &["n:0"][..]),
        ("--forget ,", &["chooses no samples"][..]),
        ("--forget cat", &["`cat`"][..]),
        ("--forget 0-199", &["nothing is left to retain"][..]),
        ("--forget 0-29 --retain 29-60", &["sample 29", "forgotten", "retained"][..]),
        ("--forget 0-29 --retain 500", &["sample 500"][..]),
        ("--forget 0-29 --retain 40-44", &["--val"][..]),
        ("--forget 0-29 --n 100", &["--n 100", "200"][..]),
        ("--forget 0-29 --batch 0", &["--batch"][..]),
        ("--forget 0-29 --max-units 0", &["--max-units"][..]),
        ("--forget 0-29 --perturbations 1", &["--perturbations"][..]),
        ("--forget 0-29 --target-loss nan", &["--target-loss"][..]),
        ("--forget 0-29 --noise all", &["--epsilon"][..]),
        ("--forget 0-29 --epsilon 1", &["--delta"][..]),
        ("--forget 0-29 --sigma 0", &["--sigma"][..]),
        ("--forget 0-29 --damping=-1", &["--damping"][..]),
        ("--forget 0-29 --arch cat", &["`cat`", "resnet"][..]),
        ("--forget 0-29 --forget-data @train.safetensors", &["--forget-data"][..]),
        ("", &["--forget"][..]),
    ] {
        refused(&tiny, &format!("{SCRUB} {options}"), 2, words);
    }
    refused(&tiny, &format!("{EVAL} @train.safetensors --arch cat"), 2, &["`cat`"]);
    refused(
        &tiny,
        &format!("{EVAL} @train.safetensors --arch resnet20"),
        1,
        &["m.safetensors", "conv1.weight"],
    );
}

#[test]
fn cuda_without_a_gpu_has_an_exit_code_of_its_own() {
    let tiny = Tiny::new(); // no device is visible to its runs
    refused(&tiny, &format!("{EVAL} @train.safetensors --device cuda"), 4, &["no usable GPU"]);
    refused(&tiny, &format!("{SCRUB} --forget 0-29 --device cuda"), 4, &["no usable GPU"]);
    let train = "train --arch mlp:4 --data @train.safetensors --out @out --device cuda";
    refused(&tiny, train, 4, &["no usable GPU"]);
    refused(&tiny, "demo --out @out --device cuda", 4, &["no usable GPU"]);
    refused(&tiny, &format!("{EVAL} @train.safetensors --device tpu"), 2, &["tpu", "cuda"]);
    let run = tiny.run(&format!("{EVAL} @train.safetensors --device auto"));
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.contains("device: ") && run.out.contains("samples   200"), "{} {}", run.err, run.out);
}

#[test]
fn blocks_and_vectors_that_do_not_fit_are_named() {
    let tiny = Tiny::new();
    let line = "curvature --model @m.safetensors --input @train.safetensors --block @block.json --out @out";
    for (text, words) in [
        ("", &["block.json", "[layer name, row]"][..]),
        ("{", &["block.json", "[layer name, row]"][..]),
        ("{\"fc1\": 2}", &["block.json", "[layer name, row]"][..]),
        ("[[\"fc1\"]]", &["block.json"][..]),
        ("[[\"fc1\", -1]]", &["block.json"][..]),
        ("[]", &["block.json", "no units"][..]),
        ("[[\"fc3\", 0]]", &["block.json", "fc3", "fc1, fc2"][..]),
        ("[[\"fc2\", 3]]", &["block.json", "[\"fc2\", 3]"][..]),
    ] {
        std::fs::write(tiny.at("block.json"), text).unwrap();
        refused(&tiny, line, 1, words);
    }
    std::fs::write(tiny.at("block.json"), "[[\"fc1\", 0], [\"fc2\", 1]]").unwrap();
    let (x, y) = samples();
    let p = FEATURES + 1 + 16 + 1;
    let with = |v: &[f32]| {
        let all = [
            Tensor { name: "x", shape: vec![N, FEATURES], values: Values::F32(&x) },
            Tensor { name: "y", shape: vec![N], values: Values::I64(&y) },
            Tensor { name: "v", shape: vec![v.len()], values: Values::F32(v) },
        ];
        tensors::write(&tiny.at("train.safetensors"), &all, HashMap::new()).unwrap();
    };
    with(&vec![1.0; p - 1]);
    refused(&tiny, line, 1, &["train.safetensors", "tensor `v`", "[25]", "[26]"]);
    with(&vec![1.0; p]);
    let run = tiny.run(line);
    assert_eq!(run.code, 0, "{}", run.err);
    let out = tensors::TensorFile::open(&tiny.at("out")).unwrap();
    assert_eq!((out.shape("gradient").unwrap(), out.shape("hv").unwrap()), (&[p][..], &[p][..]));
}

#[test]
fn output_that_cannot_be_written_is_named() {
    let tiny = Tiny::new();
    let out = "@train.safetensors/below";
    let data = std::fs::read(tiny.at("train.safetensors")).unwrap();
    let scrub =
        format!("scrub --model @m.safetensors --data @train.safetensors --forget class:1 --out {out}");
    refused(&tiny, &scrub, 1, &["train.safetensors/below"]);
    let observe = format!("observe --model @m.safetensors --input @train.safetensors --out {out}");
    refused(&tiny, &observe, 1, &["train.safetensors/below"]);
    let train = format!("train --arch mlp:4 --data @train.safetensors --epochs 1 --out {out}");
    refused(&tiny, &train, 1, &["train.safetensors/below"]);
    let over =
        "scrub --model @m.safetensors --data @train.safetensors --forget class:1 --out @train.safetensors";
    refused(&tiny, over, 1, &["train.safetensors"]);
    assert_eq!(std::fs::read(tiny.at("train.safetensors")).unwrap(), data);
}

#[test]
fn the_folder_of_the_model_is_not_written_to() {
    let tiny = Tiny::new();
    let model = std::fs::read(tiny.at("m.safetensors")).unwrap();
    refused(
        &tiny,
        "scrub --model @m.safetensors --data @train.safetensors --forget 0-29 --out @.",
        2,
        &["--out", "the model"],
    );
    assert_eq!(std::fs::read(tiny.at("m.safetensors")).unwrap(), model);
    assert!(!tiny.at("events.jsonl").exists());
}

#[test]
fn a_model_that_was_cut_short_or_is_not_finite_is_refused() {
    let tiny = Tiny::new();
    let model = std::fs::read(tiny.at("m.safetensors")).unwrap();
    std::fs::write(tiny.at("m.safetensors"), &model[..model.len() - 5]).unwrap();
    refused(&tiny, &format!("{EVAL} @train.safetensors"), 1, &["m.safetensors", "truncated"]);
    let mut bad = model.clone();
    let end = bad.len();
    bad[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(tiny.at("m.safetensors"), &bad).unwrap();
    refused(&tiny, &format!("{EVAL} @train.safetensors"), 1, &["m.safetensors", "NaN", "fc2.weight"]);
    refused(&tiny, &format!("{SCRUB} --forget 0-29"), 1, &["m.safetensors", "NaN", "fc2.weight"]);
}

#[test]
fn training_records_what_it_was_trained_on_and_with() {
    let tiny = Tiny::new();
    let line =
        "train --arch mlp:6 --data @train.safetensors --epochs 4 --schedule step --exclude 0-9,class:2";
    let run = tiny.run(&format!("{line} --out @out --json"));
    assert_eq!(run.code, 0, "{}", run.err);
    let read = |name: &str| std::fs::read(tiny.at(name)).unwrap();
    let manifest: Value = serde_json::from_slice(&read("out/train.json")).unwrap();
    assert_eq!(manifest, serde_json::from_str::<Value>(&run.out).unwrap());
    let excluded: Vec<usize> = (0..N).filter(|i| *i < 10 || i % 3 == 2).collect();
    assert_eq!(manifest["excluded"], json!(excluded));
    assert_eq!(manifest["exclude"], "0-9,class:2");
    assert_eq!(manifest["n"], N - excluded.len());
    assert_eq!(manifest["options"]["schedule"], "step");
    let digest = Sha256::digest(read("train.safetensors"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(manifest["data_sha256"], json!({"train.safetensors": hex}));

    // What was left out has no part: other values there, the same model.
    let (mut x, y) = samples();
    excluded.iter().for_each(|i| x[i * FEATURES..(i + 1) * FEATURES].fill(1000.0));
    write_samples(&tiny.at("train.safetensors"), &x, &y);
    assert_eq!(tiny.run(&format!("{line} --out @other")).code, 0);
    assert!(read("other/model.safetensors") == read("out/model.safetensors"));
    let schedule = line.replace("step", "constant");
    assert_eq!(tiny.run(&format!("{schedule} --out @constant")).code, 0);
    assert!(read("constant/model.safetensors") != read("out/model.safetensors"));

    for (options, word) in [
        ("--exclude 0-199", "no samples"),
        ("--exclude 200", "sample 200"),
        ("--seeds 0", "--seeds"),
        ("--schedule none", "constant"),
        ("--seed 18446744073709551615 --seeds 2", "--seeds"),
    ] {
        let run =
            tiny.run(&format!("train --arch mlp:6 --data @train.safetensors --epochs 1 --out @no {options}"));
        assert_eq!(run.code, 2, "{options} {}", run.err);
        assert!(run.err.contains(word), "{options} {}", run.err);
    }
}

/// A program that trains gets the bytes of the command, of the same files and of the same values in memory.
#[test]
fn training_in_memory_gives_the_bytes_of_the_command() {
    let tiny = Tiny::new();
    let line = "train --arch mlp:6 --data @train.safetensors --epochs 3 --seed 5 --exclude 0-9 --device cpu --out @out";
    assert_eq!(tiny.run(line).code, 0);
    let expected = std::fs::read(tiny.at("out/model.safetensors")).unwrap();
    let options = TrainOptions { epochs: 3, seed: 5, ..TrainOptions::default() };
    let (device, exclude) = (Device::cpu().unwrap(), Some(Pick::from("0-9")));
    let sources = Sources { data: tiny.at("train.safetensors"), ..Sources::default() };
    let of_files =
        Training::open(device.clone(), sources, Some("mlp:6"), exclude.clone(), options.clone()).unwrap();
    let samples = data::load(&tiny.at("train.safetensors"), &data::Normalise::default()).unwrap();
    let start = Start::New("mlp:6".into());
    let in_memory = Training::new(device, start, samples, None, exclude, options).unwrap();
    for training in [&of_files, &in_memory] {
        let mut seen = vec![];
        let trained = training.train(5, &mut |epoch| {
            seen.push(epoch.epoch);
            Ok(())
        });
        trained.unwrap().save(&tiny.at("again")).unwrap();
        assert_eq!(seen, [1, 2, 3]);
        assert!(std::fs::read(tiny.at("again/model.safetensors")).unwrap() == expected);
    }
    assert!(in_memory.run(5, &tiny.at("no"), &[], &mut |_| Ok(())).is_err() && !tiny.at("no").exists());
    let stopped = of_files.with_stop(Arc::new(true.into()));
    let error = stopped.train(5, &mut |_| Ok(())).map(drop).unwrap_err();
    assert!(matches!(error, scrubjay::Error::Interrupted { .. }), "{error}");
}

/// `each` fails where a kill would end the program: after an epoch, before what it reached is kept.
#[test]
fn a_training_that_was_stopped_goes_on_to_the_same_bytes() {
    let tiny = Tiny::new();
    let data = tiny.at("train.safetensors");
    let open = |options: &TrainOptions| {
        let sources = Sources { data: data.clone(), validation: Some(data.clone()), ..Sources::default() };
        Training::open(Device::cpu().unwrap(), sources, Some("mlp:6"), None, options.clone()).unwrap()
    };
    let options = TrainOptions { epochs: 5, optimizer: Optimizer::Adam, lr: 0.01, ..TrainOptions::default() };
    let all = |name: &str| {
        let manifest: Value = tiny.json(&format!("{name}/train.json"));
        let losses: Vec<Value> =
            manifest["epochs"].as_array().unwrap().iter().map(|e| e["val_loss"].clone()).collect();
        (std::fs::read(tiny.at(&format!("{name}/model.safetensors"))).unwrap(), losses)
    };
    open(&options).run(0, &tiny.at("whole"), &[], &mut |_| Ok(())).unwrap();
    let stopped = |name: &str, at: usize| {
        let mut seen = vec![];
        let result = open(&options).run(0, &tiny.at(name), &[], &mut |report| {
            seen.push(report.epoch);
            if report.epoch == at { Err(scrubjay::Error::config("killed")) } else { Ok(()) }
        });
        (result.is_ok(), seen)
    };
    assert_eq!(stopped("out", 1), (false, vec![1])); // before anything was kept
    assert_eq!(stopped("out", 2), (false, vec![1, 2]));
    assert!(tiny.at("out/train.stage").exists() && !tiny.at("out/model.safetensors").exists());
    assert_eq!(stopped("out", 2), (false, vec![2]));

    let refused = |options: &TrainOptions, words: &[&str]| {
        let error = open(options).run(0, &tiny.at("out"), &[], &mut |_| Ok(())).unwrap_err().to_string();
        words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in {error}"));
    };
    let lr = TrainOptions { lr: 0.02, ..options.clone() };
    refused(&lr, &["out/train.stage", "options.rate was 0.01", "--out"]);
    let whole = std::fs::read(&data).unwrap();
    let (x, mut y) = samples();
    y[3] = (y[3] + 1) % 3;
    write_samples(&data, &x, &y);
    refused(&options, &["out/train.stage", "data_sha256.train.safetensors was"]);
    std::fs::write(&data, whole).unwrap();

    let error = open(&options).run(0, &tiny.at("out"), &[1], &mut |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("has gone beyond epoch 1 without keeping it"), "{error}");
    let (done, seen) = stopped("out", 0);
    assert!(done && seen.ends_with(&[3, 4, 5]) && seen[0] > 1, "{seen:?}");
    assert!(all("out") == all("whole") && !tiny.at("out/train.stage").exists());
    // Finished: nothing is changed, and another training or model is not replaced.
    assert_eq!(stopped("out", 1), (true, vec![]));
    refused(&lr, &["out/train.json", "options.rate was 0.01", "choose another --out"]);
    std::fs::remove_file(tiny.at("out/train.json")).unwrap();
    refused(&options, &["out/model.safetensors", "is there already"]);
    assert!(std::fs::read(tiny.at("out/model.safetensors")).unwrap() == all("whole").0);
}

#[test]
fn a_training_over_another_model_is_refused() {
    let tiny = Tiny::new();
    let train = "train --arch mlp:6 --data @train.safetensors --epochs 1 --device cpu --out @m";
    std::fs::create_dir(tiny.at("m")).unwrap();
    std::fs::write(tiny.at("m/config.json"), "{}").unwrap();
    tiny.refused(train, &[2], &["m/config.json", "is there already", "choose another --out, or remove it"]);
    assert_eq!(std::fs::read_dir(tiny.at("m")).unwrap().count(), 1);
    std::fs::remove_file(tiny.at("m/config.json")).unwrap();
    tiny.done(train);
    assert!(tiny.done(train).err.contains("already finished with these inputs and options"));
    tiny.refused(&format!("{train} --keep-epochs 1"), &[2], &["was finished without epoch-1"]);
}

#[test]
fn models_of_several_seeds_are_kept_where_they_are_finished() {
    let tiny = Tiny::new();
    let line = "train --arch mlp:6 --data @train.safetensors --epochs 2 --seed 3 --out @out";
    let run = tiny.run(&format!("{line} --seeds 2"));
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.contains("2 models: 0 finished, 2 to train, about "), "{}", run.err);
    let read = |name: &str| std::fs::read(tiny.at("out").join(name)).unwrap();
    let (third, fourth) = (read("seed-3/model.safetensors"), read("seed-4/model.safetensors"));
    assert!(third != fourth);

    // One was interrupted before its end, and one more is asked for.
    let finished = read("seed-3/train.json");
    std::fs::remove_dir_all(tiny.at("out/seed-4")).unwrap();
    let run = tiny.run(&format!("{line} --seeds 3 --json"));
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.contains("3 models: 1 finished, 2 to train"), "{}", run.err);
    let out: Value = serde_json::from_str(&run.out).unwrap();
    let kept: Vec<bool> =
        out["models"].as_array().unwrap().iter().map(|model| model["kept"] == true).collect();
    assert_eq!(kept, [true, false, false]);
    assert!(read("seed-3/train.json") == finished && read("seed-3/model.safetensors") == third);
    assert!(read("seed-4/model.safetensors") == fourth);

    // A single model of the same seed is the same model.
    assert_eq!(tiny.run(&format!("{line}/alone")).code, 0);
    assert!(read("alone/model.safetensors") == third);

    let other = tiny.run(&format!("{line} --seeds 3 --lr 0.01"));
    assert_eq!(other.code, 2, "{}", other.err);
    assert!(other.err.contains("seed-3/train.json") && other.err.contains("options"), "{}", other.err);
    assert!(read("seed-3/train.json") == finished);
}

/// Runs the program with standard output closed by its reader: at once, or after a line.
#[cfg(unix)]
fn with_a_reader_that_leaves(tiny: &Tiny, line: &str, lines: usize) -> (Option<i32>, String) {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    let words = line.split_whitespace().map(|word| match word.strip_prefix('@') {
        Some(name) => tiny.at(name).to_string_lossy().into_owned(),
        None => word.to_string(),
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_scrubjay"));
    command.args(words).env("CUDA_VISIBLE_DEVICES", "").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::with_capacity(1, child.stdout.take().unwrap());
    (0..lines).for_each(|_| assert!(out.read_line(&mut String::new()).unwrap() > 0));
    drop(out);
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    (child.wait().unwrap().code(), error)
}

#[test]
#[cfg(unix)]
fn a_reader_that_leaves_ends_the_output_and_not_the_work() {
    let tiny = Tiny::new();
    std::fs::write(tiny.at("t.csv"), "x,y\n1.5,2\n2.5,1\n3,7\n4,1\n").unwrap();
    let train = "train --arch mlp:24 --data @train.safetensors --out @trained --epochs 60";
    for lines in [0, 1, 2] {
        let (code, error) = with_a_reader_that_leaves(&tiny, train, lines);
        assert_eq!(code, Some(0), "{error}");
        assert!(!error.contains("panicked"), "{error}");
        for name in ["model.safetensors", "config.json", "train.json"] {
            assert!(tiny.at("trained").join(name).is_file(), "{name}");
        }
        std::fs::remove_dir_all(tiny.at("trained")).unwrap();
    }
    for line in [
        "eval --model @m.safetensors --data @train.safetensors",
        "eval --model @m.safetensors --data @train.safetensors --json",
        "inspect --model @m.safetensors",
        "codec @t.csv --y y --z x",
        "foci @t.csv --target y",
        "devices",
        "bench --device cpu --list",
        "--help",
        "train --help",
    ] {
        let (code, error) = with_a_reader_that_leaves(&tiny, line, 0);
        assert!(!error.contains("panicked") && !error.contains("Broken pipe"), "{line}\n{error}");
        assert!(code.is_some(), "{line}\n{error}");
    }
}

/// A full disk is an error, reported when the work is done.
#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_printed_is_an_error() {
    let tiny = Tiny::new();
    let run = |line: &str| {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let words = line.split_whitespace().map(|word| match word.strip_prefix('@') {
            Some(name) => tiny.at(name).to_string_lossy().into_owned(),
            None => word.to_string(),
        });
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_scrubjay"));
        let done = command.args(words).env("CUDA_VISIBLE_DEVICES", "").stdout(full).output().unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, error) = run("train --arch mlp:4 --data @train.safetensors --out @trained --epochs 1");
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("error: standard output: ") && !error.contains("panicked"), "{error}");
    assert!(tiny.at("trained/train.json").is_file());
}

#[test]
fn labels_beyond_sense_are_refused_before_memory_is_asked_for() {
    let tiny = Tiny::new();
    let (x, mut y) = samples();
    y[3] = 2_000_000_000;
    write_samples(&tiny.at("labels.safetensors"), &x, &y);
    let train = "train --arch mlp:24 --data @labels.safetensors --epochs 1 --out @out";
    let words = ["labels.safetensors: sample 3 has label 2000000000", "200 samples", "--classes"];
    refused(&tiny, train, 1, &words);
    refused(&tiny, &format!("{train} --classes 2000000001"), 2, &["--classes 2000000001"]);
    refused(
        &tiny,
        &format!("{train} --classes 3"),
        1,
        &["sample 3 has label 2000000000, classes are 0 to 2"],
    );
}

#[test]
fn lists_of_samples_that_other_programs_wrote_are_read() {
    let tiny = Tiny::new();
    std::fs::write(tiny.at("bom.txt"), b"\xef\xbb\xbf1\n2\n3\n").unwrap();
    std::fs::write(tiny.at("header.csv"), "index\n1\n2\n3\n").unwrap();
    let train = "train --arch mlp:4 --data @train.safetensors --epochs 1 --json";
    let note = "header.csv: line 1, `index`, is left out as a header";
    for list in ["bom.txt", "header.csv"] {
        let run = tiny.run(&format!("{train} --exclude @{list} --out @{list}.out"));
        assert_eq!(run.code, 0, "{}", run.err);
        assert_eq!(run.err.contains(note), list == "header.csv", "{}", run.err);
        let manifest: Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!(manifest["excluded"], json!([1, 2, 3]), "{list}");
    }
    let run = tiny.run(&format!("{SCRUB} --forget @header.csv --dry-run"));
    assert!(run.code == 0 && run.err.contains(note), "{}", run.err);
    std::fs::write(tiny.at("bad.txt"), "1\ntwo\n").unwrap();
    refused(&tiny, &format!("{SCRUB} --forget @bad.txt"), 2, &["bad.txt: line 2", "`two`"]);
}

#[test]
fn bench_checks_what_it_times_and_compares_with_a_baseline() {
    let tiny = Tiny::new();
    let list = tiny.run("bench --list --json");
    let kernels: Value = serde_json::from_str(&list.out).unwrap();
    let names: Vec<&str> =
        kernels["kernels"].as_array().unwrap().iter().map(|k| k["kernel"].as_str().unwrap()).collect();
    assert!(["copy", "conv", "perturb", "foci"].iter().all(|name| names.contains(name)), "{names:?}");
    let line = "bench -b ^(perturb|layer_norm)$ -a m=4:8,len=64,n=32,c=16 --device cpu --threads 2";
    let run = tiny.run(&format!("{line} --json --out @bench.json"));
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(std::fs::read_to_string(tiny.at("bench.json")).unwrap(), run.out);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let shapes: Vec<&str> = rows.iter().map(|row| row["shape"].as_str().unwrap()).collect();
    assert_eq!(shapes, ["m=4,len=64", "m=8,len=64", "n=32,c=16"]);
    for row in rows {
        assert!(row["passes"] == true && row["median"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["launched"] == serde_json::json!([]), "{row}");
        assert!(row["error"].as_f64().unwrap() <= row["tolerance"].as_f64().unwrap(), "{row}");
    }
    assert!(report["ceilings"]["bandwidth"].as_f64().unwrap() > 0.0);

    // An earlier run that was a thousand times as fast, and as slow.
    for (factor, code, status) in [(1e-3, 3, "slow"), (1e3, 0, "fast")] {
        let mut earlier = report.clone();
        for row in earlier["rows"].as_array_mut().unwrap() {
            for key in ["/median", "/quartiles/0", "/quartiles/1"] {
                let seconds = row.pointer_mut(key).unwrap();
                *seconds = (seconds.as_f64().unwrap() * factor).into();
            }
        }
        std::fs::write(tiny.at("earlier.json"), earlier.to_string()).unwrap();
        let run = tiny.run(&format!("{line} --json --baseline @earlier.json --fail-over 5%"));
        assert_eq!(run.code, code, "{}", run.err);
        let report: Value = serde_json::from_str(&run.out).unwrap();
        assert!(report["rows"].as_array().unwrap().iter().all(|row| row["compared"]["status"] == status));
    }
    let csv = tiny.run(&format!("{line} --csv"));
    assert_eq!((csv.code, csv.out.lines().count()), (0, 4), "{}", csv.err);
    assert!(csv.out.lines().next().is_some_and(|head| head.split(',').count() == 19), "{}", csv.out);
    assert!(csv.out.lines().skip(1).all(|line| line.ends_with(",,,,")), "{}", csv.out); // the CPU has no registers
    // What cannot be measured does not keep the rest from it.
    let some = "bench -b ^(attention|cross_entropy)$ -a n=2,t=4,c=5,heads=2:1,classes=3 --device cpu";
    let run = tiny.run(some);
    assert_eq!((run.code, run.out.matches(" pass").count()), (2, 2), "{} {}", run.out, run.err);
    assert!(
        run.err.contains("attention n=2,t=4,c=5,heads=2: ") && run.err.contains("5 channels"),
        "{}",
        run.err
    );
    for (options, code, word) in [
        ("-b nothing", 2, "no kernel matches"),
        ("-a q=3", 2, "`q`"),
        ("-a m=0", 2, "m=0"),
        ("-b (", 2, "--bench"),
        ("-b conv_bf16", 2, "CUDA alone"),
        ("--dtype f16", 2, "has --dtype f16"),
        ("-b conv --dtype f16", 2, "CUDA alone"),
        ("--fail-over 5%", 2, "--baseline"),
        ("--baseline @train.safetensors", 1, "train.safetensors"),
    ] {
        let run =
            tiny.run(&format!("bench -b perturb {options} --device cpu").replace("-b perturb -b", "-b"));
        assert!(run.code == code && run.err.contains(word), "{options}: {} {}", run.code, run.err);
        assert_eq!(run.out, "");
    }
    let mut other = report.clone();
    other["device"]["threads"] = 77.into();
    std::fs::write(tiny.at("other.json"), other.to_string()).unwrap();
    let run = tiny.run(&format!("{line} --baseline @other.json"));
    assert!(run.code == 2 && run.err.contains("measured on"), "{}", run.err);
}
