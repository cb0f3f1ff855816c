//! How fast bytes may pass: token buckets of bytes. Reads no clock: the time is an argument.

use super::counters::label;
use super::direction::Direction;

/// Bytes per second, and how many of them may pass at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate {
    /// Bytes per second, from [`ByteRate::LEAST`] to [`ByteRate::MOST`].
    pub bytes: u64,
    /// How many bytes may pass at once after a pause, from [`ByteRate::LEAST`] to
    /// [`ByteRate::MOST_BURST`].
    pub burst: u64,
}

impl ByteRate {
    /// The lowest rate, and the smallest burst.
    pub const LEAST: u64 = 1 << 10;
    /// The highest rate.
    pub const MOST: u64 = 10 << 30;
    /// The largest burst.
    pub const MOST_BURST: u64 = 1 << 30;
    /// The smallest burst that is not chosen explicitly: a small page, or a handshake of TLS.
    const USUAL_LEAST: u64 = 16 << 10;

    /// Creates a rate with the usual burst: what passes in 100 ms, at least 16 KiB.
    ///
    /// What a bucket cannot hold while the program waits for the processor is lost. On a busy board
    /// that takes tens of milliseconds.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let burst = (bytes / 10).clamp(Self::USUAL_LEAST, Self::MOST_BURST);
        Self { bytes, burst }
    }

    /// Returns how much is worth waking a connection for: what passes in 10 ms, and at least 4 KiB,
    /// but at most half the burst, so that the other half can fill while the wake-up is late.
    pub(super) fn piece(&self) -> u64 {
        let piece = (self.bytes / 100).clamp(4 << 10, 1 << 20);
        piece.min(self.burst / 2)
    }

    /// Returns the smallest amount that is passed on. A smaller rest waits, so that large streams
    /// do not end in tiny pieces.
    pub(super) fn least(&self) -> u64 {
        (self.piece() / 4).min(4 << 10)
    }
}

/// How fast bytes may pass in each direction. `None` means as fast as possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// From the client to the server.
    pub to_server: Option<ByteRate>,
    /// From the server to the client.
    pub to_client: Option<ByteRate>,
}

impl Bandwidth {
    /// Returns whether neither direction has a limit.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.to_server.is_none() && self.to_client.is_none()
    }

    pub(super) fn of(&self, direction: Direction) -> Option<ByteRate> {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

/// How fast an entrypoint's connections may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandwidthRules {
    /// Each connection.
    pub per_connection: Bandwidth,
    /// All connections of one client together.
    pub per_client: Bandwidth,
    /// How many leading bits of an IPv6 address make a client.
    pub ipv6_prefix: u8,
}

impl BandwidthRules {
    /// Returns whether there is no limit.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.per_connection.is_unlimited() && self.per_client.is_unlimited()
    }
}

label! {
    /// A limit of the bandwidth.
    Limit {
        /// That of one connection.
        Connection = "connection",
        /// That of all connections of one client at an entrypoint.
        Client = "client",
        /// That of all connections to a service.
        Service = "service",
        /// That of a client that has used up its quota.
        Quota = "quota",
    }
}

/// A bucket of bytes. A new one is full.
///
/// Counts in billionths of a byte, of which as many come in a nanosecond as bytes in a second, so
/// that nothing is ever rounded. Times are in nanoseconds since a moment of the caller's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ByteBucket {
    /// What it lacks until it is full.
    missing: u64,
    at: u64,
}

/// The parts of a byte.
const PARTS: u64 = 1_000_000_000;

impl ByteBucket {
    fn fill(&mut self, rate: &ByteRate, now: u64) {
        let passed = now.saturating_sub(self.at);
        self.missing = self
            .missing
            .saturating_sub(rate.bytes.saturating_mul(passed));
        self.at = self.at.max(now);
    }

    /// Returns how many bytes may pass now.
    pub(super) fn level(&mut self, rate: &ByteRate, now: u64) -> u64 {
        self.fill(rate, now);
        (rate.burst * PARTS).saturating_sub(self.missing) / PARTS
    }

    /// Takes the bytes that have passed. If they are more than may pass, it is empty for longer.
    pub(super) fn take(&mut self, rate: &ByteRate, bytes: u64, now: u64) {
        self.fill(rate, now);
        let parts = bytes.saturating_mul(PARTS);
        self.missing = self.missing.saturating_add(parts);
    }

    /// Returns when `bytes` may pass, which are not more than the burst.
    pub(super) fn when(&mut self, rate: &ByteRate, bytes: u64, now: u64) -> u64 {
        self.fill(rate, now);
        let may_miss = (rate.burst - bytes) * PARTS;
        let wait = self.missing.saturating_sub(may_miss).div_ceil(rate.bytes);
        now.saturating_add(wait)
    }

    pub(super) fn is_full(&mut self, rate: &ByteRate, now: u64) -> bool {
        self.fill(rate, now);
        self.missing == 0
    }

    /// Continues at another rate with what it has, as far as that fits.
    pub(super) fn change(&mut self, from: &ByteRate, to: &ByteRate, now: u64) {
        let level = self.level(from, now).min(to.burst);
        self.missing = (to.burst - level) * PARTS;
    }
}

#[cfg(test)]
mod tests;
