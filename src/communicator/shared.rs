//! What the ranks say to one another: how an exchange opens, how it fails, and how they part.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::transport::Transport;
use crate::error::{Error, Result};

/// What the clones of a rank's communicator share.
pub(super) struct Shared {
    pub transport: Box<dyn Transport>,
    /// Whether this rank does something that the others do not.
    pub by_itself: AtomicBool,
    /// Whether a rank has left.
    pub parted: AtomicBool,
    received: AtomicU64,
    exchanges: AtomicU64,
}

/// What a rank's opening says it is about to do.
#[derive(Clone, Copy, PartialEq)]
#[repr(u64)]
pub(super) enum Next {
    Gather,
    Exchange,
    /// It failed, and says why.
    Failed,
    /// It is at its end, with an exit code.
    Leave,
}

/// How all ranks ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// The exit code of the first rank that failed, else of rank 0.
    pub code: u8,
    /// Where a rank failed, why: in the words of rank 0 if it did too, else of the first that did.
    pub why: Option<String>,
}

impl Shared {
    /// Over a way to exchange bytes.
    pub fn over(transport: Box<dyn Transport>) -> Shared {
        let (by_itself, parted) = (AtomicBool::new(false), AtomicBool::new(false));
        Shared { transport, by_itself, parted, received: AtomicU64::new(0), exchanges: AtomicU64::new(0) }
    }

    /// Bytes received, and exchanges.
    pub fn traffic(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.exchanges.load(Ordering::Relaxed))
    }

    /// Says goodbye, once; see [`super::Communicator::leave`].
    pub fn leave(&self, code: u8, why: Option<String>) -> Option<Farewell> {
        let words = told(code, why.as_deref());
        let openings = self.transport.openings([Next::Leave as u64, 0, words.len() as u64]).ok()?;
        let lens: Vec<usize> = openings.iter().map(words_of).collect();
        let all = self.transport.gather(&words, &lens).ok()?;
        if openings.iter().any(|opening| opening[0] != Next::Leave as u64) {
            return Some(Farewell { code, why }); // the others learned of it in a seam
        }
        let all: Vec<(u8, Option<String>)> = all.iter().map(|words| heard(words)).collect();
        let failed = all.iter().enumerate().find_map(|(rank, (code, why))| Some((rank, *code, why.clone()?)));
        Some(match failed {
            Some((0, code, why)) => Farewell { code, why: Some(why) },
            Some((rank, code, why)) => Farewell { code, why: Some(format!("rank {rank}: {why}")) },
            None => Farewell { code: all[0].0, why: None },
        })
    }

    /// Opens an exchange with a value or a failure; returns the value and every rank's `len`.
    pub fn open<T>(&self, next: Next, mine: Result<T>, len: impl Fn(&T) -> usize) -> Result<(T, Vec<usize>)> {
        if self.parted.load(Ordering::Relaxed) {
            return Err(mine.err().unwrap_or_else(|| failure("ranks", "another one has ended before")));
        }
        let words = mine.as_ref().err().map_or(vec![], |error| told(kind(error), Some(&error.to_string())));
        let opening = match &mine {
            Ok(mine) => [next as u64, 0, len(mine) as u64],
            Err(_) => [Next::Failed as u64, 0, words.len() as u64],
        };
        let openings = self.transport.openings(opening)?;
        if openings.iter().all(|opening| opening[0] == next as u64) {
            let lens = openings.iter().map(|opening| opening[2] as usize).collect();
            return mine.map(|mine| (mine, lens));
        }
        let ends = |opening: &[u64; 3]| opening[0] == Next::Leave as u64;
        self.parted.fetch_or(openings.iter().any(ends), Ordering::Relaxed);
        let lens: Vec<usize> = openings.iter().map(words_of).collect();
        let all = self.transport.gather(&words, &lens)?;
        let first = all.iter().enumerate().find_map(|(rank, words)| Some((rank, heard(words).1?, words[0])));
        Err(mine.err().unwrap_or_else(|| match first {
            Some((_, why, INTERRUPTED)) => Error::Interrupted { kept: why },
            Some((rank, why, CONFIG)) => Error::config(format!("rank {rank}: {why}")),
            Some((rank, why, _)) => failure(format!("rank {rank}"), why),
            None => disagree(openings.iter().position(|opening| opening[0] != next as u64).unwrap_or(0)),
        }))
    }

    /// Counts what came from others.
    pub fn count(&self, found: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let others = found.iter().enumerate().filter(|(rank, _)| *rank != self.transport.rank());
        self.received.fetch_add(others.map(|(_, bytes)| bytes.len() as u64).sum(), Ordering::Relaxed);
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        Ok(found)
    }
}

/// Kinds of errors that stay what they are on other ranks: they decide how a run ends.
const INTERRUPTED: u8 = 10;
const CONFIG: u8 = 8;

fn kind(error: &Error) -> u8 {
    error.code() as u8
}

/// How many bytes of words follow an opening where a rank failed or left.
fn words_of(opening: &[u64; 3]) -> usize {
    let speaks = opening[0] == Next::Failed as u64 || opening[0] == Next::Leave as u64;
    if speaks { opening[2] as usize } else { 0 }
}

/// A number, and words where there are any.
fn told(number: u8, why: Option<&str>) -> Vec<u8> {
    let mut words = vec![number, u8::from(why.is_some())];
    words.extend(why.unwrap_or_default().as_bytes());
    words
}

fn heard(words: &[u8]) -> (u8, Option<String>) {
    match words {
        [number, 1, why @ ..] => (*number, Some(String::from_utf8_lossy(why).into_owned())),
        [number, ..] => (*number, None),
        [] => (0, None),
    }
}

pub(super) fn failure(op: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Device { op: op.into(), reason: reason.into() }
}

/// That a rank does something else than the others.
pub(super) fn disagree(rank: usize) -> Error {
    failure("ranks", format!("rank {rank} is not where the others are in the program"))
}

/// A value as it is sent.
pub(super) fn text<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| failure("ranks", e.to_string()))
}

/// A value that was sent.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|e| failure("ranks", e.to_string()))
}
