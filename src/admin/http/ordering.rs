//! Orders over HTTP: what a request asks for, and the response.

use std::path::PathBuf;
use std::time::Duration;

use http_types::StatusCode;
use smol::channel::bounded;

use super::answer::{Answer, silence, text};
use super::request::Head;
use crate::admin::api;
use crate::admin::orders::paths::{DRAIN, KILL, LOG_LEVEL, RELOAD, SERVER, STOP};
use crate::admin::orders::{Ask, Order, Orders};
use crate::admin::park::Park;
use crate::admin::sockets::Caller;
use crate::state::{AdminState, Filter, Label as _, Which};

/// Where orders go, and where they come from without a token.
#[derive(Debug)]
pub(crate) struct Ordering {
    /// The function that takes them.
    pub orders: Option<Orders>,
    /// The path of the control socket.
    pub path: Option<PathBuf>,
    /// How long an order may take.
    pub limit: Duration,
}

impl Ordering {
    /// Passes an order on and waits for its answer.
    pub(super) async fn obey(&self, head: &Head, park: &Park) -> Answer {
        let ask = match &*head.path {
            SERVER => for_server(head),
            KILL => for_connections(head),
            LOG_LEVEL => log_level(head),
            DRAIN => bare(head, Ask::Drain),
            STOP => bare(head, Ask::Stop),
            _ => reload(head),
        };
        let ask = match ask {
            Ok(ask) => ask,
            Err(why) => {
                let why = format!("400 Bad Request: {why}\n");
                return text(StatusCode::BadRequest, &why);
            }
        };
        let Some(Orders(orders)) = &self.orders else {
            return silence();
        };
        let (answer, told) = bounded(1);
        let by = match head.access.caller {
            Caller::Tcp(_) => "token",
            _ => "control socket",
        };
        orders(Order { ask, by, answer });
        match park.within(self.limit, told.recv()).await {
            Some(Ok(Ok(changes))) => text(StatusCode::Ok, &lines(&changes)),
            Some(Ok(Err(why))) => text(StatusCode::UnprocessableEntity, &lines(&why)),
            Some(Err(_)) | None => silence(),
        }
    }

    /// Creates the response to an order that arrives over TCP where there is no token.
    pub(super) fn only_there(&self, path: &str) -> Answer {
        let mut how = match &self.path {
            Some(path) => format!("this needs the control socket {}", path.display()),
            None => "this needs the control socket, and there is none (`socket` in [admin] of the configuration)".to_owned(),
        };
        let command = path.rsplit('/').next().unwrap_or_default();
        how += &match (path, &self.path) {
            (DRAIN | STOP, _) => "; or send SIGTERM to the process".to_owned(),
            (_, Some(_)) => format!(", which `coracle {command}` uses"),
            (RELOAD, None) => "; send SIGHUP to the process instead".to_owned(),
            (_, None) => String::new(),
        };
        text(
            StatusCode::Forbidden,
            &format!("403 Forbidden: {how}; to order it over TCP, set `token_file` in [admin]\n"),
        )
    }
}

/// Returns what an order for a server asks for.
///
/// # Errors
/// Returns what is wrong with the request.
fn for_server(head: &Head) -> Result<Ask, String> {
    const PARAMETERS: &str =
        "the parameters are ?service=NAME&server=NAME&state= and drain, ready or down";
    let (mut service, mut server, mut state) = (None, None, None);
    for (key, value) in head.parameters() {
        let value = value.into_owned();
        match &*key {
            "service" => service = Some(value),
            "server" => server = Some(value),
            "state" => state = AdminState::ALL.iter().find(|it| it.label() == value),
            _ => return Err(PARAMETERS.to_owned()),
        }
    }
    match (service, server, state) {
        (Some(service), Some(server), Some(state)) => Ok(Ask::Server {
            service,
            server,
            state: *state,
        }),
        _ => Err(PARAMETERS.to_owned()),
    }
}

