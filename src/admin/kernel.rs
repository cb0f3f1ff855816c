//! The kernel's count of the connections beside the set's, gathered off the loop's thread and no more often than it is worth.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_io::Timer;
use smol::lock::Mutex as AsyncMutex;

use crate::state::agreement::{Moment, lasting, mismatch};
use crate::state::{Local, Shared};
use crate::sys::process::thread_cpu_time;
use crate::sys::sockets::{self, Name, Query, Source, Table};

/// A reading serves all who ask within this time.
const FRESH: Duration = Duration::from_secs(1);
/// A reading that took long serves for this many times as long, so that readings take a twentieth of one core at most.
const COST_FACTOR: u32 = 20;
/// A difference must show in this many readings in a row.
const READINGS: u32 = 3;
/// The time from one of them to the next: the loop has long heard by then of whatever has ended in the kernel.
const BETWEEN_READINGS: Duration = Duration::from_millis(100);

/// What one entrypoint's connections are in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Accepted sockets that this process owns.
    pub connections: u64,
    /// Connections that wait in the kernel to be accepted; `None` where it does not tell.
    pub backlog: Option<u64>,
    /// The kernel's count less the set's, as far as it lasted.
    pub mismatch: i64,
}

/// Counts on request.
#[derive(Debug)]
pub struct Kernel {
    source: Arc<Mutex<sockets::Kernel>>,
    /// Held while a reading is under way, so that there is one at a time.
    reading: AsyncMutex<()>,
    last: RefCell<Option<Last>>,
}

#[derive(Clone, Debug)]
struct Last {
    counts: Option<Rc<[Count]>>,
    until: Instant,
}

impl Kernel {
    /// Opens the kernel's tables.
    #[must_use]
    pub fn open() -> Self {
        Self {
            source: Arc::new(Mutex::new(sockets::Kernel::open())),
            reading: AsyncMutex::new(()),
            last: RefCell::new(None),
        }
    }

    /// One count per entrypoint, in their order; `None` where the kernel does not tell.
    pub async fn counts(&self, shared: &Shared) -> Option<Rc<[Count]>> {
        let _one_at_a_time = self.reading.lock().await;
        if let Some(last) = &*self.last.borrow()
            && Instant::now() < last.until
        {
            return last.counts.clone();
        }
        let (counts, cost) = self.count(shared).await;
        let until = Instant::now() + FRESH.max(cost * COST_FACTOR);
        let counts: Option<Rc<[Count]>> = counts.map(Rc::from);
        let last = Last {
            counts: counts.clone(),
            until,
        };
        self.last.replace(Some(last));
        counts
    }

    /// Counts until no difference is left, or what is left has lasted. Returns what the readings cost.
    async fn count(&self, shared: &Shared) -> (Option<Vec<Count>>, Duration) {
        let mut cost = Duration::ZERO;
        let mut found: Option<Vec<Count>> = None;
        for reading in 1..=READINGS {
            let before = moments(shared);
            // What both sides have closed is worth a look only where something is missing.
            let Some((_, table, took)) = self.read(shared, reading > 1).await else {
                return (None, cost);
            };
            cost += took;
            let after = moments(shared);
            let mut counts = compare(shared, &before, &table, &after);
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
                Timer::after(BETWEEN_READINGS).await;
            }
        }
        (found, cost)
    }

    /// Reads the kernel's table of what belongs to the entrypoints on another thread, and with `closed` the sockets that are
    /// held although both sides have closed them. Returns how much processor time that took.
    pub async fn read(&self, shared: &Shared, closed: bool) -> Option<(Source, Table, Duration)> {
        let source = self.source.clone();
        let query = query(shared, closed);
        blocking::unblock(move || {
            // Not the time that has passed: beside a load, or after a pause, old numbers would be served for minutes.
            let begun = thread_cpu_time();
            let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
            let (source, table) = source.read(&query)?;
            Some((source, table, thread_cpu_time() - begun))
        })
        .await
    }
}

/// The entrypoint that a socket of this name was accepted on, or listens for.
#[must_use]
pub fn entrypoint_of(shared: &Shared, name: &Name) -> Option<usize> {
    let local = match name {
        Name::Tcp(address) => Local::Tcp(*address),
        Name::Unix(path) => Local::Unix(path.clone()),
    };
    let entrypoints = shared.entrypoints.iter();
    let fits =
        entrypoints.filter_map(|entrypoint| Some((entrypoint.accepts(&local)?, entrypoint.index)));
    fits.min().map(|(_, index)| index)
}

fn query(shared: &Shared, closed: bool) -> Query {
    let mut query = Query {
        closed,
        ..Query::default()
    };
    for local in shared
        .entrypoints
        .iter()
        .flat_map(|entrypoint| entrypoint.listening())
    {
        match local {
            Local::Tcp(address) => query.ports.push(address.port()),
            Local::Unix(_) => query.unix = true,
        }
    }
    query.ports.sort_unstable();
    query.ports.dedup();
    query
}

fn moments(shared: &Shared) -> Vec<Moment> {
    let mut open = vec![0; shared.entrypoints.len()];
    shared
        .conns
        .for_each(|conn| open[conn.entrypoint.index] += 1);
    let entrypoints = shared.entrypoints.iter().zip(open);
    let moment = entrypoints.map(|(entrypoint, open)| Moment {
        open,
        opened: entrypoint.opened.value(),
        closed: entrypoint.closed.iter().map(|(_, n)| n).sum(),
    });
    moment.collect()
}

fn compare(shared: &Shared, before: &[Moment], table: &Table, after: &[Moment]) -> Vec<Count> {
    let mut connections = vec![0; shared.entrypoints.len()];
    for row in &table.accepted {
        if let Some(index) = entrypoint_of(shared, &row.local) {
            connections[index] += 1;
        }
    }
    let mut backlogs = vec![Some(0); shared.entrypoints.len()];
    for row in &table.listening {
        if let Some(index) = entrypoint_of(shared, &row.local) {
            backlogs[index] = backlogs[index].zip(row.backlog).map(|(sum, n)| sum + n);
        }
    }
    let each = connections
        .into_iter()
        .zip(backlogs)
        .zip(before.iter().zip(after));
    each.map(|((connections, backlog), (before, after))| Count {
        connections,
        backlog,
        mismatch: mismatch(*before, connections, *after),
    })
    .collect()
}
