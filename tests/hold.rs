//! The hold: the forgotten end where a model without them would have them, several batches and a stop change nothing, and the
//! record holds all that changed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use scrubjay::block::Block;
use scrubjay::data::{self, Inputs, Samples};
use scrubjay::device::Device;
use scrubjay::evidence;
use scrubjay::hold::hold;
use scrubjay::net::Network;
use scrubjay::observe::evaluate;
use scrubjay::options::{Doubt, ScrubOptions};
use scrubjay::outcome::names_of;
use scrubjay::request::Request;
use scrubjay::select::{Criteria, Method};
use scrubjay::session::{Session, Sources};
use scrubjay::soft_label::Held;
use scrubjay::task::{HoldSettings, Procedure, ProxyKind, Settings, Task};
use scrubjay::train::{self, train};
use scrubjay::{Ended, Result, checkpoint, zoo};

const TRAINED: usize = 900;

fn recipe(epochs: usize, seed: u64) -> train::Recipe {
    train::Recipe { epochs, batch: 32, rate: 0.05, weight_decay: 5e-4, seed, ..train::Recipe::default() }
}

/// The digits to train on, and others.
fn digits() -> Result<[Samples; 2]> {
    let all = data::digits()?;
    Ok([all.part(0..TRAINED)?, all.part(TRAINED..all.y.len())?])
}

/// The threes among those to train on, and the others.
fn threes(samples: &Samples) -> (Vec<usize>, Vec<usize>) {
    (0..TRAINED).partition(|&i| samples.y.has(i, 3))
}

fn trained(device: &Device, arch: &str, samples: &Samples, indices: &[usize], seed: u64) -> Result<Network> {
    let mut net = zoo::create(arch, samples.kind, 10, seed)?.network;
    train(device, &mut net, samples, indices, &recipe(40, seed), &mut |_, _| Ok(true))?;
    Ok(net.freeze())
}

/// Checks that two networks moved from `start`, and are apart by less than a thousandth of that way.
fn check_near(a: &Network, b: &Network, start: &Network) {
    let (mut off, mut way) = (0.0, 0.0);
    for ((a, b), start) in a.params.iter().zip(&b.params).zip(&start.params) {
        for ((a, b), start) in a.value.iter().zip(b.value.iter()).zip(start.value.iter()) {
            off += f64::from(a - b).powi(2);
            way += f64::from(b - start).powi(2);
        }
    }
    assert!(way > 0.0 && (off / way).sqrt() < 1e-3, "{}", (off / way).sqrt());
}

fn settings(proxy: ProxyKind) -> HoldSettings {
    HoldSettings { proxy, recipe: recipe(4, 0), epochs: 4, block: None, selection: None }
}

fn task<'a>(device: &'a Device, samples: &'a Samples, unseen: &'a Samples, retained: Vec<usize>) -> Task<'a> {
    let settings = Settings { hold: Some(settings(ProxyKind::Trained)), gate: 0.1, ..Settings::default() };
    Task { validation: Some(unseen), ..Task::new(device, samples, retained, settings) }
}

fn mean_loss(device: &Device, net: &Network, inputs: &dyn Inputs) -> Result<f64> {
    Ok(evaluate(device, net, inputs)?.mean_loss())
}

