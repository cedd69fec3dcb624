//! What speaks against a request, what counts as removed, and that what is reported is true of the files.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use scrubjay::data::tensors::TensorFile;
use serde_json::{Value, json};

use crate::scrub::BASE;
use crate::tiny::{self, FEATURES, Tiny, samples, write_samples};

#[test]
fn what_speaks_against_a_request_refuses_it_or_is_told_with_its_numbers() {
    let tiny = Tiny::new();
    let (x, y) = samples();
    let save = |name: &str, x: &[f32], y: &[i64]| write_samples(&tiny.at(name), x, y);
    let base = BASE.replace("--despite no-val ", "");
    let refused = |options: &str, code: i32, words: &[&str]| {
        let run = tiny.run(&format!("{base} {options} --out @out"));
        assert_eq!(run.code, code, "{options}: {} {}", run.err, run.out);
        words.iter().for_each(|word| assert!(run.err.contains(word), "`{word}` is not in {}", run.err));
        assert_eq!(tiny.at("out").exists(), code != 2, "{options}");
        let _ = std::fs::remove_dir_all(tiny.at("out"));
    };
    refused("--forget 0-9 --batch 10", 2, &["needs --val", "--despite no-val"]);
    refused(
        "--forget 0-9 --batch 10 --length one --retain 10-29 --gate 100",
        0,
        &["20 retained samples are few"],
    );
    // A model that is misread answers at random; so it does on data that are not scaled as in its training.
    let shifted: Vec<f32> = x.iter().rev().map(|x| 9.0 - 3.0 * x).collect();
    save("shifted.safetensors", &shifted, &y);
    let wrong = base.replace("@train.safetensors", "@shifted.safetensors");
    let run = tiny.run(&format!("{wrong} --forget class:1 --out @out"));
    assert!(run.code == 2 && !tiny.at("out").exists(), "{}", run.err);
    for word in ["retained samples right", "--mean, --std", "--despite near-chance"] {
        assert!(run.err.contains(word), "`{word}` is not in {}", run.err);
    }
    let run = tiny.run(&format!("{wrong} --forget class:1 --despite near-chance --gate 100 --out @out"));
    assert!([0, 3].contains(&run.code) && run.err.contains("warning: the model gets"), "{}", run.err);
    std::fs::remove_dir_all(tiny.at("out")).unwrap();
    // Held-out samples of other classes, or other images; most of a class.
    let few: Vec<usize> = (0..y.len()).filter(|i| y[*i] == 0 || i % 20 == 0).collect();
    let rows =
        |of: &[f32]| few.iter().flat_map(|&i| of[i * FEATURES..][..FEATURES].to_vec()).collect::<Vec<_>>();
    save("other.safetensors", &rows(&x), &few.iter().map(|&i| y[i]).collect::<Vec<_>>());
    save("moved.safetensors", &x.iter().map(|x| x + 4.0).collect::<Vec<_>>(), &y);
    let told = "--length one --gate 100 --forget 0-9 --batch 10 --despite near-chance";
    refused(
        &format!("{told} --val @other.safetensors"),
        0,
        &["not distributed as those of the training data"],
    );
    refused(&format!("{told} --val @moved.safetensors"), 0, &["are not like the training data"]);
    let most: Vec<String> = (0..150).filter(|i| i % tiny::CLASSES == 2).map(|i| i.to_string()).collect();
    refused(
        &format!("--length one --gate 100 --forget {} --batch 60", most.join(",")),
        0,
        &["50 of the 66 samples of class 2", "class:2"],
    );
}

#[test]
fn the_gate_watches_the_retained_samples_and_a_step_without_effect_is_none() {
    let tiny = Tiny::new();
    let run =
        tiny.scrub("--forget 0-29 --batch 30 --selection full --target-loss 6 --stages 1 --gate 1", "gated");
    let record = tiny.report("gated")["records"][0].clone();
    assert_eq!((run.code, &record["fate"]), (3, &json!("refused")), "{record}");
    assert!(record["notes"].to_string().contains("retained accuracy would fall by"), "{record}");
    let still = "--forget 0-9 --batch 10 --length one --selection output --max-units 1 --damping 1e9";
    let run = tiny.scrub(still, "still");
    let report = tiny.report("still");
    assert_eq!((run.code, &report["records"][0]["fate"]), (3, &json!("no-effect")), "{report}");
    assert!(report["written"].is_null() && report["model"]["changed_values"] == 0, "{report}");
    assert!(tiny.model("still") == std::fs::read(tiny.at("m.safetensors")).unwrap());
}

#[test]
fn what_is_reported_is_measured_on_the_file_as_written() {
    let tiny = Tiny::new();
    let model = TensorFile::open(&tiny.at("m.safetensors")).unwrap();
    let narrow: Vec<(String, Vec<usize>, Vec<u8>)> = model
        .names()
        .into_iter()
        .map(|name| {
            let bytes = model
                .f32(&name)
                .unwrap()
                .iter()
                .flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes())
                .collect();
            let shape = model.shape(&name).unwrap().to_vec();
            (name, shape, bytes)
        })
        .collect();
    let views = narrow.iter().map(|(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, shape.clone(), bytes).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(tiny.at("m.safetensors"), bytes).unwrap();
    let request = "--forget 0-29 --batch 30 --target-loss 1.2 --gate 100";
    let run = tiny.scrub(request, "out");
    assert_eq!(run.code, 0, "{} {}", run.err, run.out);
    let report = tiny.report("out");
    let account = &report["records"][0]["account"];
    let loss = |of: &Value| of["forget"]["loss"].as_f64().unwrap();
    let (whole, written) = (loss(&account["after"]), loss(&report["written"]["after"]));
    assert!(whole != written && (whole - written).abs() < 0.1, "{whole} {written}");
    assert!(report["notes"].to_string().contains("rounded to the type of the file"), "{report}");
    // The file says the same.
    let (x, y) = samples();
    write_samples(&tiny.at("forgotten.safetensors"), &x[..30 * FEATURES], &y[..30]);
    let run = tiny.run("eval --model @out/m.safetensors --data @forgotten.safetensors --device cpu --json");
    let eval: Value = serde_json::from_str(&run.out).unwrap();
    assert!((eval["loss"].as_f64().unwrap() - written).abs() < 1e-6, "{eval} {written}");

    // At random: other values, and the same again with the same seed.
    let random = |out: &str, seed: u64| {
        let run = tiny.scrub(&format!("{request} --rounding stochastic --seed {seed}"), out);
        assert_eq!(run.code, 0, "{} {}", run.err, run.out);
        (tiny.report(out), tiny.model(out))
    };
    let (report, model) = random("random", 0);
    assert!(report["notes"].to_string().contains("rounded at random"), "{report}");
    assert_eq!(report["options"]["rounding"], "stochastic");
    assert!((loss(&report["written"]["after"]) - whole).abs() < 0.1, "{report}");
    assert_eq!(report["model"]["updates_lost_in_stored_type"], 0);
    assert!(model != tiny.model("out") && model == random("again", 0).1 && model != random("other", 1).1);
}
