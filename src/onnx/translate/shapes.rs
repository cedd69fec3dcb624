//! Operators that move, split, join or choose axes, and what exporters compute of shapes.

use super::super::axes::{self, Axis, Factor, Run};
use super::super::constant::{Constant, MOST, Stored, broadcast, concatenated, count};
use super::at::At;
use super::lengths::{reshaped, sizes, squeezed, unsqueezed};
use super::pools::index;
use super::state::{Held, Moment, Stage, Translation, Value, is_integer, stored};
use crate::error::{Error, Result};
use crate::graph::Operation;
use crate::net::Shape;

impl<'a> Translation<'a> {
    pub(super) fn shapes(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        match at.node.op.as_str() {
            "Constant" => return self.given(at),
            "Concat" => return self.concat(at),
            "ConstantOfShape" => return self.filled(at),
            "Range" => return self.range(at),
            "Split" => return self.split(at),
            "Pad" => return self.pad(at),
            _ => {}
        }
        let held = self.held(at.input(0)?)?;
        if at.node.op == "Shape" {
            return self.shape_of(at, &held);
        }
        let one = match (at.node.op.as_str(), held) {
            ("Gather", Held::Value(x)) => self.gather(at, x)?,
            ("Gather", Held::Constant(constant)) => {
                let axis = index(at.int("axis")?.unwrap_or(0), constant.shape.len())?;
                let which = self.constant(at.input(1)?)?;
                let (numbers, values) = (self.integers(at.input(1)?)?, self.numbers(&constant)?);
                let side = constant.shape[axis];
                let numbers =
                    numbers.iter().map(|&number| index(number, side)).collect::<Result<Vec<_>>>()?;
                if which.shape.len() > 1 {
                    return Err(Error::config("gathers by a tensor of several axes"));
                }
                Held::Constant(constant.gathered(axis, &numbers, !which.shape.is_empty(), &values)?)
            }
            ("Slice", held) => self.slice(at, held)?,
            ("Expand", held) => self.expand(at, held)?,
            ("Transpose", held) => self.transpose(at, held)?,
            (_, Held::Value(x)) => Held::Value(self.reshape(at, x)?),
            (_, Held::Moment(Moment { of, stage: stage @ Stage::Quotient(_) })) => {
                Held::Moment(Moment { of: self.reshape(at, of)?, stage })
            }
            (_, Held::Constant(constant)) => {
                let lengths = self.target(at, &constant.shape)?;
                if count(&lengths) != Some(constant.len()) {
                    return Err(Error::config(format!("makes {lengths:?} of {:?}", constant.shape)));
                }
                let reshaped = constant.reshaped(&lengths);
                if reshaped.stored.is_none() && reshaped.values.is_none() {
                    let values = self.numbers(&constant)?;
                    return Ok(vec![Held::Constant(Constant::of(lengths, values)?.whole(constant.integer))]);
                }
                Held::Constant(reshaped)
            }
            _ => return Err(Error::config("changes the axes of a part of an attention or a norm")),
        };
        Ok(vec![one])
    }

    /// The same values on axes of other lengths.
    fn reshape(&mut self, at: &At<'a>, x: Value) -> Result<Value> {
        let from = axes::lengths(&x.axes);
        let lengths = self.target(at, &from)?;
        let reason = "which mixes channels, rows and columns, or the images of a batch";
        let mixed = || Error::config(format!("makes {lengths:?} of {from:?}, {reason}"));
        let axes = axes::regrouped(&x.axes, &lengths).ok_or_else(mixed)?;
        Ok(Value { axes, ..x })
    }

    /// The lengths that a node gives axes of these lengths.
    fn target(&mut self, at: &At<'a>, from: &[usize]) -> Result<Vec<usize>> {
        match at.node.op.as_str() {
            "Flatten" => {
                let axis = at.int("axis")?.unwrap_or(1);
                let axis = if axis == from.len() as i64 { from.len() } else { index(axis, from.len())? };
                let both = count(&from[..axis]).zip(count(&from[axis..]));
                let (rows, row) = both.ok_or_else(|| Error::config(format!("flattens {from:?}")))?;
                Ok(vec![rows, row])
            }
            "Squeeze" | "Unsqueeze" => match (at.node.op == "Squeeze", self.list(at, "axes", 1)?) {
                (true, axes) => squeezed(from, axes),
                (false, Some(axes)) => unsqueezed(from, &axes),
                (false, None) => Err(Error::config("names no axes")),
            },
            _ => {
                let zero_copies = at.int("allowzero")?.unwrap_or(0) == 0;
                let said = self.list(at, "shape", 1)?.ok_or_else(|| Error::config("names no shape"))?;
                reshaped(from, &said, zero_copies)
            }
        }
    }

