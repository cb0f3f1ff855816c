//! What `packaging/monitoring` ships: sound rules, an importable dashboard, and queries only for
//! metrics that exist.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support;
use crate::support::backend;
use crate::support::metrics::scrape;
use crate::support::process::Coracle;

/// Series that Prometheus itself adds for each target.
const OF_PROMETHEUS: &[&str] = &["up"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging/monitoring")
}

fn text(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&text("coracle.dashboard.json")).unwrap()
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

/// Every expression of the dashboard, with its panel's title.
fn expressions(dashboard: &Value) -> Vec<(&str, &str)> {
    let targets = panels(dashboard).iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap();
        targets
            .iter()
            .map(move |target| (title, target["expr"].as_str().unwrap()))
    });
    targets.collect()
}

/// The words of an expression outside quotes, braces and brackets: functions, metrics, and the
/// labels of `by` and `on`.
fn words(expression: &str) -> BTreeSet<String> {
    let mut plain = String::new();
    let mut depth = 0;
    for c in expression.chars() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ if depth == 0 => plain.push(c),
            _ => {}
        }
        if depth > 0 || matches!(c, '}' | ']') {
            plain.push(' ');
        }
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = plain.split(|c| !is_word(c)).map(str::to_owned);
    words.filter(|word| !word.is_empty()).collect()
}

/// The metrics among the words of an expression.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let is_metric = |word: &String| {
        let word = word.as_str();
        ["coracle_", "process_", "traefik_"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
            || OF_PROMETHEUS.contains(&word)
    };
    words(expression).into_iter().filter(is_metric).collect()
}

/// The expressions of the rules: what follows `expr:`, on its line or indented below it.
fn rule_expressions() -> Vec<String> {
    let rules = text("coracle.rules.yml");
    let mut lines = rules.lines().peekable();
    let mut found = Vec::new();
    let indent = |line: &str| line.len() - line.trim_start().len();
    while let Some(line) = lines.next() {
        let Some(expression) = line.trim_start().strip_prefix("expr:") else {
            continue;
        };
        let mut expression = expression.trim().trim_start_matches('|').to_owned();
        while let Some(more) = lines.next_if(|next| indent(next) > indent(line)) {
            expression.push(' ');
            expression.push_str(more.trim());
        }
        found.push(expression);
    }
    assert_eq!(found.len(), rules.matches("- alert:").count());
    found
}

/// The names of all samples of a real coracle.
fn published() -> BTreeSet<String> {
    let to = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.web]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         routes = [{{ from = \"10.0.0.0/8\", service = \"s\" }}]\n\
         [services.s]\nservers = [\"{to}\"]\n"
    ));
    let metrics = scrape(coracle.admin);
    let names = metrics.0.keys().map(|key| key.split('{').next().unwrap());
    names.map(str::to_owned).collect()
}

#[test]
fn every_queried_metric_exists() {
    let published = published();
    let dashboard = dashboard();
    let of_panels = expressions(&dashboard).into_iter();
    let of_panels = of_panels.map(|(title, expression)| (title.to_owned(), expression.to_owned()));
    let of_rules = rule_expressions().into_iter();
    let of_rules = of_rules.map(|expression| ("a rule".to_owned(), expression));
    let of_variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let of_variables = of_variables.filter_map(|variable| {
        let definition = variable["definition"].as_str()?;
        Some(("a variable".to_owned(), definition.to_owned()))
    });
    let mut asked = BTreeSet::new();
    for (title, expression) in of_panels.chain(of_rules).chain(of_variables) {
        let metrics = metrics_of(&expression);
        assert!(!metrics.is_empty(), "{title}: no metric in {expression}");
        for metric in metrics {
            let exists = published.contains(&metric) || OF_PROMETHEUS.contains(&metric.as_str());
            assert!(exists, "{title} queries {metric}, which does not exist");
            asked.insert(metric);
        }
    }
    // The least that the scan must find, so that it cannot pass by finding nothing.
    for metric in ["coracle_open_connections", "coracle_bytes_total", "up"] {
        assert!(asked.contains(metric), "{metric} is not queried");
    }
}

