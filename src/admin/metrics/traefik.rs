//! What Traefik v3 publishes and a TCP proxy has too, under Traefik's names: for dashboards that were made for it.
//!
//! Names, types and labels are those of Traefik v3's `pkg/observability/metrics/prometheus.go`; the README has the table. What
//! has no true counterpart here is not published.

use super::metric_family::{Family, NameValue, seconds};
use super::output::Output;
use crate::state::{Label as _, Snapshot};

/// Writes the families in Traefik's names.
pub(super) async fn write(out: &mut Output, snapshot: &Snapshot) {
    let open_connections = Family::gauge(
        "traefik_open_connections",
        "The same number as coracle_open_connections, under the name that Traefik v3 has for it.",
    );
    let names = snapshot.catalogue.entrypoints.iter();
    let each = names.zip(&snapshot.entrypoints);
    out.family(
        open_connections,
        each,
        |family, ((name, protocol), numbers)| {
            let labels: [NameValue<'_>; 2] = [("entrypoint", name), ("protocol", protocol.label())];
            family.sample(&labels, numbers.open as f64);
        },
    )
    .await;
    let loads = &snapshot.config_loads;
    let reloads = Family::counter(
        "traefik_config_reloads_total",
        "Configurations that have come into force, the first one included, as Traefik counts.",
    );
    out.whole(reloads.with(&[], loads.count() as f64));
    let last = Family::gauge(
        "traefik_config_last_reload_success",
        "When the last configuration came into force, in seconds since the Unix epoch.",
    );
    // Traefik's are whole seconds.
    out.whole(last.with(&[], seconds(loads.last()).floor()));
}
