//! The exponential function, without branches and calls, so that the compiler can use vector instructions; every operation
//! is a correctly rounded one, so that every machine gives the same bits.

/// eˣ within 1.5 ulp; 0 and infinity beyond the numbers that f64 has.
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    /// 1.5 · 2⁵²: adding it rounds to an integer, which then stands in the lowest bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    /// ln 2 in two parts; the first has so few bits that its multiples by an exponent are exact.
    const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    /// 1/k!, from k = 13 down to 2.
    const P: [f64; 12] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
    ];
    let x = x.clamp(-746.0, 710.0);
    let rounded = x * std::f64::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * LN_2[0]) - n * LN_2[1]; // |r| ≤ ln 2 / 2
    let p = P[1..].iter().fold(P[0], |p, c| p * r + c);
    let p = 1.0 + (r + r * r * p);
    // 2ⁿ in two factors, as n is up to 1024 and down to −1076.
    let biased = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(2 * 1023);
    let half = biased >> 1;
    let power = |biased: u64| f64::from_bits(biased << 52);
    p * power(half) * power(biased.wrapping_sub(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_within_an_ulp_of_what_the_library_gives() {
        for i in 0..200_000 {
            let x = f64::from(i).mul_add(1455.0 / 200_000.0, -745.5);
            let want = x.exp();
            let ulp = f64::from_bits(want.to_bits() + 1) - want;
            assert!((exp(x) - want).abs() <= ulp || exp(x) == want, "{x}: {} {want}", exp(x));
        }
    }

    #[test]
    fn ends_are_exact() {
        assert_eq!([exp(0.0), exp(-0.0), exp(1e-300)], [1.0; 3]);
        assert_eq!([exp(f64::NEG_INFINITY), exp(-1e9), exp(-745.2)], [0.0; 3]);
        assert_eq!([exp(f64::INFINITY), exp(1e9), exp(709.79)], [f64::INFINITY; 3]);
        assert!(exp(f64::NAN).is_nan());
    }
}
