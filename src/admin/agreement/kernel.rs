//! The kernel's count of the connections, compared with the set's. It is read only as often as its
//! cost permits.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::comparison::{BETWEEN_READINGS, Moment, READINGS, lasting, mismatch};
use crate::admin::moments::Moments;
use crate::admin::park::Park;
use crate::state::{
    Addresses, EntrypointId, EntrypointIdentity, EntrypointNumbers, Local, Metric, Publish,
    Snapshot, Sorted,
};
use crate::sys::process::thread_cpu_time;
use crate::sys::sockets::{self, Name, Query, Table, TableSource};

/// A reading answers everyone who asks within this time.
const FRESH: Duration = Duration::from_secs(1);
/// A slow reading is used for this many times as long as it took, so readings take at most a
/// twentieth of one core.
const COST_FACTOR: u32 = 20;

/// One entrypoint's connections, as the kernel counts them.
#[derive(Clone, Debug)]
pub(crate) struct Count {
    /// The entrypoint.
    pub entrypoint: Arc<EntrypointIdentity>,
    /// Accepted sockets that this process owns.
    pub connections: u64,
    /// Connections that wait in the kernel to be accepted. `None` if the kernel does not report
    /// them.
    pub backlog: Option<u64>,
    /// The kernel's count minus the set's, as far as the difference persisted.
    pub mismatch: i64,
}

impl Publish for Count {
    const METRICS: &'static [Metric<Self>] = &[
        Metric::gauge(
            "coracle_kernel_connections",
            "Accepted sockets of this process in the kernel's table, at most a second ago.",
            |it, out| out.value(it.connections),
        ),
        Metric::gauge(
            "coracle_accept_backlog",
            "Connections that wait in the kernel to be accepted, at most a second ago.",
            |it, out| {
                if let Some(backlog) = it.backlog {
                    out.value(backlog);
                }
            },
        ),
        Metric::gauge(
            "coracle_connection_mismatch",
            "The kernel's count minus the set's, as far as the difference persisted through several readings; 0 means they agree.",
            |it, out| out.number(None, it.mismatch as f64),
        ),
    ];

    fn labels<'a>(&'a self, add: &mut dyn FnMut(&'static str, &'a str)) {
        add("entrypoint", &self.entrypoint.name);
    }
}

/// Counts on request.
#[derive(Debug)]
pub(crate) struct Kernel {
    source: RefCell<sockets::SocketTables>,
    last: RefCell<Option<Last>>,
    park: Rc<Park>,
}

#[derive(Clone, Debug)]
struct Last {
    counts: Rc<[Count]>,
    until: Instant,
}

impl Kernel {
    /// Counts in these tables.
    #[must_use]
    pub(crate) fn new(source: sockets::SocketTables, park: Rc<Park>) -> Self {
        Self {
            source: RefCell::new(source),
            last: RefCell::new(None),
            park,
        }
    }

    /// Returns one count per entrypoint, in the order of the entrypoints. Returns `None` if the
    /// kernel does not report them, or if the data loop does not answer.
    pub(crate) async fn counts(&self, moments: &Moments) -> Option<Rc<[Count]>> {
        if let Some(last) = &*self.last.borrow()
            && Instant::now() < last.until
        {
            return Some(last.counts.clone());
        }
        let (counts, cost) = self.count(moments).await;
        let until = Instant::now() + FRESH.max(cost * COST_FACTOR);
        let counts: Rc<[Count]> = counts?.into();
        let last = Last {
            counts: counts.clone(),
            until,
        };
        self.last.replace(Some(last));
        Some(counts)
    }

    /// Counts until no difference is left, or until the remaining differences have persisted. Also
    /// returns what the readings cost.
    async fn count(&self, moments: &Moments) -> (Option<Vec<Count>>, Duration) {
        let mut cost = Duration::ZERO;
        let mut found: Option<Vec<Count>> = None;
        for reading in 1..=READINGS {
            moments.rested().await;
            let Some(before) = moments.snapshot().await else {
                return (None, cost);
            };
            // Connections that both sides have closed are worth reading only if something is
            // missing.
            let Some((_, table, took)) = self.read(&before.addresses, reading > 1) else {
                return (None, cost);
            };
            cost += took;
            moments.rested().await;
            let Some(after) = moments.snapshot().await else {
                return (None, cost);
            };
            let mut counts = compare(&before, &table, &after);
            if let Some(earlier) = &found {
                for count in &mut counts {
                    let same = |it: &&Count| it.entrypoint.id == count.entrypoint.id;
                    let earlier = earlier.iter().find(same).map_or(0, |it| it.mismatch);
                    count.mismatch = lasting(earlier, count.mismatch);
                }
            }
            let all_agree = counts.iter().all(|count| count.mismatch == 0);
            found = Some(counts);
            if all_agree {
                break;
            }
            if reading < READINGS {
                self.park.sleep(BETWEEN_READINGS).await;
            }
        }
        (found, cost)
    }

