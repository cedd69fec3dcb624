//! Samples: labelled inputs, copied from the caller's tensors or read from files.

use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use scrubjay::data;
use scrubjay::data::{
    CifarLabels, InputKind, Normalise, Pipeline, Samples, Steps, TextOptions, TokenizerSource,
};
use scrubjay::inspection::{SetInspection, write_image};
use scrubjay::session::Sources;

use crate::device::c_text;
use crate::entry::entry;
use crate::handle::{Handle, NewHandle, Object};
use crate::layout::Layout;
use crate::model::{Model, count, flag, image_and_tokens, some, texts};
use crate::raw::{In, Info, Options, Out, Text, versioned};
use crate::status::{Failure, Outcome};
use crate::tensor::{self, Tensor};

/// `sj_samples`.
pub struct SamplesObject {
    /// The samples.
    pub samples: Arc<Samples>,
    x: Layout,
    y: Layout,
    notes: Vec<CString>,
    about: About,
    /// JSON and text.
    inspection: OnceLock<[CString; 2]>,
}

/// What a file told of samples.
#[derive(Default)]
pub struct About {
    classes: Option<Vec<String>>,
    pipeline: Option<Pipeline>,
    normalise: Normalise,
}

impl Object for SamplesObject {
    const NAME: &'static str = "set of samples";
}

impl SamplesObject {
    /// Of samples.
    pub fn new(samples: impl Into<Arc<Samples>>, notes: &[String]) -> Outcome<SamplesObject> {
        let samples = samples.into();
        let n = samples.y.len();
        let x = match samples.kind {
            InputKind::Image(shape) => {
                let strides = [shape.len(), 1, shape.w * shape.c, shape.c];
                Layout::new(&[n, shape.c, shape.h, shape.w], &strides)
            }
            InputKind::Text { tokens } => Layout::rows(&[n, 2, tokens]),
        };
        let y = match samples.y.width() {
            1 => Layout::rows(&[n]),
            width => Layout::rows(&[n, width]),
        };
        let notes = notes.iter().map(|note| c_text(note)).collect::<Outcome<_>>()?;
        Ok(SamplesObject { samples, x, y, notes, about: About::default(), inspection: OnceLock::new() })
    }

    /// JSON and text of what they are.
    fn inspect(&self) -> Outcome<&[CString; 2]> {
        if let Some(found) = self.inspection.get() {
            return Ok(found);
        }
        let About { classes, pipeline, normalise } = &self.about;
        let found = SetInspection::of(&self.samples, classes.as_deref(), pipeline.clone(), normalise);
        let texts = [c_text(&serde_json::json!(found).to_string())?, c_text(&found.text())?];
        Ok(self.inspection.get_or_init(|| texts))
    }

    /// The inputs, seen as f32 `[n, c, h, w]` of images or u32 `[n, 2, t]` of texts, and their layout.
    pub fn x(&self) -> (&[f32], &'static str, &Layout) {
        let dtype = match self.samples.kind {
            InputKind::Image(_) => "f32",
            InputKind::Text { .. } => "u32",
        };
        (&self.samples.x, dtype, &self.x)
    }
}

versioned! {
    /// `sj_data_options`.
    DataOptions as "sj_data_options" {
        mean: In<f32> = In::NONE,
        mean_count: u64 = 0,
        std: In<f32> = In::NONE,
        std_count: u64 = 0,
        cifar_labels: Text = Text::NONE,
        resize: Text = Text::NONE,
        crop: Text = Text::NONE,
        interpolation: Text = Text::NONE,
        skip_corrupt: u64 = 0,
        tokenizer: Text = Text::NONE,
        max_tokens: u64 = 0,
        text_column: Text = Text::NONE,
        label_columns: Text = Text::NONE,
    }
}

