//! What the endpoint serves as it is. `build.rs` has made it small: a fourth of its size, which a
//! router's flash has to hold.

use miniz_oxide::inflate::decompress_to_vec;

const PAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/page"));
const OPENAPI: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi"));

/// Returns the page's template, its style and its script, separated by NUL.
#[must_use]
pub(super) fn page() -> String {
    inflate(PAGE)
}

/// Returns the description of the API in OpenAPI.
#[must_use]
pub(super) fn openapi() -> String {
    inflate(OPENAPI)
}

fn inflate(compressed: &[u8]) -> String {
    let bytes = decompress_to_vec(compressed).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.unwrap_or_else(|| unreachable!("build.rs has compressed it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn description_is_whole() {
        let source = include_str!("api/openapi.json");
        let source: serde_json::Value = serde_json::from_str(source).expect("JSON");
        let served: serde_json::Value = serde_json::from_str(&openapi()).expect("JSON");
        assert_eq!(served, source);
        assert_eq!(
            openapi(),
            crate::admin::squeeze::json(include_str!("api/openapi.json"))
        );
    }

    #[test]
    fn page_has_three_parts() {
        let page = page();
        let parts: Vec<_> = page.split('\0').collect();
        let [html, css, script] = parts[..] else {
            panic!("{} parts", parts.len());
        };
        assert!(html.starts_with("<!doctype html>"), "{html}");
        assert!(css.contains("color-scheme"), "{css}");
        assert!(script.contains("function start()"), "{script}");
    }
}
