//! The responses of the API: its paths, and the work behind those that are generated.

use std::fmt;
use std::rc::Rc;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_types::{Method, StatusCode};

use super::answer::{Answer, problem, with_body};
use super::gate::{self, Access, Proof};
use super::request::Head;
use super::routes::{Made, Routes, made};
use crate::admin::agreement::{self, Listed};
use crate::admin::api::{self, Invalid, List, LogQuery, Part, Query};
use crate::admin::body::Body;
use crate::admin::json::Json;
use crate::admin::sockets::Caller;
use crate::admin::texts;
use crate::state::{AccountNumbers, Entries, KeptLines, LogLines, Snapshot};

const JSON: &str = "application/json";

/// What the API serves.
#[derive(Clone, Copy)]
enum Resource {
    Access,
    Agreement,
    List(List),
    Description,
    Events,
    History,
    Logs,
    Status(Part),
}

/// The query of an audit that lists only what differs.
const ONLY_DIFFERING: &str = "only=differing";

/// The paths after `/api/v1/`.
const RESOURCES: [(&str, Resource); 13] = [
    ("access", Resource::Access),
    ("accounting", Resource::List(List::Accounts)),
    ("agreement", Resource::Agreement),
    ("clients", Resource::List(List::Clients)),
    ("connections", Resource::List(List::Connections)),
    ("entrypoints", Resource::Status(Part::Entrypoints)),
    ("events", Resource::Events),
    ("history", Resource::History),
    ("logs", Resource::Logs),
    ("openapi.json", Resource::Description),
    ("servers", Resource::Status(Part::Servers)),
    ("services", Resource::Status(Part::Services)),
    ("status", Resource::Status(Part::All)),
];

impl Routes {
    /// Returns the response to a request to read a path of the API.
    pub(super) async fn api(&self, head: &Head) -> Answer {
        let access = head.access;
        let name = head.path.strip_prefix("/api/v1/");
        let resource = RESOURCES.iter().find(|(own, _)| Some(*own) == name);
        let Some((_, resource)) = resource else {
            let detail = "no such path; /api/v1/openapi.json lists them";
            return problem(StatusCode::NotFound, detail, None);
        };
        let is_short = matches!(resource, Resource::Agreement)
            && head.query.as_deref() == Some(ONLY_DIFFERING);
        let parameters = match resource {
            Resource::List(_) | Resource::Logs => Ok(()),
            Resource::Agreement if is_short => Ok(()),
            Resource::Agreement => api::no_parameters(head.parameters()).map_err(|wrong| Invalid {
                why: format!("the only parameter is {ONLY_DIFFERING}"),
                ..wrong
            }),
            _ => api::no_parameters(head.parameters()),
        };
        if let Err(wrong) = parameters {
            return invalid(&wrong);
        }
        let answer = match resource {
            Resource::Access => return self.access(access),
            Resource::Agreement if is_short => self.audits.ask(Listed::Differing).await,
            Resource::Agreement => self.audits.ask(Listed::All).await,
            Resource::Description => Some(Ok(Body::of(&texts::openapi()))),
            Resource::Events => return self.events(head),
            Resource::History => self.histories.ask(()).await,
            Resource::List(list) => match Query::parse(*list, head.parameters()) {
                Ok(query) => self.connections.ask(query).await,
                Err(wrong) => return invalid(&wrong),
            },
            Resource::Logs => match LogQuery::parse(head.parameters()) {
                Ok(query) => Some(self.logs(query).await),
                Err(wrong) => return invalid(&wrong),
            },
            Resource::Status(part) => self.statuses.ask(*part).await,
        };
        made(answer, JSON)
    }

    /// Says what the client may do.
    fn access(&self, access: Access) -> Answer {
        let by = match (access.may_order(), access.caller) {
            (false, _) => "null",
            (true, Caller::Control) => "\"control socket\"",
            (true, _) => "\"token\"",
        };
        let token = match access.proof {
            Proof::NotConfigured => "not configured",
            Proof::Missing => "missing",
            Proof::Accepted => "accepted",
            proof @ (Proof::Wrong | Proof::TooMany(_)) => return gate::refuse(proof, true),
        };
        let version = Json(env!("CARGO_PKG_VERSION"));
        let (reads, acts) = (self.gate.may_read(access), access.may_order());
        let json = format!(
            "{{\"coracle\":{version},\"reads\":{reads},\"acts\":{acts},\"by\":{by},\"token\":\"{token}\"}}"
        );
        with_body(StatusCode::Ok, JSON, Body::of(&json))
    }

    /// Makes an answer with log lines. They need nothing from the data loop, so they are there even
    /// when it hangs.
    async fn logs(&self, query: LogQuery) -> Made {
        // One after the other, each with its rest, as the work of the desks.
        let _turn = self.log_turn.lock().await;
        let kept = self.kept().get(query.least, query.after, query.limit);
        let write = async |body: &mut Body, kept: &KeptLines| api::write_logs(body, kept);
        let (made, took) = self.make(Some(&kept), write).await;
        self.rest(took).await;
        made
    }

