//! What sharing costs: gradients and products, passes, FOCI and training, on one rank and on two that are threads of this
//! process, with one thread each; and on one rank with two threads. The results must be the same bits.
//!
//!     cargo run --release --example ranks [REPEATS]
//!
//! Seconds by the clock say how much is gained where two cores are free. Seconds of the CPU say what is done twice, or for the
//! exchange alone; they hold on a busy machine too, because ranks that are threads sleep while they wait.

use std::time::Instant;

use scrubjay::Result;
use scrubjay::block::Block;
use scrubjay::codec::{Columns, FociOptions, foci};
use scrubjay::communicator::Communicator;
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::data::{self, Samples};
use scrubjay::device::Device;
use scrubjay::net::{Network, UnitId};
use scrubjay::observe::evaluate;
use scrubjay::train::{Recipe, train};
use scrubjay::zoo;

/// What is measured: a digest of the result, the same on every number of ranks.
type Work<'a> = (&'static str, Box<dyn Fn(&Device) -> Result<f64> + Sync + 'a>);

fn main() -> Result<()> {
    let repeats = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5);
    let samples = data::digits()?;
    let net = zoo::create("resnet20", samples.kind, 10, 1)?.network;
    let frozen = net.clone().freeze();
    println!(
        "| work | 1 rank, s | 2 ranks, s | 1 rank of 2 threads, s | efficiency | CPU of 2 ranks over 1 | exchanges | MiB received |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (name, work) in works(&samples, &net, &frozen)? {
        let runs: Vec<[Measured; 3]> = (0..repeats)
            .map(|_| Ok([measure(1, 1, &work)?, measure(2, 1, &work)?, measure(1, 2, &work)?]))
            .collect::<Result<_>>()?;
        let median = |of: &dyn Fn(&[Measured; 3]) -> f64| {
            let mut all: Vec<f64> = runs.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let [one, two, threads] = [0, 1, 2].map(|i| median(&|run| run[i].seconds));
        let cpu = median(&|run| run[1].cpu / run[0].cpu);
        let Measured { exchanges, received, .. } = runs[0][1];
        assert!(runs.iter().flatten().all(|run| run.digest == runs[0][0].digest), "{name}: other bits");
        println!(
            "| {name} | {one:.2} | {two:.2} | {threads:.2} | {:.0} % | {cpu:.2} | {exchanges} | {:.1} |",
            100.0 * one / (2.0 * two),
            received as f64 / f64::from(1 << 20)
        );
    }
    Ok(())
}

fn works<'a>(samples: &'a Samples, net: &'a Network, frozen: &'a Network) -> Result<Vec<Work<'a>>> {
    let block =
        Block::of(frozen, &(0..frozen.units().len() as u32).step_by(5).map(UnitId).collect::<Vec<_>>())?;
    let some = samples.part(0..640)?;
    let indices: Vec<usize> = (0..some.y.len()).collect();
    let (n, p) = (2000, 400);
    // Columns that are no function of one another, and one that is a function of three.
    let value = |i: usize, j: usize| ((i * (2 * j + 7919) + j * j * 31) % 2003) as f64 / 2003.0;
    let columns: Vec<f64> = (0..p).flat_map(|j| (0..n).map(move |i| value(i, j))).collect();
    let y: Vec<f64> = (0..n).map(|i| value(i, 3) + (5.0 * value(i, 50)).sin() * value(i, 300)).collect();
    let some_too = some.clone();
    Ok(vec![
        (
            "20 Hessian-vector products, a fifth of ResNet-20, 640 images",
            Box::new(move |device| {
                let curvature = Curvature::new(device, frozen, &block, &some, Kind::Hessian, 1 << 30)?;
                let (mut v, mut hv) = (vec![1.0f32; block.len()], vec![0.0; block.len()]);
                for _ in 0..20 {
                    curvature.apply(&mut hv, &v)?;
                    let norm = hv.iter().map(|x| x * x).sum::<f64>().sqrt();
                    v.iter_mut().zip(&hv).for_each(|(v, &x)| *v = (x / norm) as f32);
                }
                Ok(hv.iter().sum())
            }),
        ),
        (
            "4 passes of ResNet-20 over 1,797 images",
            Box::new(move |device| (0..4).map(|_| Ok(evaluate(device, frozen, samples)?.mean_loss())).sum()),
        ),
        (
            "FOCI: 4 of 400 columns, 2,000 rows",
            Box::new(move |device| {
                let x = Columns::from_columns_f64(&columns, n, p)?;
                let options = FociOptions { max_features: Some(4), all: true, ..FociOptions::default() };
                Ok(foci(device, &y, &x, &options)?.cumulative.iter().flatten().sum())
            }),
        ),
        (
            "an epoch of ResNet-20, 640 images, batches of 64",
            Box::new(move |device| {
                let (mut net, recipe) = (net.clone(), Recipe { epochs: 1, ..Recipe::default() });
                train(device, &mut net, &some_too, &indices, &recipe, &mut |_, _| Ok(true))?;
                Ok(net.params.iter().flat_map(|param| param.value.iter()).map(|&v| f64::from(v)).sum())
            }),
        ),
    ])
}

#[derive(Clone, Copy)]
struct Measured {
    seconds: f64,
    cpu: f64,
    digest: f64,
    exchanges: u64,
    received: u64,
}

fn measure(ranks: usize, threads: usize, work: &(dyn Fn(&Device) -> Result<f64> + Sync)) -> Result<Measured> {
    let (started, before) = (Instant::now(), cpu_seconds());
    let found = Communicator::in_threads(ranks, |ranks| {
        let device = Device::on_cpu(threads, "a measurement")?.among(ranks.clone())?;
        let digest = work(&device)?;
        Ok((digest, ranks.traffic()))
    });
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - before);
    let found = found.into_iter().collect::<Result<Vec<_>>>()?;
    let (digest, (received, exchanges)) = found[0];
    Ok(Measured { seconds, cpu, digest, exchanges, received })
}

/// Seconds of the CPU that this process has used, where the system tells; else none.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
