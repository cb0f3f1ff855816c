//! Connects to a server: tries each address once, by Happy Eyeballs (RFC 8305), until one answers
//! or the deadline passes.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::origin;
use crate::net::reactor::{Reactor, Sleep};
use crate::net::socket::{EarlyData, Keepalive, Stream};
use crate::state::Outgoing;

/// How long an address is tried alone before the next one starts (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// How to dial.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    /// When to give up.
    pub deadline: Instant,
    /// The keep-alive setting of the new connection.
    pub keepalive: Option<Keepalive>,
    /// How the connection leaves this machine, if that is not left to the kernel.
    pub outgoing: Option<&'a Outgoing>,
    /// The address of the client that it is for, if it has one.
    pub client: Option<IpAddr>,
}

/// Connects to the first of `ips` that answers on `port`.
///
/// Address families alternate, starting with that of the first address. Each address gets a short
/// head start before the next one is tried in parallel. What is in `early_data` is sent together
/// with the connection attempt if possible.
///
/// # Errors
/// If all attempts fail: an error that means a lack of room ([`Lack::of`]) if there was one,
/// because a later retry can succeed; otherwise the last error. `TimedOut` at the deadline.
pub async fn dial_tcp(
    reactor: &Rc<Reactor>,
    ips: &[IpAddr],
    port: u16,
    dial: Dial<'_>,
    early_data: &EarlyData<'_>,
) -> io::Result<Stream> {
    let mut race = Race {
        reactor,
        dial,
        early_data,
        winner: None,
        waiting: interleaved(ips, port),
        running: Vec::new(),
        lack: None,
        error: None,
        timer: reactor.sleep_until(dial.deadline),
    };
    race.start_next();
    poll_fn(|cx| race.poll(cx)).await
}

struct Race<'a> {
    reactor: &'a Rc<Reactor>,
    dial: Dial<'a>,
    early_data: &'a EarlyData<'a>,
    /// The attempt that has accepted the early data.
    winner: Option<Stream>,
    waiting: VecDeque<SocketAddr>,
    running: Vec<(SocketAddr, Stream)>,
    /// The last error that means a lack of room.
    lack: Option<io::Error>,
    /// The last other error.
    error: Option<io::Error>,
    /// Fires when the next address is due or it is time to give up.
    timer: Sleep,
}

impl Race<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        loop {
            if let Some(stream) = self.winner.take().or_else(|| self.poll_running(cx)) {
                return Poll::Ready(Ok(stream));
            }
            if self.early_data.is_broken() {
                return Poll::Pending;
            }
            if self.running.is_empty() {
                if self.waiting.is_empty() {
                    return Poll::Ready(Err(self.failure()));
                }
                self.start_next();
                continue;
            }
            if Pin::new(&mut self.timer).poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.reactor.now() >= self.dial.deadline {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.start_next();
        }
    }

    /// Returns the first successful attempt.
    ///
    /// Removes failed ones.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> Option<Stream> {
        let mut i = 0;
        while let Some((_, stream)) = self.running.get(i) {
            match stream.poll_connected(cx) {
                Poll::Pending => i += 1,
                Poll::Ready(connected) => {
                    let (address, stream) = self.running.swap_remove(i);
                    match connected {
                        Ok(()) => return Some(stream),
                        Err(error) => self.failed(address, error),
                    }
                }
            }
        }
        None
    }

    /// Starts to connect to the next address for which that is possible.
    fn start_next(&mut self) {
        while let Some(address) = self.waiting.pop_front() {
            match self.start(address) {
                Ok(()) => break,
                Err(error) => self.failed(address, error),
            }
        }
        let next = match self.waiting.is_empty() {
            false => self.reactor.now() + HEAD_START,
            true => self.dial.deadline,
        };
        self.timer.reset(next.min(self.dial.deadline));
    }

    fn start(&mut self, address: SocketAddr) -> io::Result<()> {
        let Dial {
            keepalive,
            outgoing,
            client,
            ..
        } = self.dial;
        let start = || match outgoing {
            None => Stream::start_tcp(self.reactor, address, keepalive),
            Some(it) => Stream::start_outgoing(self.reactor, address, keepalive, it, client),
        };
        // Only a loopback connection is established by the time connect(2) returns.
        let started = match address.ip().is_loopback() {
            true => self.early_data.offer(start)?,
            false => Some((start()?, false)),
        };
        match started {
            Some((stream, true)) => self.winner = Some(stream),
            Some((stream, false)) => self.running.push((address, stream)),
            // The client is gone. The code that dials for it learns this in the same loop
            // iteration.
            None => {}
        }
        Ok(())
    }

    fn failed(&mut self, address: SocketAddr, error: io::Error) {
        if is_without_source(address, &error) {
            let text = match address {
                SocketAddr::V4(_) => "this machine has no IPv4 address to reach the server from",
                SocketAddr::V6(_) => "this machine has no IPv6 address to reach the server from",
            };
            self.error = Some(io::Error::new(io::ErrorKind::NetworkUnreachable, text));
        } else if Lack::of(&error).is_some() {
            self.lack = Some(error);
        } else {
            self.error = Some(error);
        }
    }

    fn failure(&mut self) -> io::Error {
        let no_address = || io::Error::new(io::ErrorKind::NotFound, "no address");
        let error = self.lack.take().or_else(|| self.error.take());
        error.unwrap_or_else(no_address)
    }
}

