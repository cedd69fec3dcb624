//! Arrows point one way: `cli → session → unlearn → stages → net, zoo, codec, checkpoint, data → ops → device`. Reads the
//! `crate::` and `scrubjay::` paths of every source file and fails on one that points up, and on a file without a
//! level.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The level of every module; a module uses those of its own level or below, and a stage no other stage but its types.
const LEVELS: &[(u32, &[&str])] = &[
    (0, &["error", "names"]),
    (1, &["device"]),
    (2, &["ops"]),
    (3, &["data", "net", "checkpoint", "codec", "zoo", "manifest", "hash"]),
    (
        4,
        &[
            "perturb",
            "observe",
            "select",
            "block",
            "curvature",
            "kfac",
            "solve",
            "operator",
            "update",
            "verify",
        ],
    ),
    (
        5,
        &[
            "task",
            "target",
            "newton",
            "repair",
            "audit",
            "batch",
            "outcome",
            "receipt",
            "unlearn",
            "train",
            "bench",
            "comparison",
        ],
    ),
    (6, &["options", "session", "request", "estimate", "identity", "run", "ffi", "report"]),
    (7, &["cli", "main", "lib"]),
];

/// Modules that may be used beside their level: the one on the right by the one on the left.
const BESIDE: &[(&str, &str)] = &[];

fn level(module: &str) -> Option<u32> {
    LEVELS.iter().find(|(_, modules)| modules.contains(&module)).map(|&(level, _)| level)
}

/// Every source file with the module at the top of the tree that it belongs to.
fn files(dir: &Path, top: Option<&str>, found: &mut Vec<(String, PathBuf)>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_string();
        let module = top.map_or(stem, str::to_string);
        if path.is_dir() {
            files(&path, Some(&module), found);
        } else {
            found.push((module, path));
        }
    }
}

/// The modules that a text names after `crate::` or `scrubjay::`, tests left out.
fn used(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or("");
    let mut names = Vec::new();
    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for prefix in ["crate::", "scrubjay::"] {
            for (at, _) in line.match_indices(prefix) {
                let rest = &line[at + prefix.len()..];
                let inside = rest.strip_prefix('{').map_or(rest, |list| list.split('}').next().unwrap_or(""));
                let single = !rest.starts_with('{');
                for part in inside.split(',').take(if single { 1 } else { usize::MAX }) {
                    let name: String =
                        part.trim().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                    names.extend((!name.is_empty()).then_some(name));
                }
            }
        }
    }
    names
}

#[test]
fn no_arrow_points_up() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, None, &mut all);
    let mut wrong = BTreeMap::new();
    for (module, path) in all {
        let own = level(&module).unwrap_or_else(|| panic!("{} has no level", path.display()));
        for name in used(&fs::read_to_string(&path).unwrap()) {
            if level(&name).is_some_and(|level| level > own) && !BESIDE.contains(&(&*module, &*name)) {
                wrong.insert(format!("{} uses {name}", path.display()), ());
            }
        }
    }
    assert!(wrong.is_empty(), "{:#?}", wrong.keys());
}

#[test]
fn paths_are_read() {
    let text = "use crate::{net, Error};\nuse crate::ops::gemm;\n// crate::cli\nlet x = crate::solve::cg();\n#[cfg(test)]\nuse crate::cli;";
    assert_eq!(used(text), ["net", "ops", "solve"]);
}
