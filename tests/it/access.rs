//! Who may connect: the lists of an entrypoint, their files, and how clients are refused.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::support::backend::{self, Script};
use crate::support::clients::connect_from;
use crate::support::metrics::scrape;
use crate::support::process::{Coracle, binary};
use crate::support::{has_tool, lasting_address, rng, until};

/// Connects from one of the many addresses of loopback.
fn connect(from: u8, to: SocketAddr) -> io::Result<TcpStream> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, to.port()));
    connect_from(Ipv4Addr::new(127, 0, 0, from), to)
}

/// Connects, has the server hold the connection, and returns it once it does.
fn served(from: u8, to: SocketAddr) -> TcpStream {
    let mut client = connect(from, to).unwrap();
    client.write_all(&Script::Hold.request(0)).unwrap();
    client.read_exact(&mut [0]).unwrap();
    client
}

fn is_reset(from: u8, to: SocketAddr) {
    let read = connect(from, to).and_then(|mut client| client.read(&mut [0]));
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// How many clients were refused for this reason.
fn refused(coracle: &Coracle, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    scrape(coracle.admin).sum_where("coracle_connections_refused_total", &label)
}

#[test]
fn smallest_network_decides_before_anything_is_dialled() {
    let backend = backend::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("e.sock");
    let coracle = Coracle::start(&format!(
        "[entrypoints.local]\nlisten = \"unix:{}\"\nto = \"{backend}\"\nallow = \"::1\"\n\
         [entrypoints.e]\nlisten = [\"127.0.0.1:0\", \"*:0\"]\nto = \"{backend}\"\n\
         allow = [\"127.0.0.0/8\", \"127.0.0.65\"]\ndeny = [\"127.0.0.64/26\", \"127.0.0.2\"]\n\
         [entrypoints.open]\nlisten = \"127.0.0.1:0\"\nto = \"{backend}\"\n",
        path.display()
    ));
    // An IPv4 client of the second one has a mapped address.
    let listen = [coracle.address("e"), coracle.addresses("e")[1]];
    let mut open = Vec::new();
    for to in listen {
        open.extend([1, 3, 65, 128].map(|from| served(from, to)));
        for from in [2, 64, 66, 127] {
            is_reset(from, to);
        }
    }
    open.push(served(2, coracle.address("open")));
    // A client over a Unix socket has no address.
    let mut local = UnixStream::connect(&path).unwrap();
    local.write_all(&Script::Hold.request(0)).unwrap();
    local.read_exact(&mut [0]).unwrap();
    let metrics = scrape(coracle.admin);
    assert_eq!(metrics.sum("coracle_connections_refused_total"), 8.0);
    assert_eq!(refused(&coracle, "denied"), 8.0);
    assert_eq!(metrics.sum("coracle_connections_opened_total"), 10.0);
    assert_eq!(metrics.sum("coracle_open_connections"), 10.0);
    let line = coracle.logged("the entrypoint's lists deny this address; refused");
    assert!(line.contains("entrypoint=e peer=127.0.0.2:"), "{line}");
}

/// The first entrypoint of a coracle that denies one client and refuses it in this way.
fn refusing(at_refuse: &str) -> String {
    let backend = backend::start();
    format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{backend}\"\n\
         deny = \"127.0.0.2\"\nat_refuse = \"{at_refuse}\"\n"
    )
}

#[test]
fn closing_ends_the_stream() {
    let coracle = Coracle::start(&refusing("close"));
    let mut client = connect(2, coracle.address("e")).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    served(1, coracle.address("e"));
    assert_eq!(refused(&coracle, "denied"), 1.0);
}

/// Whether this process, and so the program, has CAP_NET_ADMIN, the 12th capability.
fn has_net_admin() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|it| it.strip_prefix("CapEff:"));
    u64::from_str_radix(set.unwrap().trim(), 16).unwrap() >> 12 & 1 == 1
}

#[test]
fn dropping_tells_the_client_nothing_until_it_sends() {
    if !has_net_admin() {
        let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
        assert!(!required, "without CAP_NET_ADMIN");
        eprintln!("skipped: without CAP_NET_ADMIN");
        return;
    }
    let coracle = Coracle::start(&refusing("drop"));
    let mut client = connect(2, coracle.address("e")).unwrap();
    // Its socket is closed before it counts in a scrape.
    until("it is refused", || {
        (refused(&coracle, "denied") == 1.0).then_some(())
    });
    client.set_nonblocking(true).unwrap();
    let nothing = client.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    client.write_all(b"hello").unwrap();
    let reset = client.read(&mut [0]).unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    served(1, coracle.address("e"));
}

