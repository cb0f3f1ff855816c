//! The command line: its commands, their options and their help.

mod words;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use coracle::client::{ListSort, PeerFilter};
use coracle::config::{AdminEndpoint, AdminListen, Forward, printable};
use coracle::state::{AdminState, ConnId, Label as _, Network, Phase};
use log::Level;

use words::Misuse;

/// A lightweight TCP proxy that knows exactly who is connected.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    help_triggers("-h", "--help"),
    example = "{command_name} demo",
    example = "{command_name} run -L 8080:192.168.1.10:80",
    example = "{command_name} help run"
)]
pub(crate) struct Arguments {
    /// print the version
    #[argh(switch, short = 'V')]
    pub version: bool,

    #[argh(subcommand)]
    pub command: Option<Command>,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub(crate) enum Command {
    Run(Run),
    Check(Check),
    Status(Status),
    Top(Top),
    List(List),
    Clients(Clients),
    Audit(Audit),
    Reload(Reload),
    Server(Server),
    Kill(Kill),
    Logs(Logs),
    LogLevel(LogLevel),
    Demo(Demo),
    Version(Version),
}

/// Forward connections until stopped. Without -c and -L, coracle reads ./coracle.toml or, if that
/// does not exist, /etc/coracle.toml.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "run",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} -c coracle.toml --access-log",
    example = "{command_name} -L 8080:192.168.1.10:80 --admin off",
    example = "{command_name} -L '*:2222:nas.lan:22' -L '[::]:8443:[fd00::10]:443'",
    example = "{command_name} -L unix:/run/app.sock:192.168.1.10:80"
)]
pub(crate) struct Run {
    /// read the configuration from this file
    #[argh(option, short = 'c', arg_name = "file")]
    pub config: Option<PathBuf>,

    /// forward a port, written as for ssh: [bind:]port:host:hostport. Repeat it for more ports.
    /// Without bind, only this machine can connect; * means all interfaces. Either side can be
    /// unix:/path
    #[argh(option, short = 'L', arg_name = "spec")]
    pub forward: Vec<Forward>,

    /// log a line for each closed connection
    #[argh(switch)]
    pub access_log: bool,

    /// serve the admin endpoint at this address, or not at all if it is off; default: the address
    /// in the configuration, or 127.0.0.1:2672
    #[argh(option, arg_name = "addr")]
    pub admin: Option<AdminListen>,
}

/// Check a configuration and report every error in it.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "check",
    help_triggers("-h", "--help"),
    example = "{command_name} /etc/coracle.toml",
    example = "ssh pi cat /etc/coracle.toml | {command_name} -"
)]
pub(crate) struct Check {
    /// the configuration; - reads standard input
    #[argh(positional, arg_name = "file")]
    pub file: PathBuf,
}

/// Show the entrypoints, services and servers of a running coracle: which servers are up, and how
/// many connections each has.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "status",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} --admin raspberrypi.lan:2672",
    example = "{command_name} --admin unix:/run/coracle/control.sock --json"
)]
pub(crate) struct Status {
    /// the admin endpoint, as host:port or [IPv6]:port, or unix:/path for the control socket;
    /// default: 127.0.0.1:2672
    #[argh(option, arg_name = "addr", default = "AdminEndpoint::default()")]
    pub admin: AdminEndpoint,

    /// over TCP, send the token in this file: the one that `token_file` in [admin] of the
    /// configuration names
    #[argh(option, arg_name = "file")]
    pub token_file: Option<PathBuf>,

    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// List the open connections of a running coracle that fit every option given, the oldest first,
/// with the bytes that each has carried.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "list",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} --admin raspberrypi.lan:2672",
    example = "{command_name} --entrypoint web --peer 203.0.113.0/24 --sort bytes --limit 10",
    example = "{command_name} --admin unix:/run/coracle/control.sock --json"
)]
pub(crate) struct List {
    /// the admin endpoint, as host:port or [IPv6]:port, or unix:/path for the control socket;
    /// default: 127.0.0.1:2672
    #[argh(option, arg_name = "addr", default = "AdminEndpoint::default()")]
    pub admin: AdminEndpoint,

