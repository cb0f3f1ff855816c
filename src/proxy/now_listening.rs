//! Logs the listeners that were just opened.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;

use crate::config::Listen;
use crate::conn::Route;
use crate::net::Listener;

/// The listeners that were just opened. Logs them when dropped, those of one range in one line.
#[derive(Default)]
pub(super) struct NowListening(Vec<Opened>);

struct Opened {
    /// The address, with the first port.
    at: String,
    address: Option<SocketAddr>,
    last: u16,
    is_of_range: bool,
    route: Rc<Route>,
    inherited: bool,
}

impl NowListening {
    /// Adds one listener. The ports of a range come in order.
    pub(super) fn add(
        &mut self,
        listen: &Listen,
        is_of_range: bool,
        route: &Rc<Route>,
        listener: &Listener,
        inherited: bool,
    ) {
        let address = listener.local_addr();
        if let (true, Some(before), Some(address)) = (is_of_range, self.0.last_mut(), address)
            && before.address.is_some_and(|it| it.ip() == address.ip())
            && before.last.checked_add(1) == Some(address.port())
            && before.is_of_range
            && Rc::ptr_eq(&before.route, route)
            && before.inherited == inherited
        {
            before.last = address.port();
            return;
        }
        self.0.push(Opened {
            at: address.map_or_else(|| listen.to_string(), |address| address.to_string()),
            address,
            last: address.map_or(0, |it| it.port()),
            is_of_range,
            route: route.clone(),
            inherited,
        });
    }
}

impl Drop for NowListening {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Opened::log);
    }
}

impl Opened {
    /// Logs where listeners listen and where their connections go, without repeating a name: a
    /// forward's entrypoint is named after its address, and the service of a `to` after its
    /// entrypoint.
    fn log(self) {
        const SERVERS: usize = 8;
        let (mut at, route) = (self.at, self.route);
        if let Some(first) = self.address.filter(|it| it.port() != self.last) {
            at = format!("{first}-{}", self.last);
        }
        let name = route.entrypoint.name();
        let entrypoint = (name != at).then_some(name);
        let service = route.to.as_ref().map(|to| &*to.branch.service.name);
        let service_name = service.filter(|service| name != *service);
        let targets = route.to.as_ref().map(|to| to.pool.get());
        let targets = targets.as_deref().unwrap_or_default();
        let routes = route.rules.as_ref().map(|rules| rules.rules.len());
        let servers = targets.iter().take(SERVERS);
        let servers: Vec<_> = servers.map(|it| it.address.to_string()).collect();
        let mut to = servers.join(",");
        if let more @ 1.. = targets.len().saturating_sub(SERVERS) {
            to.push_str(&format!(" and {more} more"));
        }
        log::info!(target: "setup", entrypoint, address = at.as_str(), service = service_name, to, routes,
            inherited = self.inherited.then_some(true); "listening");
        if let Some(ip) = self.address.map(|address| address.ip()).filter(is_absent) {
            log::warn!(target: "setup", entrypoint = name;
                "this machine does not have the address {ip} yet; connections arrive once it does");
        }
    }
}

/// Returns whether no interface has this address, so that it cannot be bound without IP_FREEBIND.
/// The wildcard address can always be bound.
fn is_absent(ip: &IpAddr) -> bool {
    let bound = UdpSocket::bind((*ip, 0));
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}
