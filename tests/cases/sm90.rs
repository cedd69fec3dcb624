//! Cases of single instructions of sm_90a: mbarriers, tensor maps, wgmma. On a GPU of another architecture they pass
//! without a check.
use libtest_mimic::Failed;
use scrubjay::device::cuda::{Boxes, Element, Take, tiles};
use scrubjay::device::{Cuda, Device};
use scrubjay::ops::cuda::ptx_sm90::{self, Form, Operands};
use scrubjay::ops::cuda::{conv, conv_sm90};
use scrubjay::ops::{Conv, Precision, Shape};

use super::convs::filtered;
use super::{Case, all_equal, cuda, equal, ptx, twice};

type Check = fn(&Cuda) -> Result<(), Failed>;

/// The cases by name.
pub fn cases() -> Vec<(String, Case)> {
    let checks: [(&str, Check); 11] = [
        ("mbarrier", passes_on),
        ("tensor_load", loads_boxes),
        ("image_load", loads_pixels),
        ("tensor_store", stores_boxes),
        ("tensor_map", refuses),
        ("scratch", takes_scratch),
        ("stmatrix", stores_matrices),
        ("registers", shares_registers),
        ("wgmma", multiplies),
        ("wgmma/forms", multiplies_otherwise),
        ("rounding", cuts_off),
    ];
    let case = |check: Check| -> Case {
        Box::new(move |device: &Device| match cuda(device)? {
            cuda if cuda.is_sm90() => check(cuda),
            _ => Ok(()),
        })
    };
    checks.into_iter().map(|(name, check)| (format!("sm90/{name}"), case(check))).collect()
}

fn words(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i + 1).wrapping_mul(0x9e37_79b9)).collect()
}

/// More rounds than stages, and the ring wraps with either parity.
fn passes_on(cuda: &Cuda) -> Result<(), Failed> {
    for rounds in [1, 2, 3, 4, 6, 7, 31] {
        let values = words(32 * rounds);
        let found = twice(|| Ok(cuda.download(&ptx_sm90::mbarrier(cuda, &cuda.upload(&values)?)?)?))?;
        all_equal("values", &found, &values)?;
    }
    Ok(())
}

/// Elements of 16 bits that stand one after another, as they lie in shared memory that is swizzled.
fn in_shared(elements: &[u16], swizzle: usize) -> Vec<u32> {
    let mut halves = vec![0u16; elements.len()];
    for (i, &element) in elements.iter().enumerate() {
        let (chunk, lines) = (i / 8, if swizzle > 0 { swizzle / 16 } else { 1 });
        halves[(chunk ^ (chunk / 8 % lines)) * 8 + i % 8] = element;
    }
    halves.chunks(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16).collect()
}

/// 1, 2, ..: no element is zero.
fn numbered(len: usize) -> Vec<u16> {
    (1..=len as u16).collect()
}

/// A tensor whose rows have room behind them, and boxes of it.
fn boxes(dims: &[usize], sizes: &[u32], swizzle: u32) -> Boxes {
    let mut pitches = vec![];
    for &size in &dims[..dims.len() - 1] {
        pitches.push((pitches.last().map_or(1, |&pitch| pitch) * size).next_multiple_of(8));
    }
    Boxes { dims: dims.to_vec(), pitches, take: Take::Tile(sizes.to_vec()), swizzle }
}

/// The elements of a box at `at`, the innermost dimension first; zeros beyond the tensor.
fn element_by_element(tensor: &[u16], boxes: &Boxes, sizes: &[u32], at: &[i32]) -> Vec<u16> {
    let count: u32 = sizes.iter().product();
    let element = |i: u32| {
        let (mut rest, mut place) = (i, Some(0usize));
        for (d, &size) in sizes.iter().enumerate() {
            let x = i64::from(at[d]) + i64::from(rest % size);
            let inside = (0..boxes.dims[d] as i64).contains(&x);
            let pitch = if d == 0 { 1 } else { boxes.pitches[d - 1] };
            place = place.filter(|_| inside).map(|place| place + x as usize * pitch);
            rest /= size;
        }
        place.map_or(0, |place| tensor[place])
    };
    (0..count).map(element).collect()
}

