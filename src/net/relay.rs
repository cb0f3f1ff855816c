//! Passing bytes both ways between two streams until both have finished, or one breaks. An idle relay holds nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;

use super::flow::{Broken, Flow, Meter, Pumped, Side};
use super::opening::Read;
use super::stream::Stream;

/// Passes bytes both ways until both sides have finished sending. A side that has finished still receives for as long as the other
/// sends. The streams are then marked finished; otherwise dropping them resets both. `opening` is what has happened to the
/// client's first bytes.
///
/// # Errors
/// When a side has broken before this begins.
pub fn relay<'a, M: Meter>(
    client: &'a Stream,
    server: &'a Stream,
    opening: Read,
    meter: &'a M,
) -> Result<Relay<'a, M>, Broken> {
    if opening.taken > 0 {
        meter.moved(Side::Client, opening.taken);
    }
    if let Some(error) = opening.error {
        let side = Side::Client;
        return Err(Broken { side, error });
    }
    if server.was_reset() {
        let (side, error) = (Side::Server, Errno::CONNRESET.into());
        return Err(Broken { side, error });
    }
    Ok(Relay {
        client,
        server,
        meter,
        upload: Flow::resumed(Side::Client, opening.held, opening.ended),
        download: Flow::new(Side::Server),
    })
}

/// The future of [`relay`]. It is most of what an idle connection is made of, hence a struct: an async function keeps its arguments
/// twice.
pub struct Relay<'a, M> {
    client: &'a Stream,
    server: &'a Stream,
    meter: &'a M,
    upload: Flow,
    download: Flow,
}

impl<M> std::fmt::Debug for Relay<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

impl<M: Meter> Future for Relay<'_, M> {
    /// An error says which side broke, and how.
    type Output = Result<(), Broken>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (client, server) = (this.client, this.server);
        let (upload, download) = (&mut this.upload, &mut this.download);
        server.upkeep();
        let up = upload.pump(client, server, download.is_done(), this.meter)?;
        let down = download.pump(server, client, upload.is_done(), this.meter)?;
        if upload.is_done() && download.is_done() {
            client.finish();
            server.finish();
            return Poll::Ready(Ok(()));
        }
        let sides = [
            (Side::Client, client, down == Pumped::Full),
            (Side::Server, server, up == Pumped::Full),
        ];
        for (side, stream, waits_for_room) in sides {
            // A failure shows even where nobody reads or writes at this moment.
            if let Some(error) = stream.failure() {
                let error = error.into();
                return Poll::Ready(Err(Broken { side, error }));
            }
            if let Err(error) = stream.wait(cx, waits_for_room) {
                return Poll::Ready(Err(Broken { side, error }));
            }
        }
        if up == Pumped::Budget || down == Pumped::Budget {
            client.reactor().wake_next_turn(cx.waker());
        }
        Poll::Pending
    }
}
