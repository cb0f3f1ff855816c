//! Reloading at run time: a configuration applies fully or not at all, and connected clients notice
//! nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support;
use crate::support::backend::{self, Script, hold};
use crate::support::http::http;
use crate::support::metrics::{agrees, scrape};
use crate::support::process::{Coracle, binary, follow};
use crate::support::rng::{self, Rng};
use crate::support::{kernel, lasting_address, until};

/// A configuration with this admin endpoint.
fn with_admin(admin: SocketAddr, rest: &str) -> String {
    format!("{rest}\n[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n")
}

fn entrypoint(name: &str, listen: SocketAddr, to: SocketAddr) -> String {
    format!("[entrypoints.{name}]\nlisten = \"{listen}\"\nto = \"{to}\"\n")
}

struct World {
    rng: Rng,
    admin: SocketAddr,
    to: SocketAddr,
}

impl World {
    fn new() -> Self {
        let mut rng = rng::from_env();
        let admin = lasting_address(&mut rng);
        let to = backend::start();
        Self { rng, admin, to }
    }

    fn address(&mut self) -> SocketAddr {
        lasting_address(&mut self.rng)
    }

    fn config(&self, entrypoints: &[(&str, SocketAddr)]) -> String {
        let all = entrypoints.iter();
        let all = all.map(|(name, listen)| entrypoint(name, *listen, self.to));
        with_admin(self.admin, &all.collect::<String>())
    }
}

/// A connection that echoes each byte.
fn echo(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream.write_all(&Script::Echo.request(0)).unwrap();
    goes_on(&mut stream);
    stream
}

