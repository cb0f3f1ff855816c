//! `examples/one-port.toml` with real programs: OpenSSH, two servers of HTTPS, and OpenVPN behind
//! one port.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::program::Program;
use crate::support::rng::Rng;
use crate::support::{has_tool, lasting_address, rng, until};

/// Runs `command`, which must succeed.
fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output
}

/// Makes a key and a certificate for `name` in `folder`.
fn certify(folder: &Path, name: &str) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]);
    command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command
        .arg("-keyout")
        .arg(folder.join(format!("{name}.key")));
    command.arg("-out").arg(folder.join(format!("{name}.pem")));
    command.args(["-subj", &format!("/CN={name}")]);
    run(command.args(["-addext", &format!("subjectAltName=DNS:{name}")]));
}

/// A server of HTTPS with the certificate for `name`.
fn https(folder: &Path, name: &str, at: SocketAddr) -> Program {
    certify(folder, name);
    let mut command = Command::new("openssl");
    command.args(["s_server", "-quiet", "-www", "-accept", &at.to_string()]);
    command.arg("-key").arg(folder.join(format!("{name}.key")));
    command.arg("-cert").arg(folder.join(format!("{name}.pem")));
    Program::start(&mut command, &[at])
}

/// OpenSSH's server, which knows the key `user`.
fn sshd(folder: &Path, at: SocketAddr) -> Program {
    for key in ["host", "user"] {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        run(command.arg(folder.join(key)));
    }
    let file = folder.join("sshd_config");
    let shown = folder.display();
    let config = format!(
        "ListenAddress {at}\nHostKey {shown}/host\nAuthorizedKeysFile {shown}/user.pub\n\
        StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nPermitRootLogin yes\n"
    );
    fs::write(&file, config).unwrap();
    // Where Debian's service keeps the unprivileged half. Only root's sshd asks for it.
    if rustix::process::geteuid().is_root() {
        fs::create_dir_all("/run/sshd").unwrap();
        fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755)).unwrap();
    }
    // It insists on an absolute path.
    let path = run(Command::new("sh").args(["-c", "command -v sshd"])).stdout;
    let mut command = Command::new(String::from_utf8(path).unwrap().trim());
    Program::start(command.args(["-D", "-q", "-f"]).arg(file), &[at])
}

/// OpenVPN with TLS over TCP, as both sides have it. It needs no network interface for that.
fn openvpn(folder: &Path) -> Command {
    let mut command = Command::new("openvpn");
    command.current_dir(folder).args(["--dev", "null"]);
    command.args(["--ca", "vpn.pem", "--cert", "vpn.pem", "--key", "vpn.key"]);
    command
}

/// A client of OpenVPN, which ends with the test.
struct VpnClient(Child);

impl Drop for VpnClient {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connects to the VPN through `port`, and waits until both sides have agreed on keys.
fn connect_vpn(folder: &Path, port: SocketAddr) -> VpnClient {
    let log = folder.join("vpn-client.log");
    let mut command = openvpn(folder);
    command.args(["--tls-client", "--proto", "tcp-client", "--nobind", "--log"]);
    command.arg(&log).args(["--remote", "127.0.0.1"]);
    let client = VpnClient(command.arg(port.port().to_string()).spawn().unwrap());
    until("the VPN is up", || {
        let log = fs::read_to_string(&log).ok()?;
        log.contains("Initialization Sequence Completed")
            .then_some(())
    });
    client
}

/// Gets the page of `name` through `port`, from whoever has its certificate.
fn get(folder: &Path, name: &str, certificate: &str, port: SocketAddr) {
    let mut command = Command::new("curl");
    command.args(["-sS", "--fail", "--noproxy", "*", "--output", "/dev/null"]);
    command
        .arg("--cacert")
        .arg(folder.join(format!("{certificate}.pem")));
    command.args(["--resolve", &format!("{name}:{}:127.0.0.1", port.port())]);
    run(command.arg(format!("https://{name}:{}/", port.port())));
}

/// Logs in over `port`, and expects the server's own key.
fn log_in(folder: &Path, port: SocketAddr) {
    let host = fs::read_to_string(folder.join("host.pub")).unwrap();
    let known = folder.join("known_hosts");
    fs::write(&known, format!("[127.0.0.1]:{} {host}", port.port())).unwrap();
    let user = run(Command::new("id").arg("-un")).stdout;
    let mut command = Command::new("ssh");
    command.args([
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=yes",
    ]);
    command.args(["-o", "IdentitiesOnly=yes", "-o"]);
    command.arg(format!("UserKnownHostsFile={}", known.display()));
    command.arg("-i").arg(folder.join("user"));
    command.args(["-p", &port.port().to_string(), "-l"]);
    let user = String::from_utf8(user).unwrap();
    command.args([user.trim(), "127.0.0.1", "echo shore"]);
    assert_eq!(run(&mut command).stdout, b"shore\n");
}

#[test]
fn ssh_two_web_servers_and_a_vpn_share_one_port() {
    let tools = ["sshd", "ssh", "ssh-keygen", "openssl", "openvpn", "curl"];
    if !tools.into_iter().all(has_tool) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut rng: Rng = rng::from_env();
    let [ssh, nas, web, vpn] = std::array::from_fn(|_| lasting_address(&mut rng));
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/one-port.toml");
    let mut config = fs::read_to_string(example).unwrap();
    for (there, here) in [
        ("*:443", "127.0.0.1:0".to_owned()),
        ("127.0.0.1:22", ssh.to_string()),
        ("192.168.1.11:443", nas.to_string()),
        ("192.168.1.10:443", web.to_string()),
        ("192.168.1.1:1194", vpn.to_string()),
    ] {
        let (there, here) = (format!("\"{there}\""), format!("\"{here}\""));
        assert!(config.contains(&there), "{there}");
        config = config.replace(&there, &here);
    }
    let _servers = [
        sshd(folder, ssh),
        https(folder, "nas.example.org", nas),
        https(folder, "www.example.org", web),
    ];
    certify(folder, "vpn");
    let mut server = openvpn(folder);
    server.args(["--tls-server", "--dh", "none", "--proto", "tcp-server"]);
    server.args(["--local", "127.0.0.1", "--lport", &vpn.port().to_string()]);
    let _vpn = Program::start(&mut server, &[vpn]);
    let coracle = Coracle::start(&config);
    let port = coracle.address("https");

    let client = connect_vpn(folder, port);
    log_in(folder, port);
    get(folder, "nas.example.org", "nas.example.org", port);
    get(folder, "www.example.org", "www.example.org", port);
    log_in(folder, port);
    let metrics = scrape(coracle.admin);
    let routed = |route: &str| {
        let route = format!("route=\"{route}\"");
        metrics.sum_where("coracle_routed_connections_total", &route)
    };
    assert_eq!(
        ["ssh", "nas", "web", "default"].map(routed),
        [2.0, 1.0, 1.0, 1.0]
    );
    drop(client);
}