/// Why a connection cannot start now.
///
/// The shortage ends when something else frees the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// File descriptors, which every connection needs.
    Descriptors,
    /// A Unix listener's backlog, local ports towards a server, or memory.
    Room,
}

impl Lack {
    /// Returns what is lacking according to this error, if anything.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::MFILE | Errno::NFILE => Some(Self::Descriptors),
            Errno::ADDRNOTAVAIL | Errno::AGAIN | Errno::NOMEM | Errno::NOBUFS => Some(Self::Room),
            _ => None,
        }
    }
}

/// Returns true if this machine has no source address at all for `address`.
///
/// EADDRNOTAVAIL means either that all local ports are taken, which is temporary, or that there is
/// no such address, as for `[::1]` where IPv6 is disabled. Datagram sockets have their own ports,
/// so only the second case affects them.
fn is_without_source(address: SocketAddr, error: &io::Error) -> bool {
    let is_not_available =
        |error: &io::Error| Errno::from_io_error(error) == Some(Errno::ADDRNOTAVAIL);
    is_not_available(error) && origin::towards(address).is_err_and(|error| is_not_available(&error))
}

/// Returns the addresses with alternating families, each family in its original order (RFC 8305,
/// section 4).
fn interleaved(ips: &[IpAddr], port: u16) -> VecDeque<SocketAddr> {
    let first_is_v4 = ips.first().is_some_and(IpAddr::is_ipv4);
    let mut first = ips.iter().filter(|ip| ip.is_ipv4() == first_is_v4);
    let mut second = ips.iter().filter(|ip| ip.is_ipv4() != first_is_v4);
    let mut mixed = VecDeque::with_capacity(ips.len());
    loop {
        let before = mixed.len();
        mixed.extend(first.next().map(|ip| SocketAddr::new(*ip, port)));
        mixed.extend(second.next().map(|ip| SocketAddr::new(*ip, port)));
        if mixed.len() == before {
            return mixed;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::interleaved;

    #[test]
    fn families_alternate_from_the_first() {
        let ips =
            ["::1", "::2", "::3", "10.0.0.1"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
        let order: Vec<_> = interleaved(&ips, 1)
            .iter()
            .map(|a| a.ip().to_string())
            .collect();
        assert_eq!(order, ["::1", "10.0.0.1", "::2", "::3"]);
    }

    proptest! {
        #[test]
        fn order_loses_no_address_and_alternates_while_both_families_last(
            ips in vec(any::<IpAddr>(), 0..20),
            port in any::<u16>(),
        ) {
            let order = interleaved(&ips, port);
            prop_assert!(order.iter().all(|address| address.port() == port));
            let order: Vec<_> = order.iter().map(|address| address.ip()).collect();
            prop_assert_eq!(order.first(), ips.first());
            let of = |ips: &[IpAddr], is_v4: bool| -> Vec<IpAddr> {
                ips.iter().copied().filter(|ip| ip.is_ipv4() == is_v4).collect()
            };
            for is_v4 in [true, false] {
                prop_assert_eq!(of(&order, is_v4), of(&ips, is_v4));
            }
            let alternating = 2 * of(&ips, true).len().min(of(&ips, false).len());
            for pair in order[..alternating].windows(2) {
                prop_assert_ne!(pair[0].is_ipv4(), pair[1].is_ipv4());
            }
        }
    }
}
