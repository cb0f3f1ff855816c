//! The wire format of DNS (RFC 1035), as far as queries for SRV records (RFC 2782) need it. No I/O.

/// The most records of an answer that are used, which bounds what a resolver that lies can do.
pub(super) const MAX_RECORDS: usize = 64;

const HEADER_BYTES: usize = 12;
const SRV: u16 = 33;
const INTERNET: u16 = 1;
/// RFC 1035, section 2.3.4.
const MAX_NAME_BYTES: usize = 255;
const MAX_LABEL_BYTES: usize = 63;

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The lower, the earlier it is used.
    pub(super) priority: u16,
    /// Its share among records of the same priority.
    pub(super) weight: u16,
    pub(super) port: u16,
    /// The host, without a trailing dot; empty if the service is not offered.
    pub(super) target: String,
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It does not answer the query.
    Unrelated,
    /// The answer is too long for a datagram.
    Truncated,
    /// The name has these records, or none.
    Records(Vec<Record>),
    /// The resolver could not answer, for the reason in this code.
    Failed(u8),
    /// It does not follow the format.
    Malformed,
}

/// Returns a query for the SRV records of a name; `None` if that is no valid name.
pub(super) fn query(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut message = id.to_be_bytes().to_vec();
    // A standard query, recursion desired, with one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        if label.is_empty() || label.len() > MAX_LABEL_BYTES {
            return None;
        }
        message.push(u8::try_from(label.len()).ok()?);
        message.extend(label.bytes());
    }
    message.push(0);
    if message.len() - HEADER_BYTES > MAX_NAME_BYTES {
        return None;
    }
    message.extend(SRV.to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    Some(message)
}

/// Reads a message that arrived after `query` was sent.
pub(super) fn reply(message: &[u8], query: &[u8]) -> Reply {
    let Some((header, body)) = message.split_at_checked(HEADER_BYTES) else {
        return Reply::Unrelated;
    };
    let (query_header, question) = query.split_at(HEADER_BYTES);
    let is_answer = header[2] & 0b1111_1000 == 0b1000_0000;
    let has_question = header[4..6] == [0, 1]
        && body.len() >= question.len()
        && body[..question.len()].eq_ignore_ascii_case(question);
    if header[..2] != query_header[..2] || !is_answer {
        return Reply::Unrelated;
    }
    let code = header[3] & 0b1111;
    match code {
        // A server that does not understand the query may leave the question out.
        1.. if code != NO_SUCH_NAME && header[4..6] == [0, 0] => return Reply::Failed(code),
        _ if !has_question => return Reply::Unrelated,
        NO_SUCH_NAME => return Reply::Records(Vec::new()),
        1.. => return Reply::Failed(code),
        0 => {}
    }
    if header[2] & 0b10 != 0 {
        return Reply::Truncated;
    }
    let count = u16::from_be_bytes([header[6], header[7]]);
    let mut reader = Reader {
        message,
        at: query.len(),
    };
    reader
        .records(count)
        .map_or(Reply::Malformed, Reply::Records)
}

const NO_SUCH_NAME: u8 = 3;

/// Reads a message from a position on. Each method returns `None` if the message is malformed.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn records(&mut self, count: u16) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        for _ in 0..count {
            self.name()?;
            let (kind, class) = (self.number()?, self.number()?);
            // The time to live.
            self.at += 4;
            let end = usize::from(self.number()?) + self.at;
            self.message.get(..end)?;
            if (kind, class) == (SRV, INTERNET) {
                let [priority, weight, port] = [self.number()?, self.number()?, self.number()?];
                let target = self.name()?;
                if self.at != end {
                    return None;
                }
                if let Some(target) = host(&target)
                    && (port != 0 || target.is_empty())
                    && records.len() < MAX_RECORDS
                {
                    records.push(Record {
                        priority,
                        weight,
                        port,
                        target,
                    });
                }
            }
            self.at = end;
        }
        Some(records)
    }

    fn number(&mut self) -> Option<u16> {
        let bytes = self.message.get(self.at..)?.first_chunk()?;
        self.at += 2;
        Some(u16::from_be_bytes(*bytes))
    }

    /// Returns a name with a dot after each label.
    fn name(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        let mut at = self.at;
        let mut has_jumped = false;
        // Each jump leads further back, so no name goes round in circles.
        let mut part = at;
        loop {
            let length = usize::from(*self.message.get(at)?);
            at += 1;
            match length {
                0 => break,
                1..=MAX_LABEL_BYTES => {
                    name.extend(self.message.get(at..at + length)?);
                    name.push(b'.');
                    at += length;
                    if name.len() >= MAX_NAME_BYTES {
                        return None;
                    }
                }
                0xc0.. => {
                    let low = usize::from(*self.message.get(at)?);
                    if !std::mem::replace(&mut has_jumped, true) {
                        self.at = at + 1;
                    }
                    at = (length & 0x3f) << 8 | low;
                    if at >= part {
                        return None;
                    }
                    part = at;
                }
                _ => return None,
            }
        }
        if !has_jumped {
            self.at = at;
        }
        Some(name)
    }
}

/// Returns a name without its last dot, if it can be that of a host.
fn host(name: &[u8]) -> Option<String> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let allowed = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    match name.iter().all(allowed) && !name.starts_with(b"-") {
        true => String::from_utf8(name.to_vec()).ok(),
        false => None,
    }
}

#[cfg(test)]
mod tests;
