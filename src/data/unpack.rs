//! How many bytes a compressed file may become: a few kilobytes can unpack to gigabytes.

use std::io::{Error, Read, Result};

/// Any file may become this many bytes,
const ALWAYS: usize = 64 << 20;
/// and a larger one this many for each of its own. What is nearly all one value can reach more, and is refused with what to do.
const RATIO: usize = 200;

/// The most bytes that this many compressed ones may become.
pub(super) fn most(packed: usize) -> usize {
    packed.saturating_mul(RATIO).max(ALWAYS)
}

/// What is wrong with bytes that become more.
pub(super) fn beyond(packed: usize) -> String {
    let most = most(packed);
    format!(
        "its {packed} bytes become more than {most}, as hostile files do; if it is not one, unpack it first, or save it uncompressed"
    )
}

/// All that a decoder makes of this many compressed bytes.
///
/// # Errors
/// Those of the decoder; and where it makes more than [`most`].
pub(super) fn whole(decoder: impl Read, packed: usize) -> Result<Vec<u8>> {
    let (mut bytes, most) = (vec![], most(packed));
    decoder.take(most as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() <= most {
        true => Ok(bytes),
        false => Err(Error::other(beyond(packed))),
    }
}
