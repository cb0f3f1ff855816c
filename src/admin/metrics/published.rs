//! What is published: one snapshot of the state as metric families.
//!
//! Nothing here is kept between two scrapes. A snapshot is one moment, so in every scrape the opened connections less the closed
//! ones are the open ones.

use super::metric_family::{Family, NameValue, seconds};
use super::output::Output;
use super::traefik;
use crate::admin::agreement::Count;
use crate::state::{Catalogue, EntrypointNumbers, HeldIn, Label as _, ServerNumbers, Snapshot};
use crate::sys::{self, process::Usage};

/// Writes every family that has samples.
///
/// To publish more, write one more function here and call it.
pub(crate) async fn write(
    out: &mut Output,
    snapshot: &Snapshot,
    process: &Usage,
    counts: Option<&[Count]>,
) {
    out.whole(build_info());
    open_connections(out, snapshot).await;
    if let Some(counts) = counts {
        kernel_families(out, &snapshot.catalogue, counts).await;
    }
    opened(out, snapshot).await;
    closed(out, snapshot).await;
    connection_duration(out, snapshot).await;
    bytes(out, snapshot).await;
    accept_errors(out, snapshot).await;
    service_open_connections(out, snapshot).await;
    connect_duration(out, snapshot).await;
    connect_errors(out, snapshot).await;
    out.whole(memory_held(snapshot));
    if snapshot.catalogue.traefik_names {
        traefik::write(out, snapshot).await;
    }
    for family in process_families(process) {
        out.whole(family);
    }
}

async fn open_connections(out: &mut Output, snapshot: &Snapshot) {
    let family = Family::gauge(
        "coracle_open_connections",
        "Connections that are open now: the length of the set of connections, read at this scrape.",
    );
    let add = |family: &mut Family, (labels, numbers): OfEntrypoint<'_>| {
        family.sample(&labels, numbers.open as f64);
    };
    out.family(family, entrypoints(snapshot), add).await;
}

fn memory_held(snapshot: &Snapshot) -> Family {
    let mut family = Family::gauge(
        "coracle_memory_held_bytes",
        "Bytes that were read and that blocked receivers have not taken yet, in the process (spill) or in pipes.",
    );
    for (place, kind) in [(HeldIn::Spill, "spill"), (HeldIn::Pipe, "pipe")] {
        let held = snapshot.held_bytes(place);
        family.sample(&[("kind", kind)], held as f64);
    }
    family
}

/// What the kernel says of the same connections. Absent where it does not tell.
async fn kernel_families(out: &mut Output, catalogue: &Catalogue, counts: &[Count]) {
    let connections = Family::gauge(
        "coracle_kernel_connections",
        "Accepted sockets of this process in the kernel's table, at most a second ago.",
    );
    let backlog = Family::gauge(
        "coracle_accept_backlog",
        "Connections that the kernel holds and that are not accepted yet, at most a second ago.",
    );
    let mismatch = Family::gauge(
        "coracle_connection_mismatch",
        "The kernel's count less the set's, as far as the difference lasted through several readings; 0 is right.",
    );
    let names = catalogue.entrypoints.iter();
    let each = names
        .map(|(name, _)| [("entrypoint", name.as_str())])
        .zip(counts);
    out.family(connections, each.clone(), |family, (labels, count)| {
        family.sample(&labels, count.connections as f64);
    })
    .await;
    let known = each
        .clone()
        .filter_map(|(labels, count)| Some((labels, count.backlog?)));
    out.family(backlog, known, |family, (labels, n)| {
        family.sample(&labels, n as f64);
    })
    .await;
    out.family(mismatch, each, |family, (labels, count)| {
        family.sample(&labels, count.mismatch as f64);
    })
    .await;
}

async fn opened(out: &mut Output, snapshot: &Snapshot) {
    let family = Family::counter(
        "coracle_connections_opened_total",
        "Connections that were accepted and entered the set of connections.",
    );
    let add = |family: &mut Family, (labels, numbers): OfEntrypoint<'_>| {
        family.sample(&labels, numbers.opened.value() as f64);
    };
    out.family(family, entrypoints(snapshot), add).await;
}

async fn closed(out: &mut Output, snapshot: &Snapshot) {
    let family = Family::counter(
        "coracle_connections_closed_total",
        "Connections that left the set of connections, by the reason for which they ended.",
    );
    let add = |family: &mut Family, (labels, numbers): OfEntrypoint<'_>| {
        for (reason, n) in numbers.closed.iter() {
            family.sample(&with(labels, ("reason", reason.label())), n as f64);
        }
    };
    out.family(family, entrypoints(snapshot), add).await;
}

async fn connection_duration(out: &mut Output, snapshot: &Snapshot) {
    let family = Family::histogram(
        "coracle_connection_duration_seconds",
        "How long the connections that have ended were open, in seconds.",
    );
    let add = |family: &mut Family, (labels, numbers): OfEntrypoint<'_>| {
        family.observed(&labels, &numbers.duration);
    };
    out.family(family, entrypoints(snapshot), add).await;
}

