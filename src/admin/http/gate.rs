//! What a request may do: by where it comes from, and by the token that it has.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use http_types::StatusCode;

use super::answer::{Answer, problem, text};
use crate::admin::sockets::Caller;
use crate::admin::token::Token;
use crate::state::{Bucket, Throttle};

/// How many wrong tokens a client may send at once, and the time in which it may send one more.
const WRONG_AT_ONCE: u32 = 10;
const WRONG_EVERY: Duration = Duration::from_secs(1);
/// How many clients that sent wrong tokens are remembered.
const REMEMBERED: usize = 64;
/// Wrong tokens are logged once in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What a request's token proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing: there is no token in the configuration.
    NotConfigured,
    /// Nothing: the request has none.
    Missing,
    /// That its sender may give orders.
    Accepted,
    /// Nothing: it is another one.
    Wrong,
    /// Nothing: it was not looked at, because its sender has sent too many wrong ones. After this
    /// time it may try again.
    TooMany(Duration),
}

/// Who sent a request, and what it proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    /// Who sent it.
    pub caller: Caller,
    /// What its token proves.
    pub proof: Proof,
}

impl Access {
    /// What is known before the token was looked at.
    pub(super) fn without_proof(caller: Caller) -> Self {
        let proof = Proof::Missing;
        Self { caller, proof }
    }

    /// Returns whether it may give orders.
    pub(super) fn may_order(&self) -> bool {
        match self.caller {
            Caller::Control => true,
            Caller::Tcp(_) => self.proof == Proof::Accepted,
            Caller::Stranger => false,
        }
    }
}

/// Judges requests.
#[derive(Debug)]
pub(crate) struct Gate {
    token: Option<Token>,
    /// Whether reading over TCP needs the token too.
    is_private: bool,
    failures: RefCell<Failures>,
    complaints: Throttle,
}

impl Gate {
    /// Creates a gate for which this is the token. If `is_private`, reading over TCP needs it too.
    #[must_use]
    pub(crate) fn new(token: Option<Token>, is_private: bool) -> Self {
        Self {
            is_private: is_private && token.is_some(),
            token,
            failures: RefCell::default(),
            complaints: Throttle::new(COMPLAIN_EVERY),
        }
    }

    /// Judges a request with this Authorization header at `now`. A wrong token counts against its
    /// sender.
    pub(super) fn judge(&self, caller: Caller, header: Option<&str>, now: Instant) -> Access {
        let proof = match (caller, &self.token) {
            (_, None) => Proof::NotConfigured,
            (Caller::Tcp(ip), Some(token)) => match header.and_then(bearer) {
                None => Proof::Missing,
                Some(given) => self.prove(token, given.as_bytes(), ip, now),
            },
            // What the control socket lets in needs none.
            _ => Proof::Missing,
        };
        Access { caller, proof }
    }

    fn prove(&self, token: &Token, given: &[u8], ip: IpAddr, now: Instant) -> Proof {
        let mut failures = self.failures.borrow_mut();
        // Not even compared: otherwise the right one would still show among any number of guesses.
        let wait = failures.wait(ip, now);
        if !wait.is_zero() {
            return Proof::TooMany(wait);
        }
        if token.is(given) {
            return Proof::Accepted;
        }
        failures.count(ip, now);
        if let Some(suppressed) = self.complaints.admit(now) {
            log::warn!(peer:% = ip, suppressed;
                "admin: wrong token; if it is not one of your own clients, keep it from this address");
        }
        Proof::Wrong
    }

    /// Returns whether the request may read.
    pub(super) fn may_read(&self, access: Access) -> bool {
        let is_private = self.is_private && access.caller != Caller::Control;
        match access.proof {
            Proof::Wrong | Proof::TooMany(_) => false,
            Proof::Missing => !is_private,
            Proof::NotConfigured | Proof::Accepted => true,
        }
    }
}

