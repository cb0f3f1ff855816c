//! Reads the table [accounting].

use toml::de::DeTable;

use crate::config::keyword::keyword;
use crate::config::model::{Accounting, AtQuota};
use crate::config::size;
use crate::config::toml_reader::Reader;
use crate::config::value;

impl Reader<'_, '_> {
    /// Reads the table [accounting] of the root. Without one, nothing is counted.
    pub(super) fn accounting(&mut self, root: &DeTable<'_>) -> Option<Accounting> {
        let table = self.table(root, "accounting")?;
        self.known(
            table,
            &[
                "clients",
                "ipv4_prefix",
                "ipv6_prefix",
                "quota",
                "at_quota",
                "quota_rate",
                "file",
                "save_interval",
            ],
        );
        self.needs(table, "at_quota", "quota");
        self.needs(table, "quota_rate", "quota");
        self.needs(table, "save_interval", "file");
        let Accounting {
            clients,
            ipv4_prefix,
            ipv6_prefix,
            at_quota,
            save_interval,
            ..
        } = Accounting::default();
        const HINT: &str = "remove [accounting] to count nothing";
        let most = Accounting::MAX_CLIENTS;
        let prefix = |reader: &mut Self, key, most: u8, default| {
            let bits = reader.integer(table, key, 1..=most.into(), HINT);
            bits.and_then(|bits| u8::try_from(bits).ok())
                .unwrap_or(default)
        };
        let at_quota = self.parsed(table, "at_quota", keyword).unwrap_or(at_quota);
        if let (AtQuota::Slow, None, Some(at)) =
            (at_quota, table.get("quota_rate"), table.get("at_quota"))
        {
            let why = "a client that is slowed needs a rate; add `quota_rate`, such as \"64KiB/s\"";
            self.out.report(Some(at.span()), why);
        }
        Some(Accounting {
            clients: self
                .integer(table, "clients", 1..=most, HINT)
                .unwrap_or(clients),
            ipv4_prefix: prefix(self, "ipv4_prefix", 32, ipv4_prefix),
            ipv6_prefix: prefix(self, "ipv6_prefix", 128, ipv6_prefix),
            quota: self.parsed(table, "quota", size::quota),
            at_quota,
            quota_rate: self.parsed(table, "quota_rate", size::rate),
            file: self.parsed(table, "file", value::file),
            save_interval: self
                .parsed(table, "save_interval", value::save_interval)
                .unwrap_or(save_interval),
        })
    }

    /// Warns of `key` if the key that it belongs to is not there.
    fn needs(&mut self, table: &DeTable<'_>, key: &str, other: &str) {
        if let Some((key, _)) = table.get_key_value(key)
            && !table.contains_key(other)
        {
            let why = format!(
                "`{}` has no effect without `{other}`; add that, or remove it",
                key.get_ref()
            );
            self.out.warn(Some(key.span()), why);
        }
    }
}
