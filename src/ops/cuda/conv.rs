//! Affine layers on CUDA, as [`crate::ops::cpu::conv`]: the three bilinear primitives, and an affine node's whole forward
//! pass. Groups of one input channel each have kernels of their own.
#![allow(unsafe_code)] // launches

use half::{bf16, f16};

use super::chunks::{self, Chunks};
use super::{Cuda, Element, Half, In, Out, Scalar, activation, conv_sm90, images, word};
use crate::device::cuda::{
    AffineParameters, DataParameters, Flag, Launch, LayerSizes, WeightParameters, tiles,
};
use crate::error::{Error, Result};
use crate::ops::Geometry;
use crate::ops::{Activation, Precision, same};

/// What a node does with z = Wx + b: y = act(scale · z + shift + residual), in f32; only y is rounded to its type.
#[derive(Clone, Copy)]
pub struct Epilogue<'a, Y = f32> {
    /// Scale and shift of a frozen batch norm, `[o]` each.
    pub affine: Option<[In<'a, f32>; 2]>,
    /// What is added, `[n, output]`.
    pub residual: Option<In<'a, Y>>,
    /// The nonlinearity; ReLU and GELU cost no pass of their own. The argument of another is y, rounded.
    pub activation: Option<Activation>,
    /// Notes that a value of y is beyond its type.
    pub overflow: Option<Flag<'a>>,
}

impl<Y> Default for Epilogue<'_, Y> {
    fn default() -> Self {
        Epilogue { affine: None, residual: None, activation: None, overflow: None }
    }
}

/// `y` = or += W `x` + b; `x` `[n, input]`, `weight` `[o, fan_in]`, `bias` `[o]`, `y` `[n, output]`. With `rows` `[k]`
/// (ascending, below o), `weight` is `[k, fan_in]`, `bias` `[k]`, and only these output channels are touched.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn apply(
    cuda: &Cuda,
    y: Out<'_, f32>,
    x: In<'_, f32>,
    weight: In<'_, f32>,
    bias: Option<In<'_, f32>>,
    rows: Option<In<'_, u32>>,
    n: usize,
    geometry: &Geometry,
    accumulate: bool,
) -> Result<()> {
    let layer = Layer::new("conv", n, geometry, x.len(), y.len(), weight.len(), rows)?;
    let p = layer.parameters(y, None, x, weight, bias, Epilogue::default(), rows, 0, accumulate)?;
    // SAFETY: as of `Layer::launch`.
    match geometry.is_depthwise() {
        true => unsafe { cuda.conv_depthwise(layer.launch()?, p) },
        false => unsafe { cuda.conv(layer.launch()?, p) },
    }
}

/// The value of an affine node: `y` = act(scale · z + shift + residual) of z = W `x` + b, shapes as of [`apply`].
/// `parts` ([`parts`] of them) becomes the sums of z, before anything is rounded, that [`super::means::means`] takes. `x` and
/// `weight` are rounded to `precision` for the products; groups of one input channel each are f32 always. In bf16 and f16,
/// `x` and `y` may be of that type in memory, and `scratch` is for the weights, and for an `x` in f32, in that type
/// ([`scratch`] says of how many values). Where the device is sm_90a and TMA reaches, its kernels run.
///
/// # Errors
/// Shapes that do not fit, values of a type that this precision does not have, or the device fails.
pub fn forward<X: Scalar, Y: Scalar>(
    cuda: &Cuda,
    mut y: Out<'_, Y>,
    parts_out: Option<Out<'_, f64>>,
    x: In<'_, X>,
    weight: In<'_, f32>,
    bias: Option<In<'_, f32>>,
    epilogue: Epilogue<'_, Y>,
    n: usize,
    geometry: &Geometry,
    precision: Precision,
    scratch_out: Out<'_, u16>,
) -> Result<()> {
    let layer = Layer::new("conv", n, geometry, x.len(), y.len(), weight.len(), None)?;
    if let Some(out) = &parts_out {
        same("conv", "sums for the means", parts(n, geometry), out.len())?;
    }
    if let Some([scale, shift]) = epilogue.affine {
        same("conv", "scales", geometry.output.c, scale.len())?;
        same("conv", "shifts", geometry.output.c, shift.len())?;
    }
    if let Some(residual) = epilogue.residual {
        same("conv", "residual values", y.len(), residual.len())?;
    }
    same("conv", "values of scratch", scratch(n, geometry, precision, X::ELEMENT), scratch_out.len())?;
    let (fused, after) = match epilogue.activation {
        Some(Activation::Relu) => (tiles::CONV_RELU, None),
        Some(Activation::Gelu) => (tiles::CONV_GELU, None),
        other => (0, other),
    };
    let pass = Forward { layer, n, y: y.output(), parts: parts_out, x, bias, epilogue, fused };
    match precision {
        _ if geometry.is_depthwise() => pass.depthwise(cuda, weight)?,
        Precision::F32 => pass.single(cuda, weight, false)?,
        Precision::Tf32 => pass.single(cuda, weight, true)?,
        Precision::Bf16 => pass.half::<bf16>(cuda, weight, scratch_out)?,
        Precision::F16 => pass.half::<f16>(cuda, weight, scratch_out)?,
    }
    match after {
        Some(kind) => activation::forward_in_place(cuda, y, kind),
        None => Ok(()),
    }
}

