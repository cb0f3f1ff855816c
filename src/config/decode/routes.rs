//! Reads the rules that decide where connections go: `routes` in [entrypoints.NAME].

use toml::de::{DeTable, DeValue};

use crate::config::check;
use crate::config::diagnostic::{Mistake, Span, shown, wrong};
use crate::config::draft::DraftRoute;
use crate::config::route_value::{alpn, hosted, protocol, server_name};
use crate::config::toml_reader::{Reader, name_mistake};
use crate::state::{DEFAULT_ROUTE, Network, Rule};
use crate::wire::first_bytes::Protocol;

const CONDITIONS: &[&str] = &["sni", "alpn", "starts", "starts_with", "host", "from"];
const KEYS: &[&str] = &[
    "name",
    "service",
    "sni",
    "alpn",
    "starts",
    "starts_with",
    "host",
    "from",
];
const EXAMPLE: &str = "{ sni = \"nas.lan\", service = \"nas\" }";

impl Reader<'_, '_> {
    pub(super) fn routes(&mut self, table: &DeTable<'_>) -> Vec<DraftRoute> {
        let Some(value) = table.get("routes") else {
            return Vec::new();
        };
        let DeValue::Array(array) = value.get_ref() else {
            let advice = format!("; write [{EXAMPLE}]");
            self.wrong_type(value, "an array of tables", &advice);
            return Vec::new();
        };
        if array.is_empty() {
            let why = format!("the list is empty; write a rule such as {EXAMPLE}, or remove it");
            self.out.report(Some(value.span()), why);
        }
        let mut routes: Vec<(DraftRoute, Span)> = Vec::new();
        for value in array.iter() {
            let DeValue::Table(table) = value.get_ref() else {
                self.wrong_type(value, "a table", &format!("; write {EXAMPLE}"));
                continue;
            };
            let route = self.route(table, value.span(), &routes);
            routes.push((route, value.span()));
        }
        routes.into_iter().map(|(route, _)| route).collect()
    }

    /// Reads one rule, which comes after `earlier`.
    fn route(
        &mut self,
        table: &DeTable<'_>,
        span: Span,
        earlier: &[(DraftRoute, Span)],
    ) -> DraftRoute {
        let to = "is for an entrypoint; write service = \"NAME\", and a table [services.NAME] with `servers`";
        self.known_here(table, KEYS, (&["to"], to));
        let name = self.parsed(table, "name", route_name);
        if let (Some(name), Some(value)) = (&name, table.get("name"))
            && earlier.iter().any(|(it, _)| it.name.as_ref() == Some(name))
        {
            let why = format!(
                "another rule of this entrypoint is called `{}`; rename one",
                shown(name)
            );
            self.out.report(Some(value.span()), why);
        }
        let service = match table.get("service") {
            Some(value) => self
                .string(value, "service")
                .map(|name| (name.to_owned(), value.span())),
            None if table.contains_key("to") => None,
            None => {
                let why = "the rule has no `service`; add one, such as service = \"nas\"";
                self.missing_in(span.clone(), table, &["service"], why.to_owned());
                None
            }
        };
        let rule = Rule {
            sni: self.several(table, "sni", server_name),
            alpn: self.several(table, "alpn", alpn),
            starts: self.several(table, "starts", protocol),
            starts_with: self.several(table, "starts_with", check::first_bytes),
            host: self.several(table, "host", hosted),
            from: self.several(table, "from", |text| {
                text.parse::<Network>().map_err(Mistake)
            }),
        };
        if !CONDITIONS.iter().any(|key| table.contains_key(*key)) {
            let why = "the rule has no condition; add one, such as sni = \"nas.lan\", or remove it: the `service` of the entrypoint is for connections that no rule fits";
            self.missing_in(span.clone(), table, CONDITIONS, why.to_owned());
        } else if let Some(why) = contradiction(&rule) {
            self.out.report(Some(span.clone()), why);
        } else if let Some(index) = earlier
            .iter()
            .position(|(it, _)| !it.rule.is_empty() && !rule.is_empty() && it.rule.hides(&rule))
        {
            let (other, at) = &earlier[index];
            let label = other.name.clone();
            let label = label.map_or_else(|| (index + 1).to_string(), |name| shown(&name));
            let place = format!(" (line {})", self.out.line(at.start));
            let why = format!(
                "this rule never decides: rule {label}{place} has the same conditions, or fewer, and comes first; remove one, or give this one a condition that differs"
            );
            self.out.warn(Some(span), why);
        }
        DraftRoute {
            name,
            rule,
            service,
        }
    }

    /// Reads a string, or a list of strings that is not empty.
    fn several<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Mistake>,
    ) -> Vec<T> {
        let Some(value) = table.get(key) else {
            return Vec::new();
        };
        let values: Vec<_> = match value.get_ref() {
            DeValue::Array(array) if array.is_empty() => {
                let why = "the list is empty, so the rule would fit no connection; write at least one value, or remove it";
                self.out.report(Some(value.span()), why);
                return Vec::new();
            }
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        };
        let mut read = Vec::new();
        for value in values {
            let text = self.string(value, key);
            read.extend(text.and_then(|text| self.ok(value, parse(text))));
        }
        read
    }
}

/// Parses the name of a rule.
fn route_name(text: &str) -> Result<String, Mistake> {
    if let Some(why) = name_mistake(text) {
        return wrong(why);
    }
    if text == DEFAULT_ROUTE || text.bytes().all(|byte| byte.is_ascii_digit()) {
        return wrong(format!(
            "`{}` is the label of another route: rules without a name have their number, and what no rule fits is called `{DEFAULT_ROUTE}`; write another name",
            shown(text)
        ));
    }
    Ok(text.to_owned())
}

/// Says why no connection can fit a rule.
fn contradiction(rule: &Rule) -> Option<&'static str> {
    let is_tls = !rule.sni.is_empty() || !rule.alpn.is_empty();
    let is_http = !rule.host.is_empty();
    let excludes = |it| !rule.starts.is_empty() && !rule.starts.contains(&it);
    if is_tls && is_http {
        return Some(
            "no connection fits: `sni` and `alpn` are for TLS, and `host` is for HTTP without it; write two rules",
        );
    }
    if is_tls && excludes(Protocol::Tls) {
        return Some(
            "no connection fits: `sni` and `alpn` are for TLS, which `starts` excludes; remove `starts`",
        );
    }
    if is_http && excludes(Protocol::Http) {
        return Some(
            "no connection fits: `host` is for HTTP, which `starts` excludes; remove `starts`",
        );
    }
    None
}
