//! Cases of affine layers on CUDA: forward, lowered, adjoints, and K-FAC's moments.
use half::{bf16, f16};
use libtest_mimic::Failed;
use scrubjay::device::cuda::{Buffer, Element};
use scrubjay::device::{Cuda, Device};
use scrubjay::ops::{Activation, Conv, Geometry, Precision, Shape, cuda as on_cuda};

use super::checks::{Stored, adds, close, plus, rounded, same_bits, stores, upload, values, wide, writes};
use super::dual::Number;
use super::{conv, cuda, layers, ptx};

/// A convolution's output shape.
pub fn filtered(input: Shape, o: usize, conv: Conv) -> Geometry {
    let side = |size: usize, taps: usize, padding: usize| {
        (size + padding - conv.dilation * (taps - 1) - 1) / conv.stride + 1
    };
    let (h, w) = (
        side(input.h, conv.kernel.0, conv.padding.0 + conv.behind().0),
        side(input.w, conv.kernel.1, conv.padding.1 + conv.behind().1),
    );
    Geometry::conv(input, Shape::new(h, w, o), conv)
}

/// z = Wx + b of many images.
fn affine<T: Number>(x: &[f32], weight: &[f32], bias: Option<&[f32]>, geometry: &Geometry) -> Vec<T> {
    let (weight, bias) = (wide::<T>(weight), bias.map(wide::<T>));
    let images = x.chunks_exact(geometry.input.len());
    images.flat_map(|x| conv::apply(&wide(x), &weight, bias.as_deref(), geometry)).collect()
}

/// A part of `values` that begins `shift` values into a buffer.
fn shifted(cuda: &Cuda, values: &[f32], shift: usize) -> Result<Buffer<f32>, Failed> {
    Ok(cuda.upload(&[&vec![f32::NAN; shift], values].concat())?)
}

