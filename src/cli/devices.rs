//! `scrubjay devices`: what can run here, and why something cannot.

use scrubjay::device::Listing;

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
    let listing = Listing::new()?;
    match args.json {
        true => println!("{}", listing.json()),
        false => print!("{}", listing.text()),
    }
    Ok(Exit::Done)
}
