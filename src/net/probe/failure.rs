//! Why a check failed, in words.

use std::io;

use rustix::io::Errno;

use crate::net::dial::Lack;

/// Why a check did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server did not do what it should: one line of printable text.
    Server(String),
    /// This machine lacks something, such as file descriptors, so nothing is known of the server.
    Lack(String),
}

impl Failure {
    /// Creates the failure of a `step`, such as connecting.
    pub(super) fn of(step: &str, error: &io::Error) -> Self {
        let text = format!("{step}: {}", in_words(error));
        // No room to watch another socket: epoll_ctl(2), fs.epoll.max_user_watches.
        let cannot_watch = Errno::from_io_error(error) == Some(Errno::NOSPC);
        match Lack::of(error).is_some() || cannot_watch {
            true => Self::Lack(text),
            false => Self::Server(text),
        }
    }
}

/// Returns the error as a part of a sentence: `connection refused`.
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// How many bytes of a quotation are shown.
const QUOTED_BYTES: usize = 40;

/// Returns the beginning of `bytes`, printable and in quotation marks.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let most = bytes.len().min(QUOTED_BYTES);
    let dots = if most < bytes.len() { "..." } else { "" };
    format!("`{}{dots}`", bytes[..most].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_short_and_printable() {
        let refused = io::Error::from_raw_os_error(Errno::CONNREFUSED.raw_os_error());
        let expected = Failure::Server("connect: connection refused".to_owned());
        assert_eq!(Failure::of("connect", &refused), expected);
        assert_eq!(quoted(b"+PONG\r\n"), r"`+PONG\r\n`");
        assert_eq!(quoted(&[0, 0x1b, 0xff]), r"`\x00\x1b\xff`");
        assert_eq!(quoted(&[b'a'; 41]), format!("`{}...`", "a".repeat(40)));
    }

    #[test]
    fn shortage_on_this_machine_is_no_failure_of_the_server() {
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::NOBUFS,
            Errno::ADDRNOTAVAIL,
            Errno::NOSPC,
        ] {
            let failure = Failure::of("connect", &errno.into());
            assert!(matches!(failure, Failure::Lack(_)), "{failure:?}");
        }
        for errno in [Errno::CONNRESET, Errno::HOSTUNREACH, Errno::ACCESS] {
            let failure = Failure::of("read", &errno.into());
            assert!(matches!(failure, Failure::Server(_)), "{failure:?}");
        }
    }
}
