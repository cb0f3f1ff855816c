//! What is published: one consistent snapshot of the state as metric families, built when it is asked for.
//!
//! Nothing here is kept between two scrapes. No await comes between the first family and the last, so in every scrape the
//! opened connections less the closed ones are the open ones.

use prometheus::proto::MetricFamily;

use super::family::{Family, Label, seconds};
use super::kernel::Count;
use super::traefik;
use crate::state::{Entrypoint, Held, HeldIn, Label as _, Server, Service, Shared};
use crate::sys::{self, process::Usage};

/// Hands every family that has samples to `emit`, one after the other, so that only one is in memory at a time.
///
/// To publish more, write one more function that returns a [`Family`] and name it here.
pub fn families(
    shared: &Shared,
    process: &Usage,
    counts: Option<&[Count]>,
    mut emit: impl FnMut(MetricFamily),
) {
    let open = Open::count(shared);
    let mut emit = |family: Family| family.finish().into_iter().for_each(&mut emit);
    emit(build_info());
    emit(open_connections(shared, &open));
    if let Some(counts) = counts {
        kernel_families(shared, counts)
            .into_iter()
            .for_each(&mut emit);
    }
    emit(opened(shared));
    emit(closed(shared));
    emit(connection_duration(shared));
    emit(bytes(shared));
    emit(accept_errors(shared));
    emit(service_open_connections(shared, &open));
    emit(connect_duration(shared));
    emit(connect_errors(shared));
    emit(memory_held(&shared.held));
    if shared.traefik_names {
        let families = traefik::families(shared, &open.entrypoints);
        families.into_iter().for_each(&mut emit);
    }
    process_families(process).into_iter().for_each(emit);
}

/// How the set is spread over entrypoints and servers: read off its entries, never counted beside it.
struct Open {
    entrypoints: Vec<u64>,
    servers: Vec<Vec<u64>>,
}

impl Open {
    fn count(shared: &Shared) -> Self {
        let servers = shared.services.iter().map(|s| vec![0; s.servers.len()]);
        let mut open = Self {
            entrypoints: vec![0; shared.entrypoints.len()],
            servers: servers.collect(),
        };
        shared.conns.for_each(|conn| {
            open.entrypoints[conn.entrypoint.index] += 1;
            if let Some(server) = conn.server() {
                open.servers[conn.service.index][server.index()] += 1;
            }
        });
        open
    }
}

fn open_connections(shared: &Shared, open: &Open) -> Family {
    let mut family = Family::gauge(
        "coracle_open_connections",
        "Connections that are open now: the length of the set of connections, read at this scrape.",
    );
    for entrypoint in &shared.entrypoints {
        let n = open.entrypoints[entrypoint.index];
        family.sample(&of_entrypoint(entrypoint), n as f64);
    }
    family
}

fn memory_held(held: &Held) -> Family {
    let mut family = Family::gauge(
        "coracle_memory_held_bytes",
        "Bytes that were read and that blocked receivers have not taken yet, in the process (spill) or in pipes.",
    );
    for (kind, place) in [("spill", HeldIn::Spill), ("pipe", HeldIn::Pipe)] {
        family.sample(&[("kind", kind)], held.bytes(place) as f64);
    }
    family
}

/// What the kernel says of the same connections. Absent where it does not tell.
fn kernel_families(shared: &Shared, counts: &[Count]) -> [Family; 3] {
    let mut connections = Family::gauge(
        "coracle_kernel_connections",
        "Accepted sockets of this process in the kernel's table, at most a second ago.",
    );
    let mut backlog = Family::gauge(
        "coracle_accept_backlog",
        "Connections that the kernel holds and that are not accepted yet, at most a second ago.",
    );
    let mut mismatch = Family::gauge(
        "coracle_connection_mismatch",
        "The kernel's count less the set's, as far as the difference lasted through several readings; 0 is right.",
    );
    for (entrypoint, count) in shared.entrypoints.iter().zip(counts) {
        let labels = [("entrypoint", entrypoint.name.as_str())];
        connections.sample(&labels, count.connections as f64);
        mismatch.sample(&labels, count.mismatch as f64);
        if let Some(n) = count.backlog {
            backlog.sample(&labels, n as f64);
        }
    }
    [connections, backlog, mismatch]
}

