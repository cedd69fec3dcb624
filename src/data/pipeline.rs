//! From a picture of any size to the size that a network takes: resized, then cropped at the centre.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::picture::{MOST_PIXELS, Picture};
use super::resize::{Interpolation, resize};

/// The steps between a picture and a network's inputs, before pixels become numbers ([`super::Normalise`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pipeline {
    /// The first step.
    pub resize: Resize,
    /// How the first step mixes pixels.
    pub interpolation: Interpolation,
    /// The second step.
    pub crop: Crop,
}

/// A new size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// As it is.
    #[default]
    None,
    /// The shorter side gets this length, and the longer one keeps the ratio, rounded down.
    Shortest(usize),
    /// Height and width, whatever the ratio.
    Exact([usize; 2]),
}

/// A part of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// The whole picture.
    #[default]
    None,
    /// Height and width at the centre, as torchvision and timm cut them: where what is left over is odd, half of it is
    /// rounded to the even number.
    Centre([usize; 2]),
    /// As Hugging Face cuts them: half is rounded down.
    CentreDown([usize; 2]),
}

/// Steps in place of a pipeline's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// In place of its resizing.
    pub resize: Option<Resize>,
    /// In place of its interpolation.
    pub interpolation: Option<Interpolation>,
    /// In place of its crop.
    pub crop: Option<Crop>,
}

impl Pipeline {
    /// With these steps in place of its own.
    pub fn with(&self, steps: &Steps) -> Pipeline {
        Pipeline {
            resize: steps.resize.unwrap_or(self.resize),
            interpolation: steps.interpolation.unwrap_or(self.interpolation),
            crop: steps.crop.unwrap_or(self.crop),
        }
    }

    /// Applies both steps.
    ///
    /// # Errors
    /// Where the crop is larger than the picture, or the resized picture too large, in words.
    pub(super) fn apply(&self, picture: Picture) -> Result<Picture, String> {
        let resize = |picture, h: usize, w: usize, by| match h.checked_mul(w) {
            Some(pixels) if pixels <= MOST_PIXELS => Ok(resize(picture, h, w, by)),
            _ => Err(format!("would be resized to {w} x {h} pixels, more than {MOST_PIXELS}")),
        };
        let picture = match self.resize {
            Resize::None => picture,
            Resize::Exact([h, w]) => resize(picture, h, w, self.interpolation)?,
            Resize::Shortest(side) => {
                let Picture { h, w, .. } = picture;
                let longer = |long: usize, short: usize| {
                    ((side as u64).saturating_mul(long as u64) / short.max(1) as u64).max(1) as usize
                };
                let (h, w) = if w <= h { (longer(h, w), side) } else { (side, longer(w, h)) };
                resize(picture, h, w, self.interpolation)?
            }
        };
        let ([h, w], even) = match self.crop {
            Crop::None => return Ok(picture),
            Crop::Centre(sides) => (sides, true),
            Crop::CentreDown(sides) => (sides, false),
        };
        let (high, wide) = (picture.h, picture.w);
        if h > high || w > wide {
            return Err(format!(
                "has {wide} x {high} pixels where {w} x {h} are to be cut out; --resize makes it larger"
            ));
        }
        // Half of an odd number is between an even one and an odd one.
        let half = |left: usize| if even && left % 4 == 3 { left / 2 + 1 } else { left / 2 };
        let (top, left) = (half(high - h), half(wide - w));
        let rows = picture.pixels.chunks_exact(wide * picture.c).skip(top).take(h);
        let pixels = rows.flat_map(|row| &row[left * picture.c..(left + w) * picture.c]).copied().collect();
        Ok(Picture { h, w, c: picture.c, pixels })
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.resize {
            Resize::None => write!(f, "not resized")?,
            Resize::Shortest(side) => write!(f, "shorter side to {side}, {}", self.interpolation.name())?,
            Resize::Exact([h, w]) => write!(f, "to {h} x {w}, {}", self.interpolation.name())?,
        }
        match self.crop {
            Crop::None => Ok(()),
            Crop::Centre([h, w]) | Crop::CentreDown([h, w]) => write!(f, "; {h} x {w} at the centre"),
        }
    }
}

