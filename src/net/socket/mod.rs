//! Sockets: how they are opened, listened on, read and written.

mod connect;
mod inherited;
mod keepalive;
mod listener;
mod opening;
mod share;
mod stream;
mod unix_socket;

pub use inherited::Inherited;
pub use keepalive::Keepalive;
pub use listener::{Listener, TcpOptions};
pub use opening::{Opening, Read};
pub use stream::Stream;
pub use unix_socket::{FileId, UnixSocket};
