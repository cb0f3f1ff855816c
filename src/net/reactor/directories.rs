//! Waits for changes in directories (inotify).

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::task::{Poll, ready};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::core::Reactor;
use super::ready::Ready;
use super::source::Source;

/// A set of directories, watched for as long as this value lives.
#[derive(Debug)]
pub struct Directories(Source);

impl Directories {
    /// Watches these directories for entries that are created, written, renamed or removed.
    ///
    /// # Errors
    /// The kernel's: no such directory, or out of descriptors or watches
    /// (`fs.inotify.max_user_watches`).
    pub fn watch<P: AsRef<Path>>(
        reactor: &Rc<Reactor>,
        directories: impl IntoIterator<Item = P>,
    ) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        for directory in directories {
            inotify::add_watch(&inotify, directory.as_ref(), flags)?;
        }
        Ok(Self(Source::stream(reactor, inotify, Ready::NONE)))
    }

    /// Waits until something changes, or has changed since the last call.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn changed(&self) -> io::Result<()> {
        let source = &self.0;
        poll_fn(|cx| {
            let mut has_changed = false;
            loop {
                ready!(source.poll_ready(cx, Ready::READ))?;
                // The content does not matter. An event is at most 272 bytes long (inotify(7)).
                match rustix::io::read(source, &mut [0; 4096]) {
                    Ok(_) => has_changed = true,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => {
                        source.clear(Ready::READ);
                        if has_changed {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
        })
        .await
    }
}
