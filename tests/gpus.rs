//! Several GPUs of one machine have the bits of one, in every seam and in whole runs: here emulated ones, each in a thread.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use scrubjay::block::Block;
use scrubjay::codec::{Columns, FociOptions, StatisticOptions, Ties, foci, p_value};
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::data::{self, Samples};
use scrubjay::device::{Choice, Device};
use scrubjay::evidence::select;
use scrubjay::kfac::Kfac;
use scrubjay::net::{Network, TrainPass, UnitId};
use scrubjay::observe::{evaluate, observe};
use scrubjay::ops::optimizer::{Optimizer, Update};
use scrubjay::options::{Doubt, ScrubOptions};
use scrubjay::request::Request;
use scrubjay::select::Criteria;
use scrubjay::session::{Session, Sources};
use scrubjay::solve::Vector;
use scrubjay::task::Procedure;
use scrubjay::training::{TrainOptions, Training};
use scrubjay::{Error, Result, zoo};
use serde_json::Value;

use crate::tiny::Tiny;

fn digits(n: usize) -> Samples {
    data::digits().unwrap().part(0..n).unwrap()
}

fn network(arch: &str, samples: &Samples) -> Network {
    zoo::create(arch, samples.kind, 10, 3).unwrap().network
}

/// What `work` gives on one GPU must be what it gives on two and three that are one device.
fn same_on_gpus<R: PartialEq + Send>(what: &str, work: impl Fn(&Device) -> Result<R> + Sync) {
    let alone = work(&Device::emulated(2).unwrap()).unwrap();
    let several = [2, 3].map(|count| Device::emulated_several(2, count).unwrap());
    for device in &several {
        assert!(device.shared(&work).unwrap() == alone, "{what}: {} GPUs", device.count());
    }
    assert!(work(&several[0]).unwrap() == alone, "{what}: each part by itself");
}

#[test]
fn several_gpus_have_the_derivatives_of_one() {
    // Three lanes, of 67, 67 and 66 images.
    let samples = digits(200);
    let net = network("mlp:6", &samples).freeze();
    let block = Block::of(&net, &[2, 0, 8].map(UnitId)).unwrap();
    let v: Vec<f64> = (0..block.len()).map(|i| (i as f64 * 0.7).sin()).collect();
    same_on_gpus("curvature", |device| {
        let curvature = Curvature::new(device, &net, &block, &samples, Kind::Hessian, 0)?;
        let (narrow, mut hv) = (v.iter().map(|&v| v as f32).collect::<Vec<_>>(), vec![0.0; v.len()]);
        curvature.apply(&mut hv, &narrow)?;
        let (right, mut on) = (curvature.block_vector(&v)?, curvature.block_vector(&v)?);
        for _ in 0..3 {
            curvature.product(&mut on, &right)?; // at once, recorded, replayed
        }
        Ok((curvature.gradient().to_vec(), hv, on.values()?))
    });
    same_on_gpus("a gradient, moments and outputs", |device| {
        let kfac = Kfac::new(device, &net, &block, &samples, 5)?;
        let moments: Vec<f64> = kfac.moments().flatten().flatten().copied().collect();
        let outputs = (observe(device, &net, &samples)?, evaluate(device, &net, &samples)?);
        Ok((block.gradient(device, &net, &samples)?, moments, outputs))
    });
}

#[test]
fn several_gpus_train_as_one() {
    let samples = digits(300);
    let trained = |arch: &str, device: &Device, optimizer: Optimizer, batches: &[(usize, usize)]| {
        let mut net = network(arch, &samples);
        let (mut pass, mut seen) = (TrainPass::new(device, &mut net, batches[0].1, optimizer)?, vec![]);
        for (i, &(first, end)) in batches.iter().enumerate() {
            seen.push(pass.step(&samples.part(first..end)?)?);
            seen.push(scrubjay::net::Step { loss: pass.clip(1.0)?, correct: 0 });
            pass.update(&Update { rate: 0.05, momentum: 0.9, decay: 1e-3, step: i as i32 + 1 })?;
        }
        let memory = pass.state()?.memory.concat();
        Ok((memory, pass.network()?.clone(), seen))
    };
    // Batches of three lanes, three, and one.
    let batches = [(0, 200), (100, 300), (200, 300)];
    same_on_gpus("adam", |device| trained("mlp:6", device, Optimizer::Adam, &batches));
    same_on_gpus("sgd", |device| trained("mlp:6", device, Optimizer::Sgd, &batches[1..]));
    // A batch norm reads a whole batch, which every GPU then runs.
    let of_batch_norm = |device: &Device| trained("resnet20", device, Optimizer::Sgd, &[(0, 2)]);
    let alone = of_batch_norm(&Device::emulated(2).unwrap()).unwrap();
    assert!(Device::emulated_several(2, 2).unwrap().shared(of_batch_norm).unwrap() == alone);
}

#[test]
fn several_gpus_select_as_one() {
    let samples = digits(40);
    let n = samples.y.len();
    let pixels = Columns::from_rows_f32(&samples.x, n, 64, 64).unwrap();
    let few = Columns::from_rows_f32(&samples.x[20..], n - 1, 2, 64).unwrap();
    let y: Vec<f64> = samples.y.words().iter().map(|&y| f64::from(y)).collect();
    let groups = [vec![20, 21], vec![10], vec![43, 44, 45], vec![50]];
    for options in [
        FociOptions { max_features: Some(3), ..FociOptions::default() },
        FociOptions { groups: &groups, initial: &[36], ties: Ties::First, ..FociOptions::default() },
    ] {
        same_on_gpus("foci", |device| foci(device, &y, &pixels, &options));
    }
    let options = StatisticOptions::default();
    same_on_gpus("a p-value", |device| p_value(device, &y, &pixels, &[20], &[], &options, 9));
    same_on_gpus("foci of few columns", |device| foci(device, &y[1..], &few, &FociOptions::default()));
    let net = network("mlp:6", &samples).freeze();
    let criteria = Criteria { perturbations: Some(40), ..Criteria::default() }.of_batch(3);
    same_on_gpus("a vote", |device| {
        select(device, &net, &samples, &[3, 5, 8], &criteria, &AtomicBool::new(false))
    });
}

