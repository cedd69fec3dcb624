//! Several ranks have the bits of one, in every seam: here as threads of this process.

use std::sync::atomic::AtomicBool;

use scrubjay::Result;
use scrubjay::block::Block;
use scrubjay::codec::{Columns, FociOptions, Measure, Standardize, StatisticOptions, Ties, foci, p_value};
use scrubjay::communicator::Communicator;
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::data::{self, Samples};
use scrubjay::device::Device;
use scrubjay::evidence::select;
use scrubjay::kfac::Kfac;
use scrubjay::net::{Network, TrainPass, UnitId};
use scrubjay::observe::{evaluate, observe};
use scrubjay::ops::optimizer::{Optimizer, Update};
use scrubjay::select::Criteria;
use scrubjay::zoo;

#[cfg(unix)]
use crate::tiny;

/// What `work` gives alone must be what it gives on every one of several ranks.
fn same<R: PartialEq + Send>(what: &str, work: impl Fn(&Device) -> Result<R> + Sync) {
    let device = || Device::on_cpu(1, "a test").unwrap();
    let alone = work(&device()).unwrap();
    for size in 1..=4 {
        let found = Communicator::in_threads(size, |ranks| work(&device().among(ranks)?));
        assert_eq!(found.len(), size);
        for (rank, found) in found.into_iter().enumerate() {
            assert!(found.unwrap() == alone, "{what}: rank {rank} of {size}");
        }
    }
}

fn digits(n: usize) -> Samples {
    data::digits().unwrap().part(0..n).unwrap()
}

fn network(arch: &str, samples: &Samples) -> Network {
    zoo::create(arch, samples.kind, 10, 3).unwrap().network
}

#[test]
fn derivatives_are_those_of_one_rank() {
    // 90 images make several chunks of a lane, 3 fewer lanes than ranks.
    for n in [90, 3] {
        let samples = digits(n);
        let net = network("cnn:4-6+8", &samples).freeze();
        let block = Block::of(&net, &[2, 0, 11, 20].map(UnitId)).unwrap();
        let v: Vec<f32> = (0..block.len()).map(|i| (i as f32 * 0.7).sin()).collect();
        // What is kept of the chunks changes no bit.
        for memory in [0, 40_000, 1 << 30] {
            same("curvature", |device| {
                let curvature = Curvature::new(device, &net, &block, &samples, Kind::Hessian, memory)?;
                let mut hv = vec![0.0; block.len()];
                curvature.apply(&mut hv, &v)?;
                Ok((curvature.gradient().to_vec(), hv))
            });
        }
        same("a gradient and moments", |device| {
            let kfac = Kfac::new(device, &net, &block, &samples, 5)?;
            let moments: Vec<f64> = kfac.moments().flatten().flatten().copied().collect();
            Ok((block.gradient(device, &net, &samples)?, moments))
        });
        same("outputs", |device| Ok((observe(device, &net, &samples)?, evaluate(device, &net, &samples)?)));
    }
}

#[test]
fn training_is_that_of_one_rank() {
    let samples = digits(44);
    // With batch norms, whose sums are over the whole batch; batches of 20, 20 and 4, of which the last has few chunks.
    for (arch, optimizer) in [("resnet20", Optimizer::Sgd), ("cnn:4+8", Optimizer::Adam)] {
        same(arch, |device| {
            let mut net = network(arch, &samples);
            let mut pass = TrainPass::new(device, &mut net, 20, optimizer)?;
            let mut seen = vec![];
            for (i, batch) in [0..20, 20..40, 40..44].into_iter().enumerate() {
                seen.push(pass.step(&samples.part(batch)?)?);
                seen.push(scrubjay::net::Step { loss: pass.clip(1.0)?, correct: 0 });
                pass.update(&Update { rate: 0.05, momentum: 0.9, decay: 1e-3, step: i as i32 + 1 })?;
            }
            Ok((pass.state()?.memory.concat(), pass.network()?.clone(), seen))
        });
    }
}

