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
//! Imports point down only; `tests/it/layers.rs` sees to it. ARCHITECTURE.md has the reasons.
//!
//! | layer | what it is |
//! |---|---|
//! | [`proxy`] | the running program: the supervisor and what it owns, reload, sweeps, drain |
//! | [`admin`] | the admin endpoint: metrics and health over HTTP, and commands over a Unix socket |
//! | [`conn`] | one connection from accept to close |
//! | [`net`] | asynchronous I/O without policy: readiness, streams, listeners, dialling, names, the relay |
//! | [`state`] | what is known and decided, without I/O: the sets, the registry, counters, the choice of a server |
//! | [`config`] | text to a configuration that is valid by its type, and the difference of two |
//! | [`sys`] | what the kernel says of this process |
//!
//! Beside them stand [`client`], [`demo`] and [`logging`], and of the program `main.rs`, `cli.rs` and `commands/`.
//!
//! # The path of one connection
//!
//! **It comes in** at a listener's accept loop (`proxy/accept.rs`), one per iteration of the
//! [`net::Reactor`]. The loop takes the [`conn::Route`] of this moment from the listener's
//! [`conn::CurrentRoute`]. [`state::Guard::insert`] makes the connection's entry in the set of all
//! ([`state::Conns`]) and in the set of its entrypoint ([`state::Members`]), and from then on it
//! counts. A task is spawned for it; the entry gets the task's handle by [`state::Conn::owned_by`].
//!
//! **Its task owns it**: [`conn::serve()`] has the guard, the route and the client's
//! [`net::Stream`]. It tries the route's servers in the order of [`state::Service::in_turn`],
//! connects to one of them with [`net::dial_tcp`] or [`net::Stream::connect_unix`], enters the set
//! of that server with [`state::Conn::relaying`], and copies both ways with [`net::relay()`] until
//! both sides have finished or one has broken. What passes is counted in the entry's cells, by
//! [`state::Conn::moved`].
//!
//! **It ends in one way.** Whatever happened has a [`state::CloseReason`], and the drop of the
//! guard takes the entry out of all its sets: after the last byte, after a reset, in a panic's
//! unwinding, or because [`state::Conns::kill`] dropped the task. A stream that was not said to be
//! finished resets its peer when it is dropped, so that no cut looks like an end.
//!
//! **Its count is read** when somebody asks, as the length of a set: [`state::Conns::len`] for all
//! connections, [`state::Members::len`] for those of one entrypoint or server.
//! [`state::Shared::snapshot`] copies these lengths and the counters for the thread of the admin
//! endpoint. Nothing counts beside a set, and since one thread changes and copies all of it, every
//! scrape is one moment.
//!
//! # How a reload comes into force
//!
//! A [`proxy::Commander`] sends the wish to the supervisor's task (`proxy/supervisor.rs`). That has
//! the [`proxy::Source`] read and check the file, says what differs ([`config::Changes`]), and
//! brings the new [`config::Config`] into force whole or not at all (`proxy/running.rs`): first it
//! opens what is new, which can fail, then it replaces each listener's route and closes what is
//! gone, which cannot. Connections keep the route that they began with. The [`state::Registry`]
//! finds entrypoints and servers by name and keeps none of them alive: one that is removed lives
//! until its last connection has gone.

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
