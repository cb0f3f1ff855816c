//! Opens the listeners, and suggests a remedy when one cannot be opened.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use rustix::io::Errno;

use super::hand_over::Handed;
use super::ipv6::{is_no_ipv6, with_or_without_ipv6};
use super::tcp_options::options;
use crate::config::{self, Listen, printable};
use crate::conn::{At, OwnListener};
use crate::net::{Keepalive, Listener, Reactor, TcpOptions, UnixPath, UnixSocket};
use crate::state::{Entrypoint, Local};
use crate::sys;

/// Why the proxy cannot start: one line that names the place and the remedy.
#[derive(Debug)]
pub struct BindError {
    text: String,
    /// Another socket has the address.
    pub(super) is_in_use: bool,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for BindError {}

impl BindError {
    pub(super) fn new(text: String) -> Self {
        let is_in_use = false;
        Self { text, is_in_use }
    }

    pub(super) fn reactor(error: io::Error) -> Self {
        Self::new(format!(
            "cannot set up epoll: {error}; raise the limit of open files (ulimit -n)"
        ))
    }

    pub(super) fn names(error: io::Error) -> Self {
        Self::thread("name look-ups", &error)
    }

    pub(super) fn thread(who: &str, error: &io::Error) -> Self {
        Self::new(format!(
            "{who}: no thread can be started: {error}; raise the limit of processes (ulimit -u, or TasksMax= in the unit) or of memory"
        ))
    }

    pub(super) fn endpoint(error: &io::Error) -> Self {
        Self::new(format!(
            "admin: {error}; raise the limit of open files (ulimit -n, or LimitNOFILE= in the unit)"
        ))
    }

    pub(super) fn token(file: &Path, why: &str) -> Self {
        let file = printable(&file.to_string_lossy());
        Self::new(format!("admin: token_file {file}: {why}"))
    }

    pub(super) fn no_descriptors(limit: usize) -> Self {
        Self::new(format!(
            "the limit of {limit} open files leaves no room for a connection; raise it (ulimit -n, or LimitNOFILE= in the unit)"
        ))
    }

    pub(super) fn no_memory(limit: String) -> Self {
        Self::new(format!(
            "the control group's memory limit of {limit} leaves no room for a connection; raise it (MemoryMax= in the unit)"
        ))
    }