fn room(boxes: &Boxes) -> usize {
    let last: usize =
        boxes.pitches.iter().zip(&boxes.dims[1..]).map(|(pitch, size)| pitch * (size - 1)).sum();
    last + boxes.dims[0]
}

/// Boxes of two to four dimensions, each swizzle, inside and over every edge.
fn loads_boxes(cuda: &Cuda) -> Result<(), Failed> {
    for (dims, sizes, swizzle, at) in [
        (&[64, 20][..], &[64, 16][..], 128, &[0, 0][..]),
        (&[100, 20], &[64, 16], 128, &[64, 9]),
        (&[100, 20], &[32, 24], 64, &[-5, -3]),
        (&[72, 9], &[16, 16], 32, &[64, 1]),
        (&[40, 9], &[40, 7], 0, &[3, 4]),
        (&[48, 3, 10], &[64, 1, 16], 128, &[16, 2, -4]),
        (&[24, 5, 6], &[8, 3, 4], 0, &[16, 3, 4]),
        (&[16, 4, 5, 3], &[16, 3, 2, 3], 32, &[0, 2, 4, -1]),
    ] {
        let boxes = boxes(dims, sizes, swizzle);
        let tensor = numbered(room(&boxes));
        let expected = in_shared(&element_by_element(&tensor, &boxes, sizes, at), swizzle as usize);
        let found = twice(|| {
            let tensor = cuda.upload(&tensor)?;
            Ok(cuda.download(&ptx_sm90::tensor_load(cuda, tensor.input(), &boxes, at)?)?)
        })?;
        all_equal(&format!("{boxes:?} at {at:?}"), &found, &expected)?;
    }
    Ok(())
}

/// Under every tap, what a convolution reads: output pixels from any one on, over rows and images, with padding, strides and
/// dilation.
fn loads_pixels(cuda: &Cuda) -> Result<(), Failed> {
    let (channels, pixels) = (32u32, 24u32);
    for (n, [h, w, c], [r, s], stride, [above, left], dilation) in [
        (2, [5, 6, 40], [3, 3], 1, [1, 1], 1),
        (3, [7, 5, 32], [3, 2], 2, [1, 0], 1),
        (2, [9, 8, 64], [3, 3], 1, [2, 2], 2),
        (4, [4, 4, 32], [1, 1], 2, [0, 0], 1),
        (40, [1, 1, 48], [1, 1], 1, [0, 0], 1),
    ] {
        let out =
            |size: usize, pad: usize, taps: usize| (size + 2 * pad - dilation * (taps - 1) - 1) / stride + 1;
        let (oh, ow) = (out(h, above, r), out(w, left, s));
        let upper = |pad: usize, taps: usize| pad as i32 - (dilation * (taps - 1)) as i32;
        let boxes = Boxes {
            dims: vec![c, w, h, n],
            pitches: vec![c, w * c, h * w * c],
            take: Take::Pixels {
                channels,
                pixels,
                lower: [-(left as i32), -(above as i32)],
                upper: [upper(left, s), upper(above, r)],
                step: [stride as u32; 2],
            },
            swizzle: 64,
        };
        let tensor = numbered(n * h * w * c);
        for (first, channel, tap) in
            [(0, 0, [0, 0]), (ow * oh - 1, 8, [r - 1, s - 1]), (ow + 1, 0, [r / 2, 0])]
        {
            let element = |i: u32| {
                let (pixel, channel) = (first + (i / channels) as usize, channel + (i % channels) as usize);
                let (image, row, column) = (pixel / ow / oh, pixel / ow % oh, pixel % ow);
                let y = (row * stride + tap[0] * dilation).wrapping_sub(above);
                let x = (column * stride + tap[1] * dilation).wrapping_sub(left);
                let inside = image < n && y < h && x < w && channel < c;
                if inside { tensor[((image * h + y) * w + x) * c + channel] } else { 0 }
            };
            let expected = in_shared(&(0..channels * pixels).map(element).collect::<Vec<u16>>(), 64);
            let (image, row, column) = (first / ow / oh, first / ow % oh, first % ow);
            let base = |at: usize, pad: usize| (at * stride) as i32 - pad as i32;
            let at = [channel as i32, base(column, left), base(row, above), image as i32];
            let offset = [(tap[1] * dilation) as u32, (tap[0] * dilation) as u32];
            let found = twice(|| {
                let tensor = cuda.upload(&tensor)?;
                let out = ptx_sm90::image_load(cuda, tensor.input(), &boxes, at, offset)?;
                Ok(cuda.download(&out)?)
            })?;
            all_equal(&format!("{boxes:?} from pixel {first} under {tap:?}"), &found, &expected)?;
        }
    }
    Ok(())
}

