//! The screen as lines of text, from the state alone. No I/O.

use serde_json::Value;

use super::columns::{Column, Kind, number, refusals, routes, state, table, text};
use super::look::{BYTES, RATES};
use super::mode::Mode;
use super::short::{age, bytes};
use super::state::{SORTS, Top};
use super::style::{Line, Look};
use crate::config::printable;

/// Below this there is no room for anything.
const LEAST: (usize, usize) = (20, 6);

const ENTRYPOINTS: [Column; 8] = [
    text("ENTRYPOINT", "name", 8, 0),
    text("LISTENS ON", "listening", 9, 3),
    text("SERVICE", "service", 6, 4),
    routes("ROUTES", "routes", 6),
    number("OPEN", "open", Kind::Count, 0),
    number("TO SERVER/S", RATES[0], Kind::Bytes, 1),
    number("TO CLIENT/S", RATES[1], Kind::Bytes, 1),
    refusals("REFUSED", 7, 5),
];

const SERVICES: [Column; 6] = [
    text("SERVICE", "name", 8, 0),
    number("OPEN", "open", Kind::Count, 0),
    number("QUEUED", "queued", Kind::Count, 3),
    number("RETRIES", "retries", Kind::Count, 4),
    number("TO SERVER/S", RATES[0], Kind::Bytes, 1),
    number("TO CLIENT/S", RATES[1], Kind::Bytes, 1),
];

const SERVERS: [Column; 9] = [
    text("SERVICE", "service", 6, 2),
    text("SERVER", "name", 10, 0),
    number("OPEN", "open", Kind::Count, 0),
    number("DIALLING", "dialling", Kind::Count, 5),
    number("ERRORS", "connect_errors", Kind::Count, 4),
    number("TO SERVER/S", RATES[0], Kind::Bytes, 3),
    number("TO CLIENT/S", RATES[1], Kind::Bytes, 3),
    number("SINCE", "state_seconds", Kind::Age, 1),
    state("STATE", 20),
];

const CONNECTIONS: [Column; 11] = [
    text("PEER", "peer", 15, 0),
    text("ENTRYPOINT", "entrypoint", 5, 4),
    text("SERVICE", "service", 5, 5),
    routes("ROUTE", "route", 6),
    text("SERVER", "server", 9, 2),
    number("AGE", "age_seconds", Kind::Age, 0),
    number("TO SRV", BYTES[0], Kind::Bytes, 1),
    number("/S", RATES[0], Kind::Bytes, 1),
    number("TO CLI", BYTES[1], Kind::Bytes, 1),
    number("/S", RATES[1], Kind::Bytes, 1),
    text("STATE", "state", 6, 3),
];

const KEYS: [(&str, &str); 11] = [
    ("up, down, k, j", "choose a connection"),
    ("PgUp, PgDn, Home, End", "other pages"),
    ("Tab", "to the servers, and back"),
    ("s, > and <", "sort by another number"),
    ("r", "reverse the order"),
    (
        "/",
        "show only some: a network, a state, or the name of an entrypoint, a service or a server",
    ),
    ("Esc", "show all again"),
    ("x, Del", "end the chosen connection, after a question"),
    (
        "d",
        "drain the chosen server or that of the connection; again makes it ready",
    ),
    ("?, h", "this help"),
    ("q, Ctrl-C", "quit"),
];

impl Top {
    /// Returns the lines of the screen, as many as the terminal has rows.
    #[must_use]
    pub fn screen(&self) -> Vec<Line> {
        let (width, height) = self.size;
        if width < LEAST.0 || height < LEAST.1 {
            let line = Line::of(Look::Bad, "too small").cut(width);
            return vec![line];
        }
        let mut lines = self.summary();
        if self.mode == Mode::Help {
            lines.truncate(1);
            lines.push(Line::default());
            let help = KEYS.map(|(key, what)| Line::of(Look::Plain, format!("{key:22}{what}")));
            lines.extend(help);
            lines.push(Line::default());
            lines.push(Line::of(Look::Plain, "Any key goes back."));
        } else {
            let heights = self.heights();
            for table in [
                self.first(&ENTRYPOINTS, self.look.entrypoints(), heights.entrypoints),
                self.first(&SERVICES, self.look.services(), heights.services),
                self.servers(heights.servers),
                self.connections(heights.connections),
            ] {
                if self.has_gaps() && !table.is_empty() {
                    lines.push(Line::default());
                }
                lines.extend(table);
            }
        }
        lines.truncate(height - 1);
        lines.resize(height - 1, Line::default());
        lines.push(self.foot());
        lines.into_iter().map(|line| line.cut(width)).collect()
    }

