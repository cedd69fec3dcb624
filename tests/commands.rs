//! The commands as they are run: what is wrong with inputs and options is said in one line with the file or the option
//! in it, under the documented exit code, and nothing is written.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

#[path = "cases/tiny.rs"]
mod tiny;

use std::collections::HashMap;

use scrubjay::data::tensors::{self, Tensor, Values};
use tiny::{FEATURES, N, Run, Tiny, samples, write_samples};

/// What a wrong command leaves: this code, these words, and a folder without `out`.
fn refused(tiny: &Tiny, line: &str, code: i32, words: &[&str]) {
    let Run { code: found, out, err } = tiny.run(line);
    assert_eq!(found, code, "{line}\n{err}");
    let error =
        err.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{line}\n{err}"));
    for word in words {
        assert!(err.contains(word), "{line}\n`{word}` is not in: {error}");
    }
    assert_eq!(out, "", "{line}");
    assert!(!tiny.at("out").exists(), "{line}: something was written");
}

const EVAL: &str = "eval --model @m.safetensors --data";
const SCRUB: &str = "scrub --model @m.safetensors --data @train.safetensors --out @out";

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
fn data_that_do_not_fit_are_refused_with_the_sample() {
    let tiny = Tiny::new();
    let (mut x, mut y) = samples();
    y[7] = 9;
    write_samples(&tiny.at("labels.safetensors"), &x, &y);
    refused(&tiny, &format!("{EVAL} @labels.safetensors"), 2, &["sample 7", "label 9", "3 classes"]);
    y[7] = -1;
    write_samples(&tiny.at("negative.safetensors"), &x, &y);
    refused(&tiny, &format!("{EVAL} @negative.safetensors"), 1, &["negative.safetensors", "element 7", "-1"]);
    y[7] = 1;
    write_samples(&tiny.at("narrow.safetensors"), &x[..5 * N], &y);
    write_samples(&tiny.at("empty.safetensors"), &[], &[]);
    x[5 * FEATURES + 2] = f32::NAN;
    write_samples(&tiny.at("nan.safetensors"), &x, &y);
    for (name, words) in [
        ("nan", &["nan.safetensors", "sample 5", "NaN"][..]),
        ("narrow", &["8 values", "5x1x1"][..]),
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
    let scrub = format!("scrub --model @m.safetensors --data @train.safetensors --forget 0-29 --out {out}");
    refused(&tiny, &scrub, 1, &["train.safetensors/below"]);
    let observe = format!("observe --model @m.safetensors --input @train.safetensors --out {out}");
    refused(&tiny, &observe, 1, &["train.safetensors/below"]);
    let over =
        "scrub --model @m.safetensors --data @train.safetensors --forget 0-29 --out @train.safetensors";
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
