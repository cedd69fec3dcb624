//! Verification from start to finish: networks trained on the digits that ship, some without the samples, one scrubbed
//! of them; what `verify` says of these, and what it refuses.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use scrubjay::comparison::MEASURES;
use scrubjay::data::tensors::{self, Tensor, Values};
use scrubjay::data::{Samples, digits};
use serde_json::Value;

use crate::schema;

/// Training samples, and test samples after them; the first 30 are trained with a wrong label, and forgotten.
const TRAIN: usize = 600;
const TEST: usize = 400;
const WRONG: usize = 30;

const TRAINED: &str = "train --arch mlp:48 --data @train.safetensors --epochs 60 --lr 0.1 --weight-decay 0";
const VERIFY: &str = "verify --data @train.safetensors --test @test.safetensors --forget 0-29";

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn write_samples(path: &Path, samples: &Samples, range: std::ops::Range<usize>) {
    let len = samples.shape().len();
    let labels: Vec<i64> = samples.y.part(range.clone()).iter().map(|&y| i64::from(y)).collect();
    let x = Values::F32(&samples.x[range.start * len..range.end * len]);
    let all = [
        Tensor { name: "x", shape: vec![range.len(), 1, 8, 8], values: x },
        Tensor { name: "y", shape: vec![range.len()], values: Values::I64(&labels) },
    ];
    tensors::write(path, &all, HashMap::new()).unwrap();
}

/// A folder with data and models, made once for all tests.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let mut samples = digits().unwrap();
        samples.y.words_mut()[..WRONG].iter_mut().for_each(|y| *y = (*y + 1) % 10);
        write_samples(&folder.path().join("train.safetensors"), &samples, 0..TRAIN);
        write_samples(&folder.path().join("test.safetensors"), &samples, TRAIN..TRAIN + TEST);
        for line in [
            format!("{TRAINED} --out @before"),
            format!("{TRAINED} --exclude 0-29 --seed 1 --seeds 4 --out @never"),
            "scrub --model @before --data @train.safetensors --forget 0-29 --batch 30 --selection full --wrong-labels \
             --perturbations 50 --out @after"
                .into(),
        ] {
            let run = run_in(folder.path(), &line);
            assert_eq!(run.code, 0, "{line}: {}", run.err);
        }
        folder
    };
    FOLDER.get_or_init(make).path()
}

/// Runs the program on two threads; `@name` stands for a file of the folder.
fn run_in(folder: &Path, line: &str) -> Run {
    let at = |word: &str| match word.strip_prefix('@') {
        Some(name) => folder.join(name).to_string_lossy().into_owned(),
        None => word.to_string(),
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_scrubjay"));
    command.args(line.split_whitespace().map(at)).args(["--device", "cpu", "--threads", "2"]);
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let run =
        Run { code: done.status.code().unwrap_or(-1), out: text(&done.stdout), err: text(&done.stderr) };
    assert!(!run.err.contains("panicked"), "{line}: {}", run.err);
    run
}

fn run(line: &str) -> Run {
    run_in(folder(), line)
}

const REFERENCES: &str = "--reference @never/seed-1 @never/seed-2 @never/seed-3 @never/seed-4";

fn report(run: &Run) -> Value {
    serde_json::from_str(&run.out).unwrap_or_else(|e| panic!("{e}: {}{}", run.out, run.err))
}

fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {path} of {report}"))
}

/// The flags that were raised.
fn flags(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["flag"].as_str().unwrap()).collect()
}

