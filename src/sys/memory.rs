//! The machine's memory, and returning freed memory to it.

/// Returns the machine's memory in bytes, from `/proc/meminfo`.
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

/// Returns the resident memory that is this process's own, in bytes, from `/proc/self/statm`: what
/// is mapped from files does not count, because the kernel can drop it.
#[must_use]
pub fn own() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

/// Makes the allocator return unused memory to the system.
///
/// glibc keeps freed memory below anything still in use. musl has no such call, and unmaps a group
/// of blocks once all of them are free.
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
    use super::{own, parse_total, total};

    #[test]
    fn own_memory_follows_what_is_touched() {
        let before = own().expect("/proc/self/statm");
        let touched = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(own().is_some_and(|now| now > before + (32 << 20)));
        drop(touched);
    }

    #[test]
    fn total_is_found() {
        let text = "MemTotal:         443284 kB\nMemFree:          31492 kB\n";
        assert_eq!(parse_total(text), Some(443_284 * 1024));
        assert_eq!(parse_total("MemFree: 1 kB\n"), None);
        assert!(total().is_some_and(|bytes| bytes > 1 << 20));
    }
}
