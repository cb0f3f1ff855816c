//! The program: flags to a configuration, then run, then the exit code.

mod cli;
mod load;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;
use async_io::Timer;
use async_signal::{Signal, Signals};
use coracle::audit::Audit;
use coracle::config::Overrides;
use coracle::demo::Demo;
use coracle::logging;
use coracle::proxy::Proxy;
use smol::future::FutureExt;
use smol::stream::{Stream, StreamExt};

use cli::{Arguments, Check, Command, Run};

const SHORT_HELP: &str = "\
coracle: no command given. The two most useful ones:
  coracle demo                            shows the proxy at work
  coracle run -L 8080:192.168.1.10:80     forwards port 8080 to 192.168.1.10:80
All of them: coracle --help";

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    match arguments.command {
        _ if arguments.version => say(&version(), true),
        Some(Command::Check(arguments)) => check(arguments),
        Some(Command::Run(arguments)) => run(arguments),
        Some(Command::Demo(arguments)) => demo(arguments),
        Some(Command::Audit(arguments)) => audit(&arguments),
        None => fail(SHORT_HELP),
    }
}

/// Those of the command line, or how the program ends without them: help was asked for, or they are wrong.
fn arguments() -> Result<Arguments, ExitCode> {
    let words = std::env::args_os().skip(1).map(OsString::into_string);
    let words: Vec<String> = words.collect::<Result<_, _>>().map_err(|word| {
        let word = word.display();
        fail(&format!("coracle: the argument {word} is not UTF-8 text"))
    })?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Arguments::from_args(&["coracle"], &words).map_err(|early| match early.status {
        Ok(()) => say(&early.output, true),
        Err(()) => fail(&format!(
            "{}\nRun coracle --help for more information.",
            early.output
        )),
    })
}

fn check(Check { file }: Check) -> ExitCode {
    match load::file(&file, &Overrides::default()) {
        Ok(config) => {
            let summary = load::summary(&config);
            let good = format!("{}: good: {summary}", file.display());
            match config.warnings {
                Some(warnings) => say(&format!("{warnings}\n\n{good}"), true),
                None => say(&good, true),
            }
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
    logging::install(config.log.level, config.log.access);
    if let Some(file) = file {
        log::info!(file:% = file.display(); "configuration read");
    }
    load::log_warnings(&config);
    match Proxy::bind(&config, None) {
        Ok(proxy) => drive(proxy),
        Err(why) => fail(&format!("coracle: {why}")),
    }
}

fn demo(cli::Demo { listen, admin }: cli::Demo) -> ExitCode {
    logging::install(log::LevelFilter::Warn, false);
    match Demo::start(listen, admin) {
        Ok(demo) => {
            // Whoever reads may have gone; the demo goes on.
            let _ = write!(io::stdout(), "{}", demo.guide());
            demo.start_client();
            drive(demo.proxy)
        }
        Err(why) => fail(&format!("coracle: {why}")),
    }
}

fn audit(arguments: &cli::Audit) -> ExitCode {
    if arguments.watch {
        return watch(arguments);
    }
    match Audit::ask(arguments.admin) {
        Ok(audit) if arguments.json => say(&audit.json(), audit.agrees()),
        Ok(audit) => say(
            &format!("{}\n{}", audit.table(), audit.sentence()),
            audit.agrees(),
        ),
        Err(why) => fail(&format!("coracle: {why}")),
    }
}

/// Audits again and again until a signal, and tells the largest difference.
fn watch(arguments: &cli::Audit) -> ExitCode {
    const PAUSE: Duration = Duration::from_secs(2);
    let mut stops = match stops() {
        Ok(stops) => stops,
        Err(error) => return fail(&format!("coracle: signals cannot be received: {error}")),
    };
    let (mut audits, mut largest) = (0_u64, 0);
    loop {
        let audit = match Audit::ask(arguments.admin) {
            Ok(audit) => audit,
            Err(why) => return fail(&format!("coracle: after {audits} audits: {why}")),
        };
        audits += 1;
        largest = largest.max(audit.difference());
        let line = if arguments.json {
            audit.json()
        } else {
            audit.sentence()
        };
        // Whoever reads may have gone.
        if writeln!(io::stdout(), "{line}").is_err() {
            break;
        }
        let stop = async { stops.next().await.is_some() };
        let pause = async {
            Timer::after(PAUSE).await;
            false
        };
        if smol::block_on(stop.or(pause)) {
            break;
        }
    }
    let verdict =
        format!("{audits} audits; the largest difference that lasted: {largest} connections");
    // With --json, stdout holds JSON alone.
    if arguments.json {
        eprintln!("{verdict}");
        return if largest == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    say(&verdict, largest == 0)
}

/// Prints to stdout; the exit code says whether all is well. That the reader has gone away, such as `head`, is no failure.
fn say(text: &str, well: bool) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(&format!("coracle: stdout: {error}"))
        }
        _ if well => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
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
    let target = coracle::sys::target();
    format!("coracle {} ({target})", env!("CARGO_PKG_VERSION"))
}
