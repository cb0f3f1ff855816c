//! The command line: what may be written there, and its help.

use std::net::SocketAddr;
use std::path::PathBuf;

use argh::FromArgs;
use coracle::config::{AdminEndpoint, AdminListen, Forward};

/// A lightweight TCP proxy that knows exactly who is connected.
#[derive(FromArgs)]
#[argh(
    help_triggers("-h", "--help"),
    example = "{command_name} demo",
    example = "{command_name} run -L 8080:192.168.1.10:80"
)]
pub(crate) struct Arguments {
    /// print the version
    #[argh(switch, short = 'V')]
    pub version: bool,

    #[argh(subcommand)]
    pub command: Option<Command>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
pub(crate) enum Command {
    Run(Run),
    Check(Check),
    Demo(Demo),
    Audit(Audit),
    Reload(Reload),
}

/// Forward connections until told to stop. Without a file and without a forward, ./coracle.toml is read, or else
/// /etc/coracle.toml.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "run",
    help_triggers("-h", "--help"),
    example = "{command_name} -L 8080:192.168.1.10:80",
    example = "{command_name} -L '*:2222:nas.lan:22' -L '[::]:8443:[fd00::10]:443'",
    example = "{command_name} -c coracle.toml --access-log"
)]
pub(crate) struct Run {
    /// the configuration
    #[argh(option, short = 'c', arg_name = "file")]
    pub config: Option<PathBuf>,

    /// forward a port as ssh does: [bind:]port:host:hostport; may be given more than once. Bind is 127.0.0.1 if left out; * is all
    /// interfaces. unix:/path may stand for either side
    #[argh(option, short = 'L', arg_name = "spec")]
    pub forward: Vec<Forward>,

    /// write a line for each closed connection
    #[argh(switch)]
    pub access_log: bool,

    /// address of the admin endpoint, or off; default: the file's, or 127.0.0.1:2672
    #[argh(option, arg_name = "addr")]
    pub admin: Option<AdminListen>,
}

/// Check a configuration and tell every mistake in it.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "check",
    help_triggers("-h", "--help"),
    example = "{command_name} /etc/coracle.toml"
)]
pub(crate) struct Check {
    /// the configuration
    #[argh(positional, arg_name = "file")]
    pub file: PathBuf,
}

/// Compare the connections of a running coracle with the kernel's table, one by one. Exit code 0 if they agree, else 1.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "audit",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} --admin raspberrypi.lan:2672 --json",
    example = "{command_name} --watch"
)]
pub(crate) struct Audit {
    /// address of its admin endpoint, with a host by name or number, or unix:/path of its control socket; default:
    /// 127.0.0.1:2672
    #[argh(option, arg_name = "addr", default = "AdminEndpoint::default()")]
    pub admin: AdminEndpoint,

    /// print JSON
    #[argh(switch)]
    pub json: bool,

    /// repeat every two seconds until Ctrl-C, then tell the largest difference that lasted
    #[argh(switch)]
    pub watch: bool,
}

/// Have a running coracle read its configuration anew, without cutting a connection. Prints the changes; if the configuration has
/// mistakes, prints them, and nothing changes.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "reload",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} --dry-run",
    example = "{command_name} --dry-run new.toml",
    example = "ssh pi cat coracle.toml | {command_name} --dry-run -"
)]
pub(crate) struct Reload {
    /// its control socket; default: /run/coracle/control.sock
    #[argh(option, arg_name = "path")]
    pub socket: Option<PathBuf>,

    /// change nothing, only print what would change
    #[argh(switch)]
    pub dry_run: bool,

    /// with --dry-run: a configuration other than the one that coracle was started with; - is standard input
    #[argh(positional, arg_name = "file")]
    pub file: Option<PathBuf>,
}

/// Show the proxy at work, with servers and clients of its own.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "demo",
    help_triggers("-h", "--help"),
    example = "{command_name}",
    example = "{command_name} --listen 0.0.0.0:8080 --admin 0.0.0.0:2672"
)]
pub(crate) struct Demo {
    /// address of the proxy; default: 127.0.0.1:8080
    #[argh(
        option,
        arg_name = "addr",
        default = "SocketAddr::from(([127, 0, 0, 1], 8080))"
    )]
    pub listen: SocketAddr,

    /// address of the admin endpoint; default: 127.0.0.1:2672
    #[argh(
        option,
        arg_name = "addr",
        default = "coracle::config::defaults::ADMIN"
    )]
    pub admin: SocketAddr,
}
