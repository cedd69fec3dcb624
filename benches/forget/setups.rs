//! The set-ups: data, models, requests, and what is measured of a model.

use std::path::Path;
use std::time::Instant;

use scrubjay::block::Block;
use scrubjay::curvature::{Curvature, Kind as Matrix};
use scrubjay::data::{self, Inputs, Normalise, Samples};
use scrubjay::device::Device;
use scrubjay::net::Network;
use scrubjay::observe::{Scores, evaluate};
use scrubjay::ops::philox::{Stream, Use};
use scrubjay::solve::{Limits, Negative, conjugate_gradient};
use scrubjay::train::{Recipe, train};
use scrubjay::verify::{self, Measures};
use scrubjay::{Result, zoo};

/// What is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Request {
    /// So many random samples.
    Random(usize),
    /// All samples of a class.
    Class(u32),
    /// All samples with a wrong label.
    Wrong,
}

impl Request {
    /// Its name in the table.
    pub fn name(self) -> String {
        match self {
            Request::Random(count) => format!("{count} random"),
            Request::Class(class) => format!("class {class}"),
            Request::Wrong => "mislabelled".into(),
        }
    }
}

/// One row of the list of set-ups.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its letter.
    pub letter: char,
    /// Its model, as `zoo::create` reads it.
    pub arch: &'static str,
    /// Samples to train on.
    pub n: usize,
    /// Samples that tuning and calibration may see.
    pub held_out: usize,
    /// Samples that only measuring sees.
    pub test: usize,
    /// Training samples with a wrong label.
    pub wrong: usize,
    /// Weight decay.
    pub l2: f64,
    /// Epochs; 0 trains a convex model to its optimum.
    pub epochs: usize,
    /// Retrained models for each draw of a request.
    pub references: usize,
    /// What is removed.
    pub requests: Vec<Request>,
}

/// Seeds of retrained models begin here, so that none begins as an original does.
pub const REFERENCE_SEED: u64 = 1000;

impl Setup {
    /// The set-up of that letter; `quick` is a small cut of it on the digits that ship with scrubjay.
    pub fn of(letter: char, quick: bool) -> Option<Setup> {
        use Request::{Class, Random, Wrong};
        let (arch, small, wrong, l2, epochs, requests) = match letter {
            'A' => ("logistic", "logistic", 0, 1e-2, 0, vec![Random(25), Random(100), Class(3)]),
            'B' => ("mlp:100", "mlp:24", 0, 5e-4, 40, vec![Random(25), Random(100), Class(3)]),
            'N' => ("mlp:100", "mlp:24", 1, 5e-4, 40, vec![Random(100), Wrong]),
            'C' => ("cnn:8-16-16+64", "cnn:4-8+16", 0, 5e-4, 30, vec![Random(100), Class(3)]),
            'M' => ("mlp:100", "mlp:24", 0, 5e-4, 40, vec![Random(1000)]),
            _ => return None,
        };
        let few = requests.iter().map(|&request| match request {
            Random(_) if letter == 'M' => Random(60),
            Random(_) => Random(25),
            other => other,
        });
        let mut few: Vec<Request> = few.collect();
        few.dedup();
        let references = if letter == 'A' { 1 } else { 4 };
        Some(match quick {
            true => Setup {
                letter,
                arch: small,
                n: 900,
                held_out: 400,
                test: 497,
                wrong: 25 * wrong,
                l2,
                epochs: epochs.min(10),
                references: references.min(2),
                requests: few,
            },
            false => Setup {
                letter,
                arch,
                n: if letter == 'A' { 2000 } else { 5000 },
                held_out: 2000,
                test: 4000,
                wrong: 250 * wrong,
                l2,
                epochs,
                references,
                requests,
            },
        })
    }

    /// Whether the model is convex: then it is one model for all seeds, and a seed draws the request.
    pub fn convex(&self) -> bool {
        self.epochs == 0
    }

