//! Reads limits: the table [limits], and `max_connections` wherever it is.

use std::num::NonZeroU32;

use toml::de::DeTable;

use crate::config::model::Limits;
use crate::config::size;
use crate::config::toml_reader::Reader;

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

    pub(super) fn max_connections(&mut self, table: &DeTable<'_>) -> Option<NonZeroU32> {
        let hint = "leave it out for no limit";
        let most = self.integer(table, "max_connections", 1..=u32::MAX, hint);
        most.and_then(NonZeroU32::new)
    }
}
