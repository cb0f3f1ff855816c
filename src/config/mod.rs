//! Parses text into a [`Config`] that is valid by construction, or reports every error in it.
//! Does no I/O.

mod access;
mod address;
mod advice;
mod build;
mod by_name;
mod check;
mod decode;
mod diagnostic;
mod diff;
mod draft;
mod endpoint;
mod forward;
mod host;
mod keyword;
mod lint;
mod model;
mod origin;
mod resolve;
mod route_value;
mod size;
mod socket;
mod toml_errors;
mod toml_reader;
mod value;
mod words;

pub use access::ReadFile;
pub use address::{Address, Listen};
pub use build::Overrides;
pub use diagnostic::{
    Diagnostic, Diagnostics, Location, Mistake, Severity, count, did_you_mean, printable,
};
pub use diff::Changes;
pub use endpoint::AdminEndpoint;
pub use forward::Forward;
pub use host::Host;
pub use model::{
    Access, Accounting, Admin, AtLimit, AtQuota, Balance, ClientLimits, Config, ControlSocket,
    Entrypoint, Expect, Health, HealthKind, Limits, Listening, Log, Metrics, OnDown, OnRemoved,
    Quota, QuotaPeriod, Resolve, Route, SendProxy, Server, Service, SocketAccess, WhenDown,
    defaults,
};
pub use value::{AdminListen, duration};

pub use crate::state::AtRefuse;
