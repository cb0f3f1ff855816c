//! Publishes one copy of the state, the kernel's counts and the process's figures as metric
//! families.
//!
//! Nothing is kept here between two scrapes. A snapshot is one moment, so in every scrape the
//! opened connections minus the closed ones equal the open ones. Each metric is defined next to the
//! state that it reads. Only metrics without such a place are defined here.

use super::output::Output;
use super::traefik;
use crate::admin::agreement::Count;
use crate::admin::requests::{Answered, Followers};
use crate::state::{Metric, Publish, Snapshot};
use crate::sys::{self, process::Usage};

/// Writes every family that has samples.
///
/// To publish another number of a type that is already written here, add it to that type's metrics.
/// To publish another type, write it here too.
pub(crate) async fn write(
    out: &mut Output,
    snapshot: &Snapshot,
    process: Usage,
    counts: Option<&[Count]>,
    (requests, followers): (&[Answered], Followers),
) {
    out.publish(&[Build::this()]).await;
    out.publish(&snapshot.entrypoints).await;
    // The counts can be a second old, and an entrypoint can be gone by now.
    let lives = |count: &&Count| {
        let mut entrypoints = snapshot.entrypoints.iter();
        entrypoints.any(|it| it.identity.id == count.entrypoint.id)
    };
    let counts = counts.unwrap_or_default().iter().filter(lives);
    out.publish(&counts.cloned().collect::<Vec<_>>()).await;
    out.publish(&snapshot.services).await;
    out.publish(&snapshot.servers).await;
    out.publish(&[snapshot.held]).await;
    out.publish(std::slice::from_ref(&snapshot.ceiling)).await;
    out.publish(std::slice::from_ref(&snapshot.config_loads))
        .await;
    out.publish(snapshot.accounts.as_slice()).await;
    out.publish(&[snapshot.loop_times]).await;
    out.publish(requests).await;
    out.publish(&[followers]).await;
    if snapshot.traefik_names {
        traefik::write(out, snapshot).await;
    }
    out.publish(&[process]).await;
}

/// The running version of coracle.
struct Build {
    target: String,
}

impl Build {
    fn this() -> Self {
        let target = sys::target();
        Self { target }
    }
}

impl Publish for Build {
    const METRICS: &'static [Metric<Self>] = &[Metric::gauge(
        "coracle_build_info",
        "Always 1; its labels are the version and the target.",
        |_, out| out.value(1),
    )];

    fn labels<'a>(&'a self, add: &mut dyn FnMut(&'static str, &'a str)) {
        add("version", env!("CARGO_PKG_VERSION"));
        add("target", &self.target);
        // Set when building from a checkout. A build from a crate has no revision.
        if let Some(revision) = option_env!("CORACLE_REVISION") {
            add("revision", revision);
        }
    }
}

/// The names are those of every Prometheus client library. What could not be read is absent.
impl Publish for Usage {
    const METRICS: &'static [Metric<Self>] = &[
        Metric::counter(
            "process_cpu_seconds_total",
            "User and system CPU time spent, in seconds.",
            |it, out| {
                it.cpu
                    .iter()
                    .for_each(|it| out.number(None, it.as_secs_f64()));
            },
        ),
        Metric::gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            |it, out| it.resident_bytes.iter().for_each(|it| out.value(*it)),
        ),
        Metric::gauge(
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            |it, out| it.virtual_bytes.iter().for_each(|it| out.value(*it)),
        ),
        Metric::gauge(
            "process_start_time_seconds",
            "Start time of the process since the Unix epoch, in seconds.",
            |it, out| {
                it.started
                    .iter()
                    .for_each(|it| out.number(None, it.as_secs_f64()));
            },
        ),
        Metric::gauge(
            "process_open_fds",
            "Number of open file descriptors.",
            |it, out| it.open_descriptors.iter().for_each(|it| out.value(*it)),
        ),
        Metric::gauge(
            "process_max_fds",
            "Maximum number of open file descriptors: the soft limit.",
            |it, out| it.max_descriptors.iter().for_each(|it| out.value(*it)),
        ),
        Metric::gauge("process_threads", "Number of threads.", |it, out| {
            it.threads.iter().for_each(|it| out.value(*it));
        }),
    ];

    fn labels<'a>(&'a self, _add: &mut dyn FnMut(&'static str, &'a str)) {}
}
