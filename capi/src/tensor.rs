//! Tensors that C passes: a pointer with a type, a shape and strides, all of it checked before the first element is read.

use std::ffi::c_void;

use half::{bf16, f16};
use scrubjay::codec::Columns;
use scrubjay::data::{Elements, Labels, View, extent};
use scrubjay::device::Foreign;

use crate::raw::In;
use crate::status::{Failure, NULL, Outcome, UNSUPPORTED};

/// `sj_tensor`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tensor {
    /// The first element.
    pub data: *mut c_void,
    /// The type: the position in [`TYPES`].
    pub dtype: i32,
    /// Where it is: 0 is the CPU, 1 a GPU.
    pub device: i32,
    /// The number of the device among those of its kind.
    pub device_index: i32,
    /// Sides.
    pub ndim: i32,
    /// `[ndim]`.
    pub shape: In<i64>,
    /// `[ndim]` in elements; NULL is row-major.
    pub strides: In<i64>,
    /// The stream on which values on a GPU are ready or wanted; NULL on the CPU.
    pub stream: *mut c_void,
}

/// The fields of `sj_tensor` and where each begins, for the test that compares them with the header.
#[cfg(test)]
pub const FIELDS: [(&str, usize); 8] = {
    use std::mem::offset_of;
    [
        ("data", offset_of!(Tensor, data)),
        ("dtype", offset_of!(Tensor, dtype)),
        ("device", offset_of!(Tensor, device)),
        ("device_index", offset_of!(Tensor, device_index)),
        ("ndim", offset_of!(Tensor, ndim)),
        ("shape", offset_of!(Tensor, shape)),
        ("strides", offset_of!(Tensor, strides)),
        ("stream", offset_of!(Tensor, stream)),
    ]
};

/// The header's number of the CPU.
pub const CPU: i32 = 0;
/// The header's number of GPUs.
pub const CUDA: i32 = 1;

/// Sides at most.
const MOST_SIDES: usize = 8;

/// Types, in the order of the header's numbers: name, bytes.
pub const TYPES: [(&str, usize); 8] =
    [("f32", 4), ("f64", 8), ("f16", 2), ("bf16", 2), ("i32", 4), ("i64", 8), ("u32", 4), ("u8", 1)];

/// A tensor whose description was checked.
struct Checked<'a> {
    tensor: &'a Tensor,
    what: &'static str,
    dtype: &'static str,
    sides: Vec<usize>,
    strides: Vec<usize>,
    /// Elements from the first to the last.
    extent: usize,
    /// Where they are on a GPU; none in host memory.
    gpu: Option<Foreign>,
    /// A copy of those on a GPU, as words that are aligned for every type.
    copy: Vec<u64>,
}

/// Runs a body with `T` as the type of a tensor's elements.
macro_rules! of_type {
    ($dtype:expr, $type:ident => $body:expr) => {
        match $dtype {
            "f32" => {
                type $type = f32;
                $body
            }
            "f64" => {
                type $type = f64;
                $body
            }
            "f16" => {
                type $type = f16;
                $body
            }
            "bf16" => {
                type $type = bf16;
                $body
            }
            "i32" => {
                type $type = i32;
                $body
            }
            "i64" => {
                type $type = i64;
                $body
            }
            "u32" => {
                type $type = u32;
                $body
            }
            _ => {
                type $type = u8;
                $body
            }
        }
    };
}

/// A number that is read as f64 and written from f64.
trait Number: Copy {
    fn wide(self) -> f64;
}

macro_rules! numbers {
    ($($type:ty: $wide:expr;)+) => {$(
        impl Number for $type {
            fn wide(self) -> f64 {
                let wide: fn($type) -> f64 = $wide;
                wide(self)
            }
        }
    )+};
}

numbers! {
    f32: f64::from;
    f64: |v| v;
    f16: f64::from;
    bf16: f64::from;
    i32: f64::from;
    i64: |v| v as f64;
    u32: f64::from;
    u8: f64::from;
}

