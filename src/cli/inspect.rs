//! `scrubjay inspect`: layers and units of a model, and the memory that scrubbing it needs; what a set of samples holds.

use std::path::PathBuf;

use scrubjay::inspection::{ModelInspection, SetInspection, write_image};
use scrubjay::ops::Precision;
use serde_json::json;

use super::model::{ChoiceArgs, NormaliseArgs, Opened, load};
use super::shared::{self, Exit};

/// List the layers, units and parameters of a model and the memory that a scrub needs, or what data hold
///
/// A unit is a neuron or a channel, with the weights that compute it.
///
/// --data lists what the samples are: their number and shape, how they are brought to it, and the
/// classes with number, name and count. With --model and --data, the samples are read as the model's
/// config says, and --image-out writes one as it reaches the network.
///
/// Examples:
///   scrubjay inspect --model resnet50.safetensors
///   scrubjay inspect --data photos/train
///   scrubjay inspect --model resnet50/ --data photos/train --image-out seen.png --index 7
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The model: a .safetensors, .pth or .onnx file, a directory with such a file and config.json, or from the local caches
    /// hf:ORG/NAME[@REVISION], timm:NAME or torchvision:NAME
    #[arg(long, value_name = "M", required_unless_present = "data")]
    model: Option<PathBuf>,
    #[command(flatten)]
    choices: ChoiceArgs,
    /// Labelled data, in any format that `eval` reads
    #[arg(long, value_name = "DATA")]
    data: Option<PathBuf>,
    #[command(flatten)]
    normalise: NormaliseArgs,
    /// Write an image as it reaches the network, before --mean and --std, as a PNG file
    #[arg(long, value_name = "FILE.png", requires = "data")]
    image_out: Option<PathBuf>,
    /// Which image --image-out writes; the first is 0
    #[arg(long, value_name = "I", default_value_t = 0, requires = "image_out")]
    index: usize,
    /// Also print the instructions, one per line: those of a Hessian product, or with --precision those of the pass over noisy
    /// copies
    #[arg(long)]
    program: bool,
    /// The precision of the pass over noisy copies, which decides its memory; in bf16 and f16 most values between layers are
    /// stored in that type
    #[arg(long, value_enum, value_name = "f32|tf32|bf16|f16")]
    precision: Option<Precision>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the model, the data, or both.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    shared::check_files(&args.image_out)?;
    let checkpoint = args.model.as_deref().map(|path| args.choices.checkpoint(path)).transpose()?;
    let options = args.normalise.load_options(checkpoint.as_ref(), args.choices.choices());
    let loaded = args.data.as_deref().map(|path| load(path, &options)).transpose()?;
    let mut report = json!({});
    if let Some(checkpoint) = &checkpoint {
        let Opened { network, family, facts } = args.choices.outline(checkpoint)?;
        let model = ModelInspection::of(&network, family, &facts, args.precision)?;
        match args.json {
            true => report = json!(model),
            false => print!("{}", model.text(args.program)),
        }
    }
    if let Some(loaded) = &loaded {
        let set = SetInspection::from(loaded);
        report["data"] = json!(set);
        if !args.json {
            if checkpoint.is_some() {
                println!();
            }
            print!("{}", set.text());
        }
        if let Some(path) = &args.image_out {
            write_image(path, &loaded.samples, &loaded.normalise, args.index)?;
        }
    }
    if args.json {
        println!("{report}");
    }
    Ok(Exit::Done)
}