#[test]
fn a_scrubbed_network_is_nearer_to_the_retrained_ones_and_the_report_shows_it() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("verify.json");
    let line =
        format!("{VERIFY} --before @before --after @after {REFERENCES} --json --out {}", file.display());
    let done = run(&line);
    let report = report(&done);
    assert_eq!(report, serde_json::from_slice::<Value>(&std::fs::read(&file).unwrap()).unwrap());
    assert_eq!(done.code, if flags(&report).is_empty() { 0 } else { 3 });
    assert!(report["command"].as_str().unwrap().starts_with("scrubjay verify --data "));
    let of = |model: &str, key: &str| number(&report, &format!("/{model}/measures/{key}"));
    // The wrong labels were memorised, in part; retrained networks do not give one of them, and the scrubbed one
    // neither.
    assert!(of("before", "forget_accuracy") > 0.3);
    assert!(of("after", "forget_accuracy") <= 0.1 && of("references/0", "forget_accuracy") <= 0.1);
    for key in ["forget_accuracy", "forget_loss", "auc", "divergence_forget", "average_gap"] {
        let gap = |when: &str| number(&report, &format!("/gaps/{key}/{when}")).abs();
        assert!(gap("after") < gap("before"), "{key}: {} and {}", gap("after"), gap("before"));
        let retrained = number(&report, &format!("/retrained/{key}/mean"));
        assert!((of("after", key) - retrained - number(&report, &format!("/gaps/{key}/after"))).abs() < 1e-9);
    }
    // The model before learns the samples again sooner than retrained ones, and all learn them in ten steps.
    for (sooner, later) in [("relearned_3", "relearned_1"), ("relearned_10", "relearned_3")] {
        assert!(of("before", "relearned_3") < of("references/0", "relearned_3"));
        assert!(of("references/0", sooner) < of("references/0", later), "{sooner}");
    }
    // The numbers of `eval`, and of the samples.
    let eval = run("eval --model @after --data @test.safetensors --json");
    assert_eq!(number(&self::report(&eval), "/accuracy"), of("after", "test_accuracy"));
    assert_eq!(number(&self::report(&eval), "/loss"), of("after", "test_loss"));
    let samples = report["samples"].as_array().unwrap();
    assert_eq!(samples.len(), WRONG);
    let mean = samples.iter().map(|sample| number(sample, "/after")).sum::<f64>() / WRONG as f64;
    assert!((mean - of("after", "forget_loss")).abs() < 1e-9);
    assert_eq!(report["references"].as_array().unwrap().len(), 4);
    assert!(report["notes"].as_array().unwrap().is_empty(), "{}", report["notes"]);
}

#[test]
fn remembering_and_over_forgetting_are_flagged_and_a_retrained_network_is_not() {
    let verify = |after: &str, references: &str| {
        run(&format!("{VERIFY} --before @before --after {after} --reference {references} --json"))
    };
    let nothing = verify("@before", "@never/seed-1 @never/seed-2 @never/seed-3 @never/seed-4");
    assert_eq!(nothing.code, 3);
    assert!(flags(&report(&nothing)).contains(&"remembers"));
    assert!(!flags(&report(&nothing)).contains(&"over-forgets"));
    let retrained = verify("@never/seed-1", "@never/seed-2 @never/seed-3 @never/seed-4");
    assert_eq!((retrained.code, flags(&report(&retrained))), (0, vec![]));
    let line = "scrub --model @before --data @train.safetensors --forget 0-29 --batch 30 --selection full \
                --target-loss 30 --perturbations 50 --out @over";
    assert_eq!(run(line).code, 0);
    let over = verify("@over", "@never/seed-1 @never/seed-2 @never/seed-3 @never/seed-4");
    assert_eq!(over.code, 3);
    assert!(flags(&report(&over)).contains(&"over-forgets"), "{}", report(&over)["findings"]);
    let table = run(&format!("{VERIFY} --before @before --after @over {REFERENCES}"));
    assert_eq!(table.code, 3);
    assert!(table.out.contains("\nOVER-FORGETS "), "{}", table.out);
    for measure in &MEASURES {
        let shown = measure.key != "weight_distance"; // no convex model
        assert_eq!(table.out.contains(measure.text), shown, "{}", measure.key);
    }
}

