//! Direct access to the operating system.
//!
//! The only place for unsafe code.

pub mod caught;
pub mod cgroup;
pub mod clock;
pub mod descriptors;
pub mod group;
pub mod inherited;
pub mod memory;
pub mod peer;
pub mod process;
pub mod send_buffer;
pub mod send_queue;
pub mod signals;
pub mod socket_option;
pub mod sockets;
pub mod thread;
pub mod vanish;

/// Returns the platform that the program was built for: architecture, system and C library, such as
/// `aarch64-linux-musl` or `arm-linux-musleabihf`.
#[must_use]
pub fn target() -> String {
    let library = match () {
        () if cfg!(target_env = "musl") => "musl",
        () => "gnu",
    };
    let abi = match () {
        () if cfg!(target_abi = "eabihf") => "eabihf",
        () if cfg!(target_abi = "eabi") => "eabi",
        () => "",
    };
    format!("{}-linux-{library}{abi}", std::env::consts::ARCH)
}
