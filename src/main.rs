//! The command line: parse, run one command, report. Each command is one file of [`cli`].

#[macro_use]
mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = cli::help::parse::<cli::Args>(); // exits 2 on a usage error, 0 after --help
    let (code, why) = match (cli::run(&args), cli::output::failure()) {
        (Ok(_), Some(failure)) => (1, Some(format!("standard output: {failure}"))),
        (Ok(done), None) => (done as u8, None),
        (Err(error), _) => {
            let code = error.downcast_ref::<scrubjay::Error>().map_or(1, scrubjay::Error::exit_code);
            (code, Some(reasons(&error)))
        }
    };
    let (code, why) = cli::ranks::leave(code, why);
    if let Some(why) = why {
        eprintln!("error: {why}");
    }
    ExitCode::from(code)
}

/// The error and its causes, but for those that it has named itself.
fn reasons(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        named if named.ends_with(&cause) => text,
        _ => format!("{text}: {cause}"),
    })
}
