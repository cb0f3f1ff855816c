//! How many connections an entrypoint has refused, and why, in words. No I/O.

use serde_json::Value;

use crate::config::printable;

/// Formats the number of refused connections, and the reasons that there were.
pub(super) fn refused(entrypoint: &Value) -> String {
    let mut text = entrypoint["refused"].as_u64().unwrap_or(0).to_string();
    let by = entrypoint["refused_by"].as_object();
    let some = by.into_iter().flatten().filter(|(_, n)| **n != 0);
    for (n, (reason, times)) in some.enumerate() {
        text += if n == 0 { ": " } else { ", " };
        text += &format!("{} {times}", printable(reason));
    }
    text
}
