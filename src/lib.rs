//! Coracle, a single-threaded proxy whose connection count cannot drift.

pub mod admin;
pub mod config;
pub mod conn;
pub mod demo;
pub mod logging;
pub mod net;
pub mod proxy;
pub mod state;
pub mod sys;
