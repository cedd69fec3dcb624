//! Files of text as UTF-8: unpacked, without a byte order mark; UTF-16 with one is converted.

use std::path::Path;

use super::tensors::read_unzipped;
use crate::error::{Error, Result};

/// The bytes of a file of text. Whether they are UTF-8 is left to the reader, who knows the line.
///
/// # Errors
/// Where the file cannot be read, or begins as UTF-16 and is not.
pub(super) fn read_text(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = read_unzipped(path)?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    let from: fn([u8; 2]) -> u16 = match bytes.get(..2) {
        Some([0xff, 0xfe]) => u16::from_le_bytes,
        Some([0xfe, 0xff]) => u16::from_be_bytes,
        _ => return Ok(bytes),
    };
    let (units, rest) = bytes[2..].as_chunks::<2>();
    let text = String::from_utf16(&units.iter().map(|&unit| from(unit)).collect::<Vec<_>>());
    match text {
        Ok(text) if rest.is_empty() => Ok(text.into_bytes()),
        _ => Err(Error::data(path, "begins as UTF-16 text and is not; save it as UTF-8")),
    }
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
    }
}
