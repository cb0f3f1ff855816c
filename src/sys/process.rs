//! What the kernel reports about this process, read through descriptors that are opened once and
//! kept.
//!
//! Reading opens no descriptor, so it still works when descriptors have run out, which is when it
//! matters most.

use std::ffi::CStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{RawDir, SeekFrom};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The open sources.
///
/// If a source cannot be opened (no `/proc`), its values are missing.
#[derive(Debug)]
pub struct Process {
    stat: Option<File>,
    descriptors: Option<File>,
    booted: Option<Duration>,
    ticks_per_second: u64,
    page_bytes: u64,
}

/// One reading.
///
/// A value that could not be read is `None`, never an invented number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time of all threads, in user and kernel mode.
    pub cpu: Option<Duration>,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space in bytes.
    pub virtual_bytes: Option<u64>,
    /// When the process started, since the Unix epoch.
    pub started: Option<Duration>,
    /// The number of threads.
    pub threads: Option<u64>,
    /// The number of open descriptors, including those of [`Process`].
    pub open_descriptors: Option<u64>,
    /// The most descriptors that may be open: the soft limit RLIMIT_NOFILE. `None` if unlimited or
    /// unknown.
    pub max_descriptors: Option<u64>,
}

impl Process {
    /// Opens the sources of this process.
    #[must_use]
    pub fn open() -> Self {
        let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            stat: File::open("/proc/self/stat").ok(),
            descriptors: File::open("/proc/self/fd").ok(),
            booted: boot_time(&boot),
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
            page_bytes: rustix::param::page_size() as u64,
        }
    }

    /// Reads all values again.
    ///
    /// Opens nothing.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut buf = [0; 1024];
        let stat = self
            .stat
            .as_ref()
            .and_then(|file| file.read_at(&mut buf, 0).ok())
            .and_then(|n| Stat::parse(&buf[..n]));
        Usage {
            cpu: stat.as_ref().map(|stat| self.time(stat.cpu_ticks)),
            resident_bytes: stat.as_ref().map(|stat| stat.pages * self.page_bytes),
            virtual_bytes: stat.as_ref().map(|stat| stat.virtual_bytes),
            started: stat
                .as_ref()
                .and_then(|stat| Some(self.booted? + self.time(stat.start_ticks))),
            threads: stat.as_ref().map(|stat| stat.threads),
            open_descriptors: self.descriptors.as_ref().and_then(open_descriptors),
            max_descriptors: getrlimit(Resource::Nofile).current,
        }
    }

    fn time(&self, ticks: u64) -> Duration {
        let part = (ticks % self.ticks_per_second) * 1_000_000_000 / self.ticks_per_second;
        Duration::from_secs(ticks / self.ticks_per_second) + Duration::from_nanos(part)
    }
}

/// Returns the number of open descriptors.
///
/// Since Linux 6.2 this is the size of `/proc/self/fd`. Earlier kernels report 0, so the entries
/// are counted.
fn open_descriptors(directory: &File) -> Option<u64> {
    match rustix::fs::fstat(directory).ok()?.st_size {
        0 => entries(directory),
        n => u64::try_from(n).ok(),
    }
}

/// Counts a directory's entries through the existing descriptor.
///
/// `rustix::fs::Dir` would open another one.
fn entries(directory: impl AsFd) -> Option<u64> {
    rustix::fs::seek(&directory, SeekFrom::Start(0)).ok()?;
    let mut buf = [MaybeUninit::uninit(); 2048];
    let mut directory = RawDir::new(directory, &mut buf);
    let mut n = 0;
    while let Some(entry) = directory.next() {
        let name: &CStr = entry.as_ref().ok()?.file_name();
        n += u64::from(name != c"." && name != c"..");
    }
    Some(n)
}

/// The used fields of `/proc/self/stat`. proc_pid_stat(5) numbers them from 1.
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    pages: u64,
}

impl Stat {
    fn parse(line: &[u8]) -> Option<Self> {
        // The second field is the program's name in parentheses. The name itself may contain spaces
        // and parentheses.
        let after_name = line.iter().rposition(|byte| *byte == b')')? + 1;
        let line = std::str::from_utf8(&line[after_name..]).ok()?;
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            pages: field(24)?,
        })
    }
}

/// Returns when the machine started, since the Unix epoch, from `/proc/stat`.
fn boot_time(stat: &str) -> Option<Duration> {
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// Returns the CPU time used by this thread.
///
/// It does not advance while the thread waits or is preempted.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // A thread's CPU time is never negative and fits a u64 of seconds.
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn program_name_may_contain_spaces_and_parentheses() {
        let line = b"7 (a) b) (c) S 1 7 7 0 -1 4194560 90 0 0 0 11 4 0 0 20 0 3 0 5511 8192000 1024 18446744073709551615\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.cpu_ticks, stat.threads), (15, 3));
        assert_eq!(stat.start_ticks, 5511);
        assert_eq!((stat.virtual_bytes, stat.pages), (8_192_000, 1024));
        assert!(Stat::parse(b"7 (cut) S 1").is_none());
    }

    #[test]
    fn entries_are_recounted_without_dots() {
        let directory = tempfile::tempdir().unwrap();
        let held = File::open(directory.path()).unwrap();
        assert_eq!(entries(&held), Some(0));
        // More entries than fit one buffer.
        for n in 0..200 {
            File::create(directory.path().join(format!("{n:020}"))).unwrap();
        }
        assert_eq!(entries(&held), Some(200));
        assert_eq!(entries(&held), Some(200));
    }

    #[test]
    fn descriptor_count_matches_the_kernel() {
        let held = File::open("/proc/self/fd").unwrap();
        let size = || rustix::fs::fstat(&held).unwrap().st_size as u64;
        if size() == 0 {
            eprintln!("skipped: this kernel does not report the number (older than 6.2)");
            return;
        }
        // Other tests in this process open and close descriptors meanwhile. The two agree once
        // those have ended, at the latest.
        let deadline = std::time::Instant::now() + Duration::from_secs(180);
        while entries(&held) != Some(size()) {
            assert!(std::time::Instant::now() < deadline, "counts disagree");
            std::thread::yield_now();
        }
    }

    #[test]
    fn thread_cpu_time_advances_only_while_working() {
        let begun = thread_cpu_time();
        while thread_cpu_time() == begun {}
        let before = thread_cpu_time();
        let pause = Duration::from_millis(100);
        std::thread::sleep(pause);
        assert!(thread_cpu_time() - before < pause);
    }

    #[test]
    fn boot_time_is_found() {
        let stat = "cpu 1 2 3\nintr 5\nbtime 1700000000\nprocesses 9\n";
        assert_eq!(boot_time(stat), Some(Duration::from_secs(1_700_000_000)));
        assert_eq!(boot_time("cpu 1\n"), None);
    }
}