#[test]
fn a_class_ends_as_far_away_as_from_a_model_without_it() -> Result<()> {
    let device = Device::cpu()?;
    let [samples, unseen] = digits()?;
    let (class, rest) = threes(&samples);
    let net = trained(&device, "mlp:32", &samples, &Vec::from_iter(0..TRAINED), 1)?;
    let retrained = trained(&device, "mlp:32", &samples, &rest, 2)?;
    let wanted = mean_loss(&device, &retrained, &samples.subset(&class))?;
    assert!(mean_loss(&device, &net, &samples.subset(&class))? < 0.1);
    let right =
        |net: &Network| -> Result<f64> { Ok(evaluate(&device, net, &samples.subset(&rest))?.accuracy()) };
    for proxy in [ProxyKind::Trained, ProxyKind::Neighbours, ProxyKind::Given] {
        let mut task = task(&device, &samples, &unseen, rest.clone());
        task.settings.gate = 1.0; // held-out samples of the class count too
        task.proxy = Some(&retrained);
        let mut moved = net.clone();
        let record = hold(&task, &settings(proxy), &mut moved, 0, &class, Held::default())?;
        assert!(record.removed(), "{:?}", record.notes);
        let account = record.account.hold.as_ref().expect("the account of a hold");
        let found = mean_loss(&device, &moved, &samples.subset(&class))?;
        // None of them is right, as after retraining.
        assert!(account.target.accuracy < 0.05, "{proxy:?}: {:?}", account.target);
        assert!(account.reached.accuracy < 0.05, "{proxy:?}: {:?}", account.reached);
        assert!((account.reached.loss - found).abs() < 1e-3 * found);
        assert!(found > 0.4 * wanted && found < 2.5 * wanted, "{proxy:?}: {found}, retrained {wanted}");
        assert!(
            right(&moved)? > right(&net)? - 0.02,
            "{proxy:?}: {} before, {}",
            right(&net)?,
            right(&moved)?
        );
        // The record alone makes the same model of the one before.
        let mut replayed = net.clone();
        record.replay(&mut replayed)?;
        assert_eq!(replayed, moved);
    }
    Ok(())
}

#[test]
fn batch_norm_is_trained_on_and_its_statistics_are_in_the_record() -> Result<()> {
    let [samples, unseen] = digits()?;
    let [samples, unseen] = [samples.part(0..200)?, unseen.part(0..100)?];
    let (gone, rest) = (Vec::from_iter(0..20), Vec::from_iter(20..200));
    let cpu = Device::cpu()?;
    let net = trained(&cpu, "cnn:4+8", &samples, &Vec::from_iter(0..200), 1)?;
    let run = |device: &Device| -> Result<Network> {
        let mut task = task(device, &samples, &unseen, rest.clone());
        task.settings.gate = 1.0;
        let mut moved = net.clone();
        let hold_settings = HoldSettings { recipe: recipe(1, 0), epochs: 1, ..settings(ProxyKind::Trained) };
        let record = hold(&task, &hold_settings, &mut moved, 0, &gone, Held::default())?;
        assert!(record.removed(), "{:?}", record.notes);
        let mut replayed = net.clone();
        record.replay(&mut replayed)?;
        assert_eq!(replayed, moved);
        Ok(moved)
    };
    let moved = run(&cpu)?;
    for (before, after) in net.params.iter().zip(&moved.params) {
        assert_ne!(before.value, after.value, "{}", before.name);
    }
    // A GPU's steps are the CPU's but for roundings, which a few steps hardly let grow.
    let on_gpu = run(&Device::emulated(1)?)?;
    check_near(&on_gpu, &moved, &net);
    Ok(())
}

#[test]
fn a_block_that_is_held_changes_its_rows_alone_and_forgets_a_class() -> Result<()> {
    let device = Device::cpu()?;
    let [samples, unseen] = digits()?;
    let (class, rest) = threes(&samples);
    let net = trained(&device, "mlp:32", &samples, &Vec::from_iter(0..TRAINED), 1)?;
    let task = task(&device, &samples, &unseen, rest.clone());
    let mut moved = net.clone();
    let how = HoldSettings { block: Some(0.2), ..settings(ProxyKind::Trained) };
    let record = hold(&task, &how, &mut moved, 0, &class, Held::default())?;
    assert_eq!((record.removed(), record.units.len()), (true, 8), "{:?}", record.notes);
    assert!(record.account.selection.scores.is_sorted_by(|a, b| a >= b));
    let reached = record.account.hold.as_ref().expect("the account of a hold").reached;
    assert!(reached.accuracy < 0.1, "{reached:?}");
    // The record alone, with the values of eight rows, makes the same model.
    let mut replayed = net.clone();
    record.replay(&mut replayed)?;
    assert_eq!(replayed, moved);
    let block = Block::all(&net)?;
    let rows = |net: &Network| -> Vec<Vec<f32>> {
        (0..block.units().len()).map(|i| block.values(net)[block.range(i)].to_vec()).collect()
    };
    let differ = rows(&net).iter().zip(rows(&moved)).filter(|(a, b)| *a != b).count();
    assert_eq!(differ, 8);
    Ok(())
}