    /// The constant of a node that holds one.
    fn given(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        if at.has_tensor("value") {
            let name = at.output();
            let found = self.stores.tensors.get(name);
            let found = found.ok_or_else(|| Error::config("holds a tensor in a form that is not read"))?;
            return Ok(vec![Held::Constant(stored(name, found))]);
        }
        let floats = |all: Vec<f32>| all.into_iter().map(f64::from).collect::<Vec<_>>();
        let constant = if let Some(number) = at.float("value_float")? {
            Constant::of(vec![], vec![f64::from(number)])
        } else if let Some(number) = at.int("value_int")? {
            Constant::of(vec![], vec![number as f64]).map(|constant| constant.whole(true))
        } else if let Some(all) = at.ints("value_ints")? {
            let all = all.into_iter().map(|number| number as f64).collect::<Vec<_>>();
            Constant::of(vec![all.len()], all).map(|constant| constant.whole(true))
        } else if let Some(all) = at.floats("value_floats")? {
            Constant::of(vec![all.len()], floats(all))
        } else {
            Err(Error::config("holds a constant of a kind that is not known here"))
        };
        Ok(vec![Held::Constant(constant?)])
    }

    fn filled(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let value = match at.has_tensor("value") {
            true => self.stores.values(at.output())?.first().copied().unwrap_or(0.0),
            false => 0.0,
        };
        let integer = self.stores.tensors.get(at.output()).is_some_and(|found| !found.is_float());
        let sides = sizes(&self.integers(at.input(0)?)?)?;
        let len = count(&sides).filter(|&len| len <= MOST);
        let len = len.ok_or_else(|| Error::config(format!("makes a constant of shape {sides:?}")))?;
        Ok(vec![Held::Constant(Constant::of(sides, vec![value; len])?.whole(integer))])
    }

    fn range(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let mut ends = [0; 3];
        for (i, end) in ends.iter_mut().enumerate() {
            *end = self.integers(at.input(i)?)?.first().copied().unwrap_or(0);
        }
        let [start, end, step] = ends;
        if step <= 0 || end.saturating_sub(start) > MOST as i64 {
            return Err(Error::config(format!("counts from {start} to {end} in steps of {step}")));
        }
        let all: Vec<f64> = (start..end).step_by(step as usize).map(|number| number as f64).collect();
        Ok(vec![Held::Constant(Constant::of(vec![all.len()], all)?.whole(true))])
    }

    fn shape_of(&mut self, at: &At<'a>, held: &Held) -> Result<Vec<Held>> {
        let lengths = match held {
            Held::Value(x) => axes::lengths(&x.axes),
            Held::Constant(constant) => constant.shape.clone(),
            _ => return Err(Error::config("asks for the shape of a part of an attention or a norm")),
        };
        let rank = lengths.len() as i64;
        let end = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
        let (from, to) = (end(at.int("start")?.unwrap_or(0)), end(at.int("end")?.unwrap_or(rank)));
        Ok(vec![Held::Constant(Constant::list(lengths.get(from..to).unwrap_or(&[])))])
    }

