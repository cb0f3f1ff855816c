//! A listening socket: binds it and accepts one stream per iteration of the loop, or two under
//! load.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{self, SocketAddrAny, SocketFlags};
use socket2::{Domain, Socket, Type};

use super::keepalive::Keepalive;
use super::stream::{Kind, Stream};
use super::unix_socket::{FileId, UnixPath, UnixSocket};
use crate::net::buffers::{Allowance, MemoryLimits};
use crate::net::reactor::{Reactor, Ready, Source};
use crate::sys;

/// The backlog that nobody has asked for otherwise.
const BACKLOG: u32 = 1024;

/// How many clients that came in by TCP Fast Open may not have completed the handshake. More come in
/// the ordinary way.
const FAST_OPEN: i32 = 256;

/// Consecutive busy iterations after which two connections are accepted in one.
const BUSY: u32 = 8;

/// How to listen on a TCP address.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// For `[::]`: if true, IPv4 clients are left to another listener on the same port.
    pub v6only: bool,
    /// If true, other listeners of the same user may share the address (SO_REUSEPORT). All of them
    /// must set it.
    pub reuse_port: bool,
    /// The keep-alive setting of accepted connections. `None` means no probes.
    pub keepalive: Option<Keepalive>,
    /// The network interface that clients must come in by; `None` for any.
    pub interface: Option<String>,
    /// How many connections the kernel completes before they are accepted. It caps this at
    /// `net.core.somaxconn`.
    pub backlog: u32,
    /// Whether clients may send their first bytes with their first packet.
    pub fast_open: bool,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            v6only: false,
            reuse_port: false,
            keepalive: None,
            interface: None,
            backlog: BACKLOG,
            fast_open: false,
        }
    }
}

/// A listening socket.
///
/// Accepted sockets inherit TCP_NODELAY and keep-alive from it, which saves system calls.
#[derive(Debug)]
pub struct Listener {
    source: Source,
    kind: Kind,
    address: Option<SocketAddr>,
    /// The last iteration in which a client was waiting here.
    iteration: Cell<u32>,
    /// Consecutive iterations in which a client was waiting.
    busy: Cell<u32>,
    /// The receive buffer allowance that accepted sockets inherit.
    allowance: Cell<Option<Allowance>>,
    backlog: Cell<u32>,
    fast_open: Cell<bool>,
    /// How many clients in the backlog may have arrived before the allowance was set.
    may_be_older: Cell<u32>,
    path: Option<UnixPath>,
}