/// Boxes go back to where they came from, and nothing else is written.
fn stores_boxes(cuda: &Cuda) -> Result<(), Failed> {
    for (dims, sizes, swizzle, at) in
        [([64, 20], [64, 16], 128, [0, 2]), ([40, 12], [32, 16], 64, [16, -5]), ([24, 9], [24, 9], 0, [8, 3])]
    {
        let boxes = boxes(&dims, &sizes, swizzle);
        let values = numbered(room(&boxes));
        let shared = in_shared(&element_by_element(&values, &boxes, &sizes, &at), swizzle as usize);
        let found = twice(|| {
            let mut tensor = cuda.upload(&vec![0u16; values.len()])?;
            ptx_sm90::tensor_store(cuda, tensor.output(), &boxes, &cuda.upload(&shared)?, at)?;
            Ok(cuda.download(&tensor)?)
        })?;
        let mut tensor = cuda.upload(&vec![0u16; values.len()])?;
        let short = cuda.upload(&shared[1..])?;
        let stored = ptx_sm90::tensor_store(cuda, tensor.output(), &boxes, &short, at);
        equal("whether a word too few is refused", &stored.is_err(), &true)?;
        let within = |place: usize, d: usize| {
            let x = if d == 0 { place % boxes.pitches[0] } else { place / boxes.pitches[0] } as i64;
            (i64::from(at[d])..i64::from(at[d]) + i64::from(sizes[d])).contains(&x) && x < dims[d] as i64
        };
        let inside = |place: usize| within(place, 0) && within(place, 1);
        let expected: Vec<u16> =
            values.iter().enumerate().map(|(i, &value)| if inside(i) { value } else { 0 }).collect();
        all_equal("tensor", &found, &expected)?;
    }
    Ok(())
}

/// What the hardware cannot copy is refused before it is asked.
fn refuses(cuda: &Cuda) -> Result<(), Failed> {
    let tensor = cuda.upload(&numbered(64 * 20))?;
    let good = || boxes(&[64, 20], &[64, 16], 128);
    let refused =
        |what: &str, boxes: &Boxes| equal(what, &cuda.tensor_map(tensor.input(), boxes).is_err(), &true);
    equal("boxes that fit", &cuda.tensor_map(tensor.input(), &good()).is_ok(), &true)?;
    refused("a tensor beyond its memory", &Boxes { dims: vec![64, 21], ..good() })?;
    refused("rows wider than the swizzle", &Boxes { swizzle: 64, ..good() })?;
    refused("a swizzle of 96 bytes", &Boxes { swizzle: 96, ..good() })?;
    refused("a pitch of 60", &Boxes { pitches: vec![60], dims: vec![60, 20], ..good() })?;
    refused("a box of 257 rows", &Boxes { take: Take::Tile(vec![64, 257]), ..good() })?;
    refused("a box of three sizes", &Boxes { take: Take::Tile(vec![64, 1, 1]), ..good() })?;
    refused("an empty tensor", &Boxes { dims: vec![64, 0], ..good() })?;
    let pixels = Take::Pixels { channels: 64, pixels: 8, lower: [0; 2], upper: [0; 2], step: [1; 2] };
    refused("pixels of a matrix", &Boxes { take: pixels, ..good() })?;
    equal(
        "an odd address",
        &cuda.tensor_map(tensor.input().part(1..64 * 16 + 1), &boxes(&[64, 16], &[64, 16], 128)).is_err(),
        &true,
    )
}

