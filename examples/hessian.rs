//! Products with the Hessian of a network's loss on a block of its units, and a system solved by them.
//!
//!     cargo run --release --example hessian

use scrubjay::block::Block;
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::solve::{BlockVector, Limits, Vector, minres};
use scrubjay::{Device, Result, data, zoo};

fn main() -> Result<()> {
    let device = Device::cpu()?;
    let digits = data::digits()?;
    let net = zoo::create("cnn:8-16+32", digits.shape(), 10, 1)?.network.freeze();

    // The output layer as the block: p parameters, and products that never touch the others.
    let last = net.layer_named(&net.layers[net.layers.len() - 1].name)?;
    let units: Vec<_> = net.units().of_layer(last).map(|unit| scrubjay::net::UnitId(unit as u32)).collect();
    let block = Block::of(&net, &units)?;
    let some = Vec::from_iter(0..256);
    let inputs = digits.subset(&some);
    let hessian = Curvature::new(&device, &net, &block, &inputs, Kind::Hessian, 1 << 30)?;
    println!("p = {} parameters of {} units", block.len(), units.len());

    // uᵀHv = vᵀHu, whatever u and v.
    let wave = |step: f64| (0..block.len()).map(|i| (step * i as f64).sin()).collect::<Vec<f64>>();
    let (u, v) = (hessian.block_vector(&wave(0.3))?, hessian.block_vector(&wave(0.7))?);
    let (mut hu, mut hv) = (u.zeros()?, v.zeros()?);
    hessian.product(&mut hu, &u)?;
    hessian.product(&mut hv, &v)?;
    println!("u.Hv = {:.6}, v.Hu = {:.6}", u.dot(&hv)?, v.dot(&hu)?);

    // (H + 0.01 I) step = gradient.
    let gradient = hessian.block_vector(hessian.gradient())?;
    let mut product = |out: &mut BlockVector, v: &BlockVector| hessian.product(out, v);
    let (step, report) = minres(&mut product, &gradient, 0.01, Limits { tolerance: 1e-4, products: 500 })?;
    println!(
        "{}: {} products, relative residual {:.1e}; |step| = {:.3}",
        report.solver.name(),
        report.products,
        report.residual,
        step.norm()?
    );
    Ok(())
}
