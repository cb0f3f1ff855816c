//! Reads a service: a table [services.NAME].

use toml::de::DeTable;

use crate::config::address::Address;
use crate::config::diagnostic::shown;
use crate::config::draft::DraftService;
use crate::config::keyword::keyword;
use crate::config::model::{Resolve, Server, Service, defaults};
use crate::config::origin::Origin;
use crate::config::toml_reader::{Key, Reader};
use crate::config::value;

/// The keys of a service, in the order in which errors list them.
pub(super) const KEYS: &[&str] = &[
    "servers",
    "balance",
    "connect_timeout",
    "dial_timeout",
    "retries",
    "max_fails",
    "fail_window",
    "when_down",
    "on_down",
    "queue",
    "queue_timeout",
    "slow_start",
    "resolve",
    "resolve_interval",
    "send_proxy",
    "bandwidth",
    "bind",
    "transparent",
    "mark",
    "dscp",
    "health",
];

/// More failures than this would only delay what they are counted for.
const MOST_FAILS: u32 = 1000;
/// More clients than this would never all be served in time.
const MOST_WAITING: u32 = 1_000_000;

impl Reader<'_, '_> {
    pub(super) fn service(&mut self, key: Key<'_>, table: &DeTable<'_>) -> DraftService {
        self.known(table, KEYS);
        let name = shown(key.get_ref());
        let (servers, origins) = match table.get("servers") {
            Some(value) => self.servers(value),
            None => {
                let example = "servers = [\"192.168.1.10:80\"]";
                self.missing(
                    key,
                    table,
                    &["servers"],
                    format!("service `{name}` has no `servers`; add some, such as {example}"),
                );
                (Vec::new(), Vec::new())
            }
        };
        let health = self.health(table, &servers);
        let most_retries = u32::try_from(Service::MAX_SERVERS).unwrap_or(u32::MAX);
        let retries = self.integer(
            table,
            "retries",
            0..=most_retries,
            "leave it out to try each other server once",
        );
        let max_fails = self.integer(
            table,
            "max_fails",
            0..=MOST_FAILS,
            "write 0 to count no failures",
        );
        let queue = self.integer(
            table,
            "queue",
            0..=MOST_WAITING,
            "write 0 to let no connection wait",
        );
        self.without_effect(table, "fail_window", "max_fails", max_fails);
        self.without_effect(table, "queue_timeout", "queue", queue);
        let resolve = self.parsed(table, "resolve", keyword);
        self.first_of_srv(table, resolve, &servers);
        let service = Service {
            balance: self.parsed(table, "balance", keyword).unwrap_or_default(),
            connect_timeout: self
                .parsed(table, "connect_timeout", value::dialling_timeout)
                .unwrap_or(defaults::CONNECT_TIMEOUT),
            dial_timeout: self
                .parsed(table, "dial_timeout", value::dialling_timeout)
                .unwrap_or(defaults::DIAL_TIMEOUT),
            retries,
            max_fails: max_fails.unwrap_or(defaults::MAX_FAILS),
            fail_window: self
                .parsed(table, "fail_window", value::fail_window)
                .unwrap_or(defaults::FAIL_WINDOW),
            when_down: self.parsed(table, "when_down", keyword).unwrap_or_default(),
            on_down: self.parsed(table, "on_down", keyword).unwrap_or_default(),
            queue: queue.unwrap_or(defaults::QUEUE),
            queue_timeout: self
                .parsed(table, "queue_timeout", value::queue_timeout)
                .unwrap_or(defaults::QUEUE_TIMEOUT),
            health,
            slow_start: self
                .parsed(table, "slow_start", value::duration_or_zero)
                .unwrap_or_default(),
            resolve: resolve.unwrap_or_default(),
            resolve_interval: self
                .parsed(table, "resolve_interval", value::resolve_interval)
                .unwrap_or(defaults::RESOLVE_INTERVAL),
            send_proxy: self.parsed(table, "send_proxy", keyword),
            bandwidth: self.bandwidth(table, "bandwidth"),
            outgoing: self.outgoing(table, &servers),
            ..Service::new(key.get_ref().to_string(), servers)
        };
        DraftService {
            service,
            origin: Origin::File(key.span()),
            servers: origins,
        }
    }

    /// Reports `resolve = "first"` beside an SRV name, each of whose records is a server.
    fn first_of_srv(&mut self, table: &DeTable<'_>, resolve: Option<Resolve>, servers: &[Server]) {
        let mut addresses = servers.iter().map(|it| &it.address);
        let srv = addresses.find(|it| matches!(it, Address::Srv(_)));
        if let (Some(name), Some(Resolve::First), Some(value)) =
            (srv, resolve, table.get("resolve"))
        {
            let why = format!(
                "`{}` is an SRV name, which stands for all its servers; remove `resolve`",
                shown(&name.to_string())
            );
            self.out.report(Some(value.span()), why);
        }
    }

    /// Warns that `key` has no effect if it is written and `switch`, whose value is given, is 0.
    fn without_effect(&mut self, table: &DeTable<'_>, key: &str, switch: &str, value: Option<u32>) {
        if let (Some((at, _)), Some(0)) = (table.get_key_value(key), value) {
            let why = format!("`{key}` has no effect with {switch} = 0; remove one of them");
            self.out.warn(Some(at.span()), why);
        }
    }
}
