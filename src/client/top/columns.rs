//! Tables that fit the width of a terminal: narrower columns first, then fewer. No I/O.

use serde_json::Value;

use super::short::{age, bytes};
use super::style::{columns, fill};
use crate::client::turned_away::refused;
use crate::config::printable;

/// A column of a table.
pub(super) struct Column {
    /// Its heading.
    title: &'static str,
    /// The key of what it shows.
    key: &'static str,
    /// How it shows that.
    kind: Kind,
    /// To how many columns of the terminal it may shrink.
    least: usize,
    /// Those with the highest rank are the first to go. 0 stays.
    rank: u8,
}

/// How a value is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text, or several.
    Text,
    /// How many connections were refused, and why.
    Refused,
    /// The rule that has decided about a connection, or those of an entrypoint and how often each
    /// has decided; empty if there are none.
    Routes,
    /// Whether a server gets connections, and if it is down, why.
    State,
    /// A number, with the limit if there is one.
    Count,
    /// A number of bytes.
    Bytes,
    /// A number of seconds.
    Age,
}

/// Describes a column of text.
pub(super) const fn text(title: &'static str, key: &'static str, least: usize, rank: u8) -> Column {
    Column {
        title,
        key,
        kind: Kind::Text,
        least,
        rank,
    }
}

/// Describes a column of refusals.
pub(super) const fn refusals(title: &'static str, least: usize, rank: u8) -> Column {
    Column {
        title,
        key: "refused",
        kind: Kind::Refused,
        least,
        rank,
    }
}

/// Describes a column of rules.
pub(super) const fn routes(title: &'static str, key: &'static str, rank: u8) -> Column {
    Column {
        title,
        key,
        kind: Kind::Routes,
        least: 5,
        rank,
    }
}

/// Describes a column of states of servers.
pub(super) const fn state(title: &'static str, least: usize) -> Column {
    Column {
        title,
        key: "admin",
        kind: Kind::State,
        least,
        rank: 0,
    }
}

/// Describes a column of numbers, which never shrinks.
pub(super) const fn number(title: &'static str, key: &'static str, kind: Kind, rank: u8) -> Column {
    Column {
        title,
        key,
        kind,
        least: usize::MAX,
        rank,
    }
}

impl Column {
    fn is_number(&self) -> bool {
        !matches!(
            self.kind,
            Kind::Text | Kind::Refused | Kind::Routes | Kind::State
        )
    }

    /// Returns what it shows of an object.
    fn cell(&self, it: &Value) -> String {
        let value = &it[self.key];
        match (self.kind, value.as_f64()) {
            (Kind::Bytes, None) => String::new(),
            (Kind::Bytes, Some(n)) => bytes(n),
            (Kind::Age, Some(n)) => age(n),
            (Kind::Count, Some(_)) => match it["max_connections"].as_u64() {
                Some(most) if self.key == "open" => format!("{value}/{most}"),
                _ => value.to_string(),
            },
            (Kind::Refused, _) => refused(it),
            (Kind::Routes, _) => shown_routes(value),
            (Kind::State, _) => shown_state(it),
            _ => match value {
                Value::String(text) => printable(text),
                Value::Array(texts) => {
                    let texts = texts.iter().filter_map(Value::as_str).map(printable);
                    texts.collect::<Vec<_>>().join(", ")
                }
                _ => "-".to_owned(),
            },
        }
    }
}

/// Says whether a server gets connections, and if it is down, why.
fn shown_state(it: &Value) -> String {
    let down = it["why_down"].as_str();
    let down = down.map(|why| format!("down: {}", printable(why)));
    let is_drained = it["admin"] == "drain";
    match (is_drained, down) {
        (true, None) => "drain".to_owned(),
        (true, Some(down)) => format!("drain, {down}"),
        (false, Some(down)) => down,
        (false, None) => "up".to_owned(),
    }
}