#[test]
fn dashboard_imports_without_edits() {
    let dashboard = dashboard();
    assert!(dashboard["id"].is_null(), "an id belongs to one Grafana");
    // 39 is Grafana 11.0's; newer versions migrate it.
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let source = &variables[0];
    assert_eq!(
        (&source["name"], &source["type"]),
        (&Value::from("datasource"), &Value::from("datasource"))
    );
    assert_eq!(source["query"], "prometheus");

    let is_ours = |datasource: &Value| {
        datasource["type"] == "prometheus" && datasource["uid"] == "${datasource}"
    };
    assert!(is_ours(&variables[1]["datasource"]));
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: id");
        assert!(is_ours(&panel["datasource"]), "{title}: data source");
        assert!(!panel["description"].as_str().unwrap().is_empty());
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string());
        let grid = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(grid("x") + grid("w") <= 24, "{title}: too far right");
        for x in grid("x")..grid("x") + grid("w") {
            for y in grid("y")..grid("y") + grid("h") {
                assert!(taken.insert((x, y)), "{title} overlaps another panel");
            }
        }
        for target in panel["targets"].as_array().unwrap() {
            assert!(is_ours(&target["datasource"]), "{title}: data source");
            let expression = target["expr"].as_str().unwrap();
            assert!(
                expression.contains("instance=~\"$instance\""),
                "{title} ignores the selected instances"
            );
            // A label in the legend must survive the aggregation.
            let legend = target["legendFormat"].as_str().unwrap();
            let labels = legend.split("{{").skip(1);
            for label in labels.map(|rest| rest.split("}}").next().unwrap()) {
                let kept = words(expression).contains(label)
                    || (label == "instance" && !expression.contains("sum"));
                assert!(kept, "{title}: {{{{{label}}}}} is always empty");
            }
        }
    }
}

#[test]
fn promtool_accepts_every_dashboard_expression() {
    if !support::has_tool("promtool") {
        return;
    }
    let dashboard = dashboard();
    // As recording rules, whose expressions promtool checks.
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (i, (_, expression)) in expressions(&dashboard).into_iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "1m");
        let quoted = Value::from(expression.replace("$instance", ".+"));
        rules += &format!("      - record: panel:{i}\n        expr: {quoted}\n");
    }
    assert!(!rules.contains('$'), "a variable of unknown value: {rules}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}

#[test]
fn rules_pass_their_promtool_tests() {
    if !support::has_tool("promtool") {
        return;
    }
    promtool(&["check", "rules", "coracle.rules.yml"]);
    promtool(&["test", "rules", "coracle.rules.test.yml"]);
}

#[test]
fn each_alert_is_tested_both_firing_and_silent() {
    let rules = text("coracle.rules.yml");
    let cases = text("coracle.rules.test.yml");
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut found = 0;
    for alert in alerts {
        let cases = cases.split("- eval_time:").skip(1);
        let of_it = cases.filter(|case| case.contains(&format!("alertname: {alert}\n")));
        let (silent, fires): (Vec<_>, Vec<_>) =
            of_it.partition(|case| case.contains("exp_alerts: []"));
        assert!(!silent.is_empty(), "{alert}: no silent case");
        assert!(
            fires.iter().any(|case| case.contains("exp_labels")),
            "{alert}: no firing case"
        );
        found += 1;
    }
    assert_eq!(found, 6);
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(folder())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn scan_finds_what_it_looks_for() {
    let expression = "sum by (le) (rate(coracle_x_bucket{instance=~\"up\"}[5m])) > 0 and process_y";
    let found: Vec<_> = metrics_of(expression).into_iter().collect();
    assert_eq!(found, ["coracle_x_bucket", "process_y"]);
}
