//! Models: read from files or from memory, inspected, written.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::InputKind;
use scrubjay::inspection::ModelInspection;
use scrubjay::net::{LayerId, Network, Shape, UnitId};
use scrubjay::ops::Precision;
use scrubjay::run::check_out;
use scrubjay::zoo::{self, Choices, Facts, Stem};
use scrubjay::{Error, Session};

use crate::device::c_text;
use crate::entry::entry;
use crate::handle::{Handle, NewHandle, Object};
use crate::raw::{In, Info, Options, Out, Text, versioned};
use crate::status::{BUFFER, Failure, Outcome};

/// `sj_model`: a network, and the files of which it or the network before it was read.
pub struct Model {
    /// Frozen.
    pub network: Network,
    origin: Arc<Origin>,
    layers: Vec<CString>,
    /// JSON and text, by the precision they were asked for.
    inspections: Mutex<BTreeMap<&'static str, [CString; 2]>>,
}

/// Where a model comes from.
pub struct Origin {
    files: Files,
    /// The network as it was read.
    base: Network,
    family: &'static str,
    family_text: CString,
    facts: Facts,
    assumed: Vec<CString>,
}

/// The files of a model.
pub enum Files {
    /// Its own.
    Own(Box<Checkpoint>),
    /// Those of the session that opened it.
    Session(Arc<Session>),
}

impl Object for Model {
    const NAME: &'static str = "model";
}

impl Model {
    /// A model that was read from these files.
    pub fn new(network: Network, files: Files, family: &'static str, facts: &Facts) -> Outcome<Model> {
        let assumed = facts.assumed.iter().map(|fact| c_text(fact)).collect::<Outcome<_>>()?;
        let (base, facts) = (network.clone(), facts.clone());
        let origin = Origin { files, base, family, family_text: c_text(family)?, facts, assumed };
        Model::of(network, Arc::new(origin))
    }

    fn of(network: Network, origin: Arc<Origin>) -> Outcome<Model> {
        let layers = network.layers.iter().map(|layer| c_text(&layer.name)).collect::<Outcome<_>>()?;
        Ok(Model { network, origin, layers, inspections: Mutex::default() })
    }

    /// The same model with other values.
    pub fn changed(&self, network: Network) -> Outcome<Model> {
        Model::of(network, self.origin.clone())
    }

    /// The family that it was taken for.
    pub fn known_family(&self) -> &'static str {
        self.origin.family
    }

    /// Its files, or those of the network before it.
    pub fn checkpoint(&self) -> Outcome<&Checkpoint> {
        match &self.origin.files {
            Files::Own(checkpoint) => Ok(checkpoint),
            Files::Session(session) => session
                .checkpoint()
                .ok_or_else(|| Error::config("the model has no files to be written as").into()),
        }
    }
}

versioned! {
    /// `sj_model_options`.
    ModelOptions as "sj_model_options" {
        arch: Text = Text::NONE,
        heads: u64 = 0,
        stem: Text = Text::NONE,
        ignore: In<Text> = In::NONE,
        ignore_count: u64 = 0,
        channels: u64 = 0,
        height: u64 = 0,
        width: u64 = 0,
        tokens: u64 = 0,
        weights: In<Text> = In::NONE,
        weights_count: u64 = 0,
    }
}

versioned! {
    /// `sj_model_info`.
    ModelInfo as "sj_model_info" {
        family: Text = Text::NONE,
        channels: u64 = 0,
        height: u64 = 0,
        width: u64 = 0,
        classes: u64 = 0,
        label_width: u64 = 0,
        layers: u64 = 0,
        units: u64 = 0,
        parameters: u64 = 0,
        assumed: u64 = 0,
        files: u64 = 0,
        tokens: u64 = 0,
    }
}

versioned! {
    /// `sj_layer_info`.
    LayerInfo as "sj_layer_info" {
        name: Text = Text::NONE,
        units: u64 = 0,
        first_unit: u64 = 0,
        unit_parameters: u64 = 0,
        has_bias: u64 = 0,
    }
}

versioned! {
    /// `sj_saved`.
    Saved as "sj_saved" {
        changed: u64 = 0,
        lost: u64 = 0,
    }
}

/// The shape of an image, empty of a text, and the tokens of a text, 0 of an image.
pub fn image_and_tokens(kind: InputKind) -> (Shape, usize) {
    match kind {
        InputKind::Image(shape) => (shape, 0),
        InputKind::Text { tokens } => (Shape::new(0, 0, 0), tokens),
    }
}

/// A count of the caller's as one of the library's.
pub fn count(number: u64, what: &str) -> Outcome<usize> {
    usize::try_from(number).map_err(|_| Failure::argument(format!("{what}: {number} is too large")))
}

/// A count of which 0 leaves the choice to the library.
pub fn some(number: u64, what: &str) -> Outcome<Option<usize>> {
    Ok(Some(count(number, what)?).filter(|&number| number > 0))
}

