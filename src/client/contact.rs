//! Where a running coracle is asked, and what proves that one may.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::request::{self, Failure};
use crate::admin::Token;
use crate::config::{Address, AdminEndpoint, printable};

/// The admin endpoint of a running coracle, and the token to ask it with.
#[derive(Clone, Debug)]
pub struct Contact {
    pub(super) admin: AdminEndpoint,
    token: Option<Token>,
}

impl Contact {
    /// Creates a contact that sends the token in `token_file`, if any.
    ///
    /// # Errors
    /// If there is no token in the file.
    pub fn new(admin: AdminEndpoint, token_file: Option<&Path>) -> Result<Self, Failure> {
        let token = token_file.map(|file| match Token::read(file) {
            Ok((token, _)) => Ok(token),
            Err(why) => {
                let file = printable(&file.to_string_lossy());
                Err(Failure(format!("{file}: {why}")))
            }
        });
        let token = token.transpose()?;
        Ok(Self { admin, token })
    }

    /// Returns the control socket's path, if this contact uses it.
    pub(super) fn socket(&self) -> Option<&Path> {
        match &self.admin.0 {
            Address::Unix(path) => Some(path),
            _ => None,
        }
    }

    /// Sends a request and returns the whole response, head and body. `body` makes it a POST.
    ///
    /// # Errors
    /// Those of connecting, writing and reading. `TimedOut` after `limit`, wherever the time went.
    pub(super) fn exchange(
        &self,
        target: &str,
        body: Option<&str>,
        limit: Duration,
    ) -> io::Result<String> {
        let method = if body.is_some() { "POST" } else { "GET" };
        let token = self.token.as_ref().map_or(String::new(), |token| {
            format!("Authorization: Bearer {}\r\n", token.as_str())
        });
        let length = body.map_or(String::new(), |body| {
            format!("Content-Length: {}\r\n", body.len())
        });
        let body = body.unwrap_or_default();
        // The server must know the name in this header. It always knows `localhost`, but may not
        // know the name by which it was reached.
        let request =
            format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\n{token}{length}\r\n{body}");
        request::exchange(&self.admin, request.into_bytes(), limit)
    }
}

impl From<AdminEndpoint> for Contact {
    fn from(admin: AdminEndpoint) -> Self {
        let token = None;
        Self { admin, token }
    }
}