    fn kept(&self) -> MutexGuard<'_, LogLines> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self, head: &Head) -> Answer {
        let mut answer = with_body(StatusCode::Ok, "text/event-stream", Body::of(""));
        if head.method == Method::Head {
            return answer;
        }
        answer.events = self.feed.join(head.access.caller == Caller::Control);
        if answer.events.is_none() {
            let detail = "too many clients read events; try again when one has left";
            return problem(StatusCode::ServiceUnavailable, detail, None);
        }
        answer
    }

    pub(super) async fn make_audit(&self) {
        self.audits.wanted().await;
        drop(self.room.free().await);
        let begun = Instant::now();
        let mut waiting = self.audits.take();
        while let Some(first) = waiting.first() {
            let listed = first.question;
            let these = waiting.extract_if(.., |waiting| waiting.question == listed);
            let these: Vec<_> = these.collect();
            let (moments, kernel, park) = (&self.moments, &self.kernel, &self.park);
            let audit = agreement::audit(moments, kernel, park, &self.room, listed).await;
            let made = audit.map(Rc::new).ok_or(StatusCode::ServiceUnavailable);
            for waiting in these {
                waiting.tell(made.clone());
            }
            // The readers hold it now.
        }
        let took = begun.elapsed();
        self.rest(took).await;
    }

    pub(super) async fn make_status(&self) {
        self.statuses.wanted().await;
        drop(self.room.free().await);
        self.moments.rested().await;
        let mut waiting = self.statuses.take();
        // Those who ask from here on need a later copy than this.
        let snapshot = self.moments.snapshot().await;
        let level = self.kept().level();
        let (begun, mut took) = (Instant::now(), Duration::ZERO);
        while let Some(first) = waiting.first() {
            let part = first.question;
            let these = waiting.extract_if(.., |waiting| waiting.question == part);
            let these: Vec<_> = these.collect();
            let write = async |body: &mut Body, snapshot: &Snapshot| {
                api::write_status(body, part, snapshot, level, begun).await
            };
            let (made, time) = self.make(snapshot.as_ref(), write).await;
            took += time;
            for waiting in these {
                waiting.tell(made.clone());
            }
        }
        drop(snapshot);
        self.rest(took).await;
    }

    pub(super) async fn make_connections(&self) {
        self.connections.wanted().await;
        drop(self.room.free().await);
        self.moments.rested().await;
        let waiting = self.connections.take();
        let (accounts, open): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|waiting| waiting.question.list == List::Accounts);
        let mut took = Duration::ZERO;
        if !accounts.is_empty() {
            let numbers = self.moments.accounts().await;
            for waiting in accounts {
                let query = &waiting.question;
                let write = async |body: &mut Body, numbers: &Option<AccountNumbers>| {
                    api::write_accounts(body, numbers.as_ref(), query).await
                };
                let (made, time) = self.make(numbers.as_ref(), write).await;
                took += time;
                waiting.tell(made);
            }
        }
        if open.is_empty() {
            return self.rest(took).await;
        }
        let entries = self.moments.entries().await;
        for waiting in open {
            let query = &waiting.question;
            let write = async |body: &mut Body, entries: &Entries| {
                api::write_connections(body, entries, query).await
            };
            let (made, time) = self.make(entries.as_ref(), write).await;
            took += time;
            waiting.tell(made);
        }
        drop(entries);
        self.rest(took).await;
    }

    pub(super) async fn make_history(&self) {
        self.histories.wanted().await;
        drop(self.room.free().await);
        self.moments.rested().await;
        let waiting = self.histories.take();
        let history = self.moments.history().await;
        let (made, took) = self.make(history.as_ref(), api::write_history).await;
        drop(history);
        for waiting in waiting {
            waiting.tell(made.clone());
        }
        drop(made);
        self.rest(took).await;
    }

    /// Makes a body from a copy of the state, when there is room for one. Also returns how long
    /// that took.
    pub(super) async fn make<T>(
        &self,
        copy: Option<&T>,
        write: impl AsyncFnOnce(&mut Body, &T) -> fmt::Result,
    ) -> (Made, Duration) {
        let Some(copy) = copy else {
            return (Err(StatusCode::ServiceUnavailable), Duration::ZERO);
        };
        let _making = self.room.free().await;
        let begun = Instant::now();
        let mut body = Body::in_room(&self.room);
        let made = match write(&mut body, copy).await {
            Ok(()) => Ok(Rc::new(body)),
            Err(error) => {
                log::error!("admin: cannot write an answer: {error}; please report this");
                Err(StatusCode::InternalServerError)
            }
        };
        (made, begun.elapsed())
    }
}

fn invalid(wrong: &Invalid) -> Answer {
    let name = &wrong.parameter;
    let detail = format!("{name}: {}", wrong.why);
    problem(StatusCode::BadRequest, &detail, Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::orders::paths;

    #[test]
    fn description_has_every_path_and_no_other() {
        let openapi = texts::openapi();
        let rests = openapi.split("\"/api/v1/").skip(1);
        let documented = rests.filter_map(|rest| Some(rest.split_once("\":{")?.0));
        let mut documented: Vec<_> = documented.collect();
        documented.sort_unstable();
        let read = RESOURCES.iter().map(|(name, _)| *name);
        let order = |path: &&'static str| path.strip_prefix("/api/v1/").unwrap_or_default();
        let mut all: Vec<_> = read.chain(paths::ALL.iter().map(order)).collect();
        all.sort_unstable();
        assert_eq!(documented, all);
    }
}
