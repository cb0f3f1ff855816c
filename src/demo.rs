//! The demo: web servers, clients that connect and disconnect, and coracle between them, all in one
//! process.

mod clients;
mod home;
mod servers;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use crate::config::{Config, printable};
use crate::proxy::{BindError, Proxy};
use clients::{CLIENTS, DOWNLOADER};
use home::Home;
use servers::{HEALTH, WebServer};

/// The web servers' page.
const PAGE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>coracle</title>\
<body style=\"font-family:sans-serif;max-width:40em;margin:4em auto\">\
<h1>It floats.</h1><p>This page came through coracle from server SERVER. Load it again, and watch \
<a href=\"http://ADMIN/\">coracle's own page</a>.</body></html>\n";

/// The names of the web servers. The second one fails now and then.
const SERVERS: [&str; 2] = ["steady", "shaky"];

/// A demo whose proxy listens and whose web servers answer.
#[derive(Debug)]
pub struct Demo {
    /// The proxy, ready to run.
    pub proxy: Proxy,
    /// What must stay until the proxy has ended.
    pub rest: Rest,
}

/// What a demo has beside its proxy. Dropping it removes the control socket's directory.
#[derive(Debug)]
pub struct Rest {
    listen: SocketAddr,
    admin: SocketAddr,
    home: Home,
}

/// Why the demo cannot start, in one line.
#[derive(Debug)]
pub struct DemoError(String);

impl DemoError {
    fn new(why: impl fmt::Display) -> Self {
        Self(format!("demo: {why}"))
    }
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DemoError {}

impl From<BindError> for DemoError {
    fn from(error: BindError) -> Self {
        Self(error.to_string())
    }
}

impl Demo {
    /// Starts the web servers and binds the proxy in front of them.
    ///
    /// # Errors
    /// If it cannot listen on an address, or has no place for its control socket.
    pub fn start(listen: SocketAddr, admin: SocketAddr) -> Result<Self, DemoError> {
        let home = Home::create().map_err(|error| {
            DemoError::new(format!(
                "cannot create a directory for the control socket: {error}; give one with the variable TMPDIR"
            ))
        })?;
        let mut servers = Vec::new();
        for name in SERVERS {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(no_web_server)?;
            let address = listener.local_addr().map_err(no_web_server)?;
            servers.push((name, listener, address));
        }
        let addresses = [servers[0].2, servers[1].2];
        let proxy = Proxy::bind(&config(listen, admin, addresses, home.socket())?)?;
        let admin = proxy.admin_address().unwrap_or(admin);
        let page = PAGE.replace("ADMIN", &admin.to_string());
        for (name, listener, _) in servers {
            let server = Arc::new(WebServer {
                page: page.replace("SERVER", name),
                is_ill: false.into(),
            });
            if name == SERVERS[1] {
                let server = server.clone();
                start(
                    "demo failure",
                    Box::new(move || server.fall_ill_and_recover()),
                )?;
            }
            start("demo server", Box::new(move || server.serve(&listener)))?;
        }
        Ok(Self {
            rest: Rest {
                listen: proxy.addresses("web").first().copied().unwrap_or(listen),
                admin,
                home,
            },
            proxy,
        })
    }
}

impl Rest {
    /// Starts the clients.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start_clients(&self) -> Result<(), DemoError> {
        let mut proxy = self.listen;
        if proxy.ip().is_unspecified() && proxy.is_ipv4() {
            proxy.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        for (own, habit) in CLIENTS {
            start("demo client", Box::new(move || habit.live(own, proxy)))?;
        }
        Ok(())
    }

    /// Says what to open, what to watch and what to do, with commands that start `program`.
    #[must_use]
    pub fn guide(&self, program: &str) -> String {
        let Self { listen, admin, .. } = self;
        let port = listen.port();
        let socket = printable(&self.home.socket().to_string_lossy());
        let program = printable(program);
        format!(
            "coracle demo: two web servers, clients, an endless download to kill, and coracle between them

  page     http://{admin}/
  open     http://{listen}/   (from two servers; the second one fails now and then)
  top      {program} top --admin unix:{socket}
  kill     {program} kill --socket {socket} --peer {DOWNLOADER}
  watch    curl -s {admin}/metrics | grep open_connections
  compare  ss -Htane '( sport = :{port} )' | grep -v LISTEN | grep -vc 'ino:0 '
  end      Ctrl-C
"
        )
    }
}

/// Parses the demo's configuration from text like any other, so that it is checked and has the same
/// defaults. It does not drain, since all connections are the demo's own, and its admin endpoint has
/// nothing to hide.
fn config(
    listen: SocketAddr,
    admin: SocketAddr,
    [steady, shaky]: [SocketAddr; 2],
    socket: PathBuf,
) -> Result<Config, DemoError> {
    let socket = socket.display();
    let [first, second] = SERVERS;
    let text = format!(
        "drain_timeout = \"0s\"
[admin]
listen = \"{admin}\"
open = true
socket = '{socket}'
[log]
level = \"warn\"
[entrypoints.web]
listen = \"{listen}\"
service = \"pages\"
[services.pages]
servers = [
    {{ address = \"{steady}\", name = \"{first}\" }},
    {{ address = \"{shaky}\", name = \"{second}\" }},
]
on_down = \"close\"
health = {{ kind = \"http\", path = \"{HEALTH}\", interval = \"1s\", fall = 2 }}
"
    );
    Config::parse("demo", &text, &[]).map_err(|errors| {
        let messages = errors.told.into_iter().map(|told| told.message);
        DemoError::new(messages.collect::<Vec<_>>().join("; "))
    })
}

fn start(name: &str, body: Box<dyn FnOnce() + Send>) -> Result<(), DemoError> {
    let started = thread::Builder::new().name(name.into()).spawn(body);
    started
        .map(drop)
        .map_err(|error| DemoError::new(format!("no thread can be started: {error}")))
}

fn no_web_server(error: io::Error) -> DemoError {
    DemoError::new(format!(
        "the web server cannot listen on 127.0.0.1: {error}"
    ))
}
