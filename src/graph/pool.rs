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
    /// Further padding below, and to the right; less where negative.
    #[serde(default, skip_serializing_if = "Sides::is_zero")]
    pub further: Sides<isize>,
    /// Whether the last window of a side may reach beyond the padding.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ceil: bool,
    /// Whether a mean counts the zeros of the padding.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub count_padding: bool,
}

/// Along rows and along columns: one number in a file where both are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    from = "OneOrTwo<T>",
    into = "OneOrTwo<T>",
    bound(serialize = "T: Copy + PartialEq + Serialize", deserialize = "T: Copy + Deserialize<'de>")
)]
pub struct Sides<T = usize>(pub T, pub T);

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "one number, or two in a list: for rows and for columns")]
enum OneOrTwo<T> {
    One(T),
    Two([T; 2]),
}

impl<T: Copy> From<OneOrTwo<T>> for Sides<T> {
    fn from(sides: OneOrTwo<T>) -> Sides<T> {
        match sides {
            OneOrTwo::One(both) => Sides(both, both),
            OneOrTwo::Two([down, right]) => Sides(down, right),
        }
    }
}

impl<T: PartialEq> From<Sides<T>> for OneOrTwo<T> {
    fn from(Sides(down, right): Sides<T>) -> OneOrTwo<T> {
        if down == right { OneOrTwo::One(down) } else { OneOrTwo::Two([down, right]) }
    }
}

impl<T: Default + PartialEq> Sides<T> {
    fn is_zero(&self) -> bool {
        *self == Sides(T::default(), T::default())
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
        let within = |padding: usize, further: isize, size: usize| {
            padding < size && further < size as isize && padding.checked_add_signed(further).is_some()
        };
        if !within(down, below, r) || !within(right, beside, s) {
            let reason = "\"padding\" and \"further\" are less than \"size\", and their sum no less than 0";
            return Err(Error::config(reason));
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
