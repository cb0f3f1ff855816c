//! Reads limits of the bandwidth: a rate for both directions, or a table.

use toml::de::{DeTable, DeValue};

use crate::config::size;
use crate::config::toml_reader::{Reader, Value};
use crate::state::{Bandwidth, ByteRate};

impl Reader<'_, '_> {
    /// Reads the limit under `key`. Without one, nothing is limited.
    pub(super) fn bandwidth(&mut self, table: &DeTable<'_>, key: &str) -> Bandwidth {
        let mut bandwidth = Bandwidth::default();
        let Some(value) = table.get(key) else {
            return bandwidth;
        };
        let DeValue::Table(ways) = value.get_ref() else {
            let text = self.string(value, key);
            let both = text.and_then(|text| self.ok(value, size::byte_rate(text)));
            let both = both.map(ByteRate::new);
            return Bandwidth {
                to_server: both,
                to_client: both,
            };
        };
        self.known(ways, &["to_server", "to_client", "burst"]);
        let burst = self.parsed(ways, "burst", size::burst);
        bandwidth.to_server = self.way(ways, "to_server", burst);
        bandwidth.to_client = self.way(ways, "to_client", burst);
        if ways.get("to_server").is_none() && ways.get("to_client").is_none() {
            self.limits_nothing(value, key);
        }
        bandwidth
    }

    fn way(&mut self, ways: &DeTable<'_>, key: &str, burst: Option<u64>) -> Option<ByteRate> {
        let bytes = self.parsed(ways, key, size::byte_rate)?;
        let usual = ByteRate::new(bytes);
        let burst = burst.unwrap_or(usual.burst);
        if let (true, Some(value)) = (burst < bytes / 100, ways.get("burst")) {
            let why = format!(
                "this burst is too small for `{key}`, which may not be reached: 10 ms of it are more; write \"{}\", or leave it out",
                size::size_words(usual.burst)
            );
            self.out.warn(Some(value.span()), why);
        }
        Some(ByteRate { bytes, burst })
    }

    fn limits_nothing(&mut self, value: &Value<'_>, key: &str) {
        let why = format!("`{key}` limits nothing; add `to_server`, `to_client` or both");
        self.out.report(Some(value.span()), why);
    }
}
