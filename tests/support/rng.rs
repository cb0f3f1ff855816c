//! Seeded randomness, so that a failing run can be repeated.

pub use fastrand::Rng;
use proptest::test_runner::{Config, RngSeed};

/// Returns a generator seeded from `CORACLE_SEED`, or from a fresh seed if that is unset. Prints
/// the seed either way.
pub fn from_env() -> Rng {
    Rng::with_seed(seed())
}

/// Returns a configuration under which a property is tried with `cases` inputs, from the same seed
/// as [`from_env`].
pub fn cases(cases: u32) -> Config {
    Config {
        cases,
        // The seed repeats a failure, so no file has to.
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed()),
        ..Config::default()
    }
}

fn seed() -> u64 {
    let seed = match std::env::var("CORACLE_SEED") {
        Ok(text) => text.parse().expect("CORACLE_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("CORACLE_SEED={seed}");
    seed
}