pub fn convs(device: &Device, n: usize, input: Shape, o: usize, shape: Conv) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let geometry = filtered(input, o, shape);
    let len = n * geometry.output.len();
    let (x, weight, bias) = (values(n * input.len(), 1), values(o * geometry.fan_in(), 2), values(o, 3));
    let (scale, shift, residual) = (values(o, 4), values(o, 5), values(len, 6));
    let on_bias = cuda.upload(&bias)?;
    let (on_scale, on_shift, on_residual) =
        (cuda.upload(&scale)?, cuda.upload(&shift)?, cuda.upload(&residual)?);
    let plain_epilogue = on_cuda::conv::Epilogue::default();
    let epilogues = [
        (true, plain_epilogue),
        (false, on_cuda::conv::Epilogue { activation: Some(Activation::Gelu), ..plain_epilogue }),
        (
            true,
            on_cuda::conv::Epilogue {
                affine: Some([on_scale.input(), on_shift.input()]),
                residual: Some(on_residual.input()),
                activation: Some(Activation::Relu),
                overflow: None,
            },
        ),
        (false, on_cuda::conv::Epilogue { residual: Some(on_residual.input()), ..plain_epilogue }),
        (true, on_cuda::conv::Epilogue { activation: Some(Activation::Silu), ..plain_epilogue }),
    ];
    for (at, (biased, epilogue)) in epilogues.into_iter().enumerate() {
        let skip = at % 2; // values that do not begin on 16 bytes
        let (on_x, on_weight) = (shifted(cuda, &x, skip)?, shifted(cuda, &weight, skip)?);
        let (on_x, on_weight) = (on_x.input().part(skip..x.len() + skip), on_weight.input());
        let on_weight = on_weight.part(skip..weight.len() + skip);
        let (bias, on_bias) = (biased.then_some(&bias[..]), biased.then(|| on_bias.input()));
        let y = writes(cuda, len, |y| {
            on_cuda::conv::forward(
                cuda,
                y,
                None,
                on_x,
                on_weight,
                on_bias,
                epilogue,
                n,
                &geometry,
                Precision::F32,
                cuda.alloc(0)?.output(),
            )
        })?;
        fn value<T: Number>(
            z: &[T],
            [scale, shift, residual]: [Option<&[f32]>; 3],
            kind: Option<Activation>,
        ) -> Vec<T> {
            let of = |values: Option<&[f32]>, i: usize, none: f64| {
                T::of(values.map_or(none, |values| f64::from(values[i % values.len()])))
            };
            let argument = |i: usize| of(scale, i, 1.0) * z[i] + of(shift, i, 0.0) + of(residual, i, 0.0);
            let act = |a: T| kind.map_or(a, |kind| layers::activation(kind, a).0);
            (0..z.len()).map(|i| act(argument(i))).collect()
        }
        let parts = [
            epilogue.affine.map(|_| &scale[..]),
            epilogue.affine.map(|_| &shift[..]),
            epilogue.residual.map(|_| &residual[..]),
        ];
        let exact = value::<f64>(&affine(&x, &weight, bias, &geometry), parts, epilogue.activation);
        let plain = value::<f32>(&affine(&x, &weight, bias, &geometry), parts, epilogue.activation);
        close(&format!("epilogue {at}"), &y, &exact, &plain)?;
    }
    let (on_x, on_weight) = (cuda.upload(&x)?, cuda.upload(&weight)?);

    // Units' means are of z, whatever the epilogue; other columns of the trace stay as they are.
    let (first, d, uses) = (3, o + 5, 1 + n % 3);
    let trace = values(n * d, 7);
    let sums = on_cuda::conv::parts(n, &geometry);
    let found = adds(cuda, &trace, |trace| {
        let (mut y, mut parts) = (cuda.alloc(len)?, cuda.alloc(sums)?);
        let (epilogue, bias) = (epilogues[2].1, Some(on_bias.input()));
        let (y, out) = (y.output(), Some(parts.output()));
        let (x, weight, f32) = (on_x.input(), on_weight.input(), Precision::F32);
        let (mut none, g) = (cuda.alloc(0)?, &geometry);
        on_cuda::conv::forward(cuda, y, out, x, weight, bias, epilogue, n, g, f32, none.output())?;
        on_cuda::means::means(cuda, trace, parts.input(), n, &geometry, first..first + o, d, uses)
    })?;
    fn mean<T: Number>(trace: &[f32], z: &[T], geometry: &Geometry, first: usize, uses: usize) -> Vec<T> {
        let (positions, o) = (geometry.output.positions(), geometry.output.c);
        let (mut trace, d) = (wide::<T>(trace), trace.len() / (z.len() / (positions * o)));
        for (i, z) in z.chunks_exact(positions * o).enumerate() {
            for c in 0..o {
                let sum = z.iter().skip(c).step_by(o).fold(T::of(0.0), |sum, &z| sum + z);
                trace[i * d + first + c] = trace[i * d + first + c] + sum / T::of((positions * uses) as f64);
            }
        }
        trace
    }
    let (exact, plain) = (
        affine::<f64>(&x, &weight, Some(&bias), &geometry),
        affine::<f32>(&x, &weight, Some(&bias), &geometry),
    );
    let expected = mean(&trace, &plain, &geometry, first, uses);
    close("trace", &found, &mean(&trace, &exact, &geometry, first, uses), &expected)?;
    let others = |trace: &[f32]| -> Vec<f32> {
        let outside = |i: &usize| !(first..first + o).contains(&(i % d));
        (0..n * d).filter(outside).map(|i| trace[i]).collect()
    };
    same_bits("other columns", &others(&found), &others(&trace))?;

    // Some rows, added to what is there: the other rows of the weights are as zeros.
    let (rows, some, bias) = selected(o, &weight, &bias);
    let [on_some, on_bias] = [cuda.upload(&some.0)?, cuda.upload(&bias.0)?];
    let (start, on_rows) = (values(len, 8), cuda.upload(&rows)?);
    let found = adds(cuda, &start, |y| {
        let (bias, rows) = (Some(on_bias.input()), Some(on_rows.input()));
        on_cuda::conv::apply(cuda, y, on_x.input(), on_some.input(), bias, rows, n, &geometry, true)
    })?;
    let exact = affine::<f64>(&x, &some.1, Some(&bias.1), &geometry);
    let plain = affine::<f32>(&x, &some.1, Some(&bias.1), &geometry);
    close("some rows", &found, &plus(&wide(&start), &exact), &plus(&start, &plain))
}

