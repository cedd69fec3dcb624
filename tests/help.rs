//! The help: that of every command fits a screen, `--help-all` has all options with what their values mean, and there are
//! completions and manual pages.

use std::collections::BTreeSet;

use crate::tiny::scrubjay;

const LINES: usize = 50;
const COLUMNS: usize = 100;

/// What a command prints.
fn printed(line: &str) -> String {
    let run = scrubjay(&line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(run.code, 0, "{line}: {}", run.err);
    run.out
}

/// The commands that the program's help lists.
fn commands() -> Vec<String> {
    let help = printed("--help");
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(String::from));
    names.filter(|name| !name.is_empty() && name != "help").collect()
}

/// The long options of a help text.
fn options(help: &str) -> BTreeSet<&str> {
    let words = help.lines().map(|line| line.trim_start().trim_start_matches("-h, "));
    words.filter_map(|line| line.split(' ').next()).filter(|word| word.starts_with("--")).collect()
}

#[test]
fn the_help_of_every_command_fits_a_screen() {
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    for command in &commands {
        let help = printed(&format!("{command} --help"));
        let long: Vec<&str> = help.lines().filter(|line| line.chars().count() > COLUMNS).collect();
        assert!(long.is_empty(), "{command}: {long:#?}");
        let lines = help.lines().count();
        assert!(lines <= LINES, "{command}: {lines} lines\n{help}");
        let all = printed(&format!("{command} --help-all"));
        let (some, all) = (options(&help), options(&all));
        assert!(some.is_subset(&all), "{command}: {some:?} {all:?}");
        assert_eq!(all.len() > some.len(), help.contains("--help-all lists"), "{command}");
    }
}

#[test]
fn values_of_options_are_explained() {
    let all = printed("scrub --help-all");
    for words in ["- ggn:", "- hold:", "- refuse:", "- cuda:", "- vote:", "- outside:"] {
        assert!(all.contains(words), "{words}\n{all}");
    }
}

#[test]
fn shells_and_man_have_their_pages() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = printed(&format!("completions {shell}"));
        assert!(text.contains("wrong-labels") && text.contains("data-out"), "{shell}");
    }
    assert!(printed("man").starts_with(".ie"), "{}", printed("man"));
    let page = printed("man scrub").replace('\\', "");
    assert!(page.contains("scrubjay-scrub") && page.contains("wrong-labels"), "{page}");
    let run = scrubjay(&["man", "scrap"]);
    assert!(run.code == 2 && run.err.contains("`scrap`"), "{}", run.err);
}
