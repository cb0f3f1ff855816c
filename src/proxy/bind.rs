//! Opening the listeners, and saying what to do where one cannot be had.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;

use rustix::io::Errno;

use super::hand_over::Handed;
use super::ipv6::{is_no_ipv6, with_or_without_ipv6};
use crate::config::{self, Listen};
use crate::conn::{At, OwnListener, Route};
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
    fn new(text: String) -> Self {
        let is_in_use = false;
        Self { text, is_in_use }
    }

    pub(super) fn reactor(error: io::Error) -> Self {
        Self::new(format!(
            "cannot set up epoll: {error}; raise the limit of open files (ulimit -n)"
        ))
    }

    pub(super) fn names(error: io::Error) -> Self {
        Self::thread("the look-ups of servers' names", &error)
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

    pub(super) fn no_descriptors(limit: usize) -> Self {
        Self::new(format!(
            "the limit of {limit} open files leaves no room for a connection; raise it (ulimit -n, or LimitNOFILE= in the unit)"
        ))
    }

    pub(super) fn no_memory(limit: String) -> Self {
        Self::new(format!(
            "the memory limit of {limit} of the control group leaves no room for a connection; raise it (MemoryMax= in the unit)"
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
                "another program listens there, or the path is no socket; remove it or choose another"
            }
            AddrInUse if reuse => {
                "another program listens there that is of another user or does not share the port; stop it (`ss -ltnp` names it) or choose another port"
            }
            AddrInUse => {
                "another program listens there; stop it (`ss -ltnp` names it) or choose another port"
            }
            WouldBlock if is_unix => {
                "another program keeps the directory locked (`lslocks` names it); stop it, or choose another directory"
            }
            PermissionDenied if is_unix => "choose a directory that this user may write to",
            PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port, or run as root or with the capability"
            }
            NotFound => "the directory does not exist; create it",
            AddrNotAvailable => "this machine has no such address; `ip addr` lists those it has",
            _ if is_no_ipv6(error) && !is_unix => {
                "this machine has no IPv6; give an IPv4 address, or `*` for all"
            }
            Unsupported => {
                "the kernel lacks this call, or a sandbox forbids it; Linux 3.10 or later has it"
            }
            _ if errno == Some(Errno::MFILE) => {
                "raise the limit of open files (ulimit -n, or LimitNOFILE= in the unit)"
            }
            _ if errno == Some(Errno::NFILE) => {
                "the system has no descriptor left: raise fs.file-max"
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

/// Opens one listener of an entrypoint, or goes on with the socket that was handed over for it.
pub(super) fn entrypoint(
    reactor: &Rc<Reactor>,
    configured: &config::Entrypoint,
    listen: &Listen,
    handed: Option<Handed>,
) -> Result<Listener, BindError> {
    let who = format!("entrypoint {}", configured.name);
    let failed = |error: &_| BindError::listen(&who, listen, configured.reuse_port, error);
    let listener = match (listen, handed.map(|handed| handed.fd)) {
        (Listen::Tcp { address, v6only }, handed) => {
            let options = TcpOptions {
                v6only: *v6only,
                reuse_port: configured.reuse_port,
                keepalive: configured.keepalive.map(Keepalive::after),
            };
            let listener = match handed {
                Some(fd) => Listener::adopt_tcp(reactor, fd, options.keepalive),
                None => bind_tcp(reactor, *address, options),
            };
            listener.map_err(|error| failed(&error))?
        }
        (Listen::Unix(path), handed) => {
            let inherited = handed.map(|fd| UnixSocket::inherited(fd, path));
            let socket = match inherited {
                Some(Ok(socket)) => socket,
                // Its path has been removed, so that nobody can connect to it.
                Some(Err(_)) | None => UnixSocket::bind(path).map_err(|error| failed(&error))?,
            };
            open_to(socket.path(), &configured.socket)
                .map_err(|why| BindError::new(format!("{who}: listen on {listen}: {why}")))?;
            Listener::listen_unix(reactor, socket).map_err(|error| failed(&error))?
        }
    };
    Ok(listener)
}

/// Says where it listens and where connections go, each name once: a forward's entrypoint is named by its address, and the
/// service of a `to` by its entrypoint.
pub(super) fn log_listening(listen: &Listen, route: &Route, listener: &Listener, inherited: bool) {
    const SERVERS: usize = 8;
    let address = listener.local_addr();
    let at = address.map_or_else(|| listen.to_string(), |address| address.to_string());
    let (name, service) = (route.entrypoint.name(), route.service.name.as_str());
    let entrypoint = (name != at).then_some(name);
    let service_name = (name != service).then_some(service);
    let servers = route.targets.iter().take(SERVERS);
    let servers: Vec<_> = servers.map(|it| it.server.name()).collect();
    let mut to = servers.join(",");
    if let more @ 1.. = route.targets.len().saturating_sub(SERVERS) {
        to.push_str(&format!(" and {more} more"));
    }
    log::info!(target: "setup", entrypoint, address = at.as_str(), service = service_name, to,
        inherited = inherited.then_some(true); "listening");
    if let Some(ip) = address.map(|address| address.ip()).filter(is_absent) {
        log::warn!(target: "setup", entrypoint = name;
            "this machine does not have the address {ip} yet; connections arrive when it does");
    }
}

/// Whether no interface has this address: without IP_FREEBIND it cannot be bound. An address of all interfaces can.
fn is_absent(ip: &IpAddr) -> bool {
    let bound = UdpSocket::bind((*ip, 0));
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Gives a listener that is there the keep-alive, mode and group of another configuration.
pub(super) fn adapt(
    listener: &Listener,
    configured: &config::Entrypoint,
    listen: &Listen,
) -> Result<(), BindError> {
    let who = format!("entrypoint {}", configured.name);
    let keepalive = configured.keepalive.map(Keepalive::after);
    listener.set_keepalive(keepalive).map_err(|error| {
        BindError::new(format!("{who}: listen on {listen}: keepalive: {error}"))
    })?;
    match listener.path() {
        Some(path) => open_to(path, &configured.socket)
            .map_err(|why| BindError::new(format!("{who}: listen on {listen}: {why}"))),
        None => Ok(()),
    }
}

/// What a listener that is there had before it was adapted.
#[derive(Debug)]
pub(super) struct Before {
    keepalive: Option<Keepalive>,
    /// The mode and group of a Unix socket's file.
    access: Option<(u32, u32)>,
}

impl Before {
    /// What a listener has that was opened for `configured`.
    pub(super) fn of(listener: &Listener, configured: &config::Entrypoint) -> Self {
        Self {
            keepalive: configured.keepalive.map(Keepalive::after),
            access: listener.path().and_then(|path| path.access().ok()),
        }
    }

    /// Gives it that again.
    pub(super) fn restore(&self, listener: &Listener) -> io::Result<()> {
        listener.set_keepalive(self.keepalive)?;
        if let Some((path, (mode, group))) = listener.path().zip(self.access) {
            path.set_group(group)?;
            path.set_mode(mode)?;
        }
        Ok(())
    }
}

/// Lets in whom the configuration says.
pub(super) fn open_to(socket: &UnixPath, access: &config::SocketAccess) -> Result<(), String> {
    if let Some(group) = &access.group {
        let Some(number) = sys::group::id(group) else {
            return Err(format!(
                "there is no group `{group}` for `socket_group`; `getent group` lists them"
            ));
        };
        socket.set_group(number).map_err(|error| {
            format!(
                "the socket cannot be given to the group `{group}`: {error}; this takes a member of it (SupplementaryGroups= in the unit), or root"
            )
        })?;
    }
    if let Some(mode) = access.mode {
        socket
            .set_mode(mode)
            .map_err(|error| format!("`socket_mode` cannot be set: {error}"))?;
    }
    Ok(())
}

/// What a listener really listens on.
pub(super) fn local(listen: &Listen, listener: &Listener) -> Local {
    match (listen, listener.local_addr()) {
        (_, Some(address)) => Local::Tcp(address),
        (Listen::Tcp { address, .. }, None) => Local::Tcp(*address),
        (Listen::Unix(path), None) => Local::Unix(path.clone()),
    }
}

/// The same, as a place where a connection to a server could lead.
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
    options: TcpOptions,
) -> io::Result<Listener> {
    let bind = |address| Listener::bind_tcp(reactor, address, options);
    match options.v6only {
        true => bind(address),
        false => with_or_without_ipv6(address, bind),
    }
}
