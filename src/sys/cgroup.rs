//! The memory limit of this process's control groups.

use std::fs;
use std::path::{Path, PathBuf};

/// A limit in cgroup v1 that means no limit. The kernel writes the largest number of whole pages
/// that it can count, which is about 8 TiB on 32-bit machines.
const UNLIMITED_BYTES: u64 = 1 << 42;

/// Returns the smallest memory limit, in bytes, of this process's control group and its ancestors.
///
/// Reads `memory.max` and `memory.high` of cgroup v2 and `memory.limit_in_bytes` of v1. Returns
/// `None` if there is no limit or no file to read it from.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    memory_limit_below(Path::new("/"))
}

/// Does the same with `root` in place of `/`.
fn memory_limit_below(root: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
    let groups = groups(&read("proc/self/cgroup"), &read("proc/self/mountinfo"));
    let limits = groups.iter().flat_map(|group| group.limits(root));
    limits.min()
}

/// A control group of this process: a directory at or below the mount point of its hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    mount_point: PathBuf,
    directory: PathBuf,
    is_v2: bool,
}

impl Group {
    /// Returns the limits set on this group and its ancestors.
    fn limits(&self, root: &Path) -> Vec<u64> {
        let files: &[&str] = match self.is_v2 {
            true => &["memory.max", "memory.high"],
            false => &["memory.limit_in_bytes"],
        };
        let up = self.directory.ancestors();
        let visible = up.take_while(|directory| directory.starts_with(&self.mount_point));
        let paths = visible.flat_map(|directory| files.iter().map(|file| directory.join(file)));
        let read = |path: PathBuf| {
            let path = root.join(path.strip_prefix("/").unwrap_or(&path));
            // A missing file, as in the root group, sets no limit, and neither does the word "max".
            let bytes = fs::read_to_string(path).ok()?.trim().parse().ok()?;
            (bytes < UNLIMITED_BYTES).then_some(bytes)
        };
        paths.filter_map(read).collect()
    }
}

/// Returns the groups that can limit memory.
///
/// `memberships` is `/proc/self/cgroup` (cgroups(7)), `mounts` is `/proc/self/mountinfo`
/// (proc_pid_mountinfo(5)).
fn groups(memberships: &str, mounts: &str) -> Vec<Group> {
    let found = memberships.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_v2 = controllers.is_empty();
        if !is_v2 && !controllers.split(',').any(|name| name == "memory") {
            return None;
        }
        let mount = mounts.lines().filter_map(Mount::parse);
        let mount = mount.into_iter().find(|mount| mount.holds(is_v2))?;
        // The group can be outside of what is mounted here, as in some containers. Then only the
        // mount's own limit is visible.
        let below = Path::new(path).strip_prefix(&mount.root);
        let below = below.ok().filter(|below| !below.starts_with(".."));
        Some(Group {
            directory: mount.point.join(below.unwrap_or(Path::new(""))),
            mount_point: mount.point,
            is_v2,
        })
    });
    found.collect()
}

/// The relevant fields of a `/proc/self/mountinfo` row.
struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut kind = kind.split(' ');
        Some(Self {
            root: unescaped(place.next()?),
            point: unescaped(place.next()?),
            kind: kind.next()?,
            options: kind.nth(1)?,
        })
    }

    /// Returns true if this hierarchy can limit memory.
    fn holds(&self, is_v2: bool) -> bool {
        match is_v2 {
            true => self.kind == "cgroup2",
            false => self.kind == "cgroup" && self.options.split(',').any(|o| o == "memory"),
        }
    }
}

/// Decodes a path in mountinfo, where a space, for example, is `\040`.
fn unescaped(path: &str) -> PathBuf {
    let mut parts = path.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3);
        match code.and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(&part[3..]);
            }
            None => plain.push_str(part),
        }
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const V2: &str =
        "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    /// Creates a root directory with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        memory_limit_below(root(files).path())
    }

    #[test]
    fn smallest_ancestor_limit_wins() {
        let unit = "sys/fs/cgroup/system.slice/coracle.service/memory.max";
        let files = [
            ("proc/self/cgroup", "0::/system.slice/coracle.service\n"),
            ("proc/self/mountinfo", V2),
            (unit, "134217728\n"),
        ];
        assert_eq!(limit(&files), Some(128 << 20));
        let slice = [
            &files[..],
            &[("sys/fs/cgroup/system.slice/memory.max", "67108864\n")],
        ];
        assert_eq!(limit(&slice.concat()), Some(64 << 20));
        let high = "sys/fs/cgroup/system.slice/coracle.service/memory.high";
        let high = [&files[..], &[(high, "100000000\n")]];
        assert_eq!(limit(&high.concat()), Some(100_000_000));
    }

    #[test]
    fn no_limit_is_none() {
        let files = [
            ("proc/self/cgroup", "0::/a\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/a/memory.max", "max\n"),
        ];
        assert_eq!(limit(&files), None);
        assert_eq!(limit(&[]), None, "without /proc");
        let v1 = [
            ("proc/self/cgroup", "4:memory:/a\n0::/\n"),
            ("proc/self/mountinfo", V1),
            (
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ];
        assert_eq!(limit(&v1), None, "the kernel's largest number");
    }

    #[test]
    fn v1_memory_hierarchy_is_found() {
        let files = [
            (
                "proc/self/cgroup",
                "9:name=systemd:/\n4:cpuset,memory:/a/b\n1:cpu:/c\n0::/\n",
            ),
            ("proc/self/mountinfo", V1),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "16777216\n"),
            (
                "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("sys/fs/cgroup/cpu/c/memory.limit_in_bytes", "1\n"),
        ];
        assert_eq!(limit(&files), Some(16 << 20));
    }

    #[test]
    fn container_limit_is_read_from_the_mount() {
        let mount = "9 8 0:2 /docker/f00 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let file = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        for path in ["/docker/f00", "/elsewhere", "/../up"] {
            let group = format!("4:memory:{path}\n");
            let files = [
                ("proc/self/cgroup", group.as_str()),
                ("proc/self/mountinfo", mount),
                (file, "33554432\n"),
            ];
            assert_eq!(limit(&files), Some(32 << 20), "{path}");
        }
    }

    #[test]
    fn mount_point_may_contain_a_space() {
        let mount = "9 8 0:2 / /cgroup\\040two rw - cgroup2 none rw\n";
        let files = [
            ("proc/self/cgroup", "0::/a:b\n"),
            ("proc/self/mountinfo", mount),
            ("cgroup two/a:b/memory.max", "1048576\n"),
        ];
        assert_eq!(limit(&files), Some(1 << 20));
    }
}
