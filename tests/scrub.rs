//! A scrub from start to finish: the result does not depend on interruptions, a finished folder stays as it is, and the
//! report says what was done.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use std::collections::BTreeMap;
use std::path::Path;

use scrubjay::data::tensors::TensorFile;
use serde_json::{Value, json};

use crate::schema;
use crate::tiny::{self, FEATURES, Run, Tiny, samples, write_samples};

pub const BASE: &str = "scrub --model @m.safetensors --data @train.safetensors --perturbations 100 --if-empty cheap \
                    --despite no-val --device cpu --threads 2";

/// Thirty samples in three batches.
const THREE: &str = "--forget 0-29 --batch 10";

impl Tiny {
    /// Scrubs into `out`; what it left is complete.
    pub fn scrub(&self, options: &str, out: &str) -> Run {
        let run = self.run(&format!("{BASE} {options} --out @{out}"));
        assert!(run.code == 0 || run.code == 3, "{options}: {} {}", run.code, run.err);
        for name in files(&self.at(out)).keys() {
            assert!(!name.ends_with(".part"), "{name} was left");
        }
        run
    }

    pub fn report(&self, out: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.at(out).join("report.json")).unwrap()).unwrap()
    }

    pub fn model(&self, out: &str) -> Vec<u8> {
        std::fs::read(self.at(out).join("m.safetensors")).unwrap()
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = |path: std::path::PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
    };
    entries.filter(|path| path.is_file()).map(file).collect()
}

/// The records but for their account, which has the seconds.
fn records(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("events.jsonl")).unwrap();
    let record = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record.as_object_mut().unwrap().remove("account");
        record
    };
    text.lines().map(record).collect()
}

/// The rows of all layers that differ between two models.
fn changed_rows(before: &Path, after: &Path) -> Vec<(String, usize)> {
    let (before, after) = (TensorFile::open(before).unwrap(), TensorFile::open(after).unwrap());
    let mut changed = vec![];
    for layer in ["fc1", "fc2"] {
        let read = |file: &TensorFile, part: &str| file.f32(&format!("{layer}.{part}")).unwrap();
        let rows = read(&before, "bias").len();
        for row in 0..rows {
            let differs = ["weight", "bias"].iter().any(|part| {
                let (a, b) = (read(&before, part), read(&after, part));
                let len = a.len() / rows;
                a[row * len..(row + 1) * len] != b[row * len..(row + 1) * len]
            });
            if differs {
                changed.push((layer.to_string(), row));
            }
        }
    }
    changed
}

fn chosen_rows(report: &Value) -> Vec<(String, usize)> {
    let records = report["records"].as_array().unwrap().iter().filter(|record| record["removed"] == true);
    let units = records.flat_map(|record| record["units"].as_array().unwrap());
    let mut rows: Vec<_> =
        units.map(|u| (u[0].as_str().unwrap().to_string(), u[1].as_u64().unwrap() as usize)).collect();
    rows.sort();
    rows.dedup();
    rows
}

#[test]
fn a_run_reports_every_batch_and_changes_nothing_but_the_chosen_units() {
    let tiny = Tiny::new();
    let run = tiny.scrub(THREE, "out");
    let names: Vec<String> = files(&tiny.at("out")).into_keys().collect();
    assert_eq!(names, ["events.jsonl", "m.safetensors", "report.html", "report.json"]);
    let report = tiny.report("out");
    assert_eq!(report["request"]["samples"], json!((0..30).collect::<Vec<_>>()));
    let records = report["records"].as_array().unwrap();
    assert_eq!(records.len(), 3);
    let mut removed = 0;
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record["indices"], json!((10 * i..10 * i + 10).collect::<Vec<_>>()));
        assert!(record["notes"].is_array());
        assert!(
            record["account"]["seconds"].as_object().is_some_and(|phases| !phases.is_empty()),
            "{record}"
        );
        assert!(record.get("values").is_none());
        removed += if record["removed"] == true { 10 } else { 0 };
    }
    assert!(removed > 0, "{}", run.out);
    assert_eq!((&report["removed"], &report["not_removed"]), (&removed.into(), &(30 - removed).into()));
    assert_eq!(run.code, if removed == 30 { 0 } else { 3 });
    assert!(report["seconds"].as_f64().unwrap() > 0.0 && report["privacy"].is_null());
    assert!(report["model"]["changed_values"].as_u64().unwrap() > 0);
    assert_eq!(changed_rows(&tiny.at("m.safetensors"), &tiny.at("out/m.safetensors")), chosen_rows(&report));
}

