//! A private directory for the demo's control socket, which goes with it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A directory that only this user can enter. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Home(PathBuf);

impl Home {
    /// Creates it where temporary files belong.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(super) fn create() -> io::Result<Self> {
        /// A Unix socket's path has 107 bytes at most.
        const MOST_BYTES: usize = 70;
        let mut parent = std::env::temp_dir();
        if parent.as_os_str().len() > MOST_BYTES || parent.to_str().is_none() {
            parent = PathBuf::from("/tmp");
        }
        let name = format!("coracle-demo-{:08x}", fastrand::u32(..));
        let path = parent.join(name);
        // Fails if somebody else has made it.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Returns the path of the control socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.path().join("control.sock")
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // The proxy has removed its socket. Whatever cannot be removed is no reason to fail.
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir(&self.0);
    }
}
