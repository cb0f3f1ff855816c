//! The admin endpoint as the proxy runs it: its sockets, opened or shared, its orders and the
//! control socket's file.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use smol::Task;

use super::bind::BindError;
use super::commands::Commander;
use super::ground::Ground;
use super::ipv6::with_or_without_ipv6;
use crate::admin::{self, Token};
use crate::config::{self, Config, ControlSocket};
use crate::logging;
use crate::net::{UnixPath, UnixSocket};

/// The control socket's owner and group may connect.
const MODE: u32 = 0o660;

/// The part of a configuration that concerns the endpoint, with the token that it names.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Configured {
    pub(super) admin: config::Admin,
    hosts: Vec<String>,
    token: Option<Token>,
}

impl Configured {
    /// Reads the token too, and warns if it is no secret.
    ///
    /// # Errors
    /// Returns an error if there is no token in the file that the configuration names.
    pub(super) fn read(config: &Config) -> Result<Self, BindError> {
        let file = config.admin.token_file.as_deref();
        let token = file.map(|file| {
            let (token, is_public) =
                Token::read(file).map_err(|why| BindError::token(file, &why))?;
            if is_public {
                log::warn!(target: "setup", file:% = file.display();
                    "every user of this machine can read the token: chmod o-r the file");
            }
            Ok(token)
        });
        Ok(Self {
            admin: config.admin.clone(),
            hosts: config.admin_hosts.clone(),
            token: token.transpose()?,
        })
    }

    /// Says in words that the same file has another token.
    pub(super) fn token_change(&self, next: &Self) -> Option<&'static str> {
        let is_same_file = self.admin.token_file == next.admin.token_file;
        let is_same = !is_same_file || self.token == next.token;
        (!is_same).then_some("admin: another token in token_file")
    }
}

/// An endpoint whose sockets listen, with the control socket's file.
#[derive(Debug)]
pub(super) struct Endpoint(admin::Endpoint, Option<Rc<SocketFile>>);

/// An endpoint that serves. Dropping it ends it and removes the control socket's file.
#[derive(Debug)]
pub(super) struct Serving {
    handle: admin::Handle,
    /// The TCP address, with the actual port.
    address: Option<SocketAddr>,
    /// Answers the endpoint's requests from the event loop.
    answering: Task<()>,
    file: Option<Rc<SocketFile>>,
}

/// The control socket's file, removed when the last endpoint that shares it ends.
#[derive(Debug)]
struct SocketFile(UnixPath);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The endpoint's thread may not have closed the socket yet.
        self.0.remove();
    }
}

impl Endpoint {
    /// Returns the TCP address.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local_addr()
    }

    /// Opens the configured sockets. Returns `None` if there are none.
    ///
    /// Sockets whose configuration is unchanged are shared with the endpoint that serves `now`.
    ///
    /// # Errors
    /// Returns an error if a socket cannot be opened.
    pub(super) fn bind(
        configured: &config::Admin,
        now: Option<(&config::Admin, &Serving)>,
    ) -> Result<Option<Self>, BindError> {
        let tcp = configured.listen.map(|address| {
            let is_same = |(before, serving): &(&config::Admin, &Serving)| {
                [before.listen, serving.address].contains(&Some(address))
            };
            let now = now.filter(is_same);
            tcp(address, now.map(|(_, serving)| serving))
                .map_err(|error| BindError::listen("admin", &address, false, &error))
        });
        let tcp = tcp.transpose()?;
        let now = now.filter(|(before, _)| before.socket.path() == configured.socket.path());
        let control = control(&configured.socket, now.map(|(_, serving)| serving))?;
        let (control, file) = control.unzip();
        let endpoint = match (tcp, control) {
            (Some(tcp), Some(control)) => {
                admin::Endpoint::on_tcp(tcp).map(|endpoint| endpoint.with_control(control))
            }
            (Some(tcp), None) => admin::Endpoint::on_tcp(tcp),
            (None, Some(control)) => admin::Endpoint::on_control(control),
            (None, None) => return Ok(None),
        };
        let endpoint = endpoint.map_err(|error| BindError::endpoint(&error))?;
        Ok(Some(Self(endpoint, file)))
    }

    /// Starts serving on a dedicated thread.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub(super) fn start(
        self,
        ground: &Ground,
        configured: &Configured,
        commander: &Commander,
    ) -> Result<Serving, BindError> {
        let Self(endpoint, file) = self;
        let address = endpoint.local_addr();
        let commander = commander.clone();
        // Reading shows the addresses of clients, so other machines need the token for that too.
        let is_private = configured.admin.is_beyond_loopback() && !configured.admin.open;
        let started = endpoint
            .with_hosts(configured.hosts.clone())
            .with_token(configured.token.clone(), is_private)
            .with_log(logging::kept())
            .with_orders(Arc::new(move |order| commander.take(order)))
            .start();
        let (handle, answers) = started.map_err(|error| BindError::thread("admin", &error))?;
        let answering = answers.answer(ground.shared.clone());
        Ok(Serving {
            handle,
            address,
            answering: ground.spawn(answering),
            file,
        })
    }
}

