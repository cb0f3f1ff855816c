//! Reads how connections to the servers of a service leave this machine.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use toml::de::{DeTable, DeValue};

use super::listening::interface;
use crate::config::address::Address;
use crate::config::diagnostic::{Mistake, nearest, shown, wrong};
use crate::config::host::{looks_numeric, ports};
use crate::config::model::Server;
use crate::config::toml_reader::Reader;
use crate::state::{Bind, Outgoing};

const KEYS: [&str; 4] = ["bind", "transparent", "mark", "dscp"];

/// The classes that have names: RFC 2474, 2597, 3246, 5865 and 8622.
const CLASSES: [(&str, u8); 23] = [
    ("cs0", 0),
    ("cs1", 8),
    ("cs2", 16),
    ("cs3", 24),
    ("cs4", 32),
    ("cs5", 40),
    ("cs6", 48),
    ("cs7", 56),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("va", 44),
    ("ef", 46),
    ("le", 1),
];

const MOST: u8 = 63;

impl Reader<'_, '_> {
    pub(super) fn outgoing(&mut self, table: &DeTable<'_>, servers: &[Server]) -> Outgoing {
        let is_unix = |it: &Server| matches!(it.address, Address::Unix(_));
        for key in KEYS {
            if let Some((at, _)) = table.get_key_value(key)
                && !servers.is_empty()
                && servers.iter().all(is_unix)
            {
                let why = format!(
                    "`{key}` has no effect, because all servers are Unix sockets; remove it"
                );
                self.out.warn(Some(at.span()), why);
            }
        }
        let bind = self.parsed(table, "bind", bind);
        let transparent = self.boolean(table, "transparent").unwrap_or(false);
        if let (true, Some(Bind::Address(..)), Some(value)) =
            (transparent, &bind, table.get("bind"))
        {
            let why = "with `transparent`, connections have the client's address; remove one of them, or bind to an interface";
            self.out.report(Some(value.span()), why);
        }
        let mark = self.integer(table, "mark", 1..=u32::MAX, "leave it out for no mark");
        Outgoing {
            bind,
            transparent,
            mark: mark.and_then(NonZeroU32::new),
            dscp: self.dscp(table),
        }
    }

    fn dscp(&mut self, table: &DeTable<'_>) -> Option<u8> {
        match table.get("dscp")?.get_ref() {
            DeValue::Integer(_) => {
                let class = self.integer(table, "dscp", 0..=MOST.into(), "write 0 or more")?;
                class.try_into().ok()
            }
            DeValue::String(_) => self.parsed(table, "dscp", dscp),
            _ => {
                let value = table.get("dscp")?;
                self.wrong_type(
                    value,
                    "a string or an integer",
                    "; write a class such as \"af21\", or its number",
                );
                None
            }
        }
    }
}

/// Parses an address, with or without a range of ports, or the name of an interface.
fn bind(text: &str) -> Result<Bind, Mistake> {
    let says = shown(text);
    let address = |ip: IpAddr, ports| {
        if ip.is_unspecified() || ip.is_multicast() {
            return wrong(format!(
                "`{says}` is no address of a machine; write one of this machine's, which `ip addr` lists"
            ));
        }
        Ok(Bind::Address(ip, ports))
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return address(ip.to_canonical(), None);
    }
    if let Some((host, range)) = text.rsplit_once(':') {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let ip = match bare.parse::<IpAddr>() {
            Ok(ip) if ip.is_ipv4() || bare != host => ip.to_canonical(),
            _ => {
                return wrong(format!(
                    "`{says}` is neither an address, such as \"192.168.1.2\" or \"192.168.1.2:40000-40999\", nor the name of an interface"
                ));
            }
        };
        return match ports(range)? {
            Some((first, last)) => address(ip, Some(first..=last)),
            None => wrong(format!(
                "`{says}` has no range of ports, and one port allows one connection to each server; write a range such as `40000-40999`, or only the address"
            )),
        };
    }
    if looks_numeric(text) && text.parse::<Ipv4Addr>().is_err() {
        return wrong(format!(
            "`{says}` is not an IPv4 address, which is four numbers from 0 to 255"
        ));
    }
    interface(text).map(Bind::Interface)
}

/// Parses the name of a class, or its number.
fn dscp(text: &str) -> Result<u8, Mistake> {
    let name = text.to_ascii_lowercase();
    if let Some((_, class)) = CLASSES.iter().find(|(known, _)| *known == name) {
        return Ok(*class);
    }
    if let Some(class) = text.parse().ok().filter(|class| *class <= MOST) {
        return Ok(class);
    }
    let advice = match nearest(&name, CLASSES.iter().map(|(known, _)| *known)) {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => format!("write one such as \"cs1\", \"af21\" or \"ef\", or a number up to {MOST}"),
    };
    wrong(format!(
        "`{}` is no class of packets; {advice}",
        shown(text)
    ))
}
