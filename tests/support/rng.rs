//! Seeded randomness: SplitMix64 (Steele, Lea and Flood, 2014), so that a run can be repeated by its seed.

#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed in CORACLE_SEED, or a new one, which is printed so that a failing run tells it.
    pub fn from_env() -> Self {
        let seed = match std::env::var("CORACLE_SEED") {
            Ok(text) => text.parse().expect("CORACLE_SEED is a number"),
            Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        };
        println!("CORACLE_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A generator of its own, for another thread.
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }
}
