//! Texts through every command: a tiny set in which the label is told by words, a small DistilBERT trained on it, and what
//! is refused.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;

use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::tensors::{self, Tensor, TensorFile, Values};
use scrubjay::net::UnitId;
use scrubjay::ops::tokens::{Replacement, replace_tokens};
use scrubjay::{Device, data, zoo};
use serde_json::{Value, json};

use crate::tiny::Folder;

const N: usize = 160;
const TOKENS: usize = 10;
const CLASSES: usize = 3;
const WORDS: i64 = 40;
/// Ids of `[CLS]`, `[SEP]` and the first word; 0 is padding.
const CLS: i64 = 1;
const SEP: i64 = 2;
const FIRST: i64 = 5;

/// Texts, and where they are.
struct Texts(Folder);

impl Deref for Texts {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.0
    }
}

/// Numbers below `n`.
fn below(state: &mut u64, n: i64) -> i64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 33) as i64) % n
}

/// `n` texts of 4 to 10 tokens: [CLS], words, [SEP], padding. A text of class k has more words that are k mod 3 than others.
fn texts(n: usize, seed: u64) -> (Vec<i64>, Vec<i64>, Vec<i64>) {
    let (mut ids, mut mask, mut y, mut state) = (vec![], vec![], vec![], seed);
    for i in 0..n {
        let (class, words) = ((i % CLASSES) as i64, 2 + below(&mut state, TOKENS as i64 - 3) as usize);
        let word = |at: usize, state: &mut u64| {
            let any = FIRST + below(state, WORDS - FIRST);
            let own = any - any % 3 + class;
            if at % 3 < 2 && (FIRST..WORDS).contains(&own) { own } else { any }
        };
        let row: Vec<i64> = std::iter::once(CLS)
            .chain((0..words).map(|at| word(at, &mut state)).collect::<Vec<_>>())
            .chain([SEP])
            .collect();
        mask.extend((0..TOKENS).map(|at| i64::from(at < row.len())));
        ids.extend(row.iter().copied().chain(std::iter::repeat(0)).take(TOKENS));
        y.push(class);
    }
    (ids, mask, y)
}

fn write(path: &Path, ids: &[i64], mask: &[i64], y: (&[usize], &[i64])) {
    let shape = vec![ids.len() / TOKENS, TOKENS];
    let all = [
        Tensor { name: "input_ids", shape: shape.clone(), values: Values::I64(ids) },
        Tensor { name: "attention_mask", shape, values: Values::I64(mask) },
        Tensor { name: "y", shape: y.0.to_vec(), values: Values::I64(y.1) },
    ];
    tensors::write(path, &all, HashMap::new()).unwrap();
}

impl Texts {
    /// Training, validation and test sets of classes, and of several labels.
    fn new() -> Texts {
        let texts_in = Texts(Folder::new());
        for (name, n, seed) in [("train", N, 1), ("val", 60, 2), ("test", 60, 3), ("one", 1, 4)] {
            let (ids, mask, y) = texts(n, seed);
            write(&texts_in.at(&format!("{name}.safetensors")), &ids, &mask, (&[n], &y));
            let rows: Vec<i64> = y.iter().flat_map(|&y| [i64::from(y == 0), i64::from(y < 2)]).collect();
            write(&texts_in.at(&format!("{name}-labels.safetensors")), &ids, &mask, (&[n, 2], &rows));
        }
        texts_in
    }

    fn file(&self, name: &str) -> TensorFile {
        TensorFile::open(&self.at(name)).unwrap()
    }
}

const TRAIN: &str =
    "train --optimizer adam --lr 5e-3 --weight-decay 0 --batch-size 16 --device cpu --threads 2";
const SCRUB: &str = "scrub --perturbations 60 --gate 100 --device cpu --threads 2";

