//! Operators with parameters.

use super::super::axes::{self, Axis, Run};
use super::super::constant::{Constant, Stored};
use super::at::At;
use super::state::{Held, Translation, Value};
use crate::error::{Error, Result};
use crate::graph::{self, Operation};
use crate::net::Shape;

/// Steps, padding (top, left, bottom, right) and distances of the taps of windows over an image.
pub(super) struct Spatial {
    pub stride: usize,
    pub padding: [usize; 4],
    pub dilation: usize,
}

/// A pair of settings above 0 that must be equal.
fn one_of(name: &str, pair: Option<Vec<i64>>) -> Result<usize> {
    match pair.as_deref() {
        None => Ok(1),
        Some(&[a, b]) if a == b && a > 0 => Ok(a as usize),
        Some(found) => {
            Err(Error::config(format!("has {name} {found:?}, and only two equal ones are known here")))
        }
    }
}

impl Spatial {
    /// What a node says of windows of `kernel` over an image.
    pub fn of(at: &At, [r, s]: [usize; 2], Shape { h, w, .. }: Shape) -> Result<Spatial> {
        let stride = one_of("strides", at.ints("strides")?)?;
        let dilation = one_of("dilations", at.ints("dilations")?)?;
        let pads = at.ints("pads")?;
        let same = |size: usize, kernel: usize| -> Result<usize> {
            let span = (kernel - 1).checked_mul(dilation).and_then(|span| span.checked_add(1));
            let covered = (size.div_ceil(stride).max(1) - 1).checked_mul(stride);
            let covered = covered.zip(span).and_then(|(covered, span)| covered.checked_add(span));
            covered
                .map(|covered| covered.saturating_sub(size))
                .ok_or_else(|| Error::config("has a window beyond reason"))
        };
        let padding = match at.word("auto_pad")?.unwrap_or("NOTSET") {
            "NOTSET" => match pads.as_deref() {
                None => [0; 4],
                Some(&[top, left, bottom, right])
                    if [top, left, bottom, right].iter().all(|&pad| pad >= 0) =>
                {
                    [top, left, bottom, right].map(|pad| pad as usize)
                }
                Some(found) => {
                    return Err(Error::config(format!("has pads {found:?}, where 4 were expected")));
                }
            },
            "VALID" => [0; 4],
            word @ ("SAME_UPPER" | "SAME_LOWER") => {
                let (down, right) = (same(h, r)?, same(w, s)?);
                let (more, less) = (|all: usize| all.div_ceil(2), |all: usize| all / 2);
                match word {
                    "SAME_UPPER" => [less(down), less(right), more(down), more(right)],
                    _ => [more(down), more(right), less(down), less(right)],
                }
            }
            other => return Err(Error::config(format!("has auto_pad {other}, which is not known here"))),
        };
        Ok(Spatial { stride, padding, dilation })
    }

    /// The padding above and below and to the left and right, and how much more of it is below and to the right.
    pub fn sides(&self) -> Result<([usize; 2], [isize; 2])> {
        let [top, left, bottom, right] = self.padding;
        let more = |end: usize, start: usize| isize::try_from(end).ok()?.checked_sub_unsigned(start);
        match (more(bottom, top), more(right, left)) {
            (Some(below), Some(beside)) => Ok(([top, left], [below, beside])),
            _ => Err(Error::config(format!("has pads beyond reason: {:?}", self.padding))),
        }
    }

    /// How often a window fits along a side with this padding, and more of it at the end.
    fn along(&self, size: usize, kernel: usize, padding: usize, further: isize) -> Result<usize> {
        let span = (kernel - 1).checked_mul(self.dilation).and_then(|span| span.checked_add(1));
        let end = padding.checked_add_signed(further);
        let whole = end.and_then(|end| padding.checked_add(end)?.checked_add(size));
        let left = whole.zip(span).and_then(|(whole, span)| whole.checked_sub(span));
        match left {
            Some(left) => Ok(left / self.stride + 1),
            None => Err(Error::config(format!("has windows of {kernel} over {size} values"))),
        }
    }
}