    /// over TCP, send the token in this file: the one that `token_file` in [admin] of the
    /// configuration names
    #[argh(option, arg_name = "file")]
    pub token_file: Option<PathBuf>,

    /// those of clients in this network, such as 203.0.113.0/24, or with this IP address, or of
    /// Unix sockets: unix
    #[argh(option, arg_name = "network")]
    pub peer: Option<PeerFilter>,

    /// those of this entrypoint
    #[argh(option, arg_name = "name")]
    pub entrypoint: Option<String>,

    /// those of this service
    #[argh(option, arg_name = "name")]
    pub service: Option<String>,

    /// those connected to this server: its name, or its address as written in the configuration
    #[argh(option, arg_name = "address")]
    pub server: Option<String>,

    /// those in this state: dialling, queued, relaying, limited or half-closed
    #[argh(option, arg_name = "state", from_str_fn(phase))]
    pub state: Option<Phase>,

    /// those that have been open at least this long, such as 90s or 2h
    #[argh(option, arg_name = "duration", from_str_fn(duration))]
    pub min_age: Option<Duration>,

    /// age puts the oldest first, which is the default, and bytes those that carried the most
    #[argh(
        option,
        arg_name = "key",
        from_str_fn(list_sort),
        default = "ListSort::Age"
    )]
    pub sort: ListSort,

    /// list at most this many
    #[argh(option, arg_name = "n", from_str_fn(at_least_one))]
    pub limit: Option<usize>,

    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

fn phase(text: &str) -> Result<Phase, String> {
    let found = Phase::ALL.iter().find(|phase| phase.label() == text);
    let found = found.copied();
    found.ok_or_else(|| {
        "not a state; write dialling, queued, relaying, limited or half-closed".to_owned()
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    coracle::config::duration(text).map_err(|wrong| wrong.to_string())
}

fn list_sort(text: &str) -> Result<ListSort, String> {
    match text {
        "age" => Ok(ListSort::Age),
        "bytes" => Ok(ListSort::Bytes),
        _ => Err("not a key to sort by; write age or bytes".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "not a number from 1; write one such as 20".to_owned())
}

/// Watch a running coracle in the terminal: its entrypoints, servers and connections, with their
/// rates. Keys sort and filter, end a connection, and drain a server; ? lists them.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "top",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} --admin unix:/run/coracle/control.sock",
    example = "{command_name} --admin raspberrypi.lan:2672 --interval 5s"
)]
pub(crate) struct Top {
    /// the admin endpoint, as host:port or [IPv6]:port, or unix:/path for the control socket, over
    /// which it also ends connections and drains servers; default: 127.0.0.1:2672
    #[argh(option, arg_name = "addr", default = "AdminEndpoint::default()")]
    pub admin: AdminEndpoint,

    /// over TCP, send the token in this file: the one that `token_file` in [admin] of the
    /// configuration names
    #[argh(option, arg_name = "file")]
    pub token_file: Option<PathBuf>,

    /// ask for new numbers this often, from 100ms to 1h; default: 1s
    #[argh(
        option,
        arg_name = "duration",
        from_str_fn(interval),
        default = "Duration::from_secs(1)"
    )]
    pub interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    match (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&interval) {
        true => Ok(interval),
        false => Err("too short or too long; write one from 100ms to 1h".to_owned()),
    }
}

/// Show what each client of a running coracle has used, the largest first. Needs a table [accounting]
/// in its configuration.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "clients",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} --admin raspberrypi.lan:2672",
    example = "{command_name} --admin unix:/run/coracle/control.sock --json"
)]
pub(crate) struct Clients {
    /// the admin endpoint, as host:port or [IPv6]:port, or unix:/path for the control socket;
    /// default: 127.0.0.1:2672
    #[argh(option, arg_name = "addr", default = "AdminEndpoint::default()")]
    pub admin: AdminEndpoint,

