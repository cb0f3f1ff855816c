//! The HTTP server: accepts clients, parses their requests and answers them.

mod answer;
mod api_routes;
mod clients;
mod conversation;
mod gate;
mod hosts;
mod ordering;
mod page_routes;
mod request;
mod reserve_fd;
mod routes;
mod serve;
mod stream;

#[cfg(fuzzing)]
pub(super) fn fuzz(bytes: &[u8], caller: super::sockets::Caller) -> Option<usize> {
    let mut head = request::parse(bytes, caller).ok().flatten()?;
    head.settle(gate::Access::without_proof(caller));
    Some(head.head_bytes)
}

pub(super) use clients::Clients;
pub(super) use gate::Gate;
pub(super) use hosts::Hosts;
pub(super) use ordering::Ordering;
pub(super) use reserve_fd::ReserveFd;
pub(super) use routes::Routes;
pub(super) use serve::Serving;