#[test]
fn dropping_without_the_privilege_resets() {
    if !has_tool("setpriv") {
        return;
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
    command.arg(binary());
    let coracle = Coracle::start_by(command, &refusing("drop"));
    is_reset(2, coracle.address("e"));
    coracle.logged("cannot refuse in silence without CAP_NET_ADMIN; resetting instead");
}

#[test]
fn refusals_at_the_limit_follow_at_refuse() {
    let backend = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{backend}\"\n\
         max_connections = 1\nat_limit = \"refuse\"\nat_refuse = \"close\"\n"
    ));
    let _open = served(1, coracle.address("e"));
    let mut client = connect(1, coracle.address("e")).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(refused(&coracle, "limit"), 1.0);
}

/// A coracle whose lists are in a file.
struct Listed {
    coracle: Coracle,
    listen: SocketAddr,
    config: String,
    list: tempfile::NamedTempFile,
}

impl Listed {
    fn start(watch: bool) -> Self {
        let mut rng = rng::from_env();
        let [admin, listen] = [(); 2].map(|()| lasting_address(&mut rng));
        let backend = backend::start();
        let list = tempfile::NamedTempFile::new().unwrap();
        fs::write(&list, "\u{feff}# Nobody knows them.\r\n\n127.0.0.2 # one\n").unwrap();
        let config = format!(
            "watch = {watch}\n[entrypoints.e]\nlisten = \"{listen}\"\nto = \"{backend}\"\n\
             deny_file = \"{}\"\n[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n",
            list.path().display()
        );
        Self {
            coracle: Coracle::start(&config),
            listen,
            config,
            list,
        }
    }

    fn write(&self, text: &str) {
        let new = self.list.path().with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.list.path()).unwrap();
    }

    fn denies(&self, from: u8) {
        let before = refused(&self.coracle, "denied");
        is_reset(from, self.listen);
        assert_eq!(refused(&self.coracle, "denied"), before + 1.0);
    }
}

#[test]
fn reload_reads_the_lists_again_and_ends_no_connection() {
    let it = Listed::start(false);
    it.denies(2);
    let mut open = served(3, it.listen);
    it.write("127.0.0.3/32\n127.0.0.4\n");
    assert!(it.coracle.reload(&it.config));
    it.coracle
        .logged("entrypoint e: 2 networks with those in the files instead of 1");
    it.denies(3);
    drop(served(2, it.listen));
    // The connection from before is still there.
    open.set_nonblocking(true).unwrap();
    let nothing = open.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    // A wrong line keeps the list that is in force.
    it.write("127.0.0.2\n\n10.1.0.0/8\n");
    assert!(!it.coracle.reload(&it.config));
    let line = it.coracle.logged("not reloaded:");
    let place = format!("{}:3: `10.1.0.0/8`: ", it.list.path().display());
    assert!(line.contains(&place), "{line}");
    assert!(line.contains("write 10.0.0.0/8"), "{line}");
    it.denies(3);
    // So does a list that is gone.
    fs::remove_file(it.list.path()).unwrap();
    assert!(!it.coracle.reload(&it.config));
    it.coracle
        .logged(&format!("{}: no such file", it.list.path().display()));
    it.denies(3);
    it.write("");
    assert!(it.coracle.reload(&it.config));
    drop(served(3, it.listen));
}

#[test]
fn lists_are_watched_with_the_configuration() {
    let it = Listed::start(true);
    it.denies(2);
    it.write("127.0.0.3\n127.0.0.4\n");
    it.coracle
        .logged("entrypoint e: 2 networks with those in the files instead of 1");
    it.denies(3);
    // A list that is not there is read once it comes.
    fs::remove_file(it.list.path()).unwrap();
    it.coracle
        .logged(&format!("{}: no such file", it.list.path().display()));
    it.write("127.0.0.5\n");
    it.coracle
        .logged("entrypoint e: 1 networks with those in the files instead of 2");
    it.denies(5);
    // So is another one that a reload names.
    let other = tempfile::NamedTempFile::new().unwrap();
    fs::write(&other, "127.0.0.6\n").unwrap();
    let [from, to] = [&it.list, &other].map(|file| file.path().display().to_string());
    assert!(it.coracle.reload_watched(&it.config.replace(&from, &to)));
    it.denies(6);
    fs::write(&other, "127.0.0.7\n127.0.0.8\n127.0.0.9\n").unwrap();
    it.coracle
        .logged("entrypoint e: 3 networks with those in the files instead of 1");
    it.denies(7);
}