/// The two sides of a kernel.
pub(super) fn kernel(sides: &[usize]) -> Result<[usize; 2]> {
    match sides {
        &[r, s] if r > 0 && s > 0 && r.max(s) <= 1 << 20 => Ok([r, s]),
        _ => Err(Error::config(format!("has a kernel of {sides:?}, and two sides are known here"))),
    }
}

impl<'a> Translation<'a> {
    /// The node whose values these are, as an image.
    pub(super) fn image(&mut self, name: &str, value: &Value) -> Result<(usize, Shape)> {
        let shape = self.made[value.node].shape;
        let lengths = axes::lengths(&value.axes);
        let expected = || {
            let all: usize = lengths.iter().product();
            let reason = format!("reads `{name}` on axes of {lengths:?}, {all} values in all");
            Error::config(format!("{reason}, where batch, channels, rows and columns were expected"))
        };
        let &[_, _, h, w] = &lengths[..] else { return Err(expected()) };
        if value.first != 0 || value.axes != axes::image(self.batch, shape.c, h, w) {
            return Err(expected());
        }
        let wanted = Shape::new(h, w, shape.c);
        match (h, w) == (shape.h, shape.w) {
            true => Ok((value.node, shape)),
            false if h * w == shape.positions() => {
                Ok((self.make(name, Operation::Image { height: h, width: w }, &[value.node], wanted), wanted))
            }
            false => Err(expected()),
        }
    }

    /// The axes of an image of that shape.
    pub(super) fn image_axes(&self, Shape { h, w, c }: Shape) -> Vec<Axis> {
        axes::image(self.batch, c, h, w)
    }

    /// The name of the layer of a weight: the node's, where the weight's does not tell it.
    fn layer(&mut self, at: &At, weight: &str) -> Option<String> {
        let known = self.made.iter().find_map(|made| match &made.operation {
            Some(
                Operation::Conv { weight: other, layer, .. } | Operation::Linear { weight: other, layer, .. },
            ) if other == weight => Some(layer.clone()),
            _ => None,
        });
        let end = format!("/{}", at.node.op);
        let name = at.node.name.strip_suffix(&end).unwrap_or(&at.node.name).trim_matches('/');
        let taken = |name: &str| {
            self.made.iter().any(|made| match &made.operation {
                Some(Operation::Conv { weight, layer, .. } | Operation::Linear { weight, layer, .. }) => {
                    layer.as_deref().unwrap_or(graph::layer_name(weight)) == name
                }
                _ => false,
            })
        };
        let own = !weight.ends_with(".weight") && !name.is_empty() && !taken(name);
        known.unwrap_or_else(|| own.then(|| name.to_string()))
    }

    pub(super) fn conv(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let (x, around) = self.unpadded(at)?;
        let filters = self.constant(at.input(1)?)?;
        let &[outputs, inner, r, s] = &filters.shape[..] else {
            let reason = format!("has filters of shape {:?}, and 4 axes are known here", filters.shape);
            return Err(Error::config(reason));
        };
        let kernel = kernel(&[r, s])?;
        if let Some(said) = at.ints("kernel_shape")?.filter(|said| said[..] != [r as i64, s as i64]) {
            return Err(Error::config(format!("has kernel_shape {said:?}, and filters of {r}x{s}")));
        }
        let (node, shape) = self.image(at.input(0)?, &x)?;
        let groups = at.int("group")?.unwrap_or(1);
        if groups < 1 || inner.checked_mul(groups as usize) != Some(shape.c) {
            return Err(Error::config(format!(
                "has {groups} groups of filters over {inner} channels, and an image of {} channels",
                shape.c
            )));
        }
        let mut spatial = Spatial::of(at, kernel, shape)?;
        let reason = || Error::config("has pads beyond reason");
        for (all, more) in spatial.padding.iter_mut().zip(around) {
            *all = all.checked_add(more).ok_or_else(reason)?;
        }
        let (padding, further) = spatial.sides()?;
        let h = spatial.along(shape.h, r, padding[0], further[0])?;
        let w = spatial.along(shape.w, s, padding[1], further[1])?;
        let weight = self.parameter(&filters, &filters.shape)?;
        let bias = match at.optional(2) {
            Some(bias) => {
                let bias = self.constant(bias)?;
                Some(self.parameter(&bias, &[outputs])?)
            }
            None => None,
        };
        let layer = self.layer(at, &weight);
        let (stride, dilation, groups) = (spatial.stride, spatial.dilation, groups as usize);
        let operation = Operation::Conv { weight, bias, layer, stride, padding, further, dilation, groups };
        let shape = Shape::new(h, w, outputs);
        let made = self.make(at.output(), operation, &[node], shape);
        Ok(self.made(made, self.image_axes(shape)))
    }

