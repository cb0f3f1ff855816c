//! The response with the page, and the work behind it.

use super::answer::Answer;
use super::routes::{Routes, made};
use crate::admin::body::Body;
use crate::admin::page;
use crate::state::{Entries, Snapshot};

impl Routes {
    /// Returns the response to a browser that asks for the page.
    pub(super) async fn page(&self) -> Answer {
        let mut answer = made(self.pages.ask(()).await, "text/html; charset=utf-8");
        let headers = &mut answer.response;
        headers.insert_header("Content-Security-Policy", page::POLICY);
        headers.insert_header("Referrer-Policy", "no-referrer");
        headers.insert_header("X-Content-Type-Options", "nosniff");
        answer
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
        let write = async |body: &mut Body, (snapshot, entries): &(Snapshot, Entries)| {
            page::write(body, snapshot, entries).await
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
