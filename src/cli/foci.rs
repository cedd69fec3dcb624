//! `scrubjay foci`: which columns of a table tell about another, best first.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use scrubjay::codec::{self, Foci, FociOptions, Matrix, Stopped};
use scrubjay::data::table::{Column, Table};

use super::codec::{Randomness, target};
use super::{DeviceArgs, Outcome};

/// Choose the columns that tell about another one, best first (FOCI)
///
/// The first is the column of the largest T; then always the one that tells most given those before it, until the
/// largest T is not positive or undefined.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  scrubjay foci people.csv --target income
  scrubjay foci people.csv --target income --standardize scale --max-features 5
  scrubjay foci columns.safetensors --json

COL is a name or a number from 0. Of a .safetensors file with X [n, p] and Y [n], numbers are columns of X.")]
pub struct Args {
    /// Table: .csv, .npy or .safetensors
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// The column to be told about; Y of a .safetensors file if left out
    #[arg(long, value_name = "COL")]
    target: Option<String>,
    /// Stop at this many columns
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    max_features: Option<u32>,
    /// Go on where nothing more is told, until all columns are in order
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    randomness: Randomness,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Prints the columns chosen.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let table = Table::read(&args.data)?;
    let y = target(&table, args.target.as_deref(), "--target")?;
    let numbers: Vec<usize> = (0..table.names().len()).filter(|&j| y != Column::Number(j)).collect();
    let columns = numbers
        .iter()
        .map(|&j| table.column(Column::Number(j)))
        .collect::<scrubjay::Result<Vec<_>>>()?
        .concat();
    let data = Matrix::columns_f64(&columns, table.n(), numbers.len())?;
    let values = table.column(y)?;
    let options = FociOptions {
        max_features: args.max_features.map(|k| k as usize),
        all: args.all,
        standardize: args.randomness.standardize(),
        ties: args.randomness.ties(),
        noise: args.randomness.noise,
        seed: args.randomness.seed,
    };
    let device = args.device.open_with_cuda()?;
    let bar = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {pos} columns chosen, {elapsed}")?);
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    let mut each = |steps: usize, _| bar.set_position(steps as u64);
    let found = codec::foci_on(&device, values, &data, &options, &mut each)?;
    bar.finish_and_clear();
    let order: Vec<usize> = found.order.iter().map(|&at| numbers[at]).collect();
    let names: Vec<&str> = order.iter().map(|&j| table.names()[j].as_str()).collect();
    if args.json {
        let stopped = found.stopped.name();
        println!(
            "{}",
            serde_json::json!({
                "order": order, "names": names, "conditional": found.conditional,
                "cumulative": found.cumulative, "stopped": stopped,
            })
        );
    } else {
        print_table(&order, &names, &found);
    }
    Ok(Outcome::Done)
}

fn print_table(order: &[usize], names: &[&str], found: &Foci) {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("name".len());
    let number = |t: Option<f64>| t.map_or("undefined".to_string(), |t| format!("{t:.6}"));
    if order.is_empty() {
        println!("nothing chosen");
    } else {
        println!(
            "{:>4}  {:>6}  {:<width$}  {:>14}  {:>10}",
            "step", "column", "name", "T given before", "T together"
        );
    }
    for (step, (column, name)) in order.iter().zip(names).enumerate() {
        let (given, together) = (number(found.conditional[step]), number(found.cumulative[step]));
        println!("{:>4}  {column:>6}  {name:<width$}  {given:>14}  {together:>10}", step + 1);
    }
    let reason = match found.stopped {
        Stopped::NotPositive => "no other column tells more (the largest T is not positive)",
        Stopped::Undefined if order.is_empty() => "the target is constant",
        Stopped::Undefined => "the columns chosen determine the target",
        Stopped::MaxFeatures => "as many columns as asked for",
        Stopped::Exhausted => "every column is chosen",
    };
    println!("stopped: {reason}");
}
