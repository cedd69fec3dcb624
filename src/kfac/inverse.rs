//! (H + λI)⁻¹ by the eigenvectors of both factors of each part.

use faer::{Mat, Side};
use rayon::prelude::*;

use super::moments::{Moments, WIDEST};
use super::parts::Part;
use crate::device::cuda::Buffer;
use crate::device::{Cuda, Device};
use crate::error::{Error, Result};
use crate::ops::cpu::gemm;
use crate::ops::cuda::vector::{self, Places};
use crate::ops::{Geometry, Shape, cuda};
use crate::solve::{CudaVector, Vector};

/// (H + λI)⁻¹ of a [`super::Kfac`].
pub struct Inverse {
    parts: Vec<Part>,
    held: Held,
    len: usize,
}

/// The factors of every part.
enum Held {
    Host(Vec<Factors>),
    Cuda(Cuda, Vec<OnCuda>),
}

/// Eigenvectors as columns, and 1/(a_j g_i + λ) for each pair `[k, w]`; without eigenvectors of A where it is its mean
/// diagonal.
struct Factors {
    a: Option<Vec<f32>>,
    g: Vec<f32>,
    inverse: Vec<f32>,
}

impl Factors {
    pub fn new(moments: &Moments<f64>, part: &Part, damping: f64) -> Result<Factors> {
        let eigen = |m: &[f64]| {
            let n = m.len().isqrt();
            let eigen = Mat::from_fn(n, n, |i, j| m[i * n + j]).self_adjoint_eigen(Side::Lower);
            let eigen = eigen
                .map_err(|e| Error::Solve { reason: format!("eigenvalues of a K-FAC factor: {e:?}") })?;
            let values: Vec<f64> = (0..n).map(|i| eigen.S().column_vector()[i].max(0.0)).collect();
            let vectors: Vec<f32> = (0..n * n).map(|at| eigen.U()[(at / n, at % n)] as f32).collect();
            Ok((vectors, values))
        };
        let (a, of_a) = match part.width > WIDEST {
            true => (None, vec![moments.a[0]; part.width]),
            false => eigen(&moments.a).map(|(vectors, values)| (Some(vectors), values))?,
        };
        let (g, of_g) = eigen(&moments.g)?;
        let pairs = of_g.iter().flat_map(|g| of_a.iter().map(move |a| g * a + damping));
        let inverse: Vec<f32> = pairs.map(|value| (1.0 / value) as f32).collect();
        match inverse.iter().all(|value| value.is_finite()) {
            true => Ok(Factors { a, g, inverse }),
            false => Err(Error::Solve { reason: "a K-FAC factor is singular: give a larger damping".into() }),
        }
    }

    /// rows `[k, w]` = (G ⊗ A + λI)⁻¹ rows.
    fn apply(&self, rows: &mut Vec<f32>, k: usize, w: usize) {
        let mut scratch = vec![0.0; k * w];
        let g = gemm::Matrix::rows(&self.g, k, k, k);
        let a = self.a.as_ref().map(|a| gemm::Matrix::rows(a, w, w, w));
        gemm::gemm(&mut scratch, w, g.t(), gemm::Matrix::rows(rows, k, w, w), 1.0, false);
        match a {
            Some(a) => gemm::gemm(rows, w, gemm::Matrix::rows(&scratch, k, w, w), a, 1.0, false),
            None => std::mem::swap(rows, &mut scratch),
        }
        rows.iter_mut().zip(&self.inverse).for_each(|(v, inverse)| *v *= inverse);
        match a {
            Some(a) => gemm::gemm(&mut scratch, w, gemm::Matrix::rows(rows, k, w, w), a.t(), 1.0, false),
            None => std::mem::swap(rows, &mut scratch),
        }
        gemm::gemm(rows, w, g, gemm::Matrix::rows(&scratch, k, w, w), 1.0, false);
    }
}

/// [`Factors`] in the memory of a CUDA device.
struct OnCuda {
    places: Places,
    a: Option<Buffer<f32>>,
    g: Buffer<f32>,
    transposed: Buffer<f32>, // of g
    inverse: Buffer<f32>,
    k: usize,
    w: usize,
}

impl OnCuda {
    fn new(cuda: &Cuda, factors: &Factors, part: &Part) -> Result<OnCuda> {
        let (k, w) = (part.channels.len(), part.width);
        let starts: Vec<u32> = part.starts.iter().map(|&start| start as u32).collect();
        let transposed: Vec<f32> = (0..k * k).map(|at| factors.g[at % k * k + at / k]).collect();
        Ok(OnCuda {
            places: Places::new(cuda, &starts, w, false)?, // the bias is the last value of a row
            a: factors.a.as_ref().map(|a| cuda.upload(a)).transpose()?,
            g: cuda.upload(&factors.g)?,
            transposed: cuda.upload(&transposed)?,
            inverse: cuda.upload(&factors.inverse)?,
            k,
            w,
        })
    }