/// An affine layer runs on sm_90a where TMA reaches, and takes no other length of scratch than that of its precision.
fn takes_scratch(cuda: &Cuda) -> Result<(), Failed> {
    let near = |padding: usize| {
        let geometry =
            filtered(Shape::new(1, 1, 32), 1, Conv { padding: (padding, 0), ..Conv::square(1, 8, 0) });
        conv_sm90::takes(cuda, &geometry)
    };
    equal("padding that TMA reaches", &near(127), &true)?;
    equal("padding that it does not reach", &near(128), &false)?;
    let geometry = filtered(Shape::new(1, 1, 32), 1, Conv::square(1, 1, 0));
    equal("on another device", &conv_sm90::takes(&cuda.portable(), &geometry), &false)?;
    let (x, weight) = (cuda.upload(&[1.0; 32])?, cuda.upload(&[0.5; 32])?);
    let run = |cuda: &Cuda, precision: Precision, len: usize| -> scrubjay::Result<Vec<f32>> {
        let (mut y, mut scratch) = (cuda.alloc(1)?, cuda.alloc(len)?);
        let (x, weight, plain, scratch) = (x.input(), weight.input(), Default::default(), scratch.output());
        conv::forward(cuda, y.output(), None, x, weight, None, plain, 1, &geometry, precision, scratch)?;
        cuda.download(&y)
    };
    for (precision, expected) in
        [(Precision::F32, 0), (Precision::Tf32, 0), (Precision::Bf16, 64 + 32), (Precision::F16, 64 + 32)]
    {
        let len = conv::scratch(1, &geometry, precision, Element::F32);
        equal("values of scratch", &len, &expected)?;
        all_equal("y of every architecture", &run(&cuda.portable(), precision, len)?, &[16.0])?;
        all_equal("y", &run(cuda, precision, len)?, &[16.0])?;
        equal("whether other scratch is refused", &run(cuda, precision, len + 64).is_err(), &true)?;
    }
    // Of values in 16 bits, the weights alone are rounded; bf16 is not read as f16.
    equal("scratch", &conv::scratch(1, &geometry, Precision::Bf16, Element::Bf16), &64)?;
    let (x, mut y) = (cuda.upload(&[half::bf16::ONE; 32])?, cuda.alloc(1)?);
    let mut of = |precision| {
        let (mut scratch, plain) = (cuda.alloc(64)?, Default::default());
        let (x, weight, scratch) = (x.input(), weight.input(), scratch.output());
        conv::forward(cuda, y.output(), None, x, weight, None, plain, 1, &geometry, precision, scratch)?;
        cuda.download(&y)
    };
    all_equal("y of bf16", &of(Precision::Bf16)?, &[16.0])?;
    equal("whether bf16 is refused in f16", &of(Precision::F16).is_err(), &true)
}

fn stores_matrices(cuda: &Cuda) -> Result<(), Failed> {
    let rows = words(128);
    let lanes: Vec<u32> = ptx::ldmatrix(&rows).chunks(8).flat_map(|lane| lane[..4].iter().copied()).collect();
    let found = twice(|| Ok(cuda.download(&ptx_sm90::stmatrix(cuda, &cuda.upload(&lanes)?)?)?))?;
    all_equal("rows", &found, &rows)
}

fn shares_registers(cuda: &Cuda) -> Result<(), Failed> {
    let found = twice(|| Ok(cuda.download(&ptx_sm90::registers(cuda)?)?))?;
    all_equal("threads", &found, &(0..384).collect::<Vec<u32>>())
}

/// Values of bf16 (or f16) and their bits: whole numbers, so that sums are exact in any order.
fn whole(len: usize, factor: usize) -> Vec<f64> {
    (0..len).map(|i| (i * factor % 31) as f64 - 15.0).collect()
}

fn bf16_bits(x: f64) -> u16 {
    ((x as f32).to_bits() >> 16) as u16
}

/// Where element (row, k) of an operand lies, in bytes, before the swizzle: nested sizes and strides in units of 16 bytes,
/// as the manual of wgmma's canonical layouts has them.
fn place(row: usize, k: usize, by_depth: bool, o: &Operands, which: usize) -> usize {
    let (leading, stride, wide) =
        (o.leading[which] as usize, o.stride[which] as usize, o.swizzle as usize / 16);
    match (by_depth, wide) {
        (false, 0) => {
            row % 8 * 16
                + row / 8 * stride
                + k / 8 % 2 * leading
                + k % 8 * 2
                + k / 16 * o.step[which] as usize
        }
        (false, wide) => row % 8 * 16 * wide + row / 8 * stride + k * 2,
        (true, 0) => row % 8 * 2 + row / 8 * stride + k % 8 * 16 + k / 8 * leading,
        (true, wide) => {
            let chunk = row / 8;
            row % 8 * 2 + chunk % wide * 16 + chunk / wide * leading + k % 8 * 16 * wide + k / 8 * stride
        }
    }
}

