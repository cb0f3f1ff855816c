//! Makes small what the admin endpoint serves as it is: without comments and white space, and
//! compressed. `src/admin/texts.rs` has the result.

#[path = "src/admin/squeeze.rs"]
mod squeeze;

use std::path::Path;
use std::{env, fs};

/// The page, its style, and its script in parts, in this order: `page.js` starts it.
const PAGE: [&str; 9] = [
    "page.html",
    "page.css",
    "format.js",
    "tables.js",
    "plots.js",
    "status.js",
    "connections.js",
    "acting.js",
    "page.js",
];
const DESCRIPTION: &str = "src/admin/api/openapi.json";

fn main() {
    let page = PAGE.map(|name| squeeze::lines(&read(&format!("src/admin/page/{name}"))));
    let [html, css, script @ ..] = page;
    write("page", &[html, css, script.concat()].join("\0"));
    write("openapi", &squeeze::json(&read(DESCRIPTION)));
    println!("cargo::rerun-if-changed=build.rs");
}

fn read(file: &str) -> String {
    println!("cargo::rerun-if-changed={file}");
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn write(name: &str, text: &str) {
    // The highest level. It takes milliseconds.
    let compressed = miniz_oxide::deflate::compress_to_vec(text.as_bytes(), 10);
    let directory = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let file = Path::new(&directory).join(name);
    fs::write(&file, compressed).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}
