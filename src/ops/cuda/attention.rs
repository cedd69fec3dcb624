//! Attention on CUDA, as [`crate::ops::cpu::attention`] (MATH.md, Eq. 9). The input's channels are packed
//! q, k, v, each `heads · width`; the output's are the heads side by side; `saved` holds P, `[n, heads, t, t]`.
#![allow(unsafe_code)] // launches

use super::{Cuda, Element, Half, In, Out, Scalar, images, word};
use crate::device::cuda::{Launch, tiles};
use crate::error::{Error, Result};
use crate::ops::{Shape, Windows, same};

/// O to `y` `[n, shape]`, P to `saved` where it is wanted; `x` `[n, t, 3c]`. With a `mask` `[n, t]`, keys where it is 0 get no weight; the other
/// passes read that off `saved`. With `windows`, of which there are `n`, and their table of relative positions, scores have
/// its values and [`Windows::APART`] added. Without `saved`, values of 16 bits are multiplied on tensor cores, and weights
/// rounded to 16 bits, in heads of at most [`tiles::ATTENTION_WIDEST`] channels.
///
/// # Errors
/// Shapes that do not fit, more than [`tiles::ATTENTION_KEYS`] tokens of 16 bits in wider heads, or the device fails.
pub fn forward<T: Scalar>(
    cuda: &Cuda,
    y: Out<'_, T>,
    saved: Option<Out<'_, f32>>,
    x: In<'_, T>,
    n: usize,
    shape: Shape,
    heads: usize,
    mask: Option<In<'_, u32>>,
    windows: Option<(Windows, In<'_, f32>)>,
) -> Result<()> {
    let squares = saved.as_ref().map(|saved| saved.len());
    let at = Shapes::new("attention", n, shape, heads, &[x.len()], &[y.len()], squares.as_slice())?;
    if let Some(mask) = mask {
        same(at.op, "values in the mask", n * shape.positions(), mask.len())?;
    }
    let (sizes, table) = match windows {
        Some((windows, table)) => (at.windows(windows, table.len())?, Some(table)),
        None => ([0; 5], None),
    };
    let (on_tiles, longest) = (at.width <= tiles::ATTENTION_WIDEST, tiles::ATTENTION_KEYS);
    match (T::ELEMENT, saved) {
        (Element::Bf16, None) if on_tiles => {
            at.on_tiles::<half::bf16>(cuda, y.of_type(), x.of_type(), mask, table, sizes)
        }
        (Element::F16, None) if on_tiles => {
            at.on_tiles::<half::f16>(cuda, y.of_type(), x.of_type(), mask, table, sizes)
        }
        (Element::Bf16 | Element::F16, _) if at.t > longest => {
            let (most, found) = (tiles::ATTENTION_WIDEST, format!("{} and {}", at.t, at.width));
            let expected = format!("in 16 bits at most {longest} tokens, or heads of {most} channels");
            Err(Error::shape(at.op, expected, found))
        }
        (_, saved) => at.by_rows(cuda, y, saved, x, mask, table, sizes),
    }
}

/// O' = P'V + PV' to `ty`.
///
/// # Errors
/// As [`forward`].
pub fn tangent(
    cuda: &Cuda,
    ty: Out<'_, f32>,
    tx: In<'_, f32>,
    x: In<'_, f32>,
    saved: In<'_, f32>,
    n: usize,
    shape: Shape,
    heads: usize,
) -> Result<()> {
    let packed = [tx.len(), x.len()];
    let at = Shapes::new("attention_tangent", n, shape, heads, &packed, &[ty.len()], &[saved.len()])?;
    let (launch, Shapes { t, heads, width, .. }) = (at.blocks(tiles::ATTENTION_ROWS)?, at);
    // SAFETY: tx and x hold n images of t positions of three parts, ty of one, saved n·heads squares of t.
    unsafe { cuda.attention_tangent(launch, ty, tx, x, saved, t, heads, width) }
}

/// `dx` += the adjoint of `dy`, and the gradient of a table of relative positions += its own; `scratch` has the length of
/// `saved`.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    cuda: &Cuda,
    mut dx: Out<'_, f32>,
    dtable: Option<(Windows, Out<'_, f32>)>,
    mut scratch: Out<'_, f32>,
    dy: In<'_, f32>,
    x: In<'_, f32>,
    saved: In<'_, f32>,
    n: usize,
    shape: Shape,
    heads: usize,
) -> Result<()> {
    let (packed, squares) = ([dx.len(), x.len()], [scratch.len(), saved.len()]);
    let at = Shapes::new("attention_backward", n, shape, heads, &packed, &[dy.len()], &squares)?;
    let (launch, Shapes { t, heads, width, .. }) = (at.blocks(tiles::ATTENTION_ROWS)?, at);
    // SAFETY: dx and x hold n images of t positions of three parts, dy of one, the others n·heads squares of t.
    unsafe { cuda.attention_backward(launch, dx.output(), scratch.output(), dy, x, saved, t, heads, width)? };
    if let Some((windows, dtable)) = dtable {
        let [side, ..] = at.windows(windows, dtable.len())?;
        let launch = Launch::over(at.op, dtable.len() * 32, tiles::ATTENTION_THREADS)?;
        // SAFETY: dtable holds heads values for each offset, scratch n·heads squares of the tokens of a window.
        unsafe {
            cuda.attention_table(launch, dtable, scratch.input(), word(at.op, "windows", n)?, heads, side)?
        };
    }
    at.keys(cuda, dx.output(), scratch.input(), x)?;
    at.values(cuda, dx, saved, dy)
}

/// `dxt` += the derivative of [`backward`] along `tx` and `dyt`; `scratch` has three times the length of `saved`.
///
/// # Errors
/// As [`forward`].
pub fn tangent_backward(
    cuda: &Cuda,
    mut dxt: Out<'_, f32>,
    scratch: Out<'_, f32>,
    dyt: In<'_, f32>,
    dy: In<'_, f32>,
    tx: In<'_, f32>,
    x: In<'_, f32>,
    saved: In<'_, f32>,
    n: usize,
    shape: Shape,
    heads: usize,
) -> Result<()> {
    let op = "attention_tangent_backward";
    same(op, "values of scratch", 3 * saved.len(), scratch.len())?;
    let (packed, outputs) = ([dxt.len(), tx.len(), x.len()], [dyt.len(), dy.len()]);
    let at = Shapes::new(op, n, shape, heads, &packed, &outputs, &[saved.len()])?;
    let (mut moved, rest) = scratch.split_at(saved.len());
    let (mut ds, mut dst) = rest.split_at(saved.len());
    let (launch, Shapes { t, heads, width, .. }) = (at.blocks(tiles::ATTENTION_FEW)?, at);
    let (pt, ds_out, dst_out) = (moved.output(), ds.output(), dst.output());
    // SAFETY: dxt, tx and x hold n images of t positions of three parts, dyt and dy of one, the others n·heads squares.
    unsafe {
        cuda.attention_tangent_backward(
            launch,
            dxt.output(),
            pt,
            ds_out,
            dst_out,
            dyt,
            dy,
            tx,
            x,
            saved,
            t,
            heads,
            width,
        )?
    };
    at.keys(cuda, dxt.output(), dst.input(), x)?;
    at.keys(cuda, dxt.output(), ds.input(), tx)?;
    at.values(cuda, dxt.output(), moved.input(), dy)?;
    at.values(cuda, dxt, saved, dyt)
}

/// Shapes as the kernels take them.
#[derive(Clone, Copy)]
struct Shapes {
    op: &'static str,
    n: usize,
    t: u32,
    heads: u32,
    width: u32,
}

impl Shapes {
    /// Refuses other lengths of packed values, of outputs, and of squares.
    fn new(
        op: &'static str,
        n: usize,
        shape: Shape,
        heads: usize,
        packed: &[usize],
        outputs: &[usize],
        squares: &[usize],
    ) -> Result<Shapes> {
        let (Shape { h, w, c }, t) = (shape, shape.positions());
        if heads == 0 || !c.is_multiple_of(heads) {
            return Err(Error::shape(op, format!("channels in {heads} heads"), format!("{shape:?}")));
        }
        let images = |what: &str, shape: Shape, lens: &[usize]| {
            lens.iter().try_for_each(|&len| images(op, what, n, shape, len))
        };
        images("packed values", Shape::new(h, w, 3 * c), packed)?;
        images("outputs", shape, outputs)?;
        images("weights", Shape::new(heads, t, t), squares)?;
        let (t, heads, width) =
            (word(op, "tokens", t)?, word(op, "heads", heads)?, word(op, "channels", c / heads)?);
        Ok(Shapes { op, n, t, heads, width })
    }

    /// The sizes of windows of these many tokens, and a table of this length.
    fn windows(&self, windows: Windows, table: usize) -> Result<[u32; 5]> {
        same(self.op, "tokens of a window", windows.tokens(), self.t as usize)?;
        same(self.op, "values in the table", windows.offsets() * self.heads as usize, table)?;
        let Windows { side, rows, columns, down, right } = windows;
        if rows == 0 || columns == 0 || down >= side || right >= side {
            return Err(Error::shape(
                self.op,
                "windows, shifted by less than their side",
                format!("{windows:?}"),
            ));
        }
        let word = |value: usize| word(self.op, "windows", value);
        Ok([word(side)?, word(rows)?, word(columns)?, word(down)?, word(right)?])
    }

    /// Blocks of this many rows of each head of each image.
    fn blocks(&self, rows: u32) -> Result<Launch> {
        let blocks = self.n * self.heads as usize * self.t.div_ceil(rows) as usize;
        Launch::blocks(self.op, blocks, tiles::ATTENTION_THREADS)
    }

    /// The forward pass on tensor cores.
    fn on_tiles<H: Half>(
        &self,
        cuda: &Cuda,
        y: Option<Out<'_, H>>,
        x: Option<In<'_, H>>,
        mask: Option<In<'_, u32>>,
        table: Option<In<'_, f32>>,
        [side, rows, columns, down, right]: [u32; 5],
    ) -> Result<()> {
        let (Some(y), Some(x)) = (y, x) else {
            return Err(Error::shape(self.op, "values of 16 bits of one type", "others"));
        };
        let (launch, Shapes { t, heads, width, .. }) = (self.blocks(tiles::ATTENTION_BLOCK)?, *self);
        // SAFETY: as in `by_rows`; a head has no more channels than the kernel is for.
        unsafe {
            match width {
                0..=32 => cuda.attention_tiles_32(
                    launch, y, x, mask, table, t, heads, width, side, rows, columns, down, right,
                ),
                33..=64 => cuda.attention_tiles_64(
                    launch, y, x, mask, table, t, heads, width, side, rows, columns, down, right,
                ),
                _ => cuda.attention_tiles_128(
                    launch, y, x, mask, table, t, heads, width, side, rows, columns, down, right,
                ),
            }
        }
    }

    /// The forward pass with rows of P in shared memory.
    fn by_rows<T: Scalar>(
        &self,
        cuda: &Cuda,
        y: Out<'_, T>,
        saved: Option<Out<'_, f32>>,
        x: In<'_, T>,
        mask: Option<In<'_, u32>>,
        table: Option<In<'_, f32>>,
        [side, rows, columns, down, right]: [u32; 5],
    ) -> Result<()> {
        let (launch, Shapes { t, heads, width, .. }) = (self.blocks(tiles::ATTENTION_ROWS)?, *self);
        // SAFETY: the caller's check: x holds n images of t positions of three parts, y of one, saved n·heads squares of t, a
        // mask n·t values, a table heads values for each offset of two of the t tokens of a window.
        unsafe {
            cuda.attention(
                launch, y, saved, x, mask, table, t, heads, width, side, rows, columns, down, right,
            )
        }
    }

    /// dK += squaresᵀ Q/√width, Q of `packed`.
    fn keys(&self, cuda: &Cuda, dx: Out<'_, f32>, squares: In<'_, f32>, packed: In<'_, f32>) -> Result<()> {
        self.columns(cuda, dx, squares, packed, 1)
    }

    /// dV += squaresᵀ dO.
    fn values(&self, cuda: &Cuda, dx: Out<'_, f32>, squares: In<'_, f32>, dy: In<'_, f32>) -> Result<()> {
        self.columns(cuda, dx, squares, dy, 2)
    }

    /// Part `part` of dx += squaresᵀ x; of keys (1), x is packed, of values (2), an output's adjoint.
    fn columns(
        &self,
        cuda: &Cuda,
        dx: Out<'_, f32>,
        squares: In<'_, f32>,
        x: In<'_, f32>,
        part: u32,
    ) -> Result<()> {
        let (launch, Shapes { t, heads, width, .. }) = (self.blocks(tiles::ATTENTION_ROWS)?, *self);
        // SAFETY: the caller's check: dx and packed hold three parts a position, dy one, squares n·heads squares.
        unsafe { cuda.attention_columns(launch, dx, squares, x, t, heads, width, part) }
    }
}
