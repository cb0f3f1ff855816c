//! What a person types to see fewer connections, as parameters of the API. No I/O.

use serde_json::Value;

use super::look::Look;
use crate::client::command::percent_encoded;
use crate::client::listing::PeerFilter;
use crate::state::{Label as _, Phase};

/// Reads words, each of which is a network, a state, or a name of an entrypoint, a service or a
/// server that `look` has; `server=web` says which of them. Returns the parameters.
///
/// # Errors
/// If a word is none of these, or says the same as another one.
pub(super) fn parse(text: &str, look: &Look) -> Result<String, String> {
    let mut query = String::new();
    for word in text.split_whitespace() {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (named(key)?, value),
            None => (meant(word, look)?, word),
        };
        if key == "peer" {
            let clients: Result<PeerFilter, _> = value.parse();
            clients.map_err(|why| format!("`{value}`: {why}"))?;
        }
        if key == "state" && !is_state(value) {
            return Err(format!(
                "`{value}` is not a state; write dialling, queued, relaying, limited or half-closed"
            ));
        }
        let pair = format!("&{key}=");
        if query.contains(&pair) {
            return Err(format!("`{word}`: there is another {key}"));
        }
        query += &pair;
        query += &percent_encoded(value);
    }
    Ok(query)
}

fn named(key: &str) -> Result<&'static str, String> {
    const KEYS: [&str; 5] = ["peer", "entrypoint", "service", "server", "state"];
    let key = KEYS.iter().find(|own| **own == key);
    key.copied()
        .ok_or_else(|| format!("before `=` write one of {}", KEYS.join(", ")))
}

/// Returns what a word alone stands for.
fn meant(word: &str, look: &Look) -> Result<&'static str, String> {
    let has = |list: &[Value], key: &str| list.iter().any(|it| it[key].as_str() == Some(word));
    for (key, list, own) in [
        ("entrypoint", look.entrypoints(), "name"),
        ("service", look.servers(), "service"),
        ("server", look.servers(), "name"),
    ] {
        if has(list, own) {
            return Ok(key);
        }
    }
    if is_state(word) {
        return Ok("state");
    }
    if word.parse::<PeerFilter>().is_ok() || word.contains('/') {
        return Ok("peer");
    }
    Err(format!(
        "`{word}` is neither a network nor a name of an entrypoint, a service or a server"
    ))
}

fn is_state(word: &str) -> bool {
    Phase::ALL.iter().any(|state| state.label() == word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let look = Look {
            status: json!({
                "entrypoints": [{ "name": "web" }, { "name": "10.0.0.1" }],
                "servers": [
                    { "service": "web", "name": "192.168.1.10:80" },
                    { "service": "pages", "name": "192.168.1.11:80" },
                ],
            }),
            ..Look::default()
        };
        parse(text, &look)
    }

    #[test]
    fn words_stand_for_what_has_their_name() {
        for (text, expected) in [
            ("", ""),
            ("web", "&entrypoint=web"),
            ("service=web", "&service=web"),
            ("pages web", "&service=pages&entrypoint=web"),
            ("192.168.1.10:80", "&server=192.168.1.10%3A80"),
            ("10.0.0.1", "&entrypoint=10.0.0.1"),
            ("10.0.0.0/8", "&peer=10.0.0.0/8"),
            ("peer=10.0.0.1", "&peer=10.0.0.1"),
            (" unix  queued ", "&peer=unix&state=queued"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_words_are_errors() {
        for (text, why) in [
            ("wbe", "`wbe` is neither"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("host/8", "not a network"),
            ("state=up", "not a state"),
            ("port=80", "before `=`"),
            ("web entrypoint=web", "there is another entrypoint"),
        ] {
            let told = parsed(text).expect_err(text);
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