/// Products of rounded operands: what differs from them in f64 is no more than a plain loop in f32 over the same. By the
/// kernels of every architecture, and by those for sm_90a where they take the shape; with values in memory in f32, and in
/// the 16 bits of the precision.
pub fn lowered(
    device: &Device,
    precision: Precision,
    n: usize,
    input: Shape,
    o: usize,
    shape: Conv,
) -> Result<(), Failed> {
    let (cuda, geometry) = (cuda(device)?, filtered(input, o, shape));
    let on_sm90 = on_cuda::conv_sm90::takes(cuda, &geometry).then_some(cuda);
    for cuda in [Some(&cuda.portable()), on_sm90].into_iter().flatten() {
        match precision {
            Precision::F32 | Precision::Tf32 => lowered_of::<f32, f32>(cuda, precision, n, &geometry)?,
            Precision::Bf16 => lowered_between::<bf16>(cuda, precision, n, &geometry)?,
            Precision::F16 => lowered_between::<f16>(cuda, precision, n, &geometry)?,
        }
    }
    Ok(())
}

/// A depthwise layer has values of one type; others are read and written in either.
fn lowered_between<H: Stored>(
    cuda: &Cuda,
    precision: Precision,
    n: usize,
    geometry: &Geometry,
) -> Result<(), Failed> {
    if geometry.is_depthwise() {
        return lowered_of::<H, H>(cuda, precision, n, geometry);
    }
    lowered_of::<f32, H>(cuda, precision, n, geometry)?;
    lowered_of::<H, f32>(cuda, precision, n, geometry)
}

/// Values of type X, where that is narrower than f32 those that it holds, to values of type Y.
fn lowered_of<X: Stored, Y: Stored>(
    cuda: &Cuda,
    precision: Precision,
    n: usize,
    geometry: &Geometry,
) -> Result<(), Failed> {
    let (o, positions) = (geometry.output.c, geometry.output.positions());
    let len = n * geometry.output.len();
    // Values that no precision holds, but for their zeros and ties.
    let odd = |values: Vec<f32>| values.into_iter().map(|x| x * 1.001_3).collect::<Vec<f32>>();
    let x = rounded::<X>(&odd(values(n * geometry.input.len(), 1)));
    let weight = odd(values(o * geometry.fan_in(), 2));
    let [bias, scale, shift] = [(o, 3), (o, 4), (o, 5)].map(|(len, at)| values(len, at));
    let residual = rounded::<Y>(&odd(values(len, 6)));
    let halves = on_cuda::conv::scratch(n, geometry, precision, X::ELEMENT);
    let round = |x: &f32| match precision {
        _ if geometry.is_depthwise() => f64::from(*x),
        Precision::F32 => f64::from(*x),
        Precision::Tf32 => ptx::tf32(*x),
        Precision::Bf16 => ptx::bf16(*x),
        Precision::F16 => ptx::f16(*x),
    } as f32;
    let of = |values: &[f32]| values.iter().map(round).collect::<Vec<f32>>();
    let (of_x, of_weight) = (of(&x), of(&weight));
    let exact = affine::<f64>(&of_x, &of_weight, Some(&bias), geometry);
    let plain = affine::<f32>(&of_x, &of_weight, Some(&bias), geometry);
    let [on_bias, on_scale, on_shift] = [&bias, &scale, &shift].map(|values| cuda.upload(values));
    let (on_bias, on_scale, on_shift) = (on_bias?, on_scale?, on_shift?);
    let on_residual = upload::<Y>(cuda, &residual)?;
    let whole = on_cuda::conv::Epilogue {
        affine: Some([on_scale.input(), on_shift.input()]),
        residual: Some(on_residual.input()),
        activation: Some(Activation::Relu),
        overflow: None,
    };
    // Of 16 bits, GELU has another form.
    let gelu = (Y::ELEMENT != Element::F32).then_some(Activation::Gelu);
    let first = on_cuda::conv::Epilogue { activation: gelu, ..Default::default() };
    for (skip, epilogue) in [(0, first), (1, whole)] {
        // TMA takes what begins on 16 bytes, as all values of an arena do.
        let of_x = if X::ELEMENT == Element::F32 { skip } else { 0 };
        let (on_x, on_weight) =
            (upload::<X>(cuda, &[&vec![f32::NAN; of_x], &x[..]].concat())?, shifted(cuda, &weight, skip)?);
        let from_x = on_x.input().part(of_x..x.len() + of_x);
        let from_weight = on_weight.input().part(skip..weight.len() + skip);
        let sums = on_cuda::conv::parts(n, geometry);
        let found = stores::<Y>(cuda, &vec![f32::NAN; len], |y| {
            let (mut parts, mut scratch, bias) =
                (cuda.alloc(sums)?, cuda.alloc(halves)?, Some(on_bias.input()));
            let (out, scratch) = (Some(parts.output()), scratch.output());
            let (x, weight) = (from_x, from_weight);
            on_cuda::conv::forward(cuda, y, out, x, weight, bias, epilogue, n, geometry, precision, scratch)
        })?;
        fn after<T: Number>(z: &[T], [scale, shift, residual]: [&[f32]; 3]) -> Vec<T> {
            let of = |values: &[f32], i: usize| T::of(f64::from(values[i % values.len()]));
            let argument = |i: usize| of(scale, i) * z[i] + of(shift, i) + of(residual, i);
            (0..z.len()).map(|i| layers::activation(Activation::Relu, argument(i)).0).collect()
        }
        fn applied<T: Number>(z: &[T], kind: Option<Activation>) -> Vec<T> {
            z.iter().map(|&z| kind.map_or(z, |kind| layers::activation(kind, z).0)).collect()
        }
        let parts = [&scale[..], &shift, &residual];
        let (exact, plain) = match epilogue.residual {
            Some(_) => (after(&exact, parts), after(&plain, parts)),
            None => (applied(&exact, epilogue.activation), applied(&plain, epilogue.activation)),
        };
        close("y", &found, &exact, &rounded::<Y>(&plain))?;
        let lowered = precision != Precision::F32 && !geometry.is_depthwise();
        if epilogue.residual.is_none() && lowered && Y::ELEMENT == Element::F32 && len > 1000 {
            // It is the rounded product, and not the one of f32.
            let full = affine::<f64>(&x, &weight, Some(&bias), geometry);
            if close("y", &found, &full, &affine::<f32>(&x, &weight, Some(&bias), geometry)).is_ok() {
                return Err("operands are not rounded".into());
            }
        }
    }
    // The means are of the same z, before it is rounded.
    let trace = vec![0.0; n * o];
    let (on_x, on_weight) = (upload::<X>(cuda, &x)?, cuda.upload(&weight)?);
    let found = adds(cuda, &trace, |trace| {
        let (mut y, mut parts) =
            (upload::<Y>(cuda, &vec![0.0; len])?, cuda.alloc(on_cuda::conv::parts(n, geometry))?);
        let (mut scratch, x, weight) = (cuda.alloc(halves)?, on_x.input(), on_weight.input());
        let (y, out, bias) = (y.output(), Some(parts.output()), Some(on_bias.input()));
        let scratch = scratch.output();
        on_cuda::conv::forward(cuda, y, out, x, weight, bias, whole, n, geometry, precision, scratch)?;
        on_cuda::means::means(cuda, trace, parts.input(), n, geometry, 0..o, o, 1)
    })?;
    fn means<T: Number>(z: &[T], o: usize, positions: usize) -> Vec<T> {
        let images = z.chunks_exact(positions * o);
        let mean = |image: &[T], c: usize| {
            image.iter().skip(c).step_by(o).fold(T::of(0.0), |sum, &z| sum + z) / T::of(positions as f64)
        };
        images.flat_map(|image| (0..o).map(|c| mean(image, c)).collect::<Vec<T>>()).collect()
    }
    close("trace", &found, &means(&exact, o, positions), &means(&plain, o, positions))
}