/// Returns what an order to end connections asks for. It must say which: nobody ends all of them by
/// a parameter that is missing.
///
/// # Errors
/// Returns what is wrong with the request.
fn for_connections(head: &Head) -> Result<Ask, String> {
    const PARAMETERS: &str = "the parameters are ?id=ID, or one or more of ?peer=NETWORK&entrypoint=NAME&service=NAME&server=NAME, and &dry-run";
    let (mut id, mut peer, mut filter, mut dry_run) = (None, None, Filter::default(), None);
    for (key, value) in head.parameters() {
        let place = match &*key {
            "id" => &mut id,
            "peer" => &mut peer,
            "entrypoint" => &mut filter.entrypoint,
            "service" => &mut filter.service,
            "server" => &mut filter.server,
            "dry-run" if value.is_empty() => &mut dry_run,
            _ => return Err(PARAMETERS.to_owned()),
        };
        if place.replace(value.into_owned()).is_some() {
            return Err(format!("`{key}` is given twice; {PARAMETERS}"));
        }
    }
    let peer = peer.map(|peer| peer.parse().map_err(|why| format!("peer: {why}")));
    filter.peer = peer.transpose()?;
    let id = id.map(|id| id.parse().map_err(|why| format!("id: {why}")));
    let which = match (id.transpose()?, filter.is_empty()) {
        (Some(id), true) => Which::Id(id),
        (None, false) => Which::Fitting(filter),
        _ => return Err(PARAMETERS.to_owned()),
    };
    let is_dry_run = dry_run.is_some();
    Ok(Ask::Kill { which, is_dry_run })
}

/// Returns what an order for the log asks for.
///
/// # Errors
/// Returns what is wrong with the request.
fn log_level(head: &Head) -> Result<Ask, String> {
    let mut pairs = head.parameters();
    match (pairs.next(), pairs.next()) {
        (Some((key, value)), None) if key == "level" => {
            let level = api::level(&value).map_err(|why| format!("level: {why}"))?;
            Ok(Ask::LogLevel(level.to_level_filter()))
        }
        _ => Err("the parameter is ?level= and error, warn, info or debug".to_owned()),
    }
}

/// Returns what an order without parameters asks for.
///
/// # Errors
/// Returns what is wrong with the request.
fn bare(head: &Head, ask: Ask) -> Result<Ask, String> {
    match &head.query {
        None => Ok(ask),
        Some(_) => Err("there are no parameters".to_owned()),
    }
}

/// Returns what an order to reload asks for. An unknown parameter is an error: `?dryrun` must not reload.
///
/// # Errors
/// Returns what is wrong with the request.
fn reload(head: &Head) -> Result<Ask, String> {
    let (mut is_dry_run, mut name) = (false, None);
    for (key, value) in head.parameters() {
        match &*key {
            "dry-run" if value.is_empty() => is_dry_run = true,
            "name" => name = Some(value.into_owned()),
            _ => return Err("the parameters are ?dry-run and &name=FILE".to_owned()),
        }
    }
    // A name without a text means an empty file.
    let has_text = name.is_some() || !head.body.is_empty();
    match (is_dry_run, has_text) {
        (true, true) => {
            let text = String::from_utf8(head.body.clone());
            let text = text.map_err(|_| "the configuration is not UTF-8 text".to_owned())?;
            let name = name.unwrap_or_else(|| "configuration".to_owned());
            Ok(Ask::DryRun(Some((name, text))))
        }
        (true, false) => Ok(Ask::DryRun(None)),
        (false, true) => Err("a reload rereads the file that coracle was started with; only ?dry-run takes another configuration".to_owned()),
        (false, false) => Ok(Ask::Reload),
    }
}

/// Returns the text with a newline after its last line.
fn lines(text: &str) -> String {
    match text.is_empty() {
        true => String::new(),
        false => format!("{text}\n"),
    }
}
