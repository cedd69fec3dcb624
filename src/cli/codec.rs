//! `scrubjay codec`: T(Y, Z | X) of columns of a table.

use std::path::PathBuf;

use clap::ValueEnum;
use scrubjay::codec::{self, Columns, Measure, Standardize, StatisticOptions, Ties};
use scrubjay::data::table::{
    Categorical, Column, Decimal, Delimiter, Frame, Header, Missing, Table, TableOptions,
};

use super::shared::{self, DeviceArgs, Exit};

/// Measure how strongly one column depends on others: T(Y, Z | X)
///
/// 0 means that Z tells nothing about Y (given X), 1 that Y is a function of Z (and X); an estimate can be negative. Columns
/// are not scaled unless --standardize asks for it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  scrubjay codec people.csv --y income --z age,school
  scrubjay codec people.csv --y income --z school --x age --json
  scrubjay codec people.csv --y income --z age --measure xi --permutations 999 --interval 0.95
  scrubjay codec columns.safetensors --z 3-7

COL is a name or a number from 0; COLS is a list of these and of ranges: age,3,7-9.
In a .safetensors file with X [n, p] and Y [n], numbers are columns of X.")]
pub struct Args {
    /// The table: .csv, .tsv, .csv.gz, .arff, .npy, .npz, .parquet or .safetensors
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// The column Y; by default the tensor Y of a .safetensors file
    #[arg(long, value_name = "COL")]
    y: Option<String>,
    /// The columns Z: how strongly does Y depend on them?
    #[arg(long, value_name = "COLS")]
    z: String,
    /// The columns X: how strongly does Y depend on Z where X is known already?
    #[arg(long, value_name = "COLS")]
    x: Option<String>,
    /// The measure: T of Azadkia and Chatterjee (codec), or Chatterjee's ξ of a single column Z (xi)
    #[arg(long, value_enum, default_value = "codec", value_name = "codec|xi")]
    measure: Measure,
    /// Compute a p-value from this many permutations of Y; with --x, of Y among rows that are near in X
    #[arg(long, value_name = "B", value_parser = shared::at_least_one)]
    permutations: Option<u32>,
    /// Compute a confidence interval of this level, as 0.95, from subsamples
    #[arg(long, value_name = "LEVEL")]
    interval: Option<f64>,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    randomness: Randomness,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// How a table is read, for `codec` and `foci`.
#[derive(clap::Args)]
pub struct Reading {
    /// A column of categories, which become numbers in ascending order, or with :onehot a column of 0 and 1 each. Can be
    /// repeated
    #[arg(long, value_name = "COL[:onehot]")]
    categorical: Vec<Categorical>,
    /// Rows that miss a value in a column that is used: an error that names the first (raise), or leave them out (omit)
    #[arg(long, value_enum, default_value = "raise", value_name = "raise|omit")]
    missing: Missing,
    /// A further word for a missing value, in .csv, .tsv and .arff files; can be repeated
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    na: Vec<String>,
    /// Whether the first line of a .csv or .tsv file names the columns
    #[arg(long, value_enum, default_value = "auto", value_name = "auto|yes|no")]
    header: Header,
    /// What separates the cells of a .csv or .tsv file: one character, or the word tab; by default found in the file
    #[arg(long, value_name = "CHAR")]
    delimiter: Option<Delimiter>,
    /// The decimal mark of a .csv or .tsv file; by default found in the file
    #[arg(long, value_name = ".|,")]
    decimal: Option<Decimal>,
}

impl Reading {
    /// Reads a table; reports on stderr how the text of one was read.
    pub fn table(&self, path: &std::path::Path) -> scrubjay::Result<Table> {
        let options = TableOptions {
            categorical: self.categorical.clone(),
            header: self.header,
            delimiter: self.delimiter,
            decimal: self.decimal,
            na: self.na.clone(),
        };
        let table = Table::read(path, &options)?;
        if let Some(layout) = table.layout() {
            eprintln!("{}: {layout}", path.display());
        }
        Ok(table)
    }

