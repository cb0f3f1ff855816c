//! Coracle, a single-threaded proxy whose connection count cannot drift.

pub mod admin;
pub mod config;
pub mod state;
pub mod sys;
