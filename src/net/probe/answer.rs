//! Judges an answer while it arrives. No I/O.

use super::check::{Check, Expect, Expression};
use super::failure::quoted;

/// How often an expression is tried on an answer that is not complete. A server that sends one byte
/// at a time must not cost a search for each.
const TRIES: u32 = 16;

/// What has arrived of an answer.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    check: &'a Check,
    bytes: Vec<u8>,
    /// How many bytes are known not to contain what is expected.
    searched: usize,
    tries: u32,
}

/// Why no more of an answer is read.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// The server has closed the connection.
    Closed,
    /// [`Check::MAX_BYTES`] have been read.
    Full,
    /// The time is up; the limit.
    Late(String),
}

/// Whether an answer is good, or why not.
pub(super) type Verdict = Result<(), String>;

impl<'a> Answer<'a> {
    pub(super) fn new(check: &'a Check) -> Self {
        Self {
            check,
            bytes: Vec::new(),
            searched: 0,
            tries: 0,
        }
    }

    /// Returns how many more bytes to read.
    pub(super) fn room(&self) -> usize {
        Check::MAX_BYTES - self.bytes.len().min(Check::MAX_BYTES)
    }

    /// Adds what has arrived. Returns the verdict once there is one.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Option<Verdict> {
        self.bytes.extend_from_slice(bytes);
        match self.check {
            Check::Tcp { expect: None, .. } => Some(Ok(())),
            Check::Tcp {
                expect: Some(expect),
                ..
            } => match expect {
                Expect::Bytes(wanted) => self.contains(wanted),
                Expect::Match(wanted) => self.matches(wanted),
            }
            .then_some(Ok(())),
            Check::Http { status, .. } => match final_status(&self.bytes) {
                Ok(None) => None,
                Ok(Some(code)) if status.contains(&code) => Some(Ok(())),
                Ok(Some(code)) => Some(Err(format!("HTTP status {code}"))),
                Err(NotHttp) => Some(Err(self.not_http())),
            },
        }
    }

    fn contains(&mut self, wanted: &[u8]) -> bool {
        // The bytes may have begun before what has just arrived.
        let from = (self.searched + 1).saturating_sub(wanted.len());
        self.searched = self.bytes.len();
        wanted.is_empty()
            || self.bytes[from..]
                .windows(wanted.len())
                .any(|it| it == wanted)
    }

    fn matches(&mut self, wanted: &Expression) -> bool {
        self.tries += 1;
        self.tries <= TRIES && wanted.is_in(&self.bytes)
    }

    /// Returns the verdict on an answer of which no more is read.
    pub(super) fn ended(&self, end: &End) -> Verdict {
        let expected = match self.check {
            Check::Tcp { expect: None, .. } => return Ok(()),
            Check::Tcp {
                expect: Some(Expect::Match(wanted)),
                ..
            } if self.tries > TRIES && wanted.is_in(&self.bytes) => return Ok(()),
            Check::Tcp {
                expect: Some(expect),
                ..
            } => Some(expect),
            Check::Http { .. } => None,
        };
        match (end, expected) {
            (End::Late(limit), _) if self.bytes.is_empty() => {
                Err(format!("no answer within {limit}"))
            }
            (End::Closed, _) if self.bytes.is_empty() => {
                Err("the server closed the connection without an answer".to_owned())
            }
            (End::Late(limit), None) => Err(format!("no HTTP status within {limit}")),
            (_, None) => Err(self.not_http()),
            (_, Some(Expect::Bytes(wanted))) => Err(format!(
                "the answer does not contain {}: {}",
                quoted(wanted),
                quoted(&self.bytes)
            )),
            (_, Some(Expect::Match(wanted))) => Err(format!(
                "the answer does not match {}: {}",
                quoted(wanted.text().as_bytes()),
                quoted(&self.bytes)
            )),
        }
    }

    fn not_http(&self) -> String {
        format!("the answer is not HTTP: {}", quoted(&self.bytes))
    }
}

/// The answer does not begin with an HTTP/1 status line.
#[derive(Debug, PartialEq, Eq)]
struct NotHttp;

/// Returns the status of the first answer that is no interim one (1xx), once its line is complete.
fn final_status(mut bytes: &[u8]) -> Result<Option<u16>, NotHttp> {
    const HEAD_END: &[u8] = b"\r\n\r\n";
    while let Some(code) = status(bytes)? {
        if !(100..200).contains(&code) {
            return Ok(Some(code));
        }
        let end = bytes.windows(HEAD_END.len()).position(|it| it == HEAD_END);
        let Some(end) = end else {
            break;
        };
        bytes = &bytes[end + HEAD_END.len()..];
    }
    Ok(None)
}