#[test]
fn the_model_is_the_same_whether_it_was_made_at_once_or_resumed() {
    let tiny = Tiny::new();
    let code = tiny.scrub(THREE, "whole").code;
    let events = std::fs::read(tiny.at("whole/events.jsonl")).unwrap();
    let ends: Vec<usize> = (0..events.len()).filter(|&i| events[i] == b'\n').map(|i| i + 1).collect();
    assert_eq!(ends.len(), 4); // the header and three records
    let cuts = [
        ("first", ends[1]),
        ("torn", (ends[1] + ends[2]) / 2),
        ("unended", ends[2] - 1),
        ("all", ends[3]),
        ("header", ends[0]),
        ("torn-header", ends[0] / 2),
    ];
    for (name, len) in cuts {
        let out = tiny.at(name);
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("events.jsonl"), &events[..len]).unwrap();
        std::fs::write(out.join("m.safetensors.part"), "what a crash left").unwrap();
        assert_eq!(tiny.scrub(THREE, name).code, code, "{name}");
        assert!(tiny.model(name) == tiny.model("whole"), "{name}");
        assert_eq!(records(&out), records(&tiny.at("whole")), "{name}");
        let (resumed, whole) = (tiny.report(name), tiny.report("whole"));
        for key in ["identity", "removed", "request", "model", "options"] {
            assert_eq!(resumed[key], whole[key], "{name}: {key}");
        }
        let kept = std::fs::read(out.join("events.jsonl")).unwrap();
        let complete = *ends.iter().rfind(|&&end| end <= len).unwrap_or(&0);
        assert!(kept.starts_with(&events[..complete]), "{name}: a finished record was made again");
    }
}

#[test]
fn threads_do_not_change_the_model() {
    let tiny = Tiny::new();
    tiny.scrub("--forget 0-9 --batch 10", "two");
    let one = format!("{BASE} --forget 0-9 --batch 10 --out @one").replace("--threads 2", "--threads 1");
    assert!([0, 3].contains(&tiny.run(&one).code));
    assert!(tiny.model("one") == tiny.model("two"));
}

#[test]
fn a_finished_folder_is_left_as_it_is() {
    let tiny = Tiny::new();
    let request = "--forget 0-9 --batch 10 --length one";
    assert_eq!(tiny.scrub(request, "out").code, 0);
    let before = files(&tiny.at("out"));
    let again = tiny.scrub(request, "out");
    assert_eq!(again.code, 0);
    assert!(again.err.contains("already finished"), "{}", again.err);
    assert_eq!(files(&tiny.at("out")), before);
    let json = tiny.scrub(&format!("{request} --json"), "out");
    assert_eq!(serde_json::from_str::<Value>(&json.out).unwrap(), tiny.report("out"));

    for other in ["--forget 0-10 --batch 10 --length one", "--forget 0-9 --batch 10 --length one --seed 1"] {
        let run = tiny.run(&format!("{BASE} {other} --out @out"));
        assert_eq!(run.code, 2, "{}", run.err);
        assert!(run.err.contains("choose another --out"), "{}", run.err);
        assert_eq!(files(&tiny.at("out")), before);
    }
}