fn goes_on(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

fn open(metrics: &support::metrics::Metrics, entrypoint: &str) -> Option<f64> {
    let label = format!("entrypoint=\"{entrypoint}\"");
    let mut series = metrics.series("coracle_open_connections");
    series
        .find(|(labels, _)| labels.contains(&label))
        .map(|(_, n)| n)
}

#[test]
fn reload_keeps_what_stays_and_adds_what_is_new() {
    let mut world = World::new();
    let [web, ssh, other] = [(); 3].map(|()| world.address());
    let coracle = Coracle::start(&world.config(&[("web", web), ("ssh", ssh)]));
    let mut held = [echo(web), echo(ssh)];
    let other_server = backend::start();
    let changed = with_admin(
        world.admin,
        &format!(
            "{}{}",
            entrypoint("web", web, other_server),
            entrypoint("new", other, world.to)
        ),
    );
    assert!(coracle.reload(&changed));
    coracle.logged(&format!(
        "reloaded: entrypoint web: forwards to {other_server} instead of {}",
        world.to
    ));
    coracle.logged("reloaded: entrypoint new added");
    coracle.logged("reloaded: entrypoint ssh removed");
    // Connected clients notice nothing and keep their server.
    held.iter_mut().for_each(goes_on);
    drop(echo(other));
    assert!(
        TcpStream::connect(ssh).is_err(),
        "something still listens there"
    );
    let _more = echo(web);
    let metrics = scrape(coracle.admin);
    assert_eq!(open(&metrics, "web"), Some(2.0));
    assert_eq!(
        open(&metrics, "ssh"),
        Some(1.0),
        "its last connection is open"
    );
    let of_server = |to: SocketAddr, entrypoint: &str| {
        let labels = [
            format!("service=\"{entrypoint}\""),
            format!("server=\"{to}\""),
        ];
        metrics.sum_of(
            "coracle_service_open_connections",
            &[&labels[0], &labels[1]],
        )
    };
    assert_eq!(of_server(world.to, "web"), 1.0);
    assert_eq!(of_server(other_server, "web"), 1.0);
    // Series go with the last connection of what is gone.
    drop(held);
    until(
        "the series of the removed entrypoint and server are gone",
        || {
            let metrics = scrape(coracle.admin);
            let old_server = format!("server=\"{}\"", world.to);
            let mut servers = metrics.series("coracle_service_open_connections");
            let has_old = servers.any(|(labels, _)| {
                labels.contains("service=\"web\"") && labels.contains(&old_server)
            });
            (open(&metrics, "ssh").is_none() && !has_old).then_some(())
        },
    );
    let metrics = scrape(coracle.admin);
    assert_eq!(
        metrics.sum_where("coracle_connections_opened_total", "entrypoint=\"web\""),
        2.0,
        "its counters go on"
    );
}

#[test]
fn invalid_configuration_changes_nothing_and_is_reported() {
    let mut world = World::new();
    let [web, taken] = [(); 2].map(|()| world.address());
    let _taken = TcpListener::bind(taken).unwrap();
    let before = format!(
        "{}[metrics]\ncompat = [\"traefik\"]\n",
        world.config(&[("web", web)])
    );
    let coracle = Coracle::start(&before);
    let mut held = echo(web);
    let good =
        |coracle: &Coracle| scrape(coracle.admin).sum("coracle_config_last_reload_successful");
    assert_eq!(good(&coracle), 1.0);
    // When the configuration came into force, and how often one has. Traefik's are whole seconds.
    let loads = || {
        let metrics = scrape(coracle.admin);
        let time = metrics.sum("coracle_config_last_reload_success_timestamp_seconds");
        assert_eq!(
            metrics.sum("traefik_config_last_reload_success"),
            time.floor()
        );
        (time, metrics.sum("traefik_config_reloads_total"))
    };
    let started = loads();
    assert_eq!(started.1, 1.0);
    // One has errors; the other asks for an address that another program has, beside changes that
    // would be possible.
    let moved = world.address();
    let wrong = [
        (
            format!("{before}\nnonsense = 1\n[entrypoints.x]\n"),
            "unknown key `nonsense`",
        ),
        (
            world.config(&[("moved", moved), ("web", taken)]),
            "address in use",
        ),
    ];
    for (text, why) in wrong {
        assert!(!coracle.reload(&text));
        coracle.logged(why);
        assert_eq!(good(&coracle), 0.0);
        assert_eq!(loads(), started);
        goes_on(&mut held);
        drop(echo(web));
        assert!(TcpStream::connect(moved).is_err());
    }
    assert!(coracle.reload(&before));
    coracle.logged("reloaded: nothing has changed");
    assert_eq!(good(&coracle), 1.0);
    let reloaded = loads();
    assert!(reloaded.0 > started.0, "{reloaded:?}");
    assert_eq!(reloaded.1, 2.0);
    let metrics = scrape(coracle.admin);
    assert_eq!(
        metrics.series("coracle_open_connections").count(),
        1,
        "a trace of the refused configuration"
    );
}

#[test]
fn unchanged_listener_keeps_its_socket_and_backlog() {
    let mut world = World::new();
    let web = world.address();
    // At capacity: new clients wait in the backlog.
    let config = world.config(&[("web", web)]);
    let coracle = Coracle::start(&config);
    let inode = || {
        let sockets = kernel::tcp_sockets().into_iter();
        let mut listening = sockets.filter(|it| it.local_port == web.port() && it.remote_port == 0);
        listening.next().unwrap().inode
    };
    let before = inode();
    coracle.pause();
    let mut waiting: Vec<_> = (0..20).map(|_| TcpStream::connect(web).unwrap()).collect();
    // Under another name, with another server and other timeouts: only the address counts.
    let server = backend::start();
    let text = format!(
        "{}idle_timeout = \"1h\"\nkeepalive = \"30s\"\n",
        entrypoint("www", web, server)
    );
    coracle.write_config(&with_admin(world.admin, &text));
    coracle.signal(Signal::HUP);
    coracle.signal(Signal::CONT);
    for stream in &mut waiting {
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        stream.write_all(&Script::Echo.request(0)).unwrap();
        goes_on(stream);
    }
    coracle.logged("reloaded: entrypoint web removed");
    assert_eq!(inode(), before);
}

#[test]
fn overlapping_address_is_taken_over_and_restored_if_the_reload_fails() {
    let mut world = World::new();
    let [web, taken] = [(); 2].map(|()| world.address());
    let _taken = TcpListener::bind(taken).unwrap();
    let all: SocketAddr = ([0, 0, 0, 0], web.port()).into();
    let coracle = Coracle::start(&world.config(&[("web", all)]));
    let mut held = echo(web);
    // The narrower address first, which the wider one covers; then one that another program has.
    assert!(!coracle.reload(&world.config(&[("web", web), ("more", taken)])));
    drop(echo(web));
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], web.port()));
    drop(echo(elsewhere));
    assert!(coracle.reload(&world.config(&[("web", web)])));
    drop(echo(web));
    assert!(TcpStream::connect(elsewhere).is_err());
    assert!(coracle.reload(&world.config(&[("web", all)])));
    drop(echo(elsewhere));
    goes_on(&mut held);
}

