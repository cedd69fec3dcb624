//! Proxy: a model that has not seen the forgotten samples, and its logits on them and on held-out samples.
//!
//! It stands for the model that retraining would give, and is far cheaper: the same architecture trained for a few epochs on
//! retained samples, a model that the user has, or the labels of each sample's nearest retained samples.

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::data::{InputKind, Inputs, Samples};
use crate::error::{Error, Result, check_stop};
use crate::net::{Network, outputs};
use crate::ops::philox::{Stream, Use};
use crate::soft_label::Answers;
use crate::task::{HoldSettings, ProxyKind, Task};
use crate::train::{Recipe, train};
use crate::zoo::renewed;

/// Nearest retained samples whose labels count, and what is added to every class's count.
const NEIGHBOURS: usize = 10;
const SMOOTHING: f64 = 0.5;

/// What a proxy answers.
pub struct Proxy {
    /// Logits on the forgotten samples, `[m, classes]`.
    pub forgotten: Vec<f32>,
    /// On the validation samples, `[n, classes]`.
    pub held_out: Vec<f32>,
}

impl Proxy {
    /// The proxy of a request on the samples `indices`; batch `number` gives its training a seed of its own. `each` is called
    /// after every epoch of it.
    ///
    /// # Errors
    /// Where training fails or diverges, samples do not fit, or the user stops.
    pub fn of(
        task: &Task,
        net: &Network,
        hold: &HoldSettings,
        validation: &Samples,
        indices: &[usize],
        number: usize,
        each: &mut dyn FnMut(),
    ) -> Result<Proxy> {
        let forgotten = task.samples.subset(indices);
        let answers = |model: &Network| -> Result<Proxy> {
            Ok(Proxy {
                forgotten: outputs(task.device, model, &forgotten)?.logits,
                held_out: outputs(task.device, model, validation)?.logits,
            })
        };
        match hold.proxy {
            ProxyKind::Trained => {
                let seed = hold.recipe.seed.wrapping_add(1 + number as u64);
                let recipe = Recipe { seed, ..hold.recipe.clone() };
                let mut model = renewed(net, seed);
                let mut done = |_: &Network, _| {
                    each();
                    check_stop(task.stop).map(|()| true)
                };
                train(task.device, &mut model, task.samples, &task.train_on, &recipe, &mut done)
                    .map_err(|error| error.during("training of the proxy"))?;
                answers(&model.freeze())
            }
            ProxyKind::Given => {
                let model = task.proxy.ok_or_else(|| Error::config("no model was given as the proxy"))?;
                answers(model)
            }
            ProxyKind::Neighbours => {
                let known = task.samples.subset(&task.train_on);
                let votes = |inputs: &dyn Inputs| votes(inputs, &known, net.classes());
                task.device
                    .scope(|| Ok(Proxy { forgotten: votes(&forgotten)?, held_out: votes(validation)? }))
            }
        }
    }
}

/// Held-out and retained samples that a proxy is compared with neighbours on.
const ASKED: usize = 300;
const KNOWN: usize = 3000;

/// That neighbours of the retained samples are right on more held-out images than the proxy, in words; by a share of more than
/// 1/√n, on n of at most 300 images of classes that are retained, whose neighbours are sought among at most 3,000.
pub fn weaker_than_neighbours(
    task: &Task,
    hold: &HoldSettings,
    proxy: &Proxy,
    validation: &Samples,
    classes: usize,
) -> Result<Option<String>> {
    if hold.proxy == ProxyKind::Neighbours || !matches!(validation.kind, InputKind::Image(_)) {
        return Ok(None);
    }
    let mut stream = Stream::new(task.settings.seed, Use::Choice, 7);
    let some = stream.choose(task.train_on.len(), KNOWN.min(task.train_on.len()));
    let some: Vec<usize> = some.into_iter().map(|i| task.train_on[i]).collect();
    let labels: BTreeSet<u32> = some.iter().filter_map(|&i| task.samples.y.class_of(i)).collect();
    let mut asked: Vec<usize> = (0..validation.y.len())
        .filter(|&i| validation.y.class_of(i).is_some_and(|c| labels.contains(&c)))
        .collect();
    stream.shuffle(&mut asked);
    asked.truncate(ASKED);
    let y: Vec<u32> = asked.iter().filter_map(|&i| validation.y.class_of(i)).collect();
    let theirs =
        task.device.scope(|| votes(&validation.subset(&asked), &task.samples.subset(&some), classes))?;
    let ours: Vec<f32> =
        asked.iter().flat_map(|&i| proxy.held_out[i * classes..(i + 1) * classes].to_vec()).collect();
    let right = |logits: &[f32]| Answers { logits, labels: &y }.accuracy(|_| true);
    let (ours, theirs) = (right(&ours), right(&theirs));
    Ok((theirs - ours > (1.0 / y.len().max(1) as f64).sqrt()).then(|| {
        format!(
            "the proxy is right on {:.1} % of {} held-out samples, their nearest retained samples on {:.1} %: --proxy neighbours \
             or more --proxy-epochs may come closer",
            100.0 * ours,
            y.len(),
            100.0 * theirs
        )
    }))
}

