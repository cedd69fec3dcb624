//! C (+)= A B in f32, on strided views: the one place that calls the matrix-multiply crate.
#![allow(unsafe_code)]

/// A strided view of a matrix: element (i, j) is `data[i · row_stride + j · column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `columns` values, `row_stride` apart.
    pub fn rows(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Matrix<'a> {
        Matrix { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Matrix<'a> {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn fits(&self) -> bool {
        fits(self.data.len(), self.rows, self.columns, self.row_stride, self.column_stride)
    }
}

/// Whether the last element of a view lies within `len` values.
fn fits(len: usize, rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> bool {
    rows == 0 || columns == 0 || (rows - 1) * row_stride + (columns - 1) * column_stride < len
}

/// `c` `[a.rows, b.columns]`, rows `stride` apart, = or += `scale` · A B.
pub(crate) fn gemm(c: &mut [f32], stride: usize, a: Matrix, b: Matrix, scale: f32, accumulate: bool) {
    assert!(a.columns == b.rows && a.fits() && b.fits() && fits(c.len(), a.rows, b.columns, stride, 1));
    assert!(stride >= b.columns, "rows of the output overlap");
    // SAFETY: the first assertion keeps every element of the three views within its slice; c is borrowed mutably, so
    // it overlaps neither a nor b, and by the second assertion no two of its elements coincide.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            c.as_mut_ptr(),
            1,
            stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