/// Creates the response to a request whose token is missing, wrong or was not looked at. In JSON
/// for the paths of the API that only read.
pub(super) fn refuse(proof: Proof, in_json: bool) -> Answer {
    let (status, why) = match proof {
        Proof::TooMany(_) => (
            StatusCode::TooManyRequests,
            "too many wrong tokens; wait, and see that it is the one in `token_file` in [admin] of the configuration",
        ),
        Proof::Wrong => (
            StatusCode::Unauthorized,
            "wrong token; send the one in `token_file` in [admin] of the configuration",
        ),
        _ => (
            StatusCode::Unauthorized,
            "this needs the token in `token_file` in [admin] of the configuration: the header `Authorization: Bearer TOKEN`, or --token-file FILE for coracle's own commands",
        ),
    };
    let mut answer = match in_json {
        true => problem(status, why, None),
        false => text(
            status,
            &format!("{status} {}: {why}\n", status.canonical_reason()),
        ),
    };
    let response = &mut answer.response;
    let (name, value) = match proof {
        Proof::TooMany(wait) => {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            ("Retry-After", seconds.to_string())
        }
        _ => ("WWW-Authenticate", "Bearer realm=\"coracle\"".to_owned()),
    };
    response.insert_header(name, value);
    answer
}

/// Returns the token in an Authorization header. Other kinds of authorization may be meant for a proxy
/// in front.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

/// Who has sent wrong tokens lately. A limit for all together would let anyone lock out the others.
#[derive(Debug, Default)]
struct Failures(Vec<(IpAddr, Bucket)>);

impl Failures {
    /// Returns how long a client must wait; zero if it need not.
    fn wait(&self, ip: IpAddr, now: Instant) -> Duration {
        let ip = network(ip);
        let found = self.0.iter().find(|(other, _)| *other == ip);
        found.map_or(Duration::ZERO, |(_, bucket)| bucket.wait(now))
    }

    /// Counts a wrong token.
    fn count(&mut self, ip: IpAddr, now: Instant) {
        let ip = network(ip);
        let at = match self.0.iter().position(|(other, _)| *other == ip) {
            Some(at) => at,
            None => {
                self.0.retain(|(_, bucket)| bucket.full_at() > now);
                if self.0.len() >= REMEMBERED {
                    // The one that has the most left loses the least.
                    let all = self.0.iter().enumerate();
                    let first = all.min_by_key(|(_, (_, bucket))| bucket.full_at());
                    if let Some((first, _)) = first {
                        self.0.swap_remove(first);
                    }
                }
                self.0
                    .push((ip, Bucket::new(WRONG_AT_ONCE, WRONG_EVERY, now)));
                self.0.len() - 1
            }
        };
        self.0[at].1.take(now);
    }
}

/// Returns what a client can be told apart by. One IPv6 host has a whole network of 64 bits.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn clients_are_limited_one_by_one() {
        let now = Instant::now();
        let mut failures = Failures::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let guesser = ip("192.0.2.1");
        for _ in 0..WRONG_AT_ONCE {
            assert_eq!(failures.wait(guesser, now), Duration::ZERO);
            failures.count(guesser, now);
        }
        assert_eq!(failures.wait(guesser, now), WRONG_EVERY);
        assert_eq!(failures.wait(ip("::ffff:192.0.2.1"), now), WRONG_EVERY);
        assert_eq!(failures.wait(ip("192.0.2.2"), now), Duration::ZERO);
        for _ in 0..WRONG_AT_ONCE {
            failures.count(ip("2001:db8::1"), now);
        }
        assert_eq!(failures.wait(ip("2001:db8::2"), now), WRONG_EVERY);
        assert_eq!(failures.wait(ip("2001:db8:0:1::1"), now), Duration::ZERO);
    }

    #[test]
    fn many_clients_take_bounded_memory_and_do_not_free_a_guesser() {
        let now = Instant::now();
        let mut failures = Failures::default();
        let guesser = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..WRONG_AT_ONCE {
            failures.count(guesser, now);
        }
        for n in 0..1000_u32 {
            failures.count(IpAddr::from(n.to_be_bytes()), now);
        }
        assert_eq!(failures.0.len(), REMEMBERED);
        assert_eq!(failures.wait(guesser, now), WRONG_EVERY);
        failures.count(IpAddr::from([198, 51, 100, 1]), now + WRONG_EVERY * 10);
        assert_eq!(failures.0.len(), 1, "the others are forgotten");
    }
}
