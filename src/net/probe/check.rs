//! What a check asks a server, and which answer is good.

use std::ops::RangeInclusive;

use regex_lite::Regex;

/// What to do once a server is connected.
#[derive(Clone, Debug)]
pub enum Check {
    /// Send bytes, if any, and wait for an answer, if one is expected.
    Tcp {
        /// The bytes to send; empty for none.
        send: Vec<u8>,
        /// What the answer must contain; `None` if no answer is expected.
        expect: Option<Expect>,
    },
    /// Send an HTTP request and wait for the answer's status.
    Http {
        /// The whole request.
        request: Vec<u8>,
        /// The statuses that are good.
        status: RangeInclusive<u16>,
    },
}

impl Check {
    /// How many bytes of an answer are read.
    pub const MAX_BYTES: usize = 4096;

    /// Creates a check that requests `path` by HTTP/1.1 `GET`. `host` is the value of the field
    /// `Host`.
    #[must_use]
    pub fn http(path: &str, host: &str, status: RangeInclusive<u16>) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: coracle/{version} (health check)\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n"
        );
        let request = request.into_bytes();
        Self::Http { request, status }
    }

    /// Returns the check that sends `preface` before its request.
    #[must_use]
    pub fn preceded_by(mut self, mut preface: Vec<u8>) -> Self {
        let (Self::Tcp { send: request, .. } | Self::Http { request, .. }) = &mut self;
        preface.append(request);
        *request = preface;
        self
    }

    /// Returns what to send.
    pub(super) fn request(&self) -> &[u8] {
        match self {
            Self::Tcp { send, .. } => send,
            Self::Http { request, .. } => request,
        }
    }

    /// Returns whether the outcome depends on an answer.
    pub(super) fn wants_answer(&self) -> bool {
        match self {
            Self::Tcp { expect, .. } => expect.is_some(),
            Self::Http { .. } => true,
        }
    }
}

/// What an answer must contain.
#[derive(Clone, Debug)]
pub enum Expect {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A match of this expression.
    Match(Expression),
}

/// A regular expression, compiled.
///
/// It sees the answer as text, in which `U+FFFD` stands for what is not UTF-8.
#[derive(Clone, Debug)]
pub struct Expression(Regex);

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        Regex::new(text).map(Self).map_err(|why| why.to_string())
    }

    pub(super) fn is_in(&self, answer: &[u8]) -> bool {
        self.0.is_match(&String::from_utf8_lossy(answer))
    }

    pub(super) fn text(&self) -> &str {
        self.0.as_str()
    }
}
