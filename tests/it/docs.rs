//! The documents: their links lead somewhere, and what they list is exactly what the program has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use coracle::config::{Config, Overrides, defaults};

use crate::support;
use crate::support::backend::{self, Script};
use crate::support::http::get;
use crate::support::markdown::{
    anchors, blocks, codes, headings, links, manual, markdown_files, pages, read, rows,
    rows_headed, section, why_broken,
};
use crate::support::process::{Coracle, binary};
use crate::support::sources::root;

const LABEL_OF_SOME_BUILDS: &str = "revision";

/// Keys whose default is no value that could be written.
const NO_DEFAULT: [(&str, &str); 49] = [
    ("accounting", "file"),
    ("accounting", "quota"),
    ("accounting", "quota_rate"),
    ("admin", "token_file"),
    ("entrypoints", "bandwidth_per_client"),
    ("entrypoints", "bandwidth_per_connection"),
    ("entrypoints", "connection_burst"),
    ("entrypoints", "default_after"),
    ("entrypoints", "connection_burst_per_client"),
    ("entrypoints", "connection_rate"),
    ("entrypoints", "connection_rate_per_client"),
    ("entrypoints", "max_connections_per_client"),
    ("entrypoints", "allow"),
    ("entrypoints", "allow_file"),
    ("entrypoints", "deny"),
    ("entrypoints", "deny_file"),
    ("entrypoints", "max_connections"),
    ("entrypoints", "interface"),
    ("entrypoints", "listen"),
    ("entrypoints", "only_v6"),
    ("entrypoints", "service"),
    ("entrypoints", "socket_group"),
    ("entrypoints", "socket_mode"),
    ("entrypoints", "to"),
    ("entrypoints", "trusted"),
    ("health", "expect"),
    ("health", "host"),
    ("health", "port"),
    ("health", "send"),
    ("limits", "max_connections"),
    ("limits", "memory"),
    ("routes", "alpn"),
    ("routes", "from"),
    ("routes", "host"),
    ("routes", "name"),
    ("routes", "service"),
    ("routes", "sni"),
    ("routes", "starts"),
    ("routes", "starts_with"),
    ("servers", "address"),
    ("servers", "max_connections"),
    ("servers", "name"),
    ("services", "bandwidth"),
    ("services", "bind"),
    ("services", "dscp"),
    ("services", "mark"),
    ("services", "retries"),
    ("services", "send_proxy"),
    ("services", "servers"),
];

#[test]
fn every_relative_link_resolves() {
    let mut broken = Vec::new();
    let mut found = 0;
    for file in markdown_files() {
        let text = read(&file);
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            found += 1;
            if let Some(why) = why_broken(&file, &link) {
                broken.push(format!("{}: {link}: {why}", file.display()));
            }
        }
    }
    assert!(found > 50, "only {found} links found");
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_index_lists_every_page() {
    let index: BTreeSet<_> = links(&read(Path::new("docs/README.md")))
        .into_iter()
        .collect();
    for page in pages() {
        let name = page.strip_prefix("docs").unwrap().to_str().unwrap();
        assert!(
            name == "README.md" || index.contains(name),
            "docs/README.md does not list {name}"
        );
    }
}

