//! Faults: what can fail, the tracer that makes it fail, the traffic meanwhile, and the process
//! that must survive it.

// As in the support of all tests.
#![allow(unreachable_pub)]

pub mod case;
pub mod server;
pub mod subject;
pub mod table;
pub mod tracer;
pub mod traffic;