/// [`some`], of a number of 32 bits.
pub fn some_small(number: u64, what: &str) -> Outcome<Option<u32>> {
    let small =
        u32::try_from(number).map_err(|_| Failure::argument(format!("{what}: {number} is too large")))?;
    Ok(Some(small).filter(|&number| number > 0))
}

/// A flag of the caller's.
pub fn flag(value: u64, what: &str) -> Outcome<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Failure::argument(format!("{what} is 0 or 1, not {value}"))),
    }
}

/// A number of the caller's, where NaN leaves the choice to the library.
pub fn given(value: f64) -> Option<f64> {
    Some(value).filter(|value| !value.is_nan())
}

/// What the tensors of a model do not tell, and patterns of tensors to leave out.
pub fn choices(
    arch: Text,
    heads: u64,
    stem: Text,
    (ignore, ignored): (In<Text>, u64),
) -> Outcome<(Choices, Vec<String>)> {
    let arch = arch.find("arch")?.map(String::from);
    let choices = Choices { arch, heads: some(heads, "heads")?, stem: stem.named::<Stem>("stem")? };
    Ok((choices, texts(ignore, ignored, ["ignore_count", "tensors to ignore"])?))
}

/// A list of texts; `names` are what its number and its elements are called.
pub fn texts(list: In<Text>, number: u64, names: [&str; 2]) -> Outcome<Vec<String>> {
    let list = list.list(count(number, names[0])?, names[1])?;
    list.iter().map(|text| Ok(text.get(names[1])?.to_string())).collect()
}

impl ModelOptions {
    /// What the tensors do not tell, and patterns of tensors to leave out.
    pub fn choices(&self) -> Outcome<(Choices, Vec<String>)> {
        choices(self.arch, self.heads, self.stem, (self.ignore, self.ignore_count))
    }

    /// Keys of the weights in PyTorch files.
    pub fn weights(&self) -> Outcome<Vec<String>> {
        texts(self.weights, self.weights_count, ["weights_count", "keys of weights"])
    }

    /// What an input is, where that is given.
    pub fn kind(&self) -> Outcome<Option<InputKind>> {
        let sides = [self.channels, self.height, self.width];
        let [c, h, w] = sides;
        let side = |side: u64| (1..=1 << 20).contains(&side).then_some(side as usize);
        match (sides == [0; 3], self.tokens) {
            (true, 0) => return Ok(None),
            (true, tokens) => match side(tokens) {
                Some(tokens) => return Ok(Some(InputKind::Text { tokens })),
                None => return Err(Failure::argument(format!("tokens: {tokens} is too large"))),
            },
            (false, 0) => {}
            (false, _) => return Err(Failure::argument("an input is an image or a text, not both")),
        }
        match (side(c), side(h), side(w)) {
            (Some(c), Some(h), Some(w)) if c.saturating_mul(h).saturating_mul(w) <= 1 << 31 => {
                Ok(Some(InputKind::Image(Shape::new(h, w, c))))
            }
            _ => Err(Failure::argument(format!(
                "an image of {c} channels of {h} by {w} is none; all 0 leave it to the model"
            ))),
        }
    }
}

fn read(checkpoint: Checkpoint, choices: &Choices, kind: Option<InputKind>) -> Outcome<Model> {
    let read = zoo::load_as(&checkpoint, choices, kind)?;
    Model::new(read.network.freeze(), Files::Own(Box::new(checkpoint)), read.family, &read.facts)
}

