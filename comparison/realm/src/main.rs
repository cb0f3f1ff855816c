//! Relays one port with realm's library (github.com/zhboner/realm), on one thread:
//! `realm -l ADDRESS -r ADDRESS`.

use std::net::SocketAddr;
use std::process::ExitCode;

use realm_core::endpoint::{BindOpts, ConnectOpts, Endpoint, RemoteAddr};
use realm_core::tcp::run_tcp;

const USAGE: &str = "A relay by realm's library: realm -l LISTEN -r REMOTE, for example realm -l 127.0.0.1:8080 -r 127.0.0.1:80";

/// The defaults of realm itself, in seconds (`tcp_timeout`, `tcp_keepalive`) and probes.
const TIMEOUT: usize = 5;
const KEEPALIVE: usize = 15;
const PROBES: usize = 3;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (listen, remote) = match words[..] {
        ["-l", listen, "-r", remote] => (listen, remote),
        ["--help"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        ["--version"] => {
            println!("realm_core 0.5.1");
            return ExitCode::SUCCESS;
        }
        _ => return fail(USAGE),
    };
    let (Ok(laddr), Ok(raddr)) = (listen.parse(), remote.parse::<SocketAddr>()) else {
        return fail(USAGE);
    };
    let endpoint = Endpoint {
        laddr,
        raddr: RemoteAddr::SocketAddr(raddr),
        bind_opts: BindOpts::default(),
        conn_opts: ConnectOpts {
            connect_timeout: TIMEOUT,
            tcp_keepalive: KEEPALIVE,
            tcp_keepalive_probe: PROBES,
            ..ConnectOpts::default()
        },
        extra_raddrs: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime.and_then(|runtime| runtime.block_on(run_tcp(endpoint)));
    fail(&format!("realm: it has ended: {ended:?}"))
}

fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}