#[test]
fn the_readme_is_short_and_its_figures_are_those_of_the_benchmarks() {
    let readme = read(Path::new("README.md"));
    let lines = readme.lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; the most is 150");

    let benchmarks = read(Path::new("BENCHMARKS.md"));
    let words: BTreeSet<_> = benchmarks.split_whitespace().collect();
    let rows = rows(&section(&readme, "Compared with other proxies"));
    let figures = rows.iter().flat_map(|row| &row[1..]);
    let figures: Vec<_> = figures
        .filter(|cell| cell.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    assert!(figures.len() >= 12, "{figures:?}");
    for figure in figures {
        assert!(
            words.contains(figure.as_str()),
            "{figure} is in README.md, but not in BENCHMARKS.md"
        );
    }
}

#[test]
fn every_whole_configuration_is_valid() {
    let mut found = 0;
    for file in manual() {
        for text in blocks(&read(&file), "toml") {
            if !text.contains("[entrypoints.") {
                continue;
            }
            let (source, files) = (("block.toml", &*text), &|_: &Path| Ok(String::new()));
            let config = Config::with_files(Some(source), &Overrides::default(), files)
                .unwrap_or_else(|errors| panic!("{}:\n{text}\n{errors}", file.display()));
            assert!(
                config.warnings.is_none(),
                "{}:\n{text}\n{:?}",
                file.display(),
                config.warnings
            );
            found += 1;
        }
    }
    assert!(found >= 8, "only {found} configurations found");
}

/// The table and key of each row of docs/configuration.md, with its default.
fn documented_keys() -> BTreeMap<(String, String), String> {
    let rows = documented_rows().into_iter();
    rows.map(|(key, row)| (key, row[2].clone())).collect()
}

/// The table and key of each row of docs/configuration.md, with the row.
fn documented_rows() -> BTreeMap<(String, String), Vec<String>> {
    let page = read(Path::new("docs/configuration.md"));
    let mut keys = BTreeMap::new();
    for (heading, table) in [
        ("Top level", "-"),
        ("`[admin]`", "admin"),
        ("`[log]`", "log"),
        ("`[metrics]`", "metrics"),
        ("`[limits]`", "limits"),
        ("`[accounting]`", "accounting"),
        ("`[entrypoints.NAME]`", "entrypoints"),
        ("`[services.NAME]`", "services"),
        ("Rules", "routes"),
        ("A server with settings", "servers"),
        ("Health checks", "health"),
    ] {
        for row in rows_headed(&section(&page, heading), "key") {
            let key = (table.to_owned(), row[0].trim_matches('`').to_owned());
            let name = row[0].clone();
            let is_new = keys.insert(key, row).is_none();
            assert!(is_new, "{table}: {name} is there twice");
        }
    }
    keys
}

#[test]
fn the_configuration_page_lists_the_keys_that_coracle_knows() {
    let documented: BTreeSet<_> = documented_keys().into_keys().collect();
    assert_eq!(
        documented,
        crate::openwrt::known(),
        "docs/configuration.md (left) does not have the keys that coracle knows (right)"
    );
}

#[test]
fn the_documented_defaults_are_the_real_ones() {
    const LISTEN: &str = "listen = \"127.0.0.1:80\"\n";
    let mut without = BTreeSet::new();
    for ((table, key), default) in documented_keys() {
        let Some(value) = default.strip_prefix('`').and_then(|it| it.split_once('`')) else {
            without.insert((table, key));
            continue;
        };
        let (value, _) = value;
        if (table.as_str(), key.as_str()) == ("admin", "socket") {
            // Written out, it is wanted there; left out, it is there if it can be.
            assert_eq!(value, format!("{:?}", defaults::CONTROL_SOCKET));
            continue;
        }
        let parse = |line: &str| {
            let short = format!("[entrypoints.e]\n{LISTEN}to = \"h:1\"\n");
            let long = format!("[entrypoints.e]\n{LISTEN}service = \"s\"\n[services.s]\n");
            let text = match table.as_str() {
                "-" => format!("{line}\n{short}"),
                "entrypoints" => format!("{short}{line}\n"),
                "services" => format!("{long}servers = [\"h:1\"]\n{line}\n"),
                "servers" => format!("{long}[[services.s.servers]]\naddress = \"h:1\"\n{line}\n"),
                "health" => {
                    let kind = match key.as_str() {
                        "path" | "status" => "kind = \"http\"\n",
                        _ => "",
                    };
                    format!("{long}servers = [\"h:1\"]\n[services.s.health]\n{kind}{line}\n")
                }
                _ => format!("{short}[{table}]\n{line}\n"),
            };
            let config = Config::parse("test.toml", &text, &[]);
            let config = config.unwrap_or_else(|errors| panic!("{text}\n{errors}"));
            // A default that is written out may have no effect.
            Config {
                warnings: None,
                ..config
            }
        };
        assert_eq!(
            parse(&format!("{key} = {value}")),
            parse(""),
            "{value} is not the default of {key} in {table}"
        );
    }
    let expected = NO_DEFAULT.map(|(table, key)| (table.to_owned(), key.to_owned()));
    assert_eq!(without, BTreeSet::from(expected));
}

#[test]
fn the_timeouts_page_lists_every_time_and_its_default() {
    let page = read(Path::new("docs/timeouts.md"));
    let default = |cell: &str| {
        let value = codes(cell).into_iter().next();
        value.unwrap_or_else(|| cell.to_owned())
    };
    let mut listed = BTreeMap::new();
    for row in rows_headed(&page, "key") {
        let tables = codes(&row[1]);
        let table = match tables.first().map(String::as_str) {
            None => "-",
            Some("[services.NAME.health]") => "health",
            Some(table) => table.trim_matches(['[', ']']).split('.').next().unwrap(),
        };
        let key = (table.to_owned(), codes(&row[0]).remove(0));
        let is_new = listed.insert(key, default(&row[2])).is_none();
        assert!(is_new, "{} of {table} is there twice", row[0]);
    }
    // Whose defaults are the real ones.
    let times = documented_rows()
        .into_iter()
        .filter(|(_, row)| row[1].contains("duration") || row[1].contains("whole seconds"));
    let times: BTreeMap<_, _> = times.map(|(key, row)| (key, default(&row[2]))).collect();
    assert!(times.len() > 15, "{times:?}");
    assert_eq!(
        listed, times,
        "docs/timeouts.md (left) does not have the times of docs/configuration.md (right)"
    );

    let fixed = rows_headed(&page, "time");
    assert!(fixed.len() > 5, "{fixed:?}");
    for row in fixed {
        let [name, file] = codes(&row[1]).try_into().unwrap();
        let (number, unit) = row[0].split_once(' ').unwrap();
        let make = if unit == "ms" { "millis" } else { "secs" };
        let constant = format!("const {name}: Duration = Duration::from_{make}({number});");
        let code = read(Path::new(&file));
        assert!(code.contains(&constant), "{file} does not have: {constant}");
    }
}

/// A metric as it is documented or published: its type and its labels.
type Metric = (String, BTreeSet<String>);

#[test]
fn the_metrics_page_lists_what_a_scrape_shows() {
    let page = read(Path::new("docs/metrics.md"));
    let (published, values) = published();
    let mut documented: BTreeMap<String, Metric> = BTreeMap::new();
    for row in rows_headed(&page, "metric") {
        let name = codes(&row[0]).remove(0);
        let mut labels: BTreeSet<_> = codes(&row[2]).into_iter().collect();
        if name == "coracle_build_info" && !published[&name].1.contains(LABEL_OF_SOME_BUILDS) {
            assert!(labels.remove(LABEL_OF_SOME_BUILDS));
        }
        assert!(!row[3].is_empty(), "{name} has no unit");
        let metric = (row[1].clone(), labels);
        assert!(documented.insert(name.clone(), metric).is_none(), "{name}");
    }
    assert_eq!(
        documented, published,
        "docs/metrics.md (left) is not what coracle publishes (right)"
    );

    let mut tables = 0;
    for heading in headings(&page) {
        let code = codes(&heading);
        if let [label, metric] = &code[..] {
            let rows = rows(&section(&page, &heading));
            let documented: BTreeSet<_> = rows.iter().map(|row| codes(&row[0]).remove(0)).collect();
            assert_eq!(
                documented,
                values[&(metric.clone(), label.clone())],
                "values of `{label}` of {metric}: documented (left), published (right)"
            );
            tables += 1;
        }
    }
    assert_eq!(tables, 9);
}

/// The values of each label of each metric.
type Values = BTreeMap<(String, String), BTreeSet<String>>;

/// All that a scrape has, and the values of its labels.
fn published() -> (BTreeMap<String, Metric>, Values) {
    let to = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.web]\nlisten = \"127.0.0.1:0\"\nservice = \"web\"\n\
         routes = [{{ from = \"192.0.2.0/24\", service = \"web\" }}]\n\
         [services.web]\nservers = [\"{to}\"]\nhealth = {{ interval = \"1h\", jitter = \"0s\" }}\n[accounting]\n"
    ));
    let mut client = TcpStream::connect(coracle.address("web")).unwrap();
    client.set_read_timeout(Some(support::DEADLINE)).unwrap();
    client.write_all(&Script::Hold.request(0)).unwrap();
    client.read_exact(&mut [0]).unwrap();

    // Checks have samples once the first one is over.
    let body = support::until("the server's first check", || {
        let (_, _, body) = get(coracle.admin, "/metrics");
        body.contains("\ncoracle_server_check_failures_total{")
            .then_some(body)
    });
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    let mut values: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let mut current = String::new();
    for line in body.lines() {
        if let Some(of_type) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of_type.split_once(' ').unwrap();
            name.clone_into(&mut current);
            metrics.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&current), "{line}");
            let labels = line.split_once('{').map_or("", |(_, rest)| rest);
            let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once('=').unwrap();
                if label != "le" {
                    metrics
                        .get_mut(&current)
                        .unwrap()
                        .1
                        .insert(label.to_owned());
                    let value = value.trim_matches('"').to_owned();
                    let key = (current.clone(), label.to_owned());
                    values.entry(key).or_default().insert(value);
                }
            }
        }
    }
    (metrics, values)
}

