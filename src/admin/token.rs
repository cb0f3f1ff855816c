//! The token that lets a client over TCP give orders: how it is read and compared.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The longest token.
const MAX_BYTES: usize = 256;
/// The shortest one. Fewer characters could be guessed, in spite of the limit on attempts.
const MIN_BYTES: usize = 16;

/// A token of 16 to 256 characters that fit into a header.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads the token in `file`, without the whitespace around it. Also returns whether every user
    /// of this machine can read the file.
    ///
    /// # Errors
    /// Returns why there is none, and what to do.
    pub fn read(file: &Path) -> Result<(Self, bool), String> {
        const NEW: &str = "write one with `head -c 24 /dev/urandom | base64`";
        let unread = |error: io::Error| match error.kind() {
            ErrorKind::NotFound => format!("no such file; {NEW}"),
            ErrorKind::PermissionDenied => {
                "permission denied; let the user that this runs as read it".to_owned()
            }
            _ => format!("cannot be read: {error}; name a file that holds the token"),
        };
        // Opening a pipe could wait forever.
        let about = fs::metadata(file).map_err(unread)?;
        if !about.is_file() {
            return Err("not a file; name a file that holds the token".to_owned());
        }
        let mut text = Vec::new();
        let source = File::open(file).map_err(unread)?;
        // More than the longest token, with room for whitespace.
        source
            .take(4 * MAX_BYTES as u64)
            .read_to_end(&mut text)
            .map_err(unread)?;
        let token = text.trim_ascii();
        let why = match token.len() {
            0 => "is empty".to_owned(),
            n if n < MIN_BYTES => {
                format!("the token has {n} characters, and {MIN_BYTES} are the fewest")
            }
            n if n > MAX_BYTES => {
                format!("the token has more than {MAX_BYTES} characters, which are the most")
            }
            _ if !token.iter().all(u8::is_ascii_graphic) => {
                "the token has a space or a character that is not ASCII".to_owned()
            }
            _ => {
                let token = String::from_utf8_lossy(token).into_owned();
                return Ok((Self(token), about.mode() & 0o004 != 0));
            }
        };
        Err(format!("{why}; {NEW}"))
    }

    /// Returns the token, for the header that a client sends.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether `given` is the token.
    ///
    /// A comparison that ended at the first difference would take longer the more of the token is
    /// right, and who measures that finds it character by character. So this looks at the same
    /// number of bytes, however many are right. `black_box` keeps the compiler from seeing that the
    /// outcome is known early.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        let padded = |text: &[u8]| {
            let mut padded = [0; MAX_BYTES];
            let n = text.len().min(MAX_BYTES);
            padded[..n].copy_from_slice(&text[..n]);
            padded
        };
        let (own, other) = (padded(self.0.as_bytes()), padded(given));
        let mut difference = self.0.len() ^ given.len();
        for (own, other) in own.iter().zip(&other) {
            difference = black_box(difference | usize::from(own ^ other));
        }
        difference == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    fn read(text: impl AsRef<[u8]>) -> Result<Token, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, text).unwrap();
        Token::read(&file).map(|(token, _)| token)
    }

    #[test]
    fn only_the_same_bytes_are_the_token() {
        let token = read("0123456789abcdef").unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for other in [
            &b""[..],
            b"0123456789abcdeF",
            b"1123456789abcdef",
            b"0123456789abcde",
            b"0123456789abcdef\0",
            b"0123456789abcdef0123456789abcdef",
            &[b'0'; 300],
        ] {
            assert!(!token.is(other), "{other:?}");
        }
        let longest = read([b'a'; MAX_BYTES]).unwrap();
        assert!(longest.is(&[b'a'; MAX_BYTES]));
        // What is cut off counts.
        assert!(!longest.is(&[b'a'; MAX_BYTES + 1]));
    }

    #[test]
    fn whitespace_around_it_is_none_of_the_token() {
        let token = read(" \t0123456789abcdef\r\n\n").unwrap();
        assert_eq!(token.as_str(), "0123456789abcdef");
    }

    #[test]
    fn what_is_wrong_with_a_token_comes_with_a_remedy() {
        for (text, why) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            (b"0123456789abcde\n", "has 15 characters"),
            (&[b'a'; MAX_BYTES + 1], "more than 256"),
            (&[b'a'; 5000], "more than 256"),
            (b"0123456789 abcdef", "a space"),
            ("0123456789abcd\u{e9}".as_bytes(), "not ASCII"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(why), "{said}");
            assert!(said.contains("; write one with `head"), "{said}");
        }
        let dir = tempfile::tempdir().unwrap();
        let said = Token::read(dir.path()).unwrap_err();
        assert!(said.starts_with("not a file; "), "{said}");
        let said = Token::read(&dir.path().join("none")).unwrap_err();
        assert!(said.starts_with("no such file; "), "{said}");
    }
}
