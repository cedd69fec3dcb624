//! Copies of a sequence with some tokens replaced at random, on the CPU or on CUDA: the same ids.
//!
//! The perturbation of text: what noise is on images. Of the attended tokens, the first (`[CLS]`) and the last (`[SEP]`) stay;
//! `count` of the others, or all where there are fewer, get another id, all ordinary ids being equally likely. Copy j
//! depends on (seed, index, j) only: which tokens is Floyd's sampling without replacement, a Philox block per token.
#![allow(unsafe_code)] // a launch

use std::ops::Range;

use rayon::prelude::*;

use super::same;
use crate::device::Device;
use crate::device::cuda::{Cuda, In, Launch, Out, tiles};
use crate::error::{Error, Result};
use crate::ops::philox::{Use, below, words};

/// One sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens<'a> {
    /// Token ids, `[t]`.
    pub ids: &'a [u32],
    /// 1 where a token is attended, else 0, `[t]`.
    pub mask: &'a [u32],
}

impl Tokens<'_> {
    /// The positions that a perturbation may change: the attended ones but for the first and the last.
    pub fn slots(&self) -> Vec<u32> {
        let attended: Vec<u32> =
            (0u32..).zip(self.mask).filter(|(_, mask)| **mask != 0).map(|(at, _)| at).collect();
        attended.get(1..attended.len().saturating_sub(1)).unwrap_or_default().to_vec()
    }
}

/// How tokens are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Tokens of a copy that change.
    pub count: u32,
    /// The ids that stand for words, from which new ones are drawn; at least two. Special tokens are to lie outside.
    pub ordinary: Range<u32>,
    /// Keys the draws.
    pub seed: u64,
}

impl Replacement {
    /// Refuses fewer than two ordinary ids: none would be left to replace one of them by.
    ///
    /// # Errors
    /// Where there are fewer.
    pub fn check(&self) -> Result<()> {
        self.many().map(drop)
    }

    fn many(&self) -> Result<u32> {
        match self.ordinary.end.checked_sub(self.ordinary.start) {
            Some(many) if many >= 2 => Ok(many),
            _ => Err(Error::shape(
                "replace_tokens",
                "at least two ordinary ids",
                format!("{:?}", self.ordinary),
            )),
        }
    }
}

/// Copies `first`.. of the sequence `row` of sample `index`, to `out` `[copies, 2, t]`: ids, then the mask.
///
/// # Errors
/// Shapes that do not fit, more than 2³² copies, fewer than two ordinary ids, or the device fails.
pub fn replace_tokens(
    device: &Device,
    out: &mut [u32],
    row: Tokens<'_>,
    replacement: &Replacement,
    index: u32,
    first: u32,
) -> Result<()> {
    let (copies, len) = shape(out.len(), row, replacement, first)?;
    let slots = row.slots();
    if copies == 0 {
        return Ok(());
    }
    let Some(cuda) = device.cuda() else {
        let copy = |(j, out): (usize, &mut [u32])| {
            replace(out, row, &slots, replacement, index, first + j as u32);
        };
        device.scope(|| out.par_chunks_exact_mut(len as usize).enumerate().for_each(copy));
        return Ok(());
    };
    let mut found = cuda.alloc::<u32>(out.len())?;
    let (on_row, on_slots) = (cuda.upload(&[row.ids, row.mask].concat())?, cuda.upload(&slots)?);
    replace_tokens_on(cuda, found.output(), on_row.input(), on_slots.input(), replacement, index, first)?;
    out.copy_from_slice(&cuda.download(&found)?);
    Ok(())
}

/// Copy `copy` of the sequence `row` of sample `index`, to `out` `[2, t]`; `slots` is what [`Tokens::slots`] gives. One copy of
/// [`replace_tokens`], for a replacement that [`Replacement::check`] takes.
pub fn replace(
    out: &mut [u32],
    row: Tokens<'_>,
    slots: &[u32],
    replacement: &Replacement,
    index: u32,
    copy: u32,
) {
    let (ids, mask) = out.split_at_mut(row.ids.len());
    ids.copy_from_slice(row.ids);
    mask.copy_from_slice(row.mask);
    let Replacement { count, ref ordinary, seed } = *replacement;
    let (places, from, many) = (slots.len() as u32, ordinary.start, ordinary.len() as u32);
    let count = count.min(places);
    for k in 0..count {
        let [a, b, c, d] = words(seed, Use::Noise, index, copy, k);
        let last = places - count + k;
        let drawn = slots[below(a, b, last + 1) as usize] as usize;
        // A slot is taken where its id has changed: a new id always differs.
        let slot = if ids[drawn] == row.ids[drawn] { drawn } else { slots[last as usize] as usize };
        let old = row.ids[slot].wrapping_sub(from);
        let id = below(c, d, if old < many { many - 1 } else { many });
        ids[slot] = from + id + u32::from(old < many && id >= old);
    }
}

