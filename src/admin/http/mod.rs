//! What speaks HTTP: who is served, what they may ask, and what they are answered.

mod clients;
mod conversation;
mod hosts;
mod request;
mod reserve_fd;
mod routes;
mod serve;

pub(super) use clients::Clients;
pub(super) use hosts::Hosts;
pub(super) use reserve_fd::ReserveFd;
pub(super) use routes::Routes;
pub(super) use serve::Serving;
