//! Identities: numbers that are unique for the life of the process and never reused.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// Declares an identity type.
macro_rules! identity {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(NonZeroU64);

        impl From<NonZeroU64> for $name {
            fn from(number: NonZeroU64) -> Self {
                Self(number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

identity! {
    /// A connection's identity.
    ConnId
}

impl FromStr for ConnId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().map(Self);
        number.map_err(|_| "not an ID; write a number, as `coracle list` shows it".to_owned())
    }
}

identity! {
    /// An entrypoint's identity. Older entrypoints have smaller identities.
    EntrypointId
}
identity! {
    /// A server's identity. Older servers have smaller identities.
    ServerId
}

/// Allocates identities.
#[derive(Debug, Default)]
pub(super) struct Identities(Cell<u64>);

impl Identities {
    /// Returns how many identities there have been.
    pub(super) fn count(&self) -> u64 {
        self.0.get()
    }

    /// Returns an identity that was never used before.
    pub(super) fn next<I: From<NonZeroU64>>(&self) -> I {
        let number = self.0.get() + 1;
        self.0.set(number);
        // At one per nanosecond, 2^64 identities last 584 years.
        NonZeroU64::new(number).unwrap_or(NonZeroU64::MAX).into()
    }
}