/// Values of 16 bits that [`forward`] over `n` images takes as scratch, where its input is of this type in memory.
pub fn scratch(n: usize, geometry: &Geometry, precision: Precision, x: Element) -> usize {
    match precision {
        Precision::Bf16 | Precision::F16 if !geometry.is_depthwise() => {
            let rounded = if x == Element::F32 { n * geometry.input.len() } else { 0 };
            weights(geometry) + rounded
        }
        Precision::F32 | Precision::Tf32 | Precision::Bf16 | Precision::F16 => 0,
    }
}

/// Values of the weights in 16 bits; what stands behind them begins on 128 bytes.
fn weights(geometry: &Geometry) -> usize {
    (geometry.output.c * geometry.fan_in()).next_multiple_of(64)
}

/// `dx` = or += Wᵀ `dz`, as [`crate::ops::cpu::conv::data_gradient`]; `dx` `[n, input]`, `dz` `[n, output]`. With `rows`
/// `[k]` (ascending, below o), `weight` is `[k, fan_in]` and only these channels of dz count.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn data_gradient(
    cuda: &Cuda,
    dx: Out<'_, f32>,
    dz: In<'_, f32>,
    weight: In<'_, f32>,
    rows: Option<In<'_, u32>>,
    n: usize,
    geometry: &Geometry,
    accumulate: bool,
) -> Result<()> {
    let layer = Layer::new("conv_data", n, geometry, dx.len(), dz.len(), weight.len(), rows)?;
    let [_, pixels] = layer.pixels;
    let (input, conv) = (geometry.input, geometry.conv);
    let (blocks, threads) = match geometry.is_depthwise() {
        true => (lanes_of(input.c) * tiles_of(pixels as usize), tiles::DEPTHWISE_THREADS),
        false => {
            // A tile's pixels have one remainder by the stride in rows, and one in columns.
            let side = |side: usize| side.div_ceil(conv.stride);
            let tall = tiles_of(n * side(input.h) * side(input.w)) * conv.stride * conv.stride;
            (tiles_of(input.c / conv.groups) * conv.groups * tall, tiles::GEMM_THREADS)
        }
    };
    let launch = Launch::blocks(layer.op, blocks, threads)?;
    let numbers = [layer.rows, pixels, u32::from(accumulate)];
    let p = DataParameters { dx, dz, weight, rows, layer: layer.sizes, numbers };
    // SAFETY: dx holds n images of the input, dz of the output, weight a row for each of `rows`, or of the o channels.
    // No output pixel outside its image is read, and a row that is no channel is taken for the last one.
    match geometry.is_depthwise() {
        true => unsafe { cuda.conv_depthwise_data(launch, p) },
        false => unsafe { cuda.conv_data(launch, p) },
    }
}