#[test]
fn a_held_block_can_be_chosen_by_vote_or_at_random() -> Result<()> {
    let device = Device::cpu()?;
    let [samples, unseen] = digits()?;
    let (class, rest) = threes(&samples);
    let net = trained(&device, "mlp:32", &samples, &Vec::from_iter(0..TRAINED), 1)?;
    let mut task = task(&device, &samples, &unseen, rest);
    task.settings.gate = 1.0;
    let units = |selection: Option<Method>| -> Result<Vec<(String, usize)>> {
        let mut moved = net.clone();
        let brief = HoldSettings { recipe: recipe(1, 0), epochs: 1, ..settings(ProxyKind::Trained) };
        let how = HoldSettings { block: Some(0.2), selection, ..brief };
        let record = hold(&task, &how, &mut moved, 0, &class, Held::default())?;
        let mut replayed = net.clone();
        record.replay(&mut replayed)?;
        assert_eq!((replayed, record.units.len()), (moved, 8), "{selection:?}");
        Ok(record.units)
    };
    // The choice is that of the selection alone, with the share of the hold.
    let criteria = |method| Criteria { method, share: 0.2, ..task.settings.selection };
    let alone = |method: Method| -> Result<Vec<(String, usize)>> {
        let chosen = evidence::select(&device, &net, &samples, &class, &criteria(method), task.stop)?;
        Ok(names_of(&net, &chosen.units))
    };
    for method in [Method::Vote, Method::Random, Method::Gradient] {
        assert_eq!(units(Some(method))?, alone(method)?, "{method:?}");
    }
    assert_ne!(units(Some(Method::Random))?, units(None)?);
    Ok(())
}

#[test]
fn a_block_beside_batch_norms_is_the_same_on_a_gpu_and_leaves_their_statistics() -> Result<()> {
    let [samples, unseen] = digits()?;
    let [samples, unseen] = [samples.part(0..200)?, unseen.part(0..100)?];
    let cpu = Device::cpu()?;
    let net = trained(&cpu, "cnn:4+8", &samples, &Vec::from_iter(0..200), 1)?;
    let run = |device: &Device| -> Result<Network> {
        let mut task = task(device, &samples, &unseen, Vec::from_iter(20..200));
        task.settings.gate = 1.0;
        let mut moved = net.clone();
        let how = HoldSettings {
            recipe: recipe(1, 0),
            epochs: 1,
            block: Some(0.5),
            ..settings(ProxyKind::Neighbours)
        };
        let record = hold(&task, &how, &mut moved, 0, &Vec::from_iter(0..20), Held::default())?;
        assert!(record.removed(), "{:?}", record.notes);
        Ok(moved)
    };
    let (moved, on_gpu) = (run(&cpu)?, run(&Device::emulated(1)?)?);
    let units: Vec<&str> = net.layers.iter().map(|layer| layer.name.as_str()).collect();
    for (before, after) in net.params.iter().zip(&moved.params) {
        let is_row = units.iter().any(|layer| before.name.starts_with(&format!("{layer}.")));
        assert!(is_row || before.value == after.value, "{}", before.name);
    }
    check_near(&on_gpu, &moved, &net);
    Ok(())
}