#[test]
fn a_folder_begun_with_other_options_is_refused_and_left_as_it_is() {
    let tiny = Tiny::new();
    tiny.scrub(THREE, "out");
    std::fs::remove_file(tiny.at("out/report.json")).unwrap();
    std::fs::remove_file(tiny.at("out/m.safetensors")).unwrap();
    let before = files(&tiny.at("out"));
    let (x, mut y) = samples();
    y[100] = (y[100] + 1) % 3;
    write_samples(&tiny.at("other.safetensors"), &x, &y);
    for other in [
        "--forget 0-29 --batch 15",
        "--forget 0-28 --batch 10",
        "--forget 0-29 --batch 10 --seed 4",
        "--forget 0-29 --batch 10 --damping 0.5",
        "--forget 0-29 --batch 10 --data @other.safetensors",
    ] {
        let base = if other.contains("--data") {
            BASE.replace("--data @train.safetensors", "")
        } else {
            BASE.into()
        };
        let run = tiny.run(&format!("{base} {other} --out @out"));
        assert_eq!(run.code, 2, "{other}: {}", run.err);
        assert!(run.err.contains("choose another --out"), "{other}: {}", run.err);
        assert_eq!(files(&tiny.at("out")), before, "{other}");
    }
    std::fs::write(tiny.at("out/events.jsonl"), "not a record\n").unwrap();
    let run = tiny.run(&format!("{BASE} {THREE} --out @out"));
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(run.err.contains("events.jsonl") && run.err.contains("line 1"), "{}", run.err);
    assert_eq!(files(&tiny.at("out"))["events.jsonl"], b"not a record\n");
}

#[test]
fn what_was_not_removed_exits_with_3_and_the_finished_folder_says_so_again() {
    let tiny = Tiny::new();
    let request = "--forget 0-9 --batch 10 --target-loss 1e30";
    let run = tiny.scrub(request, "out");
    assert_eq!(run.code, 3, "{}", run.err);
    let again = tiny.scrub(request, "out");
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(again.err.contains("10 samples were not removed"), "{}", again.err);
    let report = tiny.report("out");
    assert_eq!((&report["removed"], &report["not_removed"]), (&0.into(), &10.into()));
    assert!(report["records"][0]["notes"].to_string().contains("not removed"), "{report}");
    assert_eq!(report["model"]["changed_values"], 0);
    assert!(tiny.model("out") == std::fs::read(tiny.at("m.safetensors")).unwrap());
}

#[test]
fn what_a_model_never_saw_cannot_be_removed_from_it() {
    let tiny = Tiny::new();
    let train =
        "train --arch mlp:8 --data @train.safetensors --epochs 60 --device cpu --exclude 0-4 --out @never";
    assert_eq!(tiny.run(train).code, 0);
    let (x, y) = samples();
    write_samples(&tiny.at("other.safetensors"), &x[FEATURES..], &y[1..]);
    write_samples(&tiny.at("gone.safetensors"), &x[..12 * FEATURES], &y[..12]);
    let base =
        "scrub --model @never --perturbations 50 --if-empty cheap --length one --gate 100 --device cpu";
    let run = tiny.run(&format!("{base} --data @train.safetensors --forget 3-12 --out @out"));
    assert_eq!(run.code, 2, "{}", run.err);
    for word in ["2 of the 10 samples", "not in the training data of", "never", "train.json: 3, 4"] {
        assert!(run.err.contains(word), "`{word}` is not in {}", run.err);
    }
    assert!(!tiny.at("out").exists());
    for (options, warning) in [
        (
            "--data @train.safetensors --forget 10-19",
            "5 of the 190 retained samples were not in the training data",
        ),
        ("--data @other.safetensors --forget 10-19", "trained on other data than --data"),
        ("--data @other.safetensors --forget 10-19 --n 300", ""),
        ("--data @other.safetensors --n 300 --forget-data @gone.safetensors", ""),
    ] {
        let run = tiny.run(&format!("{base} {options} --out @out"));
        assert!([0, 3].contains(&run.code), "{options}: {}", run.err);
        assert_eq!(run.err.contains("warning: "), !warning.is_empty(), "{options}: {}", run.err);
        assert!(run.err.contains(warning), "{options}: {}", run.err);
        assert!(tiny.report("out")["notes"].to_string().contains(warning), "{options}");
        std::fs::remove_dir_all(tiny.at("out")).unwrap();
    }
}

