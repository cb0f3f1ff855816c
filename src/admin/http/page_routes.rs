//! The response with the page, and the work behind it.

use super::answer::Answer;
use super::routes::{Made, Routes, made};
use crate::admin::body::Body;
use crate::admin::page;
use crate::state::{Entries, Snapshot};

impl Routes {
    /// Returns the response to a browser that asks for the page.
    pub(super) async fn page(&self) -> Answer {
        with_headers(self.pages.ask(()).await)
    }

    /// Returns the page without what needs a token. Its script asks for that.
    pub(super) async fn empty_page(&self) -> Answer {
        let write = async |body: &mut Body, (): &()| page::write(body, None).await;
        let (made, _) = self.make(Some(&()), write).await;
        with_headers(Some(made))
    }

    pub(super) async fn make_page(&self) {
        self.pages.wanted().await;
        drop(self.room.free().await);
        self.moments.rested().await;
        let waiting = self.pages.take();
        let snapshot = self.moments.snapshot().await;
        self.moments.rested().await;
        let entries = self.moments.entries().await;
        let copies = snapshot.zip(entries);
        let write = async |body: &mut Body, copies: &(Snapshot, Entries)| {
            page::write(body, Some(copies)).await
        };
        let (made, took) = self.make(copies.as_ref(), write).await;
        drop(copies);
        for waiting in waiting {
            waiting.tell(made.clone());
        }
        drop(made);
        self.rest(took).await;
    }
}

fn with_headers(page: Option<Made>) -> Answer {
    let mut answer = made(page, "text/html; charset=utf-8");
    let headers = &mut answer.response;
    headers.insert_header("Content-Security-Policy", page::POLICY);
    headers.insert_header("Referrer-Policy", "no-referrer");
    headers.insert_header("X-Content-Type-Options", "nosniff");
    answer
}
