//! What is written of PyTorch's files is loaded by PyTorch itself, with `weights_only` and `strict`, and has the values
//! that were changed and no other. SCRUBJAY_TORCH names a Python that has PyTorch; where it does not, the case is ignored.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use scrubjay::checkpoint::Checkpoint;
use scrubjay::zoo;
use serde_json::{Value, json};

/// The files of `scripts/torch-files.py` that have one set of weights, but that of protocol 4, which `weights_only` refuses.
const FILES: [&str; 9] = [
    "zip.pth",
    "older.pth",
    "float64.bin",
    "float16.bin",
    "bfloat16.bin",
    "training.pth.tar",
    "training-older.pth.tar",
    "views.pth",
    "views-older.pth",
];

/// The case.
pub fn trials() -> Vec<Trial> {
    let python = std::env::var_os("SCRUBJAY_TORCH");
    let there = python.is_some();
    let trial = Trial::test("torch/loads_what_was_written", move || loads(&python.unwrap_or_default()));
    vec![if there { trial } else { trial.with_ignored_flag(true).with_kind("SCRUBJAY_TORCH is not set") }]
}

fn loads(python: &std::ffi::OsStr) -> Result<(), Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (out, mut expected) = (tempfile::tempdir()?, json!({}));
    for name in FILES {
        let checkpoint = Checkpoint::open(&root.join("tests/data/torch").join(name))?;
        let before = zoo::load(&checkpoint, None, None)?.network;
        let mut after = before.clone();
        for (i, param) in after.params.iter_mut().enumerate() {
            let last = param.value.len() - 1;
            param.value[last] = 100.0 + i as f32;
        }
        checkpoint.write_patched(&before, &after, out.path())?;
        for param in &after.params {
            let values: Vec<f64> = param.order.to_stored(&param.value).into_iter().map(f64::from).collect();
            expected[name][&param.name] = values.into();
        }
    }
    let script = root.join("scripts/torch-files.py");
    let done = Command::new(python).arg(script).arg("check").arg(out.path()).output()?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into());
    }
    let found: Value = serde_json::from_slice(&done.stdout)?;
    match found == expected {
        true => Ok(()),
        false => Err(format!("PyTorch reads {found}, not {expected}").into()),
    }
}