    pub(super) fn gemm(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        for name in ["alpha", "beta"] {
            if let Some(found) = at.float(name)?.filter(|&found| found != 1.0)
                && (name == "alpha" || at.optional(2).is_some())
            {
                return Err(Error::config(format!("has {name} = {found}, and only 1 is known here")));
            }
        }
        at.only("transA", 0)?;
        let rows_first = match at.int("transB")?.unwrap_or(0) {
            0 => false,
            1 => true,
            other => return Err(Error::config(format!("has transB = {other}"))),
        };
        let x = self.value(at.input(0)?)?;
        if x.axes.len() != 2 {
            return Err(Error::config(format!("multiplies a tensor of {} axes", x.axes.len())));
        }
        let matrix = self.constant(at.input(1)?)?;
        let bias = at.optional(2).map(|name| self.constant(name)).transpose()?;
        self.linear(at, &x, &matrix, rows_first, bias)
    }

    /// x times a matrix, of which the rows or the columns are those of a layer.
    pub(super) fn linear(
        &mut self,
        at: &At<'a>,
        x: &Value,
        matrix: &Constant,
        rows_first: bool,
        bias: Option<Constant>,
    ) -> Result<Vec<Held>> {
        let &[a, b] = &matrix.shape[..] else {
            return Err(Error::config(format!(
                "multiplies by a tensor of shape {:?}, and no matrix",
                matrix.shape
            )));
        };
        let (inputs, outputs) = if rows_first { (b, a) } else { (a, b) };
        let turned = matches!(&matrix.stored, Some(Stored { transposed: true, .. }));
        let stored = matrix.stored.clone().map(|stored| Stored { transposed: false, ..stored });
        let as_stored = Constant { stored, ..matrix.clone() };
        let x = &self.as_rows(at.input(0)?, x);
        let node = self.rows(at.input(0)?, x)?;
        let shape = self.made[node].shape;
        if shape.c != inputs {
            return Err(Error::config(format!("multiplies {} values by a matrix for {inputs}", shape.c)));
        }
        let weight = self.parameter(&as_stored, &if turned { [b, a] } else { [a, b] })?;
        let bias = bias.map(|bias| self.parameter(&bias, &[outputs])).transpose()?;
        let layer = self.layer(at, &weight);
        let operation = Operation::Linear { weight, bias, layer, transposed: rows_first == turned };
        let made = self.make(at.output(), operation, &[node], Shape { c: outputs, ..shape });
        let mut all = x.axes.clone();
        all.pop();
        all.push(axes::over(Run::Channel, outputs, 1));
        Ok(self.made(made, all))
    }

    /// The node whose channels, or whose flattened image, the last axis is.
    fn rows(&mut self, name: &str, x: &Value) -> Result<usize> {
        let shape = self.made[x.node].shape;
        let lengths = axes::lengths(&x.axes);
        let refuse = || {
            let reason =
                format!("reads `{name}` on axes of {lengths:?}, the last of which is neither all channels");
            Error::config(format!("{reason} nor a flattened image in the order channels, rows, columns"))
        };
        let Some((last, others)) = x.axes.split_last() else { return Err(refuse()) };
        let over_channels = others.iter().flatten().all(|factor| factor.run != Run::Channel);
        if x.first == 0 && over_channels && *last == axes::over(Run::Channel, shape.c, 1) {
            return Ok(x.node);
        }
        let flat = axes::regrouped(&self.image_axes(shape), &[self.batch, shape.len()]);
        let alone = others.iter().flatten().all(|factor| factor.run == Run::Batch);
        if x.first != 0 || !alone || flat.as_ref().and_then(|flat| flat.get(1)) != Some(last) {
            return Err(refuse());
        }
        Ok(self.make(&format!("{name}~flat"), Operation::Flatten, &[x.node], Shape::new(1, 1, shape.len())))
    }

