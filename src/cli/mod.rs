//! One file per command; this one lists them.

#[macro_use]
pub mod output;

mod apply;
mod bench;
mod codec;
mod curvature;
mod demo;
mod devices;
mod eval;
mod export;
mod foci;
pub mod help;
mod inspect;
mod method;
mod model;
mod observe;
pub mod ranks;
mod scrub;
mod serve;
mod shared;
mod train;
mod verify;

use clap::{Parser, Subcommand};

use shared::Exit;

/// Removes chosen training samples from a trained classifier of images or texts, without retraining it.
#[derive(Parser)]
#[command(
    name = "scrubjay",
    version,
    max_term_width = 100,
    after_help = "scrubjay COMMAND --help has the usual options of a command and examples; --help-all has all options.
Begin with `scrubjay demo`. On a model of your own, `inspect` shows whether model and data can be
read, and `scrub --dry-run` what would be done.

Exit codes:
  0  done
  1  a file cannot be read or written, or the work failed
  2  the command line is wrong, or asks for what the model or the data do not have
  3  done, but not as wanted: samples were not removed, a model was flagged, a kernel was slower
     than allowed, or a search was interrupted
  4  --device cuda, and there is no usable GPU"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Scrub(Box<scrub::Args>),
    Serve(Box<serve::Args>),
    Apply(apply::ApplyArgs),
    Revert(apply::RevertArgs),
    Verify(Box<verify::Args>),
    Train(train::Args),
    Observe(observe::Args),
    Curvature(curvature::Args),
    Eval(eval::Args),
    Codec(codec::Args),
    Foci(foci::Args),
    Inspect(inspect::Args),
    Export(export::Args),
    Bench(bench::Args),
    Devices(devices::Args),
    Completions(help::CompletionArgs),
    Man(help::ManArgs),
}

/// Whether several ranks share the work of a command.
fn is_shared(command: &Command) -> bool {
    match command {
        Command::Scrub(_) | Command::Train(_) | Command::Verify(_) | Command::Observe(_) => true,
        Command::Curvature(_) | Command::Eval(_) | Command::Codec(_) | Command::Foci(_) => true,
        Command::Demo(_)
        | Command::Serve(_)
        | Command::Apply(_)
        | Command::Revert(_)
        | Command::Inspect(_) => false,
        Command::Export(_)
        | Command::Bench(_)
        | Command::Devices(_)
        | Command::Completions(_)
        | Command::Man(_) => false,
    }
}

/// Runs the command that was asked for.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    ranks::join(is_shared(&args.command))?;
    match &args.command {
        Command::Demo(args) => demo::run(args),
        Command::Scrub(args) => scrub::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Apply(args) => apply::apply(args),
        Command::Revert(args) => apply::revert(args),
        Command::Verify(args) => verify::run(args),
        Command::Train(args) => train::run(args),
        Command::Observe(args) => observe::run(args),
        Command::Curvature(args) => curvature::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Codec(args) => codec::run(args),
        Command::Foci(args) => foci::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Export(args) => export::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Completions(args) => help::completions::<Args>(args),
        Command::Man(args) => help::man::<Args>(args),
    }
}