#[test]
fn too_few_samples_to_calibrate_on_are_refused_or_said() {
    let tiny = Tiny::new();
    let (x, y) = samples();
    for (name, count) in [("nine", 9), ("ten", 10), ("all", y.len())] {
        write_samples(&tiny.at(&format!("{name}.safetensors")), &x[..count * FEATURES], &y[..count]);
    }
    let base = format!("{BASE} --forget 100-119 --batch 20 --out @out");
    for (options, code, words) in [
        ("--val @nine.safetensors", 1, &["nine.safetensors", "holds 9 samples", "10 are needed"][..]),
        ("--retain 0-49", 2, &["too few retained samples", "--val"]),
        ("--retain 0-49 --wrong-labels", 2, &["too few retained samples"]),
    ] {
        let run = tiny.run(&format!("{base} {options}"));
        assert_eq!(run.code, code, "{options}: {}", run.err);
        words.iter().for_each(|word| assert!(run.err.contains(word), "`{word}` is not in {}", run.err));
        assert!(!tiny.at("out").exists(), "{options}");
    }
    let uncertain = |out: &str| tiny.report(out)["records"][0]["notes"].to_string().contains("uncertain by");
    let run = tiny.scrub("--forget 100-119 --batch 20 --gate 100 --val @ten.safetensors", "ten");
    assert!(uncertain("ten") && !run.err.contains("warning"), "{}", tiny.report("ten")["records"][0]);
    let run = tiny.scrub("--forget 100-119 --batch 20 --gate 100 --val @all.safetensors", "all");
    assert!(!uncertain("all") && !run.err.contains("warning"), "{}", tiny.report("all")["records"][0]);
    // Without --val the model has seen what it is calibrated on.
    let run = tiny.scrub("--forget 100-119 --batch 20", "seen");
    assert!(run.err.contains("warning: calibrated on 18 retained samples"), "{}", run.err);
    assert!(tiny.report("seen")["notes"].to_string().contains("give --val"));
    // Nothing is calibrated.
    let run = tiny.scrub("--forget 100-119 --batch 20 --retain 0-49 --length one", "one");
    assert!(!run.err.contains("warning"), "{}", run.err);
}

#[test]
fn a_batch_that_is_no_better_known_than_unseen_samples_is_not_driven_far_beyond_them() {
    let tiny = Tiny::new();
    // The samples to remove have wrong labels that the network never saw.
    let (x, y) = samples();
    write_samples(&tiny.at("val.safetensors"), &x[..60 * FEATURES], &y[..60]);
    let wrong: Vec<i64> = y.iter().enumerate().map(|(i, &y)| if i < 170 { y } else { (y + 1) % 3 }).collect();
    write_samples(&tiny.at("train.safetensors"), &x, &wrong);
    tiny.scrub("--forget 170-199 --batch 30 --gate 100 --selection full --val @val.safetensors", "out");
    let record = tiny.report("out")["records"][0].clone();
    assert!(record["notes"].to_string().contains("before any step"), "{record}");
    let loss = |when: &str| record["account"][when]["forget"]["loss"].as_f64().unwrap();
    let unseen = record["account"]["before"]["validation"]["loss"].as_f64().unwrap();
    assert!(loss("after") > loss("before") && loss("after") <= loss("before") + unseen + 1e-9, "{record}");
    assert!(record["account"]["length"]["scale"].as_f64().unwrap() <= 1.0);
}

#[test]
fn a_gate_that_is_not_met_leaves_the_batch_in_and_says_so() {
    let tiny = Tiny::new();
    let request = "--forget 0-29 --batch 30 --selection full --target-loss 6 --stages 1 --val @train.safetensors --gate 1";
    let run = tiny.scrub(request, "out");
    assert_eq!(run.code, 3, "{}", run.err);
    let report = tiny.report("out");
    let notes = report["records"][0]["notes"].to_string();
    assert!(notes.contains("not removed: validation accuracy would fall by"), "{notes}");
    assert_eq!((&report["removed"], &report["not_removed"]), (&0.into(), &30.into()));
    assert!(tiny.model("out") == std::fs::read(tiny.at("m.safetensors")).unwrap());
}

