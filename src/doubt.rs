//! Doubts: what speaks against a request, its model or its data before a batch is removed. Each is found by a stated test
//! (docs/REPORT.md lists them) and reported with its numbers. Three of them refuse a request, unless `--despite` names them.

use rayon::prelude::*;

use crate::data::{InputKind, Inputs, Labels, Samples};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::{COMPARED, Memory};
use crate::net::{Network, evaluate};
use crate::ops::philox::{Stream, Use};
use crate::options::Doubt;
use crate::request::Request;
use crate::session::Session;

/// A model is near chance where its accuracy is beyond the commonest class's share by no more than this part of the rest.
const NEAR: f64 = 0.1;
/// Below this part of the rest, the accuracy on retained samples is a reason to look.
const LOW: f64 = 0.5;
/// Fewest samples that an accuracy is judged by.
const JUDGED: usize = 10;
/// Retained samples, for each class, below which there are few.
const PER_CLASS: usize = 10;
/// The share of a class beyond which a request takes most of it.
const MOST: f64 = 0.5;
/// By how much more than chance explains two sets must differ to be reported as different.
const APART: f64 = 0.1;

/// What is to be known of a request, its model and its data before the first batch: warnings, in words.
///
/// # Errors
/// Where there is no memory for the request or the model is near chance, and the request is not made despite that; where a pass
/// fails.
pub fn doubts(session: &Session, request: &Request) -> Result<Vec<String>> {
    Ok([of_memory(session, request)?, of_request(session, request), of_model(session, request)?].concat())
}

/// Whether the machine has the memory that the request takes.
fn of_memory(session: &Session, request: &Request) -> Result<Vec<String>> {
    match Memory::of(session, request)?.refusal(request.settings.hold.is_some()) {
        Some(reason) if !request.options.is_despite(Doubt::Memory) => Err(Error::config(reason)),
        reason => Ok(reason.into_iter().collect()),
    }
}

/// What needs no pass of the model.
fn of_request(session: &Session, request: &Request) -> Vec<String> {
    let (labels, mut found) = (&session.samples().y, vec![]);
    let few = PER_CLASS * session.network().classes();
    let gone = request.forget.len() + session.forgotten().len();
    let (kept, others) = (request.train_on.len(), request.n - gone);
    if request.settings.hold.is_some() && 2 * kept < others {
        found.push(format!(
            "{kept} of the {others} samples that the model keeps are given: a proxy that is trained on so few is weak; \
             --proxy takes a model that was trained on more without the samples"
        ));
    } else if kept < few {
        found.push(format!("{kept} retained samples are few; {few} are better, {PER_CLASS} of each class"));
    }
    found.extend(most_of_a_class(labels, &request.forget, session.forgotten()));
    if let Some(validation) = session.validation() {
        found.extend(other_labels(labels, &validation.y, session.network().classes()));
    }
    found
}

/// A class of which a request takes most, but not all; `before` went earlier.
fn most_of_a_class(labels: &Labels, forget: &[usize], before: &[usize]) -> Option<String> {
    let count = |of: &mut dyn Iterator<Item = usize>| {
        let mut counts = std::collections::BTreeMap::new();
        of.filter_map(|i| labels.class_of(i)).for_each(|class| *counts.entry(class).or_insert(0) += 1);
        counts
    };
    let mut there = (0..labels.len()).filter(|i| before.binary_search(i).is_err());
    let (all, gone) = (count(&mut there), count(&mut forget.iter().copied()));
    let most =
        |&(class, gone): &(&u32, &usize)| *gone < all[class] && *gone as f64 > MOST * all[class] as f64;
    gone.iter().find(most).map(|(class, gone)| {
        format!(
            "{gone} of the {} samples of class {class} are to be removed: what is left of a class says little of those \
             that go; --forget class:{class} removes it whole",
            all[class]
        )
    })
}

