//! `coracle top` in a terminal: what it shows, what its keys do, and that it leaves the terminal as
//! it was.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use crate::support::admin::{Admin, PATIENT};
use crate::support::backend::{self, hold};
use crate::support::metrics::scrape;
use crate::support::process::{Coracle, binary};
use crate::support::rng;
use crate::support::screen::Screen;
use crate::support::{DEADLINE, has_tool, lasting_address, until};

/// The command to run in a terminal. It says afterwards how it ended.
fn command(arguments: &str) -> String {
    let top = format!("{} top --interval 200ms {arguments}", binary());
    format!("stty -g; {top}; echo ended $?; stty -g; exec sleep 1000")
}

/// Waits until it has ended, and compares the terminal's modes with those before.
fn ends_as_it_was(screen: &Screen, code: i32) {
    screen.has(&format!("ended {code}"));
    let modes = until("the modes are there twice", || {
        let written = String::from_utf8_lossy(&screen.written()).into_owned();
        let lines = written.lines().map(str::to_owned);
        let modes: Vec<_> = lines
            .filter(|line| line.matches(':').count() > 20 && !line.contains('\u{1b}'))
            .collect();
        (modes.len() == 2).then_some(modes)
    });
    assert_eq!(modes[0], modes[1]);
    screen.has_no("the kernel agrees");
    let written = screen.written();
    let shows_cursor = written.windows(6).any(|it| it == b"\x1b[?25h");
    assert!(shows_cursor);
}

/// A coracle with a control socket, and the server behind it.
struct Proxy {
    coracle: Coracle,
    dir: TempDir,
}

impl Proxy {
    fn start() -> Self {
        let server = backend::start();
        let dir = tempfile::tempdir().unwrap();
        let coracle = Coracle::start(&format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"{}/control.sock\"\n\
             [entrypoints.web]\nlisten = \"127.0.0.1:0\"\nservice = \"pages\"\n\
             [entrypoints.ssh]\nlisten = \"127.0.0.1:0\"\nto = \"{server}\"\n\
             [services.pages]\nservers = [{{ address = \"{server}\", name = \"big\" }}]\n",
            dir.path().display()
        ));
        Self { coracle, dir }
    }

    /// The option to reach it by its control socket.
    fn by_socket(&self) -> String {
        format!("--admin unix:{}/control.sock", self.dir.path().display())
    }
}

fn peer(client: &TcpStream) -> String {
    client.local_addr().unwrap().to_string()
}

#[test]
fn it_shows_sorts_and_filters_connections() {
    if !has_tool("tmux") {
        return;
    }
    let proxy = Proxy::start();
    let [web, ssh] = ["web", "ssh"].map(|name| hold(proxy.coracle.address(name)));
    let screen = Screen::start(
        80,
        24,
        &command(&format!("--admin {}", proxy.coracle.admin)),
    );
    screen.has("2 open  2 opened  0 closed");
    screen.has("the kernel agrees");
    screen.has("1-2 of 2 connections, the oldest first");
    let row = screen.has(&peer(&web));
    for cell in ["web", "pages", "big", "relaying"] {
        assert!(row.contains(cell), "{row}");
    }
    screen.has(&peer(&ssh));

    screen.press(&["r"]);
    screen.has("the newest first");
    let place = |client: &TcpStream| {
        let lines = screen.lines();
        lines.iter().position(|line| line.contains(&peer(client)))
    };
    until("the newer is above the older", || {
        (place(&ssh)? < place(&web)?).then_some(())
    });
    screen.press(&["s"]);
    screen.has("the fewest bytes first");

    screen.press(&["/"]);
    screen.write("entrypoint=ssh");
    screen.has("only: entrypoint=ssh");
    screen.press(&["Enter"]);
    screen.has("1-1 of 1 connections");
    screen.has_no(&peer(&web));
    screen.press(&["Escape"]);
    screen.has(&peer(&web));
    let new = hold(proxy.coracle.address("web"));
    screen.has(&peer(&new));
    drop(ssh);
    screen.has("2 open  3 opened  1 closed");

    screen.press(&["x"]);
    screen.has("orders need the control socket (--admin unix:");
}

#[test]
fn a_yes_ends_the_chosen_connection() {
    if !has_tool("tmux") {
        return;
    }
    let proxy = Proxy::start();
    let mut clients = ["web", "ssh"].map(|name| hold(proxy.coracle.address(name)));
    let screen = Screen::start(80, 24, &command(&proxy.by_socket()));
    screen.has(&peer(&clients[1]));
    screen.press(&["Down", "x"]);
    let second = format!("from {} to ssh? y/n", peer(&clients[1]));
    screen.has(&second);
    screen.press(&["n"]);
    screen.has_no(&second);
    screen.press(&["DC"]);
    screen.has(&second);
    screen.press(&["y"]);
    screen.has("1 connection ended");
    screen.has_no(&peer(&clients[1]));
    clients[1].set_read_timeout(Some(DEADLINE)).unwrap();
    let error = clients[1].read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let killed = scrape(proxy.coracle.admin);
    let killed = killed.sum_where("coracle_connections_closed_total", "reason=\"killed\"");
    assert_eq!(killed, 1.0);
    screen.has(&peer(&clients[0]));
}