#[test]
fn a_dry_run_writes_nothing() {
    let tiny = Tiny::new();
    let before = files(tiny.dir.path());
    let run = tiny.run(&format!("{BASE} {THREE} --dry-run --out @out"));
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("30 in 3 batches") && run.out.contains("nothing was written"), "{}", run.out);
    let json = tiny.run(&format!("{BASE} {THREE} --dry-run --json --out @out"));
    let plan: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&plan["samples"], &plan["batches"], &plan["units"]), (&30.into(), &3.into(), &19.into()));
    assert_eq!((&plan["stages_at_most"], &plan["products_at_most"]), (&2.into(), &(6 + 26 + 11).into()));
    assert!(!tiny.at("out").exists());
    assert_eq!(files(tiny.dir.path()), before);
}

#[test]
fn single_samples_take_the_literal_length_and_say_so() {
    let tiny = Tiny::new();
    tiny.scrub("--forget 3,5 --batch 1", "out");
    let report = tiny.report("out");
    let records = report["records"].as_array().unwrap();
    assert_eq!(records.len(), 2);
    for (record, index) in records.iter().zip([3, 5]) {
        assert_eq!(record["indices"], json!([index]));
        assert!(record["notes"].to_string().contains("formula's own length"), "{record}");
        assert_eq!(record["account"]["length"]["scale"], 1.0, "{record}");
        let loss = |when: &str| record["account"][when]["forget"]["loss"].as_f64().unwrap();
        let small = (loss("after") - loss("before")).abs() < 0.01;
        assert_eq!(record["fate"], if small { "no-effect" } else { "removed" }, "{record}");
    }
}

#[test]
fn every_curvature_reaches_the_target_and_names_its_solver() {
    let tiny = Tiny::new();
    let train = "train --arch mlp:16 --data @train.safetensors --epochs 60 --batch-size 16 --device cpu";
    let run = tiny.run(&format!("{train} --keep-epochs 40,59 --out @trained"));
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(tiny.at("trained/epoch-59/config.json").exists() && !tiny.at("trained/epoch-41").exists());
    let scrub = "scrub --model @trained --data @train.safetensors --perturbations 100 --if-empty cheap --forget n:30@2 \
                 --batch 30 --device cpu --l2 5e-4";
    for (curvature, solver) in [
        ("hessian", "cg"),
        ("ggn", "cg"),
        ("ggn --precondition", "preconditioned cg"),
        ("fisher", "cg"),
        ("kfac", "kfac"),
        ("fd --earlier @trained/epoch-40", "sherman-morrison"),
    ] {
        let out = format!(
            "out-{}",
            curvature.split_whitespace().collect::<Vec<_>>().join("-").replace(['@', '/'], "")
        );
        let run = tiny.run(&format!("{scrub} --curvature {curvature} --target-loss 0.9 --out @{out}"));
        assert_eq!(run.code, 0, "{curvature}: {} {}", run.err, run.out);
        let report = tiny.report(&out);
        let account = &report["records"][0]["account"];
        assert_eq!(account["solves"][0]["solver"], solver, "{curvature}");
        let loss = account["after"]["forget"]["loss"].as_f64().unwrap();
        assert!((loss / 0.9 - 1.0).abs() < 0.05, "{curvature}: {loss}");
    }
    assert_eq!(tiny.run(&format!("{} --out @narrow", train.replace("mlp:16", "mlp:12"))).code, 0);
    for (options, said) in [
        ("--curvature fd", "earlier epoch"),
        ("--curvature ggn --earlier @trained/epoch-40", "--curvature fd"),
        ("--curvature fd --earlier @narrow", "other layers"),
        ("--curvature fd --earlier @nowhere", "nowhere"),
    ] {
        let run = tiny.run(&format!("{scrub} {options} --out @refused"));
        assert!((1..=2).contains(&run.code) && run.err.contains(said), "{options}: {} {}", run.code, run.err);
        assert!(!tiny.at("refused/report.json").exists());
    }
}

