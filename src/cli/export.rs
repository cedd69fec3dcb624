//! `scrubjay export`: any model as a safetensors file and a graph.

use std::path::PathBuf;

use scrubjay::data::file::check_folder;
use scrubjay::zoo;

use super::model::{ModelArgs, print_notes};
use super::shared::Exit;

/// Write a model as model.safetensors (f32) and a config.json that lists its network node by node
///
/// Example:
///   scrubjay export --model resnet18.onnx --out resnet18
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The folder for both files, which must not have them yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes the two files.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    check_folder(&args.out)?;
    let checkpoint = args.model.checkpoint()?;
    let model = zoo::load_as(&checkpoint, &args.model.choices.choices(), None)?;
    print_notes(&checkpoint, &model.facts);
    let [tensors, graph] = zoo::export(&model, &args.out)?;
    println!("wrote {} and {}", tensors.display(), graph.display());
    Ok(Exit::Done)
}
