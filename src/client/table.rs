//! Plain tables: columns as wide as their widest cell, two spaces apart.

/// Lays out `rows` below `titles`, one line each.
pub(super) fn table<const N: usize>(titles: [&str; N], mut rows: Vec<[String; N]>) -> String {
    rows.insert(0, titles.map(str::to_owned));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}
