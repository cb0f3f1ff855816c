//! ClientHellos of real clients: each prefix asks for more, and no changed byte makes another name
//! of the server's, unless it is one of the name.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use coracle::wire::client_hello::{ClientHello, parse};
use coracle::wire::first_bytes::Protocol;

use crate::support::hello_oracle::{Reading, read};
use crate::support::{DEADLINE, has_tool, until};

const NAME: &str = "nas.example.org";

/// A client that ends with the test.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program that `command` returns for the address of a listener, and returns the first
/// ClientHello that it sends.
fn sent_by(command: impl FnOnce(SocketAddr) -> Command) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = command(listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    let client = command.stdin(Stdio::null()).stdout(Stdio::null());
    let _client = Client(client.stderr(Stdio::null()).spawn().unwrap());
    loop {
        let mut stream = until("the client connects", || Some(listener.accept().ok()?.0));
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut bytes = Vec::new();
        let mut some = [0; 4096];
        // A browser opens connections on which it sends nothing.
        while let Ok(n @ 1..) = stream.read(&mut some) {
            bytes.extend(&some[..n]);
            if bytes.ends_with(b"\r\n\r\n") && bytes.starts_with(b"CONNECT ") {
                std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                bytes.clear();
            }
            if read(&bytes).is_some() {
                return bytes;
            }
        }
    }
}

fn openssl(address: SocketAddr, more: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    let connect = address.to_string();
    command.args(["s_client", "-connect", &connect]).args(more);
    command
}

/// Checks everything about `bytes`, which are a ClientHello with `name` and these protocols.
fn check(client: &str, bytes: &[u8], name: Option<&str>, alpn: &[&str]) {
    let expected = ClientHello {
        server_name: name.map(Into::into),
        alpn: alpn.iter().map(|it| it.as_bytes().into()).collect(),
    };
    assert_eq!(parse(bytes), Ok(Some(expected.clone())), "{client}");
    let reading = read(bytes).unwrap();
    assert!(reading.says(&expected), "{client}: {reading:?}");
    assert_eq!(Protocol::Tls.matches(bytes), Some(true), "{client}");
    for end in 0..bytes.len() {
        // The last bytes of a record may lie behind the hello.
        let answer = parse(&bytes[..end]).unwrap();
        assert!(
            answer.is_none() || answer.as_ref() == Some(&expected),
            "{client} {end}"
        );
        assert_eq!(
            answer.is_some(),
            read(&bytes[..end]).is_some(),
            "{client} {end}"
        );
    }
    let mut mutant = bytes.to_vec();
    let mut said = 0;
    for at in 0..bytes.len() {
        let says = reading.name_at.contains(&at) || reading.alpn_at.contains(&at);
        for mask in 1..=u8::MAX {
            mutant[at] = bytes[at] ^ mask;
            // The slow reader need not confirm that nothing has changed.
            let is_same = !says && parse(&mutant).is_ok_and(|it| it.as_ref() == Some(&expected));
            said += usize::from(is_same || check_mutant(client, &mutant, at, &reading));
        }
        mutant[at] = bytes[at];
    }
    // Random bytes and keys may be anything.
    assert!(said > 32 * 255, "{client}: only {said} mutants are hellos");
}

/// Checks a hello with another byte at `at`. Returns whether it still is one.
fn check_mutant(client: &str, mutant: &[u8], at: usize, original: &Reading) -> bool {
    let parsed = parse(mutant);
    let Some(reading) = read(mutant) else {
        assert!(
            !matches!(parsed, Ok(Some(_))),
            "{client}: byte {at}: {parsed:?}"
        );
        return false;
    };
    let Ok(Some(hello)) = parsed else {
        panic!("{client}: byte {at}: {parsed:?}, but {reading:?}");
    };
    assert!(
        reading.says(&hello),
        "{client}: byte {at}: {hello:?}, but {reading:?}"
    );
    let is_named = hello.server_name.is_some() && !original.name_at.contains(&at);
    let is_same = reading.name == original.name;
    assert!(
        !is_named || is_same,
        "{client}: byte {at}: {:?}",
        hello.server_name
    );
    let is_offered = !hello.alpn.is_empty() && !original.alpn_at.contains(&at);
    let is_same = reading.alpn == original.alpn;
    assert!(
        !is_offered || is_same,
        "{client}: byte {at}: {:?}",
        hello.alpn
    );
    true
}

