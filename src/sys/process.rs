//! What the kernel says of this process, read through descriptors that are opened once and kept.
//!
//! A reading needs no new descriptor, so that it still works when descriptors have run out: the moment at which it
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

/// The sources, open while this value lives. A source that cannot be opened (no `/proc`) leaves its readings out.
#[derive(Debug)]
pub struct Process {
    stat: Option<File>,
    descriptors: Option<File>,
    booted: Option<Duration>,
    ticks_per_second: u64,
    page_bytes: u64,
}

/// One reading. What could not be read is `None`, never a made-up number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time spent in user and kernel mode, by all threads.
    pub cpu: Option<Duration>,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space in bytes.
    pub virtual_bytes: Option<u64>,
    /// When the process started, since the Unix epoch.
    pub started: Option<Duration>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors, those of [`Process`] among them: they are open too.
    pub open_descriptors: Option<u64>,
    /// The most descriptors that may be open: the soft limit RLIMIT_NOFILE. `None` also where there is no limit.
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

    /// Reads everything anew. Opens nothing.
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

/// The size of `/proc/self/fd` is the number of open descriptors since Linux 6.2; before it is 0 and they are counted.
fn open_descriptors(directory: &File) -> Option<u64> {
    match rustix::fs::fstat(directory).ok()?.st_size {
        0 => entries(directory),
        n => u64::try_from(n).ok(),
    }
}

/// Counts a directory's entries through the descriptor at hand; `rustix::fs::Dir` would open another one.
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

/// The fields of `/proc/self/stat` that are used here; proc_pid_stat(5) numbers them from 1.
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    pages: u64,
}

impl Stat {
    fn parse(line: &[u8]) -> Option<Self> {
        // The second field is the program's name in parentheses, and it may hold spaces and parentheses of its own.
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

/// When the machine started, since the Unix epoch, out of `/proc/stat`.
fn boot_time(stat: &str) -> Option<Duration> {
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// The processor time that this thread has used. It stands still while the thread waits or the machine is busy with others.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // No thread has used a negative time, or more than a u64 of seconds.
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_shifts_no_field() {
        let line = b"7 (a) b) (c) S 1 7 7 0 -1 4194560 90 0 0 0 11 4 0 0 20 0 3 0 5511 8192000 1024 18446744073709551615\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.cpu_ticks, stat.threads), (15, 3));
        assert_eq!(stat.start_ticks, 5511);
        assert_eq!((stat.virtual_bytes, stat.pages), (8_192_000, 1024));
        assert!(Stat::parse(b"7 (cut) S 1").is_none());
    }

    #[test]
    fn entries_are_counted_anew_each_time_and_without_the_dots() {
        let directory = tempfile::tempdir().unwrap();
        let held = File::open(directory.path()).unwrap();
        assert_eq!(entries(&held), Some(0));
        // More than one buffer of them.
        for n in 0..200 {
            File::create(directory.path().join(format!("{n:020}"))).unwrap();
        }
        assert_eq!(entries(&held), Some(200));
        assert_eq!(entries(&held), Some(200));
    }

    #[test]
    fn counting_descriptors_agrees_with_the_kernels_own_number() {
        let held = File::open("/proc/self/fd").unwrap();
        let size = || rustix::fs::fstat(&held).unwrap().st_size as u64;
        if size() == 0 {
            eprintln!("skipped: this kernel gives no number (it is older than 6.2)");
            return;
        }
        // Other tests of this process open and close descriptors meanwhile. They end, and then the two agree at the latest.
        let deadline = std::time::Instant::now() + Duration::from_secs(180);
        while entries(&held) != Some(size()) {
            assert!(std::time::Instant::now() < deadline, "they never agree");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_threads_time_goes_on_with_its_work_and_stands_still_while_it_waits() {
        let begun = thread_cpu_time();
        while thread_cpu_time() == begun {}
        let before = thread_cpu_time();
        let pause = Duration::from_millis(100);
        std::thread::sleep(pause);
        assert!(thread_cpu_time() - before < pause);
    }

    #[test]
    fn boot_time_is_found_among_the_other_lines() {
        let stat = "cpu 1 2 3\nintr 5\nbtime 1700000000\nprocesses 9\n";
        assert_eq!(boot_time(stat), Some(Duration::from_secs(1_700_000_000)));
        assert_eq!(boot_time("cpu 1\n"), None);
    }
}
