//! A listening socket: how it is bound, and one accepted stream per iteration of the loop, or two.

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

/// Connections that the kernel completes before they are accepted; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// After so many iterations in a row in which somebody waited, two are accepted in one.
const BUSY: u32 = 8;

/// How to listen on a TCP address.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpOptions {
    /// For `[::]`: whether IPv4 clients are left to another listener of the same port.
    pub v6only: bool,
    /// Whether other listeners of the same user may have the same address (SO_REUSEPORT). All of them need it.
    pub reuse_port: bool,
    /// The keep-alive of what is accepted; `None`: no probes.
    pub keepalive: Option<Keepalive>,
}

/// A listening socket. What it accepts inherits TCP_NODELAY and keep-alive from it, which saves a call each.
#[derive(Debug)]
pub struct Listener {
    source: Source,
    kind: Kind,
    address: Option<SocketAddr>,
    /// The last iteration in which somebody waited here.
    iteration: Cell<u32>,
    /// Iterations in a row in which somebody did.
    busy: Cell<u32>,
    /// What those who are accepted may buffer of what they send.
    allowance: Cell<Option<Allowance>>,
    /// Those who wait may have come before that was so.
    may_be_older: Cell<i32>,
    path: Option<UnixPath>,
}

impl Listener {
    /// Listens on a TCP address. An address that this machine does not have yet is taken all the same (IP_FREEBIND), and
    /// `[::]` takes IPv4 clients too, unless `v6only`.
    ///
    /// Where several listeners share the address, the kernel hands each new client to one of them by a hash of the addresses.
    /// What waits in the backlog of one that closes is reset.
    ///
    /// # Errors
    /// The kernel's, such as `AddrInUse` and `PermissionDenied`.
    pub fn bind_tcp(
        reactor: &Rc<Reactor>,
        address: SocketAddr,
        options: TcpOptions,
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
        // Where it is not allowed, binding an absent address fails below, and says so.
        let _ = match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true),
            // IPV6_FREEBIND came with Linux 4.19; before it the option of IPv4 held for both.
            SocketAddr::V6(_) => socket
                .set_freebind_v6(true)
                .or_else(|_| socket.set_freebind_v4(true)),
        };
        if address.is_ipv6() {
            socket.set_only_v6(options.v6only || !address.ip().is_unspecified())?;
        }
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket().or(Some(address));
        Self::listen(reactor, None, local, Kind::Tcp, socket)
    }

    /// Takes over a TCP socket of [`Inherited`](super::Inherited), with the clients in its backlog.
    ///
    /// # Errors
    /// The kernel's.
    pub fn adopt_tcp(
        reactor: &Rc<Reactor>,
        fd: OwnedFd,
        keepalive: Option<Keepalive>,
    ) -> io::Result<Self> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match keepalive {
            Some(keepalive) => keepalive.apply(&socket)?,
            None => socket.set_keepalive(false)?,
        }
        let address = socket.local_addr()?.as_socket();
        Self::listen(reactor, None, address, Kind::Tcp, socket)
    }

    /// Listens on a Unix socket. Its path is removed when the listener is dropped.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen_unix(reactor: &Rc<Reactor>, bound: UnixSocket) -> io::Result<Self> {
        let UnixSocket { socket, path } = bound;
        Self::listen(reactor, Some(path), None, Kind::Unix, socket)
    }

    fn listen(
        reactor: &Rc<Reactor>,
        // Dropped after the socket, the last of these, if this fails.
        path: Option<UnixPath>,
        address: Option<SocketAddr>,
        kind: Kind,
        socket: Socket,
    ) -> io::Result<Self> {
        // One that listens already may have a backlog of another's choice, and clients in it.
        if !net::sockopt::socket_acceptconn(&socket)? {
            check_accept4(&socket)?;
            socket.listen(BACKLOG)?;
        }
        Ok(Self {
            source: Source::listener(reactor, socket.into())?,
            kind,
            address,
            iteration: Cell::new(0),
            busy: Cell::new(0),
            allowance: Cell::new(None),
            may_be_older: Cell::new(0),
            path,
        })
    }

    /// The address it listens on, with the port that the kernel chose; `None` for a Unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Sets the keep-alive of what is accepted from now on; `None`: no probes. Nothing on a Unix socket.
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

    /// The path of a Unix socket, by which its mode and group are set; `None` for a TCP address.
    #[must_use]
    pub fn path(&self) -> Option<&UnixPath> {
        self.path.as_ref()
    }

    /// The file of a Unix socket; `None` for a TCP address.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        self.path.as_ref().map(UnixPath::file)
    }

    /// Accepts one connection as soon as there is one: [`Listener::ready`], then [`Listener::try_accept`].
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

    /// Waits until somebody waits to be accepted, as far as is known. At most two are accepted per iteration of the loop, so that a flood of
    /// new connections does not starve the open ones.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub async fn ready(&self) -> io::Result<()> {
        poll_fn(|cx| self.source.poll_ready(cx, Ready::READ)).await
    }

    /// Accepts one connection; `None` if nobody waits any more. With it comes the client's address; `None` for a Unix socket.
    ///
    /// # Errors
    /// Those of accept(2). The listener lives on: the caller decides when to try again, and mutes it until then.
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
        // Level-triggered: the next iteration reports it again if more are waiting. Under load another try now is cheaper.
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

    /// Limits what the kernel keeps for receivers that do not read, if there may be up to `capacity` connections. What is accepted inherits it,
    /// so that it costs no call per connection, and it holds for those who wait in the backlog, too.
    pub fn limit_unsent(&self, capacity: usize) {
        let limits = self.source.reactor().memory().limits();
        if let Some(least) = limits.allowance(capacity)
            && self.kind == Kind::Tcp
        {
            least.limit_unsent(&self.source);
        }
    }

    /// Has those who come from now on inherit what they may buffer, if it has changed a good deal.
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
            self.may_be_older.set(BACKLOG);
            // The kernel does not adapt what was set once; it allows as much as net.core.rmem_max.
            let most = Allowance::MOST;
            allowance.unwrap_or(most).limit_received(&self.source);
        }
    }

    /// Limits one that may have come to wait before its listener was limited.
    fn limit_older(&self, accepted: &OwnedFd) {
        let more = self.may_be_older.get();
        if let Some(allowance) = self.allowance.get()
            && more > 0
        {
            self.may_be_older.set(more - 1);
            allowance.limit_received(accepted);
        }
    }

    /// Stops waking for new connections, which wait in the kernel's backlog, or goes on.
    ///
    /// # Errors
    /// Only if the kernel has no memory left.
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
        // A service manager may have the same socket: closing our descriptor would not take it out of the epoll set, and
        // each client that waits there would wake the loop in every iteration.
        self.source.unwatch();
    }
}

/// Fails where the kernel has no accept4 (before 2.6.28, on ARM 2.6.36) or a sandbox forbids it: such a listener would let clients in and never
/// serve one. On a socket that does not listen yet the call cannot succeed.
fn check_accept4(socket: &Socket) -> io::Result<()> {
    match net::accept_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Err(error @ (Errno::NOSYS | Errno::PERM)) => {
            let kind = io::ErrorKind::Unsupported;
            Err(io::Error::new(kind, format!("accept4: {error}")))
        }
        _ => Ok(()),
    }
}
