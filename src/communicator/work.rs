//! What a rank is to do, in words that ranks compare before they begin.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Of a longer file, so many bytes of its beginning and of its end are compared, and its length.
const PART: u64 = 1 << 20;
/// Files of a folder whose bytes are compared; of the others, names and lengths.
const FILES: usize = 64;

/// The program, its arguments and the files that these name, each with a name. Files that are written (those after the options
/// `written`) are left out: they need not be there on every rank.
pub fn work(arguments: &[OsString], written: &[&str]) -> Vec<(String, String)> {
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let program = std::env::current_exe().map_or_else(|_| "unknown".into(), |path| file(&path));
    let mut all = vec![
        ("scrubjay".to_string(), env!("CARGO_PKG_VERSION").to_string()),
        ("the program".to_string(), program),
        ("a processor".to_string(), processor()),
        ("the arguments".to_string(), words.join(" ")),
    ];
    let mut before = "";
    for word in &words {
        let (option, value) = word.split_once('=').unwrap_or((before, word));
        if !written.contains(&option) && !value.starts_with('-') {
            let path = Path::new(value.split('#').next().unwrap_or(value));
            let found = match (path.is_dir(), path.is_file()) {
                (true, _) => folder(path),
                (_, true) => file(path),
                (false, false) => "no file".into(),
            };
            all.push((format!("`{value}`:"), found));
        }
        before = word;
    }
    all
}

/// What the loops are compiled for: on another processor they have other roundings.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let found = {
        let has = [
            ("avx2", std::is_x86_feature_detected!("avx2")),
            ("fma", std::is_x86_feature_detected!("fma")),
            ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ];
        has.iter().filter(|(_, has)| *has).map(|(name, _)| format!(" {name}")).collect::<String>()
    };
    #[cfg(not(target_arch = "x86_64"))]
    let found = "";
    format!("{}{found}", std::env::consts::ARCH)
}

/// The length of a file and a hash of its bytes, or of its beginning and end.
fn file(path: &Path) -> String {
    let hashed = || -> std::io::Result<(u64, String)> {
        let mut file = File::open(path)?;
        let (len, mut hash) = (file.metadata()?.len(), Sha256::new());
        for start in [0, len.saturating_sub(PART)] {
            let mut part = vec![];
            file.seek(SeekFrom::Start(start))?;
            (&mut file).take(PART).read_to_end(&mut part)?;
            hash.update(part);
        }
        Ok((len, short(hash)))
    };
    hashed().map_or_else(|error| error.to_string(), |(len, hash)| format!("{len} bytes, hash {hash}"))
}

/// How many files a folder has, and a hash of their names and lengths, and of the first ones' bytes.
fn folder(path: &Path) -> String {
    let (mut files, mut open) = (vec![], vec![path.to_path_buf()]);
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let (folders, others): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
        open.extend(folders);
        files.extend(others);
    }
    files.sort();
    let mut hash = Sha256::new();
    for (i, one) in files.iter().enumerate() {
        let name = one.strip_prefix(path).unwrap_or(one).to_string_lossy().into_owned();
        let said = match i < FILES {
            true => file(one),
            false => std::fs::metadata(one).map_or_else(|e| e.to_string(), |meta| meta.len().to_string()),
        };
        hash.update(format!("{name}\n{said}\n"));
    }
    format!("{} files, hash {}", files.len(), short(hash))
}

fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes all
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_that_differ_in_a_byte_are_told_apart_and_outputs_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).into_os_string();
        std::fs::create_dir(at("model")).unwrap();
        std::fs::write(at("model/config.json"), "{}").unwrap();
        std::fs::write(at("data.csv"), vec![b'a'; 3 << 20]).unwrap();
        let [data, model, out] = ["data.csv", "model", "out"].map(at);
        let [train, for_data, for_model, for_out] =
            ["train", "--data", "--model", "--out"].map(OsString::from);
        let words = [train, for_data, data, for_model, model, for_out, out];
        let before = work(&words, &["--out"]);
        let changed = || {
            let now = work(&words, &["--out"]);
            let pairs = before.iter().zip(&now);
            pairs.filter(|(a, b)| a != b).map(|(a, _)| a.0.clone()).collect::<Vec<_>>()
        };
        assert!(changed().is_empty());
        std::fs::write(at("out"), "written").unwrap();
        assert!(changed().is_empty(), "an output counts");
        let mut bytes = vec![b'a'; 3 << 20];
        bytes[2 << 20 | 5] = b'b'; // within the last part
        std::fs::write(at("data.csv"), bytes).unwrap();
        assert!(changed().len() == 1 && changed()[0].contains("data.csv"));
        std::fs::write(at("model/config.json"), "[]").unwrap();
        assert!(changed().len() == 2 && changed()[1].contains("model"));
    }
}
