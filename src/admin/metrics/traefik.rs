//! What Traefik v3 publishes and a TCP proxy has too, under Traefik's names: for dashboards that were made for it.
//!
//! Names, types and labels are those of Traefik v3's `pkg/observability/metrics/prometheus.go`;
//! docs/migrate-from-traefik.md has the table. What has no true counterpart here is not published.

use super::output::Output;
use crate::state::{ConfigLoads, EntrypointNumbers, Metric, Snapshot};

const OF_ENTRYPOINTS: &[Metric<EntrypointNumbers>] = &[Metric::gauge(
    "traefik_open_connections",
    "The same number as coracle_open_connections, under the name that Traefik v3 has for it.",
    |it, out| out.value(it.open),
)];

const OF_LOADS: &[Metric<ConfigLoads>] = &[
    Metric::counter(
        "traefik_config_reloads_total",
        "Configurations that have come into force, the first one included, as Traefik counts.",
        |it, out| out.value(it.count()),
    ),
    Metric::gauge(
        "traefik_config_last_reload_success",
        "When the last configuration came into force, in seconds since the Unix epoch.",
        // Traefik's are whole seconds.
        |it, out| out.value(it.last().as_secs()),
    ),
];

/// Writes the families in Traefik's names.
pub(super) async fn write(out: &mut Output, snapshot: &Snapshot) {
    out.metrics(OF_ENTRYPOINTS, &snapshot.entrypoints).await;
    out.metrics(OF_LOADS, std::slice::from_ref(&snapshot.config_loads))
        .await;
}