#[test]
fn address_passes_between_entrypoints_without_a_mismatch() {
    let mut world = World::new();
    let [a, b] = [(); 2].map(|()| world.address());
    let coracle = Coracle::start(&world.config(&[("one", a), ("two", b)]));
    let mut held = vec![hold(a), hold(a), hold(b)];
    // They swap addresses, and a third takes over what one of them leaves.
    assert!(coracle.reload(&world.config(&[("two", a), ("one", b)])));
    held.extend([hold(a), hold(b)]);
    assert!(coracle.reload(&world.config(&[("two", b), ("three", a)])));
    held.extend([hold(a), hold(b)]);
    let metrics = until("the kernel has been read", || {
        let metrics = scrape(coracle.admin);
        let all = metrics.sum("coracle_kernel_connections");
        (all == held.len() as f64).then_some(metrics)
    });
    assert_eq!(open(&metrics, "one"), Some(3.0));
    assert_eq!(open(&metrics, "two"), Some(3.0));
    assert_eq!(open(&metrics, "three"), Some(1.0));
    agrees(&metrics);
    let audit = Command::new(binary())
        .args(["audit", "--admin", &coracle.admin.to_string()])
        .output()
        .unwrap();
    assert!(
        audit.status.success(),
        "{}",
        String::from_utf8_lossy(&audit.stdout)
    );
    // Once the old connections are gone, each has its own count again.
    held.drain(..3);
    drop(held);
    until("only the two are left", || {
        let metrics = scrape(coracle.admin);
        let open = metrics.series("coracle_open_connections");
        (open.map(|(_, n)| n).collect::<Vec<_>>() == [0.0, 0.0]).then_some(())
    });
}

#[test]
fn connections_of_a_removed_entrypoint_follow_on_removed() {
    let mut world = World::new();
    let names = ["kept", "drained", "closed", "stays"];
    let addresses = names.map(|_| world.address());
    let mut text = String::new();
    for ((name, listen), what) in names
        .iter()
        .zip(addresses)
        .zip(["keep", "drain", "close", "keep"])
    {
        text += &entrypoint(name, listen, world.to);
        text += &format!("on_removed = \"{what}\"\n");
    }
    let text = format!("drain_timeout = \"1h\"\n{}", with_admin(world.admin, &text));
    let coracle = Coracle::start(&text);
    let mut held = addresses.map(echo);
    let rest = format!(
        "drain_timeout = \"300ms\"\n{}",
        world.config(&[("stays", addresses[3])])
    );
    assert!(coracle.reload(&rest));
    for cut in [2, 1] {
        // Both are reset, one immediately, the other after the new drain_timeout.
        let end = held[cut].read(&mut [0]).unwrap_err();
        assert_eq!(
            end.kind(),
            std::io::ErrorKind::ConnectionReset,
            "{}",
            names[cut]
        );
    }
    goes_on(&mut held[0]);
    goes_on(&mut held[3]);
    // An entrypoint that returns before the timeout keeps the connections accepted since.
    let slow = text.replace("drain_timeout = \"1h\"", "drain_timeout = \"1s\"");
    assert!(coracle.reload(&slow));
    let mut drained = echo(addresses[1]);
    assert!(coracle.reload(&rest.replace("300ms", "1s")));
    assert!(coracle.reload(&slow));
    let mut since = echo(addresses[1]);
    assert!(drained.read(&mut [0]).is_err());
    goes_on(&mut since);
    drop(since);
    assert!(coracle.reload(&rest));
    let metrics = until("the drained connections are gone", || {
        let metrics = scrape(coracle.admin);
        open(&metrics, "drained").is_none().then_some(metrics)
    });
    assert_eq!(open(&metrics, "kept"), Some(1.0));
    assert_eq!(
        (open(&metrics, "drained"), open(&metrics, "closed")),
        (None, None)
    );
}