fn opened(shared: &Shared) -> Family {
    let mut family = Family::counter(
        "coracle_connections_opened_total",
        "Connections that were accepted and entered the set of connections.",
    );
    for entrypoint in &shared.entrypoints {
        family.sample(&of_entrypoint(entrypoint), entrypoint.opened.value() as f64);
    }
    family
}

fn closed(shared: &Shared) -> Family {
    let mut family = Family::counter(
        "coracle_connections_closed_total",
        "Connections that left the set of connections, by the reason for which they ended.",
    );
    for entrypoint in &shared.entrypoints {
        for (reason, n) in entrypoint.closed.iter() {
            let labels = with(of_entrypoint(entrypoint), ("reason", reason.label()));
            family.sample(&labels, n as f64);
        }
    }
    family
}

fn connection_duration(shared: &Shared) -> Family {
    let mut family = Family::histogram(
        "coracle_connection_duration_seconds",
        "How long the connections that have ended were open, in seconds.",
    );
    for entrypoint in &shared.entrypoints {
        family.observed(&of_entrypoint(entrypoint), &entrypoint.duration);
    }
    family
}

fn bytes(shared: &Shared) -> Family {
    let mut family = Family::counter(
        "coracle_bytes_total",
        "Payload bytes passed on, counted as they pass.",
    );
    for entrypoint in &shared.entrypoints {
        for (direction, n) in entrypoint.bytes.iter() {
            let labels = with(of_entrypoint(entrypoint), ("direction", direction.label()));
            family.sample(&labels, n as f64);
        }
    }
    family
}

fn accept_errors(shared: &Shared) -> Family {
    let mut family = Family::counter(
        "coracle_accept_errors_total",
        "Failed attempts to accept a connection. The listener goes on after each of them.",
    );
    for entrypoint in &shared.entrypoints {
        for (reason, n) in entrypoint.accept_errors.iter() {
            let labels = with(of_entrypoint(entrypoint), ("reason", reason.label()));
            family.sample(&labels, n as f64);
        }
    }
    family
}

fn service_open_connections(shared: &Shared, open: &Open) -> Family {
    let mut family = Family::gauge(
        "coracle_service_open_connections",
        "Open connections that are connected to this server; those that are still dialling belong to none.",
    );
    for service in &shared.services {
        for (server, n) in service.servers.iter().zip(&open.servers[service.index]) {
            family.sample(&of_server(service, server), *n as f64);
        }
    }
    family
}

fn connect_duration(shared: &Shared) -> Family {
    let mut family = Family::histogram(
        "coracle_connect_duration_seconds",
        "How long it took to connect to the server, in seconds, for each success.",
    );
    for service in &shared.services {
        for server in &service.servers {
            family.observed(&of_server(service, server), &server.connect_duration);
        }
    }
    family
}

fn connect_errors(shared: &Shared) -> Family {
    let mut family = Family::counter(
        "coracle_connect_errors_total",
        "Failed attempts to connect to the server.",
    );
    for service in &shared.services {
        for server in &service.servers {
            for (reason, n) in server.connect_errors.iter() {
                let labels = with(of_server(service, server), ("reason", reason.label()));
                family.sample(&labels, n as f64);
            }
        }
    }
    family
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

fn of_entrypoint(entrypoint: &Entrypoint) -> [Label<'_>; 2] {
    [
        ("entrypoint", entrypoint.name.as_str()),
        ("protocol", entrypoint.protocol.label()),
    ]
}

fn of_server<'a>(service: &'a Service, server: &'a Server) -> [Label<'a>; 2] {
    [
        ("service", service.name.as_str()),
        ("server", server.name.as_str()),
    ]
}

fn with<'a>([first, second]: [Label<'a>; 2], third: Label<'a>) -> [Label<'a>; 3] {
    [first, second, third]
}
