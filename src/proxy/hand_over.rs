//! Hands listening sockets from one process to the next: which of them are used, and which the
//! service manager keeps.

use std::os::fd::OwnedFd;

use super::ipv6::effective;
use super::notify::{KEPT, Manager};
use super::tcp_options::options;
use crate::config::{Config, Entrypoint, Listen};
use crate::net::Inherited;

/// A socket that was handed over to this process.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) fd: OwnedFd,
    /// Whether the service manager had it from an earlier process.
    pub(super) from_us: bool,
}

/// The sockets for the listeners of a configuration, in its order.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    sorted: std::vec::IntoIter<Option<Handed>>,
}

impl HandOver {
    /// Assigns the sockets that were handed over to the listeners of `config`.
    ///
    /// Sockets that no listener uses any more are closed, in the service manager too, because a new
    /// listener may need their addresses.
    pub(super) fn new(config: &Config, mut inherited: Inherited, manager: &Manager) -> Self {
        let mut sorted = Vec::new();
        if !inherited.is_empty() {
            for entrypoint in &config.entrypoints {
                let listens = entrypoint.listen.iter().flat_map(Listen::each);
                sorted.extend(listens.map(|listen| take(&mut inherited, entrypoint, &listen)));
            }
            close(inherited, manager);
        }
        Self {
            sorted: sorted.into_iter(),
        }
    }

    /// Returns the socket for the next listener.
    pub(super) fn next(&mut self) -> Option<Handed> {
        self.sorted.next().flatten()
    }
}

/// Returns whether the service manager should keep a listener's socket for the next process.
pub(super) fn is_worth_keeping(
    configured: &Entrypoint,
    listen: &Listen,
    handed: Option<&Handed>,
) -> bool {
    // A port chosen by the kernel cannot be found again. With `reuse_port`, another process may
    // serve meanwhile, and a socket on which nothing accepts would take clients from it. A manager
    // that opened the socket for us (systemd's socket units) has it anyway.
    let is_found = !matches!(listen, Listen::Tcp { address, .. } if address.port() == 0);
    is_found && !configured.reuse_port && handed.is_none_or(|handed| handed.from_us)
}

fn take(inherited: &mut Inherited, entrypoint: &Entrypoint, listen: &Listen) -> Option<Handed> {
    let found = match listen {
        Listen::Tcp {
            address, v6only, ..
        } => {
            let options = options(entrypoint, *v6only);
            let address = match v6only {
                true => *address,
                false => effective(*address),
            };
            inherited.tcp(address, &options)
        }
        Listen::Unix(path) => inherited.unix(path),
    };
    found.map(|it| Handed {
        fd: it.fd,
        from_us: it.name == KEPT,
    })
}

fn close(mut left: Inherited, manager: &Manager) {
    let mut forgets = false;
    for (address, name) in left.close() {
        let address = address.as_str();
        if name == KEPT {
            forgets = true;
            log::info!(target: "setup", address; "no entrypoint listens here any more");
        } else {
            log::warn!(target: "setup", address, socket = name.as_str();
                "no entrypoint listens on this socket, which the service manager opened; ignoring it; add an entrypoint with this address, or remove it from the socket unit");
        }
    }
    if forgets {
        manager.forget();
    }
}
