//! The help of commands, completions for shells, and the manual page.
//!
//! `--help` fits a screen: it has what most users need, the description and the examples. `--help-all` has every option,
//! and what each value of an option means. Which options are left to it is one table here.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};
use clap_complete::Shell;

use super::shared::Exit;

/// Those of removals.
const REMOVAL: &[&str] = &[
    "n",
    "batch",
    "proxy_epochs",
    "hold_epochs",
    "perturbations",
    "sigma",
    "replace",
    "precision",
    "max_units",
    "curvature",
    "earlier",
    "precondition",
    "damping",
    "l2",
    "update",
    "length",
    "target_loss",
    "stages",
    "iterations",
    "tolerance",
    "products",
    "if_empty",
    "epsilon",
    "delta",
    "noise",
    "retain",
    "forget_data",
    "proxy",
    "budget",
    "block",
    "selection",
    "despite",
    "html",
    "no_thumbnails",
    "delta_file",
    "rounding",
    "wrong_labels",
    "poll",
    "metrics_anywhere",
];

/// Options that `--help` leaves to `--help-all`, by command; those of [`EVERYWHERE`] in all commands.
const FURTHER: &[(&str, &[&str])] = &[
    ("scrub", REMOVAL),
    ("serve", REMOVAL),
    (
        "train",
        &[
            "label_smoothing",
            "momentum",
            "weight_decay",
            "decay",
            "warm_up",
            "shift",
            "flip",
            "schedule",
            "keep_epochs",
        ],
    ),
    ("observe", &["precision"]),
    ("inspect", &["precision"]),
    ("codec", &["na", "header", "delimiter", "decimal", "draws", "standardize", "noise"]),
    ("foci", &["na", "header", "delimiter", "decimal", "draws", "standardize", "noise", "initial", "resume"]),
];

/// Options of several commands that only some models or files need.
const EVERYWHERE: [&str; 14] = [
    "resize",
    "crop",
    "interpolation",
    "skip_corrupt",
    "inputs_memory",
    "arch",
    "heads",
    "stem",
    "ignore",
    "weights",
    "cifar_labels",
    "text_column",
    "label_column",
    "max_tokens",
];

/// The commands in which an option of [`EVERYWHERE`] is one that most users need.
const NEEDED: [(&str, &str); 1] = [("train", "arch")];

const WIDTH: usize = 100;

/// The commands, with the help that most users need or with all of it.
pub fn command<A: CommandFactory>(all: bool) -> Command {
    let command = A::command().term_width(WIDTH);
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_string()).collect();
    names.iter().fold(command, |command, name| command.mut_subcommand(name, |sub| shaped(sub, all)))
}

/// How a command is called, in lines of [`WIDTH`] letters at most.
fn usage(sub: &Command) -> String {
    const INDENT: &str = "           "; // "Usage: " stands before the first line
    let whole = sub.clone().bin_name(format!("scrubjay {}", sub.get_name())).render_usage().to_string();
    let (mut text, mut column) = (String::new(), INDENT.len());
    for word in whole.trim_start_matches("Usage: ").split_inclusive(' ') {
        if column + word.trim_end().len() > WIDTH {
            text = format!("{}\n{INDENT}", text.trim_end());
            column = INDENT.len();
        }
        text += word;
        column += word.len();
    }
    text
}

/// A command with its help.
fn shaped(sub: Command, all: bool) -> Command {
    let name = sub.get_name().to_string();
    let further = |id: &str| {
        let own = FURTHER.iter().any(|(command, ids)| *command == name && ids.contains(&id));
        own || (EVERYWHERE.contains(&id) && !NEEDED.contains(&(name.as_str(), id)))
    };
    let ids: Vec<String> = sub.get_arguments().map(|arg| arg.get_id().to_string()).collect();
    let hidden: Vec<&String> = ids.iter().filter(|id| further(id)).collect();
    let examples = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
    let long = sub.get_long_about().map(ToString::to_string).unwrap_or_default();
    let long = flowing(&long);
    let rest = long.split_once('\n').map_or("", |(_, rest)| rest.trim()).to_string();
    let help = Arg::new("help").short('h').long("help").display_order(1000);
    let usage = usage(&sub);
    let sub = sub.term_width(WIDTH).disable_help_flag(true).override_usage(usage);
    if all {
        return sub
            .long_about(long)
            .arg(help.action(ArgAction::HelpLong).help("Print the help; --help-all prints every option"));
    }
    let more = match hidden.len() {
        0 => String::new(),
        count => format!("\n\nscrubjay {name} --help-all lists {count} more options"),
    };
    let text = [rest, examples].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n");
    let sub = hidden.into_iter().fold(sub, |sub, id| sub.mut_arg(id, |arg| arg.hide(true)));
    sub.mut_args(|arg| match lists_its_values(&arg) {
        true => arg.hide_possible_values(true),
        false => arg,
    })
    .after_help(format!("{text}{more}"))
    .arg(help.action(ArgAction::HelpShort).help("Print this help"))
}

/// Whether the name of an option's value lists the values, as `auto|cpu|cuda`.
fn lists_its_values(arg: &Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.contains('|')))
}

/// A text whose paragraphs are one line each, so that they can be wrapped; indented lines, as of examples, stay.
fn flowing(text: &str) -> String {
    let paragraph = |text: &str| match text.lines().any(|line| line.starts_with(' ')) {
        true => text.to_string(),
        false => text.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    text.split("\n\n").map(paragraph).collect::<Vec<_>>().join("\n\n")
}

/// Reads the command line. Ends the program with code 0 after help, and with code 2 where an argument is wrong.
pub fn parse<A: CommandFactory + FromArgMatches>() -> A {
    const ALL: &str = "--help-all";
    let words: Vec<OsString> = std::env::args_os().collect();
    let all = words.iter().any(|word| word == ALL);
    let words = words.into_iter().map(|word| if word == ALL { "--help".into() } else { word });
    let matches = command::<A>(all).get_matches_from(words);
    A::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Print completions for a shell
///
/// Examples:
///   source <(scrubjay completions bash)
///   scrubjay completions zsh > ~/.zfunc/_scrubjay
///   scrubjay completions fish > ~/.config/fish/completions/scrubjay.fish
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct CompletionArgs {
    /// The shell
    shell: Shell,
}

/// Prints the completions.
pub fn completions<A: CommandFactory>(args: &CompletionArgs) -> anyhow::Result<Exit> {
    let mut text = vec![];
    clap_complete::generate(args.shell, &mut command::<A>(true), "scrubjay", &mut text);
    print!("{}", String::from_utf8(text)?);
    Ok(Exit::Done)
}

/// Print the manual page of the program, or of one command
///
/// Examples:
///   scrubjay man | man -l -
///   scrubjay man scrub > scrubjay-scrub.1
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ManArgs {
    /// The command; by default the program
    command: Option<String>,
}

/// Prints the page.
pub fn man<A: CommandFactory>(args: &ManArgs) -> anyhow::Result<Exit> {
    let whole = command::<A>(true);
    let page = match &args.command {
        None => clap_mangen::Man::new(whole),
        Some(name) => {
            let sub = whole.find_subcommand(name).cloned();
            let sub = sub.ok_or_else(|| scrubjay::Error::config(format!("there is no command `{name}`")))?;
            clap_mangen::Man::new(sub).title(format!("scrubjay-{name}"))
        }
    };
    let mut text = vec![];
    page.render(&mut text)?;
    print!("{}", String::from_utf8(text)?);
    Ok(Exit::Done)
}