entry! {
    /// Fills in the defaults.
    fn sj_model_options_init(options: Info<ModelOptions>, struct_size: usize) {
        options.init(struct_size)
    }

    /// Reads a model's files.
    fn sj_model_open(path: Text, options: Options<ModelOptions>, model: NewHandle<Model>) {
        model.open()?;
        let options = options.get()?;
        let (choices, ignored) = options.choices()?;
        let checkpoint = Checkpoint::open_with(Path::new(path.get("path")?), &ignored, &options.weights()?)?;
        model.put(read(checkpoint, &choices, options.kind()?)?)
    }

    /// Reads a model of bytes.
    fn sj_model_from_memory(
        bytes: In<u8>,
        size: usize,
        config: Text,
        file_name: Text,
        options: Options<ModelOptions>,
        model: NewHandle<Model>,
    ) {
        model.open()?;
        let (options, bytes) = (options.get()?, bytes.list(size, "bytes")?);
        let (choices, ignored) = options.choices()?;
        let name = file_name.find("file name")?.unwrap_or("model.safetensors");
        let checkpoint = Checkpoint::in_memory(name, bytes.to_vec(), config.find("config")?, &ignored)?;
        model.put(read(checkpoint, &choices, options.kind()?)?)
    }

    /// What a model is.
    fn sj_model_get_info(model: Handle<Model>, info: Info<ModelInfo>) {
        let model = model.get()?;
        let net = &model.network;
        let (shape, tokens) = image_and_tokens(net.kind());
        info.put(ModelInfo {
            family: Text::of(&model.origin.family_text),
            channels: shape.c as u64,
            height: shape.h as u64,
            width: shape.w as u64,
            classes: net.classes() as u64,
            label_width: net.label_width() as u64,
            layers: net.layers.len() as u64,
            units: net.units().len() as u64,
            parameters: net.parameters() as u64,
            assumed: model.origin.assumed.len() as u64,
            files: model.checkpoint().map_or(0, |checkpoint| checkpoint.file_names().count()) as u64,
            tokens: tokens as u64,
            ..ModelInfo::EMPTY
        })
    }

    /// What a layer is.
    fn sj_model_get_layer(model: Handle<Model>, number: u64, info: Info<LayerInfo>) {
        let model = model.get()?;
        let layers = &model.network.layers;
        let at = count(number, "layer")?;
        let (Some(layer), Some(name)) = (layers.get(at), model.layers.get(at)) else {
            return Err(Failure::argument(format!("layer {number} of a model with {}", layers.len())));
        };
        let first = model.network.units().of_layer(LayerId(at as u32)).start;
        info.put(LayerInfo {
            name: Text::of(name),
            units: layer.outputs as u64,
            first_unit: first as u64,
            unit_parameters: layer.unit_len() as u64,
            has_bias: layer.bias.is_some().into(),
            ..LayerInfo::EMPTY
        })
    }

    /// The number of a unit.
    fn sj_model_find_unit(model: Handle<Model>, layer: Text, row: u64, unit: Out<u32>) {
        let (model, place) = (model.get()?, unit.open("unit")?);
        let net = &model.network;
        let UnitId(found) = net.units().find(net.layer_named(layer.get("layer")?)?, count(row, "row")?)?;
        place.write(found);
        Ok(())
    }

    /// What is known of a model, as JSON and as text.
    fn sj_model_get_inspection(
        model: Handle<Model>,
        precision: Text,
        json: Out<*const c_char>,
        text: Out<*const c_char>,
    ) {
        let (model, json, text) = (model.get()?, json.wanted("json")?, text.wanted("text")?);
        let precision = precision.named::<Precision>("precision")?;
        let mut kept = model.inspections.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match kept.entry(precision.map_or("", Precision::name)) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => {
                let Origin { family, facts, .. } = &*model.origin;
                let found = ModelInspection::of(&model.network, family, facts, precision)?;
                place.insert([c_text(&serde_json::json!(found).to_string())?, c_text(&found.text(false))?])
            }
        };
        for (place, found) in [json, text].into_iter().zip(found) {
            if let Some(place) = place {
                place.write(found.as_ptr());
            }
        }
        Ok(())
    }

    /// What was assumed of a model.
    fn sj_model_get_assumed(model: Handle<Model>, number: u64, text: Out<*const c_char>) {
        let (model, place) = (model.get()?, text.open("text")?);
        let facts = &model.origin.assumed;
        let fact = facts.get(count(number, "fact")?);
        place.write(fact.ok_or_else(|| Failure::argument(format!("fact {number} of {}", facts.len())))?.as_ptr());
        Ok(())
    }

    /// Writes a model's files.
    fn sj_model_save(model: Handle<Model>, folder: Text, saved: Info<Saved>) {
        let model = model.get()?;
        if !saved.is_null() {
            saved.check()?;
        }
        let (checkpoint, folder) = (model.checkpoint()?, Path::new(folder.get("folder")?));
        check_out(checkpoint, folder)?;
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let patched = checkpoint.write_patched(&model.origin.base, &model.network, folder)?;
        if saved.is_null() {
            return Ok(());
        }
        saved.put(Saved { changed: patched.changed as u64, lost: patched.vanished as u64, ..Saved::EMPTY })
    }

    /// The bytes of one of a model's files.
    fn sj_model_get_bytes(model: Handle<Model>, file: u64, bytes: Out<u8>, size: usize, needed: Out<usize>) {
        let (model, needed) = (model.get()?, needed.wanted("needed size")?);
        let (_, files) = model.checkpoint()?.patched(&model.origin.base, &model.network)?;
        let found = files.get(count(file, "file")?);
        let found = found.ok_or_else(|| Failure::argument(format!("file {file} of {}", files.len())))?;
        if let Some(needed) = needed {
            needed.write(found.len());
        }
        match size {
            0 => Ok(()),
            _ if size < found.len() => Err(Failure::new(BUFFER, format!("{size} bytes for a file of {}", found.len()))),
            _ => bytes.put_list(found, size, "bytes"),
        }
    }

    /// Ends a handle.
    fn sj_model_free(model: Handle<Model>) {
        model.free()
    }
}
