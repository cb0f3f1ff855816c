//! Requests that threads make while the keys keep working.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use coracle::client::{Failure, Look};
use coracle::sys;

/// Enough for parsing the answer.
const STACK_BYTES: usize = 256 * 1024;

/// What a request has led to.
pub(super) enum News {
    Look(Box<Result<Look, Failure>>),
    Order(Result<(bool, String), Failure>),
}

/// The requests that are under way.
pub(super) struct Errands {
    told: Arc<Mutex<Vec<News>>>,
    /// Has a byte for each that has ended, so that `poll` sees it.
    ended: PipeReader,
    end: PipeWriter,
}

impl Errands {
    /// # Errors
    /// If there is no descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        let (ended, end) = io::pipe()?;
        Ok(Self {
            told: Arc::default(),
            ended,
            end,
        })
    }

    /// Has a thread of this name make a request.
    ///
    /// # Errors
    /// If none can be started.
    pub(super) fn send(
        &self,
        name: &str,
        request: Box<dyn FnOnce() -> News + Send>,
    ) -> io::Result<()> {
        let (told, mut end) = (self.told.clone(), self.end.try_clone()?);
        sys::thread::spawn(name, STACK_BYTES, move || {
            let news = request();
            told.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(news);
            let _ = end.write_all(&[0]);
        })
    }

    /// Returns the outcome of a request that has ended, if there is one.
    pub(super) fn news(&mut self) -> Option<News> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let news = told.pop()?;
        drop(told);
        // Its byte comes in a moment, if it is not there yet.
        let _ = self.ended.read_exact(&mut [0]);
        Some(news)
    }
}

impl AsFd for Errands {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}