/// `dw` += `dz`ᵀ `x` and `db` += Σ dz over images and positions, as [`crate::ops::cpu::conv::weight_gradient`]; `x`
/// `[n, input]`, `dz` `[n, output]`, `dw` `[o, fan_in]`, `db` `[o]`. With `rows` `[k]` (ascending, below o), both hold
/// these rows only. `parts` is scratch for [`gradient_parts`] values.
///
/// Pixels are summed in f32 by chunks, and chunks in f64, all in a fixed order that the shapes alone decide.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn weight_gradient(
    cuda: &Cuda,
    dw: Out<'_, f32>,
    db: Option<Out<'_, f32>>,
    parts: Out<'_, f32>,
    dz: In<'_, f32>,
    x: In<'_, f32>,
    rows: Option<In<'_, u32>>,
    n: usize,
    geometry: &Geometry,
) -> Result<()> {
    let layer = Layer::new("conv_weight", n, geometry, x.len(), dz.len(), dw.len(), rows)?;
    let (rows_here, depth) = (layer.rows as usize, geometry.fan_in());
    same(layer.op, "values in parts", gradient_parts(n, rows_here, geometry), parts.len())?;
    let Chunks { size, count: chunks, .. } = by_chunks(n, rows_here, geometry);
    let (mut parts, _) = parts.split_at(chunks * rows_here * (depth + 1));
    let threads = if geometry.is_depthwise() { tiles::DEPTHWISE_THREADS } else { tiles::GEMM_THREADS };
    let launch = Launch::blocks(layer.op, gradient_tiles(rows_here, geometry) * chunks, threads)?;
    let numbers = [layer.rows, layer.pixels[0], word(layer.op, "pixels", size)?];
    let p = WeightParameters { parts: parts.output(), dz, x, rows, layer: layer.sizes, numbers };
    // SAFETY: dz holds n images of the output, x of the input; parts holds, for every chunk of `size` of their pixels,
    // a value more than a row for each of `rows`, or of the o channels. Taps outside the image are not read, and a row
    // that is no channel is taken for the last one.
    match geometry.is_depthwise() {
        true => unsafe { cuda.conv_depthwise_weight(launch, p)? },
        false => unsafe { cuda.conv_weight(launch, p)? },
    }
    chunks::add(cuda, layer.op, dw, db, parts.read_only(), rows_here, depth, chunks)
}

/// The values of scratch that [`weight_gradient`] takes for `rows` rows and `n` images; never more for fewer images.
pub fn gradient_parts(n: usize, rows: usize, geometry: &Geometry) -> usize {
    by_chunks(n, rows, geometry).most * rows * (geometry.fan_in() + 1)
}

/// Blocks of a depthwise kernel that hold this many channels.
fn lanes_of(channels: usize) -> usize {
    channels.div_ceil(tiles::DEPTHWISE_CHANNELS as usize)
}

/// Tiles that hold this many rows, or columns.
pub(super) fn tiles_of(count: usize) -> usize {
    count.div_ceil(tiles::GEMM_TILE as usize)
}

/// Tiles of the output channels of all groups.
fn tall(rows: usize, geometry: &Geometry) -> usize {
    let groups = geometry.conv.groups;
    tiles_of((geometry.output.c / groups).min(rows)) * groups
}

fn by_chunks(n: usize, rows: usize, geometry: &Geometry) -> Chunks {
    let blocks = gradient_tiles(rows, geometry);
    Chunks::new(n * geometry.output.positions(), blocks, 128, tiles::GEMM_DEPTH as usize)
}

/// Tiles of a weight gradient.
fn gradient_tiles(rows: usize, geometry: &Geometry) -> usize {
    if geometry.is_depthwise() {
        return lanes_of(rows) * geometry.fan_in().div_ceil(tiles::DEPTHWISE_SUMS as usize);
    }
    tall(rows, geometry) * tiles_of(geometry.fan_in())
}

/// How many sums of z the means of `n` images are made from: one for each image that a tile of pixels overlaps, and
/// channel.
pub fn parts(n: usize, geometry: &Geometry) -> usize {
    let pixels = n * geometry.output.positions();
    pixels.div_ceil(tiles::GEMM_TILE as usize) * segments(geometry.output.positions()) * geometry.output.c
}

/// The most images of this many positions that a tile of pixels overlaps.
pub(super) fn segments(positions: usize) -> usize {
    (tiles::GEMM_TILE as usize - 1).div_ceil(positions) + 1
}

/// A forward pass whose shapes are checked.
struct Forward<'a, X, Y> {
    layer: Layer,
    n: usize,
    y: Out<'a, Y>,
    parts: Option<Out<'a, f64>>,
    x: In<'a, X>,
    bias: Option<In<'a, f32>>,
    epilogue: Epilogue<'a, Y>,
    /// The activation that the kernel applies.
    fused: u32,
}