#[test]
fn a_class_goes_at_once_and_is_no_longer_recognised() {
    let tiny = Tiny::new();
    let run = tiny.scrub("--forget class:1", "out");
    let report = tiny.report("out");
    let records = report["records"].as_array().unwrap();
    let class: Vec<usize> = (0..tiny::N).filter(|i| i % tiny::CLASSES == 1).collect();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["indices"], json!(class));
    assert_eq!(run.code, 0, "{}", records[0]["notes"]);
    let (before, after) = (&records[0]["account"]["before"], &records[0]["account"]["after"]);
    let accuracy = |measures: &Value, set: &str| measures[set]["accuracy"].as_f64().unwrap();
    assert!(accuracy(before, "forget") > 0.7 && accuracy(after, "forget") < 0.1, "{before} {after}");
    // Calibrated to what the held-out samples of other classes lose under its label.
    let length = &records[0]["account"]["length"];
    let (target, loss) = (length["target"].as_f64().unwrap(), after["forget"]["loss"].as_f64().unwrap());
    assert!(target > 2.0 && (loss / target - 1.0).abs() < 0.03, "{length} {after}");
    // The gate does not count the class itself: a third of the validation data is of it.
    let run = tiny.scrub("--forget class:1 --val @train.safetensors --gate 5", "gated");
    let report = tiny.report("gated");
    assert_eq!(run.code, 0, "{}", report["records"][0]["notes"]);
    assert!(report["records"][0]["notes"].to_string().contains("leaves out class 1"), "{report}");
}

#[test]
fn wrong_labels_are_driven_to_what_held_out_samples_have_under_them() {
    let tiny = Tiny::new();
    let target = |options: &str, out: &str| {
        let run = tiny.scrub(&format!("--forget 0-11 --batch 12 {options}"), out);
        assert!([0, 3].contains(&run.code), "{}", run.err);
        let account = tiny.report(out)["records"][0]["account"].clone();
        let stages = account["solves"].as_array().unwrap().len();
        (
            account["length"]["target"].as_f64().unwrap(),
            account["before"]["forget"]["loss"].as_f64().unwrap(),
            stages,
        )
    };
    let (ordinary, _, stages) = target("", "ordinary");
    assert_eq!(stages, 2);
    let (wrong, before, stages) = target("--wrong-labels", "wrong");
    assert!(wrong > 3.0 * ordinary, "{wrong} and {ordinary}");
    assert_eq!(stages, ((wrong - before) / 1.5).ceil() as usize);
    assert_eq!(target("--wrong-labels --stages 3", "three").2, 3);
}

#[test]
fn a_set_beside_the_data_is_removed_as_the_same_samples_among_them_are() {
    let tiny = Tiny::new();
    let (x, y) = samples();
    let cut = 190;
    write_samples(&tiny.at("rest.safetensors"), &x[..cut * FEATURES], &y[..cut]);
    write_samples(&tiny.at("gone.safetensors"), &x[cut * FEATURES..], &y[cut..]);
    tiny.scrub("--forget 190-199", "among");
    let base = BASE.replace("@train.safetensors", "@rest.safetensors");
    let run = tiny.run(&format!("{base} --forget-data @gone.safetensors --out @beside"));
    assert!([0, 3].contains(&run.code), "{}", run.err);
    assert!(tiny.model("among") == tiny.model("beside"));
    assert_eq!(tiny.report("beside")["request"]["n"], 200);
}