impl<'a> Checked<'a> {
    fn new(tensor: &'a Tensor, what: &'static str) -> Outcome<Checked<'a>> {
        let gpu = match (tensor.device, usize::try_from(tensor.device_index)) {
            (CPU, Ok(0)) if tensor.stream.is_null() => None,
            (CPU, _) => {
                return Err(Failure::argument(format!(
                    "{what} is on the CPU, which has number 0 and no stream"
                )));
            }
            (CUDA, Ok(ordinal)) => {
                Some(Foreign { ordinal, address: tensor.data as u64, stream: tensor.stream })
            }
            (CUDA, Err(_)) => {
                return Err(Failure::argument(format!("{what} is on GPU {}", tensor.device_index)));
            }
            (other, _) => {
                let reason =
                    format!("{what} is on a device of kind {other}; copy it to the CPU or to a CUDA GPU");
                return Err(Failure::new(UNSUPPORTED, reason));
            }
        };
        let dtype = usize::try_from(tensor.dtype).ok().and_then(|dtype| TYPES.get(dtype));
        let &(dtype, size) = dtype.ok_or_else(|| {
            Failure::argument(format!("{what} has the type {}, which is none", tensor.dtype))
        })?;
        let count = usize::try_from(tensor.ndim).ok().filter(|&count| count <= MOST_SIDES);
        let count = count.ok_or_else(|| {
            Failure::argument(format!("{what} has {} sides; 0 to {MOST_SIDES} were expected", tensor.ndim))
        })?;
        let sides = positive(tensor.shape.list(count, "shape")?, what, "side")?;
        let strides = match tensor.strides.is_null() {
            false => positive(tensor.strides.list(count, "strides")?, what, "stride")?,
            true => row_major(&sides).ok_or_else(|| {
                Failure::argument(format!("{what} has more elements than can be addressed: {sides:?}"))
            })?,
        };
        let extent = extent(&sides, &strides)
            .filter(|extent| extent.checked_mul(size).is_some_and(|bytes| bytes <= isize::MAX as usize));
        let extent = extent.ok_or_else(|| {
            Failure::argument(format!(
                "{what} {sides:?} at strides {strides:?} is beyond what can be addressed"
            ))
        })?;
        let count = sides.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
        if count.is_none_or(|count| Vec::<f64>::new().try_reserve_exact(count).is_err()) {
            // A stride of 0 repeats elements at no cost; what is made of them has its own.
            return Err(Failure::argument(format!(
                "{what} {sides:?} has more elements than there is memory for"
            )));
        }
        if extent > 0 && tensor.data.is_null() {
            return Err(Failure::new(NULL, format!("the data of {what} is NULL")));
        }
        if !(tensor.data as usize).is_multiple_of(if extent > 0 { size } else { 1 }) {
            let place = tensor.data;
            return Err(Failure::argument(format!(
                "{what} is at {place:p}, which is no multiple of its type's {size}"
            )));
        }
        Ok(Checked { tensor, what, dtype, sides, strides, extent, gpu, copy: vec![] })
    }

    /// A tensor that is read: where it is on a GPU, its elements are copied from there.
    fn read(tensor: &'a Tensor, what: &'static str) -> Outcome<Checked<'a>> {
        let mut checked = Checked::new(tensor, what)?;
        if let Some(gpu) = checked.gpu {
            checked.copy = copied(gpu, checked.extent * checked.size())?;
        }
        Ok(checked)
    }

    /// The bytes of an element.
    fn size(&self) -> usize {
        TYPES.iter().find(|(name, _)| *name == self.dtype).map_or(0, |(_, size)| *size)
    }

    /// The elements from the first to the last; `T` is the tensor's own type.
    fn elements<T: Copy>(&self) -> &[T] {
        if self.gpu.is_none() {
            return self.lying();
        }
        debug_assert_eq!(self.size(), size_of::<T>());
        // SAFETY: the copy has the bytes of as many elements, aligned for every type, and every pattern of bits is a number.
        unsafe { std::slice::from_raw_parts(self.copy.as_ptr().cast::<T>(), self.extent) }
    }

    /// The elements where they lie in host memory, from the first to the last; none of a tensor on a GPU.
    fn lying<T: Copy>(&self) -> &'a [T] {
        if self.extent == 0 || self.gpu.is_some() {
            return &[];
        }
        debug_assert_eq!(self.size(), size_of::<T>());
        // SAFETY: not NULL and aligned for the type; the extent is one that a slice can have; C promises that all of it is
        // readable and is not written meanwhile.
        unsafe { std::slice::from_raw_parts(self.tensor.data.cast::<T>(), self.extent) }
    }

    fn refuse(&self, expected: &str) -> Failure {
        Failure::argument(format!(
            "{} is {} {:?}, where {expected} was expected",
            self.what, self.dtype, self.sides
        ))
    }

    /// Where every element is, in row-major order.
    fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let count = if self.extent == 0 { 0 } else { self.sides.iter().product() };
        (0..count).map(|mut i: usize| {
            let mut at = 0;
            for (side, stride) in self.sides.iter().zip(&self.strides).rev() {
                at += i % side * stride;
                i /= side;
            }
            at
        })
    }

    /// All elements in row-major order, as f64.
    fn wide(&self) -> Vec<f64> {
        of_type!(self.dtype, T => {
            let elements = self.elements::<T>();
            self.places().map(|at| elements[at].wide()).collect()
        })
    }

    /// Whether every element has a place of its own.
    fn is_injective(&self) -> bool {
        let mut axes: Vec<(usize, usize)> = self
            .strides
            .iter()
            .copied()
            .zip(self.sides.iter().copied())
            .filter(|(_, side)| *side > 1)
            .collect();
        axes.sort_unstable();
        let mut reach = 0usize;
        axes.iter().all(|(stride, side)| {
            let disjoint = *stride > reach;
            reach += stride * (side - 1);
            disjoint
        })
    }
}

