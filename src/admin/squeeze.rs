//! Makes served files smaller when coracle is compiled.
//!
//! Of the page's files, it takes out comments, indentation and needless line ends. It knows lines, not
//! languages: a comment stands at the beginning of its line, and no text goes over several lines. Of
//! JSON, it takes out white space between tokens.

/// The text of a file, made smaller by `$squeeze`.
macro_rules! squeezed {
    ($squeeze:path, $file:literal) => {{
        const TEXT: &[u8] = include_bytes!($file);
        const BYTES: &[u8] = &{
            let mut out = [0; $squeeze(TEXT, &mut [])];
            $squeeze(TEXT, &mut out);
            out
        };
        const {
            match std::str::from_utf8(BYTES) {
                Ok(text) => text,
                Err(_) => panic!("not UTF-8"),
            }
        }
    }};
}
pub(super) use squeezed;

/// Writes what is left of `text` to `out`, as far as that has room. Returns the length of all of it.
pub(super) const fn lines(text: &[u8], out: &mut [u8]) -> usize {
    let (mut at, mut n) = (0, 0);
    while at < text.len() {
        if matches!(text[at], b' ' | b'\t' | b'\n') {
            at += 1;
        } else if begins(text, at, b"/*") {
            while at < text.len() && !begins(text, at, b"*/") {
                at += 1;
            }
            at += 2;
        } else {
            let is_comment = begins(text, at, b"//");
            let mut is_in_line = true;
            while is_in_line && at < text.len() {
                let is_needless = text[at] == b'\n' && matches!(text[at - 1], b'{' | b',' | b';');
                if !is_comment && !is_needless {
                    if n < out.len() {
                        out[n] = text[at];
                    }
                    n += 1;
                }
                is_in_line = text[at] != b'\n';
                at += 1;
            }
        }
    }
    n
}

/// Writes `text`, which is JSON, without white space between tokens to `out`, as far as that has room.
/// Returns the length of all of it.
pub(super) const fn json(text: &[u8], out: &mut [u8]) -> usize {
    let (mut at, mut n, mut is_string) = (0, 0, false);
    while at < text.len() {
        if is_string || !text[at].is_ascii_whitespace() {
            if n < out.len() {
                out[n] = text[at];
            }
            n += 1;
        }
        if text[at] == b'"' && !(is_string && text[at - 1] == b'\\') {
            is_string = !is_string;
        }
        at += 1;
    }
    n
}

const fn begins(text: &[u8], at: usize, with: &[u8; 2]) -> bool {
    at + 1 < text.len() && text[at] == with[0] && text[at + 1] == with[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(squeeze: fn(&[u8], &mut [u8]) -> usize, text: &str) -> String {
        let mut out = vec![0; squeeze(text.as_bytes(), &mut [])];
        assert_eq!(squeeze(text.as_bytes(), &mut out), out.len());
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn comments_and_indentation_are_left_out_and_the_rest_stays() {
        const TEXT: &str = "// no\n/** no */\n\n\ta = {\n\t\tb:\t1,\n};\n/**\n * no\n * @type {x} */\n /** no */ c(\"/* yes */ // yes\")\n\t}\n/* no */";
        assert_eq!(
            left(lines, TEXT),
            "a = {b:\t1,};c(\"/* yes */ // yes\")\n}\n"
        );
        assert_eq!(left(lines, ""), "");
        assert_eq!(left(lines, "\n \n"), "");
    }

    #[test]
    fn white_space_between_tokens_is_left_out_and_texts_stay() {
        let text =
            "{\n \"a b\": [1, -2.5,\tnull],\r\n \"say \\\" or \\n \": { \"c\" : \" \" }\n}\n";
        assert_eq!(
            left(json, text),
            "{\"a b\":[1,-2.5,null],\"say \\\" or \\n \":{\"c\":\" \"}}"
        );
        let whole = include_str!("api/openapi.json");
        let whole: serde_json::Value = serde_json::from_str(whole).expect("JSON");
        let squeezed: serde_json::Value =
            serde_json::from_str(crate::admin::api::OPENAPI).expect("JSON");
        assert_eq!(squeezed, whole);
    }
}