/// The shares of the classes among validation samples, where they are not those of the training data: half the sum of the
/// differences, beyond what the draw of the smaller set explains.
fn other_labels(ours: &Labels, theirs: &Labels, classes: usize) -> Option<String> {
    let shares = |labels: &Labels| -> Option<Vec<f64>> {
        let mut counts = vec![0.0; classes];
        for i in 0..labels.len() {
            *counts.get_mut(labels.class_of(i)? as usize)? += 1.0 / labels.len() as f64;
        }
        Some(counts)
    };
    let (ours, validation) = (shares(ours)?, shares(theirs)?);
    let n = theirs.len() as f64;
    let apart = 0.5 * ours.iter().zip(&validation).map(|(a, b)| (a - b).abs()).sum::<f64>();
    let drawn = ours.iter().map(|p| (p * (1.0 - p) / (2.0 * std::f64::consts::PI * n)).sqrt()).sum::<f64>();
    (apart > APART + 2.0 * drawn).then(|| {
        format!(
            "the classes of the validation samples are not distributed as those of the training data: half the sum \
             of the differences of their shares is {:.0} points, where the draw of {n} explains {:.0}; held-out samples must be drawn as the training samples \
             were",
            100.0 * apart,
            100.0 * drawn
        )
    })
}

/// What the model tells on retained and validation samples, and how these compare.
fn of_model(session: &Session, request: &Request) -> Result<Vec<String>> {
    let (device, net, samples) = (session.device(), session.network(), session.samples());
    let mut found = vec![];
    let retained = Accuracy::of(device, net, &samples.subset(&request.retained))?;
    let seen = session.validation().map(|validation| Accuracy::of(device, net, validation)).transpose()?;
    for (what, accuracy) in [("retained", Some(&retained)), ("validation", seen.as_ref())] {
        let Some(reason) = accuracy.and_then(|accuracy| accuracy.near_chance(what)) else { continue };
        if !request.options.is_despite(Doubt::NearChance) {
            return Err(Error::config(format!("{reason}; --despite near-chance goes on")));
        }
        found.push(reason);
    }
    if found.is_empty() && retained.beyond_chance() < LOW {
        found.push(format!(
            "the model gets only {:.1} % of the retained samples right (the commonest class: {:.1} %): {MISREAD}",
            100.0 * retained.right,
            100.0 * retained.commonest
        ));
    }
    if let Some(validation) = session.validation() {
        let indices: Vec<usize> =
            (0..session.beside().map_or(samples.y.len(), |beside| beside.start)).collect();
        found.extend(other_inputs(device, samples, &indices, validation, request.settings.seed)?);
    }
    Ok(found)
}

const MISREAD: &str = "it may be read as another model than it is (`scrubjay inspect` tells what was read and assumed), or its \
                       data not be normalised as in its training (--mean, --std)";

/// How often a model is right on some samples, and how often the commonest labels would be.
struct Accuracy {
    right: f64,
    commonest: f64,
    n: usize,
}

impl Accuracy {
    fn of(device: &Device, net: &Network, inputs: &dyn Inputs) -> Result<Accuracy> {
        let (scores, width) = (evaluate(device, net, inputs)?, net.label_width());
        let mut rows: Vec<&[u32]> = scores.labels.chunks_exact(width).collect();
        rows.sort_unstable();
        let most = rows.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0);
        Ok(Accuracy {
            right: scores.accuracy(),
            commonest: most as f64 / rows.len().max(1) as f64,
            n: rows.len(),
        })
    }

    /// From 0, the commonest labels' share, to 1, all.
    fn beyond_chance(&self) -> f64 {
        (self.right - self.commonest) / (1.0 - self.commonest).max(f64::EPSILON)
    }

    fn near_chance(&self, what: &str) -> Option<String> {
        let near = self.n >= JUDGED && self.commonest < 1.0 && self.beyond_chance() <= NEAR;
        near.then(|| {
            format!(
                "the model gets {:.1} % of {} {what} samples right, where always answering the commonest class gets {:.1} %: \
                 {MISREAD}",
                100.0 * self.right,
                self.n,
                100.0 * self.commonest
            )
        })
    }
}

