//! The manual page and the shell completions describe exactly the commands and options that the
//! program's own help lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::support::process::binary;

/// The options of each command, such as `-c`, `--config`. Those before any command are under "".
/// `-h` and `--help` belong to every command and are left out of all but "".
type Surface = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_manual_has_every_command_and_option_and_no_other() {
    assert_eq!(of_manual(&read("packaging/coracle.1")), of_help());
}

#[test]
fn the_synopsis_has_every_command_and_option_and_no_other() {
    let manual = read("packaging/coracle.1");
    let synopsis = between(&manual, ".SH SYNOPSIS\n", ".SH ").replace("\\-", "-");
    let mut found = Surface::new();
    // Each command's part ends with a line break.
    for part in synopsis.split(".br\n") {
        let first = part.lines().next().unwrap();
        let words: Vec<&str> = first.split(' ').collect();
        assert_eq!(words[..2], [".B", "coracle"], "{first}");
        let command = words.get(2).copied().unwrap_or_default();
        found.insert(command.to_owned(), options(part));
    }
    // Where an option has two names, the synopsis shows the short one.
    let mut expected = of_help();
    expected.get_mut("run").unwrap().remove("--config");
    expected.get_mut("run").unwrap().remove("--forward");
    assert_eq!(found, expected);
}

#[test]
fn bash_completes_every_command_and_option_and_no_other() {
    let script = read("packaging/completions/coracle.bash");
    let commands = between(&script, "local commands='", "'");
    let mut found: Surface = commands
        .split(' ')
        .map(|it| (it.to_owned(), BTreeSet::new()))
        .collect();
    let global = between(&script, "\"$commands ", "\"");
    found.insert(String::new(), options(global));
    let cases = between(&script, "# The options of each command.\n", "esac");
    for line in cases.lines() {
        if let Some((command, listed)) = line.trim().split_once(") options=") {
            let listed = options(listed);
            let offered = found.insert(command.to_owned(), without_help(listed, command));
            assert!(offered.is_some(), "{command} is not offered");
        }
    }
    assert_eq!(found, of_help());
}

#[test]
fn zsh_completes_every_command_and_option_and_no_other() {
    let script = read("packaging/completions/_coracle");
    let commands = between(&script, "commands=(\n", "    )\n");
    let mut found = Surface::new();
    for line in commands.lines() {
        let (command, _) = line
            .trim()
            .trim_start_matches('\'')
            .split_once(':')
            .unwrap();
        found.insert(command.to_owned(), BTreeSet::new());
    }
    let global = between(&script, "_arguments -C", "&& return");
    found.insert(String::new(), zsh_options(global));
    let cases = between(&script, "case $words[1] in\n", "esac");
    for case in cases.split(";;") {
        let Some((command, specs)) = case.trim().split_once(')') else {
            continue;
        };
        let listed = zsh_options(specs);
        let offered = found.insert(command.to_owned(), without_help(listed, command));
        assert!(offered.is_some(), "{command} is not offered");
    }
    assert_eq!(found, of_help());
}

#[test]
fn fish_completes_every_command_and_option_and_no_other() {
    let mut found = Surface::from([(String::new(), BTreeSet::new())]);
    for line in read("packaging/completions/coracle.fish").lines() {
        let Some(rest) = line.strip_prefix("complete -c coracle ") else {
            continue;
        };
        let words: Vec<&str> = rest.split(' ').collect();
        let after = |flag: &str| {
            let at = words.iter().position(|word| *word == flag)?;
            words.get(at + 1).copied()
        };
        let command =
            match after("__fish_seen_subcommand_from").or(after("'__fish_seen_subcommand_from")) {
                Some(command) => command.trim_end_matches('\''),
                None => "",
            };
        if after("-n") == Some("__fish_use_subcommand")
            && let Some(command) = after("-a")
        {
            found.entry(command.to_owned()).or_default();
        }
        let long = after("-l").map(|it| format!("--{it}"));
        let short = after("-s").map(|it| format!("-{it}"));
        let listed = found.get_mut(command);
        let listed = listed.unwrap_or_else(|| panic!("{command} is not offered"));
        listed.extend(long.into_iter().chain(short));
    }
    assert_eq!(found, of_help());
}

/// What the program's own help lists.
fn of_help() -> Surface {
    let top = help(&["--help"]);
    let mut surface = Surface::from([(String::new(), help_options(&top))]);
    for line in between(&top, "Commands:\n", "\n\n").lines() {
        // Continuation lines are indented further.
        let Some(command) = line.strip_prefix("  ").filter(|it| !it.starts_with(' ')) else {
            continue;
        };
        let command = command.split(' ').next().unwrap();
        let listed = match command {
            "help" => BTreeSet::new(),
            _ => without_help(help_options(&help(&[command, "--help"])), command),
        };
        surface.insert(command.to_owned(), listed);
    }
    assert!(surface.len() > 5, "{surface:?}");
    surface
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(binary()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names before each description.
fn help_options(help: &str) -> BTreeSet<String> {
    let section = between(help, "Options:\n", "\n\n");
    let names = section.lines().filter_map(|line| line.strip_prefix("  -"));
    let names = names.map(|line| format!("-{}", line.split("  ").next().unwrap()));
    names.flat_map(|names| options(&names)).collect()
}

fn of_manual(manual: &str) -> Surface {
    let manual = manual.replace("\\-", "-");
    let global = between(&manual, ".SH OPTIONS\n", ".SH ");
    let mut surface = Surface::from([(String::new(), tagged(global))]);
    for part in between(&manual, ".SH COMMANDS\n", ".SH ")
        .split(".SS ")
        .skip(1)
    {
        let (command, rest) = part.split_once('\n').unwrap();
        surface.insert(command.to_owned(), tagged(rest));
    }
    surface
}

/// The options in the tags of a list.
fn tagged(section: &str) -> BTreeSet<String> {
    let tags = section.split(".TP\n").skip(1);
    let tags = tags.map(|item| item.lines().next().unwrap());
    tags.flat_map(options).collect()
}

/// The options in the specifications of `_arguments`, without their descriptions.
fn zsh_options(text: &str) -> BTreeSet<String> {
    let specs = text
        .lines()
        .map(str::trim)
        .filter(|it| it.starts_with('\''));
    let names = specs.map(|spec| spec.split('[').next().unwrap());
    names.flat_map(options).collect()
}

/// All words of a text that look like options.
fn options(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words = text.split(|c| !is_part(c));
    let options = words.filter(|word| {
        let name = word.trim_start_matches('-');
        word.starts_with('-') && name.starts_with(|c: char| c.is_ascii_alphabetic())
    });
    options.map(str::to_owned).collect()
}

fn without_help(mut options: BTreeSet<String>, command: &str) -> BTreeSet<String> {
    if command != "help" {
        assert!(options.remove("-h"), "{command} lacks -h");
        assert!(options.remove("--help"), "{command} lacks --help");
    }
    options
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let (_, rest) = text
        .split_once(start)
        .unwrap_or_else(|| panic!("no {start:?}"));
    let (inside, _) = rest.split_once(end).unwrap_or_else(|| panic!("no {end:?}"));
    inside
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(path).unwrap()
}