#[test]
fn a_server_is_drained_and_made_ready() {
    if !has_tool("tmux") {
        return;
    }
    let proxy = Proxy::start();
    let _client = hold(proxy.coracle.address("web"));
    let screen = Screen::start(100, 24, &command(&proxy.by_socket()));
    screen.has("big");
    screen.press(&["d"]);
    screen.has("server big of service pages: drain? y/n");
    screen.press(&["y"]);
    screen.has("1 connection continues");
    let state = || {
        let metrics = scrape(proxy.coracle.admin);
        metrics.sum_where("coracle_server_admin_state", "server=\"big\"")
    };
    assert_eq!(state(), 1.0);
    until("the table says so", || {
        let lines = screen.lines();
        let row = lines.iter().find(|line| line.starts_with("pages"))?;
        row.trim_end().ends_with("drain").then_some(())
    });
    screen.press(&["Tab", "d"]);
    let question = screen.has("ready? y/n");
    assert!(question.starts_with("server "), "{question}");
    screen.press(&["y"]);
    until("it is ready", || (state() == 0.0).then_some(()));
}

#[test]
fn it_follows_the_size_and_has_help() {
    if !has_tool("tmux") {
        return;
    }
    let proxy = Proxy::start();
    let client = hold(proxy.coracle.address("web"));
    let screen = Screen::start(
        100,
        30,
        &command(&format!("--admin {}", proxy.coracle.admin)),
    );
    screen.has(&peer(&client));
    for (columns, rows) in [(80, 24), (200, 50), (40, 10), (12, 3), (80, 24)] {
        screen.resize(columns, rows);
        until("the last line is at the bottom", || {
            let lines = screen.lines();
            let is_tiny = rows < 6 && lines.first()?.starts_with("too small");
            let foot = lines.iter().rposition(|line| line.starts_with("? help"));
            (is_tiny || foot == Some(usize::from(rows) - 1)).then_some(())
        });
    }
    screen.press(&["?"]);
    screen.has("Any key goes back");
    screen.press(&["q"]);
    screen.has_no("Any key goes back");
    screen.has(&peer(&client));
    screen.press(&["q"]);
    ends_as_it_was(&screen, 0);
}

#[test]
fn the_terminal_is_as_it_was_after_signals_too() {
    if !has_tool("tmux") {
        return;
    }
    let proxy = Proxy::start();
    let shown = command(&format!("--admin {}", proxy.coracle.admin));
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let screen = Screen::start(100, 24, &shown);
        screen.has("the kernel agrees");
        kill_process(screen.child(), signal).unwrap();
        ends_as_it_was(&screen, 0);
    }
    let screen = Screen::start(100, 24, &shown);
    screen.has("the kernel agrees");
    screen.press(&["C-c"]);
    ends_as_it_was(&screen, 0);
}

/// In the thread that has the screen, and in one that makes a request.
#[test]
fn the_terminal_is_as_it_was_after_a_panic_too() {
    // A release does not panic on purpose.
    if std::env::var_os("CORACLE_BINARY").is_some() || !has_tool("tmux") {
        return;
    }
    let proxy = Proxy::start();
    for thread in ["main", "look"] {
        let top = command(&format!("--admin {}", proxy.coracle.admin));
        let panics = format!("export RUST_BACKTRACE=0 CORACLE_TOP_PANICS={thread}; {top}");
        let screen = Screen::start(100, 24, &panics);
        // Below what was there before, in whole lines.
        let line = screen.has("wanted by a test");
        assert!(line.starts_with("wanted by a test"), "{line}");
        ends_as_it_was(&screen, 101);
        let written = String::from_utf8(screen.written()).unwrap();
        let (ours, _) = written.split_once("wanted by a test").unwrap();
        assert!(ours.contains("\u{1b}[?1049h") && ours.contains("\u{1b}[?1049l"));
    }
}

#[test]
fn it_stops_and_goes_on_as_the_shell_wants() {
    if !has_tool("tmux") || !has_tool("bash") {
        return;
    }
    let proxy = Proxy::start();
    let shell = "PS1='$ ' exec bash --norc --noprofile -i";
    let screen = Screen::start(100, 24, shell);
    let (binary, admin) = (binary(), proxy.coracle.admin);
    screen.has("$");
    screen.write(&format!("{binary} top --admin {admin}"));
    screen.press(&["Enter"]);
    for by_signal in [false, true] {
        screen.has("the kernel agrees");
        match by_signal {
            true => kill_process(screen.child(), Signal::TSTP).unwrap(),
            false => screen.press(&["C-z"]),
        }
        screen.has("Stopped");
        screen.has_no("the kernel agrees");
        screen.write("clear; echo the shell has it; fg");
        screen.press(&["Enter"]);
    }
    screen.has("the kernel agrees");
    screen.press(&["q"]);
    screen.has("the shell has it");
}

