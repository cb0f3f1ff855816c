//! Formats of bytes on the wire, to and from values. Does no I/O.

mod crc32c;
pub mod proxy_header;
