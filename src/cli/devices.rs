//! `scrubjay devices`: what can run here, and why something cannot.

use scrubjay::device::{Choice, Device, cuda, nvml};

use super::shared::Exit;

/// List the devices that can run here, and say why one cannot
///
/// These commands can use a GPU: demo, scrub, serve, verify, train, observe, curvature, eval, codec,
/// foci and bench. Permutations of ranks and the eigenvectors of K-FAC are always computed on the CPU.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  scrubjay devices\n  scrubjay devices --json")]
pub struct Args {
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

/// Prints one line per device.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let cpu = Device::open(Choice::Cpu, 0)?;
    let usable =
        Device::open(Choice::Cuda, 0).map(|device| device.why().to_string()).map_err(|e| e.to_string());
    let seen = cuda::list().unwrap_or_default();
    let readings = nvml::all();
    if args.json {
        let (name, reason) = (usable.as_ref().ok(), usable.as_ref().err());
        let cuda =
            serde_json::json!({"usable": usable.is_ok(), "name": name, "reason": reason, "seen": seen});
        let nvml = match &readings {
            Ok(readings) => serde_json::json!({"gpus": readings}),
            Err(reason) => serde_json::json!({"reason": reason}),
        };
        println!("{}", serde_json::json!({"cpu": {"threads": cpu.threads()}, "cuda": cuda, "nvml": nvml}));
        return Ok(Exit::Done);
    }
    println!("cpu   {} threads", cpu.threads());
    println!("cuda  {}", usable.as_ref().map_or_else(|reason| reason.as_str(), |name| name.as_str()));
    for (number, name) in seen.iter().enumerate().filter(|_| usable.is_err() || seen.len() > 1) {
        println!("      GPU {number}: {name}");
    }
    match readings {
        Ok(readings) => readings.iter().for_each(|reading| {
            let (name, driver) = (reading.name.as_deref(), reading.driver.as_deref());
            println!("nvml  {}, driver {}: {reading}", name.unwrap_or("a GPU"), driver.unwrap_or("unknown"));
        }),
        Err(reason) => println!("nvml  {reason}"),
    }
    Ok(Exit::Done)
}
