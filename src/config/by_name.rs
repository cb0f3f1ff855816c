//! Finds entrypoints and services by name. Does no I/O.

use std::collections::HashMap;

use super::model::{Config, Entrypoint, Service};

/// A configuration with indexes of its entrypoints and services by name.
pub(super) struct ByName<'c> {
    pub(super) config: &'c Config,
    pub(super) entrypoints: HashMap<&'c str, &'c Entrypoint>,
    /// Positions in [`Config::services`].
    pub(super) services: HashMap<&'c str, usize>,
    /// How many entrypoints use each service.
    users: Vec<usize>,
}

impl<'c> ByName<'c> {
    pub(super) fn of(config: &'c Config) -> Self {
        let mut users = vec![0; config.services.len()];
        for entrypoint in &config.entrypoints {
            for service in entrypoint.services() {
                users[service] += 1;
            }
        }
        let entrypoints = config.entrypoints.iter();
        let services = config.services.iter().enumerate();
        Self {
            config,
            entrypoints: entrypoints.map(|it| (it.name.as_str(), it)).collect(),
            services: services.map(|(at, it)| (it.name.as_str(), at)).collect(),
            users,
        }
    }

    /// Returns the service for connections that no rule fits.
    pub(super) fn service(&self, entrypoint: &Entrypoint) -> Option<&'c Service> {
        entrypoint.service.map(|index| &self.config.services[index])
    }

    /// Returns whether a service looks as if `to` had created it: it has one server, and only the
    /// entrypoint of the same name uses it.
    pub(super) fn is_own(&self, index: usize) -> bool {
        let service = &self.config.services[index];
        let namesake = self.entrypoints.get(service.name.as_str());
        let is_user = namesake.is_some_and(|it| it.service == Some(index));
        is_user && self.users[index] == 1 && service.servers.len() == 1
    }
}
