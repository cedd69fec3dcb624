//! The lengths of axes that operators give.

use super::super::constant::count;
use super::pools::index;
use crate::error::{Error, Result};

/// Lengths that are not negative.
pub(super) fn sizes(numbers: &[i64]) -> Result<Vec<usize>> {
    let all = numbers.iter().map(|&number| usize::try_from(number).ok()).collect::<Option<Vec<_>>>();
    all.ok_or_else(|| Error::config(format!("has the lengths {numbers:?}")))
}

/// Axes of length 1 taken away: these, or all.
pub(super) fn squeezed(from: &[usize], axes: Option<Vec<i64>>) -> Result<Vec<usize>> {
    let gone = match axes {
        None => (0..from.len()).filter(|&axis| from[axis] == 1).collect(),
        Some(axes) => axes.iter().map(|&axis| index(axis, from.len())).collect::<Result<Vec<_>>>()?,
    };
    match gone.iter().find(|&&axis| from[axis] != 1) {
        Some(axis) => Err(Error::config(format!("takes away the axis {axis} of {from:?}"))),
        None => Ok((0..from.len()).filter(|axis| !gone.contains(axis)).map(|axis| from[axis]).collect()),
    }
}

/// Axes of length 1 put in.
pub(super) fn unsqueezed(from: &[usize], axes: &[i64]) -> Result<Vec<usize>> {
    let rank = from.len() + axes.len();
    let new = axes.iter().map(|&axis| index(axis, rank)).collect::<Result<Vec<_>>>()?;
    let (mut left, mut all) = (from.iter(), vec![]);
    for axis in 0..rank {
        match new.contains(&axis) {
            true => all.push(1),
            false => all.extend(left.next()),
        }
    }
    Ok(all)
}

/// The lengths of a reshape, in which 0 copies a length and -1 is what is left.
pub(super) fn reshaped(from: &[usize], said: &[i64], zero_copies: bool) -> Result<Vec<usize>> {
    let refuse = || Error::config(format!("makes {said:?} of {from:?}"));
    let mut all = vec![];
    for (axis, &length) in said.iter().enumerate() {
        all.push(match length {
            -1 => 1,
            0 if zero_copies => *from.get(axis).ok_or_else(refuse)?,
            length => usize::try_from(length).map_err(|_| refuse())?,
        });
    }
    let open: Vec<usize> = (0..said.len()).filter(|&axis| said[axis] == -1).collect();
    let (whole, known) =
        (count(from).ok_or_else(refuse)?, count(&all).filter(|&n| n > 0).ok_or_else(refuse)?);
    match open[..] {
        [] => {}
        [axis] if whole.is_multiple_of(known) => all[axis] = whole / known,
        _ => return Err(refuse()),
    }
    Ok(all)
}