    /// The rows of `out` = (G ⊗ A + λI)⁻¹ those of `v`, which are brought to a largest value of 1 by `scale` on the way.
    fn apply(&self, cuda: &Cuda, out: &mut CudaVector, v: &CudaVector, scale: f64) -> Result<()> {
        let OnCuda { places, a, g, transposed, inverse, k, w } = self;
        let flat = |inputs, outputs| Geometry::linear(Shape::new(1, 1, inputs), Shape::new(1, 1, outputs));
        let (mut rows, mut scratch) = (cuda.alloc::<f32>(k * w)?, cuda.alloc::<f32>(k * w)?);
        let product = |out: &mut Buffer<f32>, a: &Buffer<f32>, b: &Buffer<f32>, depth| {
            let out = out.output();
            cuda::conv::data_gradient(cuda, out, a.input(), b.input(), None, *k, &flat(*w, depth), false)
        };
        vector::to_rows(cuda, rows.output(), None, v.input(), places, scale)?;
        product(&mut scratch, transposed, &rows, *k)?;
        match a {
            Some(a) => product(&mut rows, &scratch, a, *w)?,
            None => std::mem::swap(&mut rows, &mut scratch),
        }
        cuda::pointwise::scale_in_place(cuda, rows.output(), inverse.input())?;
        match a {
            Some(a) => {
                let (out, v) = (scratch.output(), rows.input());
                cuda::conv::apply(cuda, out, v, a.input(), None, None, *k, &flat(*w, *w), false)?;
            }
            None => std::mem::swap(&mut rows, &mut scratch),
        }
        product(&mut rows, g, &scratch, *k)?;
        vector::from_rows(cuda, out.output(), rows.input(), None, places, 1.0, scale)
    }
}

impl Inverse {
    /// Of a block of length `len`, on the device.
    pub(super) fn new(
        device: &Device,
        parts: &[Part],
        moments: &[Moments<f64>],
        damping: f64,
        len: usize,
    ) -> Result<Inverse> {
        let factors = device.scope(|| {
            let pairs = moments.par_iter().zip(parts);
            pairs.map(|(moments, part)| Factors::new(moments, part, damping)).collect::<Result<_>>()
        })?;
        let held = match device.cuda() {
            Some(cuda) => {
                let held = |(factors, part)| OnCuda::new(cuda, factors, part);
                let all: Result<_> = std::iter::zip(&factors, parts).map(held).collect();
                Held::Cuda(cuda.clone(), all.map_err(|error| error.during("scratch for the inverse"))?)
            }
            None => Held::Host(factors),
        };
        Ok(Inverse { parts: parts.to_vec(), held, len })
    }

    /// `out` = (H + λI)⁻¹ v, both `[p]`: on a CUDA device they are brought there and back.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn apply(&self, device: &Device, out: &mut [f64], v: &[f64]) -> Result<()> {
        assert!(out.len() == self.len && v.len() == self.len, "vectors of the block's length");
        let factors = match &self.held {
            Held::Host(factors) => factors,
            Held::Cuda(cuda, _) => {
                let v = CudaVector::new(cuda, v)?;
                let mut moved = v.zeros()?;
                self.apply_on(&mut moved, &v)?;
                out.copy_from_slice(&moved.values()?);
                return Ok(());
            }
        };
        let scale = v.iter().fold(f64::MIN_POSITIVE, |top, v| top.max(v.abs()));
        let moved: Vec<Vec<f32>> = device.scope(|| {
            let pairs = factors.par_iter().zip(&self.parts);
            pairs
                .map(|(factors, part)| {
                    let values = part.starts.iter().flat_map(|&start| &v[start..start + part.width]);
                    let mut rows: Vec<f32> = values.map(|v| (v / scale) as f32).collect();
                    factors.apply(&mut rows, part.channels.len(), part.width);
                    rows
                })
                .collect()
        });
        for (part, rows) in self.parts.iter().zip(moved) {
            for (&start, row) in part.starts.iter().zip(rows.chunks_exact(part.width)) {
                let out = &mut out[start..start + part.width];
                out.iter_mut().zip(row).for_each(|(out, &v)| *out = f64::from(v) * scale);
            }
        }
        Ok(())
    }

    /// [`Inverse::apply`] on vectors that are on the device and stay there.
    ///
    /// # Errors
    /// Where a vector is not of the block's length, the inverse is not on a CUDA device, or that fails.
    pub fn apply_on(&self, out: &mut CudaVector, v: &CudaVector) -> Result<()> {
        let Held::Cuda(cuda, factors) = &self.held else {
            return Err(Error::config("an inverse on the CPU of a vector on CUDA"));
        };
        let lengths = (out.dimension(), v.dimension());
        if lengths != (self.len, self.len) {
            return Err(Error::shape("inverse", format!("[{}]", self.len), format!("{lengths:?}")));
        }
        let scale = v.largest()?.max(f64::MIN_POSITIVE);
        factors.iter().try_for_each(|factors| factors.apply(cuda, out, v, scale))
    }
}
