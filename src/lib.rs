//! Coracle, a single-threaded TCP proxy whose connection count cannot drift.
//!
//! The program is a thin shell around this crate: it parses a [`config::Config`] and runs a
//! [`proxy::Proxy`].
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
//! // The proxy runs until this stream yields. The log gives the text as the reason.
//! let (stop, stops) = smol::channel::bounded(1);
//! std::thread::spawn(move || {
//!     std::thread::sleep(std::time::Duration::from_secs(60));
//!     let _ = stop.send_blocking("a minute is over");
//! });
//! let drained = proxy.run(Box::pin(stops))?;
//! println!("{} ended, {} were cut", drained.ended, drained.cut);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The layers
//!
//! Imports only point down; `tests/it/layers.rs` enforces this. ARCHITECTURE.md gives the reasons.
//!
//! | layer | contents |
//! |---|---|
//! | [`proxy`] | the running program: the supervisor and what it owns, reload, sweeps, drain |
//! | [`admin`] | the admin endpoint: metrics and health over HTTP, commands over a Unix socket |
//! | [`conn`] | one connection from accept to close |
//! | [`net`] | asynchronous I/O without policy: readiness, sockets, dialling, names, the relay |
//! | [`state`] | facts and decisions, without I/O: the sets, the registry, counters, balancing |
//! | [`config`] | parses text into a valid configuration, and compares two of them |
//! | [`sys`] | what the kernel reports about this process |
//! | [`wire`] | formats of bytes on the wire, without I/O |
//!
//! Next to the layers are [`client`], [`demo`] and [`logging`], and the program itself: `main.rs`,
//! `cli.rs` and `commands/`.
//!
//! # The path of one connection
//!
//! **It arrives** at a listener's accept loop (`proxy/accept.rs`), one per iteration of the
//! [`net::Reactor`]. The loop takes the current [`conn::Route`] from the listener's
//! [`conn::CurrentRoute`]. [`state::Guard::insert`] adds the connection's entry to the set of all
//! connections ([`state::Conns`]) and to the set of its entrypoint ([`state::Members`]). From then
//! on, it counts. A task is spawned for it, and [`state::Conn::owned_by`] puts the task's handle
//! into the entry.
//!
//! **Its task owns it**: [`conn::serve()`] has the guard, the route and the client's
//! [`net::Stream`]. Before each attempt [`state::Service::choose`] picks one of the route's servers,
//! or the task waits in the service's queue. It connects with [`net::dial_tcp`] or
//! [`net::Stream::connect_unix`], joins the set of that server with [`state::Conn::relaying`], and
//! copies both ways with [`net::relay()`] until both sides have finished or one has failed.
//! [`state::Conn::moved`] counts the bytes in the entry.
//!
//! **It ends in one way.** Every end has a [`state::CloseReason`], and dropping the guard removes
//! the entry from all its sets: after the last byte, after a reset, while a panic unwinds, or
//! because [`state::Conns::kill`] dropped the task. A stream that is dropped before it is marked as
//! finished resets its peer, so that a cut connection never looks complete.
//!
//! **Its count is read** on request, as the length of a set: [`state::Conns::len`] for all
//! connections, [`state::Members::len`] for those of one entrypoint or server.
//! [`state::Shared::snapshot`] copies these lengths and the counters for the admin endpoint's
//! thread. There is no counter beside a set, and one thread makes all changes and copies, so every
//! scrape is one moment.
//!
//! # How a reload is applied
//!
//! A [`proxy::Commander`] sends the request to the supervisor's task (`proxy/supervisor.rs`). The
//! task has the [`proxy::ConfigSource`] read and check the file, lists the differences
//! ([`config::Changes`]), and applies the new [`config::Config`] completely or not at all
//! (`proxy/running.rs`). First it opens what is new, which can fail. Then it replaces each
//! listener's route and closes what is gone, which cannot fail. Connections keep the route that
//! they started with. The [`state::Registry`] finds entrypoints and servers by name without keeping
//! them alive: a removed one exists until its last connection ends.

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
pub mod wire;