    pub(super) fn listen(
        who: &str,
        address: &dyn fmt::Display,
        reuse: bool,
        error: &io::Error,
    ) -> Self {
        use io::ErrorKind::{
            AddrInUse, AddrNotAvailable, NotFound, PermissionDenied, Unsupported, WouldBlock,
        };
        let errno = Errno::from_io_error(error);
        let address_text = address.to_string();
        let is_unix = address_text.starts_with("unix:");
        let remedy = match error.kind() {
            AddrInUse if is_unix => {
                "another program listens there, or the path is not a socket; remove it or choose another path"
            }
            AddrInUse if reuse => {
                "another program listens there that belongs to another user or does not share the port; stop it (`ss -ltnp` shows it) or choose another port"
            }
            AddrInUse => {
                "another program listens there; stop it (`ss -ltnp` shows it) or choose another port"
            }
            WouldBlock if is_unix => {
                "another program has locked the directory (`lslocks` shows it); stop it or choose another directory"
            }
            PermissionDenied if is_unix => "choose a directory that this user can write to",
            PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port, or run as root or with the capability"
            }
            NotFound => "the directory does not exist; create it",
            AddrNotAvailable => "this machine does not have this address; see `ip addr`",
            _ if is_no_ipv6(error) && !is_unix => {
                "this machine has no IPv6; use an IPv4 address, or `*` for all addresses"
            }
            Unsupported => {
                "the kernel lacks this system call, or a sandbox forbids it; Linux 3.10 and later have it"
            }
            _ if errno == Some(Errno::MFILE) => {
                "raise the limit of open files (ulimit -n, or LimitNOFILE= in the unit)"
            }
            _ if errno == Some(Errno::NFILE) => {
                "out of file descriptors system-wide; raise fs.file-max"
            }
            _ => "check the address",
        };
        let error_text = match error.kind() {
            AddrInUse => "address in use".to_owned(),
            PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        Self {
            text: format!("{who}: listen on {address_text}: {error_text}: {remedy}"),
            is_in_use: error.kind() == AddrInUse,
        }
    }
}

/// Opens one listener of an entrypoint, or adopts the socket that was handed over for it.
pub(super) fn entrypoint(
    reactor: &Rc<Reactor>,
    configured: &config::Entrypoint,
    listen: &Listen,
    handed: Option<Handed>,
) -> Result<Listener, BindError> {
    let who = format!("entrypoint {}", configured.name);
    let interface = configured.listening.interface.as_deref();
    let failed = |error: &_| match interface.and_then(|it| no_interface(it, error)) {
        Some(why) => BindError::new(format!("{who}: listen on {listen}: {why}")),
        None => BindError::listen(&who, listen, configured.reuse_port, error),
    };
    let listener = match (listen, handed.map(|handed| handed.fd)) {
        (
            Listen::Tcp {
                address, v6only, ..
            },
            handed,
        ) => {
            let options = options(configured, *v6only);
            let listener = match handed {
                Some(fd) => Listener::adopt_tcp(reactor, fd, &options),
                None => bind_tcp(reactor, *address, &options),
            };
            listener.map_err(|error| failed(&error))?
        }
        (Listen::Unix(path), handed) => {
            let inherited = handed.map(|fd| UnixSocket::inherited(fd, path));
            let socket = match inherited {
                Some(Ok(socket)) => socket,
                // Its path has been removed, so no client can connect to it.
                Some(Err(_)) | None => UnixSocket::bind(path).map_err(|error| failed(&error))?,
            };
            open_to(socket.path(), &configured.socket)
                .map_err(|why| BindError::new(format!("{who}: listen on {listen}: {why}")))?;
            let backlog = configured.listening.backlog;
            Listener::listen_unix(reactor, socket, backlog).map_err(|error| failed(&error))?
        }
    };
    Ok(listener)
}

/// Returns why an entrypoint cannot listen at this interface, if that is what failed.
fn no_interface(interface: &str, error: &io::Error) -> Option<String> {
    let interface = printable(interface);
    match Errno::from_io_error(error)? {
        Errno::NODEV => Some(format!(
            "there is no interface {interface} (interface); `ip link` lists them; in a unit, order coracle after it (After=sys-subsystem-net-devices-{interface}.device)"
        )),
        Errno::PERM => Some(format!(
            "may not listen at the interface {interface} (interface): before Linux 5.7 this needs CAP_NET_RAW; {}",
            give("CAP_NET_RAW")
        )),
        _ => None,
    }
}

/// Says how to give the process a capability.
pub(super) fn give(capability: &str) -> String {
    let lower = capability.to_lowercase();
    format!(
        "run as root, add it with `setcap {lower}+ep` on the program, or add it to AmbientCapabilities= and CapabilityBoundingSet= in the unit"
    )
}

/// Applies another configuration's keep-alive, backlog, fast open, mode and group to an existing
/// listener.
pub(super) fn adapt(
    listener: &Listener,
    configured: &config::Entrypoint,
    listen: &Listen,
) -> Result<(), BindError> {
    let who = format!("entrypoint {}", configured.name);
    let keepalive = configured.keepalive.map(Keepalive::after);
    let failed = |key: &'static str| {
        let who = &who;
        move |error| BindError::new(format!("{who}: listen on {listen}: {key}: {error}"))
    };
    listener
        .set_keepalive(keepalive)
        .map_err(failed("keepalive"))?;
    let config::Listening {
        interface: _,
        backlog,
        fast_open,
    } = configured.listening;
    listener.set_backlog(backlog).map_err(failed("backlog"))?;
    listener
        .set_fast_open(fast_open)
        .map_err(failed("fast_open"))?;
    match listener.path() {
        Some(path) => open_to(path, &configured.socket)
            .map_err(|why| BindError::new(format!("{who}: listen on {listen}: {why}"))),
        None => Ok(()),
    }
}

/// The settings of an existing listener before it was adapted.
#[derive(Debug)]
pub(super) struct Before {
    keepalive: Option<Keepalive>,
    backlog: u32,
    fast_open: bool,
    /// The mode and group of a Unix socket's file.
    access: Option<(u32, u32)>,
}

impl Before {
    /// Returns the settings of a listener that was opened for `configured`.
    pub(super) fn of(listener: &Listener, configured: &config::Entrypoint) -> Self {
        Self {
            keepalive: configured.keepalive.map(Keepalive::after),
            backlog: configured.listening.backlog,
            fast_open: configured.listening.fast_open,
            access: listener.path().and_then(|path| path.access().ok()),
        }
    }

    /// Restores the settings.
    pub(super) fn restore(&self, listener: &Listener) -> io::Result<()> {
        listener.set_keepalive(self.keepalive)?;
        listener.set_backlog(self.backlog)?;
        listener.set_fast_open(self.fast_open)?;
        if let Some((path, (mode, group))) = listener.path().zip(self.access) {
            path.set_group(group)?;
            path.set_mode(mode)?;
        }
        Ok(())
    }
}

/// Sets the socket's group and mode as configured.
pub(super) fn open_to(socket: &UnixPath, access: &config::SocketAccess) -> Result<(), String> {
    if let Some(group) = &access.group {
        let Some(number) = sys::group::id(group) else {
            return Err(format!(
                "`socket_group`: there is no group `{group}`; `getent group` lists all groups"
            ));
        };
        socket.set_group(number).map_err(|error| {
            format!(
                "`socket_group`: cannot change the group to `{group}`: {error}; run coracle as a member of it (SupplementaryGroups= in the unit) or as root"
            )
        })?;
    }
    if let Some(mode) = access.mode {
        socket
            .set_mode(mode)
            .map_err(|error| format!("cannot set `socket_mode`: {error}"))?;
    }
    Ok(())
}

