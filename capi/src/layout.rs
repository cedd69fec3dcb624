//! Views of the library's own values, for C.

use crate::raw::In;
use crate::tensor::{CPU, TYPES, Tensor, row_major};

/// What a view of the library's own values needs: its shape and strides, which live as long as the values.
pub struct Layout {
    shape: Vec<i64>,
    strides: Vec<i64>,
}

impl Layout {
    /// Of sides and strides in elements.
    pub fn new(sides: &[usize], strides: &[usize]) -> Layout {
        let numbers = |list: &[usize]| list.iter().map(|&number| number as i64).collect();
        Layout { shape: numbers(sides), strides: numbers(strides) }
    }

    /// Of sides in row-major order.
    pub fn rows(sides: &[usize]) -> Layout {
        Layout::new(sides, &row_major(sides).unwrap_or_default())
    }

    /// A view of values that begin here, of f32 or u32.
    pub fn view<T>(&self, values: &[T], dtype: &str) -> Tensor {
        let dtype = TYPES.iter().position(|(name, _)| *name == dtype).unwrap_or_default();
        Tensor {
            data: values.as_ptr().cast_mut().cast(),
            dtype: dtype as i32,
            device: CPU,
            device_index: 0,
            ndim: self.shape.len() as i32,
            shape: In::of(&self.shape),
            strides: In::of(&self.strides),
            stream: std::ptr::null_mut(),
        }
    }

    /// The sides.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// The strides, in elements.
    pub fn strides(&self) -> &[i64] {
        &self.strides
    }
}
