//! The kernel's count of the connections beside the set's, gathered no more often than it is worth.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::comparison::{BETWEEN_READINGS, Moment, READINGS, lasting, mismatch};
use crate::admin::moments::Moments;
use crate::admin::park::Park;
use crate::state::{Catalogue, Local, Snapshot};
use crate::sys::process::thread_cpu_time;
use crate::sys::sockets::{self, Name, Query, Table, TableSource};

/// A reading serves all who ask within this time.
const FRESH: Duration = Duration::from_secs(1);
/// A reading that took long serves for this many times as long, so that readings take a twentieth of one core at most.
const COST_FACTOR: u32 = 20;

/// What one entrypoint's connections are in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// Accepted sockets that this process owns.
    pub connections: u64,
    /// Connections that wait in the kernel to be accepted; `None` where it does not tell.
    pub backlog: Option<u64>,
    /// The kernel's count less the set's, as far as it lasted.
    pub mismatch: i64,
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
    /// Counts in the kernel's tables.
    #[must_use]
    pub(crate) fn new(source: sockets::SocketTables, park: Rc<Park>) -> Self {
        Self {
            source: RefCell::new(source),
            last: RefCell::new(None),
            park,
        }
    }

    /// One count per entrypoint, in their order; `None` where the kernel does not tell, or the loop does not answer.
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

    /// Counts until no difference is left, or what is left has lasted. Returns what the readings cost.
    async fn count(&self, moments: &Moments) -> (Option<Vec<Count>>, Duration) {
        let mut cost = Duration::ZERO;
        let mut found: Option<Vec<Count>> = None;
        for reading in 1..=READINGS {
            moments.turn().await;
            let Some(before) = moments.snapshot().await else {
                return (None, cost);
            };
            // What both sides have closed is worth a look only where something is missing.
            let Some((_, table, took)) = self.read(&before.catalogue, reading > 1) else {
                return (None, cost);
            };
            cost += took;
            moments.turn().await;
            let Some(after) = moments.snapshot().await else {
                return (None, cost);
            };
            let mut counts = compare(&before, &table, &after);
            if let Some(earlier) = &found {
                for (count, earlier) in counts.iter_mut().zip(earlier) {
                    count.mismatch = lasting(earlier.mismatch, count.mismatch);
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

    /// Reads the kernel's table of what belongs to the entrypoints, and with `closed` the sockets that are held although both sides
    /// have closed them. Returns how much processor time that took: it is the one thing here that keeps the thread.
    pub(crate) fn read(
        &self,
        catalogue: &Catalogue,
        closed: bool,
    ) -> Option<(TableSource, Table, Duration)> {
        // Not the time that has passed: beside a load, or after a pause, old numbers would be served for minutes.
        let begun = thread_cpu_time();
        let (source, table) = self.source.borrow_mut().read(&query(catalogue, closed))?;
        Some((source, table, thread_cpu_time().saturating_sub(begun)))
    }
}

/// The entrypoint that a socket of this name was accepted on, or listens for.
#[must_use]
pub(super) fn entrypoint_of(catalogue: &Catalogue, name: &Name) -> Option<usize> {
    catalogue.entrypoint_of(&match name {
        Name::Tcp(address) => Local::Tcp(*address),
        Name::Unix(path) => Local::Unix(path.clone()),
    })
}

fn query(catalogue: &Catalogue, closed: bool) -> Query {
    let mut query = Query {
        closed,
        ..Query::default()
    };
    for local in catalogue.listening() {
        match local {
            Local::Tcp(address) => query.ports.push(address.port()),
            Local::Unix(_) => query.unix = true,
        }
    }
    query.ports.sort_unstable();
    query.ports.dedup();
    query
}

fn moment(snapshot: &Snapshot, entrypoint: usize) -> Moment {
    let numbers = &snapshot.entrypoints[entrypoint];
    Moment {
        open: numbers.open,
        opened: numbers.opened.value(),
        closed: numbers.closed.iter().map(|(_, n)| n).sum(),
    }
}

fn compare(before: &Snapshot, table: &Table, after: &Snapshot) -> Vec<Count> {
    let catalogue = &after.catalogue;
    let mut connections = vec![0; after.entrypoints.len()];
    for row in &table.accepted {
        if let Some(index) = entrypoint_of(catalogue, &row.local) {
            connections[index] += 1;
        }
    }
    let mut backlogs = vec![Some(0); after.entrypoints.len()];
    for row in &table.listening {
        if let Some(index) = entrypoint_of(catalogue, &row.local) {
            backlogs[index] = backlogs[index].zip(row.backlog).map(|(sum, n)| sum + n);
        }
    }
    let each = connections.into_iter().zip(backlogs).enumerate();
    each.map(|(index, (connections, backlog))| Count {
        connections,
        backlog,
        mismatch: mismatch(moment(before, index), connections, moment(after, index)),
    })
    .collect()
}