/// The most numbers of inputs that are in memory together, of those asked and of the known.
const AT_ONCE: usize = 1 << 25;

/// ln of the smoothed counts of the labels of each input's nearest known samples, `[n, classes]`; ties go to the sample that comes
/// first.
fn votes(asked: &dyn Inputs, known: &dyn Inputs, classes: usize) -> Result<Vec<f32>> {
    let len = asked.shape().len().max(1);
    let at_once = (AT_ONCE / len).max(1);
    let mut logits = vec![0.0; asked.len() * classes];
    for (first, logits) in (0..).step_by(at_once).zip(logits.chunks_mut(at_once * classes)) {
        let (x, _) = part(asked, first, at_once)?;
        let mut nearest: Vec<Vec<(f32, u32)>> = vec![vec![]; x.len() / len];
        for first in (0..known.len()).step_by(at_once) {
            let (known, labels) = part(known, first, at_once)?;
            nearest.par_iter_mut().zip(x.par_chunks_exact(len)).for_each(|(nearest, x)| {
                for (other, &label) in known.chunks_exact(len).zip(&labels) {
                    let distance: f32 = x.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum();
                    let place = nearest.partition_point(|&(near, _)| near <= distance);
                    if place < NEIGHBOURS {
                        nearest.insert(place, (distance, label));
                        nearest.truncate(NEIGHBOURS);
                    }
                }
            });
        }
        for (logits, nearest) in logits.chunks_exact_mut(classes).zip(nearest) {
            let count = |class: usize| nearest.iter().filter(|(_, label)| *label as usize == class).count();
            logits.iter_mut().enumerate().for_each(|(c, z)| *z = (count(c) as f64 + SMOOTHING).ln() as f32);
        }
    }
    Ok(logits)
}

/// At most `count` inputs from number `first` on, `[n, len]`, and their classes `[n]`.
fn part(inputs: &dyn Inputs, first: usize, count: usize) -> Result<(Vec<f32>, Vec<u32>)> {
    let range = first..inputs.len().min(first + count);
    let (mut x, mut y) = (vec![0.0; range.len() * inputs.shape().len()], vec![0; range.len()]);
    inputs.fill(&mut x, &mut y, range)?;
    Ok((x, y))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Shape;

    #[test]
    fn neighbours_vote_with_their_labels() {
        let of = |x: Vec<f32>, y: Vec<u32>| Samples {
            kind: Shape::new(1, 1, 1).into(),
            x,
            y: y.into(),
            stream: None,
        };
        let known = of((0..30).map(|i| i as f32).collect(), (0..30).map(|i| u32::from(i >= 12)).collect());
        let logits = votes(&of(vec![-1.0, 29.0, 11.6], vec![0; 3]), &known, 3).unwrap();
        let counts: Vec<f64> = logits.iter().map(|&z| f64::from(z).exp() - SMOOTHING).collect();
        // Of 11.6 the nearest are 7 to 16.
        for (found, expected) in counts.iter().zip([10.0, 0.0, 0.0, 0.0, 10.0, 0.0, 5.0, 5.0, 0.0]) {
            assert!((found - expected).abs() < 1e-5, "{counts:?}");
        }
    }
}
