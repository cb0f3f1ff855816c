//! A slow reader of ClientHellos, which follows every byte back to where it came from.

use std::ops::Range;

use coracle::wire::client_hello::ClientHello;

/// What a ClientHello says, and at which bytes.
#[derive(Debug, Default)]
pub struct Reading {
    /// As it was sent.
    pub name: Option<Vec<u8>>,
    pub name_at: Vec<usize>,
    pub alpn: Vec<Vec<u8>>,
    pub alpn_at: Vec<usize>,
}

impl Reading {
    /// Whether `hello` says the same.
    pub fn says(&self, hello: &ClientHello) -> bool {
        let alpn: Vec<_> = hello.alpn.iter().map(|it| it.to_vec()).collect();
        alpn == self.alpn && hello.server_name.as_deref() == self.host().as_deref()
    }

    /// The name, if it is that of a host.
    fn host(&self) -> Option<String> {
        let text = String::from_utf8(self.name.clone()?).ok()?.to_lowercase();
        let text = text.strip_suffix('.').unwrap_or(&text);
        let labels: Vec<_> = text.split('.').collect();
        let is_label = |label: &&str| {
            let hyphens = label.starts_with('-') || label.ends_with('-');
            let inner = "abcdefghijklmnopqrstuvwxyz0123456789-_";
            !label.is_empty()
                && label.len() < 64
                && !hyphens
                && label.chars().all(|it| inner.contains(it))
        };
        let last = labels.last()?;
        let is_number = last.parse::<u64>().is_ok() || last.starts_with("0x");
        (text.len() < 254 && labels.iter().all(is_label) && !is_number).then(|| text.into())
    }
}

/// A byte of the message, and which of the connection's bytes it was.
type Byte = (usize, u8);

/// Reads the ClientHello that `bytes` begin with, if it is whole and valid.
pub fn read(bytes: &[u8]) -> Option<Reading> {
    let message = message(bytes);
    let length = number(message.get(1..4)?);
    if message[0].1 != 1 || length > 16_380 {
        return None;
    }
    let content = message.get(4..4 + length)?;
    // Where the parts begin, one after the other.
    let session = 34;
    let ciphers = part(content, session, 1)?;
    let compressions = part(content, ciphers.end, 2)?;
    let after = part(content, compressions.end, 1)?;
    if ciphers.len() > 32
        || compressions.len() < 2
        || compressions.len() % 2 == 1
        || after.is_empty()
    {
        return None;
    }
    let mut reading = Reading::default();
    if after.end == content.len() {
        return Some(reading);
    }
    let extensions = part(content, after.end, 2)?;
    if extensions.end != content.len() {
        return None;
    }
    let mut seen = Vec::new();
    let mut at = extensions.start;
    while at < content.len() {
        let kind = number(content.get(at..at + 2)?);
        let extension = part(content, at + 2, 2)?;
        at = extension.end;
        if kind != 0 && kind != 16 {
            continue;
        }
        if seen.contains(&kind) {
            return None;
        }
        seen.push(kind);
        let extension = &content[extension];
        match kind {
            0 => reading.read_names(extension)?,
            _ => reading.read_protocols(extension)?,
        }
    }
    Some(reading)
}

impl Reading {
    fn read_names(&mut self, extension: &[Byte]) -> Option<()> {
        for (kind, name) in items(extension, 1, 2)? {
            if kind == Some(0) {
                if self.name.is_some() {
                    return None;
                }
                self.name = Some(values(name));
            }
        }
        self.name_at = extension.iter().map(|byte| byte.0).collect();
        Some(())
    }

    fn read_protocols(&mut self, extension: &[Byte]) -> Option<()> {
        self.alpn = items(extension, 0, 1)?
            .into_iter()
            .map(|it| values(it.1))
            .collect();
        self.alpn_at = extension.iter().map(|byte| byte.0).collect();
        Some(())
    }
}

/// What the records contain, up to one that is none of a handshake.
fn message(bytes: &[u8]) -> Vec<Byte> {
    let mut message = Vec::new();
    let mut left = 0;
    let mut at = 0;
    while at < bytes.len().min(16_389) {
        if left > 0 {
            message.push((at, bytes[at]));
            left -= 1;
            at += 1;
            continue;
        }
        let [22, 3, _, high, low] = bytes[at..bytes.len().min(at + 5)] else {
            break;
        };
        left = usize::from(high) * 256 + usize::from(low);
        if left == 0 || left > 16_384 {
            break;
        }
        at += 5;
    }
    message
}

/// A list and the items in it, each with `kind` bytes before its length of `n` bytes. None is empty.
fn items(extension: &[Byte], kind: usize, n: usize) -> Option<Vec<(Option<u8>, &[Byte])>> {
    let list = part(extension, 0, 2)?;
    if list.is_empty() || list.end != extension.len() {
        return None;
    }
    let mut items = Vec::new();
    let mut at = list.start;
    while at < extension.len() {
        let item = part(extension, at + kind, n)?;
        if item.is_empty() {
            return None;
        }
        let kind = (kind == 1).then(|| extension[at].1);
        at = item.end;
        items.push((kind, &extension[item]));
    }
    Some(items)
}

/// Where the content of a vector lies whose length of `n` bytes is at `at`.
fn part(bytes: &[Byte], at: usize, n: usize) -> Option<Range<usize>> {
    let start = at + n;
    let end = start + number(bytes.get(at..start)?);
    (end <= bytes.len()).then_some(start..end)
}

fn number(bytes: &[Byte]) -> usize {
    bytes
        .iter()
        .fold(0, |sum, byte| sum * 256 + usize::from(byte.1))
}

fn values(bytes: &[Byte]) -> Vec<u8> {
    bytes.iter().map(|byte| byte.1).collect()
}
