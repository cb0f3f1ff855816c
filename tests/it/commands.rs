//! The commands in the documents: each is run as it stands, or the reason why not is given here.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::support::machine::{self, Lasting};
use crate::support::markdown::{blocks, codes, manual, prose, read};
use crate::support::metrics::scrape;
use crate::support::process::binary;
use crate::support::shell::{Pipeline, pipelines};
use crate::support::sources::root;
use crate::support::{has_tool, namespace, until};

/// Programs that the test runs, in a namespace of its own.
const RUN: [&str; 6] = ["coracle", "curl", "grep", "install", "setcap", "ss"];

/// Programs that it does not, and why.
const FOREIGN: [(&str, &str); 22] = [
    (
        "/etc/init.d/coracle",
        "OpenWrt's; tests/it/openwrt.rs runs it with stubs",
    ),
    ("base64", "makes a token; the machine of the test has one"),
    ("cargo", "builds and tests this very program; CI runs it"),
    ("cross", "needs a Docker daemon"),
    ("docker", "needs its daemon"),
    ("dpkg", "changes the machine; scripts/package-test runs it"),
    ("editor", "is interactive"),
    ("head", "makes a token, as base64 does"),
    ("logread", "OpenWrt's"),
    ("opkg", "OpenWrt's"),
    (
        "qemu-arm-static",
        "needs a binary for a board; CI runs the tests through it",
    ),
    ("realm", "another proxy, beside which ours is shown"),
    ("rustup", "changes the toolchain"),
    ("scripts/cross-build", "takes many minutes; CI runs it"),
    (
        "scripts/package",
        "needs the binaries of scripts/cross-build; CI runs it",
    ),
    ("scripts/package-test", "installs packages; CI runs it"),
    ("socat", "another proxy, beside which ours is shown"),
    ("ssh", "needs another machine"),
    ("systemctl", "needs systemd as process 1"),
    (
        "useradd",
        "changes the machine; scripts/package-test makes the user by the package",
    ),
    (
        "usermod",
        "changes the machine; scripts/package-test runs it",
    ),
    ("vi", "is interactive"),
];

/// Options in the text that are not coracle's, and whose they are.
const FOREIGN_OPTIONS: [(&str, &str); 12] = [
    ("--memory", "docker"),
    ("--stop-timeout", "docker"),
    ("--ulimit", "docker"),
    ("--user", "docker"),
    ("-D", "ssh"),
    ("-R", "ssh"),
    ("-T", "socat"),
    ("-a", "ss"),
    ("-e", "ss"),
    ("-g", "ssh"),
    ("-p", "docker"),
    ("-t", "socat"),
];

/// What stands in code, begins like a command of coracle and is none.
const NO_COMMANDS: [(&str, &str); 2] = [
    ("coracle 'main'", "a section of UCI"),
    ("coracle reload FILE", "the cause of an error message"),
];

#[test]
fn every_command_is_run_or_has_a_reason() {
    let subcommands = subcommands();
    let mut used = BTreeSet::new();
    let mut run = 0;
    for (page, pipeline) in documented() {
        match checked(&pipeline, &subcommands) {
            Ok(foreign) if foreign.is_empty() => run += 1,
            Ok(foreign) => used.extend(foreign),
            Err(why) => panic!("{}: {}\n{why}", page.display(), pipeline.text),
        }
    }
    assert!(run >= 35, "only {run} are run");
    let listed: BTreeSet<_> = FOREIGN.iter().map(|(program, _)| *program).collect();
    assert_eq!(
        used, listed,
        "used in the documents (left), listed here (right)"
    );
}

/// The foreign programs of a pipeline, whose command lines of coracle all parse.
fn checked(pipeline: &Pipeline, subcommands: &[String]) -> Result<Vec<&'static str>, String> {
    let mut foreign = Vec::new();
    for program in pipeline.programs() {
        if let Some((name, _)) = FOREIGN.iter().find(|(name, _)| *name == program) {
            foreign.push(*name);
        } else if !RUN.contains(&program) {
            return Err(format!("`{program}` is neither run nor listed as foreign"));
        }
        if program.starts_with("scripts/") && !root().join(program).exists() {
            return Err(format!("there is no {program}"));
        }
    }
    for call in pipeline.calls_of_coracle(subcommands) {
        parsed(call)?;
    }
    Ok(foreign)
}

