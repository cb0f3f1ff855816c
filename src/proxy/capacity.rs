//! How many connections there may be: as many as open files and memory allow.

use std::fmt;

use super::bind::BindError;
use crate::config::Limits;
use crate::net::{MemoryLimits, Reactor};
use crate::sys;

/// The memory of an idle connection: its two sockets take 7.5 KB in the kernel, its task and entry
/// less than 1 KiB in the process.
const IDLE_BYTES: u64 = 9 * 1024;

/// The memory of the rest of the program: code, the log's queue, answers of the admin endpoint.
const PROGRAM_BYTES: u64 = 8 << 20;

/// How much may be held for blocked receivers if the amount of memory is unknown.
const HELD_BYTES: usize = 16 << 20;

/// How many connections there may be, and what limits them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) connections: usize,
    pub(super) by: Limit,
    /// The limit of open files.
    pub(super) open_files: usize,
    /// The memory limit, in bytes: that of the control group or the configured one.
    pub(super) memory: Option<u64>,
    /// Pipes for long streams.
    pub(super) pipes: usize,
    /// How much memory blocked receivers may take.
    pub(super) limits: MemoryLimits,
    machine: Machine,
}

/// What limits the number of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Limit {
    #[default]
    OpenFiles,
    Memory,
    /// `limits.memory`.
    Ceiling,
    /// `limits.max_connections`.
    Configured,
}

impl Limit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OpenFiles => "open_files",
            Self::Memory => "memory",
            Self::Ceiling => "limits.memory",
            Self::Configured => "limits.max_connections",
        }
    }

    /// Returns which limit is reached and how to raise it.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::OpenFiles => "the limit of open files is reached; raise it (ulimit -n)",
            Self::Memory => {
                "the control group's memory limit is reached; raise it (MemoryMax= in the unit)"
            }
            Self::Ceiling => "the configured memory limit is reached; raise it (limits.memory)",
            Self::Configured => {
                "the configured limit is reached; raise it (limits.max_connections)"
            }
        }
    }
}

/// What the machine allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Machine {
    open_files: usize,
    /// Files that are already open.
    open_now: usize,
    memory: Option<u64>,
    /// The machine's memory, if known.
    memory_total: Option<u64>,
    configured: Limits,
}

impl Capacity {
    /// Raises the limit of open files as far as possible, and reads the memory limit.
    ///
    /// # Errors
    /// Returns an error if there is no room for a single connection.
    pub(super) fn of_this_process(limits: Limits) -> Result<Self, BindError> {
        let open_files = sys::descriptors::raise_limit();
        let capacity = Self::of(Machine {
            open_files: usize::try_from(open_files).unwrap_or(usize::MAX),
            open_now: sys::descriptors::open_now().unwrap_or(16),
            memory: sys::cgroup::memory_limit(),
            memory_total: sys::memory::total(),
            configured: limits,
        });
        capacity.with_room()
    }

    fn with_room(self) -> Result<Self, BindError> {
        match (self.connections, self.by) {
            (0, Limit::OpenFiles) => Err(BindError::no_descriptors(self.open_files)),
            (0, Limit::Memory) => Err(BindError::no_memory(self.memory_text())),
            _ => Ok(self),
        }
    }

    /// Returns the capacity with `more` more open descriptors, or fewer if negative.
    #[must_use]
    pub(super) fn with_more_open(&self, more: isize) -> Self {
        Self::of(Machine {
            open_now: self.machine.open_now.saturating_add_signed(more),
            ..self.machine
        })
    }

    /// Returns the capacity under other configured limits.
    #[must_use]
    pub(super) fn within(&self, limits: Limits) -> Self {
        Self::of(Machine {
            configured: limits,
            ..self.machine
        })
    }

    fn of(machine: Machine) -> Self {
        /// For name look-ups and whatever a library opens briefly.
        const SPARE_FILES: usize = 4;
        let open_files = machine.open_files;
        // The admin endpoint serves at most 32 clients, and fewer if there are few descriptors.
        let admin = (open_files / 8).clamp(4, 33);
        let pipes = (open_files / 128).min(Reactor::PIPES);
        let taken = machine.open_now + admin + 2 * pipes + SPARE_FILES;
        let by_files = open_files.saturating_sub(taken) / 2;
        let memory = [machine.memory, machine.configured.memory];
        let memory = memory.into_iter().flatten().min();
        let by_memory = memory.map(by_memory);
        let by_whom = match memory == machine.memory {
            true => Limit::Memory,
            false => Limit::Ceiling,
        };
        let max_connections = machine.configured.max_connections;
        let max_connections = max_connections.map(|most| most.get() as usize);
        let all = [
            (Some(by_files), Limit::OpenFiles),
            (by_memory, by_whom),
            (max_connections, Limit::Configured),
        ];
        let all = all.into_iter().filter_map(|(most, by)| Some((most?, by)));
        let (connections, by) = all.min_by_key(|(most, _)| *most).unwrap_or_default();
        Self {
            connections,
            by,
            open_files,
            memory,
            pipes,
            limits: match memory {
                Some(memory) => limits(memory, connections),
                // The kernel has its own limit for all sockets of the machine (net.ipv4.tcp_mem).
                None => MemoryLimits {
                    held_bytes: machine
                        .memory_total
                        .map_or(HELD_BYTES, |total| size(total / 16)),
                    spare_bytes: None,
                },
            },
            machine,
        }
    }

