//! Tests that a bucket of bytes agrees with its definition.

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A bucket by its definition, in whole numbers of any size: what it has grows with time up to the
/// burst.
struct Model {
    level: i128,
    at: u64,
}

impl Model {
    fn fill(&mut self, rate: &ByteRate, now: u64) {
        let more = i128::from(rate.bytes) * i128::from(now - self.at);
        self.level = (self.level + more).min(i128::from(rate.burst) * i128::from(PARTS));
        self.at = now;
    }

    fn bytes(&self) -> u64 {
        u64::try_from(self.level.div_euclid(i128::from(PARTS))).unwrap_or(0)
    }
}

#[test]
fn buckets_agree_with_their_definition() {
    let mut random = fastrand::Rng::with_seed(0x2672);
    let mut waits = 0;
    for round in 0..2_000 {
        let bytes = ByteRate::LEAST << random.u32(..23);
        let burst = ByteRate::LEAST << random.u32(..20);
        let rate = ByteRate {
            bytes: bytes + random.u64(..bytes),
            burst,
        };
        let mut now = random.u64(..SECOND);
        let mut bucket = ByteBucket::default();
        let mut model = Model {
            level: i128::from(burst) * i128::from(PARTS),
            at: now,
        };
        for step in 0..50 {
            now += match random.u8(..4) {
                0 => 0,
                1 => random.u64(..1000),
                2 => random.u64(..SECOND),
                _ => {
                    // Exactly when there is enough, and not a nanosecond sooner.
                    let wanted = random.u64(1..=burst);
                    let when = bucket.when(&rate, wanted, now);
                    if when > now {
                        waits += 1;
                        model.fill(&rate, when - 1);
                        assert!(model.bytes() < wanted, "round {round}, step {step}");
                    }
                    model.fill(&rate, when);
                    assert!(model.bytes() >= wanted, "round {round}, step {step}");
                    when - now
                }
            };
            model.fill(&rate, now);
            assert_eq!(
                bucket.level(&rate, now),
                model.bytes(),
                "round {round}, step {step}: {rate:?}"
            );
            let is_full = model.level == i128::from(burst) * i128::from(PARTS);
            assert_eq!(
                bucket.is_full(&rate, now),
                is_full,
                "round {round}, step {step}"
            );
            // Sometimes more than there is.
            let taken = random.u64(..=model.bytes() + model.bytes() / 8 + 1);
            bucket.take(&rate, taken, now);
            model.level -= i128::from(taken) * i128::from(PARTS);
        }
    }
    assert!(waits > 5_000, "{waits}");
}

#[test]
fn another_rate_continues_with_what_is_there() {
    let (fast, slow) = (ByteRate::new(10 << 20), ByteRate::new(10 << 10));
    let mut bucket = ByteBucket::default();
    bucket.take(&fast, fast.burst - 5_000, 0);
    bucket.change(&fast, &slow, 0);
    assert_eq!(bucket.level(&slow, 0), 5_000);
    bucket.change(&slow, &fast, SECOND);
    // A second of the slow rate later.
    assert_eq!(bucket.level(&fast, SECOND), 5_000 + (10 << 10));
    bucket.change(&fast, &slow, 1000 * SECOND);
    assert_eq!(bucket.level(&slow, 1000 * SECOND), slow.burst);
}

#[test]
fn extremes_do_not_overflow() {
    let rate = ByteRate {
        bytes: ByteRate::MOST,
        burst: ByteRate::MOST_BURST,
    };
    let mut bucket = ByteBucket::default();
    let century = 100 * 365 * 86_400 * SECOND;
    assert_eq!(bucket.level(&rate, century), rate.burst);
    for _ in 0..100 {
        bucket.take(&rate, u64::MAX, century);
    }
    assert_eq!(bucket.level(&rate, century), 0);
    assert!(bucket.when(&rate, rate.burst, century) > century);
}

#[test]
fn pieces_fit_into_every_burst() {
    for bytes in [ByteRate::LEAST, 100 << 10, 100 << 20, ByteRate::MOST] {
        let usual = ByteRate::new(bytes);
        for burst in [ByteRate::LEAST, usual.burst, ByteRate::MOST_BURST] {
            let rate = ByteRate { bytes, burst };
            let (least, piece) = (rate.least(), rate.piece());
            assert!(
                0 < least && least <= piece && piece <= burst / 2,
                "{rate:?}"
            );
        }
    }
}
