//! Single instructions of `kernels/common/sm90.h`, as [`super::ptx`]: for devices where [`Cuda::is_sm90`] holds.
#![allow(unsafe_code)] // launches

use crate::device::cuda::{Boxes, Buffer, Cuda, In, Launch, Out, tiles};
use crate::error::{Error, Result};
use crate::ops::same;

use super::{rows, word};

/// `values` `[rounds, 32]` from one warp to another, through a ring of mbarriers.
///
/// # Errors
/// No rounds, shapes that do not fit, or the device fails.
pub fn mbarrier(cuda: &Cuda, values: &Buffer<u32>) -> Result<Buffer<u32>> {
    let rounds = rows("mbarrier", values.len() / 32)?;
    same("mbarrier", "values", 32 * rounds as usize, values.len())?;
    let mut out = cuda.alloc(values.len())?;
    // SAFETY: both hold 32 words a round.
    unsafe { cuda.mbarrier(Launch::blocks("mbarrier", 1, 64)?, out.output(), values.input(), rounds)? };
    Ok(out)
}

/// The words of the box of `tensor` at coordinates `at` (the innermost first), as they stand in shared memory.
///
/// # Errors
/// Boxes that do not fit, or the device fails.
pub fn tensor_load(cuda: &Cuda, tensor: In<'_, u16>, boxes: &Boxes, at: &[i32]) -> Result<Buffer<u32>> {
    same("tensor map", "coordinates", boxes.dims.len(), at.len())?;
    let (map, words) = (cuda.tensor_map(tensor, boxes)?, of_box(boxes)?);
    let mut out = cuda.alloc(boxes.words())?;
    let [x, y, z, w] = [0, 1, 2, 3].map(|i| at.get(i).map_or(0, |&at| at as u32));
    let (launch, rank) = (Launch::blocks("tensor_load", 1, 32)?, word("tensor_load", "sizes", at.len())?);
    // SAFETY: `words` is what the map copies, which fits in shared memory, and out holds as many.
    unsafe { cuda.tensor_load(launch, out.output(), &map, words, rank, x, y, z, w)? };
    Ok(out)
}

/// The same of pixels of images: `at` is the channel and the w, h and image of the first base pixel; each is read
/// `offset` right and below.
///
/// # Errors
/// Boxes that do not fit, or the device fails.
pub fn image_load(
    cuda: &Cuda,
    tensor: In<'_, u16>,
    boxes: &Boxes,
    at: [i32; 4],
    offset: [u32; 2],
) -> Result<Buffer<u32>> {
    let (map, words) = (cuda.tensor_map(tensor, boxes)?, of_box(boxes)?);
    let mut out = cuda.alloc(boxes.words())?;
    let ([c, w, h, image], [right, down]) = (at.map(|at| at as u32), offset);
    let launch = Launch::blocks("image_load", 1, 32)?;
    // SAFETY: as of `tensor_load`.
    unsafe { cuda.image_load(launch, out.output(), &map, words, c, w, h, image, right, down)? };
    Ok(out)
}

/// The box of `tensor` at (x, y) becomes `values`, which are as they stand in shared memory.
///
/// # Errors
/// Boxes that do not fit, or the device fails.
pub fn tensor_store(
    cuda: &Cuda,
    tensor: Out<'_, u16>,
    boxes: &Boxes,
    values: &Buffer<u32>,
    at: [i32; 2],
) -> Result<()> {
    let map = cuda.tensor_map(tensor.input(), boxes)?;
    let ([x, y], words) = (at.map(|at| at as u32), of_box(boxes)?);
    same("tensor map", "words", boxes.words(), values.len())?;
    // SAFETY: `words` is what the map copies, which fits in shared memory, and values holds as many. A map reaches no
    // further than its tensor.
    unsafe { cuda.tensor_store(Launch::blocks("tensor_store", 1, 32)?, &map, values.input(), words, x, y) }
}

