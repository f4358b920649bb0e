//! Random numbers that are the same everywhere and for ever, so that a printed figure can be had
//! again: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), and the distributions the workload needs.

/// A sequence of random numbers; copies go on alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The sequence for a seed and whatever it is for.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Self(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rng.next();
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly between 0 and 1, without both.
    pub(crate) fn even(&mut self) -> f64 {
        let bits = u32::try_from(self.next() >> 32).unwrap_or(0);
        (f64::from(bits) + 0.5) / 4_294_967_296.0
    }

    /// Whether something of this probability happens.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.even() < probability
    }

    /// Evenly on a logarithmic scale.
    pub(crate) fn log_even(&mut self, from: f64, to: f64) -> f64 {
        from * (to / from).powf(self.even())
    }

    /// With this mean, and no memory.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.even().ln()
    }

    /// The exponential of a normal distribution with this mean and deviation (Box and Muller, 1958).
    pub(crate) fn log_normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let radius = (-2.0 * self.even().ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.even()).cos();
        (mean + deviation * normal).exp()
    }

    /// Burr's distribution, type XII.
    pub(crate) fn burr(&mut self, c: f64, k: f64, scale: f64) -> f64 {
        scale * ((1.0 - self.even()).powf(-1.0 / k) - 1.0).powf(1.0 / c)
    }
}
