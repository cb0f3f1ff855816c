//! The machine's memory, and giving back what was freed.

/// The machine's memory in bytes, as `/proc/meminfo` has it.
#[must_use]
pub fn total() -> Option<u64> {
    parse_total(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_total(meminfo: &str) -> Option<u64> {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// Has the allocator give back what it keeps. glibc keeps what was freed below something that is still in use; musl has no such call
/// and unmaps a group of blocks once all of them are free.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointer and may be called at any time, by any thread.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_total, total};

    #[test]
    fn the_total_is_found_among_the_other_lines() {
        let text = "MemTotal:         443284 kB\nMemFree:          31492 kB\n";
        assert_eq!(parse_total(text), Some(443_284 * 1024));
        assert_eq!(parse_total("MemFree: 1 kB\n"), None);
        assert!(total().is_some_and(|bytes| bytes > 1 << 20));
    }
}
