//! `scrubjay devices`: what can run here, and why something cannot.

use scrubjay::device::{Choice, Device};

use super::Outcome;

/// List the devices that can run here, and say why one cannot
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints one line per device.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let cpu = Device::open(Choice::Cpu, 0)?;
    let cuda = match Device::open(Choice::Cuda, 0) {
        Ok(device) => device.why().to_string(),
        Err(error) => error.to_string(),
    };
    if args.json {
        println!("{}", serde_json::json!({"cpu": {"threads": cpu.threads()}, "cuda": cuda}));
    } else {
        println!("cpu   {} threads", cpu.threads());
        println!("cuda  {cuda}");
    }
    Ok(Outcome::Done)
}