    fn transpose(&mut self, at: &At<'a>, held: Held) -> Result<Held> {
        let rank = match &held {
            Held::Value(x) => x.axes.len(),
            Held::Constant(constant) => constant.shape.len(),
            _ => return Err(Error::config("changes the axes of a part of an attention or a norm")),
        };
        let said = at.ints("perm")?.unwrap_or((0..rank as i64).rev().collect());
        let order = said.iter().map(|&axis| index(axis, rank)).collect::<Result<Vec<_>>>()?;
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if sorted != Vec::from_iter(0..rank) {
            return Err(Error::config(format!("has the order {said:?} of {rank} axes")));
        }
        match held {
            Held::Value(x) => {
                let axes = order.iter().map(|&axis| x.axes[axis].clone()).collect();
                Ok(Held::Value(Value { axes, ..x }))
            }
            Held::Constant(constant) => {
                let long = |axis: &&usize| constant.shape[**axis] != 1;
                let moved: Vec<usize> = order.iter().filter(long).copied().collect();
                let shape: Vec<usize> = order.iter().map(|&axis| constant.shape[axis]).collect();
                if moved.is_sorted() {
                    return Ok(Held::Constant(constant.reshaped(&shape)));
                }
                if let (Some(stored), 2) = (&constant.stored, rank) {
                    let stored = Some(Stored { name: stored.name.clone(), transposed: !stored.transposed });
                    return Ok(Held::Constant(Constant {
                        shape,
                        values: None,
                        stored,
                        integer: constant.integer,
                    }));
                }
                let values = self.numbers(&constant)?;
                Ok(Held::Constant(constant.transposed(&order, &values)?))
            }
            other => Ok(other),
        }
    }

    /// One index of an axis, which then has the length 1 or is gone.
    fn gather(&mut self, at: &At<'a>, x: Value) -> Result<Held> {
        let axis = index(at.int("axis")?.unwrap_or(0), x.axes.len())?;
        let which = self.constant(at.input(1)?)?;
        let numbers = self.integers(at.input(1)?)?;
        let length = axes::length(&x.axes[axis]);
        // All of an axis in its order, under other lengths.
        if numbers.len() == length && numbers.iter().copied().eq(0..length as i64) {
            let mut lengths = axes::lengths(&x.axes);
            lengths.splice(axis..axis + 1, which.shape.iter().copied());
            let axes = axes::regrouped(&x.axes, &lengths);
            let axes = axes.ok_or_else(|| Error::config(format!("makes axes of {lengths:?}")))?;
            return Ok(Held::Value(Value { axes, ..x }));
        }
        let (&[number], true) = (&numbers[..], which.shape.len() <= 1) else {
            return Err(Error::config(format!(
                "gathers {} parts of an axis, and one is known here",
                numbers.len()
            )));
        };
        let start = index(number, length)?;
        let mut chosen = self.part(at.input(0)?, x, axis, start, 1)?;
        if which.shape.is_empty() {
            chosen.axes.remove(axis);
        }
        Ok(Held::Value(chosen))
    }

    /// `len` steps of an axis: of channels a part, of tokens a node.
    fn part(&mut self, name: &'a str, x: Value, axis: usize, start: usize, len: usize) -> Result<Value> {
        let whole = axes::length(&x.axes[axis]);
        if (start, len) == (0, whole) {
            return Ok(x);
        }
        match x.axes[axis][..] {
            [Factor { run: Run::Channel, stride, .. }] => {
                let mut axes = x.axes.clone();
                axes[axis] =
                    if len == 1 { vec![] } else { vec![Factor { run: Run::Channel, size: len, stride }] };
                Ok(Value { axes, first: x.first + start * stride, ..x })
            }
            [Factor { run: Run::Position, stride: 1, .. }]
                if self.made[x.node].shape.positions() == whole && (len == 1 || start + len == whole) =>
            {
                let x = self.value(name)?;
                let shape = self.made[x.node].shape;
                let operation = match len {
                    1 => Operation::Token { index: start },
                    _ => Operation::TokensFrom { first: start },
                };
                let node =
                    self.make(&format!("{name}~part"), operation, &[x.node], Shape::new(1, len, shape.c));
                let mut axes = x.axes.clone();
                axes[axis] = axes::over(Run::Position, len, 1);
                Ok(Value { node, axes, ..x })
            }
            _ => Err(Error::config(format!(
                "takes {start} to {} of an axis of {whole}, which is neither of channels, nor one token, nor all tokens \
                 from one on",
                start + len
            ))),
        }
    }

