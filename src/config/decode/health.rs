//! Reads how a service's servers are checked: `health` in [services.NAME].

use std::num::{NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::config::address::Address;
use crate::config::check;
use crate::config::diagnostic::shown;
use crate::config::keyword::{CheckKind, keyword};
use crate::config::model::{Health, HealthKind, Server, defaults};
use crate::config::toml_reader::Reader;
use crate::config::{value, words};

const KEYS: &[&str] = &[
    "kind", "interval", "timeout", "jitter", "rise", "fall", "port", "send", "expect", "path",
    "host", "status",
];
const TCP_KEYS: &[&str] = &["send", "expect"];
const HTTP_KEYS: &[&str] = &["path", "host", "status"];

/// How many checks in a row may be asked for.
const IN_A_ROW: RangeInclusive<u32> = 1..=1000;

impl Reader<'_, '_> {
    /// Reads `health` of a service with these servers.
    pub(super) fn health(&mut self, service: &DeTable<'_>, servers: &[Server]) -> Option<Health> {
        let value = service.get("health")?;
        let DeValue::Table(table) = value.get_ref() else {
            let advice = match value.get_ref() {
                DeValue::Boolean(false) => "; leave it out for no checks".to_owned(),
                DeValue::String(kind) if keyword::<CheckKind>(kind).is_ok() => {
                    format!("; write {{ kind = \"{kind}\" }}")
                }
                _ => "; write { kind = \"tcp\" } or { kind = \"http\" }".to_owned(),
            };
            self.wrong_type(value, "a table", &advice);
            return None;
        };
        self.known(table, KEYS);
        let kind = self.check_kind(table);
        let interval = self.parsed(table, "interval", value::check_interval);
        let interval = interval.unwrap_or(defaults::HEALTH_INTERVAL);
        Some(Health {
            kind,
            interval,
            timeout: self.check_timeout(table, interval),
            jitter: self.jitter(table, interval),
            rise: self.in_a_row(table, "rise", defaults::RISE),
            fall: self.in_a_row(table, "fall", defaults::FALL),
            port: self.check_port(table, servers),
        })
    }

    fn check_kind(&mut self, table: &DeTable<'_>) -> HealthKind {
        let kind = match table.get("kind") {
            None => Some(CheckKind::Tcp),
            Some(_) => self.parsed(table, "kind", keyword),
        };
        let (foreign, other) = match kind {
            Some(CheckKind::Tcp) => (HTTP_KEYS, "http"),
            Some(CheckKind::Http) => (TCP_KEYS, "tcp"),
            None => (&[][..], ""),
        };
        for key in foreign {
            if let Some((at, _)) = table.get_key_value(*key) {
                let why = format!(
                    "`{key}` is for kind = \"{other}\"; remove it, or write kind = \"{other}\""
                );
                self.out.report(Some(at.span()), why);
            }
        }
        let send = self.parsed(table, "send", check::send);
        let expect = self.parsed(table, "expect", check::expect);
        let path = self.parsed(table, "path", check::path);
        let host = self.parsed(table, "host", check::host);
        let status = self.status(table);
        match kind {
            Some(CheckKind::Http) => HealthKind::Http {
                path: path.unwrap_or_else(|| "/".to_owned()),
                host,
                status: status.unwrap_or(defaults::STATUS),
            },
            Some(CheckKind::Tcp) | None => HealthKind::Tcp {
                send: send.unwrap_or_default(),
                expect,
            },
        }
    }

    /// Reads `status`: an integer, or a string for a range.
    fn status(&mut self, table: &DeTable<'_>) -> Option<(u16, u16)> {
        let value = table.get("status")?;
        match value.get_ref() {
            DeValue::Integer(code) => self.ok(value, check::status(&code.to_string())),
            DeValue::String(text) => self.ok(value, check::status(text)),
            _ => {
                let advice = "; write a status such as 200, or a range such as \"200-399\"";
                self.wrong_type(value, "an integer or a string", advice);
                None
            }
        }
    }

    fn check_timeout(&mut self, table: &DeTable<'_>, interval: Duration) -> Duration {
        let most = interval / 2;
        let Some(timeout) = self.parsed(table, "timeout", value::dialling_timeout) else {
            return defaults::HEALTH_TIMEOUT.min(most);
        };
        if timeout > most {
            let why = format!(
                "`timeout` is longer than half of `interval`, which is {}; write \"{}\" or less, or a longer `interval`",
                words::duration(&interval),
                words::duration(&most)
            );
            self.out
                .report(table.get("timeout").map(|it| it.span()), why);
        }
        timeout
    }

    fn jitter(&mut self, table: &DeTable<'_>, interval: Duration) -> Duration {
        let Some(jitter) = self.parsed(table, "jitter", value::duration_or_zero) else {
            return interval / 10;
        };
        if jitter > interval {
            let interval = words::duration(&interval);
            let why = format!(
                "`jitter` is longer than `interval`, which is {interval}; write \"{interval}\" or less"
            );
            self.out
                .report(table.get("jitter").map(|it| it.span()), why);
        }
        jitter
    }

    fn in_a_row(&mut self, table: &DeTable<'_>, key: &str, default: NonZeroU32) -> NonZeroU32 {
        let n = self.integer(table, key, IN_A_ROW, "write 1 for a single check");
        n.and_then(NonZeroU32::new).unwrap_or(default)
    }

    fn check_port(&mut self, table: &DeTable<'_>, servers: &[Server]) -> Option<NonZeroU16> {
        let hint = "leave it out for the server's own";
        let port = self.integer(table, "port", 1..=65535, hint)?;
        let is_unix = |server: &&Server| matches!(server.address, Address::Unix(_));
        if let Some(unix) = servers.iter().find(is_unix) {
            let why = format!(
                "server `{}` has no ports; remove `port`, or give that server a service of its own",
                shown(&unix.address.to_string())
            );
            self.out.report(table.get("port").map(|it| it.span()), why);
        }
        u16::try_from(port).ok().and_then(NonZeroU16::new)
    }
}
