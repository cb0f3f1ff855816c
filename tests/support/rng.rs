//! Seeded randomness, so that a failing run can be repeated.

pub use fastrand::Rng;

/// Returns a generator seeded from `CORACLE_SEED`, or from a fresh seed if that is unset. Prints
/// the seed either way.
pub fn from_env() -> Rng {
    let seed = match std::env::var("CORACLE_SEED") {
        Ok(text) => text.parse().expect("CORACLE_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("CORACLE_SEED={seed}");
    Rng::with_seed(seed)
}