impl DataOptions {
    /// How data are read; tensors of samples are seen in memory.
    fn sources(&self) -> Outcome<Sources> {
        Ok(Sources {
            normalise: normalise((self.mean, self.mean_count), (self.std, self.std_count))?,
            cifar_labels: self.cifar_labels.named::<CifarLabels>("cifar_labels")?.unwrap_or_default(),
            steps: steps(self.resize, self.crop, self.interpolation)?,
            skip_corrupt: flag(self.skip_corrupt, "skip_corrupt")?,
            texts: rows(self.tokenizer, self.max_tokens, self.text_column, self.label_columns)?,
            memory: Some(usize::MAX),
            ..Sources::default()
        })
    }
}

versioned! {
    /// `sj_samples_info`.
    SamplesInfo as "sj_samples_info" {
        count: u64 = 0,
        channels: u64 = 0,
        height: u64 = 0,
        width: u64 = 0,
        label_width: u64 = 0,
        notes: u64 = 0,
        tokens: u64 = 0,
    }
}

/// Means and deviations of channels.
pub fn normalise(mean: (In<f32>, u64), std: (In<f32>, u64)) -> Outcome<Normalise> {
    let list = |(values, number): (In<f32>, u64), what: &str| -> Outcome<Option<Vec<f32>>> {
        let values = values.list(count(number, what)?, what)?;
        Ok(Some(values.to_vec()).filter(|values| !values.is_empty()))
    };
    Ok(Normalise { mean: list(mean, "mean")?, std: list(std, "std")? })
}

/// Steps in place of those that the model's config has for pictures.
pub fn steps(resize: Text, crop: Text, interpolation: Text) -> Outcome<Steps> {
    Ok(Steps {
        resize: resize.parsed("resize")?,
        crop: crop.parsed("crop")?,
        interpolation: interpolation.named("interpolation")?,
    })
}

/// How rows of text are read.
pub fn rows(
    tokenizer: Text,
    max_tokens: u64,
    text_column: Text,
    label_columns: Text,
) -> Outcome<TextOptions> {
    let tokenizer = tokenizer.find("path of the tokenizer")?.map(PathBuf::from);
    let labels = label_columns.find("label_columns")?.unwrap_or_default();
    Ok(TextOptions {
        tokenizer: tokenizer.map_or(TokenizerSource::Missing, TokenizerSource::At),
        most: some(max_tokens, "max_tokens")?,
        text: text_column.find("text_column")?.map(String::from),
        labels: labels.split(',').map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect(),
    })
}