    /// The seed that an original is trained with.
    pub fn original(&self, seed: u64) -> u64 {
        if self.convex() { 0 } else { seed }
    }

    /// How its models are trained.
    pub fn recipe(&self, seed: u64) -> Recipe {
        Recipe {
            epochs: self.epochs.max(1),
            batch: 64,
            rate: 0.05,
            weight_decay: self.l2 as f32,
            seed,
            ..Recipe::default()
        }
    }

    /// A new model, frozen.
    pub fn fresh(&self, data: &Data, seed: u64) -> Result<Network> {
        Ok(zoo::create(self.arch, data.train.shape(), 10, seed)?.network.freeze())
    }

    /// A model trained on the samples at `indices`, frozen.
    pub fn trained(&self, device: &Device, data: &Data, indices: &[usize], seed: u64) -> Result<Network> {
        if self.convex() {
            let start = self.fresh(data, seed)?;
            return optimum(device, start, &data.train.subset(indices), self.l2);
        }
        self.trained_by(device, data, indices, &self.recipe(seed))
    }

    /// A new model trained by a recipe, frozen; its seed is also the model's.
    pub fn trained_by(
        &self,
        device: &Device,
        data: &Data,
        indices: &[usize],
        recipe: &Recipe,
    ) -> Result<Network> {
        let mut net = zoo::create(self.arch, data.train.shape(), 10, recipe.seed)?.network;
        train(device, &mut net, &data.train, indices, recipe, &mut |_, _| Ok(true))?;
        Ok(net.freeze())
    }

