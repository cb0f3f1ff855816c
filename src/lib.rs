//! Coracle, a single-threaded TCP proxy whose connection count cannot drift.
//!
//! The program is a thin shell around this crate: it makes a [`config::Config`] and runs a [`proxy::Proxy`].
//!
//! ```no_run
//! use coracle::config::Config;
//! use coracle::proxy::Proxy;
//!
//! let text = r#"
//!     [entrypoints.ssh]
//!     listen = "127.0.0.1:0"
//!     to = "192.168.1.10:22"
//! "#;
//! let config = Config::parse("ssh.toml", text, &[])?;
//! let proxy = Proxy::bind(&config)?;
//! println!("ssh listens on {:?}", proxy.addresses("ssh"));
//!
//! // The proxy runs until this stream yields; the text is the reason that the log tells.
//! let (stop, stops) = smol::channel::bounded(1);
//! std::thread::spawn(move || {
//!     std::thread::sleep(std::time::Duration::from_secs(60));
//!     let _ = stop.send_blocking("a minute is over");
//! });
//! let drained = proxy.run(Box::pin(stops))?;
//! println!("{} ended by themselves, {} were cut", drained.ended, drained.cut);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The layers
//!
//! Imports point down only; `tests/layers.rs` sees to it. ARCHITECTURE.md has the reasons.
//!
//! | layer | what it is |
//! |---|---|
//! | [`proxy`] | the running program: binds entrypoints, owns their tasks, sweeps and drains |
//! | [`admin`] | the admin endpoint: metrics and health over HTTP |
//! | [`conn`] | one connection from accept to close |
//! | [`net`] | asynchronous I/O without policy: readiness, streams, listeners, dialling, names, the relay |
//! | [`state`] | what is known and decided, without I/O: the set of connections, counters, the choice of a server |
//! | [`config`] | text to a configuration that is valid by its type |
//! | [`sys`] | what the kernel says of this process |
//!
//! Beside them stand [`client`], [`demo`] and [`logging`], and of the program `main.rs`, `cli.rs` and `commands/`.
//!
//! # The path of one connection
//!
//! **It comes in** at a listener's accept loop (`proxy/accept.rs`), one per iteration of the [`net::Reactor`].
//! [`state::Guard::insert`] makes its entry in the set, and from then on it counts. A task is spawned for it; the entry gets
//! the task's handle by [`state::Conn::owned_by`].
//!
//! **Its task owns it**: [`conn::serve()`] has the guard and the client's [`net::Stream`]. It asks
//! [`state::Service::candidates`] for servers, connects to one of them with [`net::dial_tcp`] or [`net::Stream::connect_unix`], and copies
//! both ways with [`net::relay()`] until both sides have finished or one has broken. What passes is counted in the entry's cells, by
//! [`state::Conn::moved`].
//!
//! **It ends in one way.** Whatever happened has a [`state::CloseReason`], and the drop of the guard takes the entry out of the
//! set: after the last byte, after a reset, in a panic's unwinding, or because [`state::Conns::kill`] dropped the task. A stream
//! that was not said to be finished resets its peer when it is dropped, so that no cut looks like an end.
//!
//! **Its count is read** when somebody asks. [`state::Conns::len`] is the number; at each scrape [`state::Shared::snapshot`] walks
//! the set for the number per entrypoint, and copies the counters, for the thread of the admin endpoint. Nothing counts beside the set,
//! and since one thread changes and copies all of it, every scrape is one moment.

pub mod admin;
pub mod client;
pub mod config;
pub mod conn;
pub mod demo;
pub mod logging;
pub mod net;
pub mod proxy;
pub mod state;
pub mod sys;
