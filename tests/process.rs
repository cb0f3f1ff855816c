//! Process metrics against what the kernel says elsewhere. The only test here, since another's
//! descriptors would count too.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::time::{Duration, SystemTime};

use coracle::sys::process::Process;

#[test]
fn process_metrics_agree_with_the_kernel() {
    let process = Process::open();
    let before = process.usage();
    // The listing includes its own descriptor.
    let listed = || std::fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
    assert_eq!(before.open_descriptors, Some(listed()));

    let more: Vec<_> = (0..300).map(|_| File::open("/dev/null").unwrap()).collect();
    assert_eq!(process.usage().open_descriptors, Some(listed()));
    assert_eq!(
        process.usage().open_descriptors,
        before.open_descriptors.map(|n| n + 300)
    );
    drop(more);
    assert_eq!(process.usage().open_descriptors, before.open_descriptors);

    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of_status = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.unwrap().split_ascii_whitespace().next();
        number.unwrap().parse().unwrap()
    };
    assert_eq!(before.threads, Some(of_status("Threads:")));
    let resident = process.usage().resident_bytes.unwrap();
    let (low, high) = (resident / 2, resident * 2);
    assert!((low..high).contains(&(of_status("VmRSS:") * 1024)));
    assert!(before.virtual_bytes.unwrap() >= resident);

    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"));
    let soft = files.unwrap().split_ascii_whitespace().next().unwrap();
    assert_eq!(before.max_descriptors, soft.parse().ok());

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let age = now.unwrap().as_secs_f64() - before.started.unwrap().as_secs_f64();
    // Just now, within the deadline of all tests (which is all this test needs from them).
    assert!((-2.0..180.0).contains(&age), "started {age} s ago");

    let spent = before.cpu.unwrap();
    while process.usage().cpu.unwrap() < spent + Duration::from_millis(20) {}
}
