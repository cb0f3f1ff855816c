//! One client's connection, TCP or Unix, over async-io.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use async_io::Async;

use crate::admin::sockets::Accepted;

/// A connection. Each read and write tries first and then waits. Dropping it while it waits loses
/// nothing.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(Async<TcpStream>),
    Unix(Async<UnixStream>),
}

impl Stream {
    /// Registers a connection with async-io.
    ///
    /// # Errors
    /// If it cannot be registered, for lack of memory.
    pub(super) fn new(accepted: Accepted) -> io::Result<Self> {
        Ok(match accepted {
            Accepted::Tcp(stream) => {
                // Responses are sent in one write if possible, so delaying them gains nothing.
                let _ = stream.set_nodelay(true);
                Self::Tcp(Async::new(stream)?)
            }
            Accepted::Unix(stream) => Self::Unix(Async::new(stream)?),
        })
    }

    /// Reads at least one byte. Returns 0 at the end.
    pub(super) async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_with(|mut stream| stream.read(buf)).await,
            Self::Unix(stream) => stream.read_with(|mut stream| stream.read(buf)).await,
        }
    }

    /// Writes as much as the kernel takes, at least one byte.
    pub(super) async fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                let write = |mut stream: &TcpStream| stream.write_vectored(slices);
                stream.write_with(write).await
            }
            Self::Unix(stream) => {
                let write = |mut stream: &UnixStream| stream.write_vectored(slices);
                stream.write_with(write).await
            }
        }
    }

    /// Shuts down the sending side.
    pub(super) fn finish(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.get_ref().shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.get_ref().shutdown(Shutdown::Write),
        }
    }
}