impl Serving {
    /// Returns whether this endpoint, on a different address, prevents others from listening on
    /// `address`.
    pub(super) fn is_in_the_way(&self, address: SocketAddr) -> bool {
        let is_in_the_way = |own: SocketAddr| own != address && own.port() == address.port();
        self.address.is_some_and(is_in_the_way)
    }

    /// Returns whether the endpoint has the control socket.
    pub(super) fn takes_orders(&self) -> bool {
        self.file.is_some()
    }

    /// Ends the endpoint without cutting an answer short. Its sockets close immediately, except
    /// those shared with another endpoint. Returns a task that ends with the endpoint's thread.
    pub(super) fn retire(self) -> Task<()> {
        self.handle.retire();
        self.answering
    }
}

fn tcp(address: SocketAddr, now: Option<&Serving>) -> io::Result<TcpListener> {
    if let Some(serving) = now
        && let Some(tcp) = serving.handle.try_clone_tcp()?
    {
        return Ok(tcp);
    }
    // The standard library sets SO_REUSEADDR and FD_CLOEXEC.
    let tcp = with_or_without_ipv6(address, TcpListener::bind)?;
    let address = tcp.local_addr().unwrap_or(address);
    log::info!(target: "setup", address:% = address; "admin endpoint listening");
    Ok(tcp)
}

type Controlled = (admin::Control, Rc<SocketFile>);

fn control(
    configured: &ControlSocket,
    now: Option<&Serving>,
) -> Result<Option<Controlled>, BindError> {
    let Some(path) = configured.path() else {
        return Ok(None);
    };
    let shared = now.and_then(|serving| {
        let control = serving.handle.try_clone_control().ok().flatten()?;
        Some((control, serving.file.clone()?))
    });
    if shared.is_some() {
        return Ok(shared);
    }
    let bound = match configured {
        ControlSocket::Default => has_directory(path).and_then(|()| bind_control(path)),
        _ => bind_control(path),
    };
    match (bound, configured) {
        (Ok(control), _) => {
            log::info!(target: "setup", path:% = path.display(); "control socket listening");
            Ok(Some(control))
        }
        (Err(error), ControlSocket::Default) => {
            log::debug!(target: "setup", path:% = path.display(); "no control socket: {error}");
            Ok(None)
        }
        (Err(error), _) => {
            let address = format!("unix:{}", path.display());
            Err(BindError::listen("admin", &address, false, &error))
        }
    }
}

/// Checks that the socket's directory exists. Usually it does not, and then binding is not
/// attempted.
fn has_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::metadata(directory).map(drop)
}

fn bind_control(path: &Path) -> io::Result<Controlled> {
    let socket = UnixSocket::bind(path)?;
    // Before any client can connect.
    socket.path().set_mode(MODE)?;
    let (listener, path) = socket.listen()?;
    let file = Rc::new(SocketFile(path));
    Ok((admin::Control::new(listener)?, file))
}
