//! Turns the bytes of a terminal into keys. No I/O.

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Ctrl and a letter.
    Ctrl(char),
    /// The arrow.
    Up,
    /// The arrow.
    Down,
    /// A page back.
    PageUp,
    /// A page on.
    PageDown,
    /// To the beginning.
    Home,
    /// To the end.
    End,
    /// Del.
    Delete,
    /// Enter.
    Enter,
    /// Esc.
    Escape,
    /// The key that removes the character before the cursor.
    Backspace,
    /// Tab.
    Tab,
}

/// Decodes keys. One may come in several pieces.
#[derive(Debug, Default)]
pub struct Keys {
    /// The beginning of a key.
    begun: Vec<u8>,
}

/// What stands at the beginning of some bytes.
enum Found {
    /// A key, or bytes that are none, and how many bytes it has.
    Whole(Option<Key>, usize),
    /// A key that may go on.
    Begun,
}

impl Keys {
    /// Takes what the terminal has sent, and returns the keys that are complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.begun.extend_from_slice(bytes);
        let mut keys = Vec::new();
        while let Found::Whole(key, length) = first(&self.begun) {
            self.begun.drain(..length);
            keys.extend(key);
        }
        keys
    }

    /// Returns whether a key has begun that may go on. Esc alone looks like that.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Returns the keys that were begun, because nothing more comes.
    pub fn flush(&mut self) -> Vec<Key> {
        match std::mem::take(&mut self.begun)[..] {
            [0x1b] => vec![Key::Escape],
            // Alt and a letter, or half a sequence.
            _ => Vec::new(),
        }
    }
}

fn first(bytes: &[u8]) -> Found {
    let whole = |key, length| Found::Whole(Some(key), length);
    match *bytes {
        [] => Found::Begun,
        [b'\r' | b'\n', ..] => whole(Key::Enter, 1),
        [b'\t', ..] => whole(Key::Tab, 1),
        [0x08 | 0x7f, ..] => whole(Key::Backspace, 1),
        [0x1b, ref rest @ ..] => sequence(rest),
        [byte @ 1..=0x1a, ..] => whole(Key::Ctrl((byte | 0x60).into()), 1),
        [byte, ..] if byte.is_ascii_graphic() || byte == b' ' => whole(Key::Char(byte.into()), 1),
        [byte, ..] if byte.is_ascii() => Found::Whole(None, 1),
        _ => unicode(bytes),
    }
}

/// Decodes what follows Esc: a sequence of a terminal, or another key.
fn sequence(rest: &[u8]) -> Found {
    let [kind, rest @ ..] = rest else {
        return Found::Begun;
    };
    match kind {
        b'[' | b'O' => {}
        // Esc was a key of its own.
        _ => return Found::Whole(Some(Key::Escape), 1),
    }
    let Some(end) = rest.iter().position(|byte| (0x40..=0x7e).contains(byte)) else {
        // No sequence is as long as this.
        return match rest.len() > 16 {
            true => Found::Whole(None, 2 + rest.len()),
            false => Found::Begun,
        };
    };
    // What follows `;` is Shift, Alt or Ctrl.
    let number = rest[..end].split(|byte| *byte == b';').next();
    let key = match (rest[end], number) {
        (b'A', _) => Some(Key::Up),
        (b'B', _) => Some(Key::Down),
        (b'H', _) | (b'~', Some(b"1" | b"7")) => Some(Key::Home),
        (b'F', _) | (b'~', Some(b"4" | b"8")) => Some(Key::End),
        (b'~', Some(b"3")) => Some(Key::Delete),
        (b'~', Some(b"5")) => Some(Key::PageUp),
        (b'~', Some(b"6")) => Some(Key::PageDown),
        (b'M', _) if *kind == b'O' => Some(Key::Enter),
        _ => None,
    };
    Found::Whole(key, 2 + end + 1)
}

/// Decodes a character of several bytes.
fn unicode(bytes: &[u8]) -> Found {
    let few = &bytes[..bytes.len().min(4)];
    let length = match std::str::from_utf8(few) {
        Ok(_) => few.len(),
        Err(error) if error.valid_up_to() > 0 => error.valid_up_to(),
        Err(error) => {
            return match error.error_len() {
                None => Found::Begun,
                Some(wrong) => Found::Whole(None, wrong),
            };
        }
    };
    let text = std::str::from_utf8(&few[..length]).unwrap_or_default();
    match text.chars().next() {
        Some(c) => Found::Whole(Some(Key::Char(c)), c.len_utf8()),
        None => Found::Whole(None, 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SENT: &[u8] = b"j\x1b[A\x1b[5~x\x1b[3~\x1bOB\x1b[1;5B\xc3\xbc\r\x7f\x03\x1b[99~q";
    const KEYS: [Key; 12] = [
        Key::Char('j'),
        Key::Up,
        Key::PageUp,
        Key::Char('x'),
        Key::Delete,
        Key::Down,
        Key::Down,
        Key::Char('ü'),
        Key::Enter,
        Key::Backspace,
        Key::Ctrl('c'),
        Key::Char('q'),
    ];

    #[test]
    fn keys_are_whole_wherever_they_are_split() {
        for at in 0..=SENT.len() {
            let mut keys = Keys::default();
            let mut found = keys.feed(&SENT[..at]);
            found.extend(keys.feed(&SENT[at..]));
            assert_eq!(found, KEYS, "split at {at}");
            assert!(!keys.has_begun());
        }
    }

    #[test]
    fn escape_is_a_key_if_nothing_follows() {
        let mut keys = Keys::default();
        assert_eq!(keys.feed(b"\x1b"), []);
        assert!(keys.has_begun());
        assert_eq!(keys.flush(), [Key::Escape]);
        assert!(!keys.has_begun());
        assert_eq!(keys.feed(b"\x1bq"), [Key::Escape, Key::Char('q')]);
        assert_eq!(keys.feed(b"\x1b["), []);
        assert_eq!(keys.flush(), []);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut keys = Keys::default();
            keys.feed(&bytes);
            prop_assert!(keys.begun.len() <= 20);
        }
    }
}