impl<'a, X: Scalar, Y: Scalar> Forward<'a, X, Y> {
    /// What a kernel takes for these operands, where the result is of type `Z`.
    fn parameters<V, W, Z: Scalar>(
        self,
        x: In<'a, V>,
        weight: In<'a, W>,
    ) -> Result<AffineParameters<'a, V, W, Z>> {
        let Epilogue { affine, residual, activation, overflow } = self.epilogue;
        let residual =
            residual.map(|residual| residual.of_type::<Z>().ok_or_else(unknown::<X, Y>)).transpose()?;
        let epilogue = Epilogue { affine, residual, activation, overflow };
        let y = self.y.of_type::<Z>().ok_or_else(unknown::<X, Y>)?;
        self.layer.parameters(y, self.parts, x, weight, self.bias, epilogue, None, self.fused, false)
    }

    /// All in f32, or operands rounded to tf32.
    fn single(self, cuda: &Cuda, weight: In<'a, f32>, tf32: bool) -> Result<()> {
        let (launch, x) = (self.layer.launch()?, self.x.of_type::<f32>().ok_or_else(unknown::<X, Y>)?);
        let p = self.parameters(x, weight)?;
        // SAFETY: as of `Layer::launch`.
        match tf32 {
            true => unsafe { cuda.conv_tf32(launch, p) },
            false => unsafe { cuda.conv(launch, p) },
        }
    }

    /// Groups of one input channel each: products in f32, values of any one type.
    fn depthwise(self, cuda: &Cuda, weight: In<'a, f32>) -> Result<()> {
        let (launch, x) = (self.layer.launch()?, self.x.of_type::<Y>().ok_or_else(unknown::<X, Y>)?);
        let p = self.parameters::<_, _, Y>(x, weight)?;
        // SAFETY: as of `Layer::launch`.
        unsafe { cuda.conv_depthwise(launch, p) }
    }

    /// Operands in H, which are rounded first where they are f32, and the result in H or f32.
    fn half<H: Half>(self, cuda: &Cuda, weight: In<'a, f32>, scratch: Out<'a, u16>) -> Result<()> {
        let (geometry, n) = (self.layer.geometry, self.n);
        let (of_weight, mut of_x) = scratch.bits_of::<H>().split_at(weights(&geometry));
        let (mut of_weight, _) = of_weight.split_at(weight.len());
        let overflow = self.epilogue.overflow;
        narrow(cuda, of_weight.output(), weight, overflow)?;
        let (weight, x) = (
            of_weight.read_only(),
            match (self.x.of_type::<H>(), self.x.of_type::<f32>()) {
                (Some(x), _) => x,
                (None, Some(x)) => {
                    narrow(cuda, of_x.output(), x, overflow)?;
                    of_x.read_only()
                }
                (None, None) => return Err(unknown::<X, Y>()),
            },
        );
        let (launch, wide) = (self.layer.launch()?, Y::ELEMENT == Element::F32);
        // SAFETY: as of `Layer::launch`; the maps reach no further than their tensors.
        match conv_sm90::takes(cuda, &geometry) {
            true => {
                let (launch, of_x, of_weight) = conv_sm90::launch(cuda, x, weight, n, &geometry)?;
                match wide {
                    true => unsafe {
                        cuda.conv_half_wide_sm90(launch, &of_x, &of_weight, self.parameters(x, weight)?)
                    },
                    false => unsafe {
                        cuda.conv_half_sm90::<H>(launch, &of_x, &of_weight, self.parameters(x, weight)?)
                    },
                }
            }
            false => match wide {
                true => unsafe { cuda.conv_half_wide(launch, self.parameters(x, weight)?) },
                false => unsafe { cuda.conv_half::<H>(launch, self.parameters(x, weight)?) },
            },
        }
    }
}

/// Refuses values of types that no kernel takes together.
fn unknown<X: Scalar, Y: Scalar>() -> Error {
    let expected = "values in f32, or in the type of the products";
    Error::shape("conv", expected, format!("{} to {}", X::ELEMENT.name(), Y::ELEMENT.name()))
}

/// `out` = `x`, rounded to 16 bits; `overflow` notes where that is f16 and has no such value.
fn narrow<H: Half>(
    cuda: &Cuda,
    mut out: Out<'_, H>,
    x: In<'_, f32>,
    overflow: Option<Flag<'_>>,
) -> Result<()> {
    same("narrow", "values", x.len(), out.len())?;
    let len = word("narrow", "values", x.len())?;
    let launch = Launch::over("narrow", x.len().div_ceil(8), tiles::NARROW_THREADS)?;
    // SAFETY: both hold len values.
    unsafe { cuda.narrow(launch, out.output(), x, len)? };
    match (overflow, out.input().of_type::<f16>()) {
        (Some(flag), Some(values)) => beyond(cuda, flag, values),
        _ => Ok(()),
    }
}