    /// The parameters of a norm, one for each channel.
    fn per_channel<const N: usize>(&mut self, at: &At<'a>, c: usize, what: [&str; N]) -> Result<[String; N]> {
        let mut names = what.map(String::from);
        for (i, name) in names.iter_mut().enumerate() {
            let missing = || Error::config(format!("has no {name}, which a norm has here"));
            let input = at.optional(i + 1).ok_or_else(missing)?;
            let constant = self.constant(input)?;
            *name = self.parameter(&constant, &[c])?;
        }
        Ok(names)
    }

    /// A node on values whose channels are axis 1.
    fn on_channels(&mut self, at: &At<'a>) -> Result<(Value, Shape)> {
        let x = self.value(at.input(0)?)?;
        let shape = self.made[x.node].shape;
        match x.first == 0 && x.axes.get(1) == Some(&axes::over(Run::Channel, shape.c, 1)) {
            true => Ok((x, shape)),
            false => Err(Error::config(format!(
                "reads a tensor of axes {:?}, the second of which is not all channels",
                axes::lengths(&x.axes)
            ))),
        }
    }

    pub(super) fn batch_norm(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        at.only("training_mode", 0)?;
        at.only("spatial", 1)?;
        // Before version 14, more outputs than one are what says that it trains.
        if at.node.outputs.iter().filter(|name| !name.is_empty()).count() > 1 {
            return Err(Error::config("gives statistics of the batch, as in training"));
        }
        ["momentum", "is_test"].into_iter().for_each(|name| at.pass(name));
        let eps = at.float("epsilon")?.unwrap_or(1e-5);
        let (x, shape) = self.on_channels(at)?;
        let [weight, bias, mean, variance] =
            self.per_channel(at, shape.c, ["scale", "shift", "mean", "variance"])?;
        let operation = Operation::BatchNorm { weight, bias, mean, variance, eps };
        let made = self.make(at.output(), operation, &[x.node], shape);
        Ok(self.made(made, x.axes))
    }

    pub(super) fn layer_norm(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        at.pass("stash_type");
        let eps = at.float("epsilon")?.unwrap_or(1e-5);
        let x = self.value(at.input(0)?)?;
        let (shape, rank) = (self.made[x.node].shape, x.axes.len() as i64);
        let axis = at.int("axis")?.unwrap_or(-1);
        let last = axis == -1 || axis == rank - 1;
        if !last || x.channels(shape.c) != Some(rank as usize - 1) {
            return Err(Error::config(format!(
                "normalises axes from {axis} on of {:?}, and only all channels as the last axis are known here",
                axes::lengths(&x.axes)
            )));
        }
        let [weight, bias] = self.per_channel(at, shape.c, ["scale", "shift"])?;
        let made = self.make(at.output(), Operation::LayerNorm { weight, bias, eps }, &[x.node], shape);
        Ok(self.made(made, x.axes))
    }

    pub(super) fn group_norm(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        if self.opset < 21 {
            return Err(Error::config("has one scale a group before version 21, which is not known here"));
        }
        at.pass("stash_type");
        let eps = at.float("epsilon")?.unwrap_or(1e-5);
        let groups = at.int("num_groups")?.unwrap_or(0);
        let (x, shape) = self.on_channels(at)?;
        let [weight, bias] = self.per_channel(at, shape.c, ["scale", "shift"])?;
        let groups = usize::try_from(groups).unwrap_or(0);
        let operation = Operation::GroupNorm { groups, weight, bias, eps };
        let made = self.make(at.output(), operation, &[x.node], shape);
        Ok(self.made(made, x.axes))
    }
}