/// Returns the status at the beginning of `bytes`, once its line is complete.
fn status(bytes: &[u8]) -> Result<Option<u16>, NotHttp> {
    // Without room for fields the parser stops behind the status line: with an error if a field
    // follows.
    let mut head = httparse::Response::new(&mut []);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => Ok(head.code),
        // The code is known before its line ends, but the line may still turn out wrong.
        Ok(httparse::Status::Partial) => Ok(head.reason.and(head.code)),
        Err(_) if head.reason.is_some() => Ok(head.code),
        Err(_) => Err(NotHttp),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expecting(expect: Expect) -> Check {
        Check::Tcp {
            send: Vec::new(),
            expect: Some(expect),
        }
    }

    fn http() -> Check {
        Check::http("/", "example.org", 200..=399)
    }

    /// The verdict on an answer that arrives in these pieces and then ends.
    fn verdict(check: &Check, pieces: &[&[u8]], end: &End) -> Verdict {
        let mut answer = Answer::new(check);
        let verdict = pieces.iter().find_map(|piece| answer.add(piece));
        verdict.unwrap_or_else(|| answer.ended(end))
    }

    fn late() -> End {
        End::Late("3s".to_owned())
    }

    #[test]
    fn expected_bytes_are_found_across_pieces() {
        let check = expecting(Expect::Bytes(b"PONG".to_vec()));
        assert_eq!(verdict(&check, &[b"+PO", b"N", b"G"], &End::Closed), Ok(()));
        let wrong = verdict(&check, &[b"-NOAUTH", b"\r\n"], &late()).expect_err("a failure");
        assert_eq!(wrong, r"the answer does not contain `PONG`: `-NOAUTH\r\n`");
        let none = verdict(&check, &[], &late()).expect_err("a failure");
        assert_eq!(none, "no answer within 3s");
        let closed = verdict(&check, &[], &End::Closed).expect_err("a failure");
        assert_eq!(closed, "the server closed the connection without an answer");
    }

    #[test]
    fn expression_matches_text_and_bytes_that_are_none() {
        let new = |text| expecting(Expect::Match(Expression::new(text).expect("an expression")));
        let check = new("^220[ -].*SMTP");
        assert_eq!(verdict(&check, &[b"220 mail ES", b"MTP"], &late()), Ok(()));
        let wrong = verdict(&check, &[b"421 busy"], &late()).expect_err("a failure");
        assert_eq!(
            wrong,
            "the answer does not match `^220[ -].*SMTP`: `421 busy`"
        );
        assert_eq!(verdict(&new("a.b"), &[b"\xffa\xffb"], &late()), Ok(()));
    }

    #[test]
    fn dripping_answer_costs_few_searches_and_is_judged_whole() {
        let check = expecting(Expect::Match(
            Expression::new("end$").expect("an expression"),
        ));
        let mut answer = Answer::new(&check);
        for byte in [b'x'; 1000].iter().chain(b"end") {
            assert_eq!(answer.add(&[*byte]), None);
        }
        assert_eq!(answer.ended(&End::Closed), Ok(()));
    }

    #[test]
    fn http_status_decides() {
        let of = |text: &str| verdict(&http(), &[text.as_bytes()], &late());
        assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Ok(()));
        assert_eq!(of("HTTP/1.0 204\r\n"), Ok(()));
        assert_eq!(of("HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
        let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 503 Busy\r\n";
        assert_eq!(of(early).expect_err("a failure"), "HTTP status 503");
        assert_eq!(
            of("HTTP/1.1 20").expect_err("a failure"),
            "no HTTP status within 3s"
        );
        let ssh = of("SSH-2.0-OpenSSH_9.2\r\n").expect_err("a failure");
        assert_eq!(ssh, r"the answer is not HTTP: `SSH-2.0-OpenSSH_9.2\r\n`");
        let cut = verdict(&http(), &[b"HTTP/1."], &End::Closed).expect_err("a failure");
        assert_eq!(cut, "the answer is not HTTP: `HTTP/1.`");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            answer in "[ab]{0,30}",
            wanted in "[ab]{1,4}",
            cuts in proptest::collection::vec(1..5usize, 0..30),
        ) {
            let mut rest = answer.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            pieces.push(rest);
            let check = expecting(Expect::Bytes(wanted.clone().into_bytes()));
            let found = verdict(&check, &pieces, &End::Closed).is_ok();
            prop_assert_eq!(found, answer.contains(&wanted));
        }

        #[test]
        fn http_in_pieces_is_judged_as_a_whole(at in 0..40usize) {
            let text = b"HTTP/1.1 404 Not Found\r\nServer: x\r\n\r\n";
            let (first, second) = text.split_at(at.min(text.len()));
            let verdict = verdict(&http(), &[first, second], &End::Closed);
            prop_assert_eq!(verdict, Err("HTTP status 404".to_owned()));
        }

        #[test]
        fn no_answer_makes_it_panic(answer in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = verdict(&http(), &[&answer], &End::Full);
        }
    }
}
