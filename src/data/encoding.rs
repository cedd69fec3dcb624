//! Files of text as UTF-8: unpacked, without a byte order mark; UTF-16 with one is converted.

use std::path::Path;

use super::foreign;
use super::tensors::read_unzipped;
use crate::error::{Error, Result};

/// The bytes of a file of text, which are UTF-8.
///
/// # Errors
/// Where the file cannot be read, begins as UTF-16 and is not, or is not UTF-8; the message names the line.
pub(super) fn read_text(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = read_unzipped(path)?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    let from: fn([u8; 2]) -> u16 = match bytes.get(..2) {
        Some([0xff, 0xfe]) => u16::from_le_bytes,
        Some([0xfe, 0xff]) => u16::from_be_bytes,
        _ => {
            check(path, &bytes)?;
            return Ok(bytes);
        }
    };
    let (units, rest) = bytes[2..].as_chunks::<2>();
    let text = String::from_utf16(&units.iter().map(|&unit| from(unit)).collect::<Vec<_>>());
    match text {
        Ok(text) if rest.is_empty() => Ok(text.into_bytes()),
        _ => Err(Error::data(path, "begins as UTF-16 text and is not; save it as UTF-8")),
    }
}

/// Refuses bytes that are not UTF-8.
fn check(path: &Path, bytes: &[u8]) -> Result<()> {
    let Err(error) = std::str::from_utf8(bytes) else { return Ok(()) };
    if let Some(kind) = foreign::kind(bytes) {
        return Err(Error::data(path, format!("is {kind}, and not text")));
    }
    let (before, rest) = bytes.split_at(error.valid_up_to());
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let reason = format!(
        "is not UTF-8: byte {:#04x} (Latin-1 or Windows-1252?); save the file as UTF-8, as by `iconv -f latin1 -t utf-8`",
        rest.first().copied().unwrap_or_default()
    );
    Err(Error::record(path, format!("line {line}"), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.txt");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_text(&path)
        };
        assert_eq!(read(b"a,b").unwrap(), b"a,b");
        assert_eq!(read(b"\xef\xbb\xbfa,b").unwrap(), b"a,b");
        assert_eq!(read(b"\xff\xfea\0\xac\x20").unwrap(), "a€".as_bytes());
        assert_eq!(read(b"\xfe\xff\0a\x20\xac").unwrap(), "a€".as_bytes());
        assert!(read(b"\xff\xfea").unwrap_err().to_string().contains("UTF-16"));
        assert!(read(b"\xff\xfe\0\xd8").is_err());
        let error = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        let latin = error(b"a,b\nc,caf\xe9\n");
        assert!(
            latin.contains("t.txt: line 2: is not UTF-8: byte 0xe9") && latin.contains("iconv"),
            "{latin}"
        );
        assert!(error(b"\x93NUMPY\x01").contains("array of NumPy, and not text"));
    }
}
