//! Text to a [`Config`] that is valid by its type, or every mistake in the text at once. No I/O.

mod address;
mod diagnostic;
mod forward;
mod host;
mod read;
mod resolve;
mod syntax;
mod table;
mod value;

use std::time::Duration;

use toml::de::DeTable;

pub use address::{Address, Host, Listen};
pub use diagnostic::{Diagnostic, Diagnostics, Mistake, Place, count};
pub use forward::Forward;

use diagnostic::Collector;
use read::{Draft, Origin};

/// A valid configuration: names are unique and not empty, every reference leads somewhere, no address is listened on twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How long open connections may go on after the request to stop.
    pub drain_timeout: Duration,
    /// The admin endpoint.
    pub admin: Admin,
    /// What is logged.
    pub log: Log,
    /// Where connections come in, at least one.
    pub entrypoints: Vec<Entrypoint>,
    /// Where connections go.
    pub services: Vec<Service>,
}

/// What the command line adds to a file or says instead of it.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Further entrypoints.
    pub forwards: Vec<Forward>,
    /// The admin endpoint instead of the file's.
    pub admin: Option<Admin>,
    /// Whether to turn the access log on; `false` leaves it to the file.
    pub access_log: bool,
}

impl Config {
    /// Reads the configuration `text` of the file named `file` and adds an entrypoint for each forward.
    ///
    /// # Errors
    /// Every mistake in the text.
    pub fn parse(file: &str, text: &str, forwards: &[Forward]) -> Result<Self, Diagnostics> {
        let forwards = forwards.to_vec();
        Self::with_overrides(
            Some((file, text)),
            &Overrides {
                forwards,
                ..Overrides::default()
            },
        )
    }

    /// A configuration without a file: one entrypoint for each forward, defaults for all else.
    ///
    /// # Errors
    /// When there is no forward, or two forwards listen on the same address.
    pub fn from_forwards(forwards: &[Forward]) -> Result<Self, Diagnostics> {
        let forwards = forwards.to_vec();
        Self::with_overrides(
            None,
            &Overrides {
                forwards,
                ..Overrides::default()
            },
        )
    }

    /// Reads the name and text of a file, if there is one, and adds what the command line says.
    ///
    /// # Errors
    /// Every mistake in the text, and what does not go together.
    pub fn with_overrides(
        source: Option<(&str, &str)>,
        overrides: &Overrides,
    ) -> Result<Self, Diagnostics> {
        let (file, text) = source.unwrap_or(("command line", ""));
        // A byte order mark is no part of the first line.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut out = Collector::new(text);
        let damage = syntax::Damage::report(&errors, text, &mut out);
        let mut read = Collector::new(text);
        let mut draft = read::read(root.get_ref(), damage.is_none(), &mut read);
        out.append(read, |line| damage.spares(line));
        if !damage.is_none() {
            return Err(out.finish(file));
        }
        overrides.add_to(&mut draft);
        let config = resolve::resolve(draft, &mut out);
        match out.is_empty() {
            true => Ok(config),
            false => Err(out.finish(file)),
        }
    }
}

impl Overrides {
    fn add_to(&self, draft: &mut Draft) {
        if let Some(admin) = &self.admin {
            draft.admin = admin.clone();
            draft.admin_at = Origin::Flag("--admin".to_owned());
        }
        draft.log.access |= self.access_log;
        resolve::add_forwards(draft, &self.forwards);
    }
}

/// The admin endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// The address that serves `/metrics`, `/healthz` and `/readyz`; `None` when it is switched off.
    pub listen: Option<std::net::SocketAddr>,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important level that is written.
    pub level: log::LevelFilter,
    /// Whether each closed connection gets a line.
    pub access: bool,
}

/// Where connections come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrypoint {
    /// Its name: the `entrypoint` label of the metrics.
    pub name: String,
    /// What it listens on, at least one.
    pub listen: Vec<Listen>,
    /// The position of its service in [`Config::services`].
    pub service: usize,
    /// How long nothing may pass in either direction; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long one side may go on after the other has finished sending; `None`: for ever.
    pub half_close_timeout: Option<Duration>,
    /// How long a connection is silent before the kernel probes whether its peers still exist; `None`: never.
    pub keepalive: Option<Duration>,
}

/// A group of servers that offer the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name: the `service` label of the metrics.
    pub name: String,
    /// Its servers, at least one and at most [`Service::MAX_SERVERS`].
    pub servers: Vec<Address>,
    /// How long connecting to one server may take.
    pub connect_timeout: Duration,
}

impl Service {
    /// The most servers that a service may have.
    pub const MAX_SERVERS: usize = 1024;
}

/// Defaults, right on a Raspberry Pi.
pub mod defaults {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::time::Duration;

    /// The admin endpoint: this machine only.
    pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2672);
    /// `level` of the log.
    pub const LOG_LEVEL: log::LevelFilter = log::LevelFilter::Info;
    /// `drain_timeout`.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
    /// `connect_timeout`.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// `keepalive`: with the four probes 15 s apart that follow, a vanished peer is found within two minutes.
    pub const KEEPALIVE: Duration = Duration::from_secs(60);
}