    fn slice(&mut self, at: &At<'a>, held: Held) -> Result<Held> {
        let (Some(starts), Some(ends)) = (self.list(at, "starts", 1)?, self.list(at, "ends", 2)?) else {
            return Err(Error::config("names no starts and ends"));
        };
        let axes = self.list(at, "axes", 3)?.unwrap_or((0..starts.len() as i64).collect());
        let steps = self.list(at, "steps", 4)?.unwrap_or(vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err(Error::config("has lists of different lengths"));
        }
        let mut held = held;
        for (i, &axis) in axes.iter().enumerate() {
            let lengths = match &held {
                Held::Value(x) => axes::lengths(&x.axes),
                Held::Constant(constant) => constant.shape.clone(),
                _ => return Err(Error::config("cuts a part of an attention or a norm")),
            };
            let axis = index(axis, lengths.len())?;
            let side = lengths[axis] as i64;
            if let (Held::Constant(constant), true) = (&held, steps[i] != 1) {
                let (values, which) = (self.numbers(constant)?, stepped(side, starts[i], ends[i], steps[i])?);
                held = Held::Constant(constant.gathered(axis, &which, true, &values)?);
                continue;
            }
            if steps[i] != 1 {
                return Err(Error::config(format!("takes values of an image in steps of {}", steps[i])));
            }
            let end = |at: i64| (if at < 0 { at.saturating_add(side) } else { at }).clamp(0, side) as usize;
            let (from, to) = (end(starts[i]), end(ends[i]));
            if from >= to {
                return Err(Error::config(format!("takes nothing of an axis of {side}")));
            }
            held = match held {
                Held::Value(x) => Held::Value(self.part(at.input(0)?, x, axis, from, to - from)?),
                Held::Constant(constant) if to - from < lengths[axis] => {
                    let values = self.numbers(&constant)?;
                    Held::Constant(constant.gathered(axis, &Vec::from_iter(from..to), true, &values)?)
                }
                other => other,
            };
        }
        Ok(held)
    }

    fn split(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let name = at.input(0)?;
        let Held::Value(x) = self.held(name)? else {
            return Err(Error::config("splits what is no value of a node"));
        };
        let axis = index(at.int("axis")?.unwrap_or(0), x.axes.len())?;
        let (whole, count) = (axes::length(&x.axes[axis]), at.node.outputs.len());
        at.pass("num_outputs"); // as many as there are
        let sizes = match self.list(at, "split", 1)? {
            Some(said) => sizes(&said)?,
            None => {
                let each = whole.div_ceil(count.max(1));
                (0..count).map(|i| each.min(whole.saturating_sub(i * each))).collect()
            }
        };
        let all = sizes.iter().try_fold(0usize, |all, &len| all.checked_add(len));
        if sizes.len() != count || all != Some(whole) || sizes.contains(&0) {
            return Err(Error::config(format!("splits an axis of {whole} in {sizes:?}")));
        }
        let mut start = 0;
        let parts = sizes.into_iter().map(|len| {
            let part = self.part(name, x.clone(), axis, start, len).map(Held::Value);
            start += len;
            part
        });
        parts.collect()
    }

    fn expand(&mut self, at: &At<'a>, held: Held) -> Result<Held> {
        let target = sizes(&self.integers(at.input(1)?)?)?;
        let from = match &held {
            Held::Value(x) => axes::lengths(&x.axes),
            Held::Constant(constant) => constant.shape.clone(),
            _ => return Err(Error::config("repeats a part of an attention or a norm")),
        };
        let same = |skip: usize| {
            target.len() == from.len()
                && (skip..from.len()).all(|axis| target[axis] == 1 || target[axis] == from[axis])
        };
        match held {
            held if same(0) => Ok(held),
            // A row for each image of the batch: the same row.
            Held::Constant(constant) if same(1) && from[0] == 1 && target[0] == self.batch => {
                Ok(Held::Constant(constant))
            }
            Held::Constant(constant) => {
                let ones =
                    (target.clone(), vec![0.0; count(&target).filter(|&len| len <= MOST).unwrap_or(0)]);
                let values = self.numbers(&constant)?;
                let parts = [(constant.shape, values), ones];
                Ok(Held::Constant(broadcast(&parts, |v| v[0])?.whole(constant.integer)))
            }
            _ => Err(Error::config(format!("repeats {from:?} to {target:?}"))),
        }
    }