/// Whether images of the training data and of the validation data come from one distribution, by their nearest neighbours
/// (Schilling 1986): of as many samples of each, about half have their nearest neighbour in their own set if they do.
fn other_inputs(
    device: &Device,
    samples: &Samples,
    indices: &[usize],
    validation: &Samples,
    seed: u64,
) -> Result<Option<String>> {
    if !matches!(samples.kind, InputKind::Image(_)) {
        return Ok(None);
    }
    let mut stream = Stream::new(seed, Use::Choice, 6);
    let k = COMPARED.min(indices.len()).min(validation.y.len());
    let (ours, theirs) = (stream.choose(indices.len(), k), stream.choose(validation.y.len(), k));
    let ours = ours.iter().map(|&i| samples.image(indices[i])).collect::<Result<Vec<_>>>()?;
    let theirs = theirs.iter().map(|&i| validation.image(i)).collect::<Result<Vec<_>>>()?;
    let share = device
        .scope(|| own_neighbours(&ours.iter().chain(&theirs).map(AsRef::as_ref).collect::<Vec<_>>(), k));
    let (expected, drawn) = ((k as f64 - 1.0) / (2.0 * k as f64 - 1.0), (0.125 / k as f64).sqrt());
    Ok((share > expected + APART + 4.0 * drawn).then(|| {
        format!(
            "the validation samples are not like the training data: {:.0} % of {} samples have their nearest neighbour in their \
             own set, where {:.0} % would in one; held-out samples must be drawn, and normalised, as the training samples were",
            100.0 * share,
            2 * k,
            100.0 * expected
        )
    }))
}

/// The share of rows whose nearest other row is on their side of `border`; of equally near ones the first counts.
fn own_neighbours(rows: &[&[f32]], border: usize) -> f64 {
    let own = (0..rows.len()).into_par_iter().filter(|&i| {
        let distance = |j: usize| rows[i].iter().zip(rows[j]).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let others = (0..rows.len()).filter(|&j| j != i).map(|j| (distance(j), j));
        let nearest = others.min_by(|a, b| a.0.total_cmp(&b.0));
        nearest.is_some_and(|(_, j)| (j < border) == (i < border))
    });
    own.count() as f64 / rows.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Shape;

    /// `n` images of noise about a mean.
    fn noise(n: usize, mean: f32, seed: u32) -> Samples {
        let mut stream = Stream::new(3, Use::Choice, seed);
        let x = (0..16 * n).map(|_| mean + stream.normal()).collect();
        let y: Vec<u32> = (0..n as u32).map(|i| i % 4).collect();
        Samples { kind: Shape::new(4, 4, 1).into(), x, y: y.into(), stream: None }
    }

    #[test]
    fn sets_of_one_distribution_are_not_told_apart_and_others_are() {
        let device = Device::cpu().unwrap();
        for n in [10, 40, 400] {
            let (ours, like, other) = (noise(n, 0.0, 1), noise(n, 0.0, 2), noise(n, 2.0, 3));
            let indices: Vec<usize> = (0..n).collect();
            for seed in 0..5 {
                assert_eq!(other_inputs(&device, &ours, &indices, &like, seed).unwrap(), None, "{n}");
            }
            // Too few samples tell nothing.
            assert_eq!(other_inputs(&device, &ours, &indices, &other, 0).unwrap().is_some(), n > 10, "{n}");
        }
    }

    #[test]
    fn classes_are_compared_by_their_shares() {
        let labels = |counts: [usize; 4]| -> Labels {
            let all = counts.iter().enumerate().flat_map(|(class, &n)| vec![class as u32; n]);
            all.collect::<Vec<_>>().into()
        };
        let even = labels([50; 4]);
        assert_eq!(other_labels(&even, &labels([12, 9, 11, 8]), 4), None);
        assert!(
            other_labels(&even, &labels([25, 5, 5, 5]), 4).is_some_and(|text| text.contains("38 points"))
        );
        let forget: Vec<usize> = (0..30).collect();
        assert!(most_of_a_class(&even, &forget, &[]).is_some_and(|text| text.contains("30 of the 50")));
        assert_eq!(most_of_a_class(&even, &forget[..20], &[]), None);
        assert!(most_of_a_class(&even, &forget[..20], &Vec::from_iter(30..45)).is_some());
        assert_eq!(most_of_a_class(&even, &Vec::from_iter(0..50), &[]), None);
    }

    #[test]
    fn chance_is_the_commonest_class() {
        let of = |right, commonest, n| Accuracy { right, commonest, n };
        assert!(of(0.18, 0.1, 100).near_chance("retained").is_some_and(|text| text.contains("18.0 %")));
        assert!(of(0.25, 0.1, 100).near_chance("retained").is_none());
        assert!(of(0.87, 0.87, 100).near_chance("retained").is_some());
        assert!(of(0.95, 0.87, 100).near_chance("retained").is_none());
        assert!(of(0.0, 0.1, 9).near_chance("retained").is_none());
    }
}