#[test]
fn a_convex_model_is_measured_by_its_weights_too() {
    let train = "train --arch mlp --data @train.safetensors --epochs 300 --weight-decay 1e-2";
    for (options, out) in [("", "@linear"), ("--exclude 0-29", "@linear-never")] {
        let done = run(&format!("{train} {options} --out {out}"));
        assert_eq!(done.code, 0, "{}", done.err);
    }
    let scrub = "scrub --model @linear --data @train.safetensors --forget 0-29 --batch 30 --selection full --l2 1e-2 \
                 --perturbations 50 --products 200 --out @linear-after";
    let done = run(scrub);
    assert_eq!(done.code, 0, "{}", done.err);
    let line = format!(
        "{VERIFY} --before @linear --after @linear-after --reference @linear-never --retain 30-199 --json"
    );
    let report = report(&run(&line));
    assert_eq!(number(&report, "/before/measures/weight_distance"), 1.0);
    assert!(number(&report, "/after/measures/weight_distance") < 0.2, "{}", report["after"]);
    assert_eq!(report["sets"]["retain"]["n"], 170);
    // One reference: no spread, no likelihood ratio, and a note of it.
    assert!(
        report["retrained"]["auc"]["deviation"].is_null() && report["retrained"]["likelihood_auc"].is_null()
    );
    assert!(report["notes"].to_string().contains("1 of 3 references"), "{}", report["notes"]);
}

#[test]
fn what_cannot_be_verified_is_refused_and_named() {
    folder();
    let data = "--data @train.safetensors --test @test.safetensors";
    for line in [
        "train --arch mlp:48 --data @train.safetensors --epochs 1 --exclude 0-19 --out @half",
        "train --arch mlp:20 --data @train.safetensors --epochs 1 --exclude 0-29 --out @narrow",
        "train --arch cnn:4+8 --data @train.safetensors --epochs 1 --exclude 0-29 --out @cnn",
    ] {
        let done = run(line);
        assert_eq!(done.code, 0, "{}", done.err);
    }
    let samples = digits().unwrap();
    let at = |name: &str| folder().join(name);
    write_samples(&at("few.safetensors"), &samples, TRAIN..TRAIN + 9);
    std::fs::create_dir(at("broken")).unwrap();
    std::fs::copy(at("never/seed-1/model.safetensors"), at("broken/model.safetensors")).unwrap();
    std::fs::copy(at("never/seed-1/config.json"), at("broken/config.json")).unwrap();
    std::fs::write(at("broken/train.json"), "{").unwrap();
    let models = "--before @before --after @after";
    for (line, code, words) in [
        (
            format!("{VERIFY} {models} --reference @never/seed-1 @half"),
            2,
            &["half", "trained with 10 of the 30 samples to forget", "20, 21, 22, 23, 24 .."][..],
        ),
        (format!("{VERIFY} {models} --reference @before"), 2, &["byte for byte the model before"]),
        (format!("{VERIFY} {models} --reference @after"), 2, &["byte for byte the model after"]),
        (
            format!("{VERIFY} {models} --reference @never/seed-1 @never/seed-1"),
            2,
            &["byte for byte another reference"],
        ),
        (
            format!("{VERIFY} {models} --reference @never/seed-1 @narrow"),
            1,
            &["narrow", "another architecture", "[20, 64]", "[48, 64]"],
        ),
        (format!("{VERIFY} {models} --reference @cnn"), 1, &["cnn", "sequential", "mlp"]),
        (format!("{VERIFY} {models} --reference @absent"), 1, &["absent"]),
        (format!("{VERIFY} {models} --reference @broken"), 1, &["broken", "train.json", "is not JSON"]),
        (format!("{VERIFY} --before @absent --after @after {REFERENCES}"), 1, &["absent"]),
        (format!("{VERIFY} --before @before --after @absent {REFERENCES}"), 1, &["absent"]),
        (
            format!("verify {data} --forget 590-600 {models} {REFERENCES}"),
            2,
            &["train.safetensors", "sample 600 of a set of 600"],
        ),
        (
            format!("verify {data} --forget class:12 {models} {REFERENCES}"),
            2,
            &["train.safetensors", "no sample has class 12"],
        ),
        (
            format!(
                "verify {data} --forget 0-29 --before @never/seed-1 --after @after --reference @never/seed-2"
            ),
            2,
            &["30 of the 30 samples to forget were not in the training data", "seed-1"],
        ),
        (
            format!("verify {data} --forget 0-29 --retain 29-60 {models} {REFERENCES}"),
            2,
            &["sample 29 is to be forgotten and to be retained"],
        ),
        (format!("verify {data} --forget 0-599 {models} {REFERENCES}"), 2, &["nothing is left to retain"]),
        (
            format!(
                "verify --data @train.safetensors --test @few.safetensors --forget 0-29 {models} {REFERENCES}"
            ),
            1,
            &["few.safetensors", "has 9 samples", "10 are needed"],
        ),
        (
            format!(
                "verify --data @train.safetensors --test @few.safetensors --forget class:3 {models} {REFERENCES}"
            ),
            1,
            &["few.safetensors", "samples of class 3, like all forgotten ones"],
        ),
        (
            format!(
                "verify --data @train.safetensors --test @absent.safetensors --forget 0-29 {models} {REFERENCES}"
            ),
            1,
            &["absent.safetensors"],
        ),
        (
            format!(
                "verify --data @absent.safetensors --test @test.safetensors --forget 0-29 {models} {REFERENCES}"
            ),
            1,
            &["absent.safetensors"],
        ),
    ] {
        let done = run(&line);
        assert_eq!(done.code, code, "{line}: {}{}", done.out, done.err);
        assert_eq!(done.out, "", "{line}");
        for word in words {
            assert!(done.err.contains(word), "{line}: `{word}` is not in {}", done.err);
        }
    }
}