#[test]
fn timeouts_log_level_and_names_follow_the_configuration() {
    let mut world = World::new();
    let web = world.address();
    let config = |rest: &str| format!("{}{rest}", world.config(&[("web", web)]));
    let coracle = Coracle::start(&config(""));
    let mut idle = echo(web);
    assert_eq!(
        scrape(coracle.admin)
            .series("traefik_open_connections")
            .count(),
        0
    );
    let other =
        config("[log]\naccess = true\nlevel = \"warn\"\n[metrics]\ncompat = [\"traefik\"]\n");
    let other = other.replace(
        "[entrypoints.web]\n",
        "[entrypoints.web]\nidle_timeout = \"200ms\"\n",
    );
    assert!(coracle.reload(&other));
    // The new timeout applies to an open connection, whose end is logged.
    assert!(idle.read(&mut [0]).is_err());
    coracle.logged("reason=idle_timeout");
    assert_eq!(
        scrape(coracle.admin)
            .series("traefik_open_connections")
            .count(),
        1
    );
    let lines = coracle.log().len();
    assert!(coracle.reload(&config("[log]\nlevel = \"warn\"\n")));
    drop(hold(web));
    assert!(coracle.reload(&config("")));
    coracle.logged("reloaded: log: level info instead of warn");
    let silent: Vec<_> = coracle.log().split_off(lines);
    assert!(
        !silent.iter().any(|line| line.contains("closed")),
        "{silent:#?}"
    );
    assert_eq!(
        scrape(coracle.admin)
            .series("traefik_open_connections")
            .count(),
        0
    );
}

#[test]
fn moving_the_admin_endpoint_truncates_no_response() {
    let mut world = World::new();
    let [web, elsewhere, taken] = [(); 3].map(|()| world.address());
    let _taken = TcpListener::bind(taken).unwrap();
    let here = world.admin;
    let at = |admin: SocketAddr, rest: &str| {
        let text = entrypoint("web", web, world.to);
        format!("{text}\n[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n{rest}")
    };
    let coracle = Coracle::start(&at(here, ""));
    let mut held = echo(web);
    let ask = |admin: SocketAddr, host: &str| {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        http(admin, request).0
    };
    // Another host on the same socket.
    assert_eq!(ask(here, "nas.example"), 421);
    assert!(coracle.reload(&at(here, "hosts = [\"nas.example\"]\n")));
    assert_eq!(ask(here, "nas.example"), 200);
    // An address that another program has leaves everything unchanged.
    assert!(!coracle.reload(&at(taken, "")));
    assert_eq!(ask(here, "nas.example"), 200);
    // Another address and then the former one again, by way of all addresses of its port.
    let wide = SocketAddr::from(([0, 0, 0, 0], here.port()));
    for (n, (address, asked)) in [(elsewhere, elsewhere), (wide, here), (here, here)]
        .into_iter()
        .enumerate()
    {
        coracle.write_config(&at(address, "open = true\n"));
        coracle.signal(Signal::HUP);
        coracle.logged(&format!("reloaded: admin: listens on {address}"));
        until("the new endpoint answers", || {
            let answers = TcpStream::connect(asked).is_ok_and(|_| ask(asked, "localhost") == 200);
            answers.then_some(())
        });
        if n == 0 {
            until("the former address is closed", || {
                TcpStream::connect(here).err()
            });
        }
        goes_on(&mut held);
    }
    let metrics = scrape(here);
    assert_eq!(open(&metrics, "web"), Some(1.0));
}

