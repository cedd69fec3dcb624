//! Training: a new model or one that exists, in memory or from files into a folder.

use std::path::Path;
use std::sync::Arc;

use scrubjay::data::Samples;
use scrubjay::options::Pick;
use scrubjay::train::{Decayed, Optimizer, Schedule};
use scrubjay::training::{EpochReport, Start, TrainOptions, Training};
use scrubjay::zoo::{self, Choices};

use crate::callbacks::Callbacks;
use crate::device::DeviceObject;
use crate::entry::entry;
use crate::handle::{Handle, NewHandle};
use crate::model::{Files, Model, count, flag, given, some};
use crate::raw::{In, Info, Options, Out, Text, versioned};
use crate::request::pick;
use crate::samples::SamplesObject;
use crate::session::SessionFiles;
use crate::status::{BUFFER, Failure, Outcome};

versioned! {
    /// `sj_train_options`.
    CTrainOptions as "sj_train_options" {
        exclude: Text = Text::NONE,
        exclude_indices: In<u64> = In::NONE,
        exclude_count: u64 = 0,
        epochs: u64 = 0,
        batch_size: u64 = 0,
        lr: f64 = f64::NAN,
        momentum: f64 = f64::NAN,
        optimizer: Text = Text::NONE,
        weight_decay: f64 = f64::NAN,
        decay: Text = Text::NONE,
        schedule: Text = Text::NONE,
        warm_up: u64 = 0,
        shift: u64 = 0,
        flip: u64 = 0,
        label_smoothing: f64 = f64::NAN,
        classes: u64 = 0,
        seed: u64 = 0,
        keep_epochs: In<u64> = In::NONE,
        keep_count: u64 = 0,
    }
}

/// `sj_epoch`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CEpoch {
    epoch: u64,
    loss: f64,
    accuracy: f64,
    validation_loss: f64,
    validation_accuracy: f64,
    seconds: f64,
}

/// The fields of `sj_epoch`, for the test that compares them with the header.
#[cfg(test)]
pub const FIELDS: [(&str, usize); 6] = {
    use std::mem::offset_of;
    [
        ("epoch", offset_of!(CEpoch, epoch)),
        ("loss", offset_of!(CEpoch, loss)),
        ("accuracy", offset_of!(CEpoch, accuracy)),
        ("validation_loss", offset_of!(CEpoch, validation_loss)),
        ("validation_accuracy", offset_of!(CEpoch, validation_accuracy)),
        ("seconds", offset_of!(CEpoch, seconds)),
    ]
};

impl From<&EpochReport> for CEpoch {
    fn from(report: &EpochReport) -> CEpoch {
        let EpochReport { epoch, loss, accuracy, val_loss, val_accuracy, seconds } = *report;
        CEpoch {
            epoch: epoch as u64,
            loss,
            accuracy,
            validation_loss: val_loss.unwrap_or(f64::NAN),
            validation_accuracy: val_accuracy.unwrap_or(f64::NAN),
            seconds,
        }
    }
}

impl CTrainOptions {
    fn options(&self) -> Outcome<TrainOptions> {
        let usual = TrainOptions::default();
        let narrow = |value: f64, usual: f32| given(value).map_or(usual, |value| value as f32);
        Ok(TrainOptions {
            epochs: some(self.epochs, "epochs")?.unwrap_or(usual.epochs),
            batch_size: some(self.batch_size, "batch_size")?.unwrap_or(usual.batch_size),
            lr: narrow(self.lr, usual.lr),
            momentum: narrow(self.momentum, usual.momentum),
            optimizer: self.optimizer.named::<Optimizer>("optimizer")?.unwrap_or(usual.optimizer),
            weight_decay: narrow(self.weight_decay, usual.weight_decay),
            decay: self.decay.named::<Decayed>("decay")?.unwrap_or(usual.decay),
            schedule: self.schedule.named::<Schedule>("schedule")?.unwrap_or(usual.schedule),
            warm_up: count(self.warm_up, "warm_up")?,
            shift: count(self.shift, "shift")?,
            flip: flag(self.flip, "flip")?,
            label_smoothing: given(self.label_smoothing),
            classes: some(self.classes, "classes")?,
            seed: self.seed,
        })
    }

    fn exclude(&self) -> Outcome<Option<Pick>> {
        pick(self.exclude, (self.exclude_indices, self.exclude_count), "exclude")
    }

    fn keep(&self) -> Outcome<Vec<usize>> {
        let list = self.keep_epochs.list(count(self.keep_count, "keep_count")?, "epochs to keep")?;
        list.iter().map(|&epoch| count(epoch, "epoch to keep")).collect()
    }
}