/// Names a rule, or several with the number of connections that each has decided about.
fn shown_routes(routes: &Value) -> String {
    match routes {
        Value::String(label) => printable(label),
        Value::Array(routes) => {
            let one = |it: &Value| {
                let label = printable(it["route"].as_str().unwrap_or_default());
                format!("{label} {}", it["connections"])
            };
            routes.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    }
}

/// Lays out a heading and a row for each object in `width` columns.
pub(super) fn table(shape: &[Column], all: &[Value], width: usize) -> Vec<String> {
    let count = shape.len();
    let cells = |it: &Value| shape.iter().map(|column| column.cell(it)).collect();
    let rows: Vec<Vec<String>> = all.iter().map(cells).collect();
    let natural = |n: usize| {
        let cells = rows.iter().map(|row| columns(&row[n]));
        cells.max().unwrap_or(0).max(shape[n].title.len())
    };
    // What nothing is known of needs no column.
    let is_blank = |n: usize| !rows.is_empty() && rows.iter().all(|row| row[n].is_empty());
    let mut widths: Vec<Option<usize>> = (0..count)
        .map(|n| (!is_blank(n)).then(|| natural(n)))
        .collect();
    loop {
        let shown = widths.iter().flatten();
        let taken = shown.clone().sum::<usize>() + shown.count().saturating_sub(1);
        if taken <= width {
            break;
        }
        // One by one, so that those with the same to spare share the loss.
        let spare = |n: &usize| widths[*n].and_then(|own| own.checked_sub(shape[*n].least));
        let spares = (0..count).filter(|n| spare(n) > Some(0));
        if let Some(most) = spares.max_by_key(spare) {
            widths[most] = widths[most].map(|own| own - 1);
            continue;
        }
        let can_go = (0..count).filter(|n| widths[*n].is_some() && shape[*n].rank > 0);
        let Some(first) = can_go.max_by_key(|n| shape[*n].rank) else {
            break;
        };
        widths[first] = None;
        for (n, width) in widths.iter_mut().enumerate() {
            *width = width.map(|_| natural(n));
        }
    }
    let titles = shape.iter().map(|column| column.title.to_owned()).collect();
    let line = |row: &Vec<String>| {
        let cells =
            (0..count).filter_map(|n| Some(fill(&row[n], widths[n]?, shape[n].is_number())));
        cells.collect::<Vec<_>>().join(" ")
    };
    std::iter::once(&titles).chain(&rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHAPE: [Column; 4] = [
        text("PEER", "peer", 8, 0),
        text("SERVICE", "service", 4, 2),
        number("AGE", "age_seconds", Kind::Age, 0),
        text("STATE", "state", 5, 1),
    ];

    fn laid_out(width: usize) -> Vec<String> {
        let it = json!({ "peer": "192.168.1.10:50001", "service": "pages", "age_seconds": 185.0,
            "state": "relaying" });
        table(&SHAPE, &[it], width)
    }

    #[test]
    fn columns_shrink_before_they_go() {
        for width in 14..70 {
            for line in laid_out(width) {
                assert!(columns(&line) <= width, "{width}: {line}");
            }
        }
        for (width, expected) in [
            (
                41,
                "PEER               SERVICE   AGE STATE   |192.168.1.10:50001 pages   3m05s relaying",
            ),
            (
                34,
                "PEER        SERVICE   AGE STATE   |192.168.1.~ pages   3m05s relaying",
            ),
            (26, "PEER      SER~   AGE STATE|192.168.~ pag~ 3m05s rela~"),
            (23, "PEER         AGE STATE |192.168.1~ 3m05s relay~"),
            (14, "PEER       AGE|192.168~ 3m05s"),
        ] {
            assert_eq!(laid_out(width).join("|"), expected, "{width}");
        }
    }

    #[test]
    fn rules_have_a_column_only_where_there_are_some() {
        let of = |key, it: Value| table(&[routes("ROUTE", key, 1)], &[it], 60);
        let rules = json!([{ "route": "ssh", "service": "s", "connections": 5 },
            { "route": "\u{1b}", "service": "t", "connections": 0 }]);
        assert_eq!(
            of("routes", json!({ "routes": rules })),
            ["ROUTE        ", "ssh 5, \\u{1b} 0"].map(|it| format!("{it:15}"))
        );
        assert_eq!(of("routes", json!({ "routes": [] })), ["", ""]);
        assert_eq!(of("route", json!({ "route": "ssh" })), ["ROUTE", "ssh  "]);
        assert_eq!(of("route", json!({ "route": null })), ["", ""]);
    }

    #[test]
    fn unknown_rates_have_no_column_and_a_table_without_rows_has_its_heading() {
        let shape = [
            text("PEER", "peer", 8, 0),
            number("/S", "rate", Kind::Bytes, 1),
        ];
        let of = |it: Value| table(&shape, &[it], 60);
        assert_eq!(of(json!({ "peer": "a" })), ["PEER", "a   "]);
        assert_eq!(
            of(json!({ "peer": "a", "rate": 2.0 })),
            ["PEER /S", "a     2"]
        );
        assert_eq!(table(&SHAPE, &[], 60), ["PEER SERVICE AGE STATE"]);
    }
}
