//! Normals in f64, from Philox written as in the paper.

/// Block `block` of the words of copy `copy` of sample `index`.
pub fn words(seed: u64, index: u32, copy: u32, block: u32) -> [u32; 4] {
    let mut x = [block, copy, index, 0];
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let product = |m: u32, v: u32| (u64::from(m) * u64::from(v), 32);
        let (a, shift) = product(0xd2511f53, x[0]);
        let (b, _) = product(0xcd9e8d57, x[2]);
        x = [(b >> shift) as u32 ^ x[1] ^ key[0], b as u32, (a >> shift) as u32 ^ x[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9e3779b9), key[1].wrapping_add(0xbb67ae85)];
    }
    x
}

/// Element `element` of copy `copy` of sample `index`: a standard normal by Box and Muller.
pub fn normal(seed: u64, index: u32, copy: u32, element: u32) -> f64 {
    let x = words(seed, index, copy, element / 4);
    let (a, b) = if element % 4 < 2 { (x[0], x[1]) } else { (x[2], x[3]) };
    let u = (f64::from(a >> 8) + 0.5) / f64::from(1 << 24);
    // 22 bits of angle within a quarter around 0, then whole quarters by the two highest bits
    let within = (f64::from((b >> 8) & 0x3f_ffff) / f64::from(1 << 22) - 0.5) / 4.0;
    let angle = std::f64::consts::TAU * (within + f64::from(b >> 30) / 4.0);
    (-2.0 * u.ln()).sqrt() * if element.is_multiple_of(2) { angle.cos() } else { angle.sin() }
}