    /// Reads the part of the kernel's table that belongs to the entrypoints. With `closed`, this
    /// includes sockets that are still held although both sides have closed them. Also returns the
    /// processor time that this took: it is the only thing here that keeps the thread busy.
    pub(crate) fn read(
        &self,
        addresses: &Addresses,
        closed: bool,
    ) -> Option<(TableSource, Table, Duration)> {
        // Not the elapsed time: under load, or after a pause, that would serve stale numbers for
        // minutes.
        let begun = thread_cpu_time();
        let (source, table) = self.source.borrow_mut().read(&query(addresses, closed))?;
        Some((source, table, thread_cpu_time().saturating_sub(begun)))
    }
}

/// Returns the entrypoint that accepted a socket of this name, or that listens with it.
#[must_use]
pub(super) fn entrypoint_of(addresses: &Addresses, name: &Name) -> Option<EntrypointId> {
    addresses.entrypoint_of(&match name {
        Name::Tcp(address) => Local::Tcp(*address),
        Name::Unix(path) => Local::Unix(path.clone()),
    })
}

fn query(addresses: &Addresses, closed: bool) -> Query {
    let mut query = Query {
        closed,
        ..Query::default()
    };
    for local in addresses.all() {
        match local {
            Local::Tcp(address) => query.ports.push(address.port()),
            Local::Unix(_) => query.unix = true,
        }
    }
    query.ports.sort_unstable();
    query.ports.dedup();
    query
}

fn moment(numbers: &EntrypointNumbers) -> Moment {
    Moment {
        open: numbers.open,
        opened: numbers.counters.opened.value(),
        closed: numbers.counters.closed.iter().map(|(_, n)| n).sum(),
    }
}

/// Entrypoints whose sockets the kernel cannot tell apart, because one took over an address from
/// another.
#[derive(Debug, Default)]
struct Group {
    before: Moment,
    after: Moment,
    connections: u64,
}

/// Returns the kernel's count for each entrypoint that exists. Of a group, only the sum is known:
/// every member but the youngest is given its number in the set, and the youngest gets the rest,
/// with the mismatch.
fn compare(before: &Snapshot, table: &Table, after: &Snapshot) -> Vec<Count> {
    let addresses = &after.addresses;
    let mut groups: Sorted<EntrypointId, Group> = Sorted::new();
    let mut earlier: Sorted<EntrypointId, Moment> = Sorted::new();
    for it in &before.entrypoints {
        earlier.insert(it.identity.id, moment(it));
    }
    for it in &after.entrypoints {
        let group = groups.or_default(addresses.group_of(it.identity.id));
        // One that appeared meanwhile started with nothing.
        let began = earlier.remove(&it.identity.id).unwrap_or_default();
        group.before = group.before.plus(began);
        group.after = group.after.plus(moment(it));
    }
    // One that disappeared meanwhile lost all its connections.
    for (id, moment) in earlier {
        let group = groups.or_default(addresses.group_of(id));
        group.before = group.before.plus(moment);
        group.after = group.after.plus(moment.ended());
    }
    for row in &table.accepted {
        if let Some(id) = entrypoint_of(addresses, &row.local) {
            groups.or_default(addresses.group_of(id)).connections += 1;
        }
    }
    let mut backlogs: Sorted<EntrypointId, Option<u64>> = Sorted::new();
    for row in &table.listening {
        if let Some(id) = entrypoint_of(addresses, &row.local) {
            let backlog = backlogs.or_insert(id, Some(0));
            *backlog = backlog.zip(row.backlog).map(|(sum, n)| sum + n);
        }
    }
    let mut counts = Vec::new();
    // The youngest comes first: it takes the whole group, and leaves nothing for the others.
    for it in after.entrypoints.iter().rev() {
        let group = groups.remove(&addresses.group_of(it.identity.id));
        let (connections, mismatch) = group.map_or((it.open, 0), |group| {
            let others = group.after.open.saturating_sub(it.open);
            let own = group.connections.saturating_sub(others);
            (own, mismatch(group.before, group.connections, group.after))
        });
        counts.push(Count {
            entrypoint: it.identity.clone(),
            connections,
            backlog: backlogs.get(&it.identity.id).copied().unwrap_or(Some(0)),
            mismatch,
        });
    }
    counts.reverse();
    counts
}