#[test]
fn earlier_batches_are_held_with_the_new_ones() -> Result<()> {
    let device = Device::cpu()?;
    let [samples, unseen] = digits()?;
    let (first, second) = (Vec::from_iter(0..40), Vec::from_iter(40..80));
    let net = trained(&device, "mlp:32", &samples, &Vec::from_iter(0..TRAINED), 1)?;
    let task = task(&device, &samples, &unseen, Vec::from_iter(80..TRAINED));
    let mut once = net.clone();
    let record = hold(&task, &settings(ProxyKind::Trained), &mut once, 0, &first, Held::default())?;
    let loss = |net: &Network| mean_loss(&device, net, &samples.subset(&first));
    let (mut held, mut let_go) = (once.clone(), once.clone());
    hold(&task, &settings(ProxyKind::Trained), &mut held, 1, &second, Held::of(&[record]))?;
    hold(&task, &settings(ProxyKind::Trained), &mut let_go, 1, &second, Held::default())?;
    let (before, own, held, let_go) = (loss(&net)?, loss(&once)?, loss(&held)?, loss(&let_go)?);
    assert!(own > 1.5 * before, "{before} before, {own} after its own batch");
    assert!((held / own - 1.0).abs() < (let_go / own - 1.0).abs(), "{own}, held {held}, let go {let_go}");
    Ok(())
}

/// A folder with a trained model and its data.
pub fn files(folder: &Path) -> Result<Sources> {
    let device = Device::cpu()?;
    let [samples, unseen] = digits()?;
    let write = |name: &str, samples: &Samples| -> Result<std::path::PathBuf> {
        use scrubjay::data::tensors::{Tensor, Values, write};
        let path = folder.join(name);
        let labels: Vec<i64> = samples.y.words().iter().map(|&y| i64::from(y)).collect();
        let n = labels.len();
        let x = Tensor { name: "x", shape: vec![n, 64], values: Values::F32(&samples.x) };
        let y = Tensor { name: "y", shape: vec![n], values: Values::I64(&labels) };
        write(&path, &[x, y], Default::default())?;
        Ok(path)
    };
    let net = trained(&device, "mlp:16", &samples, &Vec::from_iter(0..TRAINED), 1)?;
    let model = folder.join("model.safetensors");
    checkpoint::save(&model, &net)?;
    let data = write("train.safetensors", &samples)?;
    Ok(Sources { validation: Some(write("val.safetensors", &unseen)?), ..Sources::new(model, data) })
}

fn options() -> ScrubOptions {
    ScrubOptions {
        method: Some(Procedure::Hold),
        batch: Some(20),
        proxy_epochs: 1,
        hold_epochs: 1,
        gate: 1.0,
        ..ScrubOptions::DEFAULT
    }
}

