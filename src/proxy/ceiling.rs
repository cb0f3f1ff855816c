//! Keeps the program below its memory ceiling (`limits.memory`).

use std::time::Duration;

use super::ground::Ground;
use crate::net::MemoryLimits;
use crate::state::{CloseReason, Pressure};
use crate::sys;

/// How often the memory is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Which part of the connections is ended at each look.
const PART: usize = 16;

/// Looks at the memory every second, and acts while the program takes more than `most` bytes. Runs
/// until cancelled; [`lift`] then undoes what it did.
pub(super) async fn keep_below(ground: Ground, most: u64) {
    let shared = ground.shared.clone();
    let conns = &shared.conns;
    let mut last = None;
    loop {
        ground.reactor.sleep(TICK).await;
        // What the allocator keeps is not needed.
        if last.is_some() {
            sys::memory::trim();
        }
        // Without /proc there is nothing to look at. The plan of `Capacity` still holds.
        let Some(taken) = sys::memory::own() else {
            continue;
        };
        let pressure = shared.ceiling.look(taken, most);
        if pressure == Some(Pressure::EndIdle) {
            let n = conns.len().div_ceil(PART);
            let ended = conns.kill_longest_silent(n, CloseReason::Memory, ground.reactor.now());
            if ended > 0 {
                log::warn!(
                    "memory ceiling: {} KiB of {} KiB are used; ended the {ended} connections that were idle the longest; raise it (limits.memory)",
                    taken / 1024,
                    most / 1024
                );
            }
        }
        if pressure == last {
            continue;
        }
        last = pressure;
        match pressure {
            None => log::info!(
                "memory ceiling: {} KiB of {} KiB are used; accepting again",
                taken / 1024,
                most / 1024
            ),
            Some(Pressure::StopAccepting) => log::warn!(
                "memory ceiling: {} KiB of {} KiB are used; new connections wait; raise it (limits.memory)",
                taken / 1024,
                most / 1024
            ),
            Some(_) => {}
        }
        conns.close(pressure.is_some());
        let limits = ground.capacity.get().limits;
        ground.reactor.limit_memory(match pressure {
            None | Some(Pressure::StopAccepting) => limits,
            Some(_) => MemoryLimits {
                held_bytes: 0,
                ..limits
            },
        });
    }
}

/// Undoes what [`keep_below`] did.
pub(super) fn lift(ground: &Ground) {
    ground.shared.ceiling.lift();
    ground.shared.conns.close(false);
    ground.reactor.limit_memory(ground.capacity.get().limits);
}
