//! Where a connection goes, by the rules of its entrypoint: reads no more of what the client sends
//! than decides that.

use std::convert::Infallible;
use std::future::poll_fn;

use smol::future::FutureExt;

use super::broken::lost_client;
use super::prologue::{Failure, read};
use super::route::{Destination, Route, Rules};
use crate::net::EarlyData;
use crate::state::{CloseReason, Conn, decide, most_bytes};

/// Returns where the connection goes, and notes it in the entry. What is read of the client stays in
/// `opening`.
pub(super) async fn destination<'a>(
    conn: &Conn,
    route: &'a Route,
    rules: &'a Rules,
    opening: &EarlyData<'_>,
) -> Result<&'a Destination, CloseReason> {
    let from = conn.peer().ip();
    let decided = |may_grow| opening.look(|bytes| decide(&rules.rules, from, bytes, may_grow));
    let rule = match decided(true) {
        Some(rule) => rule,
        None => {
            conn.reads_prologue(true, route.reactor.now());
            let rule = match read_rule(conn, route, rules, opening).await? {
                Some(rule) => rule,
                // No more bytes will come, or not in time.
                None => decided(false).flatten(),
            };
            conn.reads_prologue(false, route.reactor.now());
            rule
        }
    };
    let to = match rule {
        Some(rule) => rules.to.get(rule),
        None => route.to.as_ref(),
    };
    let Some(to) = to else {
        log::info!(entrypoint = conn.entrypoint.name(), peer:% = conn.peer();
            "none of the `routes` fits, and there is no `service` for the others; closed");
        return Err(CloseReason::NoRoute);
    };
    conn.takes(&to.branch);
    Ok(to)
}

/// Reads until the bytes decide about the rule. Returns `None` if the client finishes sending before
/// that, or sends nothing within `default_after`.
async fn read_rule(
    conn: &Conn,
    route: &Route,
    rules: &Rules,
    opening: &EarlyData<'_>,
) -> Result<Option<Option<usize>>, CloseReason> {
    let most = most_bytes(&rules.rules);
    if let Some(after) = rules.default_after
        && opening.look(<[u8]>::is_empty)
    {
        let first = async { Some(poll_fn(|cx| opening.poll_more(cx, most)).await) };
        let silent = async {
            route.reactor.sleep(after).await;
            None
        };
        match first.or(silent).await {
            None | Some(Ok(0)) => return Ok(None),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(lost_client(&error)),
        }
    }
    let from = conn.peer().ip();
    let judge = |bytes: &[u8]| Ok::<_, Infallible>(decide(&rules.rules, from, bytes, true));
    match read(conn, route, opening, most, judge).await {
        Ok(rule) => Ok(Some(rule)),
        Err(Failure::Cut) => Ok(None),
        Err(Failure::Broken(error)) => Err(lost_client(&error)),
        Err(Failure::Wrong(never)) => match never {},
        Err(Failure::Late) => {
            let limit = humantime::format_duration(route.prologue_timeout);
            log::info!(entrypoint = conn.entrypoint.name(), peer:% = conn.peer();
                "no bytes that decide between the `routes` within {limit} (prologue_timeout); closed");
            Err(CloseReason::Prologue)
        }
    }
}
