//! Rewrites the words of a command line into the only form that argh parses. No I/O.
//!
//! argh wants each value as a word of its own and each short flag in its own word. It parses `-` as
//! a flag and allows nothing after `--help`. This module takes what getopt and GNU programs take:
//! `-L80:host:80`, `--admin=ADDRESS`, `-hV`, and `-` for standard input. It also reports unknown
//! commands and flags, with the nearest name.

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};
use coracle::config::printable;

/// What is wrong with a command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misuse {
    /// The error, on one line.
    pub what: String,
    /// The command it belongs to, if there is one.
    pub command: Option<String>,
}

/// Rewrites `words`, which follow the program's name: options first, then `--` and the operands.
///
/// # Errors
/// Returns the first word that means nothing to `program`, or the first one that is missing.
pub(super) fn normalise(
    words: &[String],
    program: &CommandInfoWithArgs,
) -> Result<Vec<String>, Misuse> {
    let of_the_program = |what| Misuse {
        what,
        command: None,
    };
    let is_operand = |word: &String| word == "-" || !word.starts_with('-');
    let command_at = words.iter().position(is_operand).unwrap_or(words.len());
    let (before, rest) = words.split_at(command_at);
    let global = read(before, program).map_err(|unread| of_the_program(unread.explain(program)))?;
    let Some((name, words)) = rest.split_first() else {
        return Ok(match global.is_help {
            true => vec!["--help".to_owned()],
            false => global.options,
        });
    };
    if name == HELP {
        return help(words, program);
    }
    let Some(command) = program.commands.iter().find(|it| it.name == name) else {
        return Err(of_the_program(no_command(name, program)));
    };
    let of_the_command = |what| Misuse {
        what,
        command: Some(name.clone()),
    };
    let command = &command.command;
    let own = read(words, command).map_err(|unread| of_the_command(unread.explain(command)))?;
    if global.is_help || own.is_help {
        return Ok(vec![name.clone(), "--help".to_owned()]);
    }
    check_operands(&own.operands, command).map_err(of_the_command)?;
    let mut words = global.options;
    words.push(name.clone());
    words.extend(own.options);
    if !own.operands.is_empty() {
        words.push("--".to_owned());
        words.extend(own.operands);
    }
    Ok(words)
}

/// The command that prints help, which argh has no place for.
const HELP: &str = "help";

/// Rewrites `help [COMMAND]` as `[COMMAND] --help`.
fn help(words: &[String], program: &CommandInfoWithArgs) -> Result<Vec<String>, Misuse> {
    let mut words: Vec<String> = words.iter().filter(|it| *it != HELP).cloned().collect();
    words.push("--help".to_owned());
    normalise(&words, program)
}

/// The words of one command, sorted.
#[derive(Default)]
struct Read {
    /// Flags, each followed by its value if it takes one.
    options: Vec<String>,
    operands: Vec<String>,
    /// Help was asked for, so nothing after that matters.
    is_help: bool,
}

/// Why the words of a command cannot be parsed.
enum Unread<'w> {
    /// No flag has this name. For one out of a bundle, the whole word follows.
    Unknown(String, &'w str),
    /// A flag that takes no value has one.
    Surplus(String),
    /// The flag's value is missing, which the help calls by this name.
    Missing(String, &'static str),
}

fn read<'w>(words: &'w [String], command: &CommandInfoWithArgs) -> Result<Read, Unread<'w>> {
    let mut read = Read::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            read.operands.extend(words.cloned());
            break;
        }
        if word.starts_with("--") {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            let flag = command.flags.iter().find(|flag| flag.long == name);
            let flag = flag.ok_or_else(|| Unread::Unknown(name.to_owned(), word))?;
            read.take(flag, name, value, &mut words)?;
        } else if word.starts_with('-') && word != "-" {
            let mut rest = &word[1..];
            while let Some(short) = rest.chars().next() {
                rest = &rest[short.len_utf8()..];
                let name = format!("-{short}");
                let flag = command.flags.iter().find(|flag| is_short(flag, short));
                let flag = flag.ok_or_else(|| Unread::Unknown(name.clone(), word))?;
                let mut value = None;
                if !rest.is_empty() && flag.kind != FlagInfoKind::Switch {
                    value = Some(rest.strip_prefix('=').unwrap_or(rest));
                    rest = "";
                }
                read.take(flag, &name, value, &mut words)?;
            }
        } else {
            read.operands.push(word.clone());
        }
        if read.is_help {
            break;
        }
    }
    Ok(read)
}