#[test]
fn unix_socket_keeps_its_path_and_takes_a_new_mode() {
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let config = |more: &str| {
        let path = path.display();
        let text = format!(
            "[entrypoints.u]\nlisten = \"unix:{path}\"\nto = \"{}\"\n{more}",
            world.to
        );
        with_admin(world.admin, &text)
    };
    let coracle = Coracle::start(&config(""));
    let mode = || path.metadata().unwrap().permissions().mode() & 0o777;
    let before = path.metadata().unwrap();
    assert!(coracle.reload(&config("socket_mode = \"0600\"\n")));
    assert_eq!(mode(), 0o600);
    assert_eq!(
        std::os::unix::fs::MetadataExt::ino(&before),
        std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap())
    );
    // A missing group changes nothing.
    assert!(!coracle.reload(&config(
        "socket_mode = \"0666\"\nsocket_group = \"no-such-group\"\n"
    )));
    assert_eq!(mode(), 0o600);
    // Nor does a possible change beside an impossible one.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!(
        "socket_mode = \"0666\"\n{}",
        entrypoint("x", taken.local_addr().unwrap(), world.to)
    );
    assert!(!coracle.reload(&config(&more)));
    assert_eq!(mode(), 0o600);
    // Without the key, the umask decides again.
    assert!(coracle.reload(&config("")));
    assert_ne!(mode(), 0o600);
    let by_umask = mode();
    assert!(!coracle.reload(&config(&more)));
    assert_eq!(mode(), by_umask);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn untimely_sighup_is_logged_in_one_line() {
    let mut world = World::new();
    let web = world.address();
    let config = world.config(&[("web", web)]);
    let mut coracle = Coracle::start(&format!("drain_timeout = \"1h\"\n{config}"));
    let told = |coracle: &Coracle, text: &str| {
        let refused = || {
            coracle
                .log()
                .into_iter()
                .filter(|line| line.contains("not reloaded:"))
                .collect::<Vec<_>>()
        };
        let before = refused().len();
        coracle.signal(Signal::HUP);
        let lines = until("it is logged", || {
            Some(refused()).filter(|lines| lines.len() > before)
        });
        assert_eq!(lines.len(), before + 1, "{lines:#?}");
        assert!(lines[before].contains(text), "{lines:#?}");
    };
    std::fs::remove_file(coracle.file()).unwrap();
    told(&coracle, "no such file");
    std::fs::create_dir(coracle.file()).unwrap();
    told(&coracle, "this is a directory");
    std::fs::remove_dir(coracle.file()).unwrap();
    coracle.write_config(&config);
    // Concurrent requests are handled one after the other.
    (0..20).for_each(|_| coracle.signal(Signal::HUP));
    coracle.logged("reloaded: drain_timeout");
    let held = hold(web);
    coracle.write_config(&format!("drain_timeout = \"1h\"\n{config}"));
    coracle.signal(Signal::HUP);
    coracle.logged("reloaded: drain_timeout: 1h");
    coracle.signal(Signal::TERM);
    coracle.logged("draining");
    told(&coracle, "is draining");
    drop(held);
    assert!(coracle.wait().success());
}

/// A coracle started with arguments other than a file alone.
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let process = Self::start_early(command);
        process.next("msg=ready");
        process
    }

    /// Starts it and does not wait for it.
    fn start_early(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = follow(&mut child, Arc::default());
        Self { child, lines }
    }

    /// Waits for the next log line with this text.
    fn next(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(support::DEADLINE).unwrap();
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn stop(mut self) {
        self.signal(Signal::TERM);
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn sighup_without_a_file_is_reported() {
    let listen = lasting_address(&mut rng::from_env());
    let mut command = Command::new(binary());
    command.args(["run", "--admin", "off", "-L"]);
    let process = Process::start(command.arg(format!("{listen}:127.0.0.1:9")));
    process.signal(Signal::HUP);
    let line = process.next("not reloaded");
    assert!(line.contains("without a file"), "{line}");
    process.stop();
}

#[test]
fn command_line_applies_again_on_reload() {
    let mut world = World::new();
    let [web, forwarded, other, admin] = [(); 4].map(|()| world.address());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), world.config(&[("web", web)])).unwrap();
    let mut command = Command::new(binary());
    command.arg("run").arg("-c").arg(file.path());
    command.arg("--access-log").arg("--admin");
    command.arg(admin.to_string()).arg("-L");
    let process = Process::start(command.arg(format!("{forwarded}:{}", world.to)));
    let mut held = echo(forwarded);
    let in_force = |listen: SocketAddr| {
        drop(echo(listen));
        let line = process.next("msg=closed");
        assert!(line.contains("entrypoint=web"), "{line}");
        // The file has another address.
        assert_eq!(open(&scrape(admin), "web"), Some(0.0));
        assert!(TcpStream::connect(world.admin).is_err());
    };
    in_force(web);
    // What the file says of both is overridden again.
    let text = format!("{}[log]\naccess = false\n", world.config(&[("web", other)]));
    std::fs::write(file.path(), text).unwrap();
    process.signal(Signal::HUP);
    process.next("reloaded: entrypoint web: listens on");
    in_force(other);
    goes_on(&mut held);
    drop(echo(forwarded));
    drop(held);
    process.stop();
}

