//! Tokens as channels: a layer over the tokens of each channel, as MLP-Mixer has it, reads them so. Exporters write a transpose,
//! which here moves no value; where its result is multiplied by a matrix, or added to what was not transposed, it is a node.

use super::super::axes::{self, Axis, Run};
use super::super::constant::Constant;
use super::state::{Translation, Value};
use crate::graph::Operation;
use crate::net::Shape;

impl<'a> Translation<'a> {
    /// The axes of the same values with tokens and channels exchanged; none where these are not all of both, each on an axis.
    fn turned_axes(&self, x: &Value) -> Option<Vec<Axis>> {
        let shape = self.made[x.node].shape;
        let (tokens, channels) =
            (axes::over(Run::Position, shape.positions(), 1), axes::over(Run::Channel, shape.c, 1));
        let (as_channels, as_tokens) =
            (axes::over(Run::Channel, shape.positions(), 1), axes::over(Run::Position, shape.c, 1));
        let whole = x.first == 0 && shape.positions() > 1 && shape.c > 1;
        let once = |wanted: &Axis| x.axes.iter().filter(|axis| *axis == wanted).count() == 1;
        let others = |axis: &Axis| axis.iter().all(|factor| factor.run == Run::Batch);
        let turned = x.axes.iter().map(|axis| match axis {
            axis if *axis == tokens => Some(as_channels.clone()),
            axis if *axis == channels => Some(as_tokens.clone()),
            axis => others(axis).then(|| axis.clone()),
        });
        turned.collect::<Option<Vec<Axis>>>().filter(|_| whole && once(&tokens) && once(&channels))
    }

    /// The axes of values that are to be turned because a constant has one value for each of their tokens, on the last axis.
    pub(super) fn turnable(&self, x: &Value, constant: &Constant) -> Option<Vec<Axis>> {
        let tokens = self.made[x.node].shape.positions();
        let (last, others) = constant.shape.split_last()?;
        let fits =
            *last == tokens && others.iter().all(|&side| side == 1) && constant.shape.len() <= x.axes.len();
        self.turned_axes(x).filter(|axes| fits && is_last(axes, Run::Channel))
    }

    /// The values named so with tokens and channels exchanged.
    pub(super) fn turned(&mut self, name: &str, x: &Value, axes: Vec<Axis>) -> Value {
        let shape = self.made[x.node].shape;
        let (image, to) = ([shape.positions(), shape.c], Shape::new(1, shape.c, shape.positions()));
        let operation = Operation::Bands {
            image,
            height: image[0],
            shift: [0; 2],
            back: false,
            shape: [to.h, to.w, to.c],
        };
        let node = self.make(&format!("{name}~turned"), operation, &[x.node], to);
        Value { node, axes, ..x.clone() }
    }

    /// The values named so as rows of channels: turned, where their last axis is that of the tokens.
    pub(super) fn as_rows(&mut self, name: &str, x: &Value) -> Value {
        let c = self.made[x.node].shape.c;
        match self.turned_axes(x) {
            Some(axes) if x.channels(c) != Some(x.axes.len() - 1) && is_last(&axes, Run::Channel) => {
                self.turned(name, x, axes)
            }
            _ => x.clone(),
        }
    }

    /// Two values on the same axes, where tokens and channels are exchanged in one: that whose last axis is no channels is turned.
    pub(super) fn alike(&mut self, names: [&str; 2], x: Value, y: Value) -> [Value; 2] {
        let other = if x.axes == y.axes { None } else { self.turned_axes(&y).filter(|axes| *axes == x.axes) };
        match other {
            None => [x, y],
            Some(axes) if is_last(&x.axes, Run::Channel) => {
                let y = self.turned(names[1], &y, axes);
                [x, y]
            }
            Some(_) => [self.turned(names[0], &x, y.axes.clone()), y],
        }
    }
}

fn is_last(axes: &[Axis], run: Run) -> bool {
    axes.last().is_some_and(|axis| axis.iter().all(|factor| factor.run == run))
}
