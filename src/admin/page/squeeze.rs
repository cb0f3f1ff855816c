//! Takes comments, indentation and needless line ends out of the page's files when coracle is
//! compiled. It knows lines, not languages: a comment stands at the beginning of its line, and no text
//! goes over several lines.

/// Returns how many bytes are left of `text`.
pub(super) const fn len(text: &str) -> usize {
    squeeze(text.as_bytes(), &mut [])
}

/// Returns what is left of `text`, whose [`len`] is `N`.
pub(super) const fn squeezed<const N: usize>(text: &str) -> [u8; N] {
    let mut out = [0; N];
    squeeze(text.as_bytes(), &mut out);
    out
}

/// Writes what is left of `text` to `out`, as far as that has room. Returns the length of all of it.
const fn squeeze(text: &[u8], out: &mut [u8]) -> usize {
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

const fn begins(text: &[u8], at: usize, with: &[u8; 2]) -> bool {
    at + 1 < text.len() && text[at] == with[0] && text[at + 1] == with[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_indentation_are_left_out_and_the_rest_stays() {
        const TEXT: &str = "// no\n/** no */\n\n\ta = {\n\t\tb:\t1,\n};\n/**\n * no\n * @type {x} */\n /** no */ c(\"/* yes */ // yes\")\n\t}\n/* no */";
        const LEFT: &[u8] = &squeezed::<{ len(TEXT) }>(TEXT);
        assert_eq!(LEFT, b"a = {b:\t1,};c(\"/* yes */ // yes\")\n}\n");
        assert_eq!(len(""), 0);
        assert_eq!(len("\n \n"), 0);
    }
}