/// The files of a folder, but for seconds and the device in the JSON of some.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = |path: std::path::PathBuf| {
        let (name, mut bytes) =
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap());
        if name == "events.jsonl" {
            let records = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            let record = |line: &[u8]| {
                let mut record: Value = serde_json::from_slice(line).unwrap();
                record.as_object_mut().unwrap().remove("account");
                record.to_string()
            };
            bytes = records.map(record).collect::<String>().into_bytes();
        }
        (name, bytes)
    };
    let told = ["report.json", "report.html", "train.json"];
    let entries = entries.filter(|path| path.is_file());
    entries.map(file).filter(|(name, _)| !told.contains(&name.as_str())).collect()
}

#[test]
fn several_gpus_train_and_scrub_into_the_files_of_one() {
    let (tiny, mut found) = (Tiny::new(), vec![]);
    for count in 1..=3 {
        let at = |name: &str| tiny.at(&format!("{count}-{name}"));
        let device = || Device::emulated_several(2, count).unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let sources = Sources { data: tiny.at("train.safetensors"), ..Sources::default() };
        let options = TrainOptions { epochs: 2, batch_size: 130, ..TrainOptions::default() };
        let training = Training::open(device(), sources, Some("mlp:5"), None, options).unwrap();
        let each = &mut |_: &_| {
            seen.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        training.run(0, &at("model"), &[1], each).unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 2, "the first GPU alone reports");
        let mut all = vec![files(&at("model").join("epoch-1")), files(&at("model"))];
        let base =
            ScrubOptions { gate: 1.0, despite: Some(vec![Doubt::NearChance]), ..ScrubOptions::DEFAULT };
        let hold = ScrubOptions { proxy_epochs: 1, hold_epochs: 1, ..base.clone() };
        let lcodec = ScrubOptions { perturbations: Some(30), products: Some(6), ..base };
        for (how, method, options) in [("hold", Procedure::Hold, hold), ("lcodec", Procedure::Lcodec, lcodec)]
        {
            let sources = Sources {
                validation: Some(tiny.at("train.safetensors")),
                ..Sources::new(at("model"), tiny.at("train.safetensors"))
            };
            let told = seen.clone();
            let session = Session::open(device(), sources).unwrap().on_progress(move |_| {
                told.fetch_add(1, Ordering::Relaxed);
            });
            let options = ScrubOptions { method: Some(method), ..options };
            let request = Request::new(&session, "0-3", &options).unwrap();
            session.run(&request, at(how)).unwrap();
            all.push(files(&at(how)));
        }
        found.push((all, seen.load(Ordering::Relaxed)));
    }
    assert!(found[0].0.iter().all(|files| files.keys().any(|name| name.ends_with(".safetensors"))));
    for (i, other) in found.iter().enumerate().skip(1) {
        assert_eq!(found[0].1, other.1, "what is reported with {} GPUs", i + 1);
        for (one, several) in found[0].0.iter().zip(&other.0) {
            assert!(one == several, "{} GPUs: {:?}", i + 1, several.keys());
        }
    }
}

#[test]
fn an_error_of_one_gpu_ends_all_and_names_it() {
    let samples = digits(130);
    let net = network("mlp:6", &samples).freeze();
    let mut device = Device::cpu().unwrap();
    for which in [0, 1] {
        device = Device::emulated_several(0, 3).unwrap();
        let fails = |device: &Device| {
            if device.ranks().rank() == which {
                device.cuda().unwrap().fail_after(2);
            }
            evaluate(device, &net, &samples)
        };
        let error = device.shared(fails).unwrap_err().to_string();
        assert!(error.contains(&format!("GPU {which}")) && error.contains("as a test asked"), "{error}");
    }
    // The device that failed refuses all else; the others do not wait for it.
    assert!(evaluate(&device, &net, &samples).unwrap_err().to_string().contains("failed before"));
}

#[test]
fn gpus_that_do_not_fit_each_other_are_refused() {
    let gpu = |seed: u64| Device::emulated(seed).unwrap();
    let refused = |gpus: Vec<(usize, Device)>| Device::several(gpus).err().unwrap().to_string();
    assert!(refused(vec![(0, gpu(0)), (3, gpu(1))]).contains("GPU 3 is emulated, seed 1"));
    assert!(refused(vec![(0, gpu(0)), (1, Device::cpu().unwrap())]).contains("1 is the CPU"));
    assert!(refused(vec![]).contains("no GPUs"));
    let little = Device::emulated_with(0, 1 << 20, 1000).unwrap();
    let device = Device::several(vec![(4, gpu(0)), (7, little)]).unwrap();
    device.check_free(900, "the parameters").unwrap();
    match device.check_free(1001, "the parameters") {
        Err(Error::Memory { op, bytes: 1001, free: 1000, .. }) => assert!(op.contains("GPU 7"), "{op}"),
        other => panic!("{other:?}"),
    }
    assert!(Device::open(Choice::Gpus(vec![0, 400]), 1).is_err());
}