/// The rows `[4, 8, 4]` that a warp's words `[32, 4]` make of four matrices.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn stmatrix(cuda: &Cuda, words: &Buffer<u32>) -> Result<Buffer<u32>> {
    same("stmatrix", "words", 128, words.len())?;
    let mut out = cuda.alloc(128)?;
    // SAFETY: both hold 128 words.
    unsafe { cuda.stmatrix(Launch::blocks("stmatrix", 1, 32)?, out.output(), words.input())? };
    Ok(out)
}

/// The numbers of 384 threads that share out their registers.
///
/// # Errors
/// The device fails.
pub fn registers(cuda: &Cuda) -> Result<Buffer<u32>> {
    let mut out = cuda.alloc(384)?;
    // SAFETY: every thread has a word.
    unsafe { cuda.registers(Launch::blocks("registers", 1, 384)?, out.output())? };
    Ok(out)
}

/// How the operands of a wgmma of 64 rows and columns lie in shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// Whether rows, and not depth, are contiguous: of a, of b.
    pub by_depth: [bool; 2],
    /// Bytes of the rows that are swizzled, or 0.
    pub swizzle: u32,
    /// Bytes, of a and of b, as `operand` of `kernels/common/sm90.h` takes them.
    pub leading: [u32; 2],
    /// Bytes, of a and of b.
    pub stride: [u32; 2],
    /// Bytes from 16 depths to the next, of a and of b.
    pub step: [u32; 2],
}

/// What multiplies.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// bf16, 64 columns.
    Bf16(Operands),
    /// bf16, 256 columns, depth contiguous, swizzled in 128 bytes.
    Wide,
    /// f16, 64 columns, the same.
    F16,
    /// bf16, 64 columns, with a in registers: 16 depths of `[64, 8]` words.
    Fragments,
}

/// d += a bᵀ by wgmma over `steps` depths of 16; d `[64, columns]`, a and b the words of shared memory.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn wgmma(
    cuda: &Cuda,
    d: &mut Buffer<f32>,
    a: &Buffer<u32>,
    b: &Buffer<u32>,
    form: Form,
    steps: u32,
) -> Result<()> {
    let columns = if matches!(form, Form::Wide) { 256 } else { 64 };
    same("wgmma", "sums", 64 * columns, d.len())?;
    same("wgmma", "words of a", tiles::PTX_A_WORDS as usize, a.len())?;
    same("wgmma", "words of b", tiles::PTX_B_WORDS as usize, b.len())?;
    let launch = Launch::blocks("wgmma", 1, 128)?;
    let (d, a, b) = (d.output(), a.input(), b.input());
    // SAFETY: the lengths are those that the kernels copy; what lies beyond shared memory is refused by the hardware.
    unsafe {
        match form {
            Form::Bf16(o) => {
                let majors = u32::from(o.by_depth[0]) | u32::from(o.by_depth[1]) << 1;
                let ([al, bl], [at, bt], [a_step, b_step]) = (o.leading, o.stride, o.step);
                cuda.wgmma_bf16(launch, d, a, b, majors, o.swizzle, al, at, bl, bt, a_step, b_step, steps)
            }
            Form::Wide => cuda.wgmma_wide_bf16(launch, d, a, b, steps),
            Form::F16 => cuda.wgmma_f16(launch, d, a, b, steps),
            Form::Fragments => cuda.wgmma_fragments_bf16(launch, d, a, b),
        }
    }
}

/// The words of a box, which fit in the kernels' shared memory.
fn of_box(boxes: &Boxes) -> Result<u32> {
    match u32::try_from(boxes.words()) {
        Ok(words) if words <= tiles::PTX_BOX_WORDS => Ok(words),
        _ => Err(Error::shape(
            "tensor map",
            format!("at most {} words", tiles::PTX_BOX_WORDS),
            boxes.words().to_string(),
        )),
    }
}
