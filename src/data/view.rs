//! Inputs in memory that the caller owns: a strided view of `[n, c, h, w]` or `[n, features]`, read where it lies.
//!
//! A view is an [`Inputs`], so a network runs on it without a copy of the whole; [`View::samples`] makes the copy that a
//! session keeps. Values are taken as normalised already. 16-bit and f64 values become f32 when they are read.

use std::ops::Range;

use half::{bf16, f16};

use super::{InputKind, Inputs, Labels, Samples};
use crate::error::{Error, Result};
use crate::ops::Shape;

/// The elements of a view, from its first to its last.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// f32.
    F32(&'a [f32]),
    /// f64, rounded to f32.
    F64(&'a [f64]),
    /// f16.
    F16(&'a [f16]),
    /// bf16.
    Bf16(&'a [bf16]),
}

impl Elements<'_> {
    fn len(&self) -> usize {
        match self {
            Elements::F32(values) => values.len(),
            Elements::F64(values) => values.len(),
            Elements::F16(values) => values.len(),
            Elements::Bf16(values) => values.len(),
        }
    }

    #[inline]
    fn at(&self, i: usize) -> f32 {
        match self {
            Elements::F32(values) => values[i],
            Elements::F64(values) => values[i] as f32,
            Elements::F16(values) => values[i].to_f32(),
            Elements::Bf16(values) => values[i].to_f32(),
        }
    }
}

/// The number of elements from the first to the last of a strided table, with no stride below 0; 0 where a side is 0. None
/// where it is beyond `usize`.
pub fn extent(sides: &[usize], strides: &[usize]) -> Option<usize> {
    if sides.contains(&0) {
        return Some(0);
    }
    let mut steps = sides.iter().zip(strides);
    steps.try_fold(1, |len: usize, (side, stride)| len.checked_add((side - 1).checked_mul(*stride)?))
}

/// Inputs that the caller owns, with their labels.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    elements: Elements<'a>,
    n: usize,
    shape: Shape,
    /// Of n, c, h, w, in elements.
    strides: [usize; 4],
    labels: Option<&'a Labels>,
    width: usize,
}

impl<'a> View<'a> {
    /// A view of `sides` `[n, c, h, w]` or `[n, features]` at these strides, in elements.
    ///
    /// # Errors
    /// Where it has another number of sides, no inputs, empty ones or more than memory holds, `elements` end before it does, or
    /// a value is not finite; the message names the sample.
    pub fn new(elements: Elements<'a>, sides: &[usize], strides: &[usize]) -> Result<View<'a>> {
        let refuse = |found: String| Err(Error::shape("inputs", "[n, c, h, w] or [n, features]", found));
        let (n, shape, strides) = match (sides, strides) {
            (&[n, c, h, w], &[sn, sc, sh, sw]) => (n, Shape::new(h, w, c), [sn, sc, sh, sw]),
            (&[n, features], &[sn, sf]) => (n, Shape::new(1, 1, features), [sn, sf, 0, 0]),
            _ => return refuse(format!("{sides:?} with {} strides", strides.len())),
        };
        if sides.contains(&0) {
            return refuse(format!("{sides:?}, which holds nothing"));
        }
        match extent(sides, &strides[..sides.len()]) {
            Some(needed) if needed <= elements.len() => {}
            needed => {
                let needed = needed.map_or("more than can be addressed".into(), |needed| needed.to_string());
                return Err(Error::shape("inputs", format!("{needed} elements"), elements.len().to_string()));
            }
        }
        let values = sides.iter().try_fold(1usize, |values, side| values.checked_mul(*side));
        if values.is_none_or(|values| Vec::<f32>::new().try_reserve_exact(values).is_err()) {
            // A stride of 0 repeats inputs at no cost; what is made of them has its own.
            return Err(Error::config(format!("inputs {sides:?} are more than there is memory for")));
        }
        let view = View { elements, n, shape, strides, labels: None, width: 1 };
        let image = |i: usize| view.values(i).find(|value| !value.is_finite());
        match (0..n).find_map(|i| Some((i, image(i)?))) {
            Some((i, value)) => Err(Error::config(format!("sample {i} holds the value {value}"))),
            None => Ok(view),
        }
    }

    /// With labels, of which each sample has its own.
    ///
    /// # Errors
    /// Where there are not as many as inputs.
    pub fn with_labels(self, labels: &'a Labels) -> Result<View<'a>> {
        match labels.len() == self.n {
            true => Ok(View { labels: Some(labels), width: labels.width(), ..self }),
            false => Err(Error::shape("labels", format!("{} samples", self.n), labels.len().to_string())),
        }
    }

    /// Without labels, for a network that takes `width` words of label per sample: they are all 0, so that losses mean nothing.
    pub fn unlabelled(self, width: usize) -> View<'a> {
        View { labels: None, width, ..self }
    }

    /// A copy as samples, with these labels.
    ///
    /// # Errors
    /// Where there are not as many as inputs.
    pub fn samples(&self, labels: Labels) -> Result<Samples> {
        self.with_labels(&labels)?;
        let mut x = vec![0.0; self.n * self.shape.len()];
        self.copy(&mut x, 0..self.n);
        Ok(Samples { kind: InputKind::Image(self.shape), x, y: labels, stream: None })
    }

    /// The values of input `i`, in NHWC order.
    fn values(&self, i: usize) -> impl Iterator<Item = f32> + '_ {
        let (Shape { h, w, c }, [sn, sc, sh, sw]) = (self.shape, self.strides);
        let places =
            (0..h).flat_map(move |y| (0..w).flat_map(move |x| (0..c).map(move |z| y * sh + x * sw + z * sc)));
        places.map(move |at| self.elements.at(i * sn + at))
    }

    fn copy(&self, x: &mut [f32], range: Range<usize>) {
        for (image, i) in x.chunks_exact_mut(self.shape.len()).zip(range) {
            image.iter_mut().zip(self.values(i)).for_each(|(to, from)| *to = from);
        }
    }
}

impl Inputs for View<'_> {
    fn len(&self) -> usize {
        self.n
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn label_width(&self) -> usize {
        self.width
    }

    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) -> Result<()> {
        self.copy(x, range.clone());
        match self.labels {
            Some(labels) => y.copy_from_slice(labels.part(range)),
            None => y.fill(0),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_of_an_image_give_the_same_samples() {
        let planes: Vec<f32> = (0..24).map(|i| i as f32).collect(); // [2, 3, 2, 2]
        let first = View::new(Elements::F32(&planes), &[2, 3, 2, 2], &[12, 4, 2, 1]).unwrap();
        let first = first.samples(vec![0, 1].into()).unwrap();
        assert_eq!(*first.image(0).unwrap(), [0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]);
        let wide: Vec<f64> = first.x.iter().map(|&v| v.into()).collect();
        let last = View::new(Elements::F64(&wide), &[2, 3, 2, 2], &[12, 1, 6, 3]).unwrap();
        assert_eq!(last.samples(vec![0, 1].into()).unwrap(), first);
        let (mut x, mut y) = ([f32::NAN; 12], [7]);
        last.unlabelled(1).fill(&mut x, &mut y, 1..2).unwrap();
        assert_eq!((&x[..], y), (&*first.image(1).unwrap(), [0]));
    }

    #[test]
    fn what_is_not_there_or_not_finite_is_refused() {
        let values = [0.0f32, 1.0, f32::NAN, 3.0];
        let refused = |sides: &[usize], strides: &[usize]| {
            View::new(Elements::F32(&values), sides, strides).unwrap_err().to_string()
        };
        assert!(refused(&[2, 2], &[2, 1]).contains("sample 1 holds the value NaN"));
        assert!(refused(&[3, 2], &[2, 1]).contains("6 elements"));
        assert!(refused(&[2, usize::MAX], &[1, 2]).contains("more than can be addressed"));
        assert!(refused(&[2, 0], &[1, 1]).contains("holds nothing"));
        assert!(refused(&[2], &[1]).contains("[n, c, h, w]"));
        assert!(refused(&[1 << 45, 2], &[0, 1]).contains("than there is memory for"));
        let two = View::new(Elements::F32(&values), &[2, 1], &[1, 1]).unwrap();
        assert!(two.samples(vec![0].into()).is_err());
        assert_eq!(extent(&[3, 4], &[0, usize::MAX / 2]), None);
        assert_eq!(extent(&[usize::MAX, 2], &[1, 2]), None);
    }
}
