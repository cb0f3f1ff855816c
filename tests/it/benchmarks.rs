//! What BENCHMARKS.md shows is what the results say.

use std::process::Command;

use crate::support;

#[test]
fn the_table_and_the_chart_show_the_results() {
    if !support::has_tool("python3") {
        return;
    }
    let root = env!("CARGO_MANIFEST_DIR");
    let checked = Command::new("python3")
        .args(["scripts/benchmark-chart", "--check"])
        .current_dir(root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
}
