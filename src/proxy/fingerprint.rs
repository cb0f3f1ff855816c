//! The state of a file, by which a change of it is noticed without reading it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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

/// A file, and its state at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The file.
    pub file: PathBuf,
    /// Its state, or `None` if it was not there.
    pub state: Option<Fingerprint>,
}

impl Seen {
    /// Returns a file with its present state.
    #[must_use]
    pub fn now(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            state: Fingerprint::of(file),
        }
    }

    /// Returns whether the file is in another state now.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        Fingerprint::of(&self.file) != self.state
    }
}
