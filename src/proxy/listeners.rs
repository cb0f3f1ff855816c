//! The listeners of a configuration: unchanged ones stay, and new ones are opened before old ones
//! are closed.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use smol::Task;

use super::accept::{self, Door};
use super::bind::{self, Before, BindError};
use super::capacity::Capacity;
use super::ground::Ground;
use super::hand_over::{HandOver, Handed, is_worth_keeping};
use super::now_listening::NowListening;
use crate::config::{self, Config, Listen};
use crate::conn::{CurrentRoute, Route};
use crate::net::Listener;
use crate::state::Sorted;

/// All listeners, each with its accept loop. Their numbers are never reused.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    all: Sorted<u64, Listening>,
    last: u64,
}

/// A listener and its accept loop.
#[derive(Debug)]
pub(super) struct Listening {
    listen: Listen,
    /// The configuration that the listener was opened for or adapted to.
    configured: config::Entrypoint,
    /// Whether the service manager keeps its socket for the next process.
    is_kept: bool,
    door: Rc<Door>,
    accepting: Task<()>,
}

/// The listener for one address of a configuration that is about to come into force.
#[derive(Debug)]
pub(super) enum Slot {
    /// An existing listener, by its number.
    There(u64),
    /// A newly opened listener.
    New(Opened),
}

/// A newly opened listener.
#[derive(Debug)]
pub(super) struct Opened {
    listener: Listener,
    /// Whether it was handed over to this process.
    is_inherited: bool,
    is_kept: bool,
}

/// One address of an entrypoint, with one port.
#[derive(Clone)]
pub(super) struct Wanted<'a> {
    pub(super) entrypoint: &'a config::Entrypoint,
    pub(super) listen: Listen,
    /// Whether it is one port of a range.
    pub(super) is_of_range: bool,
}

impl<'a> Wanted<'a> {
    /// Iterates over all addresses of a configuration, in order.
    pub(super) fn of(config: &'a Config) -> impl Iterator<Item = Self> {
        config.entrypoints.iter().flat_map(|entrypoint| {
            entrypoint.listen.iter().flat_map(move |range| {
                let is_of_range = range.is_range();
                range.each().into_iter().map(move |listen| Self {
                    entrypoint,
                    listen,
                    is_of_range,
                })
            })
        })
    }

    fn open(&self, ground: &Ground, handed: Option<Handed>) -> Result<Listener, BindError> {
        bind::entrypoint(&ground.reactor, self.entrypoint, &self.listen, handed)
    }
}

impl Listening {
    /// Returns whether this is the listener for `wanted`.
    ///
    /// It is not if it was bound with other options, or if it cannot be adapted to the permissions
    /// that a new listener would have.
    fn is_for(&self, wanted: &Wanted<'_>) -> bool {
        let (old, new) = (&self.configured, wanted.entrypoint);
        let is_default_again = (old.socket.mode.is_some() && new.socket.mode.is_none())
            || (old.socket.group.is_some() && new.socket.group.is_none());
        self.listen == wanted.listen
            && old.reuse_port == new.reuse_port
            && old.listening.interface == new.listening.interface
            && !is_default_again
    }

    /// Returns whether the listener must be adapted to `configured`.
    fn differs(&self, configured: &config::Entrypoint) -> bool {
        let old = &self.configured;
        old.keepalive != configured.keepalive
            || old.socket != configured.socket
            || old.listening != configured.listening
    }

    /// Returns whether this listener prevents others from listening on `listen`.
    fn is_in_the_way(&self, listen: &Listen) -> bool {
        match (&self.listen, listen) {
            (Listen::Tcp { address, .. }, Listen::Tcp { address: other, .. }) => {
                address.port() == other.port()
            }
            (Listen::Unix(path), Listen::Unix(other)) => path == other,
            _ => false,
        }
    }

    fn start(
        ground: &Ground,
        listener: Listener,
        wanted: Wanted<'_>,
        is_kept: bool,
        route: Rc<Route>,
    ) -> Self {
        let door = Rc::new(Door {
            listener,
            route: CurrentRoute::new(route),
        });
        let accepting = ground.spawn(accept::accept(
            ground.executor.clone(),
            ground.reactor.clone(),
            ground.shared.conns.clone(),
            door.clone(),
            ground.capacity.clone(),
        ));
        Self {
            listen: wanted.listen,
            configured: wanted.entrypoint.clone(),
            is_kept,
            door,
            accepting,
        }
    }

