//! Zeros around an image that the graph adds before a convolution, as networks of TensorFlow do.

use super::super::axes;
use super::at::At;
use super::state::{Held, Padded, Translation, Value};
use crate::error::{Error, Result};

impl<'a> Translation<'a> {
    pub(super) fn pad(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let name = at.input(0)?;
        let pads = self.list(at, "pads", 1)?.unwrap_or_default();
        let mode = at.word("mode")?.unwrap_or("constant");
        let by = match (at.float("value")?, at.optional(2)) {
            (Some(value), _) => f64::from(value),
            (None, Some(value)) => {
                let constant = self.constant(value)?;
                self.numbers(&constant)?.first().copied().unwrap_or(0.0)
            }
            (None, None) => 0.0,
        };
        if pads.iter().all(|&pad| pad == 0) {
            return Ok(vec![self.held(name)?]);
        }
        let refuse = || {
            Error::config(format!(
                "pads by {pads:?} with {by} ({mode}), and only zeros around an image are known"
            ))
        };
        let x = self.value(name)?;
        let (shape, &[0, 0, top, left, 0, 0, bottom, right]) = (self.made[x.node].shape, &pads[..]) else {
            return Err(refuse());
        };
        let sides = [top, left, bottom, right].map(usize::try_from);
        let is_image = x.first == 0 && x.axes == axes::image(self.batch, shape.c, shape.h, shape.w);
        match sides {
            [Ok(top), Ok(left), Ok(bottom), Ok(right)]
                if is_image && mode == "constant" && by == 0.0 && at.optional(3).is_none() =>
            {
                Ok(vec![Held::Padded(Padded { of: x, sides: [top, left, bottom, right] })])
            }
            _ => Err(refuse()),
        }
    }

    /// The image that a convolution reads, and the zeros around it.
    pub(super) fn unpadded(&mut self, at: &At<'a>) -> Result<(Value, [usize; 4])> {
        let name = at.input(0)?;
        match self.held(name)? {
            Held::Padded(_) if at.word("auto_pad")?.is_some_and(|word| word.starts_with("SAME")) => {
                Err(Error::config("pads what is padded already by `auto_pad`, which is not known here"))
            }
            Held::Padded(Padded { of, sides }) => Ok((of, sides)),
            _ => Ok((self.value(name)?, [0; 4])),
        }
    }
}
