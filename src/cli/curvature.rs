//! `scrubjay curvature`: writes gradient, Hessian-vector product and Newton step on a block to a file.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Context;
use scrubjay::block::Block;
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::data::Samples;
use scrubjay::data::tensors::{self, Tensor, TensorFile, Values};
use scrubjay::device::Device;
use scrubjay::solve::{BlockVector, Limits, Report, Vector, minres};
use scrubjay::{Error, net};

use super::model::{ModelArgs, TextArgs, input_options, load};
use super::shared::{self, DeviceArgs, Exit};

/// Write gradient, Hessian-vector product and Newton step of the mean loss on a block of units
///
/// IN is what `observe` reads, and a .safetensors file may also have v f32 [p]. BLOCK.json lists the
/// units as [[layer, row], ..]; `inspect` lists the layers. OUT gets gradient [p] and, where IN has v,
/// hv [p] = Hv. With --solve it also gets step [p] = (H + λI)⁻¹ gradient, by MINRES, which also solves
/// indefinite systems; the solver's report goes to stdout as JSON.
/// Order of p: for each unit in the list, its weight row as PyTorch flattens it, then its bias if it
/// has one.
///
/// Example:
///   scrubjay curvature --model m.safetensors --input in.safetensors --block block.json \
///       --out out.safetensors --damping 0.01 --solve
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The inputs and their labels; a .safetensors file may also have the vector v
    #[arg(long, value_name = "IN")]
    input: PathBuf,
    /// The units: a JSON list of [layer name, row]
    #[arg(long, value_name = "BLOCK.json")]
    block: PathBuf,
    /// The file to write
    #[arg(long, value_name = "OUT.safetensors")]
    out: PathBuf,
    /// The matrix H: exact Hessian, Gauss-Newton or empirical Fisher
    #[arg(long, value_enum, default_value_t = Kind::Hessian, value_name = "hessian|ggn|fisher")]
    curvature: Kind,
    /// λ, added to the diagonal of H in the solve
    #[arg(long, default_value_t = 0.0, value_name = "λ", value_parser = shared::not_negative)]
    damping: f64,
    /// Solve (H + λI) step = gradient
    #[arg(long)]
    solve: bool,
    /// The relative residual at which the solver stops
    #[arg(long, value_name = "R", default_value_t = 1e-5, value_parser = shared::not_negative)]
    tolerance: f64,
    /// The most products with H that the solver may use; 0 means 100, and 10 more for each parameter of the block
    #[arg(long, value_name = "K", default_value_t = 0)]
    products: usize,
    #[command(flatten)]
    texts: TextArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// The most bytes of primal values that are kept between products.
const MEMORY: usize = 4 << 30;

/// Writes gradient, product and step.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    shared::check_files([&args.out])?;
    let checkpoint = args.model.checkpoint()?;
    let inputs = load(&args.input, &input_options(&args.model, &args.texts, &checkpoint))?.samples;
    let model = args.model.open(&checkpoint, Some((&args.input, &inputs)))?;
    let net = &model.network;
    let block = Block::of(net, &units(args, net)?)?;
    let p = block.len();
    let tensors = args.input.extension().is_some_and(|end| end.eq_ignore_ascii_case("safetensors"));
    let file = tensors.then(|| TensorFile::open(&args.input)).transpose()?;
    let v = match file.filter(|file| file.has("v")) {
        Some(file) if file.shape("v")? == [p] => Some(block.from_stored(net, &file.f32("v")?)),
        Some(file) => {
            let reason = format!("has shape {:?}, where the block has [{p}] parameters", file.shape("v")?);
            return Err(Error::record(&args.input, "tensor `v`", reason).into());
        }
        None => None,
    };
    let device = args.device.open()?;
    let (out, report) = device.shared(|device| found(args, device, net, &block, &inputs, v.as_deref()))?;
    if let Some(report) = report {
        println!("{}", serde_json::to_string(&report)?);
    }
    let stored: Vec<(&str, Vec<f32>)> = out
        .iter()
        .map(|(name, v)| (*name, block.to_stored(net, v).into_iter().map(|v| v as f32).collect()))
        .collect();
    let all: Vec<Tensor> = stored
        .iter()
        .map(|(name, values)| Tensor { name, shape: vec![p], values: Values::F32(values) })
        .collect();
    device.ranks().first(|| tensors::write(&args.out, &all, HashMap::new()))?;
    Ok(Exit::Done)
}

/// What is computed, by name, and how the solve went.
type Found = (Vec<(&'static str, Vec<f64>)>, Option<Report>);

/// Gradient, product and step of a block.
fn found(
    args: &Args,
    device: &Device,
    net: &net::Network,
    block: &Block,
    inputs: &Samples,
    v: Option<&[f32]>,
) -> scrubjay::Result<Found> {
    let p = block.len();
    let curvature = Curvature::new(device, net, block, inputs, args.curvature, MEMORY)?;
    let mut out = vec![("gradient", curvature.gradient().to_vec())];
    if let Some(v) = v {
        let mut hv = vec![0.0; p];
        curvature.apply(&mut hv, v)?;
        out.push(("hv", hv));
    }
    if !args.solve {
        return Ok((out, None));
    }
    let limits = Limits {
        tolerance: args.tolerance,
        products: if args.products == 0 { 10 * p + 100 } else { args.products },
    };
    let right = curvature.block_vector(curvature.gradient())?;
    let mut product = |out: &mut BlockVector, v: &BlockVector| curvature.product(out, v);
    let (step, report) = minres(&mut product, &right, args.damping, limits)?;
    out.push(("step", step.values()?));
    Ok((out, Some(report)))
}

fn units(args: &Args, net: &net::Network) -> anyhow::Result<Vec<net::UnitId>> {
    let bytes = tensors::read(&args.block)?;
    let listed: Vec<(String, usize)> = serde_json::from_slice(&bytes)
        .with_context(|| format!("{}: a list of [layer name, row] was expected", args.block.display()))?;
    if listed.is_empty() {
        return Err(Error::data(&args.block, "lists no units").into());
    }
    let find = |(layer, row): &(String, usize)| net.units().find(net.layer_named(layer)?, *row);
    Ok(listed
        .iter()
        .map(|unit| {
            find(unit).map_err(|e| {
                Error::record(&args.block, format!("[\"{}\", {}]", unit.0, unit.1), e.to_string())
            })
        })
        .collect::<scrubjay::Result<_>>()?)
}
