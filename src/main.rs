//! The program: flags to a configuration, then run, then the exit code.

mod cli;
mod load;

use std::process::ExitCode;

use coracle::config::Overrides;

use cli::{Arguments, Check, Command, Demo, Run};

const SHORT_HELP: &str = "\
coracle: no command given. The two most useful ones:
  coracle demo                            shows the proxy at work
  coracle run -L 8080:192.168.1.10:80     forwards port 8080 to 192.168.1.10:80
All of them: coracle --help";

fn main() -> ExitCode {
    let arguments: Arguments = argh::from_env();
    match arguments.command {
        _ if arguments.version => {
            println!("{}", version());
            ExitCode::SUCCESS
        }
        Some(Command::Check(arguments)) => check(arguments),
        Some(Command::Run(arguments)) => run(arguments),
        Some(Command::Demo(arguments)) => demo(arguments),
        None => fail(SHORT_HELP),
    }
}

fn check(Check { file }: Check) -> ExitCode {
    match load::file(&file, &Overrides::default()) {
        Ok(config) => {
            println!("{}: good: {}", file.display(), load::summary(&config));
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why),
    }
}

fn run(arguments: Run) -> ExitCode {
    let overrides = Overrides {
        forwards: arguments.forward,
        admin: arguments.admin,
        access_log: arguments.access_log,
    };
    let config = match load::for_run(arguments.config, &overrides) {
        Ok(config) => config,
        Err(why) => return fail(&why),
    };
    fail(&format!(
        "coracle: run is not built yet; the configuration is good: {}",
        load::summary(&config)
    ))
}

fn demo(Demo { listen, admin }: Demo) -> ExitCode {
    fail(&format!(
        "coracle: demo is not built yet (proxy {listen}, admin {admin})"
    ))
}

fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

/// The version and what it was built for, such as `coracle 0.1.0 (x86_64-linux-gnu)`.
fn version() -> String {
    use std::env::consts::{ARCH, OS};
    const ENV: &str = if cfg!(target_env = "musl") {
        "musl"
    } else {
        "gnu"
    };
    const ABI: &str = match () {
        () if cfg!(target_abi = "eabihf") => "eabihf",
        () if cfg!(target_abi = "eabi") => "eabi",
        () => "",
    };
    let version = env!("CARGO_PKG_VERSION");
    format!("coracle {version} ({ARCH}-{OS}-{ENV}{ABI})")
}