#[test]
fn the_command_line_page_lists_what_help_shows() {
    let page = read(Path::new("docs/command-line.md"));
    let documented = |heading: &str| -> BTreeSet<String> {
        let rows = rows_headed(&section(&page, heading), "option");
        let options = rows.iter().flat_map(|row| codes(&row[0]));
        let options = options.map(|code| code.split(' ').next().unwrap().to_owned());
        options.collect()
    };
    let help = output(&["--help"]);
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands: BTreeSet<_> = commands
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    let of_page: BTreeSet<_> = headings(&page)
        .into_iter()
        .filter_map(|heading| Some(heading.strip_prefix("`coracle ")?.trim_matches('`').into()))
        .collect();
    assert_eq!(of_page, commands, "documented (left), in the help (right)");

    let general = documented("Options without a command");
    assert_eq!(general, options(&help));
    let help_option = ["-h", "--help"].map(str::to_owned);
    // Of `help`, the help is that of the program.
    for command in commands.iter().filter(|command| *command != "help") {
        let mut options = options(&output(&[command, "--help"]));
        for option in &help_option {
            assert!(options.remove(option), "{command} has no {option}");
        }
        assert_eq!(
            documented(&format!("`coracle {command}`")),
            options,
            "options of {command}: documented (left), in the help (right)"
        );
    }
}

