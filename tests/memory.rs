//! Sessions and models in memory: what is told of a run while it goes on, a stop at every stage, and a model of bytes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use scrubjay::checkpoint::{self, Checkpoint};
use scrubjay::data::{self, Samples};
use scrubjay::observe::observe_copies;
use scrubjay::options::Doubt;
use scrubjay::perturb::{Noise, perturb_request};
use scrubjay::session::{Level, Progress};
use scrubjay::task::Task;
use scrubjay::train::{self, train};
use scrubjay::unlearn::unlearn;
use scrubjay::{Device, Error, Precision, Request, Result, ScrubOptions, Session, zoo};

const TRAINED: usize = 300;

/// A small network that was trained on some digits, and these.
fn learned(device: &Device) -> Result<(scrubjay::net::Network, Samples)> {
    let digits = data::digits()?;
    let x = digits.x[..TRAINED * digits.shape().len()].to_vec();
    let samples =
        Samples { kind: digits.kind, x, y: digits.y.part(0..TRAINED).to_vec().into(), stream: None };
    let mut net = zoo::create("mlp:12", samples.shape(), 10, 1)?.network;
    let recipe = train::Recipe {
        epochs: 20,
        batch: 32,
        rate: 0.1,
        weight_decay: 0.0,
        seed: 1,
        ..train::Recipe::default()
    };
    train(device, &mut net, &samples, &Vec::from_iter(0..TRAINED), &recipe, &mut |_, _| Ok(true))?;
    Ok((net.freeze(), samples))
}

fn options() -> ScrubOptions {
    ScrubOptions {
        batch: Some(15),
        perturbations: Some(60),
        stages: Some(2),
        despite: Some(vec![Doubt::NoVal]),
        ..ScrubOptions::DEFAULT
    }
}

#[test]
fn a_stop_at_any_stage_ends_a_run_and_leaves_the_network_as_it_was() -> Result<()> {
    let device = Device::cpu()?;
    let (net, samples) = learned(&device)?;
    let samples = Arc::new(samples);
    // The number of calls before which the run is stopped; none runs to its end.
    let run = |stop_at: Option<usize>| -> Result<(Result<scrubjay::Scrubbed>, Vec<Progress>)> {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let told = Arc::new(Mutex::new(vec![]));
        let (set, keep) = (stop.clone(), told.clone());
        let session = Session::new(device.clone(), net.clone(), samples.clone())?
            .with_stop(stop)
            .on_progress(move |progress| {
                keep.lock().unwrap().push(progress);
                if stop_at == Some(calls.fetch_add(1, Ordering::Relaxed)) {
                    set.store(true, Ordering::Relaxed);
                }
            });
        let request = Request::new(&session, Vec::from_iter(0..30), &options())?;
        let scrubbed = session.scrub(&request);
        assert_eq!(session.network(), &net);
        let told = told.lock().unwrap().clone();
        Ok((scrubbed, told))
    };
    let (scrubbed, told) = run(None)?;
    let scrubbed = scrubbed?;
    assert!(scrubbed.records.iter().any(|record| record.removed()) && scrubbed.network != net);
    let ended = |done, phase| Progress { done, batches: 2, phase };
    assert_eq!((told[0], told[told.len() - 1]), (ended(0, None), ended(2, None)));
    for phase in ["select", "evaluate", "curvature", "solve", "length", "audit"] {
        assert!(told.contains(&ended(0, Some(phase))), "{phase}");
    }
    for stop_at in 0..told.len() {
        let (scrubbed, told) = run(Some(stop_at))?;
        let error = scrubbed.err().map(|error| error.code());
        assert_eq!(error, Some(10), "stopped at call {stop_at}, {:?}", told.last());
    }
    Ok(())
}

#[test]
fn a_stop_in_a_vote_leaves_the_network_as_it_was() -> Result<()> {
    let device = Device::cpu()?;
    let (net, samples) = learned(&device)?;
    let stop = AtomicBool::new(true);
    let retained = Vec::from_iter(20..TRAINED);
    let task = Task { stop: &stop, ..Task::new(&device, &samples, retained, Default::default()) };
    let mut moved = net.clone();
    let stopped =
        unlearn(&Task { validation: Some(&samples), ..task }, &mut moved, 0, &Vec::from_iter(0..20), &[]);
    assert!(matches!(stopped, Err(Error::Interrupted { .. })), "{stopped:?}");
    assert!(moved == net);
    Ok(())
}

