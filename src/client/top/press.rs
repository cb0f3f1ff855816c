//! What each key does. No I/O.

use super::filter;
use super::keys::Key;
use super::mode::{Mode, Order};
use super::state::{SORTS, Top};
use crate::client::command::percent_encoded;
use crate::config::printable;

/// What the program must do after a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Show the screen again.
    Show,
    /// Draw all of the screen, because something else has written to it.
    Redraw,
    /// Ask for new numbers at once.
    Look,
    /// Give this order, then ask for new numbers.
    Give(Order),
    /// Stop the process until it is continued.
    Suspend,
    /// End.
    Quit,
}

impl Top {
    /// Does what a key means.
    pub fn press(&mut self, key: Key) -> Action {
        match key {
            Key::Ctrl('c') => return Action::Quit,
            Key::Ctrl('z') => return Action::Suspend,
            Key::Ctrl('l') => return Action::Redraw,
            _ => {}
        }
        match std::mem::replace(&mut self.mode, Mode::Browse) {
            Mode::Browse => self.browse(key),
            Mode::Filter(text) => self.edit(text, key),
            Mode::Help => Action::Show,
            Mode::Confirm(question, order) => match key {
                Key::Char('y' | 'Y') => Action::Give(order),
                Key::Char('n' | 'N' | 'q') | Key::Escape => Action::Show,
                _ => {
                    self.mode = Mode::Confirm(question, order);
                    Action::Show
                }
            },
        }
    }

    fn browse(&mut self, key: Key) -> Action {
        self.message = None;
        let page = self.heights().connections.max(1);
        match key {
            Key::Char('q') => return Action::Quit,
            Key::Char('?' | 'h') => self.mode = Mode::Help,
            Key::Char('/') => self.mode = Mode::Filter(self.filter_text.clone()),
            Key::Tab => self.is_among_servers = !self.is_among_servers,
            Key::Char('s' | '>') => return self.sort_by((self.sort + 1) % SORTS.len()),
            Key::Char('<') => return self.sort_by((self.sort + SORTS.len() - 1) % SORTS.len()),
            Key::Char('r') => {
                self.is_ascending = !self.is_ascending;
                return self.sort_by(self.sort);
            }
            Key::Escape if !self.filter_text.is_empty() => return self.select(String::new()),
            Key::Up | Key::Char('k') => return self.step(-1),
            Key::Down | Key::Char('j') => return self.step(1),
            Key::PageUp => return self.turn_to(self.offset.saturating_sub(page)),
            Key::PageDown => return self.turn_to(self.offset + page),
            Key::Home => return self.turn_to(0),
            Key::End => return self.turn_to(usize::MAX),
            Key::Char('x') | Key::Delete => self.ask_to_kill(),
            Key::Char('d') => self.ask_to_drain(),
            _ => {}
        }
        Action::Show
    }

    fn sort_by(&mut self, sort: usize) -> Action {
        self.sort = sort;
        self.turn_to(0)
    }

    /// Moves the choice by a row. At the end of a page, the page moves.
    fn step(&mut self, by: isize) -> Action {
        if self.is_among_servers {
            let last = self.look.servers().len().saturating_sub(1);
            self.server = self.server.saturating_add_signed(by).min(last);
            return Action::Show;
        }
        let shown = self.look.connections().len();
        let is_at_end = match by < 0 {
            true => self.row == 0,
            false => self.row + 1 >= shown,
        };
        if !is_at_end {
            self.choose_row(self.row.saturating_add_signed(by));
            return Action::Show;
        }
        let offset = self.offset.saturating_add_signed(by);
        if offset == self.offset || by > 0 && self.look.offset() + shown >= self.look.total() {
            return Action::Show;
        }
        self.offset = offset;
        self.choose_none(self.row);
        Action::Look
    }

    /// Shows the connections from this one on, as far as there are any.
    fn turn_to(&mut self, offset: usize) -> Action {
        let rows = self.heights().connections.max(1);
        let last = self.look.total().saturating_sub(rows);
        let row = match offset {
            0 => 0,
            _ if offset > last => rows - 1,
            _ => self.row,
        };
        self.offset = offset.min(last);
        self.choose_none(row);
        Action::Look
    }

    fn edit(&mut self, mut text: String, key: Key) -> Action {
        self.message = None;
        match key {
            Key::Enter => return self.select(text),
            Key::Escape => return self.select(String::new()),
            Key::Backspace => drop(text.pop()),
            Key::Char(c) => text.push(c),
            _ => {}
        }
        self.mode = Mode::Filter(text);
        Action::Show
    }

    /// Shows only the connections that a filter selects.
    fn select(&mut self, text: String) -> Action {
        match filter::parse(&text, &self.look) {
            Ok(filter) => {
                self.filter = filter;
                self.filter_text = text.trim().to_owned();
                self.turn_to(0)
            }
            Err(why) => {
                self.message = Some((false, why));
                self.mode = Mode::Filter(text);
                Action::Show
            }
        }
    }

    fn ask_to_kill(&mut self) {
        let Some(it) = self.look.connections().get(self.row) else {
            return self.hear(false, "there is no connection to end".to_owned());
        };
        let text = |key: &str| it[key].as_str().unwrap_or_default();
        let (id, peer, entrypoint) = (text("id"), text("peer"), printable(text("entrypoint")));
        let question = format!("end connection {id} from {peer} to {entrypoint}?");
        let order = Order(format!("/api/v1/kill?id={}", percent_encoded(id)));
        self.ask(question, order);
    }

    /// Asks about the chosen server, or that of the chosen connection.
    fn ask_to_drain(&mut self) {
        let servers = self.look.servers();
        let found = match self.is_among_servers {
            true => servers.get(self.server),
            false => self.look.connections().get(self.row).and_then(|it| {
                let mut servers = servers.iter();
                servers.find(|own| own["service"] == it["service"] && own["name"] == it["server"])
            }),
        };
        let Some(it) = found else {
            return self.hear(
                false,
                "no server is chosen; Tab goes to the servers".to_owned(),
            );
        };
        let state = match it["admin"].as_str() {
            Some("ready") => "drain",
            _ => "ready",
        };
        let text = |key: &str| it[key].as_str().unwrap_or_default();
        let (service, server) = (text("service"), text("name"));
        let question = format!(
            "server {} of service {}: {state}?",
            printable(server),
            printable(service)
        );
        let order = Order(format!(
            "/api/v1/server?service={}&server={}&state={state}",
            percent_encoded(service),
            percent_encoded(server)
        ));
        self.ask(question, order);
    }

    fn ask(&mut self, question: String, order: Order) {
        self.message = None;
        match self.why_no_orders.clone() {
            Some(why) => self.hear(false, why),
            None => self.mode = Mode::Confirm(question, order),
        }
    }
}
