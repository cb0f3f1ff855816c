//! Reads limits: the table [limits], and `max_connections` wherever it is.

use std::num::NonZeroU32;

use toml::de::DeTable;

use crate::config::model::{ClientLimits, Limits, defaults};
use crate::config::toml_reader::Reader;
use crate::config::{size, value};
use crate::state::Rate;

impl Reader<'_, '_> {
    /// Reads the table [limits] of the root.
    pub(super) fn limits(&mut self, root: &DeTable<'_>) -> Limits {
        let Some(table) = self.table(root, "limits") else {
            return Limits::default();
        };
        self.known(table, &["max_connections", "memory"]);
        Limits {
            max_connections: self.max_connections(table),
            memory: self.parsed(table, "memory", size::memory),
        }
    }

    /// Reads what each client of an entrypoint may have.
    pub(super) fn client_limits(&mut self, table: &DeTable<'_>) -> ClientLimits {
        const KEYS: [&str; 3] = [
            "max_connections_per_client",
            "connection_rate_per_client",
            "bandwidth_per_client",
        ];
        let hint = "leave it out for no limit";
        let most = self.integer(table, KEYS[0], 1..=u32::MAX, hint);
        let rate = self.rate(table, KEYS[1], "connection_burst_per_client");
        let hint = "write 64 for the usual network of a household";
        let prefix = self.integer(table, "client_ipv6_prefix", 1..=128, hint);
        if let Some((at, _)) = table.get_key_value("client_ipv6_prefix")
            && !KEYS.iter().any(|key| table.contains_key(*key))
        {
            let why = "`client_ipv6_prefix` has no effect without `max_connections_per_client`, `connection_rate_per_client` or `bandwidth_per_client`; add one, or remove it";
            self.out.warn(Some(at.span()), why);
        }
        ClientLimits {
            max_connections: most.and_then(NonZeroU32::new),
            rate,
            bandwidth: self.bandwidth(table, KEYS[2]),
            ipv6_prefix: prefix.map_or(defaults::CLIENT_IPV6_PREFIX, |it| it as u8),
        }
    }

    /// Reads a rate and its burst, which is the rate's number if it is left out.
    pub(super) fn rate(&mut self, table: &DeTable<'_>, key: &str, burst_key: &str) -> Option<Rate> {
        let hint = "write 1 for no two at once";
        let burst = self.integer(table, burst_key, 1..=Rate::MOST, hint);
        if let (Some((at, _)), None) = (table.get_key_value(burst_key), table.get(key)) {
            let why =
                format!("`{burst_key}` has no effect without `{key}`; add that, or remove it");
            self.out.warn(Some(at.span()), why);
        }
        let rate = self.parsed(table, key, value::rate)?;
        let burst = burst.unwrap_or(rate.burst);
        Some(Rate { burst, ..rate })
    }

    pub(super) fn max_connections(&mut self, table: &DeTable<'_>) -> Option<NonZeroU32> {
        let hint = "leave it out for no limit";
        let most = self.integer(table, "max_connections", 1..=u32::MAX, hint);
        most.and_then(NonZeroU32::new)
    }
}