/// Returns what a listener actually listens on.
pub(super) fn local(listen: &Listen, listener: &Listener) -> Local {
    match (listen, listener.local_addr()) {
        (_, Some(address)) => Local::Tcp(address),
        (Listen::Tcp { address, .. }, None) => Local::Tcp(*address),
        (Listen::Unix(path), None) => Local::Unix(path.clone()),
    }
}

/// Returns the listener as an address that a connection to a server could lead back to.
pub(super) fn own(
    entrypoint: &Entrypoint,
    listen: &Listen,
    listener: &Listener,
) -> Option<OwnListener> {
    let at = match listen {
        Listen::Tcp { v6only, .. } => At::Tcp {
            address: listener.local_addr()?,
            v6only: *v6only,
        },
        Listen::Unix(path) => At::Unix {
            path: path.clone(),
            file: listener.file()?,
        },
    };
    Some(OwnListener {
        entrypoint: entrypoint.id(),
        name: entrypoint.name().to_owned(),
        at,
    })
}

fn bind_tcp(
    reactor: &Rc<Reactor>,
    address: SocketAddr,
    options: &TcpOptions,
) -> io::Result<Listener> {
    let bind = |address| Listener::bind_tcp(reactor, address, options);
    match options.v6only {
        true => bind(address),
        false => with_or_without_ipv6(address, bind),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::SocketAccess;

    #[test]
    fn each_reason_not_to_listen_has_its_remedy() {
        let tcp = "127.0.0.1:80";
        let unix = "unix:/run/a.sock";
        for (address, reuse, errno, message) in [
            (
                tcp,
                false,
                Errno::ADDRINUSE,
                "address in use: another program listens there; stop it (`ss -ltnp` shows it) or choose another port",
            ),
            (
                tcp,
                true,
                Errno::ADDRINUSE,
                "address in use: another program listens there that belongs to another user or does not share the port; stop it (`ss -ltnp` shows it) or choose another port",
            ),
            (
                unix,
                false,
                Errno::ADDRINUSE,
                "address in use: another program listens there, or the path is not a socket; remove it or choose another path",
            ),
            (
                unix,
                false,
                Errno::WOULDBLOCK,
                "{error}: another program has locked the directory (`lslocks` shows it); stop it or choose another directory",
            ),
            (
                unix,
                false,
                Errno::ACCESS,
                "permission denied: choose a directory that this user can write to",
            ),
            (
                tcp,
                false,
                Errno::ACCESS,
                "permission denied: ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port, or run as root or with the capability",
            ),
            (
                unix,
                false,
                Errno::NOENT,
                "{error}: the directory does not exist; create it",
            ),
            (
                tcp,
                false,
                Errno::ADDRNOTAVAIL,
                "{error}: this machine does not have this address; see `ip addr`",
            ),
            (
                "[::1]:80",
                false,
                Errno::AFNOSUPPORT,
                "{error}: this machine has no IPv6; use an IPv4 address, or `*` for all addresses",
            ),
            (
                tcp,
                false,
                Errno::NOSYS,
                "{error}: the kernel lacks this system call, or a sandbox forbids it; Linux 3.10 and later have it",
            ),
            (
                tcp,
                false,
                Errno::MFILE,
                "{error}: raise the limit of open files (ulimit -n, or LimitNOFILE= in the unit)",
            ),
            (
                tcp,
                false,
                Errno::NFILE,
                "{error}: out of file descriptors system-wide; raise fs.file-max",
            ),
            (tcp, false, Errno::INVAL, "{error}: check the address"),
        ] {
            let error = io::Error::from(errno);
            // In the C library's words.
            let message = message.replace("{error}", &error.to_string());
            let why = BindError::listen("entrypoint e", &address, reuse, &error);
            assert_eq!(
                why.to_string(),
                format!("entrypoint e: listen on {address}: {message}")
            );
            assert_eq!(why.is_in_use, errno == Errno::ADDRINUSE);
        }
    }

    #[test]
    fn access_that_cannot_be_set_is_reported_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let socket = UnixSocket::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let why = |group: Option<&str>, mode| {
            let group = group.map(str::to_owned);
            open_to(socket.path(), &SocketAccess { group, mode }).unwrap_err()
        };
        let gone = io::Error::from(Errno::NOENT);
        assert_eq!(
            why(None, Some(0o660)),
            format!("cannot set `socket_mode`: {gone}")
        );
        assert_eq!(
            why(Some("0"), None),
            format!(
                "`socket_group`: cannot change the group to `0`: {gone}; run coracle as a member of it (SupplementaryGroups= in the unit) or as root"
            )
        );
        assert_eq!(
            why(Some("no-such-group"), None),
            "`socket_group`: there is no group `no-such-group`; `getent group` lists all groups"
        );
    }
}