    /// Seconds of one epoch of training.
    pub fn epoch_seconds(&self, device: &Device, data: &Data) -> Result<f64> {
        let mut net = zoo::create(self.arch, data.train.shape(), 10, 0)?.network;
        let all: Vec<usize> = (0..data.train.y.len()).collect();
        let recipe = Recipe { epochs: 1, ..self.recipe(0) };
        let start = Instant::now();
        train(device, &mut net, &data.train, &all, &recipe, &mut |_, _| Ok(true))?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Newton's method to the optimum of mean loss + l2/2 ‖w‖².
fn optimum(device: &Device, mut net: Network, samples: &dyn Inputs, l2: f64) -> Result<Network> {
    let block = Block::all(&net)?;
    for _ in 0..30 {
        let values = block.values(&net);
        let curvature = Curvature::new(device, &net, &block, samples, Matrix::Hessian, 1 << 30)?;
        let downhill: Vec<f64> =
            curvature.gradient().iter().zip(&values).map(|(g, w)| -(g + l2 * f64::from(*w))).collect();
        if downhill.iter().map(|g| g * g).sum::<f64>().sqrt() < 1e-6 {
            break;
        }
        let mut scratch = vec![0.0; values.len()];
        let mut product = |out: &mut Vec<f64>, v: &Vec<f64>| curvature.apply_wide(out, v, &mut scratch);
        let limits = Limits { tolerance: 1e-3, products: 300 };
        let (step, _) =
            conjugate_gradient(&mut product, &downhill, None, None, l2, Negative::Refuse, limits)?;
        let objective = |net: &Network, values: &[f32]| -> Result<f64> {
            let square: f64 = values.iter().map(|w| f64::from(*w).powi(2)).sum();
            Ok(evaluate(device, net, samples)?.mean_loss() + 0.5 * l2 * square)
        };
        let before = objective(&net, &values)?;
        let mut scale = 1.0;
        loop {
            let moved: Vec<f32> =
                values.iter().zip(&step).map(|(w, s)| (f64::from(*w) + scale * s) as f32).collect();
            block.assign(&mut net, &moved);
            if objective(&net, &moved)? <= before + 1e-9 || scale < 1e-3 {
                break;
            }
            scale *= 0.5;
        }
    }
    Ok(net)
}

/// The samples of a set-up; no sample is in two of the three sets.
pub struct Data {
    /// To train on, with the labels that are trained on.
    pub train: Samples,
    /// Training samples with a wrong label, ascending.
    pub wrong: Vec<usize>,
    /// For tuning and calibration: drawn as the training samples are, wrong labels included.
    pub held_out: Samples,
    /// For measuring.
    pub test: Samples,
}

impl Data {
    /// MNIST from the folder `mnist` of `folder`, or the digits that ship with scrubjay.
    pub fn of(setup: &Setup, folder: Option<&Path>) -> Result<Data> {
        let all = match folder {
            None => data::digits()?,
            Some(folder) => {
                let normalise = Normalise { mean: Some(vec![0.1307]), std: Some(vec![0.3081]) };
                data::load(&folder.join("mnist/train-images-idx3-ubyte.gz"), &normalise)?
            }
        };
        let mut stream = Stream::new(0, Use::Choice, 20);
        let mut order: Vec<usize> = (0..all.y.len()).collect();
        stream.shuffle(&mut order);
        let take = |indices: &[usize]| all.copy(indices);
        let (train, rest) = order.split_at(setup.n);
        let mut train = take(train)?;
        let mut wrong = stream.choose(setup.n, setup.wrong);
        wrong.sort_unstable();
        for &i in &wrong {
            let label = &mut train.y.words_mut()[i];
            *label = (*label + 1 + stream.below(9) as u32) % 10;
        }
        let (held_out, rest) = rest.split_at(setup.held_out);
        let mut held_out = take(held_out)?;
        for i in stream.choose(setup.held_out, setup.wrong * setup.held_out / setup.n) {
            let label = &mut held_out.y.words_mut()[i];
            *label = (*label + 1 + stream.below(9) as u32) % 10;
        }
        Ok(Data { train, wrong, held_out, test: take(&rest[..setup.test])? })
    }

    /// The samples of a request, ascending; a `draw` of its own for each seed of a convex model. Of the mislabelled at
    /// most 100 are asked for.
    pub fn request(&self, request: Request, draw: u64) -> Vec<usize> {
        let n = self.train.y.len();
        let mut indices = match request {
            Request::Random(count) => Stream::new(draw, Use::Choice, 21).choose(n, count),
            Request::Class(class) => (0..n).filter(|&i| self.train.y.has(i, class)).collect(),
            Request::Wrong => self.wrong.iter().copied().take(100).collect(),
        };
        indices.sort_unstable();
        indices
    }

    /// All but these, ascending.
    pub fn others(&self, request: &[usize]) -> Vec<usize> {
        (0..self.train.y.len()).filter(|i| request.binary_search(i).is_err()).collect()
    }
}

/// What a model does, as one line of the results keeps it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Measured {
    /// Accuracy on the forgotten samples, as a share.
    pub forget: f64,
    /// On the retained.
    pub retain: f64,
    /// On the test samples.
    pub test: f64,
    /// Membership by loss: forgotten against test samples, of the same class for a class.
    pub auc: f64,
    /// Mean loss of the forgotten.
    pub forget_loss: f64,
    /// Mean loss of the retained.
    pub retain_loss: f64,
    /// Mean loss of the test samples.
    pub test_loss: f64,
    /// The gap to what the original and the held-out samples predict of a retrained model, in points: what tuning sees.
    pub predicted_gap: f64,
    /// Loss of every forgotten sample.
    pub losses: Vec<f64>,
}

impl Measured {
    /// The four that the gap compares.
    pub fn measures(&self) -> Measures {
        Measures { forget: self.forget, retain: self.retain, test: self.test, auc: self.auc }
    }
}

/// A request on the models of a set-up.
pub struct Case<'a> {
    /// Where to run.
    pub device: &'a Device,
    /// The set-up.
    pub setup: &'a Setup,
    /// Its samples.
    pub data: &'a Data,
    /// The model before.
    pub original: &'a Network,
    /// What kind of request.
    pub request: Request,
    /// Its samples.
    pub forget: Vec<usize>,
    /// All others.
    pub retain: Vec<usize>,
    /// The seed of everything random in a method.
    pub seed: u64,
}

