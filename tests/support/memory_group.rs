//! A control group (v1 or v2) with a memory limit for the program under test, if this user may
//! create one.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::binary;
use super::until;

/// A control group, removed when dropped.
pub struct MemoryGroup {
    directory: PathBuf,
    is_v2: bool,
}

impl MemoryGroup {
    /// A group that may take this much. `None`, with a message, if none can be created; with
    /// CORACLE_REQUIRE_TOOLS set, as in CI, that fails.
    pub fn new(name: &str, limit: u64) -> Option<Self> {
        let made = Self::v1(name, limit).or_else(|why| {
            Self::v2(name, limit).map_err(|why_v2| format!("v1: {why}; v2: {why_v2}"))
        });
        match made {
            Ok(group) => Some(group),
            Err(why) => {
                let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
                assert!(!required, "no memory cgroup: {why}");
                eprintln!("skipped: no memory cgroup: {why}");
                None
            }
        }
    }

    fn v1(name: &str, limit: u64) -> std::io::Result<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let path = own.lines().find_map(|line| line.split_once(":memory:/"));
        let (_, path) = path.ok_or(std::io::ErrorKind::NotFound)?;
        let above = Path::new("/sys/fs/cgroup/memory").join(path);
        let group = Self::create(&above, name, false)?;
        group.write("memory.limit_in_bytes", limit)?;
        // TCP's memory is counted from the first limit on, and separately, so that the group's own
        // limit does not apply to it.
        group.write("memory.kmem.tcp.limit_in_bytes", 1 << 40)?;
        Ok(group)
    }

    fn v2(name: &str, limit: u64) -> std::io::Result<Self> {
        let group = Self::create(Path::new("/sys/fs/cgroup"), name, true)?;
        group.write("memory.max", limit)?;
        Ok(group)
    }

    fn create(above: &Path, name: &str, is_v2: bool) -> std::io::Result<Self> {
        let directory = above.join(format!("coracle-{name}-{}", std::process::id()));
        std::fs::create_dir(&directory)?;
        Ok(Self { directory, is_v2 })
    }

    fn write(&self, file: &str, value: u64) -> std::io::Result<()> {
        std::fs::write(self.directory.join(file), value.to_string())
    }

    fn read(&self, file: &str) -> u64 {
        let text = std::fs::read_to_string(self.directory.join(file)).unwrap();
        text.trim().parse().unwrap()
    }

    /// A command that becomes the binary, in this group from its first moment.
    pub fn command(&self) -> Command {
        let procs = self.directory.join("cgroup.procs");
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        shell.arg(procs).arg(binary());
        shell
    }

    /// The most it has taken, in bytes: the process's memory, the kernel's on its behalf, and
    /// TCP's.
    pub fn peak(&self) -> u64 {
        match self.is_v2 {
            true => self.read("memory.peak"),
            // Two peaks, perhaps at different moments: never less than the peak of the sum.
            false => {
                self.read("memory.max_usage_in_bytes")
                    + self.read("memory.kmem.tcp.max_usage_in_bytes")
            }
        }
    }

    /// What TCP takes now, in bytes.
    pub fn tcp(&self) -> u64 {
        match self.is_v2 {
            true => {
                let stat = std::fs::read_to_string(self.directory.join("memory.stat")).unwrap();
                let sock = stat.lines().find_map(|line| line.strip_prefix("sock "));
                sock.unwrap().parse().unwrap()
            }
            false => self.read("memory.kmem.tcp.usage_in_bytes"),
        }
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let remove = || std::fs::remove_dir(&self.directory).ok();
        // Its processes have been waited for; the kernel may need a moment.
        match std::thread::panicking() {
            true => drop(remove()),
            false => until("the control group is empty", remove),
        }
    }
}
