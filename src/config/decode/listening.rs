//! Reads how the sockets of an entrypoint listen.

use toml::de::DeTable;

use crate::config::address::Listen;
use crate::config::diagnostic::{Mistake, is_unprintable, shown, wrong};
use crate::config::draft::DraftListen;
use crate::config::model::{Listening, defaults};
use crate::config::toml_reader::Reader;

impl Reader<'_, '_> {
    /// `name` is the entrypoint's, and `listen` is where it listens.
    pub(super) fn listening(
        &mut self,
        name: &str,
        table: &DeTable<'_>,
        listen: &[DraftListen],
    ) -> Listening {
        let is_tcp = |it: &DraftListen| matches!(it.listen, Listen::Tcp { .. });
        for key in ["interface", "fast_open"] {
            if let Some((at, _)) = table.get_key_value(key)
                && !listen.is_empty()
                && !listen.iter().any(is_tcp)
            {
                let why = format!(
                    "`{key}` is for TCP, and entrypoint `{name}` listens on Unix sockets only; remove it"
                );
                self.out.report(Some(at.span()), why);
            }
        }
        let most = Listening::MAX_BACKLOG;
        let backlog = self.integer(table, "backlog", 1..=most, "write 1 or more");
        Listening {
            interface: self.parsed(table, "interface", interface),
            backlog: backlog.unwrap_or(defaults::BACKLOG),
            fast_open: self.boolean(table, "fast_open").unwrap_or(false),
        }
    }

    /// Reads `only_v6`, and applies it to the addresses.
    pub(super) fn only_v6(&mut self, table: &DeTable<'_>, listen: &mut [DraftListen]) {
        let (Some(only_v6), Some((at, _))) = (
            self.boolean(table, "only_v6"),
            table.get_key_value("only_v6"),
        ) else {
            return;
        };
        let mut is_any = false;
        for it in &mut *listen {
            let Listen::Tcp {
                address, v6only, ..
            } = &mut it.listen
            else {
                continue;
            };
            if address.is_ipv4() || !address.ip().is_unspecified() {
                continue;
            }
            is_any = true;
            if only_v6 && it.dual {
                let port = address.port();
                let why = format!(
                    "`*:{port}` takes IPv4 too; write `[::]:{port}` for IPv6 alone, or remove `only_v6`"
                );
                self.out.report(Some(at.span()), why);
            }
            *v6only = only_v6;
            it.takes_both = !only_v6;
        }
        if !is_any && !listen.is_empty() {
            let why = "`only_v6` has no effect, because nothing here listens on `[::]`; remove it";
            self.out.warn(Some(at.span()), why);
        }
    }
}

/// Parses the name of a network interface.
pub(super) fn interface(text: &str) -> Result<String, Mistake> {
    /// IFNAMSIZ, including the terminating zero: netdevice(7).
    const MAX_BYTES: usize = 15;
    let is_name = |text: &str| {
        let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || is_unprintable(c);
        !text.is_empty() && !text.contains(forbidden) && text.len() <= MAX_BYTES
    };
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => wrong(format!(
            "`{}` is not the name of a network interface; `ip link` lists them, such as `br-lan`",
            shown(text)
        )),
    }
}
