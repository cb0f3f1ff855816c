//! Passes bytes both ways between two streams until both have finished or one breaks.
//!
//! An idle relay holds no buffers.
//!
//! A relay *passes* bytes while both sides work: two flows, one for each direction. Once a side has
//! broken, the relay *lingers*: it gives up the flow towards that side and continues the other
//! until everything that the side had sent has arrived. See [`Linger`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;

use super::flow::{Broken, Flow, Meter, Pumped, Side};
use super::linger::Linger;
use crate::net::socket::{Read, Stream};

/// Passes bytes both ways until both sides have finished sending.
///
/// A side that has finished still receives for as long as the other sends. On success both streams
/// are marked finished; otherwise dropping them resets both. `early_data` is what happened to the
/// client's first bytes.
pub fn relay<'a, M: Meter>(
    client: &'a Stream,
    server: &'a Stream,
    early_data: Read,
    meter: &'a M,
) -> Relay<'a, M> {
    if early_data.taken > 0 {
        meter.moved(Side::Client, early_data.taken);
    }
    let mut relay = Relay {
        client,
        server,
        meter,
        upload: Flow::resumed(Side::Client, early_data.held, early_data.ended),
        download: Flow::new(Side::Server),
        linger: None,
    };
    if let Some(error) = early_data.error {
        let side = Side::Client;
        relay.linger_for(Broken { side, error });
    } else if server.was_reset() {
        let (side, error) = (Side::Server, Errno::CONNRESET.into());
        relay.linger_for(Broken { side, error });
    }
    relay
}

/// The future of [`relay`].
///
/// It makes up most of an idle connection's memory. It is a struct because an async function stores
/// its arguments twice.
pub struct Relay<'a, M> {
    client: &'a Stream,
    server: &'a Stream,
    meter: &'a M,
    upload: Flow,
    download: Flow,
    /// The remaining work once a side has broken. Boxed because few relays get there.
    linger: Option<Box<Linger>>,
}

impl<M> std::fmt::Debug for Relay<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

impl<M: Meter> Future for Relay<'_, M> {
    /// An error reports which side broke first, and how.
    type Output = Result<(), Broken>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let has_aged = this.server.upkeep() | this.client.upkeep();
        if this.linger.is_none() {
            match this.pass(cx, has_aged) {
                Ok(passed) => return passed.map(Ok),
                Err(broken) => this.linger_for(broken),
            }
        }
        this.poll_linger(cx, has_aged)
    }
}

impl<M: Meter> Relay<'_, M> {
    /// Moves what can be moved now, in both directions.
    ///
    /// Completes when both sides have finished.
    fn pass(&mut self, cx: &mut Context<'_>, has_aged: bool) -> Result<Poll<()>, Broken> {
        let (client, server) = (self.client, self.server);
        let (upload, download) = (&mut self.upload, &mut self.download);
        // If this direction ends last, closing the socket tells the receiver what a shutdown would.
        let up = upload.pump(client, server, !download.is_done(), self.meter)?;
        let down = download.pump(server, client, !upload.is_done(), self.meter)?;
        if upload.is_done() && download.is_done() {
            client.finish();
            server.finish();
            return Ok(Poll::Ready(()));
        }
        if matches!(up, Pumped::Full | Pumped::Paused) {
            upload.rest(server, has_aged)?;
        }
        if matches!(down, Pumped::Full | Pumped::Paused) {
            download.rest(client, has_aged)?;
        }
        let sides = [
            (Side::Client, client, down == Pumped::Full),
            (Side::Server, server, up == Pumped::Full),
        ];
        for (side, stream, waits_for_room) in sides {
            // An error must show even if nothing is being read or written.
            if let Some(error) = stream.failure() {
                let error = error.into();
                return Err(Broken { side, error });
            }
            let waiting = stream.wait(cx, waits_for_room);
            waiting.map_err(|error| Broken { side, error })?;
        }
        if up == Pumped::Paused {
            self.meter.paused(Side::Client, cx.waker());
        }
        if down == Pumped::Paused {
            self.meter.paused(Side::Server, cx.waker());
        }
        if up == Pumped::Budget || down == Pumped::Budget {
            client.reactor().wake_next_iteration(cx.waker());
        }
        Ok(Poll::Pending)
    }

    /// Gives up the flow towards the broken side and starts to linger.
    fn linger_for(&mut self, broken: Broken) {
        let (source, from, to) = match broken.side {
            Side::Client => (self.client, &self.upload, &mut self.download),
            Side::Server => (self.server, &self.download, &mut self.upload),
        };
        to.give_up();
        self.linger = Some(Box::new(Linger::after(broken, source, from)));
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>, has_aged: bool) -> Poll<Result<(), Broken>> {
        let Some(mut linger) = self.linger.take() else {
            return Poll::Pending;
        };
        let (source, sink, flow) = match linger.side() {
            Side::Client => (self.client, self.server, &mut self.upload),
            Side::Server => (self.server, self.client, &mut self.download),
        };
        let lingered = linger.poll(cx, source, sink, flow, self.meter);
        if lingered.is_pending() && flow.rest(sink, has_aged).is_err() {
            return Poll::Ready(Err(linger.into_broken()));
        }
        if lingered.is_pending() {
            self.linger = Some(linger);
            return Poll::Pending;
        }
        Poll::Ready(Err(linger.into_broken()))
    }
}