pub fn conv_adjoints(device: &Device, n: usize, input: Shape, o: usize, shape: Conv) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let geometry = filtered(input, o, shape);
    let (inner, outer, fan_in) = (n * input.len(), n * geometry.output.len(), geometry.fan_in());
    let [x, dz, weight, bias] =
        [(inner, 1), (outer, 2), (o * fan_in, 3), (o, 4)].map(|(len, at)| values(len, at));
    let (rows, some, some_bias) = selected(o, &weight, &bias);
    let on_rows = cuda.upload(&rows)?;

    /// Gradients at the input, at the weights and at the bias.
    fn adjoints<T: Number>(dz: &[f32], x: &[f32], weight: &[f32], geometry: &Geometry) -> [Vec<T>; 3] {
        let (o, weight) = (geometry.output.c, wide::<T>(weight));
        let (mut dx, mut dw, mut db) = (vec![], vec![T::of(0.0); weight.len()], vec![T::of(0.0); o]);
        for (dz, x) in dz.chunks_exact(geometry.output.len()).zip(x.chunks_exact(geometry.input.len())) {
            let (dz, x) = (wide::<T>(dz), wide::<T>(x));
            dx.extend(conv::data_gradient(&dz, &weight, geometry));
            conv::weight_gradient(&mut dw, &mut db, &dz, &x, geometry);
        }
        [dx, dw, db]
    }
    // Places that begin on 16 bytes, and others; every channel, and some of them, added to what is there.
    for (skip, few) in [(0, false), (1, false), (0, true)] {
        let at = |values: &[f32]| shifted(cuda, values, skip);
        let all: Vec<u32> = (0..o as u32).collect();
        let (held, whole, bias, rows) = match few {
            true => (&some.0, &some.1, &some_bias.0, &rows),
            false => (&weight, &weight, &bias, &all),
        };
        let (on_x, on_dz, on_weight) = (at(&x)?, at(&dz)?, at(held)?);
        let (on_x, on_dz) = (on_x.input().part(skip..inner + skip), on_dz.input().part(skip..outer + skip));
        let on_weight = on_weight.input().part(skip..held.len() + skip);
        let chosen = few.then(|| on_rows.input());
        let exact = adjoints::<f64>(&dz, &x, whole, &geometry);
        let plain = adjoints::<f32>(&dz, &x, whole, &geometry);

        let start = if few { values(inner, 5) } else { vec![0.0; inner] };
        let begin = if few { start.clone() } else { vec![f32::NAN; inner] };
        let dx = adds(cuda, &begin, |dx| {
            on_cuda::conv::data_gradient(cuda, dx, on_dz, on_weight, chosen, n, &geometry, few)
        })?;
        close("dx", &dx, &plus(&wide(&start), &exact[0]), &plus(&start, &plain[0]))?;

        let (scratch, biased) = (on_cuda::conv::gradient_parts(n, rows.len(), &geometry), skip == 0);
        let found = adds(cuda, &[&held[..], bias].concat(), |out| {
            let ((dw, db), mut parts) = (out.split_at(held.len()), cuda.alloc(scratch)?);
            let (db, parts) = (biased.then_some(db), parts.output());
            on_cuda::conv::weight_gradient(cuda, dw, db, parts, on_dz, on_x, chosen, n, &geometry)
        })?;
        let (dw, db) = found.split_at(held.len());
        let (exact_dw, plain_dw) = (picked(&exact[1], rows, o), picked(&plain[1], rows, o));
        close("dw", dw, &plus(&wide(held), &exact_dw), &plus(held, &plain_dw))?;
        let (exact_db, plain_db) = (picked(&exact[2], rows, o), picked(&plain[2], rows, o));
        match biased {
            true => close("db", db, &plus(&wide(bias), &exact_db), &plus(bias, &plain_db))?,
            false => same_bits("db", db, bias)?,
        }
    }
    Ok(())
}

