//! The sources keep the order that docs/ARCHITECTURE.md promises: every module has a level and uses nothing above it, no
//! file uses itself through others, a stage uses other stages' types but calls none of their functions, and files and
//! functions are short.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

mod sources;

use std::collections::BTreeSet;

use sources::{Sources, sources};

/// The most lines of a file below src/, and of a function there.
const FILE: usize = 500;
const FUNCTION: usize = 80;

/// Modules by level; a module uses those of its own level or below.
const LEVELS: &[&[&str]] = &[
    &["error", "names"],
    &["device", "communicator"],
    &["ops"],
    &["loss"],
    &["data", "net", "checkpoint", "codec", "graph", "onnx", "zoo", "manifest", "hash", "solve", "pickle"],
    STAGES,
    &[
        "task",
        "target",
        "evidence",
        "newton",
        "soft_label",
        "stage",
        "clock",
        "proxy",
        "hold",
        "moving",
        "audit",
        "batch",
        "outcome",
        "receipt",
        "unlearn",
        "train",
        "bench",
        "comparison",
        "relearn",
    ],
    &[
        "options",
        "session",
        "request",
        "budget",
        "doubt",
        "memory",
        "estimate",
        "identity",
        "run",
        "verification",
        "report",
        "training",
        "inspection",
    ],
    &["queue"],
    &["cli", "main", "lib"],
];

const STAGES: &[&str] =
    &["perturb", "observe", "select", "block", "curvature", "kfac", "operator", "update", "verify"];

/// The module at the top of a file's path.
fn top(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

/// The arrows that lie on a circle.
fn on_circles<'a>(arrows: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let leads = |from: &str, to: &str| {
        let (mut seen, mut open) = (BTreeSet::from([from.to_string()]), vec![from.to_string()]);
        while let Some(at) = open.pop() {
            let next = arrows.iter().filter(|(from, _)| *from == at).map(|(_, to)| (*to).to_string());
            open.extend(next.filter(|next| seen.insert(next.clone())).collect::<Vec<_>>());
        }
        seen.contains(to)
    };
    arrows.iter().copied().filter(|(from, to)| leads(to, from)).collect()
}

/// The functions of a source in the usual format, with their lines.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = vec![];
    for (i, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| *word == "fn") else { continue };
        let qualifies =
            |word: &&str| word.starts_with("pub") || ["const", "unsafe", "extern", "\"C\""].contains(word);
        if !words[..at].iter().all(qualifies) || line.ends_with([';', '}']) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let count = lines[i..].iter().position(|line| *line == end).map_or(0, |end| end + 1);
        let name = words.get(at + 1).and_then(|name| name.split(['(', '<']).next()).unwrap_or_default();
        found.push((name.to_string(), count));
    }
    found
}

#[test]
fn every_module_has_a_level_and_no_arrow_points_up() {
    let (texts, sources) = sources();
    let arrows = sources.arrows();
    let files: Vec<&str> = texts.iter().map(|(file, _)| file.as_str()).collect();
    let level = |file: &str| LEVELS.iter().position(|modules| modules.contains(&top(file)));
    let unknown: Vec<_> = files.iter().filter(|file| level(file).is_none()).collect();
    assert!(unknown.is_empty(), "without a level: {unknown:?}");
    let gone =
        LEVELS.iter().copied().flatten().find(|module| !files.iter().any(|file| top(file) == **module));
    assert_eq!(gone, None, "there is no such module");
    let up: Vec<_> = arrows.keys().filter(|(from, to)| level(to) > level(from)).collect();
    assert!(up.is_empty(), "{up:#?}");
}

#[test]
fn no_file_uses_itself_through_others() {
    let arrows = sources().1.arrows();
    let arrows: Vec<(&str, &str)> = arrows.keys().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let circles = on_circles(&arrows);
    assert!(circles.is_empty(), "on a circle: {circles:#?}");
}

#[test]
fn the_library_takes_nothing_from_its_front_page() {
    let (_, sources) = sources();
    let found = sources.through_the_root();
    assert!(found.is_empty(), "take these from the file that has them: {found:#?}");
}

#[test]
fn a_stage_calls_no_function_of_another() {
    let arrows = sources().1.arrows();
    let mut calls = BTreeSet::new();
    for ((from, to), items) in &arrows {
        if top(from) != top(to) && STAGES.contains(&top(from)) && STAGES.contains(&top(to)) {
            let functions =
                items.iter().filter(|item| item.starts_with(|c: char| c.is_lowercase() || c == '*'));
            calls.extend(functions.map(|item| (top(from).to_string(), format!("{}::{item}", top(to)))));
        }
    }
    assert!(calls.is_empty(), "{calls:#?}");
}

#[test]
fn files_and_functions_are_short() {
    let (texts, _) = sources();
    let mut long = vec![];
    for (file, text) in &texts {
        let lines = text.lines().count();
        long.extend((lines > FILE).then(|| format!("{file}: {lines} lines")));
        let over = functions(text).into_iter().filter(|(_, lines)| *lines > FUNCTION);
        long.extend(over.map(|(name, lines)| format!("{file}: {name} has {lines} lines")));
    }
    assert!(long.is_empty(), "{long:#?}");
    let text = "pub(super) fn one<T>() {\n    fn two();\n    const fn three(\n    ) {\n    }\n}\n// a fn\n";
    assert_eq!(functions(text), [("one".to_string(), 6), ("three".to_string(), 3)]);
}

#[test]
fn paths_lead_to_the_files_that_define_them() {
    let texts = [
        ("lib.rs", "mod error; pub use error::{Error, Result}; pub mod a; pub mod b;"),
        ("error.rs", "pub struct Error;"),
        (
            "a/mod.rs",
            "mod one; mod two; pub use one::One; use crate::b as other; fn f(_: One) { two::g(); other::h() }",
        ),
        (
            "a/one.rs",
            "use super::two::{self, Two}; use crate::{Error, b::{B as C, deep::D}}; // use crate::x\n",
        ),
        (
            "a/two.rs",
            "#[cfg(test)] mod tests { use crate::b::B; }\nfn g(x: &'static str) { \"crate::b\"; super::One }",
        ),
        ("b/mod.rs", "pub mod deep; mod inner { use super::super::a::One; } #[cfg(test)] use crate::a;"),
        (
            "b/deep.rs",
            "#[cfg(not(test))] use crate::Result; #[cfg(all(test, unix))] const X: [u8; 1] = {1}; use super::B;",
        ),
    ];
    let texts: Vec<_> = texts.map(|(file, text)| (file.to_string(), text.to_string())).into();
    let sources = Sources::new(&texts);
    let found: Vec<String> = sources
        .arrows()
        .iter()
        .map(|((from, to), items)| {
            format!("{from} > {to} {}", items.iter().cloned().collect::<Vec<_>>().join(" "))
        })
        .collect();
    let expected = [
        "a/mod.rs > a/one.rs One",
        "a/mod.rs > a/two.rs g",
        "a/mod.rs > b/mod.rs h",
        "a/one.rs > a/two.rs Two",
        "a/one.rs > b/deep.rs D",
        "a/one.rs > b/mod.rs B",
        "a/one.rs > error.rs Error",
        "a/two.rs > a/one.rs One",
        "b/deep.rs > b/mod.rs B",
        "b/deep.rs > error.rs Result",
        "b/mod.rs > a/one.rs One",
    ];
    assert_eq!(found, expected);
    assert_eq!(sources.through_the_root(), [("a/one.rs", "Error".into()), ("b/deep.rs", "Result".into())]);
    assert_eq!(on_circles(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]), [("b", "c"), ("c", "b")]);
}