    fn concat(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let names = (0..at.node.inputs.len()).map(|i| at.input(i)).collect::<Result<Vec<_>>>()?;
        let held = names.iter().map(|name| self.held(name)).collect::<Result<Vec<_>>>()?;
        let said = at.int("axis")?.unwrap_or(1);
        if held.iter().all(|held| matches!(held, Held::Constant(_))) {
            let parts = self.parts(&held)?;
            let rank = parts.first().map_or(0, |part| part.0.len());
            let integer = held.iter().all(is_integer);
            return Ok(vec![Held::Constant(concatenated(&parts, index(said, rank)?)?.whole(integer))]);
        }
        if let Some((name, before)) = names.split_last()
            && matches!(held.first(), Some(Held::Constant(_)))
        {
            return self.tokens_before(at, before, name, said);
        }
        let values = names.iter().map(|name| self.value(name)).collect::<Result<Vec<_>>>()?;
        let shapes: Vec<Shape> = values.iter().map(|value| self.made[value.node].shape).collect();
        let rank = values[0].axes.len();
        let axis = index(said, rank)?;
        let others = |axes: &[Axis]| [&axes[..axis], &axes[axis + 1..]].concat();
        let fits = |(value, shape): (&Value, &Shape)| {
            value.axes.len() == rank
                && value.first == 0
                && value.axes[axis] == axes::over(Run::Channel, shape.c, 1)
                && others(&value.axes) == others(&values[0].axes)
                && (shape.h, shape.w) == (shapes[0].h, shapes[0].w)
        };
        if !values.iter().zip(&shapes).all(fits) {
            return Err(Error::config(format!(
                "joins tensors along axis {said}, which is not that of all channels"
            )));
        }
        let c = shapes.iter().map(|shape| shape.c).sum();
        let nodes: Vec<usize> = values.iter().map(|value| value.node).collect();
        let made = self.make(at.output(), Operation::Concat, &nodes, Shape { c, ..shapes[0] });
        let mut axes = values[0].axes.clone();
        axes[axis] = axes::over(Run::Channel, c, 1);
        Ok(self.made(made, axes))
    }

    /// Learned tokens before others.
    fn tokens_before(
        &mut self,
        at: &At<'a>,
        before: &[&'a str],
        name: &'a str,
        axis: i64,
    ) -> Result<Vec<Held>> {
        let mut x = self.value(name)?;
        let Shape { h, w, c } = self.made[x.node].shape;
        let tokens = |count: usize| axes::over(Run::Position, count, 1);
        let rank = x.axes.len();
        let fits = rank == 3 && x.first == 0 && index(axis, rank)? == 1 && x.channels(c) == Some(2);
        if !fits || x.axes[1] != tokens(h * w) {
            return Err(Error::config("joins a constant with what is no row of tokens"));
        }
        let mut count = h * w;
        for token in before.iter().rev() {
            let constant = self.constant(token)?;
            let more = match constant.shape[..] {
                [1, more, channels] if channels == c && more > 0 => more,
                _ => {
                    let found = &constant.shape;
                    let reason =
                        format!("joins tokens with a constant of shape {found:?}, not [1, any, {c}]");
                    return Err(Error::config(reason));
                }
            };
            let token = self.parameter(&constant, &[1, more, c])?;
            count += more;
            x.node =
                self.make(at.output(), Operation::ClassToken { token }, &[x.node], Shape::new(1, count, c));
        }
        x.axes[1] = tokens(count);
        Ok(vec![Held::Value(x)])
    }
}

/// The places along an axis of that side, from `start` on to before `end` in steps.
fn stepped(side: i64, start: i64, end: i64, step: i64) -> Result<Vec<usize>> {
    let place = |at: i64| if at < 0 { at.saturating_add(side) } else { at };
    let (start, end) = match step {
        1.. => (place(start).clamp(0, side), place(end).clamp(0, side)),
        _ => (place(start).clamp(-1, side - 1), place(end).clamp(-1, side - 1)),
    };
    let back = std::iter::successors(Some(start), |at| at.checked_add(step));
    let places = back.take_while(|&at| if step > 0 { at < end } else { at > end });
    match step {
        0 => Err(Error::config("takes steps of 0")),
        _ => Ok(places.map(|at| at as usize).collect()),
    }
}
