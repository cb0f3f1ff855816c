//! The admin endpoint of the configuration in force, and its replacement when a reload changes it.

use std::net::SocketAddr;
use std::time::Duration;

use super::bind::BindError;
use super::commands::Commander;
pub(super) use super::endpoint::Configured;
use super::endpoint::{Endpoint, Serving};
use super::ground::Ground;
use crate::admin;
use crate::config::{self, Config};

/// The endpoint of the configuration in force.
#[derive(Debug)]
pub(super) struct Admin {
    commander: Commander,
    configured: Configured,
    /// The open sockets, until the endpoint serves.
    bound: Option<Endpoint>,
    serving: Option<Serving>,
}

/// An endpoint that already serves, for a configuration that is about to come into force.
#[derive(Debug)]
pub(super) struct Next {
    configured: Configured,
    serving: Option<Serving>,
}

impl Admin {
    /// Reads the token and opens the configured sockets, if any.
    ///
    /// # Errors
    /// Returns an error if there is no token or a socket cannot be opened.
    pub(super) fn bind(config: &Config, commander: Commander) -> Result<Self, BindError> {
        let configured = Configured::read(config)?;
        let bound = Endpoint::bind(&configured.admin, None)?;
        Ok(Self {
            commander,
            configured,
            bound,
            serving: None,
        })
    }

    /// Returns the TCP address, before the endpoint serves.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.bound.as_ref()?.local_addr()
    }

    /// Starts serving.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub(super) fn start(&mut self, ground: &Ground) -> Result<(), BindError> {
        let started = self
            .bound
            .take()
            .map(|it| it.start(ground, &self.configured, &self.commander));
        self.serving = started.transpose()?;
        Ok(())
    }

    /// Returns whether anyone can read from it.
    pub(super) fn is_serving(&self) -> bool {
        self.serving.is_some()
    }

    /// Returns how many descriptors the clients of the control socket may use.
    pub(super) fn control_clients(&self) -> usize {
        let has_control = self.serving.as_ref().is_some_and(Serving::takes_orders);
        match has_control {
            true => admin::ClientLimits::default().control_clients,
            false => 0,
        }
    }

    /// Returns what is different for the endpoint but not in the configuration, in words.
    pub(super) fn change(&self, next: &Configured) -> Option<&'static str> {
        self.configured.token_change(next)
    }

    /// Starts the endpoint of another configuration. Returns `None` if it is the same.
    ///
    /// Sockets that the configuration does not change are shared with the current endpoint, so that
    /// no client in their backlogs is refused. The caller must follow with [`commit`](Self::commit)
    /// or [`restore`](Self::restore).
    ///
    /// # Errors
    /// Returns an error if a socket cannot be opened or the thread cannot be started. Nothing has
    /// changed then.
    pub(super) async fn prepare(
        &mut self,
        ground: &Ground,
        configured: Configured,
    ) -> Result<Option<Next>, BindError> {
        if configured == self.configured {
            return Ok(None);
        }
        let next = self.start_another(ground, &configured).await;
        let serving = match next {
            Ok(serving) => serving,
            Err(why) => {
                self.restore(ground).await;
                return Err(why);
            }
        };
        Ok(Some(Next {
            configured,
            serving,
        }))
    }

    /// Replaces the current endpoint with `next`.
    pub(super) fn commit(&mut self, next: Next) {
        let before = std::mem::replace(&mut self.serving, next.serving);
        if let Some(before) = before {
            before.retire().detach();
        }
        self.configured = next.configured;
    }

    /// Ends the endpoint once its clients have their answers.
    pub(super) async fn retire(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.retire().await;
        }
    }

    /// Restarts the current endpoint if it was ended for another one, which must have ended by now.
    pub(super) async fn restore(&mut self, ground: &Ground) {
        let is_wanted = self.configured.admin.listen.is_some();
        if self.serving.is_some() || !is_wanted {
            return;
        }
        let bound = bound_again(ground, &self.configured.admin).await;
        let serving = bound.and_then(|bound| {
            bound
                .map(|it| it.start(ground, &self.configured, &self.commander))
                .transpose()
        });
        match serving {
            Ok(serving) => self.serving = serving,
            Err(why) => {
                log::error!("{why}; it was closed for a configuration that was then rejected")
            }
        }
    }

    async fn start_another(
        &mut self,
        ground: &Ground,
        configured: &Configured,
    ) -> Result<Option<Serving>, BindError> {
        let now = self.serving.as_ref().map(|it| (&self.configured.admin, it));
        let mut bound = Endpoint::bind(&configured.admin, now);
        // For example, 127.0.0.1:2672 when the new address is the wildcard.
        let is_in_the_way = |it: &mut Serving| {
            let address = configured.admin.listen;
            address.is_some_and(|address| it.is_in_the_way(address))
        };
        if bound.as_ref().is_err_and(|error| error.is_in_use)
            && let Some(before) = self.serving.take_if(is_in_the_way)
        {
            before.retire().detach();
            bound = bound_again(ground, &configured.admin).await;
        }
        let started = bound?.map(|it| it.start(ground, configured, &self.commander));
        started.transpose()
    }
}

/// Opens sockets whose addresses a closing endpoint may hold for a moment longer.
async fn bound_again(
    ground: &Ground,
    configured: &config::Admin,
) -> Result<Option<Endpoint>, BindError> {
    const TRIES: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 1..TRIES {
        match Endpoint::bind(configured, None) {
            Err(error) if error.is_in_use => ground.reactor.sleep(PAUSE).await,
            bound => return bound,
        }
    }
    Endpoint::bind(configured, None)
}
