//! What `top` knows and what the person at the keys has chosen. No I/O.

use std::time::{Duration, Instant};

use super::look::{Carried, Look, rates};
use super::mode::Mode;

/// The numbers to sort by, as the API calls them, and the order that `desc` means.
pub(super) const SORTS: [(&str, [&str; 2]); 4] = [
    ("age", ["the oldest first", "the newest first"]),
    ("bytes", ["the most bytes first", "the fewest bytes first"]),
    (
        "to_server_bytes",
        [
            "the most bytes to servers first",
            "the fewest bytes to servers first",
        ],
    ),
    (
        "to_client_bytes",
        [
            "the most bytes to clients first",
            "the fewest bytes to clients first",
        ],
    ),
];

/// Of two looks that are closer than this, rates would be noise.
const LEAST_APART: Duration = Duration::from_millis(300);

/// The state of `top`.
#[derive(Debug)]
pub struct Top {
    /// Where coracle is, as a person reads it.
    pub(super) address: String,
    /// Why no orders can be given, if that is so.
    pub(super) why_no_orders: Option<String>,
    /// The terminal's columns and rows.
    pub(super) size: (usize, usize),
    /// The last look.
    pub(super) look: Look,
    /// When rates are counted from, and what had passed then.
    base: Option<(Instant, Vec<Carried>)>,
    /// The bytes per second of all entrypoints, to servers and to clients.
    pub(super) rates: Option<[f64; 2]>,
    /// Why the last attempt to look failed.
    pub(super) trouble: Option<String>,
    /// The place in [`SORTS`].
    pub(super) sort: usize,
    pub(super) is_ascending: bool,
    /// As typed.
    pub(super) filter_text: String,
    /// As parameters.
    pub(super) filter: String,
    /// How many connections come before the first one shown.
    pub(super) offset: usize,
    /// The chosen row.
    pub(super) row: usize,
    /// The ID in that row.
    chosen: Option<String>,
    /// Whether keys move among the servers.
    pub(super) is_among_servers: bool,
    /// The chosen server.
    pub(super) server: usize,
    pub(super) mode: Mode,
    /// What happened last, and whether it went well.
    pub(super) message: Option<(bool, String)>,
}

impl Top {
    /// Starts with the oldest connections. `why_no_orders` says why coracle takes no orders from
    /// here, if that is so.
    #[must_use]
    pub fn new(address: String, why_no_orders: Option<String>, size: (usize, usize)) -> Self {
        Self {
            address,
            why_no_orders,
            size,
            look: Look::default(),
            base: None,
            rates: None,
            trouble: None,
            sort: 0,
            is_ascending: false,
            filter_text: String::new(),
            filter: String::new(),
            offset: 0,
            row: 0,
            chosen: None,
            is_among_servers: false,
            server: 0,
            mode: Mode::Browse,
            message: None,
        }
    }

    /// Takes the terminal's new size: columns and rows.
    pub fn resize(&mut self, size: (usize, usize)) {
        self.size = size;
    }

    /// Returns the path of the connections to ask for.
    #[must_use]
    pub fn wanted(&self) -> String {
        let order = if self.is_ascending { "asc" } else { "desc" };
        format!(
            "/api/v1/connections?sort={}&order={order}&offset={}&limit={}{}",
            SORTS[self.sort].0,
            self.offset,
            self.heights().connections.clamp(1, 1000),
            self.filter
        )
    }

    /// Takes the answers. Returns `true` if there is nothing at the place that was asked for, and
    /// the one before should be.
    pub fn see(&mut self, mut look: Look) -> bool {
        self.trouble = None;
        let at = look.at.unwrap_or_else(Instant::now);
        let is_another = look.opened < self.look.opened || look.uptime < self.look.uptime;
        let mut base = self.base.take().filter(|_| !is_another);
        let carried = look.carried();
        self.rates = None;
        if let Some((then, before)) = &base {
            let seconds = at.duration_since(*then).as_secs_f64().max(0.001);
            look.add_rates(before, seconds);
            let sum = carried.last().map_or([0.0; 2], |(_, sum)| *sum);
            self.rates = rates(before, "", sum, seconds);
        }
        base = base.filter(|(then, _)| at.duration_since(*then) < LEAST_APART);
        self.base = Some(base.unwrap_or((at, carried)));
        self.look = look;
        let all = self.look.connections();
        let kept = self.chosen.as_deref();
        let kept = kept.and_then(|id| all.iter().position(|it| it["id"] == *id));
        let is_beyond = all.is_empty() && self.offset > 0;
        self.choose_row(kept.unwrap_or(self.row));
        self.server = self.server.min(self.look.servers().len().saturating_sub(1));
        if is_beyond {
            let rows = self.heights().connections;
            self.offset = self.look.total().saturating_sub(rows);
        }
        is_beyond
    }

    /// Takes the reason why there were no answers.
    pub fn fail(&mut self, why: String) {
        self.trouble = Some(why);
    }

    /// Takes the answer to an order, and whether it was obeyed.
    pub fn hear(&mut self, is_well: bool, text: String) {
        self.message = Some((is_well, text));
    }

    /// Chooses a row of the page, or the last one.
    pub(super) fn choose_row(&mut self, row: usize) {
        let all = self.look.connections();
        self.row = row.min(all.len().saturating_sub(1));
        let id = all.get(self.row).and_then(|it| it["id"].as_str());
        self.chosen = id.map(str::to_owned);
    }

    /// Forgets which connection was chosen, because another page comes.
    pub(super) fn choose_none(&mut self, row: usize) {
        self.row = row;
        self.chosen = None;
    }

    /// Returns whether there is room for an empty line before each table.
    pub(super) fn has_gaps(&self) -> bool {
        self.size.1 >= 24
    }

    /// Divides the rows of the terminal among the tables.
    pub(super) fn heights(&self) -> Heights {
        /// Two lines about all, one about the connections, their heading, and one for messages.
        const FIXED: usize = 5;
        let gap = usize::from(self.has_gaps());
        let mut left = self.size.1.saturating_sub(FIXED + gap);
        let mut take = |rows: usize, most: usize, least_left: usize| {
            let rows = rows.min(most);
            // With its heading.
            let taken = rows + 1 + gap;
            if rows == 0 || left < least_left + taken {
                return 0;
            }
            left -= taken;
            rows
        };
        let rest = self.size.1.saturating_sub(FIXED + 2);
        let servers = take(self.look.servers().len(), (rest / 4).max(2), 3);
        let entrypoints = take(self.look.entrypoints().len(), (rest / 5).max(1), 5);
        // A service with one server has the same numbers as that.
        let (all, servers_in_all) = (self.look.services().len(), self.look.servers().len());
        let all = if all < servers_in_all { all } else { 0 };
        let services = take(all, rest / 6, 9);
        Heights {
            entrypoints,
            services,
            servers,
            connections: left,
        }
    }
}

/// How many rows each table has, without its heading.
pub(super) struct Heights {
    pub entrypoints: usize,
    pub services: usize,
    pub servers: usize,
    pub connections: usize,
}
