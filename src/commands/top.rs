//! `coracle top`: shows a running coracle live in the terminal.

mod errands;
mod terminal;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use coracle::client::{Action, Contact, Keys, Look, Order, Top};
use coracle::config::Address;
use coracle::sys::caught::{self, Caught};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::{reading, told};
use crate::cli;
use errands::{Errands, News};
use terminal::Terminal;

/// Those that end it, and those that concern the terminal.
const SIGNALS: [Signal; 7] = [
    Signal::TERM,
    Signal::INT,
    Signal::QUIT,
    Signal::HUP,
    Signal::WINCH,
    Signal::TSTP,
    Signal::CONT,
];
/// How long the rest of a key may take after Esc, over a slow line too.
const KEY: Duration = Duration::from_millis(100);

pub(crate) fn top(arguments: &cli::Top) -> Result<ExitCode, String> {
    let mut terminal = Terminal::find()?;
    let contact = reading(&arguments.admin, arguments.token_file.as_deref())?;
    let address = arguments.admin.to_string();
    let top = Top::new(address, why_no_orders(arguments), terminal.size());
    // A wrong address is an error like any other, without a screen.
    let first = Look::ask(&contact, &top.wanted()).map_err(told)?;
    let cannot = |error: io::Error| format!("coracle: top: {error}");
    let signals = Caught::new(&SIGNALS).map_err(cannot)?;
    let errands = Errands::new().map_err(cannot)?;
    terminal.enter().map_err(cannot)?;
    let mut session = Session {
        top,
        contact,
        interval: arguments.interval,
        terminal,
        signals,
        errands,
        keys: Keys::default(),
        next_look: Instant::now() + arguments.interval,
        is_looking: false,
        is_look_stale: false,
    };
    session.top.see(first);
    session.run().map_err(cannot)?;
    Ok(ExitCode::SUCCESS)
}

/// Says why this coracle takes no orders from here, if it does not.
fn why_no_orders(arguments: &cli::Top) -> Option<String> {
    const WHY: &str = "orders need the control socket (--admin unix:/run/coracle/control.sock), or a token (--token-file FILE)";
    let is_socket = matches!(arguments.admin.0, Address::Unix(_));
    let can_act = is_socket || arguments.token_file.is_some();
    (!can_act).then(|| WHY.to_owned())
}

/// Panics if a test wants that of this thread. No release does.
fn panics_in(thread: &str) {
    if cfg!(debug_assertions) && std::env::var("CORACLE_TOP_PANICS").is_ok_and(|it| it == thread) {
        panic!("wanted by a test");
    }
}

/// A screen and what feeds it.
struct Session {
    top: Top,
    contact: Contact,
    interval: Duration,
    terminal: Terminal,
    signals: Caught,
    errands: Errands,
    keys: Keys,
    next_look: Instant,
    /// Whether a look is under way. There is one at a time.
    is_looking: bool,
    /// Whether something else is wanted by now than what it asks for.
    is_look_stale: bool,
}

impl Session {
    /// Shows the screen until a key or a signal ends it.
    fn run(&mut self) -> io::Result<()> {
        loop {
            self.terminal.show(&self.top.screen())?;
            panics_in("main");
            let is_input = self.wait()?;
            let mut actions = Vec::new();
            if is_input {
                let bytes = self.terminal.read()?;
                let keys = self.keys.feed(&bytes);
                actions.extend(keys.into_iter().map(|key| self.top.press(key)));
            } else if self.keys.has_begun() {
                let keys = self.keys.flush();
                actions.extend(keys.into_iter().map(|key| self.top.press(key)));
            }
            while let Some(signal) = self.signals.next() {
                actions.push(self.signal(signal));
            }
            while let Some(news) = self.errands.news() {
                self.learn(news);
            }
            for action in actions {
                if !self.act(action)? {
                    return Ok(());
                }
            }
            if !self.is_looking && Instant::now() >= self.next_look {
                self.look();
            }
        }
    }

    /// Waits for something to do. Returns `true` if the terminal has sent something.
    fn wait(&self) -> io::Result<bool> {
        let mut patience = match self.is_looking {
            // The answer ends the wait.
            true => Duration::from_secs(60),
            false => self.next_look.saturating_duration_since(Instant::now()),
        };
        if self.keys.has_begun() {
            patience = patience.min(KEY);
        }
        let patience = Timespec::try_from(patience).unwrap_or_default();
        let input = rustix::stdio::stdin();
        let mut fds = [
            PollFd::new(&input, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.errands, PollFlags::IN),
        ];
        match poll(&mut fds, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!fds[0].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    fn signal(&mut self, signal: Signal) -> Action {
        match signal {
            Signal::WINCH => Action::Redraw,
            Signal::TSTP => Action::Suspend,
            // Somebody else may have changed the terminal meanwhile.
            Signal::CONT => {
                let _ = self.terminal.enter();
                Action::Redraw
            }
            _ => Action::Quit,
        }
    }

    /// Does what a key or a signal asks for. Returns `false` if that is the end.
    fn act(&mut self, action: Action) -> io::Result<bool> {
        match action {
            Action::Quit => return Ok(false),
            Action::Show => {}
            Action::Look => self.look(),
            Action::Give(order) => self.give(order),
            Action::Redraw => {
                let before = self.top.wanted();
                self.top.resize(self.terminal.size());
                self.terminal.forget();
                if self.top.wanted() != before {
                    self.look();
                }
            }
            Action::Suspend => {
                self.terminal.leave();
                caught::stop()?;
                self.terminal.enter()?;
                self.top.resize(self.terminal.size());
            }
        }
        Ok(true)
    }

    /// Asks for new numbers, or will as soon as those that are on their way have come.
    fn look(&mut self) {
        if self.is_looking {
            self.is_look_stale = true;
            return;
        }
        let (contact, wanted) = (self.contact.clone(), self.top.wanted());
        let asked = move || {
            panics_in("look");
            News::Look(Box::new(Look::ask(&contact, &wanted)))
        };
        self.next_look = Instant::now() + self.interval;
        match self.errands.send("look", Box::new(asked)) {
            Ok(()) => self.is_looking = true,
            Err(error) => self.top.fail(error.to_string()),
        }
    }

    fn give(&mut self, order: Order) {
        let contact = self.contact.clone();
        let given = move || News::Order(order.give(&contact));
        if let Err(error) = self.errands.send("order", Box::new(given)) {
            self.top.hear(false, error.to_string());
        }
    }

    fn learn(&mut self, news: News) {
        match news {
            News::Look(look) => {
                self.is_looking = false;
                let is_stale = std::mem::take(&mut self.is_look_stale);
                let is_beyond = match *look {
                    Ok(look) => self.top.see(look),
                    Err(why) => {
                        self.top.fail(why.to_string());
                        false
                    }
                };
                if is_stale || is_beyond {
                    self.look();
                }
            }
            News::Order(answer) => {
                match answer {
                    Ok((is_well, text)) => self.top.hear(is_well, text),
                    Err(why) => self.top.hear(false, why.to_string()),
                }
                self.look();
            }
        }
    }
}
