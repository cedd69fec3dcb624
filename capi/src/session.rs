//! Sessions: a device, a model and its data, from files or from memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use scrubjay::data::CifarLabels;
use scrubjay::{Session, Sources};

use crate::callbacks::Callbacks;
use crate::device::DeviceObject;
use crate::entry::entry;
use crate::handle::{Handle, NewHandle, Object};
use crate::model::{Files, Model, choices, flag, some, texts};
use crate::raw::{In, Info, Options, Text, versioned};
use crate::samples::{SamplesObject, normalise, rows, steps};
use crate::status::{Failure, Outcome};

/// `sj_session`.
pub struct SessionObject {
    /// The session.
    pub session: Arc<Session>,
    /// The model as it is before any request.
    pub model: Arc<Model>,
    stop: Arc<AtomicBool>,
}

impl Object for SessionObject {
    const NAME: &'static str = "session";
}

impl SessionObject {
    /// Whether it was cancelled, and that was not taken back.
    pub fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

versioned! {
    /// `sj_files`.
    SessionFiles as "sj_files" {
        model: Text = Text::NONE,
        data: Text = Text::NONE,
        validation: Text = Text::NONE,
        forget_data: Text = Text::NONE,
        earlier: Text = Text::NONE,
        arch: Text = Text::NONE,
        heads: u64 = 0,
        stem: Text = Text::NONE,
        ignore: In<Text> = In::NONE,
        ignore_count: u64 = 0,
        mean: In<f32> = In::NONE,
        mean_count: u64 = 0,
        std: In<f32> = In::NONE,
        std_count: u64 = 0,
        cifar_labels: Text = Text::NONE,
        proxy: Text = Text::NONE,
        weights: In<Text> = In::NONE,
        weights_count: u64 = 0,
        tokenizer: Text = Text::NONE,
        max_tokens: u64 = 0,
        text_column: Text = Text::NONE,
        label_columns: Text = Text::NONE,
        resize: Text = Text::NONE,
        crop: Text = Text::NONE,
        interpolation: Text = Text::NONE,
        skip_corrupt: u64 = 0,
        inputs_memory: u64 = 0,
        no_thumbnails: u64 = 0,
    }
}

impl SessionFiles {
    fn sources(&self) -> Outcome<Sources> {
        self.with_model(self.model.get("path of the model")?)
    }

    /// The files of a training, and the description of a new model.
    pub fn of_training(&self) -> Outcome<(Sources, Option<String>)> {
        self.without(
            &[(self.forget_data, "forget_data"), (self.earlier, "earlier"), (self.proxy, "proxy")],
            "training",
        )?;
        let mut sources = self.with_model(self.model.find("path of the model")?.unwrap_or_default())?;
        let arch = if self.model.is_null() { sources.choices.arch.take() } else { None };
        Ok((sources, arch))
    }

    /// Refuses files that play no part.
    fn without(&self, more: &[(Text, &str)], what: &str) -> Outcome {
        match more.iter().find(|(path, _)| !path.is_null()) {
            Some((_, name)) => Err(Failure::argument(format!("sj_files.{name} plays no part in a {what}"))),
            None => Ok(()),
        }
    }

    fn with_model(&self, model: &str) -> Outcome<Sources> {
        let path =
            |text: Text, what: &str| -> Outcome<Option<PathBuf>> { Ok(text.find(what)?.map(PathBuf::from)) };
        let (choices, ignore) = choices(self.arch, self.heads, self.stem, (self.ignore, self.ignore_count))?;
        Ok(Sources {
            model: model.into(),
            choices,
            ignore,
            data: self.data.get("path of the data")?.into(),
            normalise: normalise((self.mean, self.mean_count), (self.std, self.std_count))?,
            cifar_labels: self.cifar_labels.named::<CifarLabels>("cifar_labels")?.unwrap_or_default(),
            forget_data: path(self.forget_data, "path of the set to forget")?,
            validation: path(self.validation, "path of the validation data")?,
            earlier: path(self.earlier, "path of the earlier model")?,
            proxy: path(self.proxy, "path of the proxy")?,
            weights: texts(self.weights, self.weights_count, ["weights_count", "keys of weights"])?,
            texts: rows(self.tokenizer, self.max_tokens, self.text_column, self.label_columns)?,
            steps: steps(self.resize, self.crop, self.interpolation)?,
            skip_corrupt: flag(self.skip_corrupt, "skip_corrupt")?,
            memory: some(self.inputs_memory, "inputs_memory")?.map(|mib| mib.saturating_mul(1 << 20)),
        })
    }

