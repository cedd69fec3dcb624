//! Constants of an ONNX graph: stored tensors, of which large ones are not read, and what exporters compute of small ones,
//! as the shapes that a reshape takes.

use crate::error::{Error, Result};

/// The most values of a constant that is computed with.
pub(super) const MOST: usize = 1 << 20;

/// A constant.
#[derive(Clone, Debug)]
pub(super) struct Constant {
    pub shape: Vec<usize>,
    /// In row-major order, where it was computed.
    pub values: Option<Vec<f64>>,
    /// The stored tensor whose values, in their order, it has.
    pub stored: Option<Stored>,
    /// Whether it is of a type of whole numbers, which a division cuts.
    pub integer: bool,
}

/// A stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub name: String,
    /// Whether the constant is this matrix transposed.
    pub transposed: bool,
}

/// The most values of all constants of a graph that are computed with.
pub(super) const MOST_OF_ALL: usize = 16 * MOST;

/// The number of values of a shape; none where the sides that are not 0 have too large a product.
pub(super) fn count(shape: &[usize]) -> Option<usize> {
    let long = shape.iter().filter(|&&side| side > 0);
    let count = long.into_iter().try_fold(1usize, |count, &side| count.checked_mul(side));
    count.map(|count| if shape.contains(&0) { 0 } else { count })
}

impl Constant {
    /// One of floats that was computed.
    ///
    /// # Errors
    /// Where it is too large, or has another number of values than its shape.
    pub fn of(shape: Vec<usize>, values: Vec<f64>) -> Result<Constant> {
        match count(&shape) == Some(values.len()) && values.len() <= MOST {
            true => Ok(Constant { shape, values: Some(values), stored: None, integer: false }),
            false => Err(Error::config(format!("a constant of shape {shape:?} and {} values", values.len()))),
        }
    }

    /// A list of whole numbers.
    pub fn list(numbers: &[usize]) -> Constant {
        let values = numbers.iter().map(|&number| number as f64).collect();
        Constant { shape: vec![numbers.len()], values: Some(values), stored: None, integer: true }
    }

    /// The same, of whole numbers or not.
    pub fn whole(self, integer: bool) -> Constant {
        Constant { integer, ..self }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        count(&self.shape).unwrap_or(0)
    }

    /// The same values in their order under another shape.
    pub fn reshaped(&self, shape: &[usize]) -> Constant {
        // A transposed matrix is not in its stored order, so that only axes of length 1 may come and go.
        let sides = |shape: &[usize]| shape.iter().copied().filter(|&side| side != 1).collect::<Vec<_>>();
        let keeps = |stored: &&Stored| !stored.transposed || sides(shape) == sides(&self.shape);
        let stored = self.stored.as_ref().filter(keeps).cloned();
        Constant { shape: shape.to_vec(), values: self.values.clone(), stored, integer: self.integer }
    }

    /// For each axis, how many values further its next index is.
    fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1usize; self.shape.len()];
        for axis in (1..self.shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(self.shape[axis]); // too large where there are no values
        }
        strides
    }

    /// The axes in another order; `values` are this one's.
    pub fn transposed(&self, order: &[usize], values: &[f64]) -> Result<Constant> {
        let strides = self.strides();
        let shape: Vec<usize> = order.iter().map(|&axis| self.shape[axis]).collect();
        let moved = indices(&shape)
            .map(|at| values[order.iter().zip(&at).map(|(&axis, i)| strides[axis] * i).sum::<usize>()]);
        Ok(Constant::of(shape.clone(), moved.collect())?.whole(self.integer))
    }

    /// The values at these numbers along an axis; `values` are this one's.
    pub fn gathered(&self, axis: usize, numbers: &[usize], keep: bool, values: &[f64]) -> Result<Constant> {
        let strides = self.strides();
        let mut shape = self.shape.clone();
        shape[axis] = numbers.len();
        let found = indices(&shape).map(|at| {
            let step = |(k, i): (usize, &usize)| strides[k] * if k == axis { numbers[*i] } else { *i };
            values[at.iter().enumerate().map(step).sum::<usize>()]
        });
        let found = found.collect();
        if !keep {
            shape.remove(axis);
        }
        Ok(Constant::of(shape, found)?.whole(self.integer))
    }
}

