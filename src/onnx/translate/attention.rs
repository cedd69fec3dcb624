//! Softmax attention as exporters write it: queries times keys, a scale, a softmax over the keys, times values.

use super::super::axes::{self, Axis, Factor, Run};
use super::at::At;
use super::state::{Held, Part, Scores, Translation, Value};
use crate::error::{Error, Result};
use crate::graph::Operation;
use crate::net::Shape;

/// The number of heads of the axes before tokens and channels, of `width` channels each.
fn heads(lead: &[Axis], width: usize) -> Option<usize> {
    let factors: Vec<Factor> = lead.iter().flatten().copied().collect();
    match factors[..] {
        [] | [Factor { run: Run::Batch, .. }] => Some(1),
        [Factor { run: Run::Channel, size, stride }]
        | [Factor { run: Run::Batch, .. }, Factor { run: Run::Channel, size, stride }]
            if stride == width =>
        {
            Some(size)
        }
        _ => None,
    }
}

fn unknown() -> Error {
    Error::config(
        "multiplies two tensors that depend on the image and are no queries and keys of an attention",
    )
}

impl<'a> Translation<'a> {
    pub(super) fn mat_mul(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let [a, b] = [at.input(0)?, at.input(1)?];
        match (self.held(a)?, self.held(b)?) {
            (Held::Value(_), Held::Constant(matrix)) => {
                let x = self.value(a)?;
                self.linear(at, &x, &matrix, false, None)
            }
            (Held::Value(query), Held::Value(key)) => self.scores(query, key),
            (Held::Scores(scores), Held::Value(_)) => {
                let values = self.value(b)?;
                self.attend(at, &scores, values)
            }
            _ => Err(unknown()),
        }
    }

    /// Queries times keys.
    fn scores(&mut self, query: Value, key: Value) -> Result<Vec<Held>> {
        let slope = |value: &Value| match value.function.linear() {
            Some((slope, 0.0)) => Ok(slope),
            _ => Err(unknown()),
        };
        let factor = slope(&query)? * slope(&key)?;
        let rank = query.axes.len();
        if rank < 3 || key.axes.len() != rank {
            return Err(unknown());
        }
        let (lead, last) = query.axes.split_at(rank - 2);
        let (tokens, width) = (axes::length(&last[0]), axes::length(&last[1]));
        let expected = [axes::over(Run::Position, tokens, 1), axes::over(Run::Channel, width, 1)];
        let whole = [&query, &key].iter().all(|value| self.made[value.node].shape.positions() == tokens);
        let fits = *last == expected
            && key.axes[rank - 2..] == [expected[1].clone(), expected[0].clone()]
            && key.axes[..rank - 2] == *lead;
        let heads = heads(lead, width).filter(|_| fits && whole && tokens > 1).ok_or_else(unknown)?;
        let part = |value: &Value| Part { node: value.node, first: value.first };
        let (query, key) = (part(&query), part(&key));
        let scores = Scores { query, key, heads, width, tokens, rank, factor, is_softmax: false };
        Ok(vec![Held::Scores(scores)])
    }

    /// Scores times a number.
    pub(super) fn scaled_scores(&self, scores: Scores, by: f64) -> Result<Vec<Held>> {
        match scores.is_softmax {
            false => Ok(vec![Held::Scores(Scores { factor: scores.factor * by, ..scores })]),
            true => Err(Error::config("scales the weights of an attention, which is not known here")),
        }
    }

    pub(super) fn softmax(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let name = at.input(0)?;
        let axis = at.int("axis")?;
        let last = |rank: usize| {
            let axis = axis.unwrap_or(if self.opset < 13 { 1 } else { -1 });
            axis == -1 || axis == rank as i64 - 1
        };
        match self.held(name)? {
            Held::Scores(scores) if last(scores.rank) && at.node.op == "Softmax" && !scores.is_softmax => {
                Ok(vec![Held::Scores(Scores { is_softmax: true, ..scores })])
            }
            Held::Value(value)
                if last(value.axes.len())
                    && self.graph.outputs.iter().any(|output| output == at.output()) =>
            {
                let op = at.node.op.to_lowercase();
                self.notes.push(format!("the {op} at the end is left out: the loss takes logits"));
                Ok(vec![Held::Value(value)])
            }
            _ => Err(Error::config("is neither that of an attention nor the last node, over the last axis")),
        }
    }

    /// Weights times values: the attention.
    fn attend(&mut self, at: &At<'a>, scores: &Scores, values: Value) -> Result<Vec<Held>> {
        let Scores { query, key, heads: count, width, tokens, rank, factor, is_softmax } = *scores;
        let of_values = Part { node: values.node, first: values.first };
        let shape = self.made[values.node].shape;
        let fits = values.axes.len() == rank
            && values.axes[rank - 2..]
                == [axes::over(Run::Position, tokens, 1), axes::over(Run::Channel, width, 1)]
            && heads(&values.axes[..rank - 2], width) == Some(count)
            && shape.positions() == tokens;
        if !fits || !is_softmax {
            return Err(Error::config(
                "multiplies weights that are no softmax of scores, or no values for them",
            ));
        }
        let wanted = 1.0 / (width as f64).sqrt();
        if (factor / wanted - 1.0).abs() > 1e-5 {
            return Err(Error::config(format!(
                "is an attention whose scores are scaled by {factor}, and only 1/sqrt({width}) is known here"
            )));
        }
        let all = count * width;
        let parts = [query, key, of_values];
        let packed = parts == [0, 1, 2].map(|i| Part { node: query.node, first: i * all })
            && self.made[query.node].shape.c == 3 * all;
        let to = Shape { c: all, ..shape };
        let node = if packed {
            query.node
        } else if parts.iter().all(|part| part.first == 0 && self.made[part.node].shape == to) {
            let nodes = parts.map(|part| part.node);
            self.make(&format!("{}~qkv", at.output()), Operation::Concat, &nodes, Shape { c: 3 * all, ..to })
        } else {
            return Err(Error::config("is an attention whose queries, keys and values lie in another order"));
        };
        let made = self.make(at.output(), Operation::Attention { heads: count }, &[node], to);
        Ok(self.made(made, values.axes))
    }
}
