//! What commands share: the device to run on, readers of numbers, how a command ends, the line that started it, a
//! progress bar.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Command};
use scrubjay::data::file::{self, check_file};
use scrubjay::device::{Choice, Device};
use scrubjay::net::plan::LANES;

use super::output::is_silent;
use super::ranks::{local, ranks};

/// How a command ended when nothing failed; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// A stated gate was not met, something could not be removed, or a search was interrupted.
    GateNotMet = 3,
}

/// Where to run.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// The device; auto takes a usable GPU, else the CPU; cuda:0,1 are two GPUs that share the work
    #[arg(long, value_parser = Devices, default_value_t = Choice::Auto, value_name = "auto|cpu|cuda")]
    device: Choice,
    /// Threads on the CPU; 0 means one per available core
    #[arg(long, default_value_t = 0, value_name = "T")]
    threads: usize,
}

/// Reads a device; the values that it lists are those that help and completions show.
#[derive(Clone)]
struct Devices;

impl TypedValueParser for Devices {
    type Value = Choice;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Choice, clap::Error> {
        str::parse::<Choice>.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values = [
            ("auto", "a usable GPU, else the CPU"),
            ("cpu", "the CPU"),
            ("cuda", "a GPU, or an error that says why there is none"),
            ("cuda:0,1", "these GPUs, which share the work, by the numbers of `scrubjay devices`"),
        ];
        Some(Box::new(values.into_iter().map(|(name, help)| PossibleValue::new(name).help(help))))
    }
}

impl DeviceArgs {
    /// Opens the device, and reports on stderr which one it is and why.
    pub fn open(&self) -> scrubjay::Result<Device> {
        let ranks = ranks();
        let device = match ranks.size() {
            1 => Device::open(self.device.clone(), self.threads)?,
            _ => ranks
                .told(Device::of_rank(self.device.clone(), local(), self.threads))?
                .among(ranks.clone())?,
        };
        let device = report(device);
        if ranks.size() > 1 {
            eprintln!("ranks: {}, which share the work of every pass", ranks.size());
        }
        if ranks.size() > LANES {
            eprintln!(
                "note: sums have at most {LANES} lanes, one rank each; the other ranks have no part in them"
            );
        }
        Ok(device)
    }
}

fn report(device: Device) -> Device {
    eprintln!("device: {} ({} threads; {})", device.name(), device.threads(), device.why());
    device
}

/// Reads a number above 0.
pub fn positive(text: &str) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "a number above 0 was expected".into())
}

/// Reads a number that is not negative.
pub fn not_negative(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "a number of at least 0 was expected".into())
}

/// Reads a whole number above 0.
pub fn at_least_one(text: &str) -> Result<u32, String> {
    let number = text.parse::<u32>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("a whole number from 1 to {} was expected", u32::MAX))
}

/// Refuses files that could not be written, before the work.
pub fn check_files<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> scrubjay::Result<()> {
    ranks().first(|| files.into_iter().try_for_each(|file| check_file(file)))
}

/// Refuses a folder that could not be written, before the work.
pub fn check_folder(folder: &Path) -> scrubjay::Result<()> {
    ranks().first(|| file::check_folder(folder))
}

/// The command that is running, as a shell reads it.
pub fn command_line() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%".contains(c);
    let quoted = |word: String| match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    let words = std::env::args_os().skip(1).map(|word| quoted(word.to_string_lossy().into_owned()));
    std::iter::once("scrubjay".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A progress bar on stderr; nothing where stderr is no terminal.
pub fn progress(steps: u64, what: &str) -> indicatif::ProgressBar {
    let bar = match is_silent() {
        true => indicatif::ProgressBar::hidden(),
        false => indicatif::ProgressBar::new(steps),
    };
    bar.set_length(steps);
    let style =
        indicatif::ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}  {elapsed} (about {eta} left)");
    bar.set_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()));
    bar.set_message(what.to_string());
    bar
}

/// A flag that Ctrl-C and a request of the system to end set.
pub fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    let flag = FLAG.get_or_init(|| Arc::new(AtomicBool::new(false))).clone();
    let set = flag.clone();
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(1); // asked twice
        }
        eprintln!("stopping after the current step; once more stops at once (what is recorded is kept)");
    })?;
    Ok(flag)
}

/// Reads a span of time: a number and s, m, h or d.
pub fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "a time was expected, as 30s, 10m, 2h or 1d".to_string();
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}
