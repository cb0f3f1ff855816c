//! One name: what it stands for, as far as look-ups have found out.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use super::offers::{self, Offer, usable};
use crate::state::Waiters;

/// A name that is resolved for as long as it is held.
#[derive(Debug)]
pub struct Name {
    pub(super) name: String,
    /// Whether it has SRV records instead of addresses.
    pub(super) is_srv: bool,
    pub(super) number: usize,
    /// The last good answer, used until a newer one arrives, or why there is none. `None` before
    /// the first look-up ends.
    pub(super) answer: RefCell<Option<Answer>>,
    /// True if the last look-up failed. A failure is logged once.
    pub(super) is_failing: Cell<bool>,
    pub(super) waiting: Waiters,
}

pub(super) type Answer = Result<Known, Rc<str>>;

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Known {
    Addresses(Rc<[IpAddr]>),
    /// None if the domain does not offer the service.
    Offers(Rc<[Offer]>),
}

/// What a look-up found.
pub(super) enum Looked {
    Up(io::Result<Vec<IpAddr>>),
    UpSrv(io::Result<offers::Found>),
}

impl Name {
    pub(super) fn new(name: String, is_srv: bool, number: usize) -> Self {
        Self {
            name,
            is_srv,
            number,
            answer: RefCell::default(),
            is_failing: Cell::new(false),
            waiting: Waiters::default(),
        }
    }

    pub(super) fn offers(&self) -> Option<Rc<[Offer]>> {
        match &*self.answer.borrow() {
            Some(Ok(Known::Offers(offers))) => Some(offers.clone()),
            _ => None,
        }
    }

    /// Records how a look-up ended. Returns true if the name now stands for something else.
    pub(super) fn answered(&self, looked: Looked) -> bool {
        match looked {
            Looked::Up(Err(error)) | Looked::UpSrv(Err(error)) => {
                self.failed(&error.to_string());
                false
            }
            Looked::Up(Ok(ips)) => match usable(ips) {
                Ok(ips) => {
                    self.succeeded();
                    self.resolved(Known::Addresses(ips.into()))
                }
                Err(why) => {
                    self.failed(why);
                    false
                }
            },
            Looked::UpSrv(Ok(found)) => {
                let before = self.offers().unwrap_or_default();
                let (offers, failure) = found.offers(&before);
                match failure {
                    Some(why) => self.failed(&why),
                    None => self.succeeded(),
                }
                // Without any address, it failed as a whole.
                let is_answer = !offers.is_empty() || !self.is_failing.get();
                is_answer && self.resolved(Known::Offers(offers))
            }
        }
    }

    fn succeeded(&self) {
        if self.is_failing.replace(false) {
            log::info!(name = self.name.as_str(); "the name resolves again");
        }
    }

    /// Records an answer. Returns true if it is another one than before, in any order.
    fn resolved(&self, now: Known) -> bool {
        log::debug!(name = self.name.as_str(), addresses:? = now; "resolved");
        let old = self.answer.replace(Some(Ok(now.clone())));
        self.waiting.wake_all();
        match (old, now) {
            (Some(Ok(Known::Addresses(old))), Known::Addresses(now)) => {
                let has_all = |ips: &[IpAddr], of: &[IpAddr]| of.iter().all(|ip| ips.contains(ip));
                !has_all(&old, &now) || !has_all(&now, &old)
            }
            (Some(Ok(Known::Offers(old))), Known::Offers(now)) => old != now,
            _ => true,
        }
    }

    /// Records a failed look-up.
    ///
    /// Keeps a known answer.
    pub(super) fn failed(&self, why: &str) {
        if !self.is_failing.replace(true) {
            log::warn!(name = self.name.as_str(), error = why;
                "cannot resolve the name; retrying; see that it is right and that the resolver answers");
        }
        let mut answer = self.answer.borrow_mut();
        if !matches!(*answer, Some(Ok(_))) {
            *answer = Some(Err(why.into()));
        }
        drop(answer);
        self.waiting.wake_all();
    }
}