    /// over TCP, send the token in this file: the one that `token_file` in [admin] of the
    /// configuration names
    #[argh(option, arg_name = "file")]
    pub token_file: Option<PathBuf>,

    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Compare the connections of a running coracle with the kernel's socket table, one by one. The
/// exit code is 0 if they agree and 1 if not.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "audit",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} --admin raspberrypi.lan:2672 --json",
    example = "{command_name} --watch"
)]
pub(crate) struct Audit {
    /// the admin endpoint, as host:port or [IPv6]:port, or unix:/path for the control socket;
    /// default: 127.0.0.1:2672
    #[argh(option, arg_name = "addr", default = "AdminEndpoint::default()")]
    pub admin: AdminEndpoint,

    /// over TCP, send the token in this file: the one that `token_file` in [admin] of the
    /// configuration names
    #[argh(option, arg_name = "file")]
    pub token_file: Option<PathBuf>,

    /// print JSON
    #[argh(switch)]
    pub json: bool,

    /// repeat every two seconds until Ctrl-C, then print the largest difference that persisted
    #[argh(switch)]
    pub watch: bool,
}

/// Make a running coracle reread its configuration, without closing a connection. Prints what
/// changes. If the configuration has errors, prints those and changes nothing.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "reload",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} --socket /run/coracle/other.sock",
    example = "{command_name} --dry-run",
    example = "{command_name} --dry-run new.toml",
    example = "ssh pi cat coracle.toml | {command_name} --dry-run -"
)]
pub(crate) struct Reload {
    /// the control socket; default: /run/coracle/control.sock
    #[argh(option, arg_name = "path")]
    pub socket: Option<PathBuf>,

    /// the admin endpoint instead, as host:port or [IPv6]:port; this needs a token
    #[argh(option, arg_name = "addr")]
    pub admin: Option<AdminEndpoint>,

    /// over TCP, send the token in this file: the one that `token_file` in [admin] of the
    /// configuration names
    #[argh(option, arg_name = "file")]
    pub token_file: Option<PathBuf>,

    /// print what would change, and change nothing
    #[argh(switch)]
    pub dry_run: bool,

    /// with --dry-run: compare this configuration instead of the one that coracle was started
    /// with; - reads standard input
    #[argh(positional, arg_name = "file")]
    pub file: Option<PathBuf>,
}

/// Take a server of a running coracle out of use, or back: drain gives it no new connections, down
/// counts it as down, and ready ends both. Open connections continue, unless `on_down` of the service
/// closes them when it is down.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "server",
    help_triggers("-h", "--help"),
    example = "{command_name} web 192.168.1.10:80 drain",
    example = "{command_name} web 192.168.1.10:80 ready",
    example = "{command_name} --socket /run/coracle/other.sock web big down"
)]
pub(crate) struct Server {
    /// the control socket; default: /run/coracle/control.sock
    #[argh(option, arg_name = "path")]
    pub socket: Option<PathBuf>,

    /// the admin endpoint instead, as host:port or [IPv6]:port; this needs a token
    #[argh(option, arg_name = "addr")]
    pub admin: Option<AdminEndpoint>,

    /// over TCP, send the token in this file: the one that `token_file` in [admin] of the
    /// configuration names
    #[argh(option, arg_name = "file")]
    pub token_file: Option<PathBuf>,

    /// the service
    #[argh(positional, arg_name = "service")]
    pub service: String,

    /// its server: the name, or the address as written in the configuration
    #[argh(positional, arg_name = "server")]
    pub server: String,

    /// drain, ready or down
    #[argh(positional, arg_name = "state", from_str_fn(admin_state))]
    pub state: AdminState,
}

