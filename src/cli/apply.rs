//! `scrubjay apply` and `scrubjay revert`: a delta file, and a model into the other model.

use std::path::PathBuf;

use scrubjay::checkpoint::{Rows, Way};
use scrubjay::run::take_delta;

use super::shared::Exit;

/// Apply a delta file to the old model, which gives the new one
///
/// `scrub --delta-file` writes the delta file: the rows that changed and the hashes of the old and the new model. DIR gets the new
/// model, byte for byte, and the config files of MODEL. A model with another hash is refused.
///
/// Examples:
///   scrubjay apply resnet20.safetensors scrubbed/delta.safetensors --out served
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ApplyArgs {
    #[command(flatten)]
    files: Files,
}

/// Take a delta file back: the new model gives the old one
///
/// The delta file must have the old values (`scrub --delta-file both`). The old model remembers the removed samples, and so do these
/// values.
///
/// Examples:
///   scrubjay revert served/resnet20.safetensors scrubbed/delta.safetensors --out before
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct RevertArgs {
    #[command(flatten)]
    files: Files,
}

#[derive(clap::Args)]
struct Files {
    /// The model: a .safetensors file, one of torch.save's, or a directory with such a file
    model: PathBuf,
    /// The delta file
    delta: PathBuf,
    /// Where to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Applies a delta.
pub fn apply(args: &ApplyArgs) -> anyhow::Result<Exit> {
    take(&args.files, Way::Apply)
}

/// Takes one back.
pub fn revert(args: &RevertArgs) -> anyhow::Result<Exit> {
    take(&args.files, Way::Revert)
}

fn take(Files { model, delta, out }: &Files, way: Way) -> anyhow::Result<Exit> {
    let (written, Rows { tensors, rows, values }) = take_delta(model, delta, way, out)?;
    println!("changed   {values} values in {rows} rows of {tensors} tensors");
    written.iter().for_each(|file| println!("written   {}", file.display()));
    Ok(Exit::Done)
}
