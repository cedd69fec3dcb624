//! The oracle of group norm: plain loops over one image `[shape]` at a time, generic over the number.

use scrubjay::ops::Shape;

use super::dual::Number;
use super::layers::{normalise, normalise_backward};

/// The indices of each group's values in an image, position by position.
fn groups(shape: Shape, groups: usize) -> Vec<Vec<usize>> {
    let width = shape.c / groups;
    let values = |group: usize| {
        let own = move |i: &usize| i % shape.c / width == group;
        (0..shape.len()).filter(own).collect()
    };
    (0..groups).map(values).collect()
}

fn gather<T: Number>(x: &[T], at: &[usize]) -> Vec<T> {
    at.iter().map(|&i| x[i]).collect()
}

/// x̂ of an image.
pub fn standard<T: Number>(x: &[T], shape: Shape, count: usize, eps: f32) -> Vec<T> {
    let mut all = vec![T::of(0.0); x.len()];
    for at in groups(shape, count) {
        let (hat, _) = normalise(&gather(x, &at), eps);
        at.iter().zip(hat).for_each(|(&i, hat)| all[i] = hat);
    }
    all
}

/// γ x̂ + β of an image.
pub fn forward<T: Number>(x: &[T], gamma: &[T], beta: &[T], shape: Shape, count: usize, eps: f32) -> Vec<T> {
    let hat = standard(x, shape, count, eps);
    hat.iter().enumerate().map(|(i, &hat)| hat * gamma[i % shape.c] + beta[i % shape.c]).collect()
}

/// The adjoint of [`forward`] at an image's `dy`.
pub fn backward<T: Number>(dy: &[T], x: &[T], gamma: &[T], shape: Shape, count: usize, eps: f32) -> Vec<T> {
    let mut dx = vec![T::of(0.0); x.len()];
    for at in groups(shape, count) {
        let (hat, r) = normalise(&gather(x, &at), eps);
        let u: Vec<T> = at.iter().map(|&i| dy[i] * gamma[i % shape.c]).collect();
        at.iter().zip(normalise_backward(&u, &hat, r)).for_each(|(&i, value)| dx[i] = value);
    }
    dx
}
