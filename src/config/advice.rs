//! Says what to write instead of a value of the wrong type.

use toml::de::DeValue;

use super::keyword::{CheckKind, alternatives};
use super::model::{AtLimit, AtQuota, Balance, OnDown, OnRemoved, SendProxy, WhenDown, defaults};
use crate::state::AtRefuse;

/// What to write for a string under `key` instead of a value of another type.
pub(super) fn advice(key: &str, value: &DeValue<'_>) -> String {
    const OFF: &str = "\"off\"";
    let number = match value {
        DeValue::Integer(n) => n.to_string().parse::<u64>().ok(),
        _ => None,
    };
    let port = number.filter(|n| (1..=65535).contains(n));
    let is_false = matches!(value, DeValue::Boolean(false));
    let may_be_off = matches!(key, "idle_timeout" | "half_close_timeout" | "keepalive");
    let write = match key {
        _ if may_be_off && (is_false || number == Some(0)) => OFF.to_owned(),
        "drain_timeout" if number == Some(0) => "\"0s\"".to_owned(),
        _ if is_duration(key) => match number {
            Some(n) if n > 0 => format!("\"{n}s\" for seconds"),
            _ if may_be_off => "a duration such as \"60s\", or \"off\"".to_owned(),
            _ => "a duration such as \"10s\"".to_owned(),
        },
        "admin.listen" | "socket" | "level" if is_false => OFF.to_owned(),
        "admin.listen" => {
            let port = port.unwrap_or(defaults::ADMIN.port().into());
            format!("an address such as \"127.0.0.1:{port}\", or \"off\"")
        }
        "socket" => format!(
            "a path such as \"{}\", or \"off\"",
            defaults::CONTROL_SOCKET
        ),
        "token_file" => "a path such as \"/etc/coracle.token\"".to_owned(),
        "socket_mode" | "socket_group" if number.is_some() => "it in quotes".to_owned(),
        "socket_mode" => "a mode such as \"0660\"".to_owned(),
        "socket_group" => "a name such as \"www-data\", or its number in quotes".to_owned(),
        "bind" => "an address such as \"192.168.1.2\", or an interface such as \"wg0\"".to_owned(),
        "interface" => "the name of a network interface, such as \"br-lan\"".to_owned(),
        "listen" => format!("an address such as \"127.0.0.1:{}\"", port.unwrap_or(8080)),
        "to" if matches!(value, DeValue::Array(_)) => {
            return "; for several servers write `service = \"NAME\"` and a table [services.NAME]"
                .to_owned();
        }
        "to" if matches!(value, DeValue::Table(_)) => {
            return "; write its address, or for a server with settings `service = \"NAME\"` and a table [services.NAME]"
                .to_owned();
        }
        "to" | "servers" | "address" => {
            format!("an address such as \"192.168.1.10:{}\"", port.unwrap_or(80))
        }
        "service" => "the name of one service, such as \"web\"".to_owned(),
        "level" => "a level such as \"info\"".to_owned(),
        "on_removed" => alternatives::<OnRemoved>(),
        "at_limit" => alternatives::<AtLimit>(),
        "at_quota" => alternatives::<AtQuota>(),
        "quota" => "a size and a period such as \"50GiB/month\"".to_owned(),
        "quota_rate" => "a rate such as \"64KiB/s\"".to_owned(),
        "bandwidth"
        | "bandwidth_per_client"
        | "bandwidth_per_connection"
        | "to_server"
        | "to_client" => "a rate such as \"2MiB/s\"".to_owned(),
        "burst" => "a size such as \"256KiB\"".to_owned(),
        "file" => "a path such as \"/var/lib/coracle/accounting\"".to_owned(),
        "at_refuse" => alternatives::<AtRefuse>(),
        "allow" | "deny" => "a network such as \"192.168.1.0/24\"".to_owned(),
        "allow_file" | "deny_file" => "a path such as \"/etc/coracle/networks.txt\"".to_owned(),
        "connection_rate" | "connection_rate_per_client" => match number {
            Some(n) if n > 0 => format!("\"{n}/s\" for each second"),
            _ => "a rate such as \"10/s\"".to_owned(),
        },
        "balance" => alternatives::<Balance>(),
        "when_down" => alternatives::<WhenDown>(),
        "on_down" => alternatives::<OnDown>(),
        "send_proxy" => alternatives::<SendProxy>(),
        "kind" => alternatives::<CheckKind>(),
        "trusted" | "from" => "a network such as \"192.168.1.0/24\"".to_owned(),
        "memory" => "a size such as \"32MiB\"".to_owned(),
        "path" => "a path such as \"/health\"".to_owned(),
        "host" => "a name such as \"nas.lan\"".to_owned(),
        "sni" => "a name such as \"nas.lan\"".to_owned(),
        "alpn" => "the name of a protocol such as \"h2\"".to_owned(),
        "starts" => "the name of a protocol such as \"ssh\"".to_owned(),
        "send" | "expect" | "starts_with" => "text in quotes, or \"hex:\" and its bytes".to_owned(),
        "hosts" => "a name such as \"nas.lan\"".to_owned(),
        "compat" => "\"traefik\"".to_owned(),
        _ => "it in quotes".to_owned(),
    };
    format!("; write {write}")
}

fn is_duration(key: &str) -> bool {
    key.ends_with("timeout")
        || matches!(
            key,
            "keepalive"
                | "fail_window"
                | "slow_start"
                | "resolve_interval"
                | "save_interval"
                | "interval"
                | "jitter"
                | "default_after"
        )
}
