//! Integration tests, one module each. Tests that need their own process are in files beside this
//! folder.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod accounting;
mod admin;
mod admin_clients;
mod admin_metrics;
mod admin_thread;
mod agreement;
mod alert;
mod api;
mod audit_address;
mod benchmarks;
mod cli;
mod commands;
mod compat;
mod config;
mod config_cases;
mod control;
mod demo;
mod descriptors;
mod dial;
mod docs;
mod double_close;
mod drain;
mod events;
mod exits;
mod failover;
mod forwarding;

mod health;
mod help;
mod history;
mod kill;
mod killer;
mod layers;
mod limits;
mod list;
mod logs;
mod logs_api;
mod loops;
mod members;
mod monitoring;
mod names;
mod notify;
mod old_kernel;
mod openwrt;
mod oracle;
mod oracle_servers;
mod page;
mod panic;
mod patience;
mod probe;
mod prometheus;
mod queue;
mod reactor;
mod relay;
mod reload;
mod resets;
mod resolve;
mod reuse_port;
mod room;
mod servers;
mod signals;
mod sizes;
mod srv;
mod start;
mod status;
mod token;
mod top;
mod troubleshooting;
mod unix_socket;
mod unprivileged;