#[test]
fn a_run_that_was_stopped_anywhere_ends_with_the_same_bytes() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let sources = files(folder.path())?;
    let options = ScrubOptions { hold_epochs: 2, ..options() };
    let (flag, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let told = Arc::new(Mutex::new(vec![]));
    // Stopped at a call of progress, or not at all; what was told is in `told`.
    let run = |out: &Path, stop_at: Option<usize>| -> Result<Ended> {
        let (set, calls, keep) = (flag.clone(), calls.clone(), told.clone());
        flag.store(false, Ordering::Relaxed);
        calls.store(0, Ordering::Relaxed);
        told.lock().expect("no panic").clear();
        let session = Session::open(Device::cpu()?, sources.clone())?.with_stop(flag.clone());
        let session = session.on_progress(move |progress| {
            keep.lock().expect("no panic").push(progress.phase);
            let now = calls.fetch_add(1, Ordering::Relaxed);
            if stop_at == Some(now) {
                set.store(true, Ordering::Relaxed);
            }
        });
        session.run(&Request::new(&session, "0-39", &options)?, out)
    };
    let whole = at("whole");
    assert!(matches!(run(&whole, None)?, Ended::Now(..)));
    let calls = told.lock().expect("no panic").len();
    let bytes = |folder: &Path| std::fs::read(folder.join("model.safetensors")).expect("a model");
    let mut within = 0;
    for stop_at in 0..calls {
        let stopped = at(&format!("stopped-{stop_at}"));
        let Err(error) = run(&stopped, Some(stop_at)) else { panic!("{stop_at} of {calls}: it went on") };
        assert_eq!(error.code(), 10, "{error}");
        let begun = stopped.join("hold.stage").exists();
        let Ended::Now(outcome, _) = run(&stopped, None)? else { panic!("it was not finished") };
        assert_eq!((outcome.records.len(), outcome.removed), (2, 40));
        assert!(bytes(&whole) == bytes(&stopped), "{stop_at} of {calls}");
        assert!(!stopped.join("hold.stage").exists());
        if begun {
            let told = told.lock().expect("no panic");
            let of_batch = told[1..].iter().take_while(|phase| phase.is_some());
            assert!(!of_batch.into_iter().any(|phase| *phase == Some("proxy")), "{stop_at}: {told:?}");
            within += 1;
        }
    }
    // After the proxy and after the first epoch of each batch; after the last one nothing is left to stop.
    assert_eq!(within, 4, "of {calls} stops");
    let report = std::fs::read_to_string(whole.join("report.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let account = &report["records"][0]["account"];
    assert_eq!(account["proxy"], "trained");
    assert_eq!(account["epochs"]["hold"], 2);
    // One epoch of the proxy, two of the hold with 20 forgotten samples beside the 64 of each of 14 mini-batches.
    let cost = account["epochs"]["cost"].as_f64().expect("a number");
    assert!((cost - (1.0 + 2.0 * (1.0 + 14.0 * 20.0 / 860.0))).abs() < 1e-12, "{cost}");
    assert!(account["target"]["loss"].as_f64() > account["before"]["forget"]["loss"].as_f64());
    assert!(report["records"][0]["soft_labels"].is_null(), "values stay in events.jsonl");
    Ok(())
}

#[test]
fn samples_are_held_by_default_where_they_can_be() -> Result<()> {
    let device = Device::cpu()?;
    let [samples, unseen] = digits()?;
    let is_held = |arch: &str, seen: bool, options: ScrubOptions| -> Result<bool> {
        let net = zoo::create(arch, samples.kind, 10, 1)?.network.freeze();
        let mut session = Session::new(device.clone(), net, samples.clone())?;
        if seen {
            session = session.with_validation(unseen.clone())?;
        }
        Ok(Request::new(&session, Vec::from_iter(0..40), &options)?.settings.hold.is_some())
    };
    let plain = || ScrubOptions::DEFAULT;
    assert!(is_held("mlp:4", true, plain())?);
    assert!(is_held("mlp:4", true, ScrubOptions { wrong_labels: true, l2: 1e-3, ..plain() })?);
    assert!(!is_held("mlp:4", false, ScrubOptions { wrong_labels: true, ..plain() })?);
    let despite = Some(vec![Doubt::NoVal]);
    assert!(!is_held("mlp:4", false, ScrubOptions { despite, ..plain() })?);
    assert!(!is_held("logistic", true, ScrubOptions { l2: 1e-2, ..plain() })?);
    assert!(!is_held("mlp:4", true, ScrubOptions { method: Some(Procedure::Lcodec), ..plain() })?);
    assert!(!is_held("mlp:4", true, ScrubOptions { max_units: Some(3), ..plain() })?);
    let refused = |seen: bool, options: ScrubOptions, why: &str| {
        let error = is_held("mlp:4", seen, options).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    };
    let both = ScrubOptions { hold_epochs: 2, stages: Some(3), ..plain() };
    refused(true, both, "--hold-epochs is for --method hold and --stages for --method lcodec");
    refused(false, ScrubOptions { hold_epochs: 2, ..plain() }, "needs --val");
    let lcodec = ScrubOptions { method: Some(Procedure::Lcodec), proxy_epochs: 9, ..plain() };
    refused(true, lcodec, "--proxy-epochs is for --method hold");
    // How a block is chosen is for both; what stops by itself fills no share.
    let by = |method| ScrubOptions { block: Some(0.2), selection: Some(method), ..plain() };
    assert!(is_held("mlp:4", true, ScrubOptions { perturbations: Some(50), ..by(Method::Vote) })?);
    refused(
        true,
        by(Method::Foci),
        "--selection foci chooses a number of units of its own, and --block asks for 0.2",
    );
    let unread = ScrubOptions { block: Some(0.2), perturbations: Some(50), ..plain() };
    refused(true, unread, "--block is for --method hold and --perturbations for --method lcodec");
    Ok(())
}

#[test]
fn a_hold_keeps_its_budget_and_tells_what_that_took() -> Result<()> {
    let [samples, unseen] = digits()?;
    let net = zoo::create("mlp:4", samples.kind, 10, 1)?.network.freeze();
    let session = Session::new(Device::cpu()?, net, samples)?.with_validation(unseen)?;
    let request = |budget: f64| {
        let options = ScrubOptions { budget: Some(budget), ..ScrubOptions::DEFAULT };
        Request::new(&session, Vec::from_iter(0..40), &options)
    };
    // Of 860 retained samples, 14 mini-batches: 4 + 4 (1 + 14 · 40 / 860) = 10.6 passes.
    let enough = request(10.7)?;
    let proxy = |request: &Request| request.settings.hold.as_ref().map(|hold| hold.proxy);
    assert_eq!((proxy(&enough), &enough.warnings[..]), (Some(ProxyKind::Trained), &[][..]));
    let less = request(10.5)?;
    assert_eq!((proxy(&less), less.train_on.len()), (Some(ProxyKind::Neighbours), 860));
    assert_eq!(less.warnings, ["--budget 10.5: the hold makes do with soft labels from neighbours"]);
    let cost = session.estimate(&less)?.epochs.expect("of a hold").cost;
    assert!((6.5..10.5).contains(&cost), "{cost}");
    let error = request(6.0).expect_err("too little").to_string();
    assert!(error.contains("the least that this hold costs is 6.61 passes over the 860"), "{error}");
    assert!(request(0.0).expect_err("none").to_string().contains("--budget is a number of epochs above 0"));
    Ok(())
}

#[test]
fn what_a_hold_cannot_do_is_refused_before_anything_runs() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let sources = files(folder.path())?;
    let refused = |sources: &Sources, options: &ScrubOptions, why: &str| -> Result<()> {
        let session = Session::open(Device::cpu()?, sources.clone())?;
        let error = Request::new(&session, "0-39", options).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
        Ok(())
    };
    let without = Sources { validation: None, ..sources.clone() };
    refused(&without, &options(), "needs --val")?;
    refused(&sources, &ScrubOptions { stages: Some(2), ..options() }, "--stages")?;
    let privacy = ScrubOptions { epsilon: Some(1.0), delta: Some(1e-5), ..options() };
    refused(&sources, &privacy, "--epsilon")?;
    refused(&sources, &ScrubOptions { hold_epochs: 0, ..options() }, "--hold-epochs")?;
    refused(&sources, &ScrubOptions { block: Some(1.5), ..options() }, "--block")?;
    refused(&sources, &ScrubOptions { proxy: ProxyKind::Given, ..options() }, "proxy")?;
    // A proxy of other classes.
    let device = Device::cpu()?;
    let other = folder.path().join("other.safetensors");
    let shape = Session::open(device.clone(), sources.clone())?.network().input();
    checkpoint::save(&other, &zoo::create("mlp:8", shape, 7, 1)?.network)?;
    let given = Sources { proxy: Some(other.clone()), ..sources };
    let error = Session::open(device, given).err().expect("it has 7 classes").to_string();
    assert!(error.contains("other.safetensors"), "{error}");
    Ok(())
}