    /// Formats the memory limit for people.
    pub(super) fn memory_text(&self) -> String {
        self.memory
            .map_or("none".to_owned(), |bytes| Bytes(bytes).to_string())
    }
}

/// Returns the part of a memory limit that is left for connections. The program takes at most half
/// of a tiny limit.
fn room(memory: u64) -> u64 {
    memory - PROGRAM_BYTES.min(memory / 2)
}

/// Returns how many connections fit into seven eighths of the room in a memory limit if every one
/// has a blocked receiver.
fn by_memory(memory: u64) -> usize {
    size(room(memory) / 8 * 7 / (IDLE_BYTES + MemoryLimits::STALLED_BYTES as u64))
}

/// Divides the room: a sixteenth for held bytes and, for larger buffers, what the connections
/// leave, which is at least another sixteenth.
fn limits(memory: u64, connections: usize) -> MemoryLimits {
    let room = room(memory);
    let held = room / 16;
    let least = connections as u64 * (IDLE_BYTES + MemoryLimits::STALLED_BYTES as u64);
    MemoryLimits {
        held_bytes: size(held),
        spare_bytes: Some(size(room - held - least)),
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A number of bytes, displayed in the largest unit that divides it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let fits = |(shift, _): &&(u32, &str)| self.0 > 0 && self.0.trailing_zeros() >= *shift;
        match units.iter().find(fits) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn capacity(open_files: usize, memory: Option<u64>) -> Capacity {
        Capacity::of(Machine {
            open_files,
            open_now: 16,
            memory,
            memory_total: Some(512 * MIB),
            configured: Limits::default(),
        })
    }

    #[test]
    fn smaller_limit_decides() {
        let both = capacity(65_536, Some(128 * MIB));
        assert_eq!((both.connections, both.by), (4_300, Limit::Memory));
        let files = capacity(2_048, Some(128 * MIB));
        assert_eq!((files.connections, files.by), (989, Limit::OpenFiles));
        let no_memory_limit = capacity(65_536, None);
        assert_eq!(no_memory_limit.connections, 32_733);
        assert_eq!(no_memory_limit.by, Limit::OpenFiles);
        assert_eq!(no_memory_limit.limits.held_bytes, 32 << 20);
        assert_eq!(no_memory_limit.limits.spare_bytes, None);
    }

    #[test]
    fn tiny_limit_leaves_some_room_or_is_an_error() {
        assert_eq!(capacity(1_024, Some(4 * MIB)).connections, 71);
        let why = |capacity: Capacity| capacity.with_room().map_err(|why| why.to_string());
        assert_eq!(
            why(capacity(1_024, Some(32 * 1024))),
            Err("the control group's memory limit of 32KiB leaves no room for a connection; raise it (MemoryMax= in the unit)".to_owned())
        );
        assert_eq!(
            why(capacity(8, Some(MIB))),
            Err("the limit of 8 open files leaves no room for a connection; raise it (ulimit -n, or LimitNOFILE= in the unit)".to_owned())
        );
    }

    #[test]
    fn allowances_of_all_connections_fit_in_the_limit() {
        for mib in [1, 4, 16, 32, 64, 128, 256, 512, 1024, 4096] {
            for open_files in [128, 1_024, 8_192, 65_536, 1 << 20] {
                let memory = mib * MIB;
                let capacity = capacity(open_files, Some(memory));
                let connections = capacity.connections as u64;
                // Each with the allowance at the moment it arrives.
                let sockets = (0..capacity.connections).map(|open| {
                    let allowance = capacity.limits.allowance(open);
                    allowance.map_or(MemoryLimits::DEFAULT_BYTES, |allowance| allowance.bytes())
                });
                let sockets: usize = sockets.sum();
                let held = capacity.limits.held_bytes as u64;
                let sum = connections * IDLE_BYTES + sockets as u64 + held;
                let room = memory - PROGRAM_BYTES.min(memory / 2);
                assert!(sum <= room, "{mib} MiB, {open_files} files: {sum} > {room}");
            }
        }
    }

    proptest! {
        #[test]
        fn size_is_read_back_as_it_was(number in any::<u64>(), zeros in 0..64_u32) {
            let bytes = number >> zeros << zeros;
            let text = Bytes(bytes).to_string();
            let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let (number, unit) = text.split_at(at);
            let shift = match unit {
                "B" => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                unit => panic!("{unit}"),
            };
            prop_assert_eq!(number.parse::<u64>().map(|it| it << shift), Ok(bytes));
            // No larger unit divides it.
            let is_largest = bytes == 0 || shift == 30 || bytes % (1024 << shift) != 0;
            prop_assert!(is_largest, "{text}");
        }
    }

    #[test]
    fn sizes_use_the_largest_unit_that_divides_them() {
        let text = |bytes| Bytes(bytes).to_string();
        assert_eq!(text(128 * MIB), "128MiB");
        assert_eq!(text(1 << 31), "2GiB");
        assert_eq!(text(1536), "1536B");
        assert_eq!(text(100_000_000), "100000000B");
        assert_eq!(text(0), "0B");
    }
}
