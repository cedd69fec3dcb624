//! The one generator of random numbers: Philox4x32-10 (Salmon et al., SC 2011), and normals made of its words.
//!
//! Every number is a function of (seed, use, index, copy, element): no state, so any order, any batch and any device
//! give the same bits. Two words give two normals (Box and Muller); logarithm, sine and cosine are fixed
//! polynomials, and every operation is a correctly rounded one (fma, multiplication, addition, square root), never
//! contracted by a compiler, so that a GPU draws the same bits.

use multiversion::multiversion;

/// What numbers are for: streams of different uses have no number in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Use {
    /// Noise on inputs.
    Noise = 0,
    /// Initial weights.
    Weights = 1,
    /// The order of samples, splits, and random choices.
    Choice = 2,
    /// Noise on parameters of a certificate (MATH.md, Eq. 15).
    Certificate = 3,
    /// Ties broken at random, and noise on columns (L-CODEC).
    Ties = 4,
    /// Permutations for a noise level.
    Permutation = 5,
    /// The mini-batches of a hold.
    Hold = 6,
    /// Classes drawn for an estimate of the loss's curvature (K-FAC).
    Labels = 7,
    /// Shifts and mirror images in training.
    Augment = 8,
    /// Rounding to the type of a model's files.
    Rounding = 9,
}

const ROUNDS: usize = 10;
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Philox4x32-10 of one counter.
#[inline(always)]
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// The counter of a block of four words. Copies and indices are below 2³² and 2²⁸; `use_` has the highest four bits.
#[inline(always)]
fn counter(use_: Use, index: u32, copy: u32, block: u32) -> [u32; 4] {
    [block, copy, index, (use_ as u32) << 28]
}

/// ln(x) for x in (0, 1], by x = m·2ᵉ with m in [√½, √2) and a polynomial; absolute error below 2e-7·(1 + |ln x|).
#[inline(always)]
fn ln(x: f32) -> f32 {
    const P: [f32; 8] = [
        0.333_333_3,
        -0.250_008_23,
        0.200_012_27,
        -0.166_233_55,
        0.142_017_6,
        -0.131_602_05,
        0.127_615_69,
        -0.076_344_23,
    ];
    const LN_2: f32 = std::f32::consts::LN_2;
    let bits = x.to_bits().wrapping_sub(0x3f35_04f3); // √½
    let exponent = (bits as i32 >> 23) as f32;
    let f = f32::from_bits((bits & 0x007f_ffff) + 0x3f35_04f3) - 1.0;
    let mut p = P[7];
    for i in (0..7).rev() {
        p = p.mul_add(f, P[i]);
    }
    let square = f * f;
    let tail = (f * square).mul_add(p, -0.5 * square);
    exponent.mul_add(LN_2, f + tail)
}

/// sin and cos of 2πt for t in [−1/8, 1/8].
#[inline(always)]
fn sin_cos(t: f32) -> (f32, f32) {
    const S: [f32; 5] = [6.283_185_5, -41.341_7, 81.605_2, -76.697_87, 41.472_94];
    const C: [f32; 5] = [1.0, -19.739_208, 64.939_316, -85.442_85, 59.220_394];
    let u = t * t;
    let horner = |c: [f32; 5]| (0..4).rev().fold(c[4], |p, i| p.mul_add(u, c[i]));
    (t * horner(S), horner(C))
}

/// Two independent standard normals from two words.
#[inline(always)]
fn normal_pair(a: u32, b: u32) -> (f32, f32) {
    // u in (0, 1]: 24 bits, the odd multiples of 2⁻²⁵. The angle: quadrant by two bits, 22 bits within it.
    let u = ((a >> 8) as f32 + 0.5) * (1.0 / 16_777_216.0);
    let radius = (-2.0 * ln(u)).sqrt();
    let t = ((b & 0x3fff_ff00) >> 8) as f32 * (0.25 / 4_194_304.0) - 0.125;
    let (s, c) = sin_cos(t);
    let (s, c) = if b & 0x4000_0000 != 0 { (c, -s) } else { (s, c) };
    let (s, c) = if b & 0x8000_0000 != 0 { (-s, -c) } else { (s, c) };
    (radius * c, radius * s)
}

/// A normal of [`add_normals`] computed in f64, with which tests compare it.
pub fn normal_wide(seed: u64, use_: Use, index: u32, copy: u32, element: usize) -> f64 {
    let words = philox(counter(use_, index, copy, (element / 4) as u32), key(seed));
    let (a, b) = if element % 4 < 2 { (words[0], words[1]) } else { (words[2], words[3]) };
    let u = (f64::from(a >> 8) + 0.5) / 16_777_216.0;
    let t = f64::from((b & 0x3fff_ff00) >> 8) * (0.25 / 4_194_304.0) - 0.125;
    let quarters = f64::from(b >> 30 & 1) + 2.0 * f64::from(b >> 31);
    let angle = std::f64::consts::TAU * (t + 0.25 * quarters);
    let (sin, cos) = angle.sin_cos();
    (-2.0 * u.ln()).sqrt() * if element.is_multiple_of(2) { cos } else { sin }
}

/// Blocks drawn side by side, so that the compiler can use vector instructions.
const WIDTH: usize = 8;

