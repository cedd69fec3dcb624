//! A tiny task for the commands: three noisy classes of eight features, and a perceptron that was trained on them.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use scrubjay::data::tensors::{self, Tensor, Values};
use serde_json::Value;

pub const N: usize = 200;
pub const FEATURES: usize = 8;
pub const CLASSES: usize = 3;
const HIDDEN: usize = 16;

/// How a command ended.
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs the program; it must never panic.
pub fn scrubjay(args: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scrubjay"));
    let done = command.args(args).env("CUDA_VISIBLE_DEVICES", "").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let run =
        Run { code: done.status.code().unwrap_or(-1), out: text(&done.stdout), err: text(&done.stderr) };
    assert!(!run.err.contains("panicked"), "{args:?}: {}", run.err);
    run
}

/// A folder of a test's own, in which the program runs.
pub struct Folder {
    pub dir: tempfile::TempDir,
}

impl Folder {
    pub fn new() -> Folder {
        Folder { dir: tempfile::tempdir().unwrap() }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the program; `@name` stands for a file of this folder.
    pub fn run(&self, line: &str) -> Run {
        let at = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.at(name).to_string_lossy().into_owned(),
            None => word.to_string(),
        };
        let args: Vec<String> = line.split_whitespace().map(at).collect();
        scrubjay(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs the program, which has to end with 0.
    pub fn done(&self, line: &str) -> Run {
        let run = self.run(line);
        assert_eq!(run.code, 0, "{line}: {}{}", run.out, run.err);
        run
    }

    /// Runs the program, which has to end with one of these codes and with these words in its error.
    pub fn refused(&self, line: &str, codes: &[i32], words: &[&str]) {
        let run = self.run(line);
        assert!(codes.contains(&run.code), "{line}: {} {}{}", run.code, run.out, run.err);
        words
            .iter()
            .for_each(|word| assert!(run.err.contains(word), "{line}: `{word}` is not in {}", run.err));
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.at(name)).unwrap()).unwrap()
    }
}

/// Data and model in a folder of their own.
pub struct Tiny(Folder);

impl Deref for Tiny {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.0
    }
}

impl Tiny {
    pub fn new() -> Tiny {
        let tiny = Tiny(Folder::new());
        let (x, y) = samples();
        write_samples(&tiny.at("train.safetensors"), &x, &y);
        let parts = trained(&x, &y);
        let all: Vec<Tensor> = parts
            .iter()
            .map(|(name, shape, values)| Tensor { name, shape: shape.clone(), values: Values::F32(values) })
            .collect();
        tensors::write(&tiny.at("m.safetensors"), &all, HashMap::new()).unwrap();
        tiny
    }
}

/// Writes labelled rows.
pub fn write_samples(path: &Path, x: &[f32], y: &[i64]) {
    let features = if y.is_empty() { FEATURES } else { x.len() / y.len() };
    let all = [
        Tensor { name: "x", shape: vec![y.len(), features], values: Values::F32(x) },
        Tensor { name: "y", shape: vec![y.len()], values: Values::I64(y) },
    ];
    tensors::write(path, &all, HashMap::new()).unwrap();
}

/// Numbers from −1 to 1.
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// The samples, and their labels.
pub fn samples() -> (Vec<f32>, Vec<i64>) {
    let mut state = 1;
    let y: Vec<i64> = (0..N).map(|i| (i % CLASSES) as i64).collect();
    let value = |i: usize| {
        let centre = if i % FEATURES % CLASSES == i / FEATURES % CLASSES { 0.6 } else { 0.0 };
        centre + 1.2 * uniform(&mut state)
    };
    ((0..N * FEATURES).map(value).collect(), y)
}

/// A perceptron with one hidden layer, by gradient descent on all samples at once.
fn trained(x: &[f32], y: &[i64]) -> Vec<(&'static str, Vec<usize>, Vec<f32>)> {
    let mut state = 2;
    let mut fill =
        |len: usize, bound: f32| (0..len).map(|_| bound * uniform(&mut state)).collect::<Vec<f32>>();
    let mut params = [
        fill(HIDDEN * FEATURES, 0.35),
        fill(HIDDEN, 0.35),
        fill(CLASSES * HIDDEN, 0.25),
        fill(CLASSES, 0.25),
    ];
    for _ in 0..400 {
        let mut gradients = params.clone().map(|p| vec![0.0; p.len()]);
        for (x, &label) in x.chunks_exact(FEATURES).zip(y) {
            let [w1, b1, w2, b2] = &params;
            let dot = |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
            let hidden: Vec<f32> =
                (0..HIDDEN).map(|j| (dot(&w1[j * FEATURES..][..FEATURES], x) + b1[j]).max(0.0)).collect();
            let logits: Vec<f32> =
                (0..CLASSES).map(|k| dot(&w2[k * HIDDEN..][..HIDDEN], &hidden) + b2[k]).collect();
            let sum: f32 = logits.iter().map(|z| z.exp()).sum();
            let [g1, h1, g2, h2] = &mut gradients;
            for k in 0..CLASSES {
                let error = (logits[k].exp() / sum - f32::from(k as i64 == label)) / N as f32;
                h2[k] += error;
                for j in 0..HIDDEN {
                    g2[k * HIDDEN + j] += error * hidden[j];
                    if hidden[j] > 0.0 {
                        let back = error * w2[k * HIDDEN + j];
                        h1[j] += back;
                        (0..FEATURES).for_each(|i| g1[j * FEATURES + i] += back * x[i]);
                    }
                }
            }
        }
        for (param, gradient) in params.iter_mut().zip(&gradients) {
            param.iter_mut().zip(gradient).for_each(|(p, g)| *p -= 0.5 * g);
        }
    }
    let shapes = [vec![HIDDEN, FEATURES], vec![HIDDEN], vec![CLASSES, HIDDEN], vec![CLASSES]];
    let names = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"];
    names.into_iter().zip(shapes).zip(params).map(|((name, shape), values)| (name, shape, values)).collect()
}
