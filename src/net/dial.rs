//! Connecting to a server: all its addresses, by Happy Eyeballs (RFC 8305), until one answers or the deadline passes.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::keepalive::Keepalive;
use super::opening::Opening;
use super::reactor::Reactor;
use super::sleep::Sleep;
use super::stream::Stream;

/// The head start of one address before the next is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// The wait before another try when the process or the other side has no room at this moment.
const ROOM_RETRY: Duration = Duration::from_millis(50);

/// How to dial.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    /// When to give up.
    pub deadline: Instant,
    /// The keep-alive of the connection made.
    pub keepalive: Option<Keepalive>,
}

/// Connects to the first of `ips` that answers on `port`. The families alternate, beginning with the first address's; each
/// address has a short head start before the next is tried beside it. What is in `opening` is sent where that can be done at once.
///
/// # Errors
/// The last attempt's error when all have failed, or `TimedOut` at the deadline.
pub async fn dial_tcp(
    reactor: &Rc<Reactor>,
    ips: &[IpAddr],
    port: u16,
    dial: Dial,
    opening: &Opening<'_>,
) -> io::Result<Stream> {
    let mut race = Race {
        reactor,
        dial,
        opening,
        winner: None,
        waiting: interleaved(ips, port),
        running: Vec::new(),
        error: None,
        retry: None,
        timer: reactor.sleep_until(dial.deadline),
    };
    race.start_next();
    poll_fn(|cx| race.poll(cx)).await
}

/// Connects to the Unix socket at `path`, waiting while its listener's backlog is full.
///
/// # Errors
/// The kernel's, or `TimedOut` at the deadline.
pub async fn dial_unix(reactor: &Rc<Reactor>, path: &Path, dial: Dial) -> io::Result<Stream> {
    loop {
        match Stream::connect_unix(reactor, path) {
            Err(error) if is_lack_of_room(&error) => {
                if reactor.now() >= dial.deadline {
                    return Err(error);
                }
                reactor.sleep(ROOM_RETRY).await;
            }
            connected => return connected,
        }
    }
}

struct Race<'a> {
    reactor: &'a Rc<Reactor>,
    dial: Dial,
    opening: &'a Opening<'a>,
    /// One that has taken the opening.
    winner: Option<Stream>,
    waiting: VecDeque<SocketAddr>,
    running: Vec<Stream>,
    error: Option<io::Error>,
    /// An address that could not even be tried for lack of descriptors or ports.
    retry: Option<SocketAddr>,
    /// Ends at the next thing to do: another address, another try, or giving up.
    timer: Sleep,
}

impl Race<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        loop {
            if let Some(stream) = self.winner.take().or_else(|| self.poll_running(cx)) {
                return Poll::Ready(Ok(stream));
            }
            if self.running.is_empty() && self.retry.is_none() {
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
                return Poll::Ready(Err(match self.retry {
                    Some(_) => self.failure(),
                    None => io::ErrorKind::TimedOut.into(),
                }));
            }
            self.start_next();
        }
    }

    /// The first attempt that has succeeded. Those that have failed are taken out.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> Option<Stream> {
        let mut i = 0;
        while let Some(stream) = self.running.get(i) {
            match stream.poll_connected(cx) {
                Poll::Pending => i += 1,
                Poll::Ready(Ok(())) => return Some(self.running.swap_remove(i)),
                Poll::Ready(Err(error)) => {
                    self.error = Some(error);
                    self.running.swap_remove(i);
                }
            }
        }
        None
    }

    fn start_next(&mut self) {
        while let Some(address) = self.retry.take().or_else(|| self.waiting.pop_front()) {
            match self.start(address) {
                Ok(()) => break,
                Err(error) if is_lack_of_room(&error) => {
                    self.retry = Some(address);
                    self.error = Some(error);
                    break;
                }
                Err(error) => self.error = Some(error),
            }
        }
        let next = match (&self.retry, self.waiting.is_empty()) {
            (Some(_), _) => self.reactor.now() + ROOM_RETRY,
            (None, false) => self.reactor.now() + HEAD_START,
            (None, true) => self.dial.deadline,
        };
        self.timer.reset(next.min(self.dial.deadline));
    }

    fn start(&mut self, address: SocketAddr) -> io::Result<()> {
        let stream = Stream::start_tcp(self.reactor, address, self.dial.keepalive)?;
        // Elsewhere the answer is still under way.
        if address.ip().is_loopback() && self.opening.offer(&stream)? {
            self.winner = Some(stream);
        } else {
            self.running.push(stream);
        }
        Ok(())
    }

    fn failure(&mut self) -> io::Error {
        let no_address = || io::Error::new(io::ErrorKind::NotFound, "no address");
        self.error.take().unwrap_or_else(no_address)
    }
}

/// True for errors that pass when something else lets go: descriptors, memory, local ports, a Unix listener's backlog.
fn is_lack_of_room(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lack = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
    ];
    Errno::from_io_error(error).is_some_and(|errno| lack.contains(&errno))
}

/// The addresses with their families alternating, each family in its own order (RFC 8305, section 4).
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
    use super::interleaved;
    use std::net::IpAddr;

    #[test]
    fn families_alternate_beginning_with_the_first() {
        let ips =
            ["::1", "::2", "::3", "10.0.0.1"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
        let order: Vec<_> = interleaved(&ips, 1)
            .iter()
            .map(|a| a.ip().to_string())
            .collect();
        assert_eq!(order, ["::1", "10.0.0.1", "::2", "::3"]);
    }
}
