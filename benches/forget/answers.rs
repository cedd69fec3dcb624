//! Rivals that train the forgotten samples towards other answers: SalUn, RUM and ReGUn, each written from its paper.

use scrubjay::Result;
use scrubjay::block::Block;
use scrubjay::net::Network;
use scrubjay::observe::{evaluate, observe};
use scrubjay::ops::philox::{Stream, Use};

use crate::descent::{BATCH, batches, falling, negative, sgd};
use crate::setups::Case;

/// The share of the parameters that SalUn moves.
const SALIENT: f64 = 0.5;

/// SalUn (Fan et al., ICLR 2024): each forgotten sample gets a random label other than its own; the network is trained on these
/// and the retained samples, in one shuffled set. Only the half of the parameters moves in which the gradient of the forgotten
/// samples' loss is largest.
pub fn salun(
    case: &Case,
    net: &mut Network,
    block: &Block,
    forget: &[usize],
    (epochs, rate): (usize, f64),
) -> Result<()> {
    let moves = salient(&block.gradient(case.device, net, &case.data.train.subset(forget))?);
    let (train, classes) = (&case.data.train, net.classes());
    let mut stream = Stream::new(case.seed, Use::Choice, 26);
    let other = |&i: &usize| {
        let own = train.y.words()[i] as usize;
        ((own + 1 + stream.below(classes - 1)) % classes) as u32
    };
    let labels: Vec<u32> = forget.iter().map(other).collect();
    let all: Vec<usize> = case.retain.iter().chain(forget).copied().collect();
    let batches = batches(case, &all, epochs);
    sgd(case, net, block, falling(rate, batches.len()), &mut |net, step| {
        let mut samples = train.copy(&batches[step])?;
        for (word, i) in samples.y.words_mut().iter_mut().zip(&batches[step]) {
            if let Some(at) = forget.iter().position(|other| other == i) {
                *word = labels[at];
            }
        }
        let mut gradient = block.gradient(case.device, net, &samples)?;
        gradient.iter_mut().zip(&moves).filter(|(_, moves)| !**moves).for_each(|(g, _)| *g = 0.0);
        Ok(Some(gradient))
    })
}

/// Which values have a magnitude in the upper [`SALIENT`].
fn salient(gradient: &[f64]) -> Vec<bool> {
    let mut sizes: Vec<f64> = gradient.iter().map(|g| g.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let least = sizes[((1.0 - SALIENT) * sizes.len() as f64) as usize];
    gradient.iter().map(|g| g.abs() >= least).collect()
}

/// RUM (Zhao et al., NeurIPS 2024): the request is refined into thirds by memorisation, for which the loss stands in, and these
/// are unlearned one after another from the least memorised on, by SalUn; or (`mixed`) the least memorised by nothing, the
/// next by SalUn, the most memorised by NegGrad+.
pub fn rum(case: &Case, net: &mut Network, block: &Block, mixed: bool) -> Result<()> {
    // A sample that is memorised is one that a network gets wrong without having seen it: of those that this one was trained on,
    // the ones of larger loss.
    let losses = evaluate(case.device, net, &case.data.train.subset(&case.forget))?.losses;
    let mut order: Vec<usize> = (0..case.forget.len()).collect();
    order.sort_by(|&a, &b| losses[a].total_cmp(&losses[b]));
    for (third, some) in order.chunks(order.len().div_ceil(3)).enumerate() {
        let mut some: Vec<usize> = some.iter().map(|&i| case.forget[i]).collect();
        some.sort_unstable();
        match (mixed, third) {
            (true, 0) => {}
            (true, 2) => negative(case, net, block, &some, 1, 0.3)?,
            _ => salun(case, net, block, &some, (1, 0.02))?,
        }
    }
    Ok(())
}

/// ReGUn (Mirlach, Vogt, Laguna 2026): loss of the retained + KL(q ‖ forgotten), q being the original's mean answer to held-out
/// samples of the forgotten sample's class. (The paper takes one mean over a mini-batch's classes together. By class it comes nearer
/// on random requests, by 12 to 17 points, and is farther only on wrong labels.)
pub fn regun(case: &Case, net: &mut Network, block: &Block, epochs: usize, rate: f64) -> Result<()> {
    let (train, held_out, classes) = (&case.data.train, &case.data.held_out, net.classes());
    let answers = probabilities(&observe(case.device, case.original, held_out)?.logits, classes);
    let of_class = |class: u32| -> Vec<f64> {
        let same = (0..held_out.y.len()).filter(|&i| held_out.y.words()[i] == class);
        let rows: Vec<&[f32]> = same.map(|i| &answers[i * classes..][..classes]).collect();
        let mean = |c: usize| rows.iter().map(|row| f64::from(row[c])).sum::<f64>() / rows.len() as f64;
        (0..classes).map(mean).collect()
    };
    let q: Vec<Vec<f64>> = (0..classes as u32).map(of_class).collect();
    let batches = batches(case, &case.retain, epochs);
    let mut stream = Stream::new(case.seed, Use::Choice, 27);
    sgd(case, net, block, falling(rate, batches.len()), &mut |net, step| {
        let kept = &batches[step];
        let gone = stream.choose(case.forget.len(), BATCH.min(case.forget.len()));
        let gone: Vec<usize> = gone.iter().map(|&i| case.forget[i]).collect();
        // At a label c the gradient of cross-entropy is p − onehot(c): weights q over copies with every label give p − q.
        let mut samples = train.copy(kept)?;
        let mut weights = vec![1.0 / kept.len() as f64; kept.len()];
        for &i in &gone {
            for (class, &q) in q[train.y.words()[i] as usize].iter().enumerate().filter(|(_, q)| **q >= 1e-3)
            {
                samples.x.extend_from_slice(&train.copy(&[i])?.x);
                samples.y.extend(&vec![class as u32].into())?;
                weights.push(q / gone.len() as f64);
            }
        }
        let all = weights.len() as f64;
        let weight = |i: usize, _: f64| all * weights[i];
        Ok(Some(block.weighted_gradient(case.device, net, &samples, Some(&weight))?))
    })
}

/// Softmax of `[n, classes]` logits.
fn probabilities(logits: &[f32], classes: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = row.iter().map(|z| (z - largest).exp()).collect();
        let sum: f32 = powers.iter().sum();
        powers.into_iter().map(move |power| power / sum)
    };
    logits.chunks_exact(classes).flat_map(row).collect()
}
