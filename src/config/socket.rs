//! Reads the settings that say who may connect to an entrypoint's Unix sockets.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Mistake, is_unprintable, shown, wrong};
use super::model::SocketAccess;
use super::toml_reader::Reader;

impl Reader<'_, '_> {
    /// Reads `socket_mode` and `socket_group` of the entrypoint `name`.
    pub(super) fn socket_access(&mut self, name: &str, table: &DeTable<'_>) -> SocketAccess {
        let access = SocketAccess {
            mode: self.parsed(table, "socket_mode", mode),
            group: self.parsed(table, "socket_group", group),
        };
        for key in ["socket_mode", "socket_group"] {
            let Some((at, _)) = table.get_key_value(key) else {
                continue;
            };
            // A `listen` that is missing or has the wrong type is reported elsewhere.
            if table.get("listen").is_some_and(|listen| !is_unix(listen)) {
                let why = format!(
                    "`{key}` is for Unix sockets, and entrypoint `{name}` listens on none; remove it"
                );
                self.out.report(Some(at.span()), why);
            }
        }
        access
    }
}

/// Returns whether an address to listen on, or any in a list, is meant to be a Unix socket.
fn is_unix(listen: &Spanned<DeValue<'_>>) -> bool {
    match listen.get_ref() {
        DeValue::String(text) => text.starts_with("unix:"),
        DeValue::Array(array) => array.iter().any(is_unix),
        _ => true,
    }
}

fn mode(text: &str) -> Result<u32, Mistake> {
    /// Without this bit, coracle itself could not tell whether an old socket is abandoned.
    const OWNER_MAY_CONNECT: u32 = 0o200;
    let is_octal = matches!(text.len(), 3 | 4) && text.bytes().all(|c| matches!(c, b'0'..=b'7'));
    let says = shown(text);
    match u32::from_str_radix(text, 8) {
        Ok(mode) if is_octal && mode <= 0o777 && mode & OWNER_MAY_CONNECT != 0 => Ok(mode),
        Ok(mode) if is_octal && mode <= 0o777 => wrong(format!(
            "with mode `{says}` the socket's owner cannot connect; write one such as \"0660\""
        )),
        _ => wrong(format!(
            "`{says}` is not a socket mode; write an octal one, such as \"0660\""
        )),
    }
}

fn group(text: &str) -> Result<String, Mistake> {
    if text.is_empty() || text.contains(|c| c == ':' || is_unprintable(c)) {
        return wrong(format!(
            "`{}` is not a group name; write one such as \"www-data\", or its number",
            shown(text)
        ));
    }
    Ok(text.to_owned())
}