/// The bytes of a tensor on a GPU, copied to the host.
fn copied(gpu: Foreign, bytes: usize) -> Outcome<Vec<u64>> {
    let mut copy = vec![0u64; bytes.div_ceil(8)];
    // SAFETY: the words are ours, of this many bytes at least, and any bytes are words.
    let into = unsafe { std::slice::from_raw_parts_mut(copy.as_mut_ptr().cast::<u8>(), bytes) };
    // SAFETY: C promises that the stream is one of the GPU, and that nothing else writes the tensor meanwhile.
    unsafe { gpu.read(into) }?;
    Ok(copy)
}

fn positive(numbers: &[i64], what: &str, of: &str) -> Outcome<Vec<usize>> {
    let one = |&number: &i64| {
        usize::try_from(number)
            .map_err(|_| Failure::argument(format!("{what} has the {of} {number}; none is below 0")))
    };
    numbers.iter().map(one).collect()
}

/// The strides of sides in row-major order, where their product can be addressed.
pub fn row_major(sides: &[usize]) -> Option<Vec<usize>> {
    let mut strides = vec![0; sides.len()];
    let mut stride = 1usize;
    for (at, side) in sides.iter().enumerate().rev() {
        strides[at] = stride;
        stride = stride.checked_mul((*side).max(1))?;
    }
    Some(strides)
}

/// Inputs of a network.
pub struct Inputs<'a>(Checked<'a>);

/// Inputs `[n, c, h, w]` or `[n, features]` of floats.
pub fn inputs<'a>(tensor: &'a In<Tensor>) -> Outcome<Inputs<'a>> {
    Ok(Inputs(Checked::read(tensor.get("tensor x")?, "x")?))
}

impl Inputs<'_> {
    /// The values where they lie, or a copy of those on a GPU.
    pub fn view(&self) -> Outcome<View<'_>> {
        let Inputs(x) = self;
        let elements = match x.dtype {
            "f32" => Elements::F32(x.elements()),
            "f64" => Elements::F64(x.elements()),
            "f16" => Elements::F16(x.elements()),
            "bf16" => Elements::Bf16(x.elements()),
            _ => return Err(x.refuse("f32, f64, f16 or bf16 [n, c, h, w] or [n, features], normalised,")),
        };
        Ok(View::new(elements, &x.sides, &x.strides)?)
    }
}

/// Labels: `[n]` or `[n, 1]` of classes, or `[n, labels]` of 0 and 1.
pub fn labels(tensor: &In<Tensor>) -> Outcome<Labels> {
    let y = Checked::read(tensor.get("tensor y")?, "y")?;
    if matches!(y.dtype, "f32" | "f64" | "f16" | "bf16") {
        return Err(y.refuse("whole numbers of i32, i64, u32 or u8"));
    }
    let word = |(i, value): (usize, f64)| match value >= 0.0 && value <= f64::from(u32::MAX) {
        true => Ok(value as u32),
        false => Err(Failure::argument(format!("y: element {i} is {value}, which is no label"))),
    };
    let words: Vec<u32> = y.wide().into_iter().enumerate().map(word).collect::<Outcome<_>>()?;
    match y.sides[..] {
        [_] | [_, 1] => Ok(Labels::Classes(words)),
        [_, labels] if labels > 0 => match words.iter().position(|&word| word > 1) {
            None => Ok(Labels::Multi { labels, rows: words }),
            Some(i) => Err(Failure::argument(format!(
                "y: sample {}, label {} is {}, where 0 or 1 was expected",
                i / labels,
                i % labels,
                words[i]
            ))),
        },
        _ => Err(y.refuse("[n] of classes, or [n, labels] of 0 and 1,")),
    }
}

