//! Publishes what a TCP proxy has in common with Traefik v3 under Traefik's names, for dashboards
//! made for Traefik.
//!
//! Names, types and labels are those of Traefik v3's `pkg/observability/metrics/prometheus.go`.
//! docs/migrate-from-traefik.md has the table. Metrics without a true counterpart here are not
//! published.

use super::output::Output;
use crate::state::{ConfigLoads, EntrypointNumbers, Metric, Snapshot};

const OF_ENTRYPOINTS: &[Metric<EntrypointNumbers>] = &[Metric::gauge(
    "traefik_open_connections",
    "The same number as coracle_open_connections, under Traefik v3's name for it.",
    |it, out| out.value(it.open),
)];

const OF_LOADS: &[Metric<ConfigLoads>] = &[
    Metric::counter(
        "traefik_config_reloads_total",
        "Configurations that were applied, including the first one, as Traefik counts them.",
        |it, out| out.value(it.count()),
    ),
    Metric::gauge(
        "traefik_config_last_reload_success",
        "When the last configuration was applied, in seconds since the Unix epoch.",
        // Traefik's value is in whole seconds.
        |it, out| out.value(it.last().as_secs()),
    ),
];

/// Writes the families in Traefik's names.
pub(super) async fn write(out: &mut Output, snapshot: &Snapshot) {
    out.metrics(OF_ENTRYPOINTS, &snapshot.entrypoints).await;
    out.metrics(OF_LOADS, std::slice::from_ref(&snapshot.config_loads))
        .await;
}
