//! Samples of several labels, and label smoothing, through the program: trained, evaluated, removed and verified.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use std::collections::HashMap;

use scrubjay::data::tensors::{self, Tensor, Values};
use serde_json::Value;

use crate::tiny::{CLASSES, FEATURES, N, Run, Tiny, samples};

/// The tiny task with a label for each class, of which a sample has its own and, one in two, the next.
fn several() -> Tiny {
    let tiny = Tiny::new();
    let (x, classes) = samples();
    let of = |(i, &class): (usize, &i64)| {
        let mut row = [0; CLASSES];
        row[class as usize] = 1;
        row[(class as usize + 1) % CLASSES] |= i64::from(i % 2 == 0);
        row
    };
    let y: Vec<i64> = classes.iter().enumerate().flat_map(of).collect();
    for (name, n) in [("several", N), ("unseen", 60)] {
        let all = [
            Tensor { name: "x", shape: vec![n, FEATURES], values: Values::F32(&x[(N - n) * FEATURES..]) },
            Tensor { name: "y", shape: vec![n, CLASSES], values: Values::I64(&y[(N - n) * CLASSES..]) },
        ];
        tensors::write(&tiny.at(&format!("{name}.safetensors")), &all, HashMap::new()).unwrap();
    }
    tiny
}

fn done(tiny: &Tiny, line: &str) -> Run {
    let run = tiny.run(line);
    assert_eq!(run.code, 0, "{line}: {}", run.err);
    run
}

fn json(tiny: &Tiny, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(tiny.at(name)).unwrap()).unwrap()
}

const TRAIN: &str =
    "train --arch mlp:16 --data @several.safetensors --epochs 30 --lr 0.2 --device cpu --threads 2";
const SCRUB: &str =
    "scrub --model @m --data @several.safetensors --perturbations 60 --gate 1 --device cpu --threads 2";

#[test]
fn samples_of_several_labels_are_trained_on_removed_and_verified() {
    let tiny = several();
    done(&tiny, &format!("{TRAIN} --out @m"));
    assert_eq!(json(&tiny, "m/config.json")["problem_type"], "multi_label_classification");
    let eval: Value =
        serde_json::from_str(&done(&tiny, "eval --model @m --data @several.safetensors --json").out).unwrap();
    assert_eq!((eval["n"].as_u64(), eval["classes"].as_array().unwrap().len()), (Some(N as u64), CLASSES));
    assert!(eval["classes"].as_array().unwrap().iter().all(|label| label["n"] == N as u64), "{eval}");
    assert!(eval["accuracy"].as_f64().unwrap() > 0.3 && eval["loss"].as_f64().unwrap() < 0.6, "{eval}");
    done(&tiny, "observe --model @m --input @several.safetensors --out @trace");
    done(&tiny, &format!("{SCRUB} --forget 0-19 --batch 20 --selection full --out @out"));
    let report = json(&tiny, "out/report.json");
    assert_eq!(report["removed"], 20, "{report}");
    let loss = |when: &str| report["records"][0]["account"][when]["forget"]["loss"].as_f64();
    assert!(loss("before").unwrap() < loss("after").unwrap(), "{report}");
    // A choice by a label takes all that have it.
    let chosen = "--forget class:1 --batch 200 --selection full --target-loss 1";
    done(&tiny, &format!("{SCRUB} {chosen} --out @class"));
    assert_eq!(json(&tiny, "class/report.json")["request"]["samples"].as_array().unwrap().len(), 101);
    done(&tiny, &format!("{TRAIN} --exclude 0-19 --seeds 3 --out @never"));
    let never = "--reference @never/seed-0 @never/seed-1 @never/seed-2";
    let line = "verify --before @m --after @out --data @several.safetensors --test @unseen.safetensors --forget 0-19";
    let run = tiny.run(&format!("{line} {never} --html @verified.html --out @verified.json"));
    assert!(run.code == 0 || run.code == 3, "{}", run.err);
    let verified = json(&tiny, "verified.json");
    assert_eq!(verified["samples"][0]["label"].as_array().unwrap().len(), CLASSES, "{verified}");
}

#[test]
fn what_is_held_against_other_classes_is_refused_for_several_labels() {
    let tiny = several();
    done(&tiny, &format!("{TRAIN} --out @m"));
    for request in ["--forget class:1", "--forget 0-19 --wrong-labels"] {
        let run = tiny.run(&format!("{SCRUB} {request} --out @out"));
        assert!(run.code == 2 && run.err.contains("several labels"), "{request}: {} {}", run.code, run.err);
    }
    let run = tiny.run("eval --model @m --data @train.safetensors");
    assert!(run.code == 1 && run.err.contains("one class each"), "{} {}", run.code, run.err);
    let run = tiny.run(&format!("{TRAIN} --label-smoothing 0.1 --out @smoothed"));
    assert!(run.code == 2 && run.err.contains("--label-smoothing"), "{} {}", run.code, run.err);
}

#[test]
fn label_smoothing_is_part_of_the_model() {
    let tiny = Tiny::new();
    let train = "train --arch mlp:16 --data @train.safetensors --epochs 20 --device cpu --threads 2";
    done(&tiny, &format!("{train} --label-smoothing 0.2 --out @m"));
    assert_eq!(json(&tiny, "m/config.json")["label_smoothing"], 0.2);
    let loss = |model: &str| {
        let run = done(&tiny, &format!("eval --model @{model} --data @train.safetensors --json"));
        serde_json::from_str::<Value>(&run.out).unwrap()["loss"].as_f64().unwrap()
    };
    let smoothed = loss("m");
    let folder = tiny.at("plain");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(tiny.at("m/model.safetensors"), folder.join("model.safetensors")).unwrap();
    std::fs::write(folder.join("config.json"), r#"{"architecture": "mlp"}"#).unwrap();
    assert!(smoothed > loss("plain"), "{smoothed} {}", loss("plain"));
    let line =
        "scrub --model @m --data @train.safetensors --forget 0-19 --batch 20 --perturbations 60 --gate 1";
    done(&tiny, &format!("{line} --device cpu --threads 2 --if-empty cheap --out @out"));
    let run = tiny.run(&format!("{train} --label-smoothing 1 --out @one"));
    assert!(run.code == 2 && run.err.contains("smoothing"), "{} {}", run.code, run.err);
}
