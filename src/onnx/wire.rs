//! Protocol Buffers' wire format: the fields of a message, by number, with the places of their contents and not the
//! contents. Whatever the bytes are, a message is read in bounded memory: fields are counted, lengths are checked against
//! the message that they are in, and nothing is read ahead of that.

use std::ops::Range;

use crate::data::file::StoredFile;
use crate::error::{Error, Result};

/// The most fields that a message may have.
const MOST_FIELDS: usize = 1 << 22;
/// The longest text, and the most small numbers, that are read.
const LONGEST: u64 = 1 << 24;
/// How many bytes are read at once.
const WINDOW: u64 = 1 << 16;

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Number(u64),
    Fixed32(u32),
    Fixed64(u64),
    /// A text, a message, or numbers one behind the other.
    Bytes(Range<u64>),
}

/// A field's number and content.
pub(super) type Field = (u64, Content);

/// A reader of a file.
pub(super) struct Wire<'a> {
    pub file: &'a StoredFile,
    window: Vec<u8>,
    start: u64,
}

impl<'a> Wire<'a> {
    pub fn new(file: &'a StoredFile) -> Wire<'a> {
        Wire { file, window: vec![], start: 0 }
    }

    /// The refusal of what is no message.
    pub fn damaged(&self, at: u64, what: &str) -> Error {
        Error::checkpoint(self.file.path(), format!("is no readable ONNX file: byte {at}: {what}"))
    }

    fn byte(&mut self, at: u64) -> Result<u8> {
        let inside =
            |wire: &Wire| at.checked_sub(wire.start).and_then(|i| wire.window.get(i as usize).copied());
        if let Some(byte) = inside(self) {
            return Ok(byte);
        }
        self.window = self.file.read(at..at.saturating_add(WINDOW).min(self.file.len()))?;
        self.start = at;
        inside(self).ok_or_else(|| self.damaged(at, "the file ends here (truncated?)"))
    }

    /// A number of variable length, and where it ends.
    fn varint(&mut self, at: u64, end: u64) -> Result<(u64, u64)> {
        let mut number = 0;
        for i in 0..10 {
            if at + i >= end {
                return Err(self.damaged(at, "a number goes on beyond its message"));
            }
            let byte = self.byte(at + i)?;
            number |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Ok((number, at + i + 1));
            }
        }
        Err(self.damaged(at, "a number has more than 64 bits"))
    }

    /// The fields of the message at `range`.
    pub fn fields(&mut self, range: Range<u64>) -> Result<Vec<Field>> {
        let (mut fields, mut at, end) = (vec![], range.start, range.end);
        while at < end {
            let (key, content) = self.varint(at, end)?;
            let fixed = |length: u64| match content.checked_add(length) {
                Some(next) if next <= end => Ok(next),
                _ => Err(()),
            };
            let short = "a field goes on beyond its message";
            let (value, next) = match key & 7 {
                0 => {
                    let (number, next) = self.varint(content, end)?;
                    (Content::Number(number), next)
                }
                1 => {
                    let next = fixed(8).map_err(|()| self.damaged(at, short))?;
                    let bytes = self.file.read(content..next)?;
                    (Content::Fixed64(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))), next)
                }
                2 => {
                    let (length, start) = self.varint(content, end)?;
                    let next = start.checked_add(length).filter(|&next| next <= end);
                    let next = next.ok_or_else(|| self.damaged(at, short))?;
                    (Content::Bytes(start..next), next)
                }
                5 => {
                    let next = fixed(4).map_err(|()| self.damaged(at, short))?;
                    let bytes = self.file.read(content..next)?;
                    (Content::Fixed32(bytes.iter().rev().fold(0, |n, &b| n << 8 | u32::from(b))), next)
                }
                other => return Err(self.damaged(at, &format!("a field of kind {other}"))),
            };
            if fields.len() == MOST_FIELDS {
                return Err(self.damaged(at, "a message of too many fields"));
            }
            fields.push((key >> 3, value));
            at = next;
        }
        Ok(fields)
    }

    /// The bytes of a range, which may not be long.
    pub fn bytes(&mut self, range: &Range<u64>) -> Result<Vec<u8>> {
        match range.end - range.start <= LONGEST {
            true => self.file.read(range.clone()),
            false => Err(self.damaged(range.start, "a text or list is too long")),
        }
    }

    /// A text.
    pub fn text(&mut self, content: &Content) -> Result<String> {
        let Content::Bytes(range) = content else { return Err(self.damaged(0, "a text was expected")) };
        let bytes = self.bytes(range)?;
        String::from_utf8(bytes).map_err(|_| self.damaged(range.start, "a text is not UTF-8"))
    }

    /// The numbers of a field, which holds one or many.
    pub fn numbers(&mut self, content: &Content) -> Result<Vec<i64>> {
        match content {
            Content::Number(number) => Ok(vec![*number as i64]),
            Content::Bytes(range) if range.end - range.start <= LONGEST => {
                let (mut numbers, mut at) = (vec![], range.start);
                while at < range.end {
                    let (number, next) = self.varint(at, range.end)?;
                    numbers.push(number as i64);
                    at = next;
                }
                Ok(numbers)
            }
            Content::Bytes(range) => Err(self.damaged(range.start, "a list is too long")),
            _ => Err(self.damaged(0, "whole numbers were expected")),
        }
    }

    /// The floats of a field, which holds one or many.
    pub fn floats(&mut self, content: &Content) -> Result<Vec<f32>> {
        match content {
            Content::Fixed32(bits) => Ok(vec![f32::from_bits(*bits)]),
            Content::Bytes(range) => {
                let bytes = self.bytes(range)?;
                Ok(bytes.as_chunks().0.iter().map(|&float| f32::from_le_bytes(float)).collect())
            }
            _ => Err(self.damaged(0, "floats were expected")),
        }
    }
}
