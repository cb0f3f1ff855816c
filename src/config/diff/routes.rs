//! Describes what changes in the rules of an entrypoint.

use super::super::by_name::ByName;
use super::super::diagnostic::{printable, shown};
use super::super::model::{Entrypoint, Route};
use super::super::words;
use super::Changes;
use crate::state::{NamePattern, Network};
use crate::wire::first_bytes::Protocol;

/// A rule, and the name of its service.
type Lead<'c> = (&'c Option<String>, &'c crate::state::Rule, &'c str);

impl Changes {
    pub(super) fn routes(
        &mut self,
        who: &str,
        (was, old): (&Entrypoint, &ByName<'_>),
        (is, new): (&Entrypoint, &ByName<'_>),
    ) {
        let (was, is) = (leads(&was.routes, old), leads(&is.routes, new));
        if was == is {
            return;
        }
        let before = self.lines.len();
        for it in missing(&was, &is) {
            self.add(format!("{who}: no longer routes {}", rule(it)));
        }
        for it in missing(&is, &was) {
            self.add(format!("{who}: routes {}", rule(it)));
        }
        if self.lines.len() == before {
            self.add(format!("{who}: routes in another order"));
        }
    }
}

fn leads<'c>(routes: &'c [Route], side: &ByName<'c>) -> Vec<Lead<'c>> {
    let service = |route: &Route| side.config.services[route.service].name.as_str();
    let leads = routes.iter().map(|it| (&it.name, &it.rule, service(it)));
    leads.collect()
}

/// Returns what is in `all` and not, or less often, in `others`.
fn missing<'c>(all: &[Lead<'c>], others: &[Lead<'c>]) -> Vec<Lead<'c>> {
    let mut left = others.to_vec();
    let is_missing = |it: &Lead<'c>| match left.iter().position(|other| other == it) {
        Some(at) => {
            left.swap_remove(at);
            false
        }
        None => true,
    };
    let mut missing = all.to_vec();
    missing.retain(is_missing);
    missing
}

/// Describes a rule: `sni nas.lan and from 10.0.0.0/8 to nas (called lan)`.
fn rule((name, rule, service): Lead<'_>) -> String {
    let bytes = |it: &[u8]| words::bytes(it);
    let all = [
        ("sni", words::list(&rule.sni, NamePattern::to_string)),
        ("alpn", words::list(&rule.alpn, |it| bytes(it))),
        (
            "starts",
            words::list(&rule.starts, |it: &Protocol| it.name().to_owned()),
        ),
        (
            "starts_with",
            words::list(&rule.starts_with, |it| bytes(it)),
        ),
        ("host", words::list(&rule.host, NamePattern::to_string)),
        ("from", words::list(&rule.from, Network::to_string)),
    ];
    let conditions = all.into_iter().filter(|(_, values)| !values.is_empty());
    let conditions: Vec<_> = conditions.map(|(key, it)| format!("{key} {it}")).collect();
    let called = match name {
        Some(name) => format!(" (called {})", shown(name)),
        None => String::new(),
    };
    let conditions = conditions.join(", ");
    format!("{conditions} to service {}{called}", printable(service))
}