async fn bytes(out: &mut Output, snapshot: &Snapshot) {
    let family = Family::counter(
        "coracle_bytes_total",
        "Payload bytes passed on, counted as they pass.",
    );
    let add = |family: &mut Family, (labels, numbers): OfEntrypoint<'_>| {
        for (direction, n) in numbers.bytes.iter() {
            family.sample(&with(labels, ("direction", direction.label())), n as f64);
        }
    };
    out.family(family, entrypoints(snapshot), add).await;
}

async fn accept_errors(out: &mut Output, snapshot: &Snapshot) {
    let family = Family::counter(
        "coracle_accept_errors_total",
        "Failed attempts to accept a connection. The listener goes on after each of them.",
    );
    let add = |family: &mut Family, (labels, numbers): OfEntrypoint<'_>| {
        for (reason, n) in numbers.accept_errors.iter() {
            family.sample(&with(labels, ("reason", reason.label())), n as f64);
        }
    };
    out.family(family, entrypoints(snapshot), add).await;
}

async fn service_open_connections(out: &mut Output, snapshot: &Snapshot) {
    let family = Family::gauge(
        "coracle_service_open_connections",
        "Open connections that are connected to this server; those that are still dialling belong to none.",
    );
    let add = |family: &mut Family, (labels, numbers): OfServer<'_>| {
        family.sample(&labels, numbers.open as f64);
    };
    out.family(family, servers(snapshot), add).await;
}

async fn connect_duration(out: &mut Output, snapshot: &Snapshot) {
    let family = Family::histogram(
        "coracle_connect_duration_seconds",
        "How long it took to connect to the server, in seconds, for each success.",
    );
    let add = |family: &mut Family, (labels, numbers): OfServer<'_>| {
        family.observed(&labels, &numbers.connect_duration);
    };
    out.family(family, servers(snapshot), add).await;
}

async fn connect_errors(out: &mut Output, snapshot: &Snapshot) {
    let family = Family::counter(
        "coracle_connect_errors_total",
        "Failed attempts to connect to the server.",
    );
    let add = |family: &mut Family, (labels, numbers): OfServer<'_>| {
        for (reason, n) in numbers.connect_errors.iter() {
            family.sample(&with(labels, ("reason", reason.label())), n as f64);
        }
    };
    out.family(family, servers(snapshot), add).await;
}

fn build_info() -> Family {
    let target = sys::target();
    let mut labels = vec![
        ("version", env!("CARGO_PKG_VERSION")),
        ("target", target.as_str()),
    ];
    // Set by whoever builds from a checkout; a build from a crate has no revision.
    if let Some(revision) = option_env!("CORACLE_REVISION") {
        labels.push(("revision", revision));
    }
    Family::gauge(
        "coracle_build_info",
        "Always 1; its labels say which coracle this is.",
    )
    .with(&labels, 1.0)
}

/// Named as every Prometheus client library names them. What could not be read is absent.
fn process_families(process: &Usage) -> Vec<Family> {
    let mut families = Vec::new();
    let mut add = |family: Family, value: Option<f64>| {
        families.extend(value.map(|value| family.with(&[], value)));
    };
    let count = |n: Option<u64>| n.map(|n| n as f64);
    add(
        Family::counter(
            "process_cpu_seconds_total",
            "User and system CPU time spent, in seconds.",
        ),
        process.cpu.map(seconds),
    );
    add(
        Family::gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
        ),
        count(process.resident_bytes),
    );
    add(
        Family::gauge(
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
        ),
        count(process.virtual_bytes),
    );
    add(
        Family::gauge(
            "process_start_time_seconds",
            "Start time of the process since the Unix epoch, in seconds.",
        ),
        process.started.map(seconds),
    );
    add(
        Family::gauge("process_open_fds", "Number of open file descriptors."),
        count(process.open_descriptors),
    );
    add(
        Family::gauge(
            "process_max_fds",
            "Maximum number of open file descriptors: the soft limit.",
        ),
        count(process.max_descriptors),
    );
    add(
        Family::gauge("process_threads", "Number of threads."),
        count(process.threads),
    );
    families
}

type OfEntrypoint<'a> = ([NameValue<'a>; 2], &'a EntrypointNumbers);
type OfServer<'a> = ([NameValue<'a>; 2], &'a ServerNumbers);

/// The labels and the numbers of each entrypoint.
pub(super) fn entrypoints(snapshot: &Snapshot) -> impl Iterator<Item = OfEntrypoint<'_>> {
    let names = snapshot.catalogue.entrypoints.iter();
    let labels = names.map(|(name, protocol)| {
        [
            ("entrypoint", name.as_str()),
            ("protocol", protocol.label()),
        ]
    });
    labels.zip(&snapshot.entrypoints)
}

/// The labels and the numbers of each server.
fn servers(snapshot: &Snapshot) -> impl Iterator<Item = OfServer<'_>> {
    let services = snapshot.catalogue.services.iter();
    let labels = services.flat_map(|(service, servers)| {
        let servers = servers.iter();
        servers.map(move |server| [("service", service.as_str()), ("server", server.as_str())])
    });
    labels.zip(&snapshot.servers)
}

fn with<'a>([first, second]: [NameValue<'a>; 2], third: NameValue<'a>) -> [NameValue<'a>; 3] {
    [first, second, third]
}
