//! The operating system's raw edges; the only place for unsafe code.

pub mod descriptors;
pub mod process;
pub mod send_buffer;
pub mod sockets;