/// Notes at `flag` where any of the `values` is no number.
///
/// # Errors
/// No values, too many, or the device fails.
pub fn beyond(cuda: &Cuda, flag: Flag<'_>, values: In<'_, f16>) -> Result<()> {
    let len = word("beyond", "values", values.len())?;
    let launch = Launch::over("beyond", values.len().div_ceil(8), tiles::NARROW_THREADS)?;
    // SAFETY: values hold len values, and flag a word.
    unsafe { cuda.beyond(launch, flag, values.words(), len) }
}

/// An affine layer's use as kernels take it.
pub(super) struct Layer {
    op: &'static str,
    geometry: Geometry,
    /// Rows of the weights that are given, all or some.
    rows: u32,
    /// Pixels of the output and of the input, of all images.
    pub pixels: [u32; 2],
    pub sizes: LayerSizes,
}

impl Layer {
    pub fn new(
        op: &'static str,
        n: usize,
        geometry: &Geometry,
        x: usize,
        y: usize,
        weight: usize,
        rows: Option<In<'_, u32>>,
    ) -> Result<Layer> {
        let Geometry { input, output, conv } = *geometry;
        images(op, "input", n, input, x)?;
        images(op, "output", n, output, y)?;
        let groups = conv.groups;
        let whole = |c: usize| groups > 0 && c.is_multiple_of(groups);
        if !whole(input.c) || !whole(output.c) || conv.stride == 0 {
            let expected = format!("channels in {groups} groups, and a stride");
            return Err(Error::shape(op, expected, format!("{input:?} to {output:?}, {conv:?}")));
        }
        let count = rows.map_or(output.c, |rows| rows.len());
        if count == 0 || count > output.c {
            return Err(Error::shape(op, format!("1 to {} rows", output.c), count.to_string()));
        }
        same(op, "weights", count * geometry.fan_in(), weight)?;
        let word = |value: usize| word(op, "values", value);
        word(weight)?;
        let ((r, s), (above, left)) = (conv.kernel, conv.padding);
        let mut words = [0; 13];
        let sizes = [input.h, input.w, input.c, output.h, output.w, output.c, r, s, conv.stride, above, left];
        for (to, from) in words.iter_mut().zip(sizes.into_iter().chain([conv.dilation, groups])) {
            *to = word(from)?;
        }
        let pixels = [word(n * output.positions())?, word(n * input.positions())?];
        Ok(Layer { op, geometry: *geometry, rows: word(count)?, pixels, sizes: LayerSizes(words) })
    }

    /// How a kernel of every architecture is launched for the forward pass. Such a kernel is sound with [`Layer::parameters`]: x
    /// holds n images of the input, y and the residual of the output; weight and bias hold a row for each of the rows, or of
    /// the o channels; scale and shift hold o; parts is as long as of [`parts`]. Taps outside the image are not read, and a
    /// row that is no channel is taken for the last one.
    fn launch(&self) -> Result<Launch> {
        let rows = self.rows as usize;
        let (wide, threads) = match self.geometry.is_depthwise() {
            true => (lanes_of(rows), tiles::DEPTHWISE_THREADS),
            false => (tall(rows, &self.geometry), tiles::GEMM_THREADS),
        };
        Launch::blocks(self.op, wide * tiles_of(self.pixels[0] as usize), threads)
    }

    /// What a kernel of the forward pass takes.
    fn parameters<'a, X, W, Y>(
        &self,
        y: Out<'a, Y>,
        parts: Option<Out<'a, f64>>,
        x: In<'a, X>,
        weight: In<'a, W>,
        bias: Option<In<'a, f32>>,
        epilogue: Epilogue<'a, Y>,
        rows: Option<In<'a, u32>>,
        activation: u32,
        accumulate: bool,
    ) -> Result<AffineParameters<'a, X, W, Y>> {
        if let Some(bias) = bias {
            same(self.op, "biases", self.rows as usize, bias.len())?;
        }
        let affine = epilogue.affine.map_or([None; 2], |affine| affine.map(Some));
        let segments = word(self.op, "images", segments(self.geometry.output.positions()))?;
        let numbers = [self.rows, self.pixels[0], segments, activation, u32::from(accumulate)];
        let (residual, overflow, layer) = (epilogue.residual, epilogue.overflow, self.sizes);
        Ok(AffineParameters { y, parts, x, weight, bias, affine, residual, rows, overflow, layer, numbers })
    }
}