#[test]
fn a_terminal_without_codes_gets_none() {
    if !has_tool("tmux") {
        return;
    }
    let proxy = Proxy::start();
    let client = hold(proxy.coracle.address("web"));
    let top = format!(
        "TERM=dumb {} top --admin {}; echo ended $?; exec sleep 1000",
        binary(),
        proxy.coracle.admin
    );
    let screen = Screen::start(80, 24, &top);
    screen.has(&peer(&client));
    screen.press(&["?"]);
    screen.has("Any key goes back");
    screen.press(&["q", "q"]);
    let written = screen.written_with("ended 0");
    assert!(!written.contains('\u{1b}'), "{written}");
}

#[test]
fn no_colors_where_they_are_not_wanted() {
    if !has_tool("tmux") {
        return;
    }
    let proxy = Proxy::start();
    let shown = |environment: &str| {
        let top = command(&format!("--admin {}", proxy.coracle.admin));
        let screen = Screen::start(80, 24, &format!("export {environment}; {top}"));
        screen.has("the kernel agrees");
        screen.press(&["q"]);
        screen.written_with("ended 0")
    };
    let green = "\u{1b}[32mthe kernel agrees";
    assert!(shown("TERM=xterm NO_COLOR=").contains(green));
    for plain in ["TERM=vt100", "TERM=xterm NO_COLOR=1"] {
        let written = shown(plain);
        assert!(!written.contains(green) && written.contains("the kernel agrees"));
    }
}

#[test]
fn a_coracle_that_goes_away_and_returns_is_shown_again() {
    if !has_tool("tmux") {
        return;
    }
    let server = backend::start();
    let admin = lasting_address(&mut rng::from_env());
    let config = format!(
        "[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n\
         [entrypoints.web]\nlisten = \"127.0.0.1:0\"\nto = \"{server}\"\n"
    );
    let coracle = Coracle::start(&config);
    let client = hold(coracle.address("web"));
    let screen = Screen::start(100, 24, &command(&format!("--admin {admin}")));
    screen.has(&peer(&client));
    drop((client, coracle));
    screen.has("not reachable, retrying");
    screen.has("nothing listens there");
    let coracle = Coracle::start(&config);
    let client = hold(coracle.address("web"));
    screen.has("the kernel agrees");
    screen.has(&peer(&client));
    screen.has_no("not reachable");
    screen.press(&["q"]);
    ends_as_it_was(&screen, 0);
}

#[test]
fn ten_thousand_connections_come_in_pages() {
    const PRESSED: usize = 40;
    if !has_tool("tmux") {
        return;
    }
    let admin = Admin::start(PATIENT);
    admin.with(|world| {
        for n in 0..10_000 {
            world.insert(n % 2);
        }
    });
    let requests = || scrape(admin.address).sum("coracle_admin_requests_total") - 1.0;
    let top = command(&format!("--admin {}", admin.address)).replace("200ms", "1h");
    let screen = Screen::start(80, 24, &top);
    let about = screen.has("of 10000 connections");
    let (_, rows) = about.split_once('-').unwrap();
    let rows: usize = rows.split(' ').next().unwrap().parse().unwrap();
    assert!(rows < 24, "{about}");
    let before = requests();
    screen.press(&["PPage"; 3]);
    screen.press(&["NPage"; PRESSED]);
    let first = PRESSED * rows + 1;
    screen.has(&format!(
        "{first}-{} of 10000 connections",
        first + rows - 1
    ));
    // Three for each look, of which keys that come faster share one.
    let asked = requests() - before;
    assert!(asked <= 3.0 * (PRESSED + 3 + 1) as f64 + 1.0, "{asked}");
    screen.press(&["End"]);
    screen.has("-10000 of 10000 connections");
}

/// Runs it without a terminal, and returns what it prints on stderr.
fn fails(admin: SocketAddr) -> String {
    let mut command = Command::new(binary());
    let output = command.args(["top", "--admin", &admin.to_string()]);
    let output = output.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn without_a_terminal_it_names_other_commands() {
    assert_eq!(
        fails(([127, 0, 0, 1], 1).into()),
        "coracle: top needs a terminal; `coracle list` and `coracle status` print what it shows\n"
    );
}

#[test]
fn a_wrong_address_is_an_error_without_a_screen() {
    if !has_tool("tmux") {
        return;
    }
    let screen = Screen::start(200, 24, &command("--admin 127.0.0.1:1"));
    screen.has("coracle: no coracle is running at 127.0.0.1:1: nothing listens there");
    let written = screen.written_with("ended 1");
    assert!(!written.contains("\u{1b}[?1049h"), "{written}");
}
