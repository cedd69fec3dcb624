//! The demo, as a newcomer runs it: hold and L-CODEC forget, the rest stays, and a random block of the same size at the same
//! loss of the forgotten does more damage. The five-seed table is in docs/MEASUREMENTS.md.

#![allow(clippy::expect_used)] // helpers of tests

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn demo(out: &Path, options: &[&str]) -> Value {
    let run = Command::new(env!("CARGO_BIN_EXE_scrubjay"))
        .args(["demo", "--json", "--device", "cpu", "--out"])
        .arg(out)
        .args(options)
        .output()
        .expect("the binary runs");
    let errors = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{errors}");
    serde_json::from_slice(&run.stdout).expect("stdout is the JSON alone")
}

fn number(report: &Value, row: &str, key: &str) -> f64 {
    let rows = report["rows"].as_array().expect("rows");
    let row = rows.iter().find(|r| r["name"] == row).expect("a row of that name");
    row[key].as_f64().expect("a number")
}

#[test]
fn wrong_labels_are_forgotten_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut voted = 0.0;
    let mut random = 0.0;
    for seed in ["0", "1"] {
        let report = demo(folder.path(), &["--seed", seed]);
        let of = |row, key| number(&report, row, key);
        assert_eq!(of("original", "forget_accuracy"), 1.0, "the wrong labels were memorised");
        assert!(of("retrained", "forget_accuracy") <= 0.08);
        for row in ["hold", "L-CODEC"] {
            assert!(of(row, "forget_accuracy") <= 0.1, "{row}: {}", of(row, "forget_accuracy"));
            assert!(of(row, "forget_accuracy_true_labels") >= 0.8, "{row}");
            assert!(of(row, "retain_accuracy") >= 0.995, "{row}");
            assert!(of(row, "test_accuracy") >= of("original", "test_accuracy") - 0.01, "{row}");
        }
        // Most of the way to the retrained network's loss, and not far beyond it.
        let way = (of("L-CODEC", "forget_loss") - of("original", "forget_loss"))
            / (of("retrained", "forget_loss") - of("original", "forget_loss"));
        assert!((0.75..1.25).contains(&way), "{way} of the way");
        assert!(of("L-CODEC", "retain_accuracy") >= of("random block", "retain_accuracy"));
        assert_eq!(report["hold"]["account"]["epochs"]["proxy"], 4);
        voted += of("L-CODEC", "retain_loss");
        random += of("random block", "retain_loss");
    }
    assert!(voted < random, "retained loss {voted} against {random} of random blocks");
    for file in ["before/model.safetensors", "after/model.safetensors", "after/config.json", "report.json"] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
    let inspected = Command::new(env!("CARGO_BIN_EXE_scrubjay"))
        .args(["inspect", "--json", "--model"])
        .arg(folder.path().join("after"))
        .output()
        .unwrap();
    assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stderr));
}

#[test]
fn ordinary_samples_can_be_removed_too() {
    let folder = tempfile::tempdir().unwrap();
    let report = demo(folder.path(), &["--clean"]);
    for row in ["hold", "L-CODEC"] {
        assert!(number(&report, row, "retain_accuracy") >= 0.99, "{row}");
        assert!(number(&report, row, "forget_loss") > number(&report, "original", "forget_loss"), "{row}");
    }
}