/// The options that a help text lists: `-c, --config`.
fn options(help: &str) -> BTreeSet<String> {
    let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
    let words = lines
        .filter(|line| line.starts_with('-'))
        .flat_map(|line| line.split(' ').take_while(|word| word.starts_with('-')));
    words
        .map(|word| word.trim_end_matches(',').to_owned())
        .collect()
}

#[test]
fn the_output_of_check_is_what_the_page_shows() {
    let page = read(Path::new("docs/command-line.md"));
    let shown = blocks(&section(&page, "`coracle check`"), "text");
    let [valid, errors, warning] = &shown[..] else {
        panic!("{} blocks", shown.len());
    };
    let check = |dir: &Path, file: &str| -> (Option<i32>, String) {
        let output = Command::new(binary())
            .args(["check", file])
            .current_dir(dir)
            .output()
            .unwrap();
        let said = [output.stderr, output.stdout].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let packaged = check(root(), "packaging/coracle.toml");
    assert_eq!(packaged, (Some(0), valid.clone()));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("coracle.toml");
    let faulty = "[entrypoints.ssh]
listen = \"*:2222\"
to = \"nas.lan:22\"
idle_timout = \"2h\"

[entrypoints.web]
listen = \"*:8080\"
service = \"wbe\"

[services.web]
servers = [\"192.168.1.10:80\", \"192.168.1.11\"]
connect_timeout = 5
";
    fs::write(&file, faulty).unwrap();
    assert_eq!(check(dir.path(), "coracle.toml"), (Some(1), errors.clone()));

    let odd = "[entrypoints.ssh]
listen = \"*:2222\"
to = \"nas.lan:22\"



[services.web]
servers = [\"192.168.1.10:80\"]
";
    fs::write(&file, odd).unwrap();
    assert_eq!(
        check(dir.path(), "coracle.toml"),
        (Some(0), warning.clone())
    );
}

#[test]
fn the_scans_find_what_they_look_for() {
    let text = "# One `two_x` (3)\n## One `two_x` (3)\n```sh\n# no heading\ncoracle run -L a \\\n  -c b # why\n```\n\
        [a](b.md#c) `[no](link)` ![i](<../p.png>)\n| x | y |\n|---|---|\n| `1` | `a \\| b`, `c` |\n";
    assert_eq!(
        anchors(text),
        BTreeSet::from(["one-two_x-3".to_owned(), "one-two_x-3-1".to_owned()])
    );
    assert_eq!(links(text), ["b.md#c", "../p.png"]);
    assert_eq!(rows(text), [["`1`", "`a | b`, `c`"]]);
    assert_eq!(codes("`a | b`, `c`"), ["a | b", "c"]);
    assert_eq!(
        blocks(text, "sh"),
        ["# no heading\ncoracle run -L a \\\n  -c b # why\n"]
    );
    assert!(why_broken(Path::new("README.md"), "docs/install.md#openwrt").is_none());
    assert!(why_broken(Path::new("README.md"), "docs/install.md#nowhere").is_some());
    assert!(why_broken(Path::new("docs/install.md"), "docs/install.md").is_some());
}

/// What the program prints on stdout.
fn output(arguments: &[&str]) -> String {
    let output = Command::new(binary()).args(arguments).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}
