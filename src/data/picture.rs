//! Pixels of 8 bits, grey or RGB, and the step between the two.

/// The most pixels of a picture: Pillow's bound against files of a few bytes that fill the memory.
pub(super) const MOST_PIXELS: usize = 178_956_970;

/// Pixels `[h, w, c]` of 8 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub h: usize,
    pub w: usize,
    /// 1, grey; or 3, RGB.
    pub c: usize,
    pub pixels: Vec<u8>,
}

/// A picture as it was decoded.
pub(super) struct Decoded {
    pub picture: Picture,
    /// Whether its EXIF data say that it is to be turned or mirrored.
    pub turned: bool,
}

impl Picture {
    /// With this number of channels. Grey becomes RGB with three equal channels, RGB becomes grey by [`luma`].
    pub fn with_channels(self, channels: usize) -> Picture {
        let Picture { h, w, c, pixels } = self;
        let pixels = match (c, channels) {
            (1, 3) => pixels.into_iter().flat_map(|grey| [grey; 3]).collect(),
            (3, 1) => pixels.as_chunks::<3>().0.iter().map(|&rgb| luma(rgb)).collect(),
            _ => return Picture { h, w, c, pixels },
        };
        Picture { h, w, c: channels, pixels }
    }
}

/// The grey of ITU-R 601, with Pillow's whole numbers and rounding.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b) + 0x8000) >> 16) as u8
}
