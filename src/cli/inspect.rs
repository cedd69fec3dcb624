//! `scrubjay inspect`: layers and units of a model, and the memory that scrubbing it needs; what a set of samples holds.

mod set;

use std::path::PathBuf;

use scrubjay::data::InputKind;
use scrubjay::net::{LayerId, Network, Selected, Shape, plan};
use scrubjay::ops::Precision;
use scrubjay::zoo::Facts;
use serde_json::{Value, json};

use super::model::{ChoiceArgs, NormaliseArgs, Opened, load};
use super::shared::Exit;

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

/// The numbers of noisy copies and retained samples that the bytes are for: the defaults of `scrub`.
const COPIES: usize = 1000;
const RETAINED: usize = 1024;

/// Prints the model, the data, or both.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let checkpoint = args.model.as_deref().map(|path| args.choices.checkpoint(path)).transpose()?;
    let options = args.normalise.load_options(checkpoint.as_ref(), args.choices.choices());
    let loaded = args.data.as_deref().map(|path| load(path, &options)).transpose()?;
    let mut report = match &checkpoint {
        Some(checkpoint) => model(args, &args.choices.outline(checkpoint)?)?,
        None => json!({}),
    };
    if let Some(loaded) = &loaded {
        report["data"] = set::json(loaded);
        if !args.json {
            if checkpoint.is_some() {
                println!();
            }
            set::print(loaded);
        }
        if let Some(path) = &args.image_out {
            set::write_image(path, loaded, args.index)?;
        }
    }
    if args.json {
        println!("{report}");
    }
    Ok(Exit::Done)
}

/// Prints a model, or gives what is printed as JSON.
fn model(args: &Args, model: &Opened) -> anyhow::Result<Value> {
    let net = &model.network;
    let forward = plan::Plan::perturbation(net, COPIES, args.precision.unwrap_or_default())?;
    let all = vec![Selected::All; net.layers.len()];
    let products = plan::Plan::new(net, all, plan::Purpose::Hessian, RETAINED)?;
    let kept = products.kept_bytes() * RETAINED.div_ceil(products.chunk);
    let trainable: usize = net.layers.iter().map(|layer| layer.outputs * layer.unit_len()).sum();
    let (input, tokens) = match net.kind() {
        InputKind::Image(Shape { h, w, c }) => (Some([c, h, w]), None),
        InputKind::Text { tokens } => (None, Some(tokens)),
    };
    if args.json {
        let layers: Vec<_> = net
            .layers
            .iter()
            .map(|l| json!({"layer": l.name, "units": l.outputs, "parameters": l.outputs * l.unit_len()}))
            .collect();
        return Ok(json!({
                "family": model.family,
                "read_off_tensors": model.facts.tensors,
                "read_off_config": model.facts.config,
                "chosen": model.facts.chosen,
                "assumed": model.facts.assumed,
                "config_keys_not_read": model.facts.unread,
                "input": input,
                "tokens": tokens,
                "vocabulary": net.vocabulary(),
                "classes": net.classes(),
                "parameters": net.parameters(),
                "scrubbable": trainable,
                "units": net.units().len(),
                "layers": layers,
                "observe_bytes": forward.bytes() + 4 * COPIES * net.units().len(),
                "products_bytes": products.bytes(),
                "kept_bytes": kept,
                "chunk": products.chunk,
                "program": if args.precision.is_some() { &forward } else { &products }.text(net),
        }));
    }
    print_facts(&model.facts);
    println!("family      {}", model.family);
    print_input(net);
    println!("classes     {}", net.classes());
    println!(
        "parameters  {} ({trainable} of them in units, the part that scrubbing may touch)",
        net.parameters()
    );
    println!("units       {}", net.units().len());
    print_layers(net);
    println!("\nbytes for a scrub (per worker where not said otherwise)");
    println!("  {:>12}  observing {COPIES} copies, {} at once", bytes(forward.bytes()), forward.chunk);
    println!("  {:>12}  their activations, in all", bytes(4 * COPIES * net.units().len()));
    println!(
        "  {:>12}  products with every unit selected, {} images at once",
        bytes(products.bytes()),
        products.chunk
    );
    println!(
        "  {:>12}  what these keep of {RETAINED} retained samples, in all (recomputed where it does not fit)",
        bytes(kept)
    );
    if args.program {
        let (what, program) = match args.precision {
            Some(_) => {
                ("of the pass over noisy copies; a value that is not f32 has its type behind it", &forward)
            }
            None => ("forward and backward once, the rest for every product", &products),
        };
        println!("\nprogram ({what})");
        program.text(net).iter().for_each(|line| println!("  {line}"));
    }
    Ok(Value::Null)
}

fn print_input(net: &Network) {
    match net.kind() {
        InputKind::Image(Shape { h, w, c }) => {
            println!("input       {c} x {h} x {w} (channels, height, width)");
        }
        InputKind::Text { tokens } => {
            let vocabulary = net.vocabulary().unwrap_or(0);
            println!("input       texts of up to {tokens} tokens, of {vocabulary} different ones");
        }
    }
}

fn print_layers(net: &Network) {
    let width = net.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(5).max(5);
    println!("\n{:<width$}  {:>7}  {:>12}  {:>15}", "layer", "units", "parameters", "columns");
    for (i, layer) in net.layers.iter().enumerate() {
        let columns = net.units().of_layer(LayerId(i as u32));
        let columns = format!("{}-{}", columns.start, columns.end - 1);
        let parameters = layer.outputs * layer.unit_len();
        println!("{:<width$}  {:>7}  {parameters:>12}  {columns:>15}", layer.name, layer.outputs);
    }
}

/// Prints what is known from where.
fn print_facts(facts: &Facts) {
    for (source, lines) in [
        ("tensors", &facts.tensors),
        ("config", &facts.config),
        ("options", &facts.chosen),
        ("assumed", &facts.assumed),
        ("not read", &facts.unread),
    ] {
        lines.iter().for_each(|line| println!("{source:<11} {line}"));
    }
}

/// A number of bytes with its unit.
pub fn bytes(n: usize) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (0..units.len()).rev().find(|&i| n >= 1 << (10 * i)).unwrap_or(0);
    match power {
        0 => format!("{n} B"),
        _ => format!("{:.1} {}", n as f64 / (1u64 << (10 * power)) as f64, units[power]),
    }
}
