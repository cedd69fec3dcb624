//! The zip archives that torch.save writes: every entry stored, none compressed, so that a tensor's bytes lie in the
//! file as they are. Where bytes of an entry were changed, [`Zip::mend`] puts its new CRC-32 wherever the archive has it.
//!
//! An archive whose lists of entries and whose entries do not agree, or an entry of which is compressed or encrypted, is
//! refused. Archives beyond 4 GiB (zip64) are read.

use std::collections::BTreeMap;
use std::io::{Read, SeekFrom};
use std::ops::Range;

use crate::data::file::{Editable, StoredFile};
use crate::error::{Error, Result};

const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
/// The length of the end record without its comment, and of the longest comment.
const END_LENGTH: u64 = 22;
const LONGEST_COMMENT: u64 = 65_535;
/// The longest list of entries that is read; a model of a million tensors needs less.
const LONGEST_LIST: u64 = 1 << 28;

/// An entry of the list.
#[derive(Clone, Debug)]
struct Entry {
    flags: u16,
    method: u16,
    packed: u64,
    len: u64,
    /// Where its header is.
    header: u64,
    /// Where its line in the list is.
    line: u64,
}

/// An archive's list of entries.
#[derive(Debug)]
pub(super) struct Zip {
    entries: BTreeMap<String, Entry>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

fn damaged(file: &StoredFile, what: &str) -> Error {
    Error::checkpoint(file.path(), format!("is no whole zip archive: {what} (truncated?)"))
}

/// Where the list of entries is.
fn list(file: &StoredFile) -> Result<Range<u64>> {
    let lacking = || damaged(file, "its list of entries is not at its end");
    let tail_at = file.len().saturating_sub(END_LENGTH + LONGEST_COMMENT);
    let tail = file.read(tail_at..file.len())?;
    let ends = (0..(tail.len() + 1).saturating_sub(END_LENGTH as usize)).rev();
    let end = ends.into_iter().find(|&at| u32_at(&tail, at) == Some(END)).ok_or_else(lacking)?;
    let of_32 = || Some((u64::from(u32_at(&tail, end + 12)?), u64::from(u32_at(&tail, end + 16)?)));
    let (mut size, mut start) = of_32().ok_or_else(lacking)?;
    let locator = (tail_at + end as u64).checked_sub(20);
    if (size == u64::from(u32::MAX) || start == u64::from(u32::MAX))
        && let Some(at) = locator
    {
        let locator = file.read(at..at + 20)?;
        let at =
            u64_at(&locator, 8).filter(|_| u32_at(&locator, 0) == Some(LOCATOR_64)).ok_or_else(lacking)?;
        let record = file.read(at..at.saturating_add(56))?;
        let found = || Some((u64_at(&record, 40)?, u64_at(&record, 48)?));
        (size, start) = found().filter(|_| u32_at(&record, 0) == Some(END_64)).ok_or_else(lacking)?;
    }
    match start.checked_add(size).filter(|&end| end <= file.len() && size <= LONGEST_LIST) {
        Some(end) => Ok(start..end),
        None => Err(damaged(file, "its list of entries is longer than the file")),
    }
}

impl Zip {
    /// Reads the list of entries.
    ///
    /// # Errors
    /// Where there is none, it is damaged, or has a name twice.
    pub fn open(file: &StoredFile) -> Result<Zip> {
        let range = list(file)?;
        let bytes = file.read(range.clone())?;
        let (mut entries, mut at) = (BTreeMap::new(), 0);
        while at < bytes.len() {
            let lacking = || damaged(file, "its list of entries is damaged");
            let (name, entry, length) = line(&bytes[at..], range.start + at as u64).ok_or_else(lacking)?;
            if entries.insert(name.clone(), entry).is_some() {
                return Err(Error::checkpoint(file.path(), format!("has two entries `{name}`")));
            }
            at += length;
        }
        Ok(Zip { entries })
    }