    /// The files of a verification: a model and its data, and nothing that only a removal reads.
    pub fn of_two_sets(&self) -> Outcome<Sources> {
        let more = [
            (self.validation, "validation"),
            (self.forget_data, "forget_data"),
            (self.earlier, "earlier"),
            (self.proxy, "proxy"),
        ];
        self.without(&more, "verification")?;
        self.sources()
    }
}

versioned! {
    /// `sj_session_options`.
    SessionOptions as "sj_session_options" {
        earlier: Handle<Model> = Handle::NONE,
        proxy: Handle<Model> = Handle::NONE,
        no_thumbnails: u64 = 0,
    }
}

versioned! {
    /// `sj_session_info`.
    SessionInfo as "sj_session_info" {
        samples: u64 = 0,
        beside: u64 = 0,
        validation: u64 = 0,
        notes: u64 = 0,
        cancelled: u64 = 0,
    }
}

entry! {
    /// Fills in the defaults.
    fn sj_files_init(options: Info<SessionFiles>, struct_size: usize) {
        options.init(struct_size)
    }

    /// Fills in the defaults.
    fn sj_callbacks_init(options: Info<Callbacks>, struct_size: usize) {
        options.init(struct_size)
    }

    /// Fills in the defaults.
    fn sj_session_options_init(options: Info<SessionOptions>, struct_size: usize) {
        options.init(struct_size)
    }

    /// Opens a session from files.
    fn sj_session_open(
        device: Handle<DeviceObject>,
        files: Options<SessionFiles>,
        callbacks: Options<Callbacks>,
        session: NewHandle<SessionObject>,
    ) {
        session.open()?;
        let (device, files, callbacks) = (device.get()?, files.get()?, callbacks.get()?);
        let stop = Arc::new(AtomicBool::new(false));
        let shown = !flag(files.no_thumbnails, "no_thumbnails")?;
        let opened = Session::open(device.device.clone(), files.sources()?)?.with_samples_shown(shown);
        let opened = Arc::new(callbacks.attach(opened, &stop));
        let facts = opened.facts().cloned().unwrap_or_default();
        let files = Files::Session(opened.clone());
        let model = Model::new(opened.network().clone(), files, opened.family(), &facts)?;
        session.put(SessionObject { session: opened, model: Arc::new(model), stop })
    }

    /// Makes a session of values in memory.
    fn sj_session_new(
        device: Handle<DeviceObject>,
        model: Handle<Model>,
        samples: Handle<SamplesObject>,
        validation: Handle<SamplesObject>,
        options: Options<SessionOptions>,
        callbacks: Options<Callbacks>,
        session: NewHandle<SessionObject>,
    ) {
        session.open()?;
        let (device, model, samples) = (device.get()?, model.get()?, samples.get()?);
        let (validation, options, callbacks) = (validation.find()?, options.get()?, callbacks.get()?);
        let (earlier, proxy) = (options.earlier.find()?, options.proxy.find()?);
        let stop = Arc::new(AtomicBool::new(false));
        let mut made = Session::new(device.device.clone(), model.network.clone(), samples.samples.clone())?
            .with_samples_shown(!flag(options.no_thumbnails, "no_thumbnails")?);
        if let Some(validation) = validation {
            made = made.with_validation(validation.samples.clone())?;
        }
        if let Some(earlier) = earlier {
            made = made.with_earlier(earlier.network.clone())?;
        }
        if let Some(proxy) = proxy {
            made = made.with_proxy(proxy.network.clone())?;
        }
        let made = callbacks.attach(made, &stop);
        session.put(SessionObject { session: Arc::new(made), model, stop })
    }

    /// What a session has.
    fn sj_session_get_info(session: Handle<SessionObject>, info: Info<SessionInfo>) {
        let object = session.get()?;
        let session = &object.session;
        info.put(SessionInfo {
            samples: session.samples().y.len() as u64,
            beside: session.beside().map_or(0, |beside| beside.len()) as u64,
            validation: session.validation().map_or(0, |samples| samples.y.len()) as u64,
            notes: session.notes().len() as u64,
            cancelled: object.is_cancelled().into(),
            ..SessionInfo::EMPTY
        })
    }

    /// The model of a session.
    fn sj_session_get_model(session: Handle<SessionObject>, model: NewHandle<Model>) {
        model.open()?;
        model.put(session.get()?.model.clone())
    }

    /// Ends the runs of a session, and refuses others.
    fn sj_session_cancel(session: Handle<SessionObject>) {
        session.get()?.stop.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a cancel back.
    fn sj_session_uncancel(session: Handle<SessionObject>) {
        session.get()?.stop.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Ends a handle.
    fn sj_session_free(session: Handle<SessionObject>) {
        session.free()
    }
}
