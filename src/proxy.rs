//! Proxy: a model that has not seen the forgotten samples, and its logits on them and on held-out samples.
//!
//! It stands for the model that retraining would give, and is far cheaper: the same architecture trained for a few epochs on
//! retained samples, a model that the user has, or the labels of each sample's nearest retained samples.

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
                let (known, labels) = all(&task.samples.subset(&task.train_on))?;
                let votes = |inputs: &dyn Inputs| -> Result<Vec<f32>> {
                    Ok(votes(&all(inputs)?.0, &known, &labels, net.classes()))
                };
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
    let (known, labels) =
        all(&task.samples.subset(&some.iter().map(|&i| task.train_on[i]).collect::<Vec<_>>()))?;
    let mut asked: Vec<usize> = (0..validation.y.len())
        .filter(|&i| validation.y.class_of(i).is_some_and(|c| labels.contains(&c)))
        .collect();
    stream.shuffle(&mut asked);
    asked.truncate(ASKED);
    let (x, y) = all(&validation.subset(&asked))?;
    let theirs = task.device.scope(|| votes(&x, &known, &labels, classes));
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

/// All inputs `[n, len]` and their classes `[n]`.
fn all(inputs: &dyn Inputs) -> Result<(Vec<f32>, Vec<u32>)> {
    let (mut x, mut y) = (vec![0.0; inputs.len() * inputs.shape().len()], vec![0; inputs.len()]);
    inputs.fill(&mut x, &mut y, 0..inputs.len())?;
    Ok((x, y))
}

/// ln of the smoothed counts of the labels of each input's nearest known samples, `[n, classes]`; ties go to the sample that comes
/// first. x is `[n, len]`, `known` and its `labels` one row each.
fn votes(x: &[f32], known: &[f32], labels: &[u32], classes: usize) -> Vec<f32> {
    let len = known.len() / labels.len().max(1);
    let mut logits = vec![0.0; x.len() / len.max(1) * classes];
    let rows = logits.par_chunks_exact_mut(classes).zip(x.par_chunks_exact(len));
    rows.for_each(|(logits, x)| {
        let mut nearest: Vec<(f32, u32)> = vec![];
        for (other, &label) in known.chunks_exact(len).zip(labels) {
            let distance: f32 = x.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum();
            let place = nearest.partition_point(|&(near, _)| near <= distance);
            if place < NEIGHBOURS {
                nearest.insert(place, (distance, label));
                nearest.truncate(NEIGHBOURS);
            }
        }
        let count = |class: usize| nearest.iter().filter(|(_, label)| *label as usize == class).count();
        logits.iter_mut().enumerate().for_each(|(c, z)| *z = (count(c) as f64 + SMOOTHING).ln() as f32);
    });
    logits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_vote_with_their_labels() {
        let known: Vec<f32> = (0..30).map(|i| i as f32).collect();
        let labels: Vec<u32> = (0..30).map(|i| u32::from(i >= 12)).collect();
        let logits = votes(&[-1.0, 29.0, 11.6], &known, &labels, 3);
        let counts: Vec<f64> = logits.iter().map(|&z| f64::from(z).exp() - SMOOTHING).collect();
        // Of 11.6 the nearest are 7 to 16.
        for (found, expected) in counts.iter().zip([10.0, 0.0, 0.0, 0.0, 10.0, 0.0, 5.0, 5.0, 0.0]) {
            assert!((found - expected).abs() < 1e-5, "{counts:?}");
        }
    }
}