#[test]
fn a_certificate_adds_noise_outside_the_block_and_is_reported() {
    let tiny = Tiny::new();
    let request = "--forget 0-19 --batch 10 --length one --max-units 3 --gate 100";
    assert_eq!(tiny.scrub(request, "plain").code, 0);
    let run = tiny.scrub(&format!("{request} --epsilon 0.5 --delta 0.01"), "noisy");
    assert_eq!(run.code, 0, "{}", run.out);
    let report = tiny.report("noisy");
    let privacy = &report["privacy"];
    assert_eq!((&privacy["epsilon_spent"], &privacy["delta_spent"]), (&1.0.into(), &0.02.into()));
    assert!(privacy["holds"].as_str().unwrap().contains("strongly convex"));
    assert!(report["records"][0]["account"]["certificate"].is_object());
    let changed = changed_rows(&tiny.at("m.safetensors"), &tiny.at("noisy/m.safetensors"));
    assert_eq!(changed.len(), 19, "every unit has the step or the noise");
    assert!(chosen_rows(&report).len() < 19);
    let plain = changed_rows(&tiny.at("m.safetensors"), &tiny.at("plain/m.safetensors"));
    assert_eq!(plain, chosen_rows(&tiny.report("plain")));

    let events = std::fs::read_to_string(tiny.at("noisy/events.jsonl")).unwrap();
    let two: Vec<&str> = events.split_inclusive('\n').take(2).collect();
    std::fs::create_dir(tiny.at("resumed")).unwrap();
    std::fs::write(tiny.at("resumed/events.jsonl"), two.concat()).unwrap();
    tiny.scrub(&format!("{request} --epsilon 0.5 --delta 0.01"), "resumed");
    assert!(tiny.model("resumed") == tiny.model("noisy"));
    tiny.scrub(&format!("{request} --epsilon 0.5 --delta 0.01 --noise none"), "none");
    assert!(tiny.model("none") == tiny.model("plain"));
}

#[test]
fn noise_at_none_is_no_certificate() {
    let tiny = Tiny::new();
    let run =
        tiny.scrub("--forget 0-9 --batch 10 --length one --epsilon 0.5 --delta 0.01 --noise none", "out");
    assert_eq!(run.code, 0, "{}", run.out);
    let report = tiny.report("out");
    assert!(report["privacy"].is_null() && report["records"][0]["account"]["certificate"].is_null());
}

#[test]
fn every_unit_with_noise_resumes_to_the_same_model() {
    let tiny = Tiny::new();
    let request = "--forget 0-19 --batch 10 --length one --selection gradient --max-units 19 --epsilon 0.5 --delta 0.01 --noise all --gate 100";
    assert_eq!(tiny.scrub(request, "whole").code, 0);
    let events = std::fs::read_to_string(tiny.at("whole/events.jsonl")).unwrap();
    let two: Vec<&str> = events.split_inclusive('\n').take(2).collect();
    std::fs::create_dir(tiny.at("resumed")).unwrap();
    std::fs::write(tiny.at("resumed/events.jsonl"), two.concat()).unwrap();
    assert_eq!(tiny.scrub(request, "resumed").code, 0);
    assert!(tiny.model("whole") == tiny.model("resumed"));
}

#[test]
fn what_is_too_few_for_a_batch_of_its_own_joins_the_last_one() {
    let tiny = Tiny::new();
    tiny.scrub("--forget 0-32", "out"); // 25 and 8
    let records = records(&tiny.at("out"));
    assert_eq!(records.len(), 2, "the header and one batch");
    assert_eq!(records[1]["indices"].as_array().unwrap().len(), 33);
}

#[test]
fn files_that_no_run_began_are_left_as_they_are() {
    let tiny = Tiny::new();
    for (name, text) in [("m.safetensors", "somebody's"), ("events.jsonl", "{\"other\": 1}")] {
        std::fs::create_dir_all(tiny.at("out")).unwrap();
        let path = tiny.at("out").join(name);
        std::fs::write(&path, text).unwrap();
        let run = tiny.run(&format!("{BASE} --forget 0-9 --out @out"));
        assert_eq!(run.code, 2, "{name}: {}", run.err);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        std::fs::remove_dir_all(tiny.at("out")).unwrap();
    }
}

/// The command of a scrub, to be started by the test itself.
fn command(tiny: &Tiny, options: &str, out: &str) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_scrubjay"));
    for word in
        format!("{} {options} --out @{out}", BASE.replace("--perturbations 100", "")).split_whitespace()
    {
        match word.strip_prefix('@') {
            Some(name) => command.arg(tiny.at(name)),
            None => command.arg(word),
        };
    }
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    command
}