/// A and G of a layer: of all groups and rows, or of some, with the 1 for a bias and without, added to what is there.
pub fn moments(device: &Device, n: usize, input: Shape, o: usize, shape: Conv) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let geometry = filtered(input, o, shape);
    let (fan_in, groups, outer) = (geometry.fan_in(), shape.groups, o / shape.groups);
    let (inner, len) = (n * input.len(), n * geometry.output.len());
    let (x, dz, one) = (values(inner, 1), values(len, 2), cuda.upload(&on_cuda::moments::ONE)?);

    fn of_inputs<T: Number>(x: &[f32], sets: &[u32], width: usize, geometry: &Geometry) -> Vec<T> {
        let of_set = |&set: &u32| {
            let mut sum = vec![T::of(0.0); width * width];
            for x in x.chunks_exact(geometry.input.len()) {
                let fields = conv::fields(&wide::<T>(x), set as usize, geometry);
                let one = std::iter::repeat_n(T::of(1.0), width - geometry.fan_in());
                let rows = fields.chunks_exact(geometry.fan_in());
                let rows: Vec<T> =
                    rows.flat_map(|row| row.iter().copied().chain(one.clone()).collect::<Vec<T>>()).collect();
                conv::moment(&mut sum, &rows, width);
            }
            sum
        };
        sets.iter().flat_map(of_set).collect()
    }
    /// For each row the sums with those of its group, zeros behind them.
    fn of_outputs<T: Number>(dz: &[f32], rows: &[u32], width: usize, (o, outer): (usize, usize)) -> Vec<T> {
        let mut sums = vec![];
        for group in rows.chunk_by(|a, b| *a as usize / outer == *b as usize / outer) {
            let picked = dz.chunks_exact(o).flat_map(|dz| group.iter().map(|&row| dz[row as usize]));
            let (k, mut sum) = (group.len(), vec![T::of(0.0); group.len().pow(2)]);
            conv::moment(&mut sum, &wide::<T>(&picked.collect::<Vec<f32>>()), k);
            let zeros = std::iter::repeat_n(T::of(0.0), width - k);
            sums.extend(
                sum.chunks_exact(k)
                    .flat_map(|row| row.iter().copied().chain(zeros.clone()).collect::<Vec<T>>()),
            );
        }
        sums
    }
    let symmetric = |what: &str, found: &[f32], width: usize| {
        let turned =
            (0..found.len()).map(|at| (at / width / width * width + at % width) * width + at / width % width);
        same_bits(what, &turned.map(|at| found[at]).collect::<Vec<f32>>(), found)
    };
    let ways = [(0, true, false), (1, false, false), (0, true, true)];
    // Of wide rows the last alone, since plain loops take long.
    for (skip, biased, few) in ways.into_iter().skip(if fan_in > 300 { 2 } else { 0 }) {
        let (on_x, on_dz) = (shifted(cuda, &x, skip)?, shifted(cuda, &dz, skip)?);
        let (on_x, on_dz) = (on_x.input().part(skip..inner + skip), on_dz.input().part(skip..len + skip));
        let sets: Vec<u32> = (0..groups as u32).filter(|set| !few || groups == 1 || set % 3 != 1).collect();
        let (on_sets, width) = (cuda.upload(&sets)?, fan_in + usize::from(biased));
        let start = |len: usize| if few { values(len, 5) } else { vec![0.0; len] };
        let begin = start(sets.len() * width * width);
        let a = adds(cuda, &begin, |a| {
            let mut scratch = cuda.alloc(on_cuda::moments::input_parts(n, sets.len(), width, &geometry))?;
            let (scratch, one, sets) = (scratch.output(), one.input(), on_sets.input());
            on_cuda::moments::input(cuda, a, scratch, on_x, one, sets, width, n, &geometry)
        })?;
        let (exact, plain) = (of_inputs(&x, &sets, width, &geometry), of_inputs(&x, &sets, width, &geometry));
        close("A", &a, &plus(&wide(&begin), &exact), &plus(&begin, &plain))?;
        if !few {
            symmetric("A across its diagonal", &a, width)?;
        }

        // Without the last of a group, so that groups have different numbers of rows.
        let rows: Vec<u32> = (0..o as u32).filter(|row| !few || o == 1 || row % 5 != 1).collect();
        let by_group = rows.chunk_by(|a, b| *a as usize / outer == *b as usize / outer);
        let width = by_group.map(<[u32]>::len).max().unwrap_or(0);
        let (on_rows, begin) = (cuda.upload(&rows)?, start(rows.len() * width));
        let chosen = few.then(|| on_rows.input());
        let g = adds(cuda, &begin, |g| {
            let mut scratch = cuda.alloc(on_cuda::moments::output_parts(n, rows.len(), width, &geometry))?;
            on_cuda::moments::output(cuda, g, scratch.output(), on_dz, chosen, width, n, &geometry)
        })?;
        let exact = of_outputs(&dz, &rows, width, (o, outer));
        let plain = of_outputs(&dz, &rows, width, (o, outer));
        close("G", &g, &plus(&wide(&begin), &exact), &plus(&begin, &plain))?;
        if !few {
            symmetric("G across its diagonal", &g, width)?;
        }
    }
    Ok(())
}

/// Some of `o` rows.
fn picked<T: Copy>(values: &[T], rows: &[u32], o: usize) -> Vec<T> {
    let of = values.len() / o;
    rows.iter().flat_map(|&row| values[row as usize * of..][..of].iter().copied()).collect()
}

/// Two of three rows, what they hold, and the same with zeros for the others: of the weights, then of the bias.
type Selected = (Vec<u32>, (Vec<f32>, Vec<f32>), (Vec<f32>, Vec<f32>));

fn selected(o: usize, weight: &[f32], bias: &[f32]) -> Selected {
    let rows: Vec<u32> = (0..o as u32).filter(|row| row % 3 != 1).collect();
    let both = |values: &[f32]| {
        let of = values.len() / o;
        let row = |row: usize| values[row * of..(row + 1) * of].iter().copied();
        let some = picked(values, &rows, o);
        let whole = (0..o).flat_map(|r| row(r).map(move |v| if r % 3 != 1 { v } else { 0.0 })).collect();
        (some, whole)
    };
    let (weight, bias) = (both(weight), both(bias));
    (rows, weight, bias)
}