    /// Columns of it, Y first; reports on stderr how many rows are left out.
    pub fn frame(&self, table: &Table, y: Column, others: &[Column]) -> scrubjay::Result<Frame> {
        let frame = table.frame(&[&[y], others].concat(), self.missing)?;
        if frame.omitted > 0 {
            eprintln!("left out {} of {} rows: a value is missing", frame.omitted, table.n());
        }
        if frame.spans[0].len() > 1 {
            return Err(scrubjay::Error::config("the target is one column, not one per category"));
        }
        Ok(frame)
    }
}

/// Ties, scaling and noise, for `codec` and `foci`.
#[derive(clap::Args)]
pub struct Randomness {
    /// Where several rows are equally near, take their mean, the first of them, or one at random
    #[arg(long, value_enum, default_value = "mean", value_name = "mean|first|random")]
    ties: TiesName,
    /// With --ties random: over how many random choices the measure is averaged
    #[arg(long, default_value_t = 1, value_name = "D", value_parser = shared::at_least_one)]
    draws: u32,
    /// How each column is scaled first
    #[arg(long, value_enum, default_value = "none", value_name = "none|scale|bounded")]
    pub standardize: Standardize,
    /// Add normal noise of this standard deviation to every column, after scaling; 0 adds none
    #[arg(long, default_value_t = 0.0, value_name = "σ")]
    pub noise: f64,
    /// The seed of the noise and of random ties
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// [`Ties`] by name; the seed and the draws are options of their own.
#[derive(Clone, Copy, ValueEnum)]
enum TiesName {
    Mean,
    First,
    Random,
}

impl Randomness {
    /// What counts where several rows are equally near.
    pub fn ties(&self) -> Ties {
        match self.ties {
            TiesName::Mean => Ties::Mean,
            TiesName::First => Ties::First,
            TiesName::Random => Ties::Random { seed: self.seed, draws: self.draws },
        }
    }
}

/// The column that `text` names, or `Y`.
pub fn target(table: &Table, text: Option<&str>, option: &str) -> scrubjay::Result<Column> {
    match text {
        Some(text) => table.find_one(text),
        None if table.has_target() => Ok(Column::Target),
        None => Err(scrubjay::Error::config(format!("{option} is needed: the file has no tensor `Y`"))),
    }
}

/// Subsamples of an interval.
const SUBSAMPLES: u32 = 400;

/// Prints the measure.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let table = args.reading.table(&args.data)?;
    let y = target(&table, args.y.as_deref(), "--y")?;
    let z = table.find(&args.z)?;
    let x = args.x.as_deref().map_or(Ok(Vec::new()), |x| table.find(x))?;
    let frame = args.reading.frame(&table, y, &[&x[..], &z].concat())?;
    let given: Vec<usize> = frame.spans[1..=x.len()].iter().cloned().flatten().collect();
    let tell: Vec<usize> = frame.spans[1 + x.len()..].iter().cloned().flatten().collect();
    let data = Columns::from_columns_f64(&frame.values, frame.n, frame.p())?;
    let options = StatisticOptions {
        measure: args.measure,
        standardize: args.randomness.standardize,
        ties: args.randomness.ties(),
        noise: args.randomness.noise,
        seed: args.randomness.seed,
    };
    let values = frame.column(0);
    let device = args.device.open()?;
    if options.measure == Measure::Codec {
        let permuted = args.permutations.is_some();
        let memory = codec::statistic_memory(&device, frame.n, tell.len(), given.len(), permuted)?;
        let data = table.bytes() + size_of_val(&frame.values[..]);
        eprintln!(
            "{} rows: at most {} MiB; {}",
            frame.n,
            memory.total(data, 0).div_ceil(1 << 20),
            memory.method
        );
    }
    let found = codec::statistic(&device, values, &data, &tell, &given, &options)?;
    let p_value = match args.permutations {
        Some(count) => codec::p_value(&device, values, &data, &tell, &given, &options, count)?,
        None => None,
    };
    let interval = match args.interval {
        Some(level) => codec::interval(&device, values, &data, &tell, &given, &options, level, SUBSAMPLES)?,
        None => None,
    };
    if args.json {
        let mut report = serde_json::json!({"statistic": found.value, "n": found.n});
        if frame.omitted > 0 {
            report["omitted"] = frame.omitted.into();
        }
        if let Some(count) = args.permutations {
            report["p_value"] = serde_json::json!(p_value);
            report["permutations"] = count.into();
        }
        if let Some(level) = args.interval {
            report["interval"] = serde_json::json!(interval.map(|i| [i.low, i.high]));
            report["level"] = level.into();
            report["m"] = serde_json::json!(interval.map(|i| i.m));
        }
        println!("{report}");
        return Ok(Exit::Done);
    }
    let names =
        |columns: &[Column]| columns.iter().map(|&column| table.name(column)).collect::<Vec<_>>().join(", ");
    let bar = if x.is_empty() { String::new() } else { format!(" | {}", names(&x)) };
    let value = match found.value {
        Some(value) => format!("{value:.6}"),
        None if x.is_empty() => "undefined: Y is constant".into(),
        None => "undefined: X alone determines Y".into(),
    };
    match args.measure {
        Measure::Codec => println!("T({}, {}{bar})  {value}", table.name(y), names(&z)),
        Measure::Xi => println!("ξ({}, {})  {value}", names(&z), table.name(y)),
    }
    if let Some((level, found)) = args.interval.zip(interval) {
        println!(
            "interval of {level}  {:.6} to {:.6} (subsamples of {} rows)",
            found.low, found.high, found.m
        );
    }
    if let Some((count, p)) = args.permutations.zip(p_value) {
        println!("p-value  {p:.4} ({count} permutations)");
    }
    println!("rows  {}", found.n);
    Ok(Exit::Done)
}