#[test]
fn an_interrupt_keeps_what_is_done_and_the_same_command_goes_on() {
    let tiny = Tiny::new();
    let request = "--forget 0-119 --batch 10 --perturbations 300 --length one";
    let mut running = command(&tiny, request, "out").spawn().unwrap();
    let events = tiny.at("out").join("events.jsonl");
    while std::fs::read_to_string(&events).unwrap_or_default().lines().count() < 2 {
        assert!(running.try_wait().unwrap().is_none(), "it ended before it was interrupted");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let killed =
        std::process::Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let ended = running.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{errors}");
    assert!(errors.contains("interrupted") && errors.contains("goes on from there"), "{errors}");
    assert!(!tiny.at("out").join("m.safetensors").exists());

    for out in ["out", "whole"] {
        assert!(command(&tiny, request, out).status().unwrap().success());
    }
    assert!(tiny.model("out") == tiny.model("whole"));
}

#[test]
fn a_file_system_that_takes_no_more_is_named_and_nothing_half_written_stays() {
    let tiny = Tiny::new();
    let scrub = command(&tiny, "--forget 0-9 --length one --max-units 1", "out");
    // No file may grow beyond 1 KiB: the record fits, the model does not.
    let script = r#"trap '' XFSZ; ulimit -f 2; exec "$0" "$@""#;
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(script).arg(scrub.get_program()).args(scrub.get_args());
    let run = shell.output().unwrap();
    let errors = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(1), "{errors}");
    assert!(errors.contains("out/") && !errors.contains("panicked"), "{errors}");
    let left: Vec<String> = files(&tiny.at("out")).into_keys().collect();
    assert!(left.iter().all(|name| name == "events.jsonl"), "{left:?}");
    assert!(command(&tiny, "--forget 0-9 --length one --max-units 1", "out").status().unwrap().success());
}

#[test]
fn the_documented_keys_are_those_of_a_report_and_its_page_is_whole() {
    let tiny = Tiny::new();
    tiny.scrub(&format!("{THREE} --val @train.safetensors --gate 100"), "held-out");
    tiny.scrub("--forget 0-29 --batch 30 --target-loss 1 --epsilon 1 --delta 1e-5 --gate 100", "private");
    let hold = "--method hold --proxy-epochs 1 --hold-epochs 1 --val @train.safetensors --gate 100";
    let base = BASE.replace("--perturbations 100 --if-empty cheap ", "");
    let run = tiny.run(&format!("{base} --forget 0-29 {hold} --out @hold"));
    assert_eq!(run.code, 0, "{}", run.err);
    let reports = [tiny.report("held-out"), tiny.report("private"), tiny.report("hold")];
    assert!(reports[0]["command"].as_str().unwrap().starts_with("scrubjay scrub --model "));
    schema::check("report.json", &reports);
    let layers = |report: &Value, key: &str| -> Vec<u64> {
        report["layers"].as_array().unwrap().iter().map(|layer| layer[key].as_u64().unwrap()).collect()
    };
    assert_eq!(layers(&reports[0], "units"), [16, 3]);
    let rows = changed_rows(&tiny.at("m.safetensors"), &tiny.at("held-out/m.safetensors"));
    let of = |rows: &[(String, usize)], layer: &str| rows.iter().filter(|row| row.0 == layer).count() as u64;
    assert_eq!(layers(&reports[0], "changed"), [of(&rows, "fc1"), of(&rows, "fc2")]);
    let chosen = chosen_rows(&reports[0]);
    assert_eq!(layers(&reports[0], "chosen"), [of(&chosen, "fc1"), of(&chosen, "fc2")]);
    // Noise on every unit outside the block changes them all.
    assert_eq!(layers(&reports[1], "changed"), [16, 3]);
    for (out, report) in ["held-out", "private"].iter().zip(&reports) {
        let page = std::fs::read_to_string(tiny.at(out).join("report.html")).unwrap();
        assert!(page.contains(&format!("{} of 30 samples removed", report["removed"])));
        assert!(page.contains("batch-norm statistics") && page.contains("scrubjay scrub --model"));
    }
    let page = std::fs::read_to_string(tiny.at("hold/report.html")).unwrap();
    assert!(page.contains("30 of 30 samples removed") && page.contains("soft labels"));
}
