//! What the servers' names resolve to, looked up beside the loop and kept fresh, never in a connection's way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use smol::future::FutureExt;
use smol::lock::Semaphore;

use super::reactor::Reactor;

/// How long an answer is used before it is asked for again. getaddrinfo(3) does not tell an answer's time to live.
const REFRESH: Duration = Duration::from_secs(30);
/// The wait after a first failure; it doubles up to [`REFRESH`].
const RETRY: Duration = Duration::from_secs(1);
/// How long one look-up may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Look-ups at the same time, each with a thread while it lasts.
const LOOKUPS: usize = 4;

/// The table of names. It is filled by one [`Names::keep_fresh`] per name.
#[derive(Debug)]
pub struct Names {
    table: RefCell<BTreeMap<String, Entry>>,
    /// Held by the thread that looks up, since getaddrinfo cannot be cancelled: a look-up that is given up still counts.
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct Entry {
    /// The last good answer, used until there is a newer one; or why there has been none; `None` before the first look-up.
    answer: Option<Result<Rc<[IpAddr]>, Rc<str>>>,
    waiting: Vec<Waker>,
}

impl Names {
    /// A table of these names, none of them looked up yet.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let entry = || Entry {
            answer: None,
            waiting: Vec::new(),
        };
        let table = names.into_iter().map(|name| (name.to_owned(), entry()));
        Self {
            table: RefCell::new(table.collect()),
            permits: Arc::new(Semaphore::new(LOOKUPS)),
        }
    }

    /// The names in the table.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.table.borrow().keys().cloned().collect()
    }

    /// The addresses of a name, at once unless its first look-up is still under way.
    ///
    /// # Errors
    /// Why the name could not be resolved, when it never could.
    pub async fn addresses(&self, name: &str) -> Result<Rc<[IpAddr]>, Rc<str>> {
        poll_fn(|cx| {
            let mut table = self.table.borrow_mut();
            let Some(entry) = table.get_mut(name) else {
                return Poll::Ready(Err("it is not in the configuration".into()));
            };
            match &entry.answer {
                Some(answer) => Poll::Ready(answer.clone()),
                None => {
                    entry.waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Looks up one name again and again, for ever.
    pub async fn keep_fresh(self: Rc<Self>, reactor: Rc<Reactor>, name: String) {
        let mut retry = RETRY;
        let mut was_good = true;
        loop {
            let wait = match self.look_up(&reactor, &name).await {
                Ok(ips) => {
                    log::debug!(name = name.as_str(), addresses:? = ips; "resolved");
                    if !was_good {
                        log::info!(name = name.as_str(); "the name resolves again");
                    }
                    was_good = true;
                    retry = RETRY;
                    self.store(&name, Ok(ips.into()));
                    REFRESH
                }
                Err(error) => {
                    if was_good {
                        log::warn!(name = name.as_str(), error:% = error;
                            "cannot resolve the name; trying again until it can be");
                    }
                    was_good = false;
                    self.store(&name, Err(error.to_string().into()));
                    let wait = retry;
                    retry = REFRESH.min(retry * 2);
                    wait
                }
            };
            reactor.sleep(wait).await;
        }
    }

    async fn look_up(&self, reactor: &Rc<Reactor>, name: &str) -> io::Result<Vec<IpAddr>> {
        let host = name.to_owned();
        let permits = self.permits.clone();
        let answer = async move {
            let permit = permits.acquire_arc().await;
            blocking::unblock(move || {
                let _permit = permit;
                let addresses = (host.as_str(), 0).to_socket_addrs()?;
                Ok(addresses.map(|address| address.ip()).collect())
            })
            .await
        };
        let late = async {
            reactor.sleep(DEADLINE).await;
            let text = format!("no answer within {} s", DEADLINE.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        };
        let ips: Vec<IpAddr> = answer.or(late).await?;
        if ips.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
        }
        Ok(ips)
    }

    fn store(&self, name: &str, answer: Result<Rc<[IpAddr]>, Rc<str>>) {
        let waiting = {
            let mut table = self.table.borrow_mut();
            let Some(entry) = table.get_mut(name) else {
                return;
            };
            // A failure does not take away what was known.
            if answer.is_ok() || !matches!(entry.answer, Some(Ok(_))) {
                entry.answer = Some(answer);
            }
            std::mem::take(&mut entry.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}
