//! Boxes that the copy engine of sm_90a (TMA) takes out of a tensor of 16-bit values.

/// A tensor of 16-bit values in device memory, and the boxes that copies take of it.
#[derive(Clone, Debug)]
pub struct Boxes {
    /// Its sizes, the innermost (contiguous) dimension first: two to four.
    pub dims: Vec<usize>,
    /// Values from one element to the next, along every dimension but the innermost: multiples of 8.
    pub pitches: Vec<usize>,
    /// What one copy takes.
    pub take: Take,
    /// Bytes of the rows in which shared memory is swizzled: 32, 64 or 128, or 0.
    pub swizzle: u32,
}

/// What one copy takes of a tensor.
#[derive(Clone, Debug)]
pub enum Take {
    /// A box of these sizes, the innermost first, each at most 256.
    Tile(Vec<u32>),
    /// Of images `[n, h, w, c]`, some channels of consecutive base pixels, read under one tap (im2col).
    Pixels {
        /// At most 256.
        channels: u32,
        /// At most 1024.
        pixels: u32,
        /// The first base pixel in w and in h, -128 to 127: minus the padding.
        lower: [i32; 2],
        /// The last one, counted from the last pixel of the image.
        upper: [i32; 2],
        /// From one base pixel to the next, 1 to 8: the stride.
        step: [u32; 2],
    },
}

impl Boxes {
    /// The words of 4 bytes of one copy, of boxes that fit.
    pub fn words(&self) -> usize {
        let values: usize = match &self.take {
            Take::Tile(sizes) => sizes.iter().map(|&size| size as usize).product(),
            Take::Pixels { channels, pixels, .. } => *channels as usize * *pixels as usize,
        };
        values / 2
    }

    pub(super) fn sizes(&self) -> Vec<u64> {
        self.dims.iter().map(|&size| size as u64).collect()
    }

    pub(super) fn pitches_in_bytes(&self) -> Vec<u64> {
        self.pitches.iter().map(|&pitch| 2 * pitch as u64).collect()
    }

    /// What hardware cannot do, or what reaches beyond `len` values.
    pub(super) fn fault(&self, len: usize) -> Option<String> {
        let rank = self.dims.len();
        if !(2..=4).contains(&rank) || self.pitches.len() + 1 != rank {
            return Some(format!("{rank} sizes, {} pitches", self.pitches.len()));
        }
        let inner = match &self.take {
            Take::Tile(sizes) if sizes.len() != rank => {
                return Some(format!("a box of {} sizes", sizes.len()));
            }
            Take::Tile(sizes) if sizes.iter().any(|&size| size == 0 || size > 256) => {
                return Some(format!("a box of {sizes:?}"));
            }
            Take::Tile(sizes) => sizes[0],
            Take::Pixels { channels, pixels, lower, upper, step } => {
                let corner = |at: &i32| (-128..128).contains(at);
                let fits = rank == 4 && (1..=256).contains(channels) && (1..=1024).contains(pixels);
                if !fits
                    || !lower.iter().chain(upper).all(corner)
                    || !step.iter().all(|s| (1..=8).contains(s))
                {
                    return Some(format!("{:?}", self.take));
                }
                *channels
            }
        };
        let last: Option<usize> = (1..rank).try_fold(self.dims[0], |last, i| {
            last.checked_add((self.dims[i].checked_sub(1)?).checked_mul(self.pitches[i - 1])?)
        });
        match self.swizzle {
            _ if self.dims.iter().any(|&size| size == 0 || size > 1 << 32) => {
                Some(format!("sizes {:?}", self.dims))
            }
            _ if self.pitches.iter().any(|&pitch| !pitch.is_multiple_of(8) || pitch >= 1 << 39) => {
                Some(format!("pitches {:?}", self.pitches))
            }
            _ if last.is_none_or(|last| last > len) => Some(format!("{len} values for {:?}", self.dims)),
            0 if inner.is_multiple_of(8) => None,
            32 | 64 | 128 if inner.is_multiple_of(8) && 2 * inner <= self.swizzle => None,
            swizzle => Some(format!("rows of {inner} values, swizzled in {swizzle} bytes")),
        }
    }
}
