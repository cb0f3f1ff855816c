//! What clients have used as text, to survive a restart. No I/O.
//!
//! One line each, with words and numbers that are separated by spaces:
//!
//! ```text
//! coracle accounting 1
//! saved SECONDS
//! period KIND NUMBER
//! others CONNECTIONS TO_SERVER_BYTES TO_CLIENT_BYTES FORGOTTEN
//! client CLIENT SINCE ENDED CONNECTIONS TO_SERVER_BYTES TO_CLIENT_BYTES OF_QUOTA_BYTES
//! end CLIENTS
//! ```

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::Shared;
use super::account_numbers::{AccountNumbers, ClientNumbers};
use super::accounts::{Accounts, Moment};
use super::client::Client;
use super::past::Passed;

const HEAD: &str = "coracle accounting 1";
/// The kind of the period without a quota.
const NO_PERIOD: &str = "none";

/// What a file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// When it was written, in seconds since 1970.
    wall: u64,
    /// The kind of the quota's period, and its number.
    period: (String, u64),
    others: Passed,
    forgotten: u64,
    clients: Vec<SavedClient>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SavedClient {
    client: Client,
    /// In seconds since 1970.
    since: u64,
    ended: u64,
    used: Passed,
    of_quota: u64,
}

/// Where a text is damaged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The number of the line.
    pub line: usize,
    /// What is wrong there.
    pub why: &'static str,
}

impl AccountNumbers {
    /// Returns the text to save. `wall` is the time in seconds since 1970.
    #[must_use]
    pub fn text(&self, wall: u64) -> String {
        let kind = self.rules.quota.map_or(NO_PERIOD, |it| it.period.word());
        let period = self.period.unwrap_or(0);
        let numbers = |it: Passed| format!("{} {} {}", it.opened, it.bytes[0], it.bytes[1]);
        let (others, forgotten) = (numbers(self.others), self.forgotten);
        let mut text =
            format!("{HEAD}\nsaved {wall}\nperiod {kind} {period}\nothers {others} {forgotten}\n");
        let mut clients: Vec<_> = self.clients.iter().collect();
        // The order in which they are forgotten.
        clients.sort_by_key(|it| std::cmp::Reverse(it.quiet));
        for it in clients {
            let ClientNumbers {
                client,
                used,
                of_quota,
                ..
            } = it;
            let at = |ago: Duration| wall.saturating_sub(ago.as_secs());
            let (since, ended) = (at(it.since), at(it.quiet.unwrap_or_default()));
            let used = numbers(*used);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "client {client} {since} {ended} {used} {of_quota}");
        }
        let _ = writeln!(text, "end {}", self.clients.len());
        text
    }
}

impl Saved {
    /// Reads a text.
    ///
    /// # Errors
    /// Returns the first line that is not as it was written.
    pub fn parse(text: &str) -> Result<Self, Damage> {
        let mut lines = Lines {
            rest: text.split_inclusive('\n'),
            line: 0,
        };
        if lines.next()? != HEAD {
            return lines.wrong("it does not begin with `coracle accounting 1`");
        }
        let [wall] = lines.numbers("saved ")?;
        let period = lines.after("period ")?.split_once(' ');
        let period = period.and_then(|(kind, n)| Some((kind.to_owned(), n.parse().ok()?)));
        let Some(period) = period else {
            return lines.wrong("there is no period");
        };
        let [opened, to_server, to_client, forgotten] = lines.numbers("others ")?;
        let mut saved = Self {
            wall,
            period,
            others: Passed {
                opened,
                bytes: [to_server, to_client],
            },
            forgotten,
            clients: Vec::new(),
        };
        loop {
            let line = lines.next()?;
            if let Some(clients) = line.strip_prefix("end ") {
                return match clients.parse() == Ok(saved.clients.len()) {
                    true => Ok(saved),
                    false => lines.wrong("the number of clients is another"),
                };
            }
            let client = line.strip_prefix("client ").and_then(SavedClient::parse);
            match client {
                Some(client) => saved.clients.push(client),
                None => return lines.wrong("it is no client"),
            }
        }
    }
}

impl SavedClient {
    fn parse(line: &str) -> Option<Self> {
        let (client, rest) = line.split_once(' ')?;
        let client = match client {
            "unix" => Client::Unix,
            network => Client::Network(network.parse().ok()?),
        };
        let [since, ended, opened, to_server, to_client, of_quota] = numbers(rest)?;
        Some(Self {
            client,
            since,
            ended,
            used: Passed {
                opened,
                bytes: [to_server, to_client],
            },
            of_quota,
        })
    }
}

fn numbers<const N: usize>(text: &str) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    let mut words = text.split(' ');
    for number in &mut numbers {
        *number = words.next()?.parse().ok()?;
    }
    words.next().is_none().then_some(numbers)
}

struct Lines<'a> {
    rest: std::str::SplitInclusive<'a, char>,
    line: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a str, Damage> {
        self.line += 1;
        let line = self.rest.next().and_then(|line| line.strip_suffix('\n'));
        line.map_or_else(|| self.wrong("it ends too early"), Ok)
    }

    fn after(&mut self, word: &str) -> Result<&'a str, Damage> {
        let rest = self.next()?.strip_prefix(word);
        rest.map_or_else(|| self.wrong("another line belongs here"), Ok)
    }

    fn numbers<const N: usize>(&mut self, word: &str) -> Result<[u64; N], Damage> {
        let found = numbers(self.after(word)?);
        found.map_or_else(|| self.wrong("a number is wrong"), Ok)
    }

    fn wrong<T>(&self, why: &'static str) -> Result<T, Damage> {
        let line = self.line;
        Err(Damage { line, why })
    }
}

impl Accounts {
    /// Adds what a file has. `wall` is the time in seconds since 1970.
    pub(super) fn add_saved(&mut self, saved: &Saved, now: Instant, wall: u64) {
        // A machine without a clock of its own is in the past until it hears the time.
        let wall = wall.max(saved.wall);
        self.not_before = saved.wall;
        let quota = self.rules.quota;
        let number = quota.map_or(0, |it| it.period.number(wall));
        let same = quota.is_some_and(|it| saved.period == (it.period.word().to_owned(), number));
        self.period = quota.map(|_| number);
        self.others = self.others.and(saved.others);
        self.forgotten += saved.forgotten;
        let now = self.moment(now);
        let ago =
            |at: u64| now - Moment::try_from(wall.saturating_sub(at)).unwrap_or(Moment::MAX / 2);
        for it in &saved.clients {
            let total = it.used.bytes[0].wrapping_add(it.used.bytes[1]);
            let before = if same {
                total.wrapping_sub(it.of_quota)
            } else {
                total
            };
            self.add(it.client, it.used, (ago(it.since), ago(it.ended)), before);
        }
    }
}

impl Shared {
    /// Adds what clients had used before the program started: a file's contents. `wall` is the time
    /// in seconds since 1970.
    pub fn add_accounts(&self, saved: &Saved, now: Instant, wall: u64) {
        if let Some(accounts) = self.conns.accounts.borrow_mut().as_mut() {
            accounts.add_saved(saved, now, wall);
        }
    }
}