fn admin_state(text: &str) -> Result<AdminState, String> {
    let found = AdminState::ALL.iter().find(|state| state.label() == text);
    let found = found.copied();
    found.ok_or_else(|| "not a state; write drain, ready or down".to_owned())
}

/// End open connections of a running coracle: one by its ID, or all that fit every option given.
/// Both peers are reset. Prints how many were ended.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "kill",
    help_triggers("-h", "--help"),
    example = "{command_name} 12",
    example = "{command_name} --peer 203.0.113.0/24",
    example = "{command_name} --dry-run --entrypoint web --peer 203.0.113.7",
    example = "{command_name} --service web --server 192.168.1.10:80",
    example = "{command_name} --admin raspberrypi.lan:2672 --token-file coracle.token 12"
)]
pub(crate) struct Kill {
    /// the control socket; default: /run/coracle/control.sock
    #[argh(option, arg_name = "path")]
    pub socket: Option<PathBuf>,

    /// the admin endpoint instead, as host:port or [IPv6]:port; this needs a token
    #[argh(option, arg_name = "addr")]
    pub admin: Option<AdminEndpoint>,

    /// over TCP, send the token in this file: the one that `token_file` in [admin] of the
    /// configuration names
    #[argh(option, arg_name = "file")]
    pub token_file: Option<PathBuf>,

    /// those of clients in this network, such as 203.0.113.0/24, or with this IP address. A client
    /// over a Unix socket is in no network
    #[argh(option, arg_name = "network")]
    pub peer: Option<Network>,

    /// those of this entrypoint
    #[argh(option, arg_name = "name")]
    pub entrypoint: Option<String>,

    /// those of this service
    #[argh(option, arg_name = "name")]
    pub service: Option<String>,

    /// those connected to this server: its name, or its address as written in the configuration
    #[argh(option, arg_name = "address")]
    pub server: Option<String>,

    /// list what would be ended, and end nothing
    #[argh(switch)]
    pub dry_run: bool,

    /// the ID of one connection, as `coracle list` shows it
    #[argh(positional, arg_name = "id")]
    pub id: Option<ConnId>,
}

/// Print the last log lines of a running coracle, which it keeps in memory.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "logs",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} --level warn --follow",
    example = "{command_name} --admin unix:/run/coracle/control.sock --json"
)]
pub(crate) struct Logs {
    /// the admin endpoint, as host:port or [IPv6]:port, or unix:/path for the control socket;
    /// default: 127.0.0.1:2672
    #[argh(option, arg_name = "addr", default = "AdminEndpoint::default()")]
    pub admin: AdminEndpoint,

    /// over TCP, send the token in this file: the one that `token_file` in [admin] of the
    /// configuration names
    #[argh(option, arg_name = "file")]
    pub token_file: Option<PathBuf>,

    /// only lines at least as severe: error, warn, info or debug; default: debug
    #[argh(
        option,
        arg_name = "level",
        from_str_fn(log_level),
        default = "Level::Debug"
    )]
    pub level: Level,

    /// print what is logged from now on too, until Ctrl-C
    #[argh(switch)]
    pub follow: bool,

    /// print JSON, an object on each line
    #[argh(switch)]
    pub json: bool,
}

/// Show the level that a running coracle logs, or change it until its next reload or restart.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "log-level",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} debug"
)]
pub(crate) struct LogLevel {
    /// the control socket; default: /run/coracle/control.sock
    #[argh(option, arg_name = "path")]
    pub socket: Option<PathBuf>,

    /// the admin endpoint instead, as host:port or [IPv6]:port; this needs a token
    #[argh(option, arg_name = "addr")]
    pub admin: Option<AdminEndpoint>,

    /// over TCP, send the token in this file: the one that `token_file` in [admin] of the
    /// configuration names
    #[argh(option, arg_name = "file")]
    pub token_file: Option<PathBuf>,