    /// The names of the entries, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where the bytes of an entry are; none where there is no such entry.
    ///
    /// # Errors
    /// Where it is compressed or encrypted, or not where the list says.
    pub fn range(&self, file: &StoredFile, name: &str) -> Result<Option<Range<u64>>> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let refuse = |reason: &str| Err(Error::checkpoint(file.path(), format!("entry `{name}` {reason}")));
        if entry.flags & 1 != 0 {
            return refuse("is encrypted");
        }
        if entry.method != 0 || entry.packed != entry.len {
            return refuse("is compressed, which torch.save does not do; it stores its entries as they are");
        }
        let header = file.read(entry.header..entry.header.saturating_add(30).min(file.len()))?;
        let lengths = || Some(u64::from(u16_at(&header, 26)?) + u64::from(u16_at(&header, 28)?));
        let start = lengths()
            .filter(|_| u32_at(&header, 0) == Some(LOCAL))
            .and_then(|lengths| entry.header.checked_add(30 + lengths));
        let end = start.and_then(|start| start.checked_add(entry.len)).filter(|&end| end <= file.len());
        match start.zip(end) {
            Some((start, end)) => Ok(Some(start..end)),
            None => Err(damaged(file, &format!("entry `{name}` is not where its list says"))),
        }
    }

    /// Writes the CRC-32 of an entry's bytes into its headers, in a copy of the archive.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn mend(&self, file: &StoredFile, copy: &mut dyn Editable, name: &str) -> Result<()> {
        let (Some(entry), Some(range)) = (self.entries.get(name), self.range(file, name)?) else {
            return Ok(());
        };
        let crc = crc(copy, range.clone()).map_err(Error::io(file.path()))?;
        let old = file.read(entry.line + 16..entry.line + 20)?;
        let mut places = vec![entry.line + 16];
        // With this flag the sum stands behind the bytes, with or without a mark, and the header has it only sometimes.
        let behind = entry.flags & 8 != 0;
        let in_header = file.read(entry.header + 14..entry.header + 18)?;
        if !behind || in_header == old {
            places.push(entry.header + 14);
        }
        if behind {
            let after = file.read(range.end..range.end.saturating_add(8).min(file.len()))?;
            if u32_at(&after, 0) == Some(DESCRIPTOR) {
                places.push(range.end + 4);
            } else if after.get(..4) == Some(&old) {
                places.push(range.end);
            }
        }
        for place in places {
            copy.seek(SeekFrom::Start(place))
                .and_then(|_| copy.write_all(&crc.to_le_bytes()))
                .map_err(Error::io(file.path()))?;
        }
        Ok(())
    }
}

/// One line of the list: its name, the entry, and the line's length.
fn line(bytes: &[u8], at: u64) -> Option<(String, Entry, usize)> {
    if u32_at(bytes, 0)? != CENTRAL {
        return None;
    }
    let length = |at| u16_at(bytes, at).map(usize::from);
    let (name, extra, comment) = (length(28)?, length(30)?, length(32)?);
    let mut entry = Entry {
        flags: u16_at(bytes, 8)?,
        method: u16_at(bytes, 10)?,
        packed: u64::from(u32_at(bytes, 20)?),
        len: u64::from(u32_at(bytes, 24)?),
        header: u64::from(u32_at(bytes, 42)?),
        line: at,
    };
    let text = String::from_utf8(bytes.get(46..46 + name)?.to_vec()).ok()?;
    long_fields(&mut entry, bytes.get(46 + name..46 + name + extra)?)?;
    Some((text, entry, 46 + name + extra + comment))
}

/// Takes the fields that do not fit 32 bits from the block of kind 1 behind a name (zip64).
fn long_fields(entry: &mut Entry, mut extra: &[u8]) -> Option<()> {
    const LONG: u64 = u32::MAX as u64;
    let fields = [&mut entry.len, &mut entry.packed, &mut entry.header];
    if fields.iter().all(|field| **field != LONG) {
        return Some(());
    }
    while let (Some(kind), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let block = extra.get(4..4 + usize::from(length))?;
        if kind == 1 {
            let long = fields.into_iter().filter(|field| **field == LONG);
            for (i, field) in long.enumerate() {
                *field = u64_at(block, 8 * i)?;
            }
            return Some(());
        }
        extra = &extra[4 + usize::from(length)..];
    }
    None
}

/// The CRC-32 of a range.
fn crc(file: &mut dyn Editable, range: Range<u64>) -> std::io::Result<u32> {
    file.seek(SeekFrom::Start(range.start))?;
    let mut rest = file.take(range.end - range.start);
    let (mut sum, mut buffer) = (flate2::Crc::new(), vec![0; 1 << 16]);
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok(sum.sum()),
            n => sum.update(&buffer[..n]),
        }
    }
}
