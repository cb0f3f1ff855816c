//! `coracle demo`: shows the proxy at work in a terminal.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use coracle::demo::Demo;
use log::LevelFilter;
use smol::stream::StreamExt;

use super::stops::Hangup;
use super::{drive, start, told};
use crate::cli;

pub(crate) fn demo(cli::Demo { listen, admin }: cli::Demo) -> Result<ExitCode, String> {
    if collide(listen, admin) {
        let same = match listen == admin {
            true => "are the same address".to_owned(),
            false => format!("take the same port: {listen} and {admin}"),
        };
        return Err(told(format!("--listen and --admin {same}; choose another")));
    }
    let stops = start(LevelFilter::Warn, false, Hangup::Stops)?;
    let stops = stops.inspect(|signal| {
        // On a line of its own, below the terminal's ^C.
        let _ = writeln!(io::stdout(), "\n{signal}: the demo ends");
    });
    let Demo { proxy, rest } = Demo::start(listen, admin).map_err(told)?;
    // As it was called, so that the commands in the guide work from here.
    let program = std::env::args().next();
    let program = program.as_deref().unwrap_or("coracle");
    // The demo runs even if nobody reads its output.
    let _ = write!(io::stdout(), "{}", rest.guide(program));
    rest.start_clients().map_err(told)?;
    let exit = drive(proxy, stops);
    drop(rest);
    exit
}

/// Returns `true` if the two cannot both be listened on.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    // `[::]` takes IPv4 too.
    let covers =
        |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let overlap = a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip());
    a.port() == b.port() && a.port() != 0 && overlap
}

#[cfg(test)]
mod tests {
    use super::collide;

    #[test]
    fn only_addresses_that_overlap_collide() {
        let collides = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|it| it.parse().expect("an address"));
            assert_eq!(collide(a, b), collide(b, a));
            collide(a, b)
        };
        assert!(collides("127.0.0.1:80", "127.0.0.1:80"));
        assert!(collides("0.0.0.0:80", "127.0.0.1:80"));
        assert!(collides("[::]:80", "127.0.0.1:80"));
        assert!(!collides("0.0.0.0:80", "[::1]:80"));
        assert!(!collides("127.0.0.2:80", "127.0.0.1:80"));
        assert!(!collides("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!collides("127.0.0.1:0", "127.0.0.1:0"));
    }
}