impl Listener {
    /// Listens on a TCP address.
    ///
    /// The address may be one that this machine does not have yet (IP_FREEBIND). `[::]` also
    /// accepts IPv4 clients unless `v6only` is set.
    ///
    /// If several listeners share the address, the kernel assigns each new client to one of them by
    /// a hash of the addresses. When one of them closes, clients in its backlog are reset.
    ///
    /// # Errors
    /// The kernel's, such as `AddrInUse` and `PermissionDenied`.
    pub fn bind_tcp(
        reactor: &Rc<Reactor>,
        address: SocketAddr,
        options: &TcpOptions,
    ) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
        socket.set_reuse_address(true)?;
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.set_tcp_nodelay(true)?;
        if let Some(keepalive) = options.keepalive {
            keepalive.apply(&socket)?;
        }
        // If this is not permitted, binding an absent address fails below and reports it.
        let _ = match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true),
            // IPV6_FREEBIND came with Linux 4.19. Before that, the IPv4 option applied to both.
            SocketAddr::V6(_) => socket
                .set_freebind_v6(true)
                .or_else(|_| socket.set_freebind_v4(true)),
        };
        if address.is_ipv6() {
            socket.set_only_v6(options.v6only || !address.ip().is_unspecified())?;
        }
        if let Some(interface) = &options.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        if options.fast_open {
            set_fast_open(&socket, true)?;
        }
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket().or(Some(address));
        let listener = Self::listen(reactor, None, local, Kind::Tcp, socket, options.backlog)?;
        listener.fast_open.set(options.fast_open);
        Ok(listener)
    }

    /// Takes over a TCP socket of [`Inherited`](super::Inherited), including the clients in its
    /// backlog.
    ///
    /// # Errors
    /// The kernel's.
    pub fn adopt_tcp(reactor: &Rc<Reactor>, fd: OwnedFd, options: &TcpOptions) -> io::Result<Self> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match options.keepalive {
            Some(keepalive) => keepalive.apply(&socket)?,
            None => socket.set_keepalive(false)?,
        }
        // An earlier process may have set it.
        set_fast_open(&socket, options.fast_open).or_else(|error| match options.fast_open {
            true => Err(error),
            false => Ok(()),
        })?;
        let address = socket.local_addr()?.as_socket();
        let listener = Self::listen(reactor, None, address, Kind::Tcp, socket, BACKLOG)?;
        listener.fast_open.set(options.fast_open);
        // Unless it is asked for, the service manager's choice stays.
        listener.set_backlog(options.backlog)?;
        Ok(listener)
    }

    /// Listens on a Unix socket.
    ///
    /// Dropping the listener removes the path.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen_unix(reactor: &Rc<Reactor>, bound: UnixSocket, backlog: u32) -> io::Result<Self> {
        let UnixSocket { socket, path } = bound;
        Self::listen(reactor, Some(path), None, Kind::Unix, socket, backlog)
    }

    fn listen(
        reactor: &Rc<Reactor>,
        // On failure the parameters drop in reverse order, so the path drops after the socket.
        path: Option<UnixPath>,
        address: Option<SocketAddr>,
        kind: Kind,
        socket: Socket,
        backlog: u32,
    ) -> io::Result<Self> {
        // A socket that already listens may have clients and a backlog of another size.
        if !net::sockopt::socket_acceptconn(&socket)? {
            check_accept4(&socket)?;
            socket.listen(backlog.try_into().unwrap_or(i32::MAX))?;
        }
        Ok(Self {
            source: Source::listener(reactor, socket.into())?,
            kind,
            address,
            iteration: Cell::new(0),
            busy: Cell::new(0),
            allowance: Cell::new(None),
            backlog: Cell::new(backlog),
            fast_open: Cell::new(false),
            may_be_older: Cell::new(0),
            path,
        })
    }

    /// Returns the address it listens on, with the port that the kernel chose, or `None` for a Unix
    /// socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Sets the keep-alive of connections accepted from now on.
    ///
    /// `None` means no probes. Does nothing for a Unix socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()> {
        match (self.kind, keepalive) {
            (Kind::Unix, _) => Ok(()),
            (Kind::Tcp, Some(keepalive)) => keepalive.apply(&self.source),
            (Kind::Tcp, None) => Ok(net::sockopt::set_socket_keepalive(&self.source, false)?),
        }
    }

    /// Sets how many clients may wait to be accepted. Those that wait already stay.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        if self.backlog.get() != backlog {
            net::listen(&self.source, backlog.try_into().unwrap_or(i32::MAX))?;
            self.backlog.set(backlog);
        }
        Ok(())
    }

    /// Sets whether clients may send their first bytes with their first packet. Does nothing for a
    /// Unix socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_fast_open(&self, fast_open: bool) -> io::Result<()> {
        match self.kind {
            Kind::Unix => Ok(()),
            Kind::Tcp if self.fast_open.get() == fast_open => Ok(()),
            Kind::Tcp => {
                set_fast_open(&self.source, fast_open)?;
                self.fast_open.set(fast_open);
                Ok(())
            }
        }
    }

    /// Returns the path of a Unix socket, for setting its mode and group, or `None` for a TCP
    /// address.
    #[must_use]
    pub fn path(&self) -> Option<&UnixPath> {
        self.path.as_ref()
    }

    /// Returns the file of a Unix socket, or `None` for a TCP address.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        self.path.as_ref().map(UnixPath::file)
    }

    /// Waits for a connection and accepts it: [`Listener::ready`], then [`Listener::try_accept`].
    ///
    /// # Errors
    /// Those of the two.
    pub async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        loop {
            self.ready().await?;
            if let Some(accepted) = self.try_accept()? {
                return Ok(accepted);
            }
        }
    }

    /// Waits until a client may be waiting.
    ///
    /// At most two connections are accepted per iteration of the loop, so that a flood of new
    /// connections does not starve the open ones.
    ///
    /// # Errors
    /// If the kernel has no memory to watch the socket.
    pub async fn ready(&self) -> io::Result<()> {
        poll_fn(|cx| self.source.poll_ready(cx, Ready::READ)).await
    }

    /// Accepts one connection, and returns it with the client's address, which is `None` for a Unix
    /// socket.
    ///
    /// Returns `None` if no client is waiting any more.
    ///
    /// # Errors
    /// Those of accept(2). The listener stays usable: the caller decides when to retry, and mutes
    /// it until then.
    pub fn try_accept(&self) -> io::Result<Option<(Stream, Option<SocketAddr>)>> {
        let reactor = self.source.reactor();
        self.adapt(reactor.allowance());
        let before = self.iteration.replace(reactor.iterations());
        let is_second = before == reactor.iterations();
        if !is_second {
            let is_next = before.wrapping_add(1) == reactor.iterations();
            self.busy.set(if is_next {
                self.busy.get().saturating_add(1)
            } else {
                0
            });
        }
        // Level-triggered: if more clients wait, the next iteration reports it again. Under load it
        // is cheaper to try again now.
        if is_second || self.busy.get() < BUSY {
            self.source.clear(Ready::READ);
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match net::acceptfrom_with(&self.source, flags) {
            Ok((fd, peer)) => {
                self.limit_older(&fd);
                let stream = Stream::accepted(reactor, fd, self.kind);
                let peer = peer.and_then(|peer: SocketAddrAny| SocketAddr::try_from(peer).ok());
                Ok(Some((stream, peer)))
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                self.source.clear(Ready::READ);
                self.busy.set(0);
                Ok(None)
            }
            Err(error) => {
                self.source.clear(Ready::READ);
                Err(error.into())
            }
        }
    }

    /// Limits what the kernel buffers for receivers that do not read, given up to `capacity`
    /// connections.
    ///
    /// Accepted sockets inherit the limit, so it costs no system call per connection. It also
    /// applies to clients in the backlog.
    pub fn limit_unsent(&self, capacity: usize) {
        let limits = self.source.reactor().memory().limits();
        if let Some(least) = limits.allowance(capacity)
            && self.kind == Kind::Tcp
        {
            least.limit_unsent(&self.source);
        }
    }

    /// Updates the allowance that new connections inherit, if it has changed considerably.
    fn adapt(&self, allowance: Option<Allowance>) {
        let applied = self.allowance.get();
        let is_other = match (applied, allowance) {
            (None, None) => false,
            (None, Some(_)) => true,
            (Some(old), None) => old.bytes() <= MemoryLimits::DEFAULT_BYTES / 2,
            (Some(old), Some(new)) => {
                new.bytes() <= old.bytes() / 8 * 7 || new.bytes() / 2 >= old.bytes()
            }
        };
        if is_other && self.kind == Kind::Tcp {
            self.allowance.set(allowance);
            self.may_be_older.set(self.backlog.get());
            // The kernel never adapts an explicit size. It allows up to net.core.rmem_max.
            let most = Allowance::MOST;
            allowance.unwrap_or(most).limit_received(&self.source);
        }
    }

    /// Limits a connection that may have entered the backlog before its listener was limited.
    fn limit_older(&self, accepted: &OwnedFd) {
        let more = self.may_be_older.get();
        if let Some(allowance) = self.allowance.get()
            && more > 0
        {
            self.may_be_older.set(more - 1);
            allowance.limit_received(accepted);
        }
    }

    /// Stops or resumes waking for new connections, which meanwhile wait in the kernel's backlog.
    ///
    /// # Errors
    /// Only if the kernel is out of memory.
    pub fn set_muted(&self, muted: bool) -> io::Result<()> {
        self.source.set_muted(muted)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A service manager may have the same socket. Closing our descriptor would then not remove
        // it from the epoll set, and each client that waits there would wake the loop in every
        // iteration.
        self.source.unwatch();
    }
}

fn set_fast_open(socket: impl AsFd, fast_open: bool) -> io::Result<()> {
    let waiting = if fast_open { FAST_OPEN } else { 0 };
    sys::socket_option::set_tcp_fast_open(socket.as_fd(), waiting)
}

/// Fails if the kernel lacks accept4 (before 2.6.28, on ARM 2.6.36) or a sandbox forbids it.
///
/// Such a listener would let clients connect but never serve them. On a socket that does not listen
/// yet, the call cannot succeed.
fn check_accept4(socket: &Socket) -> io::Result<()> {
    match net::accept_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Err(error @ (Errno::NOSYS | Errno::PERM)) => {
            let kind = io::ErrorKind::Unsupported;
            Err(io::Error::new(kind, format!("accept4: {error}")))
        }
        _ => Ok(()),
    }
}