/// One side, or height and width.
fn sides(text: &str) -> Option<(usize, Option<usize>)> {
    const MOST: usize = 1 << 16;
    let side = |text: &str| text.parse().ok().filter(|side| (1..=MOST).contains(side));
    match text.split_once('x') {
        Some((h, w)) => Some((side(h)?, Some(side(w)?))),
        None => Some((side(text)?, None)),
    }
}

impl FromStr for Resize {
    type Err = String;

    /// `256` for the shorter side, `224x192` for height and width, `none`.
    fn from_str(text: &str) -> Result<Resize, String> {
        match (text, sides(text)) {
            ("none", _) => Ok(Resize::None),
            (_, Some((h, Some(w)))) => Ok(Resize::Exact([h, w])),
            (_, Some((side, None))) => Ok(Resize::Shortest(side)),
            _ => Err("the shorter side as 256, height and width as 224x192, or none was expected".into()),
        }
    }
}

impl FromStr for Crop {
    type Err = String;

    /// `224` for a square, `224x192` for height and width, `none`.
    fn from_str(text: &str) -> Result<Crop, String> {
        match (text, sides(text)) {
            ("none", _) => Ok(Crop::None),
            (_, Some((h, w))) => Ok(Crop::Centre([h, w.unwrap_or(h)])),
            _ => Err("a side as 224, height and width as 224x192, or none was expected".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pixels that tell their place: column, row.
    fn place(h: usize, w: usize) -> Picture {
        let pixels = (0..h).flat_map(|y| (0..w).flat_map(move |x| [x as u8, y as u8, 0])).collect();
        Picture { h, w, c: 3, pixels }
    }

    #[test]
    fn crops_begin_where_torchvision_and_hugging_face_begin_them() {
        // What is left over, and round(left / 2) and left // 2 of Python.
        for (left, torchvision, hugging_face) in
            [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 2, 1), (5, 2, 2), (7, 4, 3)]
        {
            for (crop, first) in
                [(Crop::Centre([4, 6]), torchvision), (Crop::CentreDown([4, 6]), hugging_face)]
            {
                let pipeline = Pipeline { crop, ..Pipeline::default() };
                let cut = pipeline.apply(place(4 + left, 6 + left)).unwrap();
                assert_eq!((cut.h, cut.w, &cut.pixels[..2]), (4, 6, &[first, first][..]), "{left}");
            }
        }
        let large = Pipeline { crop: Crop::Centre([5, 5]), ..Pipeline::default() };
        assert!(large.apply(place(4, 6)).unwrap_err().contains("6 x 4"));
    }

    #[test]
    fn the_longer_side_is_rounded_down() {
        let shortest = |side, h, w| {
            let pipeline = Pipeline { resize: Resize::Shortest(side), ..Pipeline::default() };
            pipeline.apply(place(h, w)).map(|picture| (picture.h, picture.w)).unwrap()
        };
        assert_eq!([shortest(10, 7, 9), shortest(10, 9, 7), shortest(3, 7, 7)], [(10, 12), (12, 10), (3, 3)]);
        assert_eq!(shortest(1, 1, 200), (1, 200));
    }

    #[test]
    fn options_are_read_and_configs_written_and_read_again() {
        assert_eq!("256".parse(), Ok(Resize::Shortest(256)));
        assert_eq!("224x192".parse(), Ok(Resize::Exact([224, 192])));
        assert_eq!(("none".parse(), "224".parse()), (Ok(Resize::None), Ok(Crop::Centre([224, 224]))));
        for wrong in ["0", "x", "5x", "-3", "70000", ""] {
            assert!(wrong.parse::<Resize>().is_err() && wrong.parse::<Crop>().is_err(), "{wrong}");
        }
        let crop = Crop::CentreDown([3, 4]);
        let pipeline = Pipeline { resize: Resize::Shortest(9), interpolation: Interpolation::Bicubic, crop };
        let written = serde_json::to_value(&pipeline).unwrap();
        assert_eq!(serde_json::from_value::<Pipeline>(written).unwrap(), pipeline);
        let steps = Steps { resize: Some(Resize::None), ..Steps::default() };
        assert_eq!(pipeline.with(&steps), Pipeline { resize: Resize::None, ..pipeline });
    }
}
