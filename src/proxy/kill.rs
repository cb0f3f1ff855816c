//! Ends connections that an operator has picked, or lists them, a few in each iteration of the loop.

use std::fmt::Write;
use std::time::Duration;

use super::ground::Ground;
use crate::config::{count, did_you_mean, printable};
use crate::state::{CloseReason, Conn, ConnId, Filter, Which};

/// How many connections one iteration of the loop ends or lists. To end one takes some tens of
/// microseconds, ten times as much on a small board, most of it in close(2), and the other
/// connections wait meanwhile.
const BATCH: usize = 16;
/// How long the loop may rest between two groups. Without a rest it would never sleep until all have
/// ended, and on a busy machine the kernel lets a process that never sleeps wait for the processor,
/// for many milliseconds at a time, with all its connections.
const REST: Duration = Duration::from_millis(1);

/// Ends the connections that `which` picks, or lists them.
///
/// # Errors
/// Returns a message if nothing can be meant: no such connection, entrypoint, service or server.
pub(super) async fn obey(
    ground: &Ground,
    which: &Which,
    is_dry_run: bool,
    by: &'static str,
) -> Result<String, String> {
    match is_dry_run {
        true => list(ground, which).await,
        false => kill(ground, which, by).await,
    }
}

/// Ends the connections that are open now and picked. Later ones stay.
async fn kill(ground: &Ground, which: &Which, by: &str) -> Result<String, String> {
    let ids = picked(ground, which)?;
    let killed = end_each(ground, &ids, CloseReason::Killed).await;
    let killed = count(killed, "connection");
    log::info!(which:% = which, by; "ended on command: {killed}");
    Ok(format!("{killed} ended"))
}

/// Lists the connections that [`kill`] would end, one on each line, and their number.
async fn list(ground: &Ground, which: &Which) -> Result<String, String> {
    let (mut lines, mut n) = (String::new(), 0);
    for batch in picked(ground, which)?.chunks(BATCH) {
        for conn in batch.iter().filter_map(|id| ground.shared.conns.get(*id)) {
            n += 1;
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{}", line(&conn));
        }
        ground.reactor.next_iteration().await;
    }
    Ok(format!("{lines}{} would be ended", count(n, "connection")))
}

/// Ends each of these connections that is still open, and returns once they have left the set.
/// Returns how many there were.
pub(super) async fn end_each(ground: &Ground, ids: &[ConnId], reason: CloseReason) -> usize {
    let (conns, reactor) = (&ground.shared.conns, &ground.reactor);
    let mut ended = 0;
    let mut batches = ids.chunks(BATCH).peekable();
    while let Some(batch) = batches.next() {
        let now = reactor.now();
        ended += batch
            .iter()
            .filter(|id| conns.kill(**id, reason, now))
            .count();
        // Their tasks are dropped meanwhile, and others have their turn.
        reactor.next_iteration().await;
        if batches.peek().is_some() {
            reactor.sleep(REST).await;
        }
    }
    ended
}

/// Returns the connections that are meant, the oldest first.
fn picked(ground: &Ground, which: &Which) -> Result<Vec<ConnId>, String> {
    let conns = &ground.shared.conns;
    let filter = match which {
        Which::Id(id) if conns.get(*id).is_some() => return Ok(vec![*id]),
        Which::Id(id) => {
            return Err(format!(
                "coracle: no open connection has the ID {id}; `coracle list` shows the IDs"
            ));
        }
        Which::Fitting(filter) => filter,
    };
    check_names(ground, filter)?;
    let mut ids = Vec::new();
    conns.for_each(|conn| {
        if filter.fits(conn) {
            ids.push(conn.id);
        }
    });
    ids.sort_unstable();
    Ok(ids)
}

/// Rejects a name that nothing has, which is mistyped.
fn check_names(ground: &Ground, filter: &Filter) -> Result<(), String> {
    let registry = &ground.shared.registry;
    let entrypoints = registry.entrypoints();
    let entrypoints = entrypoints.iter().map(|it| it.name());
    check_name(
        "entrypoint",
        &filter.entrypoint,
        &entrypoints.collect::<Vec<_>>(),
    )?;
    let servers = registry.servers();
    let services = servers.iter().map(|it| &*it.service.name);
    check_name("service", &filter.service, &services.collect::<Vec<_>>())?;
    let is_meant = |service: &str| filter.service.as_deref().is_none_or(|it| it == service);
    let meant = servers.iter().filter(|it| is_meant(&it.service.name));
    check_name(
        "server",
        &filter.server,
        &meant.map(|it| it.name()).collect::<Vec<_>>(),
    )
}