/// Words `[n, t]` of whole numbers, and t.
pub fn words(tensor: &In<Tensor>, what: &'static str) -> Outcome<(Vec<u32>, usize)> {
    let words = Checked::read(tensor.get(what)?, what)?;
    let &[_, columns] = &words.sides[..] else { return Err(words.refuse("whole numbers [n, t]")) };
    if matches!(words.dtype, "f32" | "f64" | "f16" | "bf16") {
        return Err(words.refuse("whole numbers of i32, i64, u32 or u8"));
    }
    let word = |(i, value): (usize, f64)| match value >= 0.0 && value <= f64::from(u32::MAX) {
        true => Ok(value as u32),
        false => Err(Failure::argument(format!(
            "{what}: sample {}, position {} is {value}",
            i / columns,
            i % columns
        ))),
    };
    Ok((words.wide().into_iter().enumerate().map(word).collect::<Outcome<_>>()?, columns))
}

/// A vector of numbers; `len` is its expected length, where that is known.
pub fn vector(tensor: &In<Tensor>, what: &'static str, len: Option<usize>) -> Outcome<Vec<f64>> {
    let v = Checked::read(tensor.get(what)?, what)?;
    match v.sides[..] {
        [found] if len.is_none_or(|len| len == found) => Ok(v.wide()),
        _ => Err(v.refuse(&len.map_or("[n]".into(), |len| format!("[{len}]")))),
    }
}

/// Whether a tensor holds f32, so that its values are read without rounding.
pub fn is_f32(tensor: &In<Tensor>, what: &'static str) -> Outcome<bool> {
    Ok(Checked::new(tensor.get(what)?, what)?.dtype == "f32")
}

/// Columns `[n, p]`: where they lie if they are rows of f32 or f64, else of a copy that `copy` holds.
pub fn columns<'a>(tensor: &'a In<Tensor>, copy: &'a mut Vec<f64>) -> Outcome<Columns<'a>> {
    let x = Checked::read(tensor.get("tensor of columns")?, "the tensor of columns")?;
    let (&[n, p], &[row, column]) = (&x.sides[..], &x.strides[..]) else { return Err(x.refuse("[n, p]")) };
    let rows = (column == 1 || p == 1) && (row >= p || n == 1) && x.gpu.is_none();
    Ok(match x.dtype {
        "f32" if rows => Columns::from_rows_f32(x.lying(), n, p, row.max(p))?,
        "f64" if rows => Columns::from_rows_f64(x.lying(), n, p, row.max(p))?,
        _ => {
            *copy = x.wide();
            Columns::from_rows_f64(copy, n, p, p)?
        }
    })
}

/// A tensor of the caller's that takes results.
pub struct Target<'a>(Checked<'a>);

/// Checks a place for results of these sides, before the work for them is done.
pub fn target<'a>(tensor: &'a In<Tensor>, what: &'static str, sides: &[usize]) -> Outcome<Target<'a>> {
    let target = Checked::new(tensor.get(what)?, what)?;
    if target.sides != sides || !matches!(target.dtype, "f32" | "f64") {
        return Err(target.refuse(&format!("f32 or f64 {sides:?}")));
    }
    if !target.is_injective() {
        return Err(Failure::argument(format!("{what}: its strides give two elements one place")));
    }
    if let Some(gpu) = target.gpu.filter(|_| target.extent > 0) {
        gpu.check(target.extent * target.size())?;
    }
    Ok(Target(target))
}

impl Target<'_> {
    /// Writes values in row-major order.
    pub fn write<T: Copy + Into<f64>>(&self, values: &[T]) -> Outcome {
        let Target(target) = self;
        let bytes = target.extent * target.size();
        let Some(gpu) = target.gpu else {
            self.put(target.tensor.data, values);
            return Ok(());
        };
        // What lies between the elements is written back as it was.
        let mut copy = match target.extent > values.len() {
            true => copied(gpu, bytes)?,
            false => vec![0; bytes.div_ceil(8)],
        };
        self.put(copy.as_mut_ptr().cast(), values);
        // SAFETY: the words are ours and have this many bytes at least.
        let from = unsafe { std::slice::from_raw_parts(copy.as_ptr().cast::<u8>(), bytes) };
        // SAFETY: C promises that the stream is one of the GPU, and that nothing else uses the tensor meanwhile.
        Ok(unsafe { gpu.write(from) }?)
    }

    /// Writes values to memory of the tensor's extent.
    fn put<T: Copy + Into<f64>>(&self, to: *mut c_void, values: &[T]) {
        let Target(target) = self;
        for (at, &value) in target.places().zip(values) {
            let value: f64 = value.into();
            // SAFETY: within the extent, of which C promises that all is writable, or which is ours; aligned, as was checked.
            unsafe {
                match target.dtype {
                    "f64" => to.cast::<f64>().add(at).write(value),
                    _ => to.cast::<f32>().add(at).write(value as f32),
                }
            }
        }
    }
}
