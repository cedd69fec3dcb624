//! Softmax regression, where the answer is known: after one full exact Newton step on all retained data the weights are
//! nearly those of a model retrained without the samples, after two they are; a voted block of 3 of 10 rows does most
//! of it and more than random rows (MATH.md, Eq. 14; the table is in docs/MEASUREMENTS.md).

use std::path::PathBuf;

use libtest_mimic::{Failed, Trial};
use scrubjay::block::Block;
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::data::{self, Normalise, Samples};
use scrubjay::device::Device;
use scrubjay::net::Network;
use scrubjay::observe::evaluate;
use scrubjay::ops::philox::{Stream, Use};
use scrubjay::select::{Criteria, Method};
use scrubjay::solve::{Limits, Negative, conjugate_gradient};
use scrubjay::task::{Settings, Task};
use scrubjay::unlearn::unlearn;
use scrubjay::zoo;

const L2: f64 = 1e-2;

/// Every case.
pub fn trials() -> Vec<Trial> {
    let data = std::env::var_os("SCRUBJAY_DATA").map(|folder| PathBuf::from(folder).join("mnist"));
    let ignored = data.is_none();
    let title = if ignored { "convex/mnist (SCRUBJAY_DATA is not set)" } else { "convex/mnist" };
    let mnist = move || {
        let normalise = Normalise { mean: Some(vec![0.1307]), std: Some(vec![0.3081]) };
        let path = data.clone().unwrap_or_default().join("train-images-idx3-ubyte.gz");
        let all = data::load(&path, &normalise)?;
        check(&all.part(0..2000)?, 0.6)
    };
    vec![
        Trial::test("convex/digits", || check(&data::digits()?, 0.7)),
        Trial::test(title, mnist).with_ignored_flag(ignored),
    ]
}

/// Newton's method to the optimum of mean loss + L2/2 ‖w‖² over these samples.
fn optimum(
    device: &Device,
    start: &Network,
    samples: &Samples,
    indices: &[usize],
) -> Result<Network, Failed> {
    let mut net = start.clone();
    let block = Block::all(&net)?;
    let some = samples.subset(indices);
    for _ in 0..30 {
        let values = block.values(&net);
        let curvature = Curvature::new(device, &net, &block, &some, Kind::Hessian, 1 << 30)?;
        let downhill: Vec<f64> =
            curvature.gradient().iter().zip(&values).map(|(g, w)| -(g + L2 * f64::from(*w))).collect();
        let size = downhill.iter().map(|g| g * g).sum::<f64>().sqrt();
        if size < 1e-6 {
            break;
        }
        let mut room = vec![0.0; values.len()];
        let mut product = |out: &mut Vec<f64>, v: &Vec<f64>| curvature.apply_wide(out, v, &mut room);
        let limits = Limits { tolerance: 1e-3, products: 300 };
        let (step, _) =
            conjugate_gradient(&mut product, &downhill, None, None, L2, Negative::Refuse, limits)?;
        // Halved until the objective falls.
        let objective = |net: &Network, values: &[f32]| -> Result<f64, Failed> {
            let square: f64 = values.iter().map(|w| f64::from(*w).powi(2)).sum();
            Ok(evaluate(device, net, &some)?.mean_loss() + 0.5 * L2 * square)
        };
        let before = objective(&net, &values)?;
        let mut scale = 1.0;
        loop {
            let pairs = values.iter().zip(&step);
            let moved: Vec<f32> = pairs.map(|(w, s)| (f64::from(*w) + scale * s) as f32).collect();
            block.assign(&mut net, &moved);
            if objective(&net, &moved)? <= before + 1e-9 || scale < 1e-3 {
                break;
            }
            scale *= 0.5;
        }
    }
    Ok(net)
}

fn settings(method: Method, max_units: Option<usize>, iterations: usize, seed: u64) -> Settings {
    Settings {
        selection: Criteria { method, max_units, seed, ..Default::default() },
        l2: L2,
        iterations: Some(iterations),
        limits: Limits { tolerance: 1e-5, products: 500 },
        gate: 1.0,
        seed,
        ..Default::default()
    }
}

/// `bound` is on the residual gradient that a voted block of 3 of 10 rows leaves.
fn check(samples: &Samples, bound: f64) -> Result<(), Failed> {
    let device = Device::cpu()?;
    let n = samples.y.len();
    let all: Vec<usize> = (0..n).collect();
    let forget = Stream::new(7, Use::Choice, 0).choose(n, 100);
    let retained: Vec<usize> = (0..n).filter(|i| !forget.contains(i)).collect();
    let start = zoo::create("logistic", samples.shape(), 10, 1)?.network.freeze();
    let original = optimum(&device, &start, samples, &all)?;
    let retrained = optimum(&device, &original, samples, &retained)?;

    let block = Block::all(&original)?;
    let far = |net: &Network| {
        let pairs = block.values(net).into_iter().zip(block.values(&retrained));
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    let residual = |net: &Network| -> Result<f64, Failed> {
        let gradient = block.gradient(&device, net, &samples.subset(&retained))?;
        let full = gradient.iter().zip(block.values(net)).map(|(g, w)| g + L2 * f64::from(w));
        Ok(full.map(|g| g * g).sum::<f64>().sqrt())
    };
    let scrubbed = |settings: Settings| -> Result<Network, Failed> {
        let task = Task::new(&device, samples, retained.clone(), settings);
        let mut net = original.clone();
        let record = unlearn(&task, &mut net, 0, &forget, &[])?;
        if record.removed() { Ok(net) } else { Err(format!("{:?}", record.notes).into()) }
    };

    let one = far(&scrubbed(settings(Method::Full, None, 1, 0))?) / far(&original);
    let two = far(&scrubbed(settings(Method::Full, None, 2, 0))?) / far(&original);
    let before = residual(&original)?;
    // By default as many steps as it takes: the gradient is then a thousandth of what it was.
    let iterated = scrubbed(Settings { iterations: None, ..settings(Method::Full, None, 1, 0) })?;
    let (all_steps, left) = (far(&iterated) / far(&original), residual(&iterated)? / before);
    if !(all_steps <= two.max(1e-3) && left <= 1.1e-3) {
        return Err(format!("iterated: distance {all_steps:.5}, residual {left:.5}").into());
    }
    let voted = residual(&scrubbed(settings(Method::Vote, Some(3), 1, 0))?)? / before;
    let mut random = 0.0;
    for seed in 0..3 {
        random += residual(&scrubbed(settings(Method::Random, Some(3), 1, seed))?)? / before / 3.0;
    }
    println!(
        "distance after one step {one:.4}, two {two:.4}; residual gradient: voted rows {voted:.3}, random {random:.3}"
    );
    if one.is_nan() || one > 0.06 || two.is_nan() || two > 0.01 {
        return Err(format!("distance {one:.4} after one step, {two:.4} after two").into());
    }
    if voted.is_nan() || voted > bound || voted > 0.9 * random {
        return Err(
            format!("residual gradient {voted:.3} with voted rows, {random:.3} with random ones").into()
        );
    }
    Ok(())
}
