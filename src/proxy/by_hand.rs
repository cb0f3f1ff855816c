//! Orders for one server: finds it, obeys, and says what has changed.

use super::ground::Ground;
use super::running::Running;
use crate::config::{did_you_mean, printable};
use crate::conn;
use crate::state::{AdminState, Server};

/// Puts a server of the configuration in force into another state. Returns what has changed.
///
/// # Errors
/// Returns a message if the configuration has no such service or server.
pub(super) fn order(
    ground: &Ground,
    running: &Running,
    service: &str,
    server: &str,
    state: AdminState,
    by: &str,
) -> Result<String, String> {
    let services = || running.config.services.iter();
    let Some(configured) = services().find(|it| it.name == service) else {
        let meant = did_you_mean(service, services().map(|it| it.name.as_str()));
        let meant = or(meant, "; `coracle status` lists the services");
        let service = printable(service);
        return Err(format!("coracle: unknown service `{service}`{meant}"));
    };
    let mut targets = running.targets().map(|it| &it.server);
    let found = targets.find(|it| *it.service.name == *service && it.name() == server);
    let Some(found) = found else {
        let labels: Vec<String> = configured.servers.iter().map(|it| it.label()).collect();
        let meant = did_you_mean(server, labels.iter().map(String::as_str));
        let meant = or(meant, "; `coracle status` lists its servers");
        let (service, server) = (printable(service), printable(server));
        return Err(format!(
            "coracle: service `{service}` has no server `{server}`{meant}"
        ));
    };
    let (service, name) = (&*found.service.name, found.name());
    log::info!(service, server = name, by; "ordered: {state}");
    let closed = conn::order(&ground.shared.conns, found, state, ground.reactor.now());
    Ok(answer(found, state, closed))
}

fn or(meant: String, otherwise: &str) -> String {
    match meant.is_empty() {
        true => otherwise.to_owned(),
        false => meant,
    }
}

/// Says what the order has changed, such as `server 10.0.0.1:80 of service web: drain; 3
/// connections continue`.
fn answer(server: &Server, state: AdminState, closed: usize) -> String {
    let (service, name) = (printable(&server.service.name), printable(server.name()));
    let then = match (state, closed, server.open.len()) {
        (AdminState::Ready, ..) => match server.why_down() {
            None => String::new(),
            Some(why) => format!("; it is down: {why}"),
        },
        (_, 0, 0) => "; no connection is open".to_owned(),
        (_, 0, 1) => "; 1 connection continues".to_owned(),
        (_, 0, open) => format!("; {open} connections continue"),
        (_, 1, _) => "; 1 connection closed".to_owned(),
        (_, closed, _) => format!("; {closed} connections closed"),
    };
    format!("server {name} of service {service}: {state}{then}")
}