#[test]
fn selections_are_those_of_one_rank() {
    let samples = digits(60);
    let n = samples.y.len();
    let pixels = Columns::from_rows_f32(&samples.x, n, 64, 64).unwrap();
    let few = Columns::from_rows_f32(&samples.x[20..], n - 1, 3, 64).unwrap();
    let y: Vec<f64> = samples.y.words().iter().map(|&y| f64::from(y)).collect();
    let groups = [vec![20, 21], vec![10], vec![43, 44, 45], vec![50]];
    for options in [
        FociOptions { max_features: Some(4), ..FociOptions::default() },
        FociOptions {
            all: true,
            ties: Ties::First,
            initial: &[36],
            max_features: Some(3),
            ..FociOptions::default()
        },
        FociOptions { groups: &groups, standardize: Standardize::Scale, ..FociOptions::default() },
    ] {
        same("foci", |device| foci(device, &y, &pixels, &options));
    }
    let of_pixels = |measure| StatisticOptions { measure, ..StatisticOptions::default() };
    for measure in [Measure::Xi, Measure::Codec] {
        same("a p-value", |device| p_value(device, &y, &pixels, &[20], &[], &of_pixels(measure), 30));
    }
    same("foci of few columns", |device| foci(device, &y[1..], &few, &FociOptions::default()));
    let net = network("mlp:12", &samples).freeze();
    let criteria = Criteria { perturbations: Some(40), ..Criteria::default() };
    for request in [&[3, 5, 8, 9, 30][..], &[7]] {
        same("a vote", |device| {
            let criteria = criteria.of_batch(request.len());
            select(device, &net, &samples, request, &criteria, &AtomicBool::new(false))
        });
    }
}

#[test]
fn an_error_in_the_data_of_one_rank_ends_all() {
    let mut samples = digits(40);
    let net = network("mlp:12", &samples).freeze();
    let mut labels = samples.y.words().to_vec();
    labels[39] = 77; // the last rank's
    samples.y = labels.into();
    let found = Communicator::in_threads(3, |ranks| {
        let device = Device::on_cpu(1, "a test")?.among(ranks)?;
        evaluate(&device, &net, &samples).map(drop)
    });
    let words: Vec<String> = found.into_iter().map(|found| found.unwrap_err().to_string()).collect();
    assert!(words.iter().all(|words| words.contains("sample 39")), "{words:?}");
    assert!(words[0].contains("rank 2: ") && !words[2].contains("rank"), "{words:?}");
}

#[cfg(not(feature = "mpi"))]
#[test]
fn a_program_without_mpi_does_not_do_the_work_once_for_every_rank() {
    let program = |ranks: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_scrubjay"));
        command.arg("devices").env("OMPI_COMM_WORLD_SIZE", ranks).env("CUDA_VISIBLE_DEVICES", "");
        let done = command.output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    assert_eq!(program("1").0, Some(0));
    let (code, words) = program("3");
    assert!(code == Some(2) && words.contains("3 ranks") && words.contains("--features mpi"), "{words}");
}

/// Runs the program as two ranks of torchrun; `other` has the words of rank 1. How each ended.
#[cfg(unix)]
fn torchrun(words: &str, other: &str, folder: &tiny::Tiny) -> Vec<(Option<i32>, String, String)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: &str| {
        let words = if rank == "0" { words } else { other };
        let words = words.split_whitespace().map(|word| match word.strip_prefix('@') {
            Some(name) => folder.at(name).into_os_string(),
            None => word.into(),
        });
        let variables =
            [("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", rank), ("MASTER_ADDR", "127.0.0.1")];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_scrubjay"));
        command
            .args(words)
            .envs(variables)
            .env("MASTER_PORT", port.to_string())
            .env("CUDA_VISIBLE_DEVICES", "");
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let ended = |child: std::process::Child| {
        let done = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    ["0", "1"].map(start).into_iter().map(ended).collect()
}

#[cfg(unix)]
#[test]
fn processes_that_torchrun_starts_write_what_one_does() {
    let tiny = tiny::Tiny::new();
    let line = "scrub --model @m.safetensors --data @train.safetensors --forget 0-9 --perturbations 60 --if-empty cheap \
                --despite no-val --device cpu --threads 1 --out";
    let one = tiny.run(&format!("{line} @one"));
    assert!([0, 3].contains(&one.code), "{}", one.err);
    let line = format!("{line} @two");
    let two = torchrun(&line, &line, &tiny);
    assert!(two[0].0 == Some(one.code) && two[1].0 == Some(0), "{two:?}");
    assert!(two[0].2.contains("ranks: 2,") && two[1].1.is_empty() && two[1].2.is_empty(), "{two:?}");
    let model = |out: &str| std::fs::read(tiny.at(out).join("m.safetensors")).unwrap();
    assert!(model("one") == model("two"));
    // Ranks that differ, and a command that is not shared: each says so, and ends.
    let eval = "eval --model @m.safetensors --data @train.safetensors --device cpu --threads 1";
    let differ = torchrun(eval, &format!("{eval} --json"), &tiny);
    assert!(differ[0].0 == Some(2) && differ[0].2.contains("the arguments"), "{differ:?}");
    let alone = torchrun("devices", "devices", &tiny);
    assert!(alone.iter().all(|(code, _, err)| *code == Some(2) && err.contains("not shared")), "{alone:?}");
}
