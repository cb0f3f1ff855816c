//! Sockets: opening, listening, reading and writing.

mod connect;
mod early_data;
mod inherited;
mod keepalive;
mod listener;
mod outgoing;
mod share;
mod stream;
mod unix_socket;

pub use early_data::{EarlyData, Read};
pub use inherited::Inherited;
pub use keepalive::Keepalive;
pub use listener::{Listener, TcpOptions};
pub use outgoing::{Refused, try_outgoing};
pub use stream::Stream;
pub use unix_socket::{FileId, UnixPath, UnixSocket};