impl Case<'_> {
    /// Losses and labels of held-out samples as the forgotten ones should look: held-out samples; those of the class;
    /// or held-out samples under wrong labels.
    pub fn stand_in(&self) -> Samples {
        let held_out = &self.data.held_out;
        let labels = self.data.train.y.words();
        let mut turn = self.forget.iter().map(|&i| labels[i]).cycle();
        let (mut x, mut y) = (vec![], vec![]);
        for (i, &own) in held_out.y.words().iter().enumerate() {
            let label = match self.request {
                Request::Random(_) => Some(own),
                Request::Class(class) => Some(class).filter(|&class| class == own),
                Request::Wrong => turn.next().filter(|&label| label != own),
            };
            if let Some(label) = label {
                x.extend_from_slice(&held_out.x[i * held_out.shape().len()..][..held_out.shape().len()]);
                y.push(label);
            }
        }
        Samples { kind: held_out.kind, x, y: y.into(), stream: None }
    }

    /// What the unlearned model would measure on held-out samples if it were as predicted: no retrained model is asked.
    fn predicted(&self) -> Result<Measures> {
        let of = |samples: &dyn Inputs| evaluate(self.device, self.original, samples);
        let held_out = of(&self.data.held_out)?;
        let retain = of(&self.data.train.subset(&self.retain))?.accuracy();
        Ok(match self.request {
            Request::Random(_) => {
                Measures { forget: held_out.accuracy(), retain, test: held_out.accuracy(), auc: 0.5 }
            }
            Request::Class(class) => {
                let pairs = held_out.predicted.iter().zip(&held_out.labels);
                let right = pairs.filter(|(p, y)| p == y && **y != class).count();
                Measures { forget: 0.0, retain, test: right as f64 / held_out.labels.len() as f64, auc: 0.5 }
            }
            Request::Wrong => {
                let wrong = of(&self.stand_in())?;
                let auc = verify::auc(&wide(&wrong.losses), &wide(&held_out.losses))?;
                Measures { forget: wrong.accuracy(), retain, test: held_out.accuracy(), auc }
            }
        })
    }

    /// Measures a model.
    pub fn measure(&self, net: &Network) -> Result<Measured> {
        let of = |samples: &dyn Inputs| evaluate(self.device, net, samples);
        let forget = of(&self.data.train.subset(&self.forget))?;
        let retain = of(&self.data.train.subset(&self.retain))?;
        let (held_out, test) = (of(&self.data.held_out)?, of(&self.data.test)?);
        let losses = wide(&forget.losses);
        let mean = |losses: &[f32]| wide(losses).iter().sum::<f64>() / losses.len() as f64;
        let unseen = |scores: &Scores| {
            let all = wide(&scores.losses).into_iter().zip(&scores.labels);
            let some = all.filter(|(_, y)| !matches!(self.request, Request::Class(class) if class != **y));
            some.map(|(loss, _)| loss).collect::<Vec<f64>>()
        };
        let seen = Measures {
            forget: forget.accuracy(),
            retain: retain.accuracy(),
            test: held_out.accuracy(),
            auc: verify::auc(&losses, &unseen(&held_out))?,
        };
        Ok(Measured {
            forget: seen.forget,
            retain: seen.retain,
            test: test.accuracy(),
            auc: verify::auc(&losses, &unseen(&test))?,
            forget_loss: mean(&forget.losses),
            retain_loss: mean(&retain.losses),
            test_loss: mean(&test.losses),
            predicted_gap: verify::average_gap(seen, &[self.predicted()?])?,
            losses,
        })
    }
}

/// In f64; what is no finite number, as of a model that was destroyed, becomes a loss of 1e9.
fn wide(losses: &[f32]) -> Vec<f64> {
    losses.iter().map(|&loss| if loss.is_finite() { f64::from(loss) } else { 1e9 }).collect()
}
