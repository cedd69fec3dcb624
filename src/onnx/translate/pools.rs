//! Pooling and means.

use super::super::axes::{self, Run};
use super::at::At;
use super::layers::{Spatial, kernel};
use super::state::{Held, Translation, Value};
use super::state::{Moment, Stage};
use crate::error::{Error, Result};
use crate::graph::Operation;
use crate::net::{Shape, Window};

impl<'a> Translation<'a> {
    pub(super) fn pool(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let averages = at.node.op == "AveragePool";
        let sides = at.ints("kernel_shape")?.unwrap_or_default();
        let sides: Vec<usize> = sides.iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
        let [r, s] = kernel(&sides)?;
        at.pass("storage_order"); // of the positions, which nothing reads
        let x = self.value(at.input(0)?)?;
        let (node, shape) = self.image(at.input(0)?, &x)?;
        let spatial = Spatial::of(at, [r, s], shape)?;
        let (counts, ceils) = (at.int("count_include_pad")?.unwrap_or(0), at.int("ceil_mode")?.unwrap_or(0));
        let (padding, further) = spatial.sides()?;
        if spatial.dilation != 1 {
            return Err(Error::config(format!(
                "has dilations of {}, and only 1 is known here",
                spatial.dilation
            )));
        }
        let unpadded = padding == [0, 0] && further == [0, 0];
        if [r, s] == [1, 1] && spatial.stride == 1 && unpadded {
            return Ok(vec![Held::Value(x)]);
        }
        let window = Window {
            size: (r, s),
            stride: spatial.stride,
            padding: padding.into(),
            further: further.into(),
            ceil: ceils != 0,
            counts_padding: !averages || counts != 0,
        };
        let (h, w) = window.over(shape.h, shape.w).ok_or_else(|| {
            let size = format!("{}x{}", shape.h, shape.w);
            Error::config(format!(
                "has windows of {r}x{s} over {size}, of which one holds nothing but padding"
            ))
        })?;
        let to = Shape::new(h, w, shape.c);
        let operation = match averages {
            true if [r, s] == [shape.h, shape.w] && unpadded => Operation::GlobalPool,
            true => Operation::AveragePool(window.into()),
            false => Operation::MaxPool(window.into()),
        };
        let made = self.make(at.output(), operation, &[node], to);
        Ok(self.made(made, self.image_axes(to)))
    }

    pub(super) fn global_pool(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let x = self.value(at.input(0)?)?;
        let (node, shape) = self.image(at.input(0)?, &x)?;
        let to = Shape::new(1, 1, shape.c);
        let made = self.make(at.output(), Operation::GlobalPool, &[node], to);
        Ok(self.made(made, self.image_axes(to)))
    }

    pub(super) fn reduce_mean(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let name = at.input(0)?;
        let reduced = self.list(at, "axes", 1)?;
        let reduced = reduced.ok_or_else(|| Error::config("reduces all axes, which is not known here"))?;
        at.pass("noop_with_empty_axes"); // there are axes
        let keeps = at.int("keepdims")?.unwrap_or(1) != 0;
        let rank = match self.held(name)? {
            Held::Moment(moment) => moment.of.axes.len(),
            _ => self.value(name)?.axes.len(),
        };
        let mut axes_of = vec![];
        for axis in reduced {
            let axis = index(axis, rank)?;
            if axes_of.contains(&axis) {
                return Err(Error::config(format!("reduces an axis twice, {axis}")));
            }
            axes_of.push(axis);
        }
        if axes_of.is_empty() {
            return Err(Error::config("reduces no axes"));
        }
        if let Held::Moment(moment) = self.held(name)? {
            return self.variance(moment, &axes_of, keeps);
        }
        let x = self.value(name)?;
        let shape = self.made[x.node].shape;
        if keeps && axes_of.len() == 1 && x.channels(shape.c) == Some(axes_of[0]) {
            return Ok(vec![Held::Moment(Moment { of: x, stage: Stage::Mean })]);
        }
        let factors = || axes_of.iter().flat_map(|&axis| &x.axes[axis]);
        let positions: usize = factors().map(|factor| factor.size).product();
        if factors().any(|factor| factor.run != Run::Position) || positions != shape.positions() {
            return Err(Error::config(format!(
                "takes means over the axes {axes_of:?} of {:?}, which are not all positions",
                axes::lengths(&x.axes)
            )));
        }
        let mut left = x.axes.clone();
        axes_of.iter().for_each(|&axis| left[axis].clear());
        axes_of.sort_unstable();
        axes_of.iter().rev().filter(|_| !keeps).for_each(|&axis| drop(left.remove(axis)));
        let made = match shape.positions() {
            1 => x.node,
            _ => self.make(at.output(), Operation::GlobalPool, &[x.node], Shape::new(1, 1, shape.c)),
        };
        Ok(vec![Held::Value(Value { node: made, axes: left, ..x })])
    }
}

/// An axis of this many, which may be counted from the end.
pub(super) fn index(axis: i64, rank: usize) -> Result<usize> {
    let counted = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(counted) {
        Ok(index) if index < rank => Ok(index),
        _ => Err(Error::config(format!("has the axis {axis} of {rank}"))),
    }
}