/// argh's table has no short name for help.
fn is_short(flag: &FlagInfo<'_>, short: char) -> bool {
    flag.short == Some(short) || flag.long == "--help" && short == 'h'
}

impl Read {
    fn take<'w>(
        &mut self,
        flag: &FlagInfo<'static>,
        name: &str,
        value: Option<&str>,
        words: &mut impl Iterator<Item = &'w String>,
    ) -> Result<(), Unread<'w>> {
        match (&flag.kind, value) {
            (FlagInfoKind::Switch, Some(_)) => return Err(Unread::Surplus(name.to_owned())),
            (FlagInfoKind::Switch, None) if flag.long == "--help" => self.is_help = true,
            (FlagInfoKind::Switch, None) => self.options.push(name.to_owned()),
            (FlagInfoKind::Option { arg_name }, value) => {
                let value = value.map(str::to_owned).or_else(|| words.next().cloned());
                let value = value.ok_or_else(|| Unread::Missing(name.to_owned(), arg_name))?;
                self.options.extend([name.to_owned(), value]);
            }
        }
        Ok(())
    }
}

impl Unread<'_> {
    fn explain(&self, command: &CommandInfoWithArgs) -> String {
        match self {
            Self::Unknown(name, word) => {
                let meant = match meant_by(name, word, command) {
                    Some(meant) => format!("; did you mean `{meant}`?"),
                    None => String::new(),
                };
                format!("there is no option `{}`{meant}", printable(name))
            }
            Self::Surplus(name) => format!("`{name}` takes no value"),
            Self::Missing(name, value) => {
                let value = value.to_uppercase();
                format!("`{name}` needs a value: {name} {value}")
            }
        }
    }
}

/// Returns the flag that an unknown one most likely stands for.
fn meant_by(name: &str, word: &str, command: &CommandInfoWithArgs) -> Option<String> {
    let longs = || command.flags.iter().map(|flag| flag.long);
    if let Some(long) = name.strip_prefix("--") {
        let bare = longs().filter_map(|long| long.strip_prefix("--"));
        if let Some(meant) = nearest(long, bare) {
            return Some(format!("--{meant}"));
        }
    } else if word.chars().count() > 2
        && let Some(long) = longs().find(|long| long[1..] == *word)
    {
        return Some(long.to_owned());
    }
    let short = name.strip_prefix('-')?.chars().next()?;
    let mut shorts = command.flags.iter().filter_map(|flag| flag.short);
    if let Some(short) = shorts.find(|it| it.eq_ignore_ascii_case(&short)) {
        return Some(format!("-{short}"));
    }
    // An option of a command, before the command or without one.
    let of_a_command = command.commands.iter().find(|it| {
        let mut flags = it.command.flags.iter();
        flags.any(|flag| flag.long == name || flag.short.is_some_and(|it| name == format!("-{it}")))
    });
    of_a_command.map(|it| format!("coracle {} {name}", it.name))
}

fn no_command(name: &str, program: &CommandInfoWithArgs) -> String {
    let names = || program.commands.iter().map(|it| it.name).chain([HELP]);
    let advice = match nearest(name, names()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!(
            "the commands are {}",
            names().collect::<Vec<_>>().join(", ")
        ),
    };
    format!("there is no command `{}`; {advice}", printable(name))
}

fn check_operands(operands: &[String], command: &CommandInfoWithArgs) -> Result<(), String> {
    let positionals = command.positionals;
    if let Some(surplus) = operands.get(positionals.len()) {
        let shown = printable(surplus);
        let is_of_run = command.name == "run" && positionals.is_empty();
        let longs = command.flags.iter().filter_map(|flag| flag.long.get(2..));
        let advice = match nearest(surplus, longs) {
            Some(meant) => format!("; did you mean `--{meant}`?"),
            None if is_of_run && surplus.contains(':') => format!("; did you mean `-L {shown}`?"),
            None if is_of_run => format!("; did you mean `-c {shown}`?"),
            None => String::new(),
        };
        return Err(format!("unexpected argument `{shown}`{advice}"));
    }
    match positionals.get(operands.len()) {
        Some(missing) if missing.optionality == Optionality::Required => {
            let all = positionals.iter();
            let all = all.filter(|it| it.optionality == Optionality::Required);
            let all: Vec<_> = all.map(|it| it.name.to_uppercase()).collect();
            let (name, what) = (command.name, all.join(" "));
            Err(format!("an argument is missing: coracle {name} {what}"))
        }
        _ => Ok(()),
    }
}

