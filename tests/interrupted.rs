//! Commands that are killed and started again lose nothing and end with the same bytes; without a place to write they say
//! which. `scripts/interrupted.py` does the same hundreds of times, and fills disks.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::tiny::{Folder, Tiny};

/// A JSON value without times.
fn timeless(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(key, _)| key != "seconds").map(|(key, v)| (key, timeless(v))).collect()
        }
        Value::Array(list) => list.into_iter().map(timeless).collect(),
        other => other,
    }
}

/// What of each file of a folder is the same in every run. Lines are sorted: columns end in any order.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).unwrap();
        let json = |bytes: &[u8]| timeless(serde_json::from_slice(bytes).unwrap()).to_string();
        let content = match name.rsplit('.').next().unwrap() {
            "json" => json(&bytes).into_bytes(),
            "jsonl" => {
                let lines = bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
                let mut lines: Vec<String> = lines.map(json).collect();
                lines.sort();
                lines.join("\n").into_bytes()
            }
            "html" => vec![],
            _ => bytes,
        };
        found.insert(name, content);
    }
    found
}

fn started(folder: &Folder, line: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scrubjay"));
    let words = line.split_whitespace().map(|word| match word.strip_prefix('@') {
        Some(name) => folder.at(name).into_os_string(),
        None => word.into(),
    });
    command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).env("CUDA_VISIBLE_DEVICES", "");
    command.spawn().unwrap()
}

/// Runs a command that writes to `out` once undisturbed, then kills it at points of its time, and lets it end.
fn survives(folder: &Folder, line: &str) {
    let out = folder.at("out");
    let fresh = || {
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir(&out).unwrap();
    };
    fresh();
    let begun = Instant::now();
    let ends = || {
        let run = folder.run(line);
        assert!([0, 3].contains(&run.code), "{line}: {}", run.err); // a batch may come to nothing
    };
    ends();
    let (seconds, whole) = (begun.elapsed(), files(&out));
    fresh();
    let mut known = 0;
    for share in [0.3, 0.5, 0.7, 0.9, 0.6] {
        let mut child = started(folder, line);
        let end = Instant::now() + seconds.mul_f64(share);
        while Instant::now() < end && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut records = 0;
        for (name, content) in files(&out).into_iter().filter(|(name, _)| !name.ends_with(".part")) {
            let Some(expected) = whole.get(&name) else { continue }; // what a hold goes on from
            match name.ends_with(".jsonl") {
                true => {
                    let lines = |bytes: &[u8]| -> Vec<String> {
                        String::from_utf8_lossy(bytes).lines().map(String::from).collect()
                    };
                    let (now, all) = (lines(&content), lines(expected));
                    assert!(now.iter().all(|line| all.contains(line)), "{line}: {name}");
                    records += now.len();
                }
                false => assert!(&content == expected, "{line}: {name} is not whole"),
            }
        }
        assert!(records >= known, "{line}: {known} records, then {records}");
        known = records;
    }
    ends();
    assert_eq!(files(&out), whole, "{line}");
}

#[test]
fn what_is_killed_and_started_again_ends_with_the_same_bytes() {
    let tiny = Tiny::new();
    let scrub = "scrub --model @m.safetensors --data @train.safetensors --forget 0-29 --despite no-val --perturbations 200 --gate 100 \
                 --device cpu --threads 2 --out @out";
    survives(&tiny, &format!("{scrub} --method lcodec --batch 5 --target-loss 1"));
    survives(
        &tiny,
        &format!("{scrub} --method hold --val @train.safetensors --batch 10")
            .replace("--perturbations 200", ""),
    );
    survives(
        &tiny,
        "train --arch mlp:8 --epochs 40 --data @train.safetensors --device cpu --threads 2 --out @out",
    );
    let number = |i: usize| (i * 7919 % 1009) as f64 / 1009.0;
    let row = |i: usize| {
        (0..6).map(move |j| format!("{}", number(i * (j + 3)) + if j > 2 { number(i) } else { 0.0 }))
    };
    let rows = (1..400).map(|i| row(i).collect::<Vec<_>>().join(",") + "\n").collect::<String>();
    std::fs::write(tiny.at("table.csv"), format!("a,b,c,d,e,f\n{rows}")).unwrap();
    survives(
        &tiny,
        "foci @table.csv --graph --dot @out/g.dot --resume @out/g.jsonl --device cpu --threads 2",
    );
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let tiny = Tiny::new();
    std::fs::write(tiny.at("file"), "in the way").unwrap();
    let data = "--data @train.safetensors --device cpu";
    let scrub = format!(
        "scrub --model @m.safetensors {data} --forget 0-9 --despite no-val --length one --max-units 1"
    );
    tiny.refused(&format!("{scrub} --out @file/out"), &[1], &["file/out"]);
    tiny.refused(&format!("train --arch mlp:4 --epochs 1 {data} --out @file/model"), &[1], &["file/model"]);
    tiny.refused(&format!("{scrub} --dry-run --html @file/plan.html --out @out"), &[1], &["file/plan.html"]);
    assert_eq!(std::fs::read(tiny.at("file")).unwrap(), b"in the way");
}

/// The model and the data are not there: were these looked at first, the error would name them.
#[test]
fn a_place_that_cannot_be_written_is_found_before_the_work() {
    let tiny = Tiny::new();
    std::fs::write(tiny.at("file"), "in the way").unwrap();
    let verify = "verify --before @no --after @no --reference @no --data @no --test @no --forget 0";
    let of_model = "--model @no --input @no";
    for line in [
        &*format!("{verify} --html @absent/x"),
        &*format!("{verify} --out @absent/x"),
        "scrub --model @no --data @no --forget 0 --dry-run --html @absent/x --out @out",
        &*format!("observe {of_model} --out @absent/x"),
        &*format!("curvature {of_model} --block @no --out @absent/x"),
        "inspect --data @no --image-out @absent/x",
        "foci @no --plot @absent/x",
        "foci @no --graph --dot @absent/x",
        "foci @no --graph --resume @absent/x",
    ] {
        tiny.refused(line, &[1], &["absent/x", "is not there; make it first"]);
    }
    for line in [
        "scrub --model @no --data @no --forget 0 --out @file/out",
        "train --arch mlp:4 --data @no --out @file/out",
        "serve --model @no --data @no --spool @file/out",
        "export --model @no --out @file/out",
        "demo --out @file/out",
    ] {
        tiny.refused(line, &[1], &["file/out", "would have to be a folder"]);
    }
    assert_eq!(std::fs::read_dir(tiny.dir.path()).unwrap().count(), 3, "nothing else is left");
}
