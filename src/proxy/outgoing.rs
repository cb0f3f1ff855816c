//! Checks that connections may leave as the configuration says, before it comes into force.

use rustix::io::Errno;

use super::bind::{BindError, give};
use crate::config::{Config, printable};
use crate::net::{Refused, try_outgoing};
use crate::state::{Bind, Outgoing};

/// Tries the settings of each service. Warns of what may come to be, such as an interface that is
/// not there yet, unless `before` has the same.
///
/// # Errors
/// Returns the first setting for which this process lacks a capability.
pub(super) fn check(config: &Config, before: &Config) -> Result<(), BindError> {
    for service in &config.services {
        let outgoing = &service.outgoing;
        if outgoing.is_default() {
            continue;
        }
        let Err(Refused { key, error }) = try_outgoing(outgoing) else {
            continue;
        };
        let name = printable(&service.name);
        let remedy = match (key, error) {
            (_, Errno::PERM | Errno::ACCESS) => {
                let (needs, capability) = needs(key, outgoing);
                format!(
                    "permission denied: {needs} {capability}; {}",
                    give(capability)
                )
            }
            ("bind", Errno::NODEV | Errno::ADDRNOTAVAIL) => {
                let is_known = before.services.iter().any(|it| it.outgoing == *outgoing);
                if let Some(bind) = outgoing.bind.as_ref().filter(|_| !is_known) {
                    let bind = printable(&bind.to_string());
                    log::warn!(target: "setup", service = &*service.name;
                        "this machine does not have {bind} yet (bind); its servers cannot be reached until it does");
                }
                continue;
            }
            // The machine has no IPv6, or the kernel lacks something for the moment.
            (
                "bind",
                Errno::AFNOSUPPORT | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS,
            ) => {
                continue;
            }
            (_, Errno::NOPROTOOPT) => "the kernel does not have this option".to_owned(),
            (_, error) => std::io::Error::from(error).to_string(),
        };
        return Err(BindError::new(format!("service {name}: {key}: {remedy}")));
    }
    Ok(())
}

/// Returns which capability a setting needs, with the words before it.
fn needs(key: &str, outgoing: &Outgoing) -> (&'static str, &'static str) {
    match (key, &outgoing.bind) {
        ("bind", Some(Bind::Interface(_))) => (
            "before Linux 5.7, binding to an interface needs",
            "CAP_NET_RAW",
        ),
        ("bind", _) => ("ports below 1024 need", "CAP_NET_BIND_SERVICE"),
        ("transparent", _) => ("addresses of clients need", "CAP_NET_RAW"),
        _ => ("marks need", "CAP_NET_ADMIN"),
    }
}
