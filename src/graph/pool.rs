//! The windows of a pool in a graph file.

use serde::{Deserialize, Serialize};

use super::sizes::within;
use crate::error::{Error, Result};
use crate::net::Window;

/// The settings of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Rows and columns of a window.
    pub size: Sides,
    /// Step in both directions; the rows of a window where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Above and below, and to the left and right.
    #[serde(default, skip_serializing_if = "Sides::is_zero")]
    pub padding: Sides,
    /// Further padding below, and to the right.
    #[serde(default, skip_serializing_if = "Sides::is_zero")]
    pub further: Sides,
    /// Whether the last window of a side may reach beyond the padding.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ceil: bool,
    /// Whether a mean counts the zeros of the padding.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub count_padding: bool,
}

/// Along rows and along columns: one number in a file where both are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrTwo", into = "OneOrTwo")]
pub struct Sides(pub usize, pub usize);

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "one number, or two in a list: for rows and for columns")]
enum OneOrTwo {
    One(usize),
    Two([usize; 2]),
}

impl From<OneOrTwo> for Sides {
    fn from(sides: OneOrTwo) -> Sides {
        match sides {
            OneOrTwo::One(both) => Sides(both, both),
            OneOrTwo::Two([down, right]) => Sides(down, right),
        }
    }
}

impl From<Sides> for OneOrTwo {
    fn from(Sides(down, right): Sides) -> OneOrTwo {
        if down == right { OneOrTwo::One(down) } else { OneOrTwo::Two([down, right]) }
    }
}

impl Sides {
    fn is_zero(&self) -> bool {
        *self == Sides(0, 0)
    }
}

fn yes() -> bool {
    true
}

impl Pool {
    /// The windows, as a network has them.
    ///
    /// # Errors
    /// Where one may hold nothing but padding, or a number is beyond reason.
    pub(super) fn window(&self) -> Result<Window> {
        let Pool { size: Sides(r, s), padding: Sides(down, right), further: Sides(below, beside), .. } =
            *self;
        let (r, s) = (within("size", r)?, within("size", s)?);
        let stride = within("stride", self.stride.unwrap_or(r))?;
        if down >= r || right >= s || below >= r || beside >= s {
            return Err(Error::config("\"padding\" and \"further\" are less than \"size\""));
        }
        let (padding, further) = ((down, right), (below, beside));
        let (ceil, counts_padding) = (self.ceil, self.count_padding);
        Ok(Window { size: (r, s), stride, padding, further, ceil, counts_padding })
    }
}

impl From<Window> for Pool {
    fn from(window: Window) -> Pool {
        let Window { size: (r, s), stride, padding, further, ceil, counts_padding } = window;
        Pool {
            size: Sides(r, s),
            stride: Some(stride).filter(|&stride| stride != r),
            padding: Sides(padding.0, padding.1),
            further: Sides(further.0, further.1),
            ceil,
            count_padding: counts_padding,
        }
    }
}
