//! What speaks HTTP: who is served, what they may ask, and what they are answered.

mod answer;
mod clients;
mod conversation;
mod hosts;
mod request;
mod serve;
mod spare;

pub(super) use answer::Window;
pub(super) use clients::Clients;
pub(super) use hosts::Hosts;
pub(super) use serve::Endpoint;
pub(super) use spare::Spare;
