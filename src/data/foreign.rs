//! Recognises, by its first bytes, a file of another kind than was expected, and names the remedy.

use super::file::StoredFile;
use crate::error::{Error, Result};

/// How many first bytes [`kind`] goes by.
pub const KNOWN_BY: u64 = 512;

/// What a download may leave in place of a file, by its first bytes in any case.
const STAND_INS: [(&[u8], &str); 3] = [
    (b"version https://git-lfs", "a pointer of Git LFS and not the file itself; `git lfs pull` fetches that"),
    (b"<!doctype html", "an HTML page; the download gave a page and not the file"),
    (b"<html", "an HTML page; the download gave a page and not the file"),
];

/// First bytes, and what a file is that begins so.
const KINDS: [(&[u8], &str); 5] = [
    (b"PK\x03\x04", "a zip archive, as torch.save and numpy.savez write them"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b\x08", "compressed by gzip; gunzip it"),
];

/// What a file is that a download left in place of the one that was wanted; none of any other file.
pub fn stand_in(start: &[u8]) -> Option<&'static str> {
    let text = start.trim_ascii_start();
    let begins = |first: &[u8]| text.get(..first.len()).is_some_and(|text| text.eq_ignore_ascii_case(first));
    STAND_INS.iter().find(|(first, _)| begins(first)).map(|(_, kind)| *kind)
}

/// Refuses a file that a download left in place of another.
///
/// # Errors
/// Where it is one, or cannot be read.
pub fn check(file: &StoredFile) -> Result<()> {
    match stand_in(&file.read(0..file.len().min(KNOWN_BY))?) {
        None => Ok(()),
        Some(kind) => Err(Error::data(file.path(), format!("is {kind}"))),
    }
}

/// What a file is by its first bytes; none where they tell nothing.
pub fn kind(start: &[u8]) -> Option<&'static str> {
    let known = KINDS.iter().find(|(first, _)| start.starts_with(first));
    match known {
        _ if stand_in(start).is_some() => stand_in(start),
        Some((_, kind)) => Some(kind),
        None if is_pickle(start) => Some("a Python pickle"),
        None if start.get(257..262) == Some(b"ustar") => Some("a tar archive; unpack it"),
        None => None,
    }
}

/// What a file is by its first bytes where numbers were expected: [`kind`], or text.
pub fn kind_or_text(start: &[u8]) -> Option<&'static str> {
    kind(start).or_else(|| is_text(start).then_some("a text file"))
}

/// Whether first bytes are letters; the last one may be cut off.
fn is_text(start: &[u8]) -> bool {
    let whole = match std::str::from_utf8(start) {
        Err(cut) if cut.error_len().is_none() => std::str::from_utf8(&start[..cut.valid_up_to()]),
        other => other,
    };
    whole.is_ok_and(|text| !text.is_empty() && !text.chars().any(|c| c.is_control() && !c.is_whitespace()))
}

/// Whether a file begins as a pickle of protocol 2 to 5 does. The third byte tells it from the length of a safetensors
/// header that happens to begin so.
pub fn is_pickle(start: &[u8]) -> bool {
    matches!(start, [0x80, 2..=5, next, ..] if *next != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        for (start, word) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0"[..], "git lfs pull"),
            (b"\n  <!DOCTYPE html><html>", "HTML"),
            (b"PK\x03\x04\x00", "zip"),
            (b"\x80\x04\x95", "pickle"),
        ] {
            assert!(kind(start).is_some_and(|kind| kind.contains(word)), "{word}");
        }
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(kind(&tar).is_some_and(|kind| kind.contains("tar")));
        assert_eq!(kind(b"{\"a\": 1}"), None);
        assert_eq!(kind(b""), None);
    }
}