#[test]
fn texts_go_through_every_command() {
    let texts = Texts::new();
    let small = "--arch distilbert:40-16-1-2-12";
    texts.done(&format!(
        "{TRAIN} {small} --data @train.safetensors --val @val.safetensors --epochs 20 --out @m"
    ));
    let config = texts.json("m/config.json");
    assert_eq!((&config["model_type"], &config["n_heads"]), (&json!("distilbert"), &json!(2)));
    let mut said = config.clone();
    (said["cls_token_id"], said["sep_token_id"]) = (json!(CLS), json!(SEP));
    std::fs::write(texts.at("m/config.json"), said.to_string()).unwrap();

    let report: Value = serde_json::from_str(&texts.done("inspect --model @m --json").out).unwrap();
    assert_eq!((&report["tokens"], &report["vocabulary"]), (&json!(12), &json!(40)), "{report}");
    assert!(report["read_off_tensors"].to_string().contains("token ids from 3 to 39 are words"), "{report}");
    assert_eq!(report["assumed"], json!([]), "{report}");
    let out = texts.done("inspect --model @m --program").out;
    assert!(out.contains("texts of up to 12 tokens") && out.contains("embedding"), "{out}");
    let out = texts.done("inspect --model @m --program --precision bf16").out;
    assert!(out.contains(":bf16") && !out.contains("backward:"), "{out}");

    let line = "eval --model @m --data @test.safetensors --device cpu --json";
    let eval: Value = serde_json::from_str(&texts.done(line).out).unwrap();
    assert!(eval["accuracy"].as_f64().unwrap() > 0.6, "{eval}");

    let line = "--model @m --input @one.safetensors --device cpu";
    texts.done(&format!("observe {line} --out @plain.safetensors"));
    texts.done(&format!("observe {line} --out @copies.safetensors --perturbations 50 --replace 2 --seed 3"));
    check_copies(&texts);
    std::fs::write(texts.at("block.json"), r#"[["classifier", 0], ["pre_classifier", 3]]"#).unwrap();
    let line = "curvature --model @m --input @val.safetensors --block @block.json --device cpu";
    texts.done(&format!("{line} --out @curvature.safetensors --solve --damping 0.1"));
    let found = texts.file("curvature.safetensors");
    assert_eq!((found.shape("gradient").unwrap(), found.shape("step").unwrap()), (&[34][..], &[34][..]));

    let line = format!(
        "{SCRUB} --model @m --data @train.safetensors --val @val.safetensors --forget 0-19 --batch 20"
    );
    let run = texts.done(&format!("{line} --replace 2 --out @dry --dry-run"));
    assert!(run.out.contains("nothing was written"), "{}", run.out);
    let line = format!("{line} --target-loss 1");
    texts.done(&format!("{line} --replace 2 --if-empty cheap --out @out"));
    let report = texts.json("out/report.json");
    assert_eq!((&report["removed"], &report["options"]["replace"]), (&json!(20), &json!(2)), "{report}");
    assert_eq!(report["options"]["sigma"], Value::Null);
    assert_ne!(
        std::fs::read(texts.at("out/model.safetensors")).unwrap(),
        std::fs::read(texts.at("m/model.safetensors")).unwrap()
    );
    let again = texts.done(&format!("{line} --replace 2 --if-empty cheap --out @out"));
    assert!(again.err.contains("already finished"), "{}", again.err);
    // Words that copies may get are part of what decides the result.
    std::fs::write(texts.at("m/config.json"), with_mask(&said)).unwrap();
    let other = texts.run(&format!("{line} --replace 2 --if-empty cheap --out @out"));
    assert!(other.code != 0 && other.err.contains("other"), "{} {}", other.code, other.err);
    std::fs::write(texts.at("m/config.json"), said.to_string()).unwrap();
    texts.done(&format!("{line} --selection full --out @full"));
    texts.done(&format!("{line} --selection gradient --curvature kfac --out @kfac"));

    texts.done(&format!(
        "{TRAIN} {small} --data @train.safetensors --exclude 0-19 --seeds 2 --epochs 4 --out @never"
    ));
    let line =
        "verify --before @m --after @out --data @train.safetensors --test @test.safetensors --forget 0-19";
    let run = texts
        .run(&format!("{line} --reference @never/seed-0 @never/seed-1 --device cpu --out @verified.json"));
    assert!(run.code == 0 || run.code == 3, "{}", run.err);
    assert_eq!(texts.json("verified.json")["family"], "distilbert");
}

/// A config in which token 3 is the mask.
fn with_mask(config: &Value) -> String {
    let mut config = config.clone();
    config["mask_token_id"] = json!(3);
    config.to_string()
}

/// The mean activations of copies are those of the copies that the operation makes.
fn check_copies(texts: &Texts) {
    let checkpoint = Checkpoint::open(&texts.at("m")).unwrap();
    let one = data::load(&texts.at("one.safetensors"), &Default::default()).unwrap();
    let net = zoo::load_as(&checkpoint, &Default::default(), Some(one.kind)).unwrap().network.freeze();
    assert_eq!(net.ordinary, 3..40);
    let mut words = vec![0; 50 * 2 * TOKENS];
    let replacement = Replacement { count: 2, ordinary: 3..40, seed: 3 };
    replace_tokens(&Device::cpu().unwrap(), &mut words, one.text(0).unwrap(), &replacement, 0, 0).unwrap();
    let mut copies = one.clone();
    copies.x = words.into_iter().map(f32::from_bits).collect();
    copies.y = vec![one.y.of(0)[0]; 50].into();
    let trace = scrubjay::observe::observe(&Device::cpu().unwrap(), &net, &copies).unwrap();
    let found = texts.file("copies.safetensors");
    assert_eq!(found.f32("loss").unwrap(), trace.losses);
    assert_eq!(found.f32("activations").unwrap(), trace.activations);
    let distinct: std::collections::BTreeSet<u32> = trace.losses.iter().map(|loss| loss.to_bits()).collect();
    assert!(distinct.len() > 20, "{}", distinct.len());
    let plain = texts.file("plain.safetensors").f32("loss").unwrap()[0];
    assert!(trace.losses.iter().all(|&loss| loss != plain));
}

#[test]
fn texts_of_several_labels_are_trained_on_and_removed() {
    let texts = Texts::new();
    let data = "--data @train-labels.safetensors";
    texts.done(&format!("{TRAIN} --arch bert:40-16-1-2-12 {data} --epochs 20 --out @m"));
    let config = texts.json("m/config.json");
    assert_eq!(config["problem_type"], "multi_label_classification");
    assert_eq!((&config["model_type"], &config["num_labels"]), (&json!("bert"), &json!(2)));
    let eval = texts.done("eval --model @m --data @test-labels.safetensors --device cpu --json");
    let eval: Value = serde_json::from_str(&eval.out).unwrap();
    assert!(eval["accuracy"].as_f64().unwrap() > 0.5, "{eval}");
    let line = format!("{SCRUB} --model @m {data} --forget 0-19 --batch 20 --val @val-labels.safetensors");
    let run = texts.done(&format!("{line} --if-empty cheap --out @out"));
    assert!(run.err.contains("assumed: ") && run.err.contains("cls_token_id"), "{}", run.err);
    assert_eq!(texts.json("out/report.json")["removed"], 20);
    texts.done(&format!("{TRAIN} --model @m {data} --epochs 1 --out @more"));
}

#[test]
fn what_makes_no_sense_for_texts_is_refused() {
    let texts = Texts::new();
    let small = "--arch distilbert:40-16-1-2-12 --data @train.safetensors --epochs 1";
    texts.done(&format!("{TRAIN} {small} --out @m"));
    let eval = "eval --model @m --device cpu --data";
    texts.refused(
        &format!("{eval} @test.safetensors --mean 0.5"),
        &[1],
        &["texts", "--mean", "test.safetensors"],
    );
    let observe = "observe --model @m --input @one.safetensors --out @o --perturbations 5 --device cpu";
    texts.refused(&format!("{observe} --sigma 0.2"), &[2], &["--sigma is for images"]);
    let scrub = format!("{SCRUB} --model @m --data @train.safetensors --forget 0-9 --out @out");
    texts.refused(&format!("{scrub} --sigma 0.2"), &[2], &["--sigma is for images"]);
    texts.refused(&format!("{TRAIN} {small} --std 0.5 --out @n"), &[1], &["texts", "--std"]);
    let one = "--arch bert:40-16-1-2-12 --data @train.safetensors --classes 1";
    texts.refused(&format!("{TRAIN} {one} --out @n"), &[2], &["one label", "regression"]);
    texts.refused(
        &format!("{TRAIN} --arch mlp:4 --data @train.safetensors --out @n"),
        &[2],
        &["reads images"],
    );
    texts.refused(
        &format!("{TRAIN} --arch bert:40-16-1-2 --data @train.safetensors --out @n"),
        &[2],
        &["bert:40-16-1-2"],
    );

    let (mut ids, mut mask, y) = self::texts(6, 5);
    let bad = |ids: &[i64], mask: &[i64], words: &[&str]| {
        write(&texts.at("bad.safetensors"), ids, mask, (&[6], &y));
        texts.refused(&format!("{eval} @bad.safetensors"), &[1], words);
    };
    ids[2 * TOKENS + 1] = 40;
    bad(
        &ids,
        &mask,
        &["bad.safetensors", "`input_ids`, sample 2, position 1", "40 is beyond the vocabulary of 40"],
    );
    ids[2 * TOKENS + 1] = -1;
    bad(&ids, &mask, &["sample 2, position 1", "-1 is no token id"]);
    ids[2 * TOKENS + 1] = 7;
    mask[3] = 2;
    bad(&ids, &mask, &["`attention_mask`, sample 0, position 3", "neither 0 nor 1"]);
    mask[3] = 1;
    mask[TOKENS..2 * TOKENS].fill(0);
    bad(&ids, &mask, &["`attention_mask`, sample 1", "no attended token"]);
    let longer = [
        Tensor { name: "input_ids", shape: vec![1, 13], values: Values::I64(&[5; 13]) },
        Tensor { name: "attention_mask", shape: vec![1, 13], values: Values::I64(&[1; 13]) },
        Tensor { name: "y", shape: vec![1], values: Values::I64(&[0]) },
        Tensor { name: "x", shape: vec![1, 20], values: Values::F32(&[0.5; 20]) },
    ];
    tensors::write(&texts.at("bad.safetensors"), &longer[..3], HashMap::new()).unwrap();
    texts.refused(&format!("{eval} @bad.safetensors"), &[1], &["`input_ids`", "13", "positions for 12"]);
    tensors::write(&texts.at("bad.safetensors"), &longer[2..], HashMap::new()).unwrap();
    texts.refused(&format!("{eval} @bad.safetensors"), &[1], &["reads texts", "images"]);
    let images = "--model @image --data @bad.safetensors --out @out";
    texts.done(&format!("{TRAIN} --arch mlp:4 --classes 2 --data @bad.safetensors --epochs 1 --out @image"));
    texts.refused(&format!("{SCRUB} {images} --forget 0 --replace 2"), &[2], &["--replace is for texts"]);
    texts.refused(
        "eval --model @image --device cpu --data @test.safetensors",
        &[1],
        &["reads images", "texts of 10"],
    );
}

#[test]
fn configs_of_texts_are_read_key_by_key() {
    let texts = Texts::new();
    let small = "--arch bert:40-16-1-2-12 --data @train.safetensors --epochs 1";
    texts.done(&format!("{TRAIN} {small} --out @m"));
    let config = texts.json("m/config.json");
    let with = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        std::fs::write(texts.at("m/config.json"), config.to_string()).unwrap();
    };
    let inspect = "inspect --model @m --json";
    for (key, value) in [
        ("position_embedding_type", json!("relative_key")),
        ("is_decoder", json!(true)),
        ("add_cross_attention", json!(true)),
        ("num_hidden_layers", json!(2)),
        ("hidden_size", json!(32)),
        ("max_position_embeddings", json!(13)),
        ("vocab_size", json!(41)),
        ("type_vocab_size", json!(1)),
        ("hidden_act", json!("mish")),
        ("num_attention_heads", json!(3)),
        ("problem_type", json!("regression")),
        ("activation", json!("relu")),
        ("image_size", json!(28)),
        ("pad_token_id", json!("none")),
    ] {
        with(key, value);
        let word = if key == "image_size" {
            "reads texts"
        } else if key == "num_attention_heads" {
            "3"
        } else {
            key
        };
        texts.refused(inspect, &[1], &[word]);
    }
    let loss = |key: &str, value: Value| {
        with(key, value);
        let run = texts.done("eval --model @m --data @test.safetensors --device cpu --json");
        serde_json::from_str::<Value>(&run.out).unwrap()["loss"].as_f64().unwrap()
    };
    let plain = loss("hidden_act", json!("gelu"));
    for (key, value) in
        [("hidden_act", json!("relu")), ("layer_norm_eps", json!(0.1)), ("num_attention_heads", json!(4))]
    {
        assert!((loss(key, value) - plain).abs() > 1e-6, "{key}");
    }
    for (key, value) in [("attention_probs_dropout_prob", json!(0.5)), ("tie_word_embeddings", json!(true))] {
        assert_eq!(loss(key, value), plain, "{key}");
    }
    // Without a config the heads cannot be told, and the model is still known by its names.
    std::fs::remove_file(texts.at("m/config.json")).unwrap();
    texts.refused(inspect, &[1], &["--heads"]);
    texts.done(&format!("{inspect} --heads 2"));
}

