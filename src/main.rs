//! The program: parses the command line, runs a command and returns its exit code.

mod cli;
mod commands;

use std::ffi::OsString;
use std::panic;
use std::process::ExitCode;

use coracle::config::printable;

use cli::{Command, Early};
use commands::{fail, say};

const SHORT_HELP: &str = "\
coracle: no command given. The two most useful ones:
  coracle demo                            shows the proxy at work
  coracle run -L 8080:192.168.1.10:80     forwards port 8080 to 192.168.1.10:80
For all of them, run `coracle --help`.";

fn main() -> ExitCode {
    // Even after a panic, the log is complete and the exit code is a documented one.
    let exit = panic::catch_unwind(program).unwrap_or(ExitCode::FAILURE);
    log::logger().flush();
    exit
}

fn program() -> ExitCode {
    let words = std::env::args_os().skip(1).map(OsString::into_string);
    match words.collect::<Result<Vec<_>, _>>() {
        Ok(words) => obey(&words),
        Err(word) => {
            let word = printable(&word.to_string_lossy());
            fail(&format!("coracle: the argument `{word}` is not UTF-8 text"))
        }
    }
}

/// Does what the words after the program's name say.
fn obey(words: &[String]) -> ExitCode {
    let arguments = match cli::parse(words) {
        Ok(arguments) => arguments,
        Err(Early::Help(help)) => return say(&help, true),
        Err(Early::Misuse(why)) => return fail(&why),
    };
    let exit = match arguments.command {
        _ if arguments.version => Ok(say(&version(), true)),
        Some(Command::Version(_)) => Ok(say(&version(), true)),
        Some(Command::Check(arguments)) => commands::check(arguments),
        Some(Command::Run(arguments)) => commands::run(arguments),
        Some(Command::Demo(arguments)) => commands::demo(arguments),
        Some(Command::List(arguments)) => commands::list(arguments),
        Some(Command::Top(arguments)) => commands::top(&arguments),
        Some(Command::Clients(arguments)) => commands::clients(&arguments),
        Some(Command::Audit(arguments)) => commands::audit(&arguments),
        Some(Command::Reload(arguments)) => commands::reload(&arguments),
        Some(Command::Status(arguments)) => commands::status(&arguments),
        Some(Command::Server(arguments)) => commands::server(arguments),
        Some(Command::Logs(arguments)) => commands::logs(&arguments),
        Some(Command::LogLevel(arguments)) => commands::log_level(&arguments),
        Some(Command::Kill(arguments)) => commands::kill(arguments),
        None => Err(SHORT_HELP.to_owned()),
    };
    exit.unwrap_or_else(|why| fail(&why))
}

/// Returns the version and the target, such as `coracle 0.1.0 (x86_64-linux-gnu)`.
fn version() -> String {
    let target = coracle::sys::target();
    format!("coracle {} ({target})", env!("CARGO_PKG_VERSION"))
}
