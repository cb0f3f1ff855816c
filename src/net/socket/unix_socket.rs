//! A Unix socket bound to a path: takes, replaces and removes the path without touching another
//! program's socket.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FlockOperation, Gid, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use socket2::{Domain, SockAddr, Socket, Type};

/// A Unix stream socket with a path.
///
/// Its mode and group are set before it listens, when no client can connect yet.
#[derive(Debug)]
pub struct UnixSocket {
    // Declared first so that it closes before its path is removed.
    pub(super) socket: Socket,
    pub(super) path: UnixPath,
}

impl UnixSocket {
    /// Binds a new socket to `path`.
    ///
    /// Replaces an abandoned socket.
    ///
    /// # Errors
    /// The kernel's, such as `AddrInUse` if another program uses the path or it is not a socket.
    /// `WouldBlock` if another program keeps the directory locked.
    pub fn bind(path: &Path) -> io::Result<Self> {
        /// Enough for another coracle that starts or ends: it holds the lock for less than a
        /// millisecond.
        const TRIES: u32 = 200;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        let address = SockAddr::unix(path)?;
        let lock = DirectoryLock::of(path, TRIES)?;
        match socket.bind(&address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && lock.is_some()
                    && is_abandoned(path) =>
            {
                match fs::remove_file(path) {
                    // Another process has already removed it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    removed => removed?,
                }
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        // From here on the socket is not abandoned, so no other process replaces it.
        drop(lock);
        let path = UnixPath::new(path)?;
        Ok(Self { socket, path })
    }

    /// Takes over a socket of [`Inherited`](super::Inherited), including the clients in its
    /// backlog.
    ///
    /// # Errors
    /// If there is no longer a socket at `path`.
    pub fn inherited(fd: OwnedFd, path: &Path) -> io::Result<Self> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        let path = UnixPath::new(path)?;
        Ok(Self { socket, path })
    }

    /// Listens outside the reactor, for another thread to accept.
    ///
    /// The socket is non-blocking.
    ///
    /// # Errors
    /// Those of listen(2).
    pub fn listen(self) -> io::Result<(UnixListener, UnixPath)> {
        const BACKLOG: i32 = 128;
        self.socket.listen(BACKLOG)?;
        Ok((OwnedFd::from(self.socket).into(), self.path))
    }

    /// Returns its path, for setting its mode and group.
    #[must_use]
    pub fn path(&self) -> &UnixPath {
        &self.path
    }
}

/// The path of a bound socket.
///
/// Removed on drop, unless the file there is a different one or the socket is still open elsewhere,
/// such as in a service manager that keeps it for the next process.
#[derive(Debug)]
pub struct UnixPath {
    path: PathBuf,
    file: FileId,
}

/// Few, because the loop waits meanwhile. The next start replaces a socket that is left behind.
const TRIES_TO_REMOVE: u32 = 2;

impl UnixPath {
    fn new(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        if !meta.file_type().is_socket() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(Self {
            path: path.to_owned(),
            file: FileId::of(&meta),
        })
    }

    /// Returns the permission bits and the group of the socket's file.
    ///
    /// # Errors
    /// The kernel's.
    pub fn access(&self) -> io::Result<(u32, u32)> {
        let meta = self.open()?.metadata()?;
        Ok((meta.mode() & 0o7777, meta.gid()))
    }

    /// Changes the group of the socket's file.
    ///
    /// # Errors
    /// `PermissionDenied` unless this user is a member of the group.
    pub fn set_group(&self, group: u32) -> io::Result<()> {
        let file = self.open()?;
        Ok(rustix::fs::chownat(
            &file,
            "",
            None,
            Some(Gid::from_raw(group)),
            AtFlags::EMPTY_PATH,
        )?)
    }

    /// Sets the permission bits of the socket's file.
    ///
    /// Connecting requires write permission.
    ///
    /// # Errors
    /// The kernel's. `NotFound` without `/proc`.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let file = self.open()?;
        // The only way on all kernels to change the mode of exactly this file, wherever its path
        // now leads.
        let exactly = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(rustix::fs::chmod(exactly, Mode::from_raw_mode(mode))?)
    }

    /// Removes the path now if it still leads to this socket, even if the socket is open: a thread
    /// that listens on it may take a while to close it.
    pub fn remove(&self) {
        let lock = DirectoryLock::of(&self.path, TRIES_TO_REMOVE);
        if lock.is_ok() && self.is_ours() {
            let _ = fs::remove_file(&self.path);
        }
    }

    pub(super) fn file(&self) -> FileId {
        self.file
    }

    fn is_ours(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|meta| FileId::of(&meta) == self.file)
    }

    /// Opens a descriptor of the socket's file itself, without following links.
    fn open(&self) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(CWD, &self.path, flags, Mode::empty())?);
        if FileId::of(&file.metadata()?) != self.file {
            return Err(io::Error::other("another program has replaced the socket"));
        }
        Ok(file)
    }
}

/// Identifies a file, whatever path leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
        }
    }

    /// Returns the file that connecting to `path` would reach.
    ///
    /// # Errors
    /// If there is none, or access to it is denied.
    pub fn of_socket(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&fs::metadata(path)?))
    }
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        let Ok(_lock) = DirectoryLock::of(&self.path, TRIES_TO_REMOVE) else {
            return;
        };
        if self.is_ours() && is_abandoned(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns true if there is a socket file at `path` whose socket is gone.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    is_socket && probe(path) == Err(Errno::CONNREFUSED)
}

/// Connects to `path` with another socket type.
///
/// A live stream socket, listening or not, refuses this with EPROTOTYPE and does not notice.
fn probe(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    net::connect(&fd, &net::SocketAddrUnix::new(path)?)
}

/// The lock for checking a path and then replacing or removing what is there.
///
/// It is a flock(2) on the directory. A lock file would need cleaning up under the same rules.
struct DirectoryLock {
    _directory: File,
}

impl DirectoryLock {
    /// Returns `None` if the directory cannot be locked; then nothing in it may be replaced.
    fn of(path: &Path, tries: u32) -> io::Result<Option<Self>> {
        const PAUSE: Duration = Duration::from_millis(10);
        let parent = path.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(directory) = rustix::fs::openat(CWD, parent, flags, Mode::empty()) else {
            return Ok(None);
        };
        for left in (0..tries).rev() {
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    return Ok(Some(Self {
                        _directory: directory.into(),
                    }));
                }
                Err(Errno::WOULDBLOCK) if left > 0 => thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => break,
                Err(Errno::INTR) => {}
                Err(_) => return Ok(None),
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}