/// The words of shared memory that hold an operand `[rows, depth]`, given as bits.
fn laid_out(
    bits: &[u16],
    depth: usize,
    words: usize,
    place: impl Fn(usize, usize) -> usize,
    swizzle: usize,
) -> Vec<u32> {
    let mut elements = vec![0x7fffu16; 2 * words]; // a NaN where nothing stands
    for (i, &bits) in bits.iter().enumerate() {
        elements[place(i / depth, i % depth) / 2] = bits;
    }
    in_shared(&elements, swizzle)
}

/// d + a bᵀ, exact.
fn product(d: &[f32], a: &[f64], b: &[f64], depth: usize) -> Vec<f32> {
    let columns = b.len() / depth;
    let sum = |i: usize, j: usize| (0..depth).map(|l| a[i * depth + l] * b[j * depth + l]).sum::<f64>();
    d.iter().enumerate().map(|(i, &d)| (f64::from(d) + sum(i / columns, i % columns)) as f32).collect()
}

fn run(cuda: &Cuda, d: &[f32], a: &[u32], b: &[u32], form: Form, steps: u32) -> Result<Vec<f32>, Failed> {
    twice(|| {
        let mut sum = cuda.upload(d)?;
        ptx_sm90::wgmma(cuda, &mut sum, &cuda.upload(a)?, &cuda.upload(b)?, form, steps)?;
        Ok(cuda.download(&sum)?)
    })
}

const A_WORDS: usize = tiles::PTX_A_WORDS as usize;
const B_WORDS: usize = tiles::PTX_B_WORDS as usize;

/// Every swizzle with either operand contiguous in depth or in rows, over several steps.
fn multiplies(cuda: &Cuda) -> Result<(), Failed> {
    let d: Vec<f32> = whole(64 * 64, 7).into_iter().map(|x| x as f32).collect();
    for swizzle in [0u32, 32, 64, 128] {
        for by_depth in [[false, false], [true, false], [false, true], [true, true]] {
            // Both hold 64 rows. By rows: groups of 8 rows; depth goes on within rows of the swizzle, without one in
            // blocks of 8 rows by 8. By depth: depths in groups of 8, rows in groups of the swizzle.
            let row = swizzle.max(16);
            let layout = |by_depth: bool| match (by_depth, swizzle) {
                (false, 0) => (1024, 128, 2048),
                (false, _) => (0, 8 * row, 32),
                (true, 0) => (1024, 128, 2048),
                (true, _) => (8 * row * 4, 8 * row, 16 * row),
            };
            let both = by_depth.map(layout);
            let o = Operands {
                by_depth,
                swizzle,
                leading: both.map(|(leading, _, _)| leading),
                stride: both.map(|(_, stride, _)| stride),
                step: both.map(|(_, _, step)| step),
            };
            // By rows, a swizzled row holds `swizzle` bytes of depth.
            let steps = if swizzle == 0 || by_depth == [true, true] { 2 } else { swizzle / 32 }.min(2);
            let depth = 16 * steps as usize;
            let (a, b) = (whole(64 * depth, 11), whole(64 * depth, 13));
            let lay = |values: &[f64], which: usize, words: usize| {
                let bits: Vec<u16> = values.iter().map(|&x| bf16_bits(x)).collect();
                let at = |row: usize, k: usize| place(row, k, by_depth[which], &o, which);
                laid_out(&bits, depth, words, at, swizzle as usize)
            };
            let found = run(cuda, &d, &lay(&a, 0, A_WORDS), &lay(&b, 1, B_WORDS), Form::Bf16(o), steps)?;
            all_equal(&format!("{o:?}"), &found, &product(&d, &a, &b, depth))?;
        }
    }
    Ok(())
}

