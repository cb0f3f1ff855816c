//! Formats of bytes on the wire, to and from values. Does no I/O.

pub mod client_hello;
mod crc32c;
pub mod first_bytes;
mod host_name;
pub mod http_host;
pub mod proxy_header;