#[test]
fn notes_warnings_and_what_became_of_batches_are_told() -> Result<()> {
    let device = Device::cpu()?;
    let (net, samples) = learned(&device)?;
    let told = Arc::new(Mutex::new(vec![]));
    let keep = told.clone();
    let session = Session::new(device, net, samples)?
        .on_log(move |level, message| keep.lock().unwrap().push((level, message.to_string())));
    let request = Request::new(&session, Vec::from_iter(0..15), &options())?;
    session.scrub(&request)?;
    let told = told.lock().unwrap();
    assert!(request.warnings.iter().all(|warning| told.contains(&(Level::Warning, warning.clone()))));
    assert!(!request.warnings.is_empty());
    assert!(
        told.iter().any(|(level, text)| *level == Level::Info && text.starts_with("batch 0: 15 samples"))
    );
    Ok(())
}

#[test]
fn a_model_of_bytes_is_that_of_the_file_and_is_written_as_it() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let device = Device::cpu()?;
    let (net, _) = learned(&device)?;
    checkpoint::save(&at("m.safetensors"), &net)?;
    let config = "{\"label_smoothing\": 0.1}\n";
    let bytes = std::fs::read(at("m.safetensors")).unwrap();
    let memory = Checkpoint::in_memory("m.safetensors", bytes.clone(), Some(config), &[])?;
    std::fs::write(at("config.json"), config).unwrap();
    let file = Checkpoint::open(&at("m.safetensors"))?;
    let image = Some(net.input());
    let before = zoo::load(&memory, None, image)?.network.freeze();
    assert_eq!(before, zoo::load(&file, None, image)?.network.freeze());
    assert!(before.loss.is_smoothed());

    let mut after = before.clone();
    after.params[0].value[3] += 1.0;
    let out = [at("of-file"), at("of-memory")];
    out.iter().for_each(|out| std::fs::create_dir(out).unwrap());
    file.write_patched(&before, &after, &out[0])?;
    let account = memory.write_patched(&before, &after, &out[1])?;
    assert_eq!(account.changed, 1);
    for name in ["m.safetensors", "config.json"] {
        let [a, b] = out.each_ref().map(|out| std::fs::read(out.join(name)).unwrap());
        assert_eq!(a, b, "{name}");
    }
    let (_, patched) = memory.patched(&before, &after)?;
    assert_eq!(patched, [std::fs::read(out[0].join("m.safetensors")).unwrap()]);

    let refused = |name: &str, bytes: &[u8], config: &str| {
        Checkpoint::in_memory(name, bytes.to_vec(), Some(config), &[]).err().map(|error| error.code())
    };
    assert_eq!(refused("a/m.safetensors", &bytes, "{}"), Some(8));
    assert_eq!(refused("..", &bytes, "{}"), Some(8));
    assert_eq!(refused("m.safetensors", &bytes[..bytes.len() - 1], "{}"), Some(5));
    assert_eq!(refused("m.safetensors", &bytes, "{"), Some(4));
    assert!(matches!(
        Checkpoint::in_memory("m", bytes, None, &["no*".into()]),
        Err(Error::Checkpoint { .. })
    ));
    Ok(())
}

#[test]
fn numbers_beyond_all_memory_are_refused_before_it_is_asked_for() -> Result<()> {
    let refused = |options: ScrubOptions| options.check().unwrap_err().to_string();
    let copies = ScrubOptions { perturbations: Some(1 << 40), ..ScrubOptions::DEFAULT };
    assert!(refused(copies).contains("--perturbations is at most 4294967295"));
    assert!(
        refused(ScrubOptions { stages: Some(1001), ..ScrubOptions::DEFAULT })
            .contains("--stages is at most 1000")
    );
    let samples = data::digits()?;
    let net = zoo::create("mlp:12", samples.shape(), 10, 1)?.network.freeze();
    for copies in [1 << 48, usize::MAX] {
        let request =
            perturb_request(&samples, &[0], &(0..0), copies, Noise { sigma: 0.1, replace: 1, seed: 0 })?;
        let error = observe_copies(&Device::cpu()?, &net, &request, Precision::F32).unwrap_err();
        assert!(error.to_string().contains("more than there is memory for"), "{error}");
    }
    Ok(())
}
