//! `scrubjay inspect`: layers and units of a model, and the memory that scrubbing it needs.

use scrubjay::data::InputKind;
use scrubjay::net::{LayerId, Network, Selected, Shape, plan};
use scrubjay::zoo::Facts;

use super::model::ModelArgs;
use super::shared::Exit;

/// List layers, units and parameters of a model, its program, and the memory that a scrub needs
///
/// Example:
///   scrubjay inspect --model resnet50.safetensors
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Print the program of Hessian products too, one line an instruction
    #[arg(long)]
    program: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The numbers of noisy copies and retained samples that the bytes are for: the defaults of `scrub`.
const COPIES: usize = 1000;
const RETAINED: usize = 1024;

/// Prints the model.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let model = args.model.choices.outline(&args.model.checkpoint()?)?;
    let net = &model.network;
    let forward = plan::Plan::forward(net, COPIES)?;
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
            .map(|l| serde_json::json!({"layer": l.name, "units": l.outputs, "parameters": l.outputs * l.unit_len()}))
            .collect();
        println!(
            "{}",
            serde_json::json!({
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
                "program": products.text(net),
            })
        );
        return Ok(Exit::Done);
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
        println!("\nprogram (forward and backward once, the rest for every product)");
        products.text(net).iter().for_each(|line| println!("  {line}"));
    }
    Ok(Exit::Done)
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