    /// Two lines about all.
    fn summary(&self) -> Vec<Line> {
        let look = &self.look;
        let version = look.status["coracle"].as_str().unwrap_or_default();
        let mut first = Line::of(Look::Title, format!("coracle {}", printable(version)));
        if let Some(uptime) = look.uptime {
            first.push(Look::Plain, format!(", up {}", age(uptime)));
        }
        first.push(Look::Plain, "  ");
        match (&self.trouble, look.mismatch) {
            (Some(_), _) => first.push(Look::Bad, "not reachable, retrying"),
            (None, Some(0.0)) => first.push(Look::Good, "the kernel agrees"),
            (None, Some(n)) => first.push(
                Look::Bad,
                format!("the kernel's count differs by {n}; see coracle audit"),
            ),
            (None, None) => first.push(Look::Warn, "the kernel's table cannot be read"),
        }
        first.push(Look::Plain, format!("  {}", self.address));
        let mut second = Line::of(Look::Title, format!("{} open", look.open));
        let [up, down] = match self.rates {
            Some(rates) => rates.map(bytes),
            None => ["-", "-"].map(str::to_owned),
        };
        second.push(
            Look::Plain,
            format!(
                "  {} opened  {} closed  {up}/s to servers  {down}/s to clients",
                look.opened, look.closed
            ),
        );
        vec![first, second]
    }

    /// The first rows of a table, and how many more there are.
    fn first(&self, shape: &[Column], all: &[Value], height: usize) -> Vec<Line> {
        let mut lines = self.block(shape, &all[..all.len().min(height)], height);
        if all.len() > height && height > 0 {
            let more = format!("and {} more", all.len() + 1 - height);
            lines.pop();
            lines.push(Line::of(Look::Plain, more));
        }
        lines
    }

    fn servers(&self, height: usize) -> Vec<Line> {
        let all = self.look.servers();
        // The chosen one is among those shown.
        let first = (self.server + 1).saturating_sub(height).min(all.len());
        let last = (first + height).min(all.len());
        let mut lines = self.block(&SERVERS, &all[first..last], height);
        let is_down = |it: &Value| it["up"] == false;
        for (n, line) in lines.iter_mut().skip(1).enumerate() {
            let it = &all[first + n];
            let look = match is_down(it) {
                _ if self.is_among_servers && first + n == self.server => Look::Chosen,
                true => Look::Bad,
                false if it["admin"] == "ready" => Look::Plain,
                false => Look::Warn,
            };
            *line = Line::of(look, line.text());
        }
        if let Some(line) = lines.first_mut().filter(|_| all.len() > height) {
            let down = all.iter().filter(|it| is_down(it)).count();
            let more = format!("  {}-{last} of {}, {down} down", first + 1, all.len());
            line.push(Look::Plain, more);
        }
        lines
    }

    fn connections(&self, height: usize) -> Vec<Line> {
        let look = &self.look;
        let all = look.connections();
        let shown = &all[..all.len().min(height)];
        let what = match shown.is_empty() {
            true => "no connection".to_owned(),
            false => {
                let (first, last) = (look.offset() + 1, look.offset() + shown.len());
                format!("{first}-{last} of {} connections", look.total())
            }
        };
        let order = SORTS[self.sort].1[usize::from(self.is_ascending)];
        let mut about = Line::of(Look::Title, what);
        about.push(Look::Plain, format!(", {order}"));
        if !self.filter_text.is_empty() {
            let filter = printable(&self.filter_text);
            about.push(Look::Warn, format!(", only {filter} (Esc shows all)"));
        }
        let mut lines = self.block(&CONNECTIONS, shown, height);
        if !self.is_among_servers
            && !shown.is_empty()
            && let Some(line) = lines.get_mut(self.row.min(shown.len() - 1) + 1)
        {
            *line = Line::of(Look::Chosen, line.text());
        }
        lines.insert(0, about);
        lines
    }

    /// Lays out a heading and rows, unless there is no room for them.
    fn block(&self, shape: &[Column], all: &[Value], height: usize) -> Vec<Line> {
        if height == 0 {
            return Vec::new();
        }
        let lines = table(shape, all, self.size.0).into_iter().enumerate();
        let look = |n| if n == 0 { Look::Title } else { Look::Plain };
        lines.map(|(n, text)| Line::of(look(n), text)).collect()
    }

    /// The last line: a question, what happened, or what the keys do.
    fn foot(&self) -> Line {
        let message = || {
            let (is_well, text) = self.message.as_ref()?;
            let look = if *is_well { Look::Good } else { Look::Bad };
            Some(Line::of(look, printable(text)))
        };
        match &self.mode {
            Mode::Confirm(question, _) => {
                let mut line = Line::of(Look::Title, question.clone());
                line.push(Look::Plain, " y/n");
                line
            }
            Mode::Filter(text) => {
                let mut line = Line::of(Look::Title, "only: ");
                line.push(Look::Plain, format!("{}_", printable(text)));
                if let Some(message) = message() {
                    line.push(Look::Bad, format!("  {}", message.text()));
                }
                line
            }
            Mode::Browse | Mode::Help => message().unwrap_or_else(|| match &self.trouble {
                Some(why) => Line::of(Look::Bad, printable(why)),
                None => Line::of(
                    Look::Plain,
                    "? help  q quit  / filter  s sort  r reverse  x kill  d drain  Tab servers",
                ),
            }),
        }
    }
}
