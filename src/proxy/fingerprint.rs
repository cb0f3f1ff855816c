//! The state of a file, by which a change of it is noticed without reading it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Distinguishes one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([i64; 7]);

impl Fingerprint {
    /// Returns the present state of `file`, or `None` if it is not there.
    #[must_use]
    pub fn of(file: &Path) -> Option<Self> {
        let meta = fs::metadata(file).ok()?;
        Some(Self([
            meta.dev() as i64,
            meta.ino() as i64,
            meta.size() as i64,
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        ]))
    }
}