/// Where the epochs go.
struct Places {
    first: Out<CEpoch>,
    size: usize,
}

impl Places {
    /// Checks that there is a place for every epoch, where C wants them.
    fn new(first: Out<CEpoch>, size: u64, epochs: usize) -> Outcome<Places> {
        let size = count(size, "size")?;
        match first.wanted("epochs")? {
            Some(_) if size < epochs => {
                Err(Failure::new(BUFFER, format!("{size} places for the {epochs} epochs")))
            }
            _ => Ok(Places { first, size }),
        }
    }

    fn put(&self, reports: &[EpochReport]) -> Outcome {
        match self.first.wanted("epochs")? {
            Some(_) => {
                let list: Vec<CEpoch> = reports.iter().map(CEpoch::from).collect();
                self.first.put_list(&list, self.size, "epochs")
            }
            None => Ok(()),
        }
    }
}

/// What is called after every epoch: keeps it, tells of it, and ends the training where C cancels.
fn watching(
    callbacks: &Callbacks,
    epochs: usize,
    reports: &mut Vec<EpochReport>,
) -> impl FnMut(&EpochReport) -> scrubjay::Result<()> {
    let mut each = callbacks.each_of(epochs);
    move |report| {
        reports.push(*report);
        each(report.epoch)
    }
}

entry! {
    /// Fills in the defaults.
    fn sj_train_options_init(options: Info<CTrainOptions>, struct_size: usize) {
        options.init(struct_size)
    }

    /// Trains in memory.
    fn sj_train(
        device: Handle<DeviceObject>,
        arch: Text,
        model: Handle<Model>,
        samples: Handle<SamplesObject>,
        validation: Handle<SamplesObject>,
        options: Options<CTrainOptions>,
        callbacks: Options<Callbacks>,
        epochs: Out<CEpoch>,
        size: u64,
        trained: NewHandle<Model>,
    ) {
        trained.open()?;
        let (device, arch, model) = (device.get()?, arch.find("arch")?, model.find()?);
        let (samples, validation) = (samples.get()?, validation.find()?);
        let (given, callbacks) = (options.get()?, callbacks.get()?);
        let options = given.options()?;
        if given.keep_count > 0 {
            return Err(Failure::argument("keep_epochs is for sj_train_run, which writes to a folder"));
        }
        let places = Places::new(epochs, size, options.epochs)?;
        let start = match (arch, &model) {
            (Some(arch), None) => Start::New(arch.into()),
            (None, Some(model)) => Start::Network(Box::new(model.network.thaw()), serde_json::Value::Null),
            (None, None) => return Err(Failure::argument("arch or a model says what to train; both are NULL")),
            (Some(_), Some(_)) => {
                return Err(Failure::argument("arch describes a new model, and there is a model that exists; one is NULL"));
            }
        };
        let validation: Option<Arc<Samples>> = validation.map(|set| set.samples.clone());
        let (seed, passes) = (options.seed, options.epochs);
        let training = Training::new(device.device.clone(), start, samples.samples.clone(), validation, given.exclude()?, options)?;
        let mut reports = vec![];
        let made = training.train(seed, &mut watching(&callbacks, passes, &mut reports))?;
        let made = match model {
            Some(model) => model.changed(made.network.freeze())?,
            None => {
                let checkpoint = made.checkpoint()?;
                let read = zoo::load_as(&checkpoint, &Choices::default(), Some(samples.samples.kind))?;
                Model::new(read.network.freeze(), Files::Own(Box::new(checkpoint)), read.family, &read.facts)?
            }
        };
        places.put(&reports)?;
        trained.put(made)
    }

    /// Trains from files into a folder.
    fn sj_train_run(
        device: Handle<DeviceObject>,
        files: Options<SessionFiles>,
        options: Options<CTrainOptions>,
        callbacks: Options<Callbacks>,
        folder: Text,
        epochs: Out<CEpoch>,
        size: u64,
    ) {
        let (device, files, given, callbacks) = (device.get()?, files.get()?, options.get()?, callbacks.get()?);
        let (options, keep, folder) = (given.options()?, given.keep()?, folder.get("folder")?);
        let places = Places::new(epochs, size, options.epochs)?;
        let (sources, arch) = files.of_training()?;
        let (seed, passes) = (options.seed, options.epochs);
        let training = Training::open(device.device.clone(), sources, arch.as_deref(), given.exclude()?, options)?;
        training.notes().iter().for_each(|note| callbacks.warn(note));
        let mut seen = vec![];
        let manifest = training.run(seed, Path::new(folder), &keep, &mut watching(&callbacks, passes, &mut seen))?;
        places.put(&EpochReport::all_of(&manifest)?) // also those before it was stopped
    }
}
