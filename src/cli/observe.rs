//! `scrubjay observe`: writes activations and losses of inputs to a file.

use std::collections::HashMap;
use std::path::PathBuf;

use scrubjay::data::tensors::{self, Tensor, Values};
use scrubjay::observe::{observe, observe_copies};
use scrubjay::ops::Precision;
use scrubjay::perturb::{Noise, REPLACE, SIGMA, check_options, perturb_request};

use super::model::{ModelArgs, TextArgs, input_options, load};
use super::shared::{self, DeviceArgs, Exit};

/// Write the activation of every unit, the loss and the logits of inputs
///
/// IN is a .safetensors file with x f32 [n, c, h, w] or [n, features], already normalised, or for texts
/// input_ids and attention_mask i64 [n, t]; and y i64 [n], or [n, labels] of 0 and 1. IN can also be
/// labelled images in any format that `eval` reads, which are normalised as the model's config says.
/// OUT gets logits [n, classes], loss [n] and activations [n, d]; its metadata `units` lists the
/// layers of the d columns. With --perturbations M, all of IN is one request, and OUT gets the mean
/// loss [M] and the mean activations [M, d] of M noisy copies of it.
///
/// Example:
///   scrubjay observe --model m.safetensors --input one.safetensors --out trace.safetensors \
///       --perturbations 1000
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The inputs and their labels
    #[arg(long, value_name = "IN")]
    input: PathBuf,
    /// The file to write
    #[arg(long, value_name = "OUT.safetensors")]
    out: PathBuf,
    /// Observe this many noisy copies instead of the inputs themselves
    #[arg(long, value_name = "M", value_parser = shared::at_least_one)]
    perturbations: Option<u32>,
    /// Of images: the standard deviation of the noise, in units of the normalised input; by default 0.1
    #[arg(long, value_name = "S", value_parser = shared::positive, requires = "perturbations")]
    sigma: Option<f32>,
    /// Of texts: how many tokens of each copy are replaced by random ones; by default 1
    #[arg(long, value_name = "T", value_parser = shared::at_least_one, requires = "perturbations")]
    replace: Option<u32>,
    /// The precision of affine layers in the pass over noisy copies; by default f32. The others need a GPU; in bf16 and f16 most
    /// values between layers are rounded too
    #[arg(long, value_enum, value_name = "f32|tf32|bf16|f16", requires = "perturbations")]
    precision: Option<Precision>,
    /// The seed of the noise
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    texts: TextArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Writes the trace.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    shared::check_files([&args.out])?;
    let checkpoint = args.model.checkpoint()?;
    let inputs = load(&args.input, &input_options(&args.model, &args.texts, &checkpoint))?.samples;
    let model = args.model.open(&checkpoint, Some((&args.input, &inputs)))?;
    check_options(model.network.kind(), args.sigma, args.replace)?;
    let device = args.device.open()?;
    let net = &model.network;
    let trace = match args.perturbations {
        None => observe(&device, net, &inputs)?,
        Some(copies) => {
            let request: Vec<usize> = (0..inputs.y.len()).collect();
            let precision = args.precision.unwrap_or_default();
            let (sigma, replace) = (args.sigma.unwrap_or(SIGMA), args.replace.unwrap_or(REPLACE));
            let noise = Noise { sigma, replace, seed: args.seed };
            let copies = perturb_request(&inputs, &request, &net.ordinary, copies as usize, noise)?;
            observe_copies(&device, net, &copies, precision)?
        }
    };
    eprintln!("plan: {} images at once", trace.chunk);
    let units: Vec<_> =
        net.layers.iter().map(|l| serde_json::json!({"layer": l.name, "rows": l.outputs})).collect();
    let metadata = HashMap::from([("units".to_string(), serde_json::to_string(&units)?)]);
    let mut out = vec![
        Tensor {
            name: "activations",
            shape: vec![trace.m, trace.d],
            values: Values::F32(&trace.activations),
        },
        Tensor { name: "loss", shape: vec![trace.m], values: Values::F32(&trace.losses) },
    ];
    if args.perturbations.is_none() {
        let shape = vec![trace.m, net.classes()];
        out.push(Tensor { name: "logits", shape, values: Values::F32(&trace.logits) });
    }
    device.ranks().first(|| tensors::write(&args.out, &out, metadata))?;
    Ok(Exit::Done)
}