entry! {
    /// Fills in the defaults.
    fn sj_data_options_init(options: Info<DataOptions>, struct_size: usize) {
        options.init(struct_size)
    }

    /// Copies samples from tensors.
    fn sj_samples_new(x: In<Tensor>, y: In<Tensor>, samples: NewHandle<SamplesObject>) {
        samples.open()?;
        let (x, labels) = (tensor::inputs(&x)?, tensor::labels(&y)?);
        samples.put(SamplesObject::new(x.view()?.samples(labels)?, &[])?)
    }

    /// Copies texts from tensors.
    fn sj_samples_from_text(
        ids: In<Tensor>,
        mask: In<Tensor>,
        y: In<Tensor>,
        samples: NewHandle<SamplesObject>,
    ) {
        samples.open()?;
        let (ids, tokens) = tensor::words(&ids, "ids")?;
        let mask = match mask.is_null() {
            true => vec![1; ids.len()],
            false => tensor::words(&mask, "mask")?.0,
        };
        samples.put(SamplesObject::new(Samples::of_texts(&ids, &mask, tokens, tensor::labels(&y)?)?, &[])?)
    }

    /// Reads samples from files.
    fn sj_samples_load(
        path: Text,
        model: Handle<Model>,
        options: Options<DataOptions>,
        samples: NewHandle<SamplesObject>,
    ) {
        samples.open()?;
        let (model, options) = (model.find()?, options.get()?);
        let (path, sources) = (Path::new(path.get("path")?), options.sources()?);
        let read = match model {
            Some(model) => sources.load(path, model.checkpoint()?)?,
            None => data::load_with(path, &sources.load_options(None))?,
        };
        let about = About { classes: read.names.classes, pipeline: read.pipeline, normalise: read.normalise };
        samples.put(SamplesObject { about, ..SamplesObject::new(read.samples, &read.notes)? })
    }

    /// Makes token ids of texts.
    fn sj_samples_from_strings(
        model: Handle<Model>,
        list: In<Text>,
        number: u64,
        y: In<Tensor>,
        options: Options<DataOptions>,
        samples: NewHandle<SamplesObject>,
    ) {
        samples.open()?;
        let (model, options) = (model.get()?, options.get()?);
        let list = texts(list, number, ["count", "texts"])?;
        let labels = tensor::labels(&y)?;
        let InputKind::Text { tokens } = model.network.kind() else {
            return Err(Failure::argument("the model reads images, and the samples are texts"));
        };
        let mut reading = options.sources()?.load_options(Some(model.checkpoint()?));
        reading.expected.positions = Some(tokens);
        let (rows, notes) = data::encode(&list, &reading)?;
        let mut made = Samples::of_texts(&rows.ids, &rows.mask, rows.tokens, labels)?;
        made.pad(tokens);
        samples.put(SamplesObject::new(made, &notes)?)
    }

    /// What samples hold, as JSON and as text.
    fn sj_samples_get_inspection(samples: Handle<SamplesObject>, json: Out<*const c_char>, text: Out<*const c_char>) {
        let (samples, json, text) = (samples.get()?, json.wanted("json")?, text.wanted("text")?);
        for (place, found) in [json, text].into_iter().zip(samples.inspect()?) {
            if let Some(place) = place {
                place.write(found.as_ptr());
            }
        }
        Ok(())
    }

    /// Writes an image.
    fn sj_samples_write_image(samples: Handle<SamplesObject>, number: u64, path: Text) {
        let samples = samples.get()?;
        let at = count(number, "image")?;
        Ok(write_image(Path::new(path.get("path")?), &samples.samples, &samples.about.normalise, at)?)
    }

    /// What samples are.
    fn sj_samples_get_info(samples: Handle<SamplesObject>, info: Info<SamplesInfo>) {
        let samples = samples.get()?;
        let y = &samples.samples.y;
        let (shape, tokens) = image_and_tokens(samples.samples.kind);
        info.put(SamplesInfo {
            count: y.len() as u64,
            channels: shape.c as u64,
            height: shape.h as u64,
            width: shape.w as u64,
            label_width: y.width() as u64,
            notes: samples.notes.len() as u64,
            tokens: tokens as u64,
            ..SamplesInfo::EMPTY
        })
    }

    /// How samples were read.
    fn sj_samples_get_note(samples: Handle<SamplesObject>, number: u64, text: Out<*const c_char>) {
        let (samples, place) = (samples.get()?, text.open("text")?);
        let notes = &samples.notes;
        let note = notes.get(count(number, "note")?);
        place.write(note.ok_or_else(|| Failure::argument(format!("note {number} of {}", notes.len())))?.as_ptr());
        Ok(())
    }

    /// Views of samples.
    fn sj_samples_get_tensors(samples: Handle<SamplesObject>, x: Out<Tensor>, y: Out<Tensor>) {
        let samples = samples.get()?;
        let (x, y) = (x.wanted("tensor x")?, y.wanted("tensor y")?);
        if let Some(x) = x {
            let (values, dtype, layout) = samples.x();
            x.write(layout.view(values, dtype));
        }
        if let Some(y) = y {
            y.write(samples.y.view(samples.samples.y.words(), "u32"));
        }
        Ok(())
    }

    /// Ends a handle.
    fn sj_samples_free(samples: Handle<SamplesObject>) {
        samples.free()
    }
}