/// [`replace_tokens`] in device memory: `row` `[2 t]` is ids and mask, `slots` what [`Tokens::slots`] gives. A slot
/// beyond the row ends its copy and reads nothing.
///
/// # Errors
/// As there.
pub fn replace_tokens_on(
    cuda: &Cuda,
    out: Out<'_, u32>,
    row: In<'_, u32>,
    slots: In<'_, u32>,
    replacement: &Replacement,
    index: u32,
    first: u32,
) -> Result<()> {
    const OP: &str = "replace_tokens";
    let (copies, len) = whole_copies(out.len(), row.len(), first)?;
    let Replacement { count, ref ordinary, seed } = *replacement;
    let (from, ids) = (ordinary.start, replacement.many()?);
    let places = match u32::try_from(slots.len()) {
        Ok(places) if 2 * places as usize <= row.len() => places,
        _ => {
            return Err(Error::shape(
                OP,
                format!("at most {} slots", row.len() / 2),
                slots.len().to_string(),
            ));
        }
    };
    let launch = Launch::over(OP, copies as usize * 32, tiles::TOKENS_THREADS)?;
    // SAFETY: out holds copies rows of len words, row one, slots places words; the kernel checks these against len.
    unsafe {
        cuda.replace_tokens(
            launch,
            out,
            row,
            slots,
            copies,
            len,
            places,
            count.min(places),
            from,
            ids,
            seed,
            index,
            first,
        )
    }
}

/// How many copies, and words of each.
fn shape(out: usize, row: Tokens<'_>, replacement: &Replacement, first: u32) -> Result<(u32, u32)> {
    same("replace_tokens", "words of mask", row.ids.len(), row.mask.len())?;
    replacement.check()?;
    whole_copies(out, 2 * row.ids.len(), first)
}

fn whole_copies(out: usize, row: usize, first: u32) -> Result<(u32, u32)> {
    let whole = row > 0 && out.is_multiple_of(row);
    let copies = out.checked_div(row).and_then(|copies| u32::try_from(copies).ok());
    match (whole, copies, u32::try_from(row)) {
        (true, Some(copies), Ok(len)) if first.checked_add(copies).is_some() => Ok((copies, len)),
        _ => Err(Error::shape(
            "replace_tokens",
            format!("whole copies of {row} words, numbered below 2³²"),
            format!("{out} words from copy {first}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [u32; 9] = [101, 7, 8, 9, 200, 3, 102, 0, 0];
    const MASK: [u32; 9] = [1, 1, 1, 1, 1, 1, 1, 0, 0];
    const ROW: Tokens = Tokens { ids: &IDS, mask: &MASK };

    fn copies(count: u32, ordinary: Range<u32>, copies: usize, first: u32) -> Vec<Vec<u32>> {
        let replacement = Replacement { count, ordinary, seed: 5 };
        let mut out = vec![0; copies * 18];
        replace_tokens(&Device::cpu().unwrap(), &mut out, ROW, &replacement, 3, first).unwrap();
        assert!(out.chunks_exact(18).all(|copy| copy[9..] == MASK), "masks stay");
        out.chunks_exact(18).map(|copy| copy[..9].to_vec()).collect()
    }

    fn changed(copy: &[u32]) -> Vec<usize> {
        (0..9).filter(|&at| copy[at] != IDS[at]).collect()
    }

    #[test]
    fn exactly_so_many_inner_tokens_change_to_ordinary_ids() {
        for count in [0, 1, 2, 5, 7] {
            for copy in copies(count, 7..40, 200, 0) {
                let changed = changed(&copy);
                assert_eq!(changed.len(), count.min(5) as usize, "{copy:?}");
                assert!(
                    changed.iter().all(|&at| (1..6).contains(&at) && (7..40).contains(&copy[at])),
                    "{copy:?}"
                );
            }
        }
    }

    #[test]
    fn slots_and_ids_are_equally_likely() {
        let n = 20_000;
        let (mut at, mut ids) = ([0.0; 9], [0.0; 10]);
        for copy in copies(2, 5..15, n, 0) {
            changed(&copy).into_iter().for_each(|slot| {
                at[slot] += 1.0 / n as f64;
                if slot == 4 {
                    ids[copy[slot] as usize - 5] += 1.0 / (0.4 * n as f64); // 200 is not ordinary
                }
            });
        }
        // Five standard errors: 0.4 of 20,000, and 0.1 of 8,000.
        assert!((1..6).all(|slot| (at[slot] - 0.4f64).abs() < 0.0174), "{at:?}");
        assert!(ids.iter().all(|share| (share - 0.1f64).abs() < 0.0168), "{ids:?}");
    }

    #[test]
    fn copies_are_the_same_wherever_a_run_begins() {
        assert_eq!(copies(1, 5..50, 20, 0)[7..], copies(1, 5..50, 13, 7));
    }

    #[test]
    fn short_sequences_have_nothing_to_replace() {
        for attended in 0..3 {
            let mask: Vec<u32> = (0..4).map(|at| u32::from(at < attended)).collect();
            assert!(Tokens { ids: &[1; 4], mask: &mask }.slots().is_empty());
        }
        assert_eq!(Tokens { ids: &[1; 5], mask: &[0, 1, 0, 1, 1] }.slots(), [3]);
    }

    #[test]
    fn misfits_are_refused() {
        let device = Device::cpu().unwrap();
        let go = |out: usize, ordinary: Range<u32>, mask: &[u32], first: u32| {
            let replacement = Replacement { count: 1, ordinary, seed: 1 };
            let row = Tokens { ids: &IDS, mask };
            replace_tokens(&device, &mut vec![0; out], row, &replacement, 0, first).is_ok()
        };
        assert!(go(36, 5..7, &MASK, 0) && go(0, 5..7, &MASK, 0));
        assert!(!go(35, 5..7, &MASK, 0) && !go(36, 5..6, &MASK, 0) && !go(36, 5..7, &MASK[..8], 0));
        assert!(!go(36, 5..7, &MASK, u32::MAX));
    }
}