fn check_name(kind: &str, name: &Option<String>, known: &[&str]) -> Result<(), String> {
    match name {
        Some(name) if !known.contains(&name.as_str()) => {
            let meant = match did_you_mean(name, known.iter().copied()) {
                meant if meant.is_empty() => "; `coracle status` lists them".to_owned(),
                meant => meant,
            };
            let name = printable(name);
            Err(format!("coracle: no {kind} is called `{name}`{meant}"))
        }
        _ => Ok(()),
    }
}

/// Describes a connection, such as `12 from 10.0.0.1:5 at web, connected to 192.168.1.10:80`.
fn line(conn: &Conn) -> String {
    let (id, entrypoint) = (conn.id, printable(conn.entrypoint.name()));
    let peer = match conn.proxied() {
        None => conn.peer().to_string(),
        Some(_) => format!("{} via {}", conn.peer(), conn.socket_peer()),
    };
    match conn.server() {
        None => format!("{id} from {peer} at {entrypoint}, not connected to a server"),
        Some(server) => {
            let server = printable(server.name());
            format!("{id} from {peer} at {entrypoint}, connected to {server}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use smol::LocalExecutor;
    use smol::future::FutureExt;

    use super::super::capacity::Capacity;
    use super::super::notify::Manager;
    use super::super::run_tasks;
    use super::*;
    use crate::net::Reactor;
    use crate::state::Branch;
    use crate::state::{Guard, Peer, Protocol, Shared};

    /// Without a connection's sockets: what counts is when its task is dropped.
    #[test]
    fn five_thousand_end_in_batches_with_an_iteration_of_the_loop_for_each() {
        const CONNECTIONS: usize = 5_000;
        let ground = Ground {
            reactor: Reactor::new().expect("a loop"),
            executor: Rc::new(LocalExecutor::new()),
            shared: Rc::new(Shared::default()),
            names: Rc::default(),
            topology: Rc::default(),
            manager: Manager::from_env(),
            capacity: Rc::new(Cell::new(Capacity::default())),
        };
        let (reactor, shared) = (&ground.reactor, &ground.shared);
        let entrypoint = shared
            .registry
            .entrypoint("e", Protocol::Tcp, reactor.now());
        let service = Branch::only(&shared.registry.service("s"));
        for _ in 0..CONNECTIONS {
            let now = reactor.now();
            let guard = Guard::insert(&shared.conns, &entrypoint, Some(&service), Peer::Unix, now);
            let conn = guard.conn().clone();
            let task = ground.spawn(async move {
                let _guard = guard;
                std::future::pending().await
            });
            conn.owned_by(task);
        }
        let which = Which::Fitting(Filter {
            entrypoint: Some("e".to_owned()),
            ..Filter::default()
        });
        // Tasks run in order, so these begin after each connection's.
        let left_at_once = Rc::new(RefCell::new(Vec::new()));
        let (seen, at) = (left_at_once.clone(), ground.clone());
        // Another task of the loop, which has its turn once in each iteration.
        let _other = ground.spawn(async move {
            let mut before = CONNECTIONS;
            loop {
                at.reactor.next_iteration().await;
                let now = at.shared.conns.len();
                seen.borrow_mut().push(before - now);
                before = now;
            }
        });
        let at = ground.clone();
        let killing = ground.executor.spawn(async move {
            let told = kill(&at, &which, "test").await;
            (told, at.shared.conns.len())
        });
        let (told, left) = reactor.block_on(killing.or(run_tasks(&ground.executor)));
        assert_eq!(told, Ok("5000 connections ended".to_owned()));
        assert_eq!(left, 0, "the gauge is right when the answer is there");
        let left_at_once = left_at_once.take();
        assert!(
            left_at_once.len() >= CONNECTIONS / BATCH,
            "{left_at_once:?}"
        );
        let most = left_at_once.into_iter().max();
        assert!(most <= Some(BATCH), "{most:?} at once");
        assert_eq!(
            entrypoint.counters.closed.of(CloseReason::Killed).value(),
            5_000
        );
        assert!(entrypoint.open.is_empty());
    }
}