#[test]
fn hellos_of_openssl_are_read() {
    if !has_tool("openssl") {
        return;
    }
    let named = ["-servername", "NAS.example.org", "-alpn", "h2,http/1.1"];
    let bytes = sent_by(|at| openssl(at, &named));
    check("openssl", &bytes, Some(NAME), &["h2", "http/1.1"]);
    let bytes = sent_by(|at| openssl(at, &["-servername", NAME, "-tls1_2"]));
    check("openssl -tls1_2", &bytes, Some(NAME), &[]);
    let bytes = sent_by(|at| openssl(at, &["-noservername"]));
    check("openssl -noservername", &bytes, None, &[]);
    let bytes = sent_by(|at| openssl(at, &["-servername", "192.0.2.1"]));
    check("openssl, an address", &bytes, None, &[]);
    // In records of 512 bytes.
    let protocols: Vec<_> = (0..100).map(|n| format!("protocol-{n}")).collect();
    let protocols: Vec<_> = protocols.iter().map(String::as_str).collect();
    let list = protocols.join(",");
    let cut = ["-servername", NAME, "-max_send_frag", "512", "-alpn", &list];
    let bytes = sent_by(|at| openssl(at, &cut));
    assert_eq!(bytes[3..5], [2, 0], "the first record has not 512 bytes");
    check("openssl -max_send_frag", &bytes, Some(NAME), &protocols);
}

#[test]
fn hellos_of_gnutls_are_read() {
    if !has_tool("gnutls-cli") {
        return;
    }
    for (name, sent) in [(Some(NAME), NAME), (None, "")] {
        let bytes = sent_by(|at| {
            let mut command = Command::new("gnutls-cli");
            let port = at.port().to_string();
            command.args(["--alpn", "h2", "--port", &port, "127.0.0.1"]);
            match sent {
                "" => command.arg("--disable-sni"),
                _ => command.args(["--sni-hostname", sent]),
            };
            command
        });
        check("gnutls", &bytes, name, &["h2"]);
    }
}

#[test]
fn hellos_of_curl_are_read() {
    if !has_tool("curl") {
        return;
    }
    let bytes = sent_by(|at| {
        let mut command = Command::new("curl");
        let resolve = format!("{NAME}:{}:127.0.0.1", at.port());
        let url = format!("https://{NAME}:{}/", at.port());
        command.args(["--no-alpn", "--noproxy", "*", "--resolve", &resolve, &url]);
        command
    });
    check("curl", &bytes, Some(NAME), &[]);
}

/// uv is a program with rustls, whose hello has a post-quantum key share. It reaches the name
/// through a proxy.
#[test]
fn hellos_of_rustls_are_read() {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/uv/bin/uv");
    let tool = std::env::var_os("CORACLE_UV").map_or(tool, PathBuf::from);
    if !tool.exists() {
        let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
        assert!(!required, "uv is not installed");
        println!("skipped: uv is not installed; `.ci/run` does that");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let wanted = folder.path().join("requirements.in");
    std::fs::write(&wanted, "anything\n").unwrap();
    let bytes = sent_by(|at| {
        let mut command = Command::new(tool);
        let index = format!("https://{NAME}/simple");
        command.args([
            "pip",
            "compile",
            "--no-cache",
            "--no-config",
            "--index-url",
            &index,
        ]);
        command
            .arg(&wanted)
            .env_remove("NO_PROXY")
            .env_remove("no_proxy");
        command.env("HTTPS_PROXY", format!("http://{at}"));
        command
    });
    assert!(bytes.len() > 1_400, "no key share of ML-KEM");
    check("rustls", &bytes, Some(NAME), &["h2", "http/1.1"]);
}

#[test]
fn hellos_of_chromium_are_read() {
    if !has_tool("chromium") {
        return;
    }
    let profile = tempfile::tempdir().unwrap();
    let bytes = sent_by(|at| {
        let mut command = Command::new("chromium");
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-proxy-server",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg(format!("--host-resolver-rules=MAP {NAME} 127.0.0.1"));
        command.arg(format!("https://{NAME}:{}/", at.port()));
        command
    });
    assert!(bytes.len() > 1_400, "no key share of ML-KEM");
    check("chromium", &bytes, Some(NAME), &["h2", "http/1.1"]);
}

#[test]
fn recorded_hellos_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/client_hello");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let hello = parse(&bytes).unwrap().unwrap();
        let name = (!path.ends_with("openssl-no-name")).then_some(NAME);
        assert_eq!(hello.server_name.as_deref(), name, "{}", path.display());
        read += 1;
    }
    assert!(read >= 6, "only {read} recordings");
}
