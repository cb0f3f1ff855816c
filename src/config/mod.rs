//! Text to a [`Config`] that is valid by its type, or every mistake in the text at once. No I/O.

mod address;
mod diagnostic;
mod endpoint;
mod forward;
mod host;
mod lint;
mod model;
mod origin;
mod parse;
mod read;
mod resolve;
mod socket;
mod syntax;
mod table;
mod value;

pub use address::{Address, Listen};
pub use diagnostic::{Diagnostic, Diagnostics, Mistake, Place, Severity, count, printable};
pub use endpoint::AdminEndpoint;
pub use forward::Forward;
pub use host::Host;
pub use model::{Admin, Config, Entrypoint, Log, Metrics, Service, SocketAccess, defaults};
pub use parse::Overrides;
