//! What Traefik v3 publishes and a TCP proxy has too, under Traefik's names: for dashboards that were made for it.
//!
//! Names, types and labels are those of Traefik v3's `pkg/observability/metrics/prometheus.go`; the README has the table. What
//! has no true counterpart here is not published.

use super::family::{Family, seconds};
use crate::state::{Label as _, Shared};

/// The families in Traefik's names. `open` is the number of open connections by entrypoint, as in `coracle_open_connections`.
pub fn families(shared: &Shared, open: &[u64]) -> [Family; 3] {
    let mut open_connections = Family::gauge(
        "traefik_open_connections",
        "The same number as coracle_open_connections, under the name that Traefik v3 has for it.",
    );
    for entrypoint in &shared.entrypoints {
        let labels = [
            ("entrypoint", entrypoint.name.as_str()),
            ("protocol", entrypoint.protocol.label()),
        ];
        open_connections.sample(&labels, open[entrypoint.index] as f64);
    }
    let loads = &shared.config_loads;
    let reloads = Family::counter(
        "traefik_config_reloads_total",
        "Configurations that have come into force, the first one included, as Traefik counts.",
    );
    let last = Family::gauge(
        "traefik_config_last_reload_success",
        "When the last configuration came into force, in seconds since the Unix epoch.",
    );
    [
        open_connections,
        reloads.with(&[], loads.count() as f64),
        // Traefik's are whole seconds.
        last.with(&[], seconds(loads.last()).floor()),
    ]
}
