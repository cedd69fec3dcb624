//! README's own flow works as it stands: the commands of the sections below, pasted line by line into a shell in an empty
//! folder.

use std::process::Command;

const README: &str = include_str!("../README.md");

/// The sections that are run. Others have commands on files that a reader brings.
const SECTIONS: [&str; 1] = ["Every step on digits"];

/// The indented blocks of a section, as shell commands: a backslash goes on with the line.
fn commands(section: &str) -> Vec<String> {
    let start = README.find(&format!("## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let text = README[start + 3..].split("\n## ").next().unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    let whole = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    whole.lines().map(String::from).collect()
}

#[test]
fn the_flow_works_when_it_is_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_scrubjay")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(program.to_path_buf())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let path = path.unwrap();
    for command in SECTIONS.iter().flat_map(|section| commands(section)) {
        assert!(command.starts_with("scrubjay "), "{command}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).current_dir(&folder).env("PATH", &path).env("CUDA_VISIBLE_DEVICES", "");
        let done = shell.output().unwrap();
        let error = String::from_utf8_lossy(&done.stderr);
        // Where verify raises a flag, it ends with 3.
        let codes: &[i32] = if command.contains(" verify ") { &[0, 3] } else { &[0] };
        assert!(done.status.code().is_some_and(|code| codes.contains(&code)), "{command}\n{error}");
    }
    for file in ["scrubbed/report.html", "verify.html"] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
}