/// out = base + sigma · normal, the normals being elements 0.. of (seed, use, index, copy). Multiplication and addition
/// are rounded separately.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn add_normals(out: &mut [f32], base: &[f32], sigma: f32, seed: u64, use_: Use, index: u32, copy: u32) {
    let key = key(seed);
    for (chunk, (out, base)) in out.chunks_mut(4 * WIDTH).zip(base.chunks(4 * WIDTH)).enumerate() {
        let mut normals = [0.0f32; 4 * WIDTH];
        for (lane, four) in normals.chunks_exact_mut(4).enumerate() {
            let words = philox(counter(use_, index, copy, (chunk * WIDTH + lane) as u32), key);
            (four[0], four[1]) = normal_pair(words[0], words[1]);
            (four[2], four[3]) = normal_pair(words[2], words[3]);
        }
        for ((out, &base), normal) in out.iter_mut().zip(base).zip(normals) {
            *out = base + sigma * normal;
        }
    }
}

/// Block `block` of the words of (seed, use, index, copy).
pub fn words(seed: u64, use_: Use, index: u32, copy: u32, block: u32) -> [u32; 4] {
    philox(counter(use_, index, copy, block), key(seed))
}

/// A number below `n` from two words: ⌊word · n / 2⁶⁴⌋. The first word has the high bits; no number's probability is off
/// by more than 2⁻⁶⁴.
pub fn below(high: u32, low: u32, n: u32) -> u32 {
    let n = u64::from(n);
    ((u64::from(high) * n + ((u64::from(low) * n) >> 32)) >> 32) as u32
}

/// A sequence of random words for one use and index.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    use_: Use,
    index: u32,
    block: u64,
    words: [u32; 4],
    left: usize,
}

impl Stream {
    /// The sequence of (seed, use, index).
    pub fn new(seed: u64, use_: Use, index: u32) -> Stream {
        Stream { key: key(seed), use_, index, block: 0, words: [0; 4], left: 0 }
    }

    /// The next word.
    pub fn word(&mut self) -> u32 {
        if self.left == 0 {
            let counter = counter(self.use_, self.index, (self.block >> 32) as u32, self.block as u32);
            self.words = philox(counter, self.key);
            self.block += 1;
            self.left = 4;
        }
        self.left -= 1;
        self.words[3 - self.left]
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        let bits = u64::from(self.word()) << 32 | u64::from(self.word());
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A standard normal.
    pub fn normal(&mut self) -> f32 {
        let (a, b) = (self.word(), self.word());
        normal_pair(a, b).0
    }

    /// Uniform below `n`, without bias.
    ///
    /// # Panics
    /// Where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        let limit = u64::MAX - u64::MAX % n;
        loop {
            let bits = u64::from(self.word()) << 32 | u64::from(self.word());
            if bits < limit {
                return (bits % n) as usize;
            }
        }
    }

    /// Puts values in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            values.swap(i, self.below(i + 1));
        }
    }

    /// `k` of `0..n` without replacement, ascending; all of them where `k` ≥ `n`.
    pub fn choose(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        self.shuffle(&mut all);
        all.truncate(k);
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_random123() {
        let f = u32::MAX;
        let cases = [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([f; 4], [f; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (counter, key, want) in cases {
            assert_eq!(philox(counter, key), want);
        }
    }

    #[test]
    fn normals_are_normal_and_the_same_however_they_are_drawn() {
        let n = 200_000;
        let mut all = vec![0.0; n];
        add_normals(&mut all, &vec![0.0; n], 1.0, 7, Use::Noise, 3, 5);
        let mean = |power: i32| all.iter().map(|&v| f64::from(v).powi(power)).sum::<f64>() / n as f64;
        // Four standard errors of each moment.
        let error = 4.0 / (n as f64).sqrt();
        assert!(mean(1).abs() < error && (mean(2) - 1.0).abs() < 1.5 * error, "{} {}", mean(1), mean(2));
        assert!(
            mean(3).abs() < 4.0 * error && (mean(4) - 3.0).abs() < 10.0 * error,
            "{} {}",
            mean(3),
            mean(4)
        );
        let beyond = all.iter().filter(|v| v.abs() > 3.0).count() as f64 / n as f64;
        assert!((beyond - 0.0027).abs() < 5e-4, "{beyond}");
        let mut few = vec![0.0; 37];
        add_normals(&mut few, &[0.0; 37], 1.0, 7, Use::Noise, 3, 5);
        assert_eq!(few[..], all[..37]);
        add_normals(&mut few, &[0.0; 37], 1.0, 7, Use::Noise, 3, 6);
        assert_ne!(few[..], all[..37]);
    }

    #[test]
    fn logarithm_and_angle_are_right() {
        for i in 1..=4096 {
            let x = i as f32 / 4096.0;
            let want = f64::from(x).ln();
            assert!((f64::from(ln(x)) - want).abs() < 2e-7 * (1.0 + want.abs()), "{x}");
        }
        for i in 0..=64 {
            let t = (i as f32 - 32.0) / 256.0;
            let (s, c) = sin_cos(t);
            let (ws, wc) = (f64::from(t) * std::f64::consts::TAU).sin_cos();
            assert!((f64::from(s) - ws).abs() < 2e-7 && (f64::from(c) - wc).abs() < 2e-7, "{t}");
        }
    }

    #[test]
    fn choices_are_distinct_and_seeded() {
        let mut stream = Stream::new(1, Use::Choice, 0);
        let chosen = stream.choose(100, 10);
        assert_eq!(chosen.len(), 10);
        assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(Stream::new(1, Use::Choice, 0).choose(100, 10), chosen);
        assert_ne!(Stream::new(2, Use::Choice, 0).choose(100, 10), chosen);
        assert!((0..1000).map(|_| stream.below(7)).all(|v| v < 7));
    }
}
