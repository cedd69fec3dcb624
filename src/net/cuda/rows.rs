//! Values of the selected rows on a CUDA device, and the sinks of their gradients: sums, or K-FAC's moments.

use super::passes::Passes;
use crate::device::Cuda;
use crate::device::cuda::{Buffer, In, Out};
use crate::error::Result;
use crate::net::LayerUse;
use crate::net::rows::RowValues;
use crate::ops::cuda::vector::{self, Places};
use crate::ops::cuda::{conv, pointwise};

/// One value for each selected row of each layer, as [`RowValues`], on the device.
pub(super) struct RowBuffers {
    pub weight: Vec<Buffer<f32>>,
    pub bias: Vec<Buffer<f32>>,
    pub other: Vec<Buffer<f32>>,
}

impl RowBuffers {
    pub fn upload(cuda: &Cuda, values: &RowValues) -> Result<RowBuffers> {
        let all = |of: &[Vec<f32>]| of.iter().map(|values| cuda.upload(values)).collect::<Result<_>>();
        Ok(RowBuffers { weight: all(&values.weight)?, bias: all(&values.bias)?, other: all(&values.other)? })
    }

    /// Writes the values of other rows of the same shape.
    pub fn write(&mut self, cuda: &Cuda, values: &RowValues) -> Result<()> {
        let buffers = self.weight.iter_mut().chain(&mut self.bias);
        let mut pairs = buffers.zip(values.weight.iter().chain(&values.bias));
        pairs.try_for_each(|(buffer, values)| cuda.write(buffer.output(), values))
    }

    pub fn download(&self, cuda: &Cuda) -> Result<RowValues> {
        let all = |of: &[Buffer<f32>]| of.iter().map(|buffer| cuda.download(buffer)).collect::<Result<_>>();
        Ok(RowValues { weight: all(&self.weight)?, bias: all(&self.bias)?, other: vec![] })
    }

    /// How many values these are.
    pub fn len(&self) -> usize {
        self.weight.iter().chain(&self.bias).chain(&self.other).map(Buffer::len).sum()
    }

    /// All values, one after the other.
    pub fn flat(&self, cuda: &Cuda) -> Result<Vec<f32>> {
        let buffers = self.weight.iter().chain(&self.bias).chain(&self.other);
        Ok(buffers.map(|buffer| cuda.download(buffer)).collect::<Result<Vec<_>>>()?.concat())
    }

    /// Writes what [`RowBuffers::flat`] gave of others of the same shape.
    pub fn write_flat(&mut self, cuda: &Cuda, values: &[f32]) -> Result<()> {
        let mut rest = values;
        let mut buffers = self.weight.iter_mut().chain(&mut self.bias).chain(&mut self.other);
        buffers.try_for_each(|buffer| {
            let (part, others) = rest.split_at(buffer.len());
            rest = others;
            cuda.write(buffer.output(), part)
        })
    }

    /// Adds others of the same shape.
    pub fn add(&mut self, cuda: &Cuda, other: &RowBuffers) -> Result<()> {
        let buffers = self.weight.iter_mut().chain(&mut self.bias).chain(&mut self.other);
        let others = other.weight.iter().chain(&other.bias).chain(&other.other);
        let mut pairs = buffers.zip(others).filter(|(buffer, _)| !buffer.is_empty());
        pairs.try_for_each(|(buffer, other)| pointwise::add(cuda, buffer.output(), other.input()))
    }

    /// Zeros.
    pub fn clear(&mut self, passes: &Passes) -> Result<()> {
        let buffers = self.weight.iter_mut().chain(&mut self.bias).chain(&mut self.other);
        buffers.filter(|buffer| !buffer.is_empty()).try_for_each(|buffer| passes.clear(buffer.output()))
    }

    /// The values of a vector of the block, over `scale`.
    pub fn set(&mut self, cuda: &Cuda, v: In<'_, f64>, places: &[Option<Places>], scale: f64) -> Result<()> {
        places.iter().zip(self.weight.iter_mut().zip(&mut self.bias)).try_for_each(
            |(places, (weight, bias))| {
                let Some(places) = places else { return Ok(()) };
                let bias = Some(bias).filter(|bias| !bias.is_empty()).map(Buffer::output);
                vector::to_rows(cuda, weight.output(), bias, v, places, scale)
            },
        )
    }

    /// These values over `n`, times `scale`, as a vector of the block.
    pub fn get(
        &self,
        cuda: &Cuda,
        mut v: Out<'_, f64>,
        places: &[Option<Places>],
        n: usize,
        scale: f64,
    ) -> Result<()> {
        places.iter().enumerate().try_for_each(|(layer, places)| {
            let Some(places) = places else { return Ok(()) };
            let (weight, bias) = (self.weight[layer].input(), self.bias(layer));
            vector::from_rows(cuda, v.output(), weight, bias, places, n as f64, scale)
        })
    }

    /// A layer's biases, where it has any.
    pub fn bias(&self, layer: usize) -> Option<In<'_, f32>> {
        Some(&self.bias[layer]).filter(|bias| !bias.is_empty()).map(Buffer::input)
    }
}

/// One use of a layer with selected rows, in a backward pass over `n` images.
pub(super) struct Used<'a> {
    /// The layer.
    pub at: &'a LayerUse,
    /// The adjoint of its own output.
    pub dz: In<'a, f32>,
    /// Its input.
    pub x: In<'a, f32>,
    /// Whether dz counts for the bias.
    pub bias: bool,
    pub n: usize,
}

/// What takes the gradients of a backward pass.
pub(super) trait Sink {
    /// Takes one use of a layer; `sums` is the arena's memory for sums.
    fn take(&mut self, passes: &Passes, used: Used<'_>, sums: Out<'_, f32>) -> Result<()>;

    /// In training, the gradients by parameter of those that belong to no layer; else empty.
    fn other(&mut self) -> &mut [Buffer<f32>];
}

/// Gradients of the selected rows.
impl Sink for RowBuffers {
    fn take(&mut self, passes: &Passes, used: Used<'_>, sums: Out<'_, f32>) -> Result<()> {
        let Used { at, dz, x, bias, n } = used;
        let (layer, geometry) = (at.layer.index(), &at.geometry);
        let count = passes.plan.rows[layer].count(passes.net.layers[layer].outputs);
        if count == 0 {
            return Ok(());
        }
        let (sums, _) = sums.split_at(conv::gradient_parts(n, count, geometry));
        let db = Some(&mut self.bias[layer]).filter(|db| bias && !db.is_empty()).map(Buffer::output);
        let (dw, rows) = (self.weight[layer].output(), passes.subset(layer));
        conv::weight_gradient(passes.cuda, dw, db, sums, dz, x, rows, n, geometry)
    }

    fn other(&mut self) -> &mut [Buffer<f32>] {
        &mut self.other
    }
}
