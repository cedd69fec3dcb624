//! The command line: parse, run one command, report. Each command is one file of [`cli`].

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = cli::Args::parse(); // exits 2 on a usage error, 0 after --help
    match cli::run(&args) {
        Ok(done) => ExitCode::from(done as u8),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(error.downcast_ref::<scrubjay::Error>().map_or(1, scrubjay::Error::exit_code))
        }
    }
}
