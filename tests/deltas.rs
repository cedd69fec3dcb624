//! Delta files: of a model and its delta comes the other model, byte for byte, and of anything else a refusal.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use crate::tiny::Tiny;

const SCRUB: &str = "--forget 0-29 --batch 30 --target-loss 1.5 --gate 100";

/// Runs `scrubjay WAY MODEL DELTA --out OUT`; what it must not leave where it is refused is the model.
fn refused(tiny: &Tiny, line: &str, words: &[&str]) {
    let run = tiny.run(line);
    assert!([1, 2].contains(&run.code), "{line}: {} {}", run.code, run.err);
    words.iter().for_each(|word| assert!(run.err.contains(word), "{line}: `{word}` is not in {}", run.err));
    assert!(!tiny.at("no/m.safetensors").exists(), "{line}");
}

#[test]
fn a_delta_makes_either_model_of_the_other() {
    let tiny = Tiny::new();
    assert_eq!(tiny.scrub(&format!("{SCRUB} --max-units 4 --delta-file both"), "both").code, 0);
    assert_eq!(tiny.scrub(&format!("{SCRUB} --max-units 4 --delta-file"), "new").code, 0);
    let bytes = |name: &str| std::fs::read(tiny.at(name)).unwrap();
    let (before, after) = (bytes("m.safetensors"), bytes("both/m.safetensors"));
    assert!(before != after && after == bytes("new/m.safetensors"));
    for delta in ["both", "new"] {
        let run =
            tiny.run(&format!("apply @m.safetensors @{delta}/delta.safetensors --out @applied-{delta}"));
        assert_eq!(run.code, 0, "{}", run.err);
        assert!(bytes(&format!("applied-{delta}/m.safetensors")) == after);
        let rows = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(rows.contains(" in ") && rows.contains(" rows of "), "{}", run.out);
    }
    // Four rows with their biases, twice with the old values: far less than the model.
    assert!(bytes("new/delta.safetensors").len() < bytes("both/delta.safetensors").len());
    let run = tiny.run("revert @both/m.safetensors @both/delta.safetensors --out @back");
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(bytes("back/m.safetensors") == before);

    let revert = "revert @both/m.safetensors @new/delta.safetensors --out @no";
    refused(&tiny, revert, &["delta.safetensors", "no old values", "--delta-file"]);
    let other = "apply @both/m.safetensors @both/delta.safetensors --out @no";
    refused(&tiny, other, &["m.safetensors", "is not the model", "the one that this would make"]);
    refused(
        &tiny,
        "apply @m.safetensors @train.safetensors --out @no",
        &["train.safetensors", "is no delta"],
    );
    refused(&tiny, "apply @m.safetensors @both/delta.safetensors --out @.", &["--out"]);
    // A delta whose values were changed makes another model, and none is left.
    let mut damaged = bytes("both/delta.safetensors");
    let header = u64::from_le_bytes(damaged[..8].try_into().unwrap()) as usize;
    for at in [8 + header + 1, damaged.len() - 2] {
        damaged[at] ^= 0x11;
        std::fs::write(tiny.at("damaged.safetensors"), &damaged).unwrap();
        refused(&tiny, "apply @m.safetensors @damaged.safetensors --out @no", &["damaged.safetensors"]);
    }
}