    /// Stops accepting. Clients in the backlog are reset.
    async fn end(self) {
        // Wait for the cancellation: it drops the future, and dropping `self` then closes the
        // listener.
        self.accepting.cancel().await;
    }

    pub(super) fn listener(&self) -> &Listener {
        &self.door.listener
    }
}

impl Listeners {
    /// Iterates over all listeners.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Listening> {
        self.all.values()
    }

    /// Returns the numbers of all listeners, in order.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.all.keys().copied().collect()
    }

    /// Returns the addresses that an entrypoint listens on, with the ports that the kernel chose.
    pub(super) fn addresses(&self, entrypoint: &str) -> Vec<SocketAddr> {
        let of_it = |it: &&Listening| it.door.route.get().entrypoint.name() == entrypoint;
        let of_it = self.iter().filter(of_it);
        of_it.filter_map(|it| it.listener().local_addr()).collect()
    }

    /// Returns the sockets that the service manager should keep. If descriptors run out, the next
    /// process opens the remaining sockets itself.
    pub(super) fn kept(&self) -> Vec<OwnedFd> {
        let kept = self.iter().filter(|it| it.is_kept);
        kept.filter_map(|it| it.listener().as_fd().try_clone_to_owned().ok())
            .collect()
    }

    /// Tells every listener how many connections there may be.
    pub(super) fn limit(&self, capacity: &Capacity) {
        self.iter()
            .for_each(|it| it.listener().limit_unsent(capacity.connections));
    }

    /// Puts the listener of a slot into service for its address. Returns `None` if it is gone.
    /// Adds what is newly opened to `log`.
    pub(super) fn put(
        &mut self,
        ground: &Ground,
        wanted: Wanted<'_>,
        slot: Slot,
        route: &Rc<Route>,
        log: &mut NowListening,
    ) -> Option<(u64, &Listening)> {
        let number = match slot {
            Slot::There(number) => {
                let there = self.all.get_mut(&number)?;
                there.configured = wanted.entrypoint.clone();
                there.door.route.replace(route.clone());
                number
            }
            Slot::New(opened) => {
                let (listener, is_inherited) = (opened.listener, opened.is_inherited);
                let of_range = wanted.is_of_range;
                log.add(&wanted.listen, of_range, route, &listener, is_inherited);
                let (is_kept, route) = (opened.is_kept, route.clone());
                let listening = Listening::start(ground, listener, wanted, is_kept, route);
                self.last += 1;
                self.all.insert(self.last, listening);
                self.last
            }
        };
        Some((number, self.all.get(&number)?))
    }

    /// Closes all listeners except `stays`, which are in order.
    pub(super) async fn retain(&mut self, stays: &[u64]) {
        let all = std::mem::take(&mut self.all);
        for (number, listening) in all {
            if stays.binary_search(&number).is_ok() {
                self.all.insert(number, listening);
            } else {
                listening.end().await;
            }
        }
    }

    /// Returns, for each address of a configuration, the existing listener that can serve it, if
    /// any.
    pub(super) fn find(&self, config: &Config) -> Vec<Option<u64>> {
        let mut free: Vec<u64> = self.all.keys().copied().collect();
        let mut find = |wanted: Wanted<'_>| {
            let is_it = |number: &u64| self.all.get(number).is_some_and(|it| it.is_for(&wanted));
            let at = free.iter().position(is_it)?;
            Some(free.remove(at))
        };
        Wanted::of(config).map(&mut find).collect()
    }

    /// Applies a configuration's keep-alive, mode and group to the listeners that stay. Returns
    /// their previous settings by number.
    ///
    /// # Errors
    /// Returns the error of the first setting that cannot be applied. All listeners then have their
    /// previous settings.
    pub(super) fn adapt(
        &self,
        config: &Config,
        found: &[Option<u64>],
    ) -> Result<Sorted<u64, Before>, BindError> {
        let mut adapted = Sorted::new();
        for (wanted, number) in Wanted::of(config).zip(found) {
            let there = number.and_then(|number| Some((number, self.all.get(&number)?)));
            let Some((number, there)) = there.filter(|(_, it)| it.differs(wanted.entrypoint))
            else {
                continue;
            };
            let before = Before::of(there.listener(), &there.configured);
            adapted.insert(number, before);
            if let Err(why) = bind::adapt(there.listener(), wanted.entrypoint, &wanted.listen) {
                self.adapt_back(&adapted);
                return Err(why);
            }
        }
        Ok(adapted)
    }

    /// Restores the previous settings.
    pub(super) fn adapt_back(&self, adapted: &Sorted<u64, Before>) {
        for (number, before) in adapted.iter() {
            if let Some(there) = self.all.get(number)
                && let Err(error) = before.restore(there.listener())
            {
                let listen = &there.listen;
                log::error!(
                    "{listen}: cannot restore the settings from before the rejected configuration: {error}; restart coracle to be sure of them"
                );
            }
        }
    }

    /// Opens a listener for each address that has none. If the address is in use by one of our
    /// listeners that is about to go, closes that one first.
    ///
    /// # Errors
    /// Returns the error of the first listener that cannot be opened. All listeners are then as
    /// before.
    pub(super) async fn open(
        &mut self,
        ground: &Ground,
        config: &Config,
        found: &[Option<u64>],
        mut handed: HandOver,
    ) -> Result<Vec<Slot>, BindError> {
        let wanted: Vec<_> = Wanted::of(config).collect();
        let mut going: Vec<u64> = self.all.keys().copied().collect();
        going.retain(|number| !found.contains(&Some(*number)));
        let mut slots: Vec<Option<Slot>> = found.iter().map(|it| it.map(Slot::There)).collect();
        let mut closed = Vec::new();
        for (wanted, slot) in wanted.iter().zip(&mut slots) {
            let handed = handed.next();
            if slot.is_some() {
                continue;
            }
            let is_inherited = handed.is_some();
            let is_kept = is_worth_keeping(wanted.entrypoint, &wanted.listen, handed.as_ref());
            let mut opened = wanted.open(ground, handed);
            if opened.as_ref().is_err_and(|error| error.is_in_use) {
                let (in_the_way, others) = going.into_iter().partition(|number| {
                    let there = self.all.get(number);
                    there.is_some_and(|it| it.is_in_the_way(&wanted.listen))
                });
                going = others;
                if self.close(ground, in_the_way, &mut closed).await {
                    opened = reopened(ground, wanted).await;
                }
            }
            match opened {
                Ok(listener) => {
                    *slot = Some(Slot::New(Opened {
                        listener,
                        is_inherited,
                        is_kept,
                    }));
                }
                Err(error) => {
                    // The new listeners may have the addresses of those to restore.
                    drop(slots);
                    self.restore(ground, closed).await;
                    return Err(error);
                }
            }
        }
        Ok(slots.into_iter().flatten().collect())
    }

    /// Closes the listeners `numbers` and records them in `closed`. Returns `false` if there are
    /// none.
    async fn close(
        &mut self,
        ground: &Ground,
        numbers: Vec<u64>,
        closed: &mut Vec<Closed>,
    ) -> bool {
        let is_any = !numbers.is_empty();
        if is_any {
            // A socket that the service manager keeps listens for as long as the manager has it.
            ground.manager.release();
        }
        for number in numbers {
            if let Some(listening) = self.all.remove(&number) {
                closed.push(Closed {
                    number,
                    listen: listening.listen.clone(),
                    configured: listening.configured.clone(),
                    is_kept: listening.is_kept,
                    route: listening.door.route.get(),
                });
                listening.end().await;
            }
        }
        is_any
    }

    /// Reopens listeners that were closed for others that could not be opened.
    async fn restore(&mut self, ground: &Ground, closed: Vec<Closed>) {
        for it in closed {
            let wanted = Wanted {
                entrypoint: &it.configured,
                listen: it.listen.clone(),
                is_of_range: false,
            };
            match reopened(ground, &wanted).await {
                Ok(listener) => {
                    let listening =
                        Listening::start(ground, listener, wanted, it.is_kept, it.route);
                    self.all.insert(it.number, listening);
                }
                Err(why) => {
                    log::error!("{why}; it was closed for a configuration that was then rejected")
                }
            }
        }
    }
}

/// A listener that was closed for another one.
struct Closed {
    number: u64,
    listen: Listen,
    configured: config::Entrypoint,
    is_kept: bool,
    route: Rc<Route>,
}

/// Opens an address that we have just closed, with retries: a service manager that keeps its socket
/// takes a moment to release it.
async fn reopened(ground: &Ground, wanted: &Wanted<'_>) -> Result<Listener, BindError> {
    const TRIES: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 1..TRIES {
        match wanted.open(ground, None) {
            Err(error) if error.is_in_use => ground.reactor.sleep(PAUSE).await,
            opened => return opened,
        }
    }
    wanted.open(ground, None)
}