/// Has coracle parse a command line and then, instead of doing it, print its help.
fn parsed(arguments: &[String]) -> Result<(), String> {
    let mut command = Command::new(binary());
    let output = command.args(arguments).arg("--help").output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn the_check_finds_what_is_wrong() {
    let subcommands = subcommands();
    let checked = |block: &str| {
        let [pipeline] = &pipelines(block)[..] else {
            panic!("{block}");
        };
        checked(pipeline, &subcommands)
    };
    assert_eq!(checked("coracle run -L 1:h:1 # --nonsense"), Ok(vec![]));
    assert_eq!(checked("ssh pi coracle list --json"), Ok(vec!["ssh"]));
    assert_eq!(
        checked("sudo systemctl restart coracle"),
        Ok(vec!["systemctl"])
    );
    for wrong in [
        "coracle run --nonsense",
        "coracle rnu",
        "sudo coracle run \\\n  --nonsense",
        "curl -s h | coracle check --nonsense",
        "ssh pi coracle list --nonsense",
        "docker run --name coracle -v a:b coracle run --nonsense",
        "unheard-of",
        "curl -s h | unheard-of",
        "A=b unheard-of",
    ] {
        assert!(checked(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn pipelines_are_read_as_the_shell_does() {
    let block = "# first\na 'b # c;' | d \"e|f\" # why\nX=1 g && h \\\n  -i#j; sudo k\n";
    let read = pipelines(block);
    let texts: Vec<_> = read.iter().map(|it| it.text.as_str()).collect();
    assert_eq!(
        texts,
        ["a 'b # c;' | d \"e|f\"", "X=1 g", "h    -i#j", "sudo k"]
    );
    assert_eq!(read[0].commands, [["a", "b # c;"], ["d", "e|f"]]);
    let programs: Vec<_> = read.iter().flat_map(Pipeline::programs).collect();
    assert_eq!(programs, ["a", "d", "g", "h", "k"]);
    let console = pipelines("$ a b\nshown | text's\n$ c\n");
    let texts: Vec<_> = console.iter().map(|it| it.text.as_str()).collect();
    assert_eq!(texts, ["a b", "c"]);
}

#[test]
fn options_in_the_text_exist() {
    let mut known: BTreeSet<String> = FOREIGN_OPTIONS.map(|(it, _)| it.to_owned()).into();
    let mut help = output(&["--help"]);
    for command in subcommands() {
        help += &output(&["help", &command]);
    }
    let words = help
        .split([' ', ',', '\n'])
        .filter(|it| it.starts_with('-'));
    known.extend(words.map(str::to_owned));
    let mut found = 0;
    for page in pages() {
        for code in prose(&read(&page)).into_iter().flat_map(codes) {
            let option = code.split([' ', '=']).next().unwrap();
            if option.len() > 1 && option.starts_with('-') {
                assert!(known.contains(option), "{}: {code}", page.display());
                found += 1;
            }
            let is_none = NO_COMMANDS.iter().any(|(it, _)| *it == code);
            if code.starts_with("coracle ") && !is_none {
                let code = code.replace("COMMAND", "check");
                for call in pipelines(&code)[0].calls_of_coracle(&[]) {
                    parsed(call).unwrap_or_else(|why| panic!("{}: {code}\n{why}", page.display()));
                }
                found += 1;
            }
        }
    }
    assert!(found > 80, "only {found} found");
}

#[test]
fn commands_do_what_the_documents_say() {
    let mut tools = RUN.into_iter().filter(|tool| *tool != "coracle");
    if !tools.all(has_tool) {
        return;
    }
    let name = "commands::commands_do_what_the_documents_say";
    if !namespace::enter(name, machine::SETUP) {
        return;
    }
    machine::furnish();
    let is_run = |it: &Pipeline| it.programs().all(|program| RUN.contains(&program));
    let all = documented().into_iter().filter(|(_, it)| is_run(it));
    let (first, second): (Vec<_>, Vec<_>) = all.partition(|(_, it)| needs_free_ports(it));
    let total = first.len() + second.len();
    let mut failed = Vec::new();
    let mut run = |pipelines: Vec<(PathBuf, Pipeline)>| {
        for (page, pipeline) in pipelines {
            machine::write_configuration();
            if let Err(why) = does(&pipeline) {
                failed.push(format!("{}: {}\n{why}", page.display(), pipeline.text));
            }
        }
    };
    run(first);

    // The others ask a running coracle, which has a client.
    let _server = TcpListener::bind("0.0.0.0:80").unwrap();
    let coracle = Lasting::start("coracle run -c /etc/coracle.toml", "msg=ready").unwrap();
    let _client = TcpStream::connect("127.0.0.1:8080").unwrap();
    until("the client's connection is open", || {
        let open = scrape(([127, 0, 0, 1], 2672).into()).sum("coracle_open_connections");
        (open == 1.0).then_some(())
    });
    run(second);
    coracle.stop(Signal::QUIT).unwrap();

    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    println!("{total} pipelines run");
    assert!(total >= 35, "only {total} are run");
}

/// Runs a pipeline, to its end or until it does what it was started for. Returns an error if it
/// fails or prints nothing that it should.
fn does(pipeline: &Pipeline) -> Result<(), String> {
    let text = &pipeline.text;
    if let Some((ready, signal)) = lasts(pipeline) {
        return Lasting::start(text, ready)?.stop(signal);
    }
    let output = machine::shell(text).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // It has no terminal here; tests/it/top.rs gives it one.
    if pipeline.commands[0].starts_with(&["coracle", "top"].map(str::to_owned))
        && said.starts_with("coracle: top needs a terminal")
    {
        return Ok(());
    }
    if !output.status.success() {
        return Err(format!("{}: {said}", output.status));
    }
    let is_silent = pipeline
        .programs()
        .any(|it| it == "install" || it == "setcap");
    if output.stdout.is_empty() && !is_silent {
        return Err(format!("it prints nothing on stdout: {said}"));
    }
    Ok(())
}

/// For what runs until it is stopped: what it prints when it works, and how to stop it.
fn lasts(pipeline: &Pipeline) -> Option<(&'static str, Signal)> {
    let words: Vec<_> = pipeline.commands[0].iter().map(String::as_str).collect();
    match words[..] {
        ["coracle", "run", ..] => Some(("msg=ready", Signal::TERM)),
        ["coracle", "demo", ..] => Some(("Ctrl-C", Signal::INT)),
        ["coracle", "logs", "--follow"] => Some(("msg=ready", Signal::INT)),
        ["coracle", "audit", "--watch"] => Some(("agree", Signal::INT)),
        _ => None,
    }
}

fn needs_free_ports(pipeline: &Pipeline) -> bool {
    matches!(
        pipeline.commands[0].get(1).map(String::as_str),
        Some("run" | "demo")
    )
}

/// The pipelines of all blocks of shell in the documents for users, and their pages.
fn documented() -> Vec<(PathBuf, Pipeline)> {
    let mut all = Vec::new();
    for page in pages() {
        let text = read(&page);
        for language in ["sh", "console"] {
            for block in blocks(&text, language) {
                all.extend(pipelines(&block).into_iter().map(|it| (page.clone(), it)));
            }
        }
        for other in ["bash", "shell", "shell-session", "zsh"] {
            let none = blocks(&text, other).is_empty();
            assert!(none, "{}: call {other} sh", page.display());
        }
    }
    all
}

/// The documents for users. Contributors' pages measure, for minutes and with tools of their own.
fn pages() -> impl Iterator<Item = PathBuf> {
    let pages = manual().into_iter();
    pages.filter(|page| !page.starts_with("docs/development"))
}

/// The names of coracle's commands.
fn subcommands() -> Vec<String> {
    let help = output(&["--help"]);
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What coracle prints on stdout.
fn output(arguments: &[&str]) -> String {
    let output = Command::new(binary()).args(arguments).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}