#[test]
fn file_that_changes_before_its_watch_begins_is_read_again() {
    let mut world = World::new();
    let listens = [(); 2].map(|()| world.address());
    let config = |n: usize| format!("watch = true\n{}", world.config(&[("web", listens[n])]));
    for _ in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let (file, new) = (
            directory.path().join("c.toml"),
            directory.path().join("new"),
        );
        std::fs::write(&file, config(0)).unwrap();
        std::fs::write(&new, config(1)).unwrap();
        let mut command = Command::new(binary());
        let process = Process::start_early(command.arg("run").arg("-c").arg(&file));
        process.next("msg=\"configuration read\"");
        std::fs::rename(&new, &file).unwrap();
        process.next(&format!("listens on {} instead of", listens[1]));
        process.stop();
    }
}

#[test]
fn file_that_is_being_written_is_read_once_it_is_whole() {
    /// How long the file must stay unchanged before it is read.
    const SETTLED: Duration = Duration::from_millis(250);
    let mut world = World::new();
    let mut config = || {
        let web = world.address();
        let text = format!("watch = true\n{}", world.config(&[("web", web)]));
        (web, text)
    };
    // Where a machine stalls between two writes for that long, half a file may rightly be read. Then
    // the test tries again.
    until("a file is written without a long stall", || {
        let coracle = Coracle::start(&config().1);
        let (web, text) = config();
        let (first, rest) = text.split_at(text.find("listen").unwrap() + 3);
        let begun = Instant::now();
        let mut file = std::fs::File::create(coracle.file()).unwrap();
        for part in ["", first, rest] {
            // The program notices each change.
            std::thread::sleep(SETTLED / 10);
            file.write_all(part.as_bytes()).unwrap();
        }
        let is_in_time = begun.elapsed() < SETTLED;
        drop(file);
        if !is_in_time {
            return None;
        }
        coracle.logged(&format!("reloaded: entrypoint web: listens on {web}"));
        // Whatever else it had read would be logged before the next reload.
        let (last, text) = config();
        coracle.write_config(&text);
        coracle.logged(&format!("reloaded: entrypoint web: listens on {last}"));
        let log = coracle.log();
        let of_reloads = |line: &&String| line.contains("reloaded");
        let lines: Vec<_> = log.iter().filter(of_reloads).collect();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        Some(())
    });
}

#[test]
fn watched_file_is_read_however_it_changes() {
    let mut world = World::new();
    let listens = [(); 6].map(|()| world.address());
    let config = |n: usize| format!("watch = true\n{}", world.config(&[("web", listens[n])]));
    // As Kubernetes mounts it: the file is a link through a directory that is itself a link, and is
    // replaced by a rename.
    let mount = tempfile::tempdir().unwrap();
    let version = |n: usize| {
        let directory = mount.path().join(format!("..{n}"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("coracle.toml"), config(n)).unwrap();
        let link = mount.path().join("..new");
        symlink(format!("..{n}"), &link).unwrap();
        std::fs::rename(link, mount.path().join("..data")).unwrap();
    };
    version(0);
    let file = mount.path().join("coracle.toml");
    symlink("..data/coracle.toml", &file).unwrap();
    let mut command = Command::new(binary());
    let process = Process::start(command.arg("run").arg("-c").arg(&file));
    let is_at = |n: usize| {
        process.next(&format!("listens on {} instead of", listens[n]));
        drop(echo(listens[n]));
    };
    version(1);
    is_at(1);
    // Written in place, at the link's target.
    std::fs::write(&file, config(2)).unwrap();
    is_at(2);
    // By an editor that replaces the link with a file.
    let new = mount.path().join("coracle.toml~");
    std::fs::write(&new, config(3)).unwrap();
    std::fs::rename(&new, &file).unwrap();
    is_at(3);
    // Removed and restored.
    std::fs::remove_file(&file).unwrap();
    process.next("not reloaded");
    std::fs::write(&file, config(4)).unwrap();
    is_at(4);
    // Once it logs that it stops watching, only SIGHUP makes it read the next change.
    let unwatched = |n: usize| config(n).replace("watch = true", "watch = false");
    std::fs::write(&file, unwatched(4)).unwrap();
    process.next("reloaded: watch");
    std::fs::write(&file, unwatched(5)).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    process.signal(Signal::HUP);
    let found = process.next("listens on");
    assert!(found.contains("by=SIGHUP"), "{found}");
    drop(echo(listens[5]));
    process.stop();
}
