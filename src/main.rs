//! The program: flags to a configuration, then run, then the exit code.

mod cli;
mod commands;

use std::ffi::OsString;
use std::panic;
use std::process::ExitCode;

use argh::FromArgs;
use coracle::config::printable;

use cli::{Arguments, Command};
use commands::{fail, say};

const SHORT_HELP: &str = "\
coracle: no command given. The two most useful ones:
  coracle demo                            shows the proxy at work
  coracle run -L 8080:192.168.1.10:80     forwards port 8080 to 192.168.1.10:80
All of them: coracle --help";

fn main() -> ExitCode {
    // Whatever it comes to, a bug included, what was logged is written and the exit code is a documented one.
    let exit = panic::catch_unwind(program).unwrap_or(ExitCode::FAILURE);
    log::logger().flush();
    exit
}

fn program() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    let exit = match arguments.command {
        _ if arguments.version => Ok(say(&version(), true)),
        Some(Command::Check(arguments)) => commands::check(arguments),
        Some(Command::Run(arguments)) => commands::run(arguments),
        Some(Command::Demo(arguments)) => commands::demo(arguments),
        Some(Command::Audit(arguments)) => commands::audit(&arguments),
        Some(Command::Reload(arguments)) => commands::reload(&arguments),
        None => Err(SHORT_HELP.to_owned()),
    };
    exit.unwrap_or_else(|why| fail(&why))
}

/// Those of the command line, or how the program ends without them: help was asked for, or they are wrong.
fn arguments() -> Result<Arguments, ExitCode> {
    let words = std::env::args_os().skip(1).map(OsString::into_string);
    let words: Vec<String> = words.collect::<Result<_, _>>().map_err(|word| {
        let word = printable(&word.to_string_lossy());
        fail(&format!("coracle: the argument {word} is not UTF-8 text"))
    })?;
    let borrowed = stdin_last(words.iter().map(String::as_str).collect());
    Arguments::from_args(&["coracle"], &borrowed).map_err(|early| match early.status {
        Ok(()) => say(&early.output, true),
        Err(()) => {
            // It quotes what was given as it is.
            let quoted = |said: String, word: &String| match printable(word) {
                shown if shown == *word => said,
                shown => said.replace(word, &shown),
            };
            let said = words.iter().fold(early.output, quoted);
            fail(&format!("{said}\nRun coracle --help for more information."))
        }
    })
}

/// Puts the file `-` of `coracle reload` last, behind `--`: anywhere else argh takes it for an option.
fn stdin_last(mut words: Vec<&str>) -> Vec<&str> {
    let is_reload = words.first() == Some(&"reload") && !words.contains(&"--");
    let at = words.iter().rposition(|word| *word == "-");
    if let Some(at) = at.filter(|at| is_reload && words[at - 1] != "--socket") {
        let stdin = words.remove(at);
        words.extend(["--", stdin]);
    }
    words
}

/// The version and what it was built for, such as `coracle 0.1.0 (x86_64-linux-gnu)`.
fn version() -> String {
    let target = coracle::sys::target();
    format!("coracle {} ({target})", env!("CARGO_PKG_VERSION"))
}
