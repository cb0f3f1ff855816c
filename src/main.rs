//! The program: flags to a configuration, then run, then the exit code.

mod cli;
mod load;

use std::process::ExitCode;

use async_signal::{Signal, Signals};
use coracle::config::Overrides;
use coracle::demo::Demo;
use coracle::logging;
use coracle::proxy::Proxy;
use smol::stream::{Stream, StreamExt};

use cli::{Arguments, Check, Command, Run};

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
    let (config, file) = match load::for_run(arguments.config, &overrides) {
        Ok(found) => found,
        Err(why) => return fail(&why),
    };
    logging::install(config.log.level);
    if let Some(file) = file {
        log::info!(file:% = file.display(); "configuration read");
    }
    match Proxy::bind(&config, None) {
        Ok(proxy) => drive(proxy),
        Err(why) => fail(&format!("coracle: {why}")),
    }
}

fn demo(cli::Demo { listen, admin }: cli::Demo) -> ExitCode {
    logging::install(log::LevelFilter::Warn);
    match Demo::start(listen, admin) {
        Ok(demo) => {
            print!("{}", demo.guide());
            demo.start_client();
            drive(demo.proxy)
        }
        Err(why) => fail(&format!("coracle: {why}")),
    }
}

/// Runs the proxy until a signal has ended it.
fn drive(proxy: Proxy) -> ExitCode {
    let _flush = FlushLog;
    let ended = match stops() {
        Ok(stops) => proxy.run(stops).map_err(|why| why.to_string()),
        Err(error) => Err(format!("signals cannot be received: {error}")),
    };
    match ended {
        Ok(_) => ExitCode::SUCCESS,
        Err(why) => fail(&format!("coracle: {why}")),
    }
}

/// Has the last lines written, even when a panic ends the program.
struct FlushLog;

impl Drop for FlushLog {
    fn drop(&mut self) {
        log::logger().flush();
    }
}

/// The signals that ask to stop, by name.
fn stops() -> std::io::Result<impl Stream<Item = &'static str> + Unpin> {
    let signals = Signals::new([Signal::Term, Signal::Int])?;
    Ok(signals.filter_map(|signal| match signal {
        Ok(Signal::Term) => Some("SIGTERM"),
        Ok(Signal::Int) => Some("SIGINT"),
        _ => None,
    }))
}

fn fail(why: &str) -> ExitCode {
    // What was logged before comes first.
    log::logger().flush();
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
