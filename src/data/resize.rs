//! Resizing as Pillow's `Image.resize` does it, bit for bit: antialiased, in whole numbers, rows and then columns.
//!
//! Pixel x of the output stands for the interval of the input around c = (x + ½) · scale, where scale is the ratio of the
//! sides. It is the mean of the input pixels i, weighted by f((i + ½ − c) / max(scale, 1)), over those within the filter's
//! support. The weights of a pixel add up to 1 and are rounded to 22 binary places. Each of the two passes rounds to 8 bits.
//! `Nearest` takes the pixel at c and mixes nothing.
//!
//! Pillow 13 takes columns before rows where that saves work: where the height shrinks by more than twice what the width
//! does. Versions before it never do, and their pixels then differ by a level here and there.

use super::picture::Picture;

/// How pixels are mixed when a picture is resized: Pillow's filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// The mean of the pixels that a new one covers.
    Box,
    /// A triangle.
    #[default]
    Bilinear,
    /// A raised cosine.
    Hamming,
    /// Keys's cubic with a = −½.
    Bicubic,
    /// A windowed sinc of three lobes.
    Lanczos,
}

crate::names::names!(Interpolation {
    Nearest = "nearest": "the nearest pixel",
    Box = "box": "the mean of the pixels that a new one covers",
    Bilinear = "bilinear": "a triangle",
    Hamming = "hamming": "a raised cosine",
    Bicubic = "bicubic": "Keys's cubic",
    Lanczos = "lanczos": "a windowed sinc"
});

/// Binary places of a weight.
const PLACES: u32 = 22;

impl Interpolation {
    /// How far from its centre a filter reaches.
    fn support(self) -> f64 {
        match self {
            Interpolation::Nearest => 0.0,
            Interpolation::Box => 0.5,
            Interpolation::Bilinear | Interpolation::Hamming => 1.0,
            Interpolation::Bicubic => 2.0,
            Interpolation::Lanczos => 3.0,
        }
    }

    /// The filter at a distance.
    fn at(self, x: f64) -> f64 {
        let sinc = |x: f64| {
            if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) }
        };
        let far = x.abs();
        match self {
            Interpolation::Nearest => 0.0,
            Interpolation::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Interpolation::Bilinear => (1.0 - far).max(0.0),
            Interpolation::Hamming if far >= 1.0 => 0.0,
            Interpolation::Hamming => sinc(far) * (0.54 + 0.46 * (far * std::f64::consts::PI).cos()),
            Interpolation::Bicubic if far < 1.0 => (1.5 * far - 2.5) * far * far + 1.0,
            Interpolation::Bicubic if far < 2.0 => (((far - 5.0) * far + 8.0) * far - 4.0) * -0.5,
            Interpolation::Bicubic => 0.0,
            Interpolation::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Interpolation::Lanczos => 0.0,
        }
    }
}

/// The first input pixel of an output pixel, and the weights from there on.
type Weights = (usize, Vec<i64>);

/// The weights of each of `to` output pixels over `from` input pixels.
fn weights(from: usize, to: usize, filter: Interpolation) -> Vec<Weights> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let one = f64::from(1u32 << PLACES);
    let of = |x: usize| {
        let centre = (x as f64 + 0.5) * scale;
        let first = ((centre - support + 0.5) as i64).max(0) as usize;
        let end = ((centre + support + 0.5) as i64).min(from as i64) as usize;
        let raw: Vec<f64> =
            (first..end).map(|i| filter.at((i as f64 - centre + 0.5) * (1.0 / stretch))).collect();
        let sum: f64 = raw.iter().sum();
        let unit = |weight: f64| if sum == 0.0 { weight } else { weight / sum };
        let whole = |weight: f64| (weight * one + if weight < 0.0 { -0.5 } else { 0.5 }) as i64;
        (first, raw.into_iter().map(|weight| whole(unit(weight))).collect())
    };
    (0..to).map(of).collect()
}

/// A picture of this height and width, with as many channels.
pub(super) fn resize(picture: Picture, h: usize, w: usize, filter: Interpolation) -> Picture {
    if (h, w) == (picture.h, picture.w) {
        return picture;
    }
    if filter == Interpolation::Nearest {
        return nearest(&picture, h, w);
    }
    let along = |picture: Picture| if w == picture.w { picture } else { along_rows(&picture, w, filter) };
    let down = |picture: Picture| if h == picture.h { picture } else { down_columns(&picture, h, filter) };
    let columns_first = h < picture.h && 2 * (picture.w as i64 - w as i64) < (picture.h - h) as i64;
    match columns_first {
        true => along(down(picture)),
        false => down(along(picture)),
    }
}

fn rounded(sum: i64) -> u8 {
    ((sum + (1 << (PLACES - 1))) >> PLACES).clamp(0, 255) as u8
}

fn along_rows(picture: &Picture, w: usize, filter: Interpolation) -> Picture {
    let c = picture.c;
    let weights = weights(picture.w, w, filter);
    let mut pixels = Vec::with_capacity(picture.h * w * c);
    for row in picture.pixels.chunks_exact(picture.w * c) {
        for (first, weights) in &weights {
            for channel in 0..c {
                let of = |i: usize| i64::from(row[(first + i) * c + channel]);
                pixels.push(rounded(weights.iter().enumerate().map(|(i, weight)| weight * of(i)).sum()));
            }
        }
    }
    Picture { h: picture.h, w, c, pixels }
}

fn down_columns(picture: &Picture, h: usize, filter: Interpolation) -> Picture {
    let row = picture.w * picture.c;
    let mut pixels = Vec::with_capacity(h * row);
    for (first, weights) in weights(picture.h, h, filter) {
        let mut sums = vec![0; row];
        for (weight, from) in weights.iter().zip(picture.pixels[first * row..].chunks_exact(row)) {
            sums.iter_mut().zip(from).for_each(|(sum, &pixel)| *sum += weight * i64::from(pixel));
        }
        pixels.extend(sums.into_iter().map(rounded));
    }
    Picture { h, w: picture.w, c: picture.c, pixels }
}

/// Positions are sums of steps, as Pillow has them, which decide where a position falls on the edge of a pixel.
fn nearest(picture: &Picture, h: usize, w: usize) -> Picture {
    let places = |from: usize, to: usize| {
        let step = from as f64 / to as f64;
        let mut at = step * 0.5;
        let mut next = || {
            let place = (at as usize).min(from - 1);
            at += step;
            place
        };
        (0..to).map(|_| next()).collect::<Vec<usize>>()
    };
    let (rows, columns) = (places(picture.h, h), places(picture.w, w));
    let c = picture.c;
    let pixel = |(y, x): (usize, usize)| &picture.pixels[(y * picture.w + x) * c..][..c];
    let all = rows.iter().flat_map(|&y| columns.iter().map(move |&x| (y, x)));
    let pixels = all.flat_map(pixel).copied().collect();
    Picture { h, w, c, pixels }
}
