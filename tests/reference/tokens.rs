//! Tokens replaced at random: Floyd's sampling with a set, and another id out of a list of all ordinary ones.

use std::collections::HashSet;
use std::ops::Range;

use super::perturb;

/// A number below n from two words.
fn below(high: u32, low: u32, n: usize) -> usize {
    let word = u128::from(high) << 32 | u128::from(low);
    ((word * n as u128) >> 64) as usize
}

/// Copy `copy` of `ids` of sample `index`, in which `count` of the attended tokens are replaced, but never the first or the last.
pub fn replaced(
    ids: &[u32],
    mask: &[u32],
    count: usize,
    ordinary: Range<u32>,
    seed: u64,
    index: u32,
    copy: u32,
) -> Vec<u32> {
    let attended: Vec<usize> = (0..ids.len()).filter(|&at| mask[at] == 1).collect();
    let inner = if attended.len() > 2 { &attended[1..attended.len() - 1] } else { &[] };
    let count = count.min(inner.len());
    let (mut out, mut taken) = (ids.to_vec(), HashSet::new());
    for k in 0..count {
        let words = perturb::words(seed, index, copy, k as u32);
        let last = inner.len() - count + k;
        let drawn = below(words[0], words[1], last + 1);
        let place = if taken.contains(&drawn) { last } else { drawn };
        taken.insert(place);
        let others: Vec<u32> = ordinary.clone().filter(|&id| id != ids[inner[place]]).collect();
        out[inner[place]] = others[below(words[2], words[3], others.len())];
    }
    out
}