#[test]
fn what_is_doubtful_is_said_and_done() {
    folder();
    let bare = folder().join("bare.safetensors");
    std::fs::create_dir(folder().join("alone")).unwrap();
    std::fs::copy(folder().join("never/seed-1/model.safetensors"), folder().join("alone/model.safetensors"))
        .unwrap();
    write_samples(&bare, &digits().unwrap(), 0..TRAIN);
    let train = "train --arch mlp:48 --data @train.safetensors --epochs 2 --lr 0.1 --weight-decay 0";
    assert_eq!(run(&format!("{train} --exclude 0-49 --out @short")).code, 0);
    let notes = |line: &str| report(&run(&format!("{line} --json")))["notes"].to_string();
    let models = "--before @before --after @after";
    // A manifest tells of model.safetensors, not of other files beside it.
    std::fs::create_dir(folder().join("mixed")).unwrap();
    for (from, to) in [
        ("never/seed-3/model.safetensors", "mixed/third.safetensors"),
        ("before/train.json", "mixed/train.json"),
    ] {
        std::fs::copy(folder().join(from), folder().join(to)).unwrap();
    }
    let said = notes(&format!("{VERIFY} {models} --reference @mixed/third.safetensors"));
    assert!(said.contains("third.safetensors has no train.json"), "{said}");
    let said = notes(&format!("{VERIFY} {models} --reference @alone @short"));
    for words in [
        "alone has no train.json",
        "short has not seen 20 of the 570 retained samples either: 30, 31",
        "short was trained otherwise than the model before: epochs is 2, there 60",
    ] {
        assert!(said.contains(words), "`{words}` is not in {said}");
    }
    let other = format!("verify --data @bare.safetensors --forget 5-29 {models}");
    let said = notes(&format!("{other} --test @train.safetensors {REFERENCES}"));
    for words in [
        "before was trained on other data than --data",
        "seed-2 was trained on other data than --data",
        "after was scrubbed of other samples than --forget",
        "600 of the 600 samples",
    ] {
        assert!(said.contains(words), "`{words}` is not in {said}");
    }
    let said = notes(&format!("{VERIFY} --before @before --after @never/seed-1 --reference @never/seed-2"));
    assert!(said.contains("1 of 3 references"), "{said}");
}

#[test]
fn the_documented_keys_are_those_of_a_report() {
    let report_of = |after: &str, references: &str| {
        report(&run(&format!("{VERIFY} --before @before --after {after} --reference {references} --json")))
    };
    let flagged = report_of("@before", "@never/seed-1 @never/seed-2"); // with findings and notes
    assert!(
        !flagged["findings"].as_array().unwrap().is_empty()
            && !flagged["notes"].as_array().unwrap().is_empty()
    );
    schema::check(
        "verify.json",
        &[flagged, report_of("@after", "@never/seed-1 @never/seed-2 @never/seed-3")],
    );
    for measure in &MEASURES {
        let row = format!("| `{}` | {} |", measure.key, measure.text);
        assert!(schema::DOCS.contains(&row), "docs/REPORT.md lacks {row}");
    }
}