/// A changed unit changes its bytes alone, and a buffer of positions is left as it is.
#[test]
fn a_model_of_texts_is_written_with_only_its_touched_values_changed() {
    let folder = tempfile::tempdir().unwrap();
    let text = data::InputKind::Text { tokens: 9 };
    let made = zoo::create("bert:20-8-1-2-9", text, 3, 4).unwrap();
    let path = folder.path().join("model.safetensors");
    scrubjay::checkpoint::save(&path, &made.network).unwrap();
    let file = TensorFile::open(&path).unwrap();
    let values: Vec<(String, Vec<usize>, Vec<f32>)> = file
        .names()
        .into_iter()
        .map(|name| (name.clone(), file.shape(&name).unwrap().to_vec(), file.f32(&name).unwrap()))
        .collect();
    let numbers: Vec<i64> = (0..9).collect();
    let mut all: Vec<Tensor> = values
        .iter()
        .map(|(name, shape, values)| Tensor { name, shape: shape.clone(), values: Values::F32(values) })
        .collect();
    let position_ids = "bert.embeddings.position_ids";
    all.push(Tensor { name: position_ids, shape: vec![1, 9], values: Values::I64(&numbers) });
    tensors::write(&path, &all, HashMap::new()).unwrap();
    std::fs::write(folder.path().join("config.json"), made.config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let before = zoo::load_as(&checkpoint, &Default::default(), None).unwrap().network;
    assert_eq!(before, made.network);
    let mut after = before.clone();
    let (layer, row) = after.units().locate(UnitId(5));
    after.unit_row_mut(layer, row).0[2] = 7.5;
    let out = tempfile::tempdir().unwrap();
    assert_eq!(checkpoint.write_patched(&before, &after, out.path()).unwrap().changed, 1);
    let new = TensorFile::open(&out.path().join("model.safetensors")).unwrap();
    let mut expected = std::fs::read(&path).unwrap();
    let at = new.range("bert.encoder.layer.0.attention.self.query.weight").unwrap().start + 4 * (5 * 8 + 2);
    expected[at..at + 4].copy_from_slice(&7.5f32.to_le_bytes());
    assert!(expected == std::fs::read(new.path()).unwrap(), "other bytes changed");
}