/// Returns the nearest of `known` in which at most a third of the word's letters differ. Ignores
/// case.
fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    /// Longer than any word that a person mistypes, and slow to compare.
    const MAX_BYTES: usize = 64;
    if word.len() > MAX_BYTES {
        return None;
    }
    let word = word.to_lowercase();
    let most = (word.chars().count() / 3).max(1);
    let distances = known.map(|known| (strsim::osa_distance(&word, known), known));
    let near = distances.filter(|(distance, _)| *distance <= most);
    Some(near.min_by_key(|(distance, _)| *distance)?.1)
}

#[cfg(test)]
mod tests {
    use argh::ArgsInfo;

    use super::*;
    use crate::cli::Arguments;

    fn normal(line: &str) -> Result<String, (String, Option<String>)> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        normalise(&words, &Arguments::get_args_info())
            .map(|words| words.join(" "))
            .map_err(|misuse| (misuse.what, misuse.command))
    }

    #[test]
    fn words_are_rewritten_for_argh() {
        for (line, expected) in [
            ("run -L9100:host:80", "run -L 9100:host:80"),
            ("run -L=9100:host:80 -cfile", "run -L 9100:host:80 -c file"),
            (
                "run -L 9100:host:80 -L 2:b:2",
                "run -L 9100:host:80 -L 2:b:2",
            ),
            (
                "run --admin=off --access-log",
                "run --admin off --access-log",
            ),
            ("run --admin= -c -x", "run --admin  -c -x"),
            ("check -", "check -- -"),
            ("check -- --file", "check -- --file"),
            ("reload - --dry-run", "reload --dry-run -- -"),
            ("reload --socket - --dry-run", "reload --socket - --dry-run"),
            ("-V", "-V"),
            ("--version run", "--version run"),
            ("-hV", "--help"),
            ("-Vh", "--help"),
            ("--help list", "list --help"),
            ("run -c x -h --what", "run --help"),
            ("help", "--help"),
            ("help run", "run --help"),
            ("help help", "--help"),
            ("help --help", "--help"),
            ("help -h list", "list --help"),
            ("version", "version"),
        ] {
            assert_eq!(normal(line), Ok(expected.to_owned()), "{line}");
        }
    }

    #[test]
    fn misuse_is_reported_with_the_nearest_name() {
        for (line, what, command) in [
            (
                "rnu",
                "there is no command `rnu`; did you mean `run`?",
                None,
            ),
            (
                "start",
                "there is no command `start`; the commands are run, check, status, top, list, clients, audit, reload, server, kill, logs, log-level, demo, version, help",
                None,
            ),
            (
                "run --acces-log",
                "there is no option `--acces-log`; did you mean `--access-log`?",
                Some("run"),
            ),
            (
                "list --jsn=1",
                "there is no option `--jsn`; did you mean `--json`?",
                Some("list"),
            ),
            (
                "run -l80",
                "there is no option `-l`; did you mean `-L`?",
                Some("run"),
            ),
            (
                "run -admin off",
                "there is no option `-a`; did you mean `--admin`?",
                Some("run"),
            ),
            ("-v", "there is no option `-v`; did you mean `-V`?", None),
            (
                "-L 80:h:80",
                "there is no option `-L`; did you mean `coracle run -L`?",
                None,
            ),
            (
                "audit --zebra",
                "there is no option `--zebra`",
                Some("audit"),
            ),
            ("audit --json=1", "`--json` takes no value", Some("audit")),
            ("run -L", "`-L` needs a value: -L SPEC", Some("run")),
            (
                "run c.toml",
                "unexpected argument `c.toml`; did you mean `-c c.toml`?",
                Some("run"),
            ),
            (
                "run 80:h:80",
                "unexpected argument `80:h:80`; did you mean `-L 80:h:80`?",
                Some("run"),
            ),
            (
                "audit watch",
                "unexpected argument `watch`; did you mean `--watch`?",
                Some("audit"),
            ),
            (
                "help chek",
                "there is no command `chek`; did you mean `check`?",
                None,
            ),
            ("check a b", "unexpected argument `b`", Some("check")),
            (
                "check",
                "an argument is missing: coracle check FILE",
                Some("check"),
            ),
            (
                "server web",
                "an argument is missing: coracle server SERVICE SERVER STATE",
                Some("server"),
            ),
        ] {
            let expected = (what.to_owned(), command.map(str::to_owned));
            assert_eq!(normal(line), Err(expected), "{line}");
        }
    }
}