    /// error, warn, info or debug
    #[argh(positional, arg_name = "level", from_str_fn(log_level))]
    pub level: Option<Level>,
}

fn log_level(text: &str) -> Result<Level, String> {
    match text {
        "error" => Ok(Level::Error),
        "warn" => Ok(Level::Warn),
        "info" => Ok(Level::Info),
        "debug" => Ok(Level::Debug),
        _ => Err("not a level; write error, warn, info or debug".to_owned()),
    }
}

/// Show the proxy at work, between web servers and clients of its own.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "demo",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} --listen 0.0.0.0:8080 --admin 0.0.0.0:2672"
)]
pub(crate) struct Demo {
    /// listen on this address; default: 127.0.0.1:8080
    #[argh(
        option,
        arg_name = "addr",
        from_str_fn(socket_address),
        default = "SocketAddr::from(([127, 0, 0, 1], 8080))"
    )]
    pub listen: SocketAddr,

    /// serve the admin endpoint at this address; default: 127.0.0.1:2672
    #[argh(
        option,
        arg_name = "addr",
        from_str_fn(socket_address),
        default = "coracle::config::defaults::ADMIN"
    )]
    pub admin: SocketAddr,
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse();
    address.map_err(|_| "not an IP address and a port; write one such as 127.0.0.1:8080".to_owned())
}

/// Print the version.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "version",
    help_triggers("-h", "--help"),
    example = "{command_name}"
)]
pub(crate) struct Version {}

/// Why there are no [`Arguments`].
pub(crate) enum Early {
    /// The help that was asked for.
    Help(String),
    /// What is wrong with the command line, and where to find help.
    Misuse(String),
}

/// Parses the words after the program's name.
///
/// # Errors
/// Returns what to print instead of running a command.
pub(crate) fn parse(words: &[String]) -> Result<Arguments, Early> {
    let words = words::normalise(words, &Arguments::get_args_info()).map_err(misuse)?;
    let borrowed: Vec<&str> = words.iter().map(String::as_str).collect();
    Arguments::from_args(&["coracle"], &borrowed).map_err(|early| match early.status {
        Ok(()) if words == ["--help"] => Early::Help(with_help_command(&early.output)),
        Ok(()) => Early::Help(early.output.trim_end().to_owned()),
        Err(()) => misuse(Misuse {
            what: in_short(&early.output, &words),
            command: words.iter().find(|word| !word.starts_with('-')).cloned(),
        }),
    })
}

fn misuse(Misuse { what, command }: Misuse) -> Early {
    let command = command.map_or(String::new(), |command| format!(" {command}"));
    Early::Misuse(format!(
        "coracle: {what}\nRun `coracle{command} --help` for help."
    ))
}

/// Adds `help` to the list of commands, since argh allows no command of this name.
fn with_help_command(help: &str) -> String {
    const HELP: &str =
        "\n  help              Print the help of coracle, or of one of its commands.";
    let end = "\n\nExamples:";
    help.trim_end().replacen(end, &format!("{HELP}{end}"), 1)
}

/// argh's sentence about a value, `Error parsing option '-L' with value '80:x': ...`, as
/// `-L 80:x: ...`; one about an operand likewise.
fn in_short(said: &str, words: &[String]) -> String {
    let said = said.trim_end();
    let parts = [
        "Error parsing option '",
        "Error parsing positional argument '",
    ]
    .iter()
    .find_map(|start| said.strip_prefix(start))
    .and_then(|said| said.split_once("' with value '"));
    let short = parts.and_then(|(option, said)| {
        // The value is one of the words. Looking for the quote behind it would find one inside it.
        let why = words
            .iter()
            .find_map(|word| Some((word, said.strip_prefix(word.as_str())?.strip_prefix("': ")?)));
        why.map(|(value, why)| format!("{option} {}: {why}", printable(value)))
    });
    short.unwrap_or_else(|| printable(said))
}
