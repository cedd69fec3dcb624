//! Files into files: delta files, and models as graphs.

use std::path::Path;

use scrubjay::checkpoint::{Checkpoint, Way};
use scrubjay::run::take_delta;
use scrubjay::zoo;

use crate::entry::entry;
use crate::model::ModelOptions;
use crate::raw::{Info, Options, Text, versioned};
use crate::status::Outcome;

versioned! {
    /// `sj_delta_rows`.
    DeltaRows as "sj_delta_rows" {
        tensors: u64 = 0,
        rows: u64 = 0,
        values: u64 = 0,
    }
}

fn take(model: Text, delta: Text, folder: Text, way: Way, rows: &Info<DeltaRows>) -> Outcome {
    if !rows.is_null() {
        rows.check()?;
    }
    let path = |text: Text, what| -> Outcome<std::path::PathBuf> { Ok(text.get(what)?.into()) };
    let (model, delta) = (path(model, "path of the model")?, path(delta, "path of the delta file")?);
    let (_, changed) = take_delta(&model, &delta, way, &path(folder, "folder")?)?;
    if rows.is_null() {
        return Ok(());
    }
    rows.put(DeltaRows {
        tensors: changed.tensors as u64,
        rows: changed.rows as u64,
        values: changed.values as u64,
        ..DeltaRows::EMPTY
    })
}

entry! {
    /// The model after, of the model before and a delta file.
    fn sj_delta_apply(model: Text, delta: Text, folder: Text, rows: Info<DeltaRows>) {
        take(model, delta, folder, Way::Apply, &rows)
    }

    /// The model before, of the model after and a delta file.
    fn sj_delta_revert(model: Text, delta: Text, folder: Text, rows: Info<DeltaRows>) {
        take(model, delta, folder, Way::Revert, &rows)
    }

    /// A model's files as a safetensors file and a graph.
    fn sj_export(path: Text, options: Options<ModelOptions>, folder: Text) {
        let options = options.get()?;
        let (choices, ignored) = options.choices()?;
        let (path, folder) = (Path::new(path.get("path")?), Path::new(folder.get("folder")?));
        let checkpoint = Checkpoint::open_with(path, &ignored, &options.weights()?)?;
        zoo::export(&zoo::load_as(&checkpoint, &choices, options.kind()?)?, folder)?;
        Ok(())
    }
}
