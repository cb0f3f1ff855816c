//! The program: flags to a configuration, then run, then the exit code.

mod cli;
mod load;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;
use std::{panic, thread};

use argh::FromArgs;
use async_io::Timer;
use async_signal::{Signal, Signals};
use coracle::audit::Audit;
use coracle::config::{Overrides, printable};
use coracle::demo::Demo;
use coracle::net::Inherited;
use coracle::proxy::Proxy;
use coracle::{logging, sys};
use log::LevelFilter;
use smol::future::FutureExt;
use smol::stream::{Stream, StreamExt};

use cli::{Arguments, Check, Command, Run};

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
        Some(Command::Check(arguments)) => check(arguments),
        Some(Command::Run(arguments)) => run(arguments),
        Some(Command::Demo(arguments)) => demo(arguments),
        Some(Command::Audit(arguments)) => audit(&arguments),
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
    let borrowed: Vec<&str> = words.iter().map(String::as_str).collect();
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

fn check(Check { file }: Check) -> Result<ExitCode, String> {
    let config = load::file(&file, &Overrides::default())?;
    let (file, summary) = (load::name(&file), load::summary(&config));
    let good = format!("{file}: good: {summary}");
    Ok(match config.warnings {
        Some(warnings) => say(&format!("{warnings}\n\n{good}"), true),
        None => say(&good, true),
    })
}

fn run(arguments: Run) -> Result<ExitCode, String> {
    // Before anything is opened.
    let inherited = Inherited::take();
    let overrides = Overrides {
        forwards: arguments.forward,
        admin: arguments.admin,
        access_log: arguments.access_log,
    };
    let (config, file) = load::for_run(arguments.config, &overrides)?;
    let stops = start(config.log.level, config.log.access, Hangup::Ignored)?;
    if let Some(file) = file {
        log::info!(target: "setup", file:% = file.display(); "configuration read");
    }
    load::log_warnings(&config);
    let proxy = Proxy::bind_with(&config, None, inherited).map_err(told)?;
    drive(proxy, stops)
}

fn demo(cli::Demo { listen, admin }: cli::Demo) -> Result<ExitCode, String> {
    let stops = start(LevelFilter::Warn, false, Hangup::Stops)?;
    let stops = stops.inspect(|signal| {
        // A line of its own, below the ^C of the terminal.
        let _ = writeln!(io::stdout(), "\n{signal}: the demo ends");
    });
    let demo = Demo::start(listen, admin).map_err(told)?;
    // Whoever reads may have gone; the demo goes on.
    let _ = write!(io::stdout(), "{}", demo.guide());
    demo.start_client().map_err(told)?;
    drive(demo.proxy, stops)
}

/// What both begin with, in this order: room for descriptors, a log, and signals that no longer kill.
fn start(level: LevelFilter, access: bool, hangup: Hangup) -> Result<impl Stops, String> {
    let _ = sys::descriptors::raise_limit();
    logging::install(level, access).map_err(|error| format!("coracle: {}", no_thread(&error)))?;
    let stops = stops(hangup)?;
    sys::signals::settle();
    Ok(stops)
}

/// Runs the proxy until a signal has ended it.
fn drive(proxy: Proxy, stops: impl Stops) -> Result<ExitCode, String> {
    proxy.run(stops).map_err(told)?;
    Ok(ExitCode::SUCCESS)
}

fn audit(arguments: &cli::Audit) -> Result<ExitCode, String> {
    if arguments.watch {
        return watch(arguments);
    }
    let audit = Audit::ask(&arguments.admin).map_err(told)?;
    let text = if arguments.json {
        audit.json()
    } else {
        format!("{}\n{}", audit.table(), audit.sentence())
    };
    Ok(say(&text, audit.agrees()))
}

/// Audits again and again until a signal, and tells the largest difference.
fn watch(arguments: &cli::Audit) -> Result<ExitCode, String> {
    const PAUSE: Duration = Duration::from_secs(2);
    let mut stops = stops(Hangup::Stops)?;
    let (mut audits, mut largest) = (0_u64, 0);
    loop {
        let audit = Audit::ask(&arguments.admin)
            .map_err(|why| format!("coracle: after {audits} audits: {why}"))?;
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
        logging::say(&verdict);
        return Ok(if largest == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    Ok(say(&verdict, largest == 0))
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

/// The requests to stop, by the signal that made them.
trait Stops: Stream<Item = &'static str> + Unpin + 'static {}
impl<S: Stream<Item = &'static str> + Unpin + 'static> Stops for S {}

/// What SIGHUP does, which a closing terminal sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hangup {
    /// It is told in the log: a service has no terminal.
    Ignored,
    /// It ends what is shown in a terminal.
    Stops,
}

/// Receives the signals that mean something. It starts async-io's thread and epoll, so that what they lack shows at the start.
fn stops(hangup: Hangup) -> Result<impl Stops, String> {
    // Each takes a descriptor.
    const SIGNALS: [Signal; 4] = [Signal::Term, Signal::Int, Signal::Quit, Signal::Hup];
    // async-io panics where it can have no thread or no descriptor. That is no bug, and is told in one line.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let signals = panic::catch_unwind(|| Signals::new(SIGNALS));
    // Where it has failed, async-io's thread panics in the same way a moment later, beside the end of the program.
    if signals.is_ok() {
        panic::set_hook(hook);
    }
    let signals = match signals {
        Ok(Ok(signals)) => Ok(signals),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("asynchronous I/O cannot be set up".to_owned()),
    };
    let signals = signals.map_err(|why| format!("coracle: {}", lack().unwrap_or(why)))?;
    Ok(signals.filter_map(move |signal| match signal.ok()? {
        Signal::Term => Some("SIGTERM"),
        Signal::Int => Some("SIGINT"),
        Signal::Quit => Some("SIGQUIT"),
        Signal::Hup if hangup == Hangup::Stops => Some("SIGHUP"),
        _ => {
            log::warn!(
                "SIGHUP: reload is not supported yet; restart coracle to apply a changed configuration"
            );
            None
        }
    }))
}

/// What the process can have no more of, with what to do.
fn lack() -> Option<String> {
    /// As many as signals and asynchronous I/O take.
    const PIPES: usize = 5;
    let pipes: io::Result<Vec<_>> = (0..PIPES).map(|_| io::pipe()).collect();
    if let Err(error) = pipes {
        return Some(format!(
            "no descriptor left: {error}; raise the limit of open files (ulimit -n, or LimitNOFILE= in the unit)"
        ));
    }
    match thread::Builder::new().spawn(|| ()) {
        Ok(tried) => {
            // It does nothing, so it cannot panic.
            let _ = tried.join();
            None
        }
        Err(error) => Some(no_thread(&error)),
    }
}

fn no_thread(error: &io::Error) -> String {
    format!(
        "no thread can be started: {error}; raise the limit of processes (ulimit -u, or TasksMax= in the unit), or free memory"
    )
}

fn told(why: impl Display) -> String {
    format!("coracle: {why}")
}

fn fail(why: &str) -> ExitCode {
    logging::say(why);
    ExitCode::FAILURE
}

/// The version and what it was built for, such as `coracle 0.1.0 (x86_64-linux-gnu)`.
fn version() -> String {
    let target = coracle::sys::target();
    format!("coracle {} ({target})", env!("CARGO_PKG_VERSION"))
}
