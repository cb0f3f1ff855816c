//! One fault: which call fails, how, when, and in which phase; all faults, and a sample of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::table::{self, EXCEPTIONS, Exception};
use crate::support::rng::Rng;

/// An interrupted call is retried at once, and one that is always interrupted would never return:
/// these errors come this many times.
const BURST: &str = "1..50";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// From reading the configuration until it serves.
    Start,
    /// Under traffic.
    Running,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub phase: Phase,
    pub call: String,
    /// `ENOMEM`, or `retval=0`.
    pub error: String,
    /// strace's expression: `3` is the third call of each thread, `1+` every call, `1..50` the
    /// first fifty.
    pub when: String,
}

impl Case {
    /// Whether it fails repeatedly.
    pub fn lasts(&self) -> bool {
        self.when.contains(['+', '.'])
    }

    /// The argument of strace's `-e inject=`.
    pub fn injection(&self) -> String {
        let fault = match self.error.contains('=') {
            true => self.error.clone(),
            false => format!("error={}", self.error),
        };
        format!("{}:{fault}:when={}", self.call, self.when)
    }

    /// Why the process may end, if it may.
    pub fn exception(&self) -> Option<&'static Exception> {
        EXCEPTIONS.iter().find(|exception| {
            exception.call == self.call
                && exception.error == self.error
                && exception.phase == self.phase
        })
    }

    /// The same at the first call, if the chosen one was not made.
    pub fn first(&self) -> Self {
        Self {
            when: "1".into(),
            ..self.clone()
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.phase == Phase::Start {
            f.write_str("start:")?;
        }
        write!(f, "{}:{}:when={}", self.call, self.error, self.when)
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (phase, rest) = match text.strip_prefix("start:") {
            Some(rest) => (Phase::Start, rest),
            None => (Phase::Running, text),
        };
        let parts: Vec<_> = rest.split(':').collect();
        let [call, error, when] = parts[..] else {
            return Err(format!("{text:?} is not [start:]CALL:ERROR:when=N"));
        };
        let when = when.strip_prefix("when=").ok_or("it lacks when=")?;
        table::call_named(call).ok_or(format!("{call} is not in the table"))?;
        Ok(Self {
            phase,
            call: call.into(),
            error: error.into(),
            when: when.into(),
        })
    }
}

/// How often each thread makes each call in a phase, since strace counts per thread.
pub type Counts = BTreeMap<String, BTreeSet<u64>>;

/// Every call that is made, with each of its errors: at the first call, at a random one in each
/// thread, and lasting.
pub fn all(counts: &BTreeMap<Phase, Counts>, rng: &mut Rng) -> Vec<Case> {
    let mut cases = Vec::new();
    for (&phase, counts) in counts {
        for (name, threads) in counts {
            let errors = table::call_named(name).map_or(&[][..], |call| call.errors);
            for error in errors {
                let lasting = match *error {
                    "EINTR" | "EAGAIN" => BURST,
                    _ => "1+",
                };
                let later = threads.iter().map(|n| 1 + rng.u64(..*n));
                let once: BTreeSet<u64> = later.chain([1]).collect();
                let whens = once.iter().map(u64::to_string);
                for when in whens.chain([lasting.to_owned()]) {
                    cases.push(Case {
                        phase,
                        call: name.clone(),
                        error: (*error).to_owned(),
                        when,
                    });
                }
            }
        }
    }
    cases
}

/// A random sample of them, in random order.
pub fn sample(mut cases: Vec<Case>, n: usize, rng: &mut Rng) -> Vec<Case> {
    rng.shuffle(&mut cases);
    cases.truncate(n);
    cases
}