/// Every index of a shape, in row-major order.
fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    let all = count(shape).unwrap_or(0).min(MOST);
    (0..all).map(|mut i| {
        let mut at = vec![0; shape.len()];
        for axis in (0..shape.len()).rev() {
            (at[axis], i) = (i % shape[axis], i / shape[axis]);
        }
        at
    })
}

/// Constants side by side along an axis.
pub(super) fn concatenated(parts: &[(Vec<usize>, Vec<f64>)], axis: usize) -> Result<Constant> {
    let mut shape = parts[0].0.clone();
    let fits = |(sides, _): &(Vec<usize>, Vec<f64>)| {
        sides.len() == shape.len() && (0..shape.len()).all(|k| k == axis || sides[k] == shape[k])
    };
    if axis >= shape.len() || !parts.iter().all(fits) {
        return Err(Error::config("constants of shapes that do not fit each other"));
    }
    let all = parts.iter().try_fold(0usize, |all, (_, part)| all.checked_add(part.len()));
    let (Some(outer), Some(inner), true) =
        (count(&shape[..axis]), count(&shape[axis + 1..]), all.is_some_and(|all| all <= MOST))
    else {
        return Err(Error::config(format!("constants of more than {MOST} values together")));
    };
    let mut values = vec![];
    for row in 0..outer {
        for (sides, part) in parts {
            let len = sides[axis] * inner;
            values.extend_from_slice(&part[row * len..(row + 1) * len]);
        }
    }
    shape[axis] = parts.iter().fold(0, |all, (sides, _)| all.saturating_add(sides[axis]));
    Constant::of(shape, values)
}

/// A function of constants of shapes that broadcast, value by value.
pub(super) fn broadcast(parts: &[(Vec<usize>, Vec<f64>)], f: impl Fn(&[f64]) -> f64) -> Result<Constant> {
    let rank = parts.iter().map(|(shape, _)| shape.len()).max().unwrap_or(0);
    let side =
        |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    let mut whole = vec![1; rank];
    for (shape, _) in parts {
        for (axis, whole) in whole.iter_mut().enumerate() {
            match (side(shape, axis), *whole) {
                (1, _) => {}
                (found, 1) => *whole = found,
                (found, known) if found == known => {}
                _ => return Err(Error::config("constants of shapes that do not fit each other")),
            }
        }
    }
    if count(&whole).is_none_or(|count| count > MOST) {
        return Err(Error::config(format!("a constant of shape {whole:?}, which is too large")));
    }
    let values = indices(&whole).map(|at| {
        let found: Vec<f64> = parts
            .iter()
            .map(|(shape, values)| {
                let place = (0..rank).fold(0, |place, axis| match side(shape, axis) {
                    1 => place,
                    side => place * side + at[axis],
                });
                values[place]
            })
            .collect();
        f(&found)
    });
    Constant::of(whole.clone(), values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_computed_as_arrays_are() {
        let of = |shape: &[usize], values: &[f64]| (shape.to_vec(), values.to_vec());
        let sum = broadcast(&[of(&[2, 1], &[1., 2.]), of(&[3], &[10., 20., 30.])], |v| v[0] + v[1]).unwrap();
        assert_eq!(sum.shape, [2, 3]);
        assert_eq!(sum.values.unwrap(), [11., 21., 31., 12., 22., 32.]);
        let joined = concatenated(&[of(&[2, 1], &[1., 2.]), of(&[2, 2], &[3., 4., 5., 6.])], 1).unwrap();
        assert_eq!(joined.values.unwrap(), [1., 3., 4., 2., 5., 6.]);
        let values: Vec<f64> = (0..6).map(f64::from).collect();
        let matrix = Constant::of(vec![2, 3], values.clone()).unwrap();
        let transposed = matrix.transposed(&[1, 0], &values).unwrap();
        assert_eq!(transposed.values.unwrap(), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(matrix.gathered(1, &[2, 0], true, &values).unwrap().values.unwrap(), [2., 0., 5., 3.]);
        assert_eq!(matrix.gathered(0, &[1], false, &values).unwrap().shape, [3]);
        assert!(broadcast(&[of(&[2], &[1., 2.]), of(&[3], &[1., 2., 3.])], |v| v[0]).is_err());
        assert!(Constant::of(vec![usize::MAX, 2], vec![]).is_err());
        assert_eq!([count(&[]), count(&[3, 0]), count(&[0, 1 << 40, 1 << 40])], [Some(1), Some(0), None]);
    }
}
