//! Takes out of text what only those who write it need. Runs when coracle is compiled.

/// Returns a file of the page without comments, indentation and needless line ends.
///
/// It knows lines, not languages: a comment stands at the beginning of its line, and no text goes
/// over several lines.
pub(crate) fn lines(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.trim_ascii_start();
    while !rest.is_empty() {
        let is_block = rest.starts_with("/*");
        let end = if is_block { "*/" } else { "\n" };
        let (line, after) = rest.split_once(end).unwrap_or((rest, ""));
        if !is_block && !line.starts_with("//") {
            out.push_str(line);
            if !line.ends_with(['{', ',', ';']) {
                out.push('\n');
            }
        }
        rest = after.trim_ascii_start();
    }
    out
}

/// Returns JSON without white space between tokens.
pub(crate) fn json(text: &str) -> String {
    let (mut is_string, mut before) = (false, ' ');
    let is_needed = |c: &char| {
        let is_needed = is_string || !c.is_ascii_whitespace();
        if *c == '"' && !(is_string && before == '\\') {
            is_string = !is_string;
        }
        before = *c;
        is_needed
    };
    text.chars().filter(is_needed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_indentation_are_left_out_and_the_rest_stays() {
        const TEXT: &str = "// no\n/** no */\n\n\ta = {\n\t\tb:\t1,\n};\n/**\n * no\n * @type {x} */\n /** no */ c(\"/* yes */ // yes\")\n\t}\n/* no */";
        assert_eq!(lines(TEXT), "a = {b:\t1,};c(\"/* yes */ // yes\")\n}\n");
        assert_eq!(lines(""), "");
        assert_eq!(lines("\n \n"), "");
    }

    #[test]
    fn white_space_between_tokens_is_left_out_and_texts_stay() {
        let text =
            "{\n \"a b\": [1, -2.5,\tnull],\r\n \"say \\\" or \\n \": { \"c\" : \" \" }\n}\n";
        assert_eq!(
            json(text),
            "{\"a b\":[1,-2.5,null],\"say \\\" or \\n \":{\"c\":\" \"}}"
        );
    }
}