/// 256 columns, f16, and a in registers.
fn multiplies_otherwise(cuda: &Cuda) -> Result<(), Failed> {
    let f16_bits = |x: f64| ptx::to_f16(x) as u16;
    let rows = |values: &[f64], depth: usize, words: usize, bits: &dyn Fn(f64) -> u16| {
        let bits: Vec<u16> = values.iter().map(|&x| bits(x)).collect();
        laid_out(&bits, depth, words, |row, k| row * 128 + k * 2, 128)
    };
    for (form, columns, steps) in [(Form::Wide, 256, 4), (Form::F16, 64, 4), (Form::Fragments, 64, 1)] {
        let depth = 16 * steps;
        let d: Vec<f32> = whole(64 * columns, 7).into_iter().map(|x| x as f32).collect();
        let (a, b) = (whole(64 * depth, 11), whole(columns * depth, 13));
        let bits: &dyn Fn(f64) -> u16 = if matches!(form, Form::F16) { &f16_bits } else { &bf16_bits };
        let on_a = match form {
            Form::Fragments => {
                let mut words: Vec<u32> = a
                    .chunks(2)
                    .map(|pair| u32::from(bits(pair[0])) | u32::from(bits(pair[1])) << 16)
                    .collect();
                words.resize(A_WORDS, 0);
                words
            }
            _ => rows(&a, depth, A_WORDS, bits),
        };
        let found = run(cuda, &d, &on_a, &rows(&b, depth, B_WORDS, bits), form, steps as u32)?;
        all_equal(&format!("{form:?}"), &found, &product(&d, &a, &b, depth))?;
    }
    Ok(())
}

/// The emulator's sums have the bits of the model of their rounding; those of a GPU are near.
fn cuts_off(cuda: &Cuda) -> Result<(), Failed> {
    let value = |i: usize, which: usize| {
        let x = ((i * (2 * which + 37) + which) as f64 * 0.618_034).fract() - 0.5;
        ptx::bf16((x * 2f64.powi((i * 7 % 13) as i32 - 5)) as f32)
    };
    let emulated = cuda.describe().starts_with("emulated");
    let check = |what: &str, found: &[f32], expected: &[f32]| match emulated {
        true => all_equal(what, found, expected),
        false => super::checks::near(what, found, expected),
    };
    let d: Vec<f32> = (0..64 * 64).map(|i| value(i, 1) as f32 * 1.001).collect();
    let (a, b): (Vec<f64>, Vec<f64>) = (0..64 * 16).map(|i| (value(i, 2), value(i, 3))).unzip();
    let lay = |values: &[f64], words: usize| {
        let bits: Vec<u16> = values.iter().map(|&x| bf16_bits(x)).collect();
        laid_out(&bits, 16, words, |row, k| row * 128 + k * 2, 128)
    };
    let o =
        Operands { by_depth: [false; 2], swizzle: 128, leading: [0; 2], stride: [1024; 2], step: [32; 2] };
    let found = run(cuda, &d, &lay(&a, A_WORDS), &lay(&b, B_WORDS), Form::Bf16(o), 1)?;
    let sums = |d: &[f32], columns: usize, terms: usize, bits: i32| {
        let sum = |at: usize, d: &f32| {
            let (i, j) = (at / columns, at % columns);
            ptx::truncated(*d, &a[16 * i..16 * i + 16], &b[16 * j..16 * j + 16], terms, bits)
        };
        d.iter().enumerate().map(|(at, d)| sum(at, d)).collect::<Vec<f32>>()
    };
    check("wgmma", &found, &sums(&d, 64, 16, 25))?;
    let pack = |values: &[f64]| -> Vec<u32> {
        values.chunks(2).map(|p| u32::from(bf16_bits(p[0])) | u32::from(bf16_bits(p[1])) << 16).collect()
    };
    let found = twice(|| {
        let mut sum = cuda.upload(&d[..128])?;
        let (a, b) = (cuda.upload(&pack(&a[..256]))?, cuda.upload(&pack(&b[..128]))?);
        scrubjay::ops::cuda::ptx::mma_bf16(cuda, &mut sum, &a, &b)?;
        Ok(cuda.download(&sum)?)
    })?;
    check("mma", &found, &sums(&d[..128], 8, 8, 24))?;
    // The nearest value would be another: the check can fail.
    let exact = product(&d, &a, &b, 16);
    equal("sums that are rounded to nearest", &(exact == sums(&d, 64, 16, 25)), &false)
}
