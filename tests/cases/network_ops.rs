//! The operations of a network on CUDA: the CPU's bits where that is promised, else the oracle's values as closely as a
//! plain loop in f32 gives them.
use libtest_mimic::Failed;
use scrubjay::curvature::Kind;
use scrubjay::data::InputKind;
use scrubjay::device::Device;
use scrubjay::ops::{
    self, Activation, Bands, Conv, Precision, Shape, Strided, Window, Windows, cuda as on_cuda,
};
use scrubjay::zoo;

use super::checks::{HALVES, adds, close, dual, plus, same_bits, slopes, values, wide, writes};
use super::convs::{conv_adjoints, convs, filtered, lowered, moments};
use super::dual::{Dual, Number};
use super::networks::{
    derives, factors, finds_beyond, observes, observes_lowered, observes_on_sm90, products, refuses_beyond,
    scrubs, scrubs_texts, selects, selects_in_place, solves,
};
use super::sequences::{attentions, layer_norms, losses, windows};
use super::{Case, cuda, elements, few, large, layers, nets};

/// Every case, with its name.
pub fn cases() -> Vec<(String, Case)> {
    let mut cases: Vec<(String, Case)> = vec![];
    for (n, h, w, c) in POOLS.into_iter().filter(|&(_, h, w, _)| !few() || h * w < 16) {
        for window in WINDOWS {
            if window.over(h, w).is_some() && (large() || h < 20) {
                let Window { size: (r, s), stride, padding, further, ceil, counts_padding } = window;
                let mut name =
                    format!("n={n},h={h},w={w},c={c},size={r}x{s},stride={stride},padding={padding:?}");
                name += &format!(",further={further:?},ceil={ceil},counts={counts_padding}").replace(' ', "");
                let name = name.replace(' ', "");
                let from = Shape::new(h, w, c);
                cases.push((format!("max_pool/{name}"), Box::new(move |d| max_pools(d, n, from, window))));
                cases.push((
                    format!("average_pool/{name}"),
                    Box::new(move |d| average_pools(d, n, from, window)),
                ));
            }
        }
        for (oh, ow) in [(1, 1), (2, 3), (7, 7)] {
            if !few() || oh < 7 {
                let (from, to) = (Shape::new(h, w, c), Shape::new(oh, ow, c));
                let name = format!("adaptive_pool/n={n},h={h},w={w},c={c},to={oh}x{ow}");
                cases.push((name, Box::new(move |d| adaptive_pools(d, n, from, to))));
            }
        }
    }
    for kind in Activation::ALL {
        for len in if few() { vec![33] } else { vec![1, 31, 32, 33, 1000] } {
            let name = format!("activation/{kind:?},len={len}").to_lowercase();
            cases.push((name, Box::new(move |d| activations(d, kind, len))));
        }
    }
    for (positions, c) in [(1, 1), (31, 3), (32, 32), (33, 33), (300, 64)] {
        if large() || positions < 300 {
            let name = format!("pointwise/positions={positions},c={c}");
            cases.push((name, Box::new(move |d| pointwise(d, positions, c))));
        }
    }
    for (n, c) in [(1, 1), (2, 31), (3, 32), (2, 33)] {
        cases.push((format!("rows/n={n},c={c}"), Box::new(move |d| moves(d, n, c))));
    }
    for (n, rows, columns, c, height, down, right) in
        [(1, 1, 1, 1, 1, 0, 0), (2, 6, 4, 3, 2, 1, 1), (1, 31, 33, 1, 31, 0, 0), (3, 14, 7, 32, 7, 3, 0)]
    {
        let name = format!("bands/n={n},h={rows},w={columns},c={c},height={height},shift={down}-{right}");
        let bands = Bands { rows, columns, height, down, right };
        cases.push((name, Box::new(move |d| reordered(d, n, bands, c))));
    }
    for (n, h, w, c, stride, to) in
        [(1, 1, 1, 1, 1, 1), (2, 5, 4, 3, 2, 7), (1, 8, 8, 16, 2, 32), (3, 3, 7, 2, 3, 2)]
    {
        let (name, from) =
            (format!("shortcut/n={n},h={h},w={w},c={c},stride={stride},to={to}"), Shape::new(h, w, c));
        cases.push((name, Box::new(move |d| shortcuts(d, n, from, stride, to))));
    }
    for (n, c) in [(1, 2), (3, 31), (5, 32), (4, 33), (131, 9), (2, 192), (9, 768)] {
        if large() || c < 768 {
            cases.push((format!("layer_norm/n={n},c={c}"), Box::new(move |d| layer_norms(d, n, c))));
        }
    }
    for (n, classes) in [(1, 2), (8, 10), (5, 31), (4, 32), (7, 33), (6, 1000)] {
        if large() || classes < 1000 {
            cases.push((format!("loss/n={n},classes={classes}"), Box::new(move |d| losses(d, n, classes))));
        }
    }
    for (n, t, heads, width) in [
        (1, 1, 1, 1),
        (2, 5, 2, 3),
        (1, 31, 3, 32),
        (2, 33, 1, 33),
        (1, 197, 2, 64),
        (1, 130, 1, 128),
        (1, 257, 2, 3),
        (1, 515, 1, 2),
    ] {
        if large() || t < if few() { 33 } else { 130 } {
            let name = format!("attention/n={n},t={t},heads={heads},width={width}");
            cases.push((name, Box::new(move |d| attentions(d, n, t, heads, width, None))));
        }
    }
    // one window; windows in a row, shifted to the left; rows of windows, shifted both ways
    for (images, side, rows, columns, down, right) in
        [(2, 2, 1, 1, 0, 0), (1, 3, 1, 2, 0, 1), (2, 4, 2, 3, 2, 1)]
    {
        let at = Windows { side, rows, columns, down, right };
        let name =
            format!("attention/windows,side={side},rows={rows},columns={columns},down={down},right={right}");
        cases.push((name, Box::new(move |d| windows(d, images, at, 2, 3))));
    }
    for (n, h, w, c, o, shape) in CONVS {
        if large() || h * w * c < 500 {
            let Conv { kernel: (r, s), stride, padding: (p, _), further, dilation, groups } = shape;
            let name =
                format!("n={n},h={h},w={w},c={c},o={o},{r}x{s},stride={stride},padding={p}+{}", further.0);
            let (name, x) = (format!("{name},dilation={dilation},groups={groups}"), Shape::new(h, w, c));
            cases.push((format!("conv/{name}"), Box::new(move |d| convs(d, n, x, o, shape))));
            cases
                .push((format!("conv_adjoints/{name}"), Box::new(move |d| conv_adjoints(d, n, x, o, shape))));
            cases.push((format!("moments/{name}"), Box::new(move |d| moments(d, n, x, o, shape))));
            for precision in LOWERED {
                let name = format!("conv_{}/{name}", precision.name());
                cases.push((name, Box::new(move |d| lowered(d, precision, n, x, o, shape))));
            }
        }
    }
    for (n, h, w, c, o, shape) in WIDE.into_iter().filter(|_| large()) {
        let name = format!("conv_sm90/n={n},h={h},w={w},c={c},o={o}");
        let (precision, x) = (Precision::Bf16, Shape::new(h, w, c));
        cases.push((name, Box::new(move |d| lowered(d, precision, n, x, o, shape))));
    }
    // the thread sanitizer does not see how Rust's threads wait for each other
    for case in nets::CASES.into_iter().filter(|_| !few()) {
        let name = format!("observe/{}", case.name);
        cases.push((name, Box::new(move |d| observes(d, &case.network(7)?.freeze(), 5))));
        for precision in HALVES {
            let name = format!("observe_{}/{}", precision.name(), case.name);
            let lowered = move |d: &Device| observes_lowered(d, &case.network(7)?.freeze(), 5, precision);
            cases.push((name, Box::new(lowered)));
        }
        for all in [true, false] {
            let name = format!("kfac/{},{}", case.name, if all { "all" } else { "some" });
            cases.push((name, Box::new(move |d| factors(d, &case.network(7)?.freeze(), all, 5))));
        }
        if ["residual", "vit", "cnn"].contains(&case.name) {
            let name = format!("solve/{}", case.name);
            cases.push((name, Box::new(move |d| solves(d, &case.network(7)?.freeze(), 5))));
        }
        let small = ["softmax", "mlp"].contains(&case.name); // the forms of the loss differ in nothing below it
        for (kind, all) in KINDS_OF_CURVATURE.into_iter().filter(|(kind, _)| small || *kind == Kind::Hessian)
        {
            let rows = if all { "all" } else { "some" };
            let name = format!("curvature/{},{kind:?},{rows}", case.name).to_lowercase();
            cases.push((name, Box::new(move |d| derives(d, &case.network(7)?.freeze(), kind, all, 5))));
        }
    }
    let (image, text) = (InputKind::Image(Shape::new(16, 12, 3)), InputKind::Text { tokens: 7 });
    let created = [
        ("resnet20", image),
        ("cnn:8-16-16+32", image),
        ("distilbert:24-8-2-2-9", text),
        ("bert:24-8-1-2-9", text),
    ];
    for (name, input) in created.into_iter().filter(|_| large()) {
        let observed = move |d: &Device| {
            let net = zoo::create(name, input, 4, 3)?.network.freeze();
            observes(d, &net, 2)
        };
        cases.push((format!("observe/{name}"), Box::new(observed)));
        let derived = move |d: &Device| {
            let net = zoo::create(name, input, 4, 3)?.network.freeze();
            derives(d, &net, Kind::Hessian, false, 2)
        };
        cases.push((format!("curvature/{name}"), Box::new(derived)));
    }
    if !few() {
        cases.push(("scrub/mlp:8".into(), Box::new(scrubs)));
        cases.push(("scrub/distilbert:24-8-1-2-9".into(), Box::new(scrubs_texts)));
        cases.push(("observe/sm90".into(), Box::new(observes_on_sm90)));
        cases.push(("observe_f16/beyond".into(), Box::new(refuses_beyond)));
        cases.push(("select/in_place,one".into(), Box::new(|d| selects_in_place(d, &[4]))));
        cases.push(("select/in_place,mean".into(), Box::new(|d| selects_in_place(d, &[0, 1, 2]))));
        for precision in LOWERED {
            let name = format!("select/{}", precision.name());
            cases.push((name, Box::new(move |d| selects(d, precision))));
        }
    }
    for len in [1, 8, 9, 16] {
        cases.push((format!("beyond/len={len}"), Box::new(move |d| finds_beyond(d, len))));
    }
    cases.extend(elements::cases());
    cases.push(("conv_data/products".into(), Box::new(products)));
    cases.push(("network_ops/shapes".into(), Box::new(refuses)));
    cases
}

const KINDS_OF_CURVATURE: [(Kind, bool); 4] =
    [(Kind::Hessian, true), (Kind::Hessian, false), (Kind::Ggn, false), (Kind::Fisher, true)];

const POOLS: [(usize, usize, usize, usize); 6] =
    [(1, 1, 1, 1), (2, 3, 3, 31), (1, 5, 4, 33), (3, 8, 7, 32), (1, 2, 9, 3), (2, 28, 28, 64)];
const WINDOWS: [Window; 10] = [
    Window::square(1, 1, 0),
    Window::square(2, 2, 0),
    Window::square(3, 2, 1),
    Window::square(3, 1, 1),
    Window::square(2, 3, 1),
    Window { ceil: true, ..Window::square(3, 2, 0) },
    Window { ceil: true, ..Window::square(3, 2, 1) }, // some windows begin in the padding at the end, and are left out
    Window { ceil: true, further: (1, 0), counts_padding: false, ..Window::square(3, 3, 1) },
    Window { size: (3, 2), padding: (2, 0), further: (0, 1), ..Window::square(3, 2, 0) },
    Window { padding: (2, 1), further: (-1, -1), ..Window::square(3, 2, 0) },
];

const LOWERED: [Precision; 3] = [Precision::Tf32, Precision::Bf16, Precision::F16];

const CONVS: [(usize, usize, usize, usize, usize, Conv); 20] = [
    (1, 1, 1, 1, 1, Conv::square(1, 1, 0)),
    (33, 1, 1, 31, 10, Conv::square(1, 1, 0)), // linear
    (5, 1, 1, 32, 64, Conv::square(1, 1, 0)),
    (2, 1, 33, 33, 31, Conv::square(1, 1, 0)), // linear, on tokens
    (2, 5, 6, 3, 33, Conv::square(3, 1, 1)),
    (2, 7, 7, 4, 6, Conv { groups: 2, dilation: 2, ..Conv::square(3, 1, 2) }),
    (1, 8, 5, 6, 6, Conv { groups: 6, ..Conv::square(3, 2, 1) }),
    (1, 4, 9, 2, 5, Conv { kernel: (1, 3), padding: (0, 1), ..Conv::square(1, 1, 0) }),
    (2, 6, 5, 16, 24, Conv { kernel: (3, 2), padding: (1, 0), groups: 2, ..Conv::square(1, 2, 0) }),
    (1, 5, 5, 33, 33, Conv { groups: 33, ..Conv::square(3, 1, 1) }),
    (2, 7, 6, 31, 62, Conv { groups: 31, dilation: 2, ..Conv::square(3, 2, 2) }),
    (3, 9, 8, 32, 32, Conv { groups: 32, ..Conv::square(7, 1, 3) }), // more taps than are held at once
    (2, 9, 10, 5, 7, Conv::square(3, 3, 1)),
    (2, 8, 7, 6, 4, Conv { padding: (0, 1), further: (1, 0), ..Conv::square(3, 2, 0) }),
    (2, 8, 7, 6, 4, Conv { padding: (2, 1), further: (-1, -1), ..Conv::square(3, 2, 0) }),
    (1, 8, 9, 6, 4, Conv { dilation: 3, ..Conv::square(3, 2, 3) }),
    (2, 7, 9, 3, 5, Conv { dilation: 2, ..Conv::square(3, 4, 2) }), // remainders that no tap has
    (1, 14, 14, 3, 64, Conv::square(7, 2, 3)),
    (3, 9, 9, 64, 130, Conv::square(3, 1, 1)),
    (3, 30, 30, 4, 8, Conv::square(3, 1, 1)),
];

/// Layers of enough channels for sm_90a: more steps than stages, more tiles than multiprocessors.
const WIDE: [(usize, usize, usize, usize, usize, Conv); 3] = [
    (4, 7, 6, 40, 24, Conv { dilation: 2, ..Conv::square(3, 2, 1) }),
    (3, 1, 197, 136, 144, Conv::square(1, 1, 0)), // linear, on tokens
    (1, 6, 7, 32, 24, Conv { padding: (0, 1), further: (1, 0), ..Conv::square(3, 2, 0) }),
];

fn max_pools(device: &Device, n: usize, from: Shape, window: Window) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let to = window.over(from.h, from.w).map(|(h, w)| Shape::new(h, w, from.c)).ok_or("no window")?;
    let (inner, outer) = (n * from.len(), n * to.len());
    let (x, dy) = (values(inner, 1), values(outer, 2));
    let (mut y, mut winners) = (vec![0.0; outer], vec![0; outer]);
    ops::cpu::pool::max_pool(&mut y, &mut winners, &x, n, from, to, window);
    let on_device = cuda.upload(&x)?;
    let mut found = cuda.alloc(outer)?;
    let largest = writes(cuda, outer, |y| {
        let mut winners = cuda.alloc(outer)?;
        let winners = Some(winners.output());
        on_cuda::pool::max_pool(cuda, y, winners, on_device.input(), n, from, to, window)
    })?;
    same_bits("y", &largest, &y)?;
    on_cuda::pool::max_pool(
        cuda,
        cuda.alloc(outer)?.output(),
        Some(found.output()),
        on_device.input(),
        n,
        from,
        to,
        window,
    )?;
    super::all_equal("winners", &cuda.download(&found)?, &winners)?;
    let tangent = writes(cuda, outer, |t| {
        on_cuda::pool::max_pool_tangent(cuda, t, found.input(), on_device.input(), n, from, to)
    })?;
    same_bits("tangent", &tangent, &y)?;
    let mut expected = values(inner, 3);
    let back = cuda.upload(&dy)?;
    let dx = adds(cuda, &expected, |dx| {
        on_cuda::pool::max_pool_backward(cuda, dx, found.input(), back.input(), n, from, to, window)
    })?;
    ops::cpu::pool::scatter(&mut expected, &winners, &dy, n, from, to);
    same_bits("dx", &dx, &expected)
}

fn average_pools(device: &Device, n: usize, from: Shape, window: Window) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let to = window.over(from.h, from.w).map(|(h, w)| Shape::new(h, w, from.c)).ok_or("no window")?;
    let (x, dy) = (values(n * from.len(), 1), values(n * to.len(), 2));
    let (mut y, mut dx) = (vec![0.0; dy.len()], values(x.len(), 3));
    let (on_device, back) = (cuda.upload(&x)?, cuda.upload(&dy)?);
    let mean = writes(cuda, y.len(), |y| {
        on_cuda::pool::average_pool(cuda, y, on_device.input(), n, from, to, window)
    })?;
    ops::cpu::pool::average_pool(&mut y, &x, n, from, to, window);
    same_bits("y", &mean, &y)?;
    let spread = adds(cuda, &dx, |dx| {
        on_cuda::pool::average_pool_backward(cuda, dx, back.input(), n, from, to, window)
    })?;
    ops::cpu::pool::average_pool_adjoint(&mut dx, &dy, n, from, to, window);
    same_bits("dx", &spread, &dx)
}

fn adaptive_pools(device: &Device, n: usize, from: Shape, to: Shape) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (x, dy) = (values(n * from.len(), 1), values(n * to.len(), 2));
    let (mut y, mut dx) = (vec![0.0; dy.len()], values(x.len(), 3));
    let (on_device, back) = (cuda.upload(&x)?, cuda.upload(&dy)?);
    let mean =
        writes(cuda, y.len(), |y| on_cuda::pool::adaptive_pool(cuda, y, on_device.input(), n, from, to))?;
    ops::cpu::pool::adaptive_pool(&mut y, &x, n, from, to);
    same_bits("y", &mean, &y)?;
    let spread =
        adds(cuda, &dx, |dx| on_cuda::pool::adaptive_pool_backward(cuda, dx, back.input(), n, from, to))?;
    ops::cpu::pool::adaptive_pool_adjoint(&mut dx, &dy, n, from, to);
    same_bits("dx", &spread, &dx)
}

fn refuses(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let refused =
        |what: &str, ok: bool| if ok { Ok(()) } else { Err(Failed::from(format!("{what} was taken"))) };
    let x = cuda.upload(&[0.0; 12])?;
    let mut y = cuda.alloc(12)?;
    let (from, to) = (Shape::new(2, 3, 2), Shape::new(1, 1, 2));
    let mut average = |len: usize, from: Shape, to: Shape, size: usize, stride: usize, padding: usize| {
        let window = Window::square(size, stride, padding);
        let (y, _) = y.output().split_at(len);
        on_cuda::pool::average_pool(cuda, y, x.input(), 1, from, to, window).is_err()
    };
    refused("half an output", average(1, from, to, 2, 2, 0))?;
    refused("another image", average(2, Shape::new(3, 3, 2), to, 2, 2, 0))?;
    refused("other channels", average(1, from, Shape::new(1, 1, 1), 2, 2, 0))?;
    refused("a window of nothing", average(2, from, to, 0, 2, 0))?;
    refused("a window in the padding", average(12, from, Shape::new(3, 2, 2), 2, 2, 1))?;
    refused("a step of nothing", average(2, from, to, 2, 0, 0))?;
    // Two groups of two inputs and three outputs, filters of 1 x 1 on two pixels.
    let grouped = filtered(Shape::new(1, 2, 4), 6, Conv { groups: 2, ..Conv::square(1, 1, 0) });
    let (on_x, on_dz) = (cuda.upload(&[0.0; 8])?, cuda.upload(&[0.0; 12])?);
    let moment = |len: usize, one: usize, sets: &[u32], width: usize| {
        let (mut a, mut scratch) = (cuda.alloc(len)?, cuda.alloc(sets.len() * width * width)?);
        let (one, sets) = (cuda.upload(&on_cuda::moments::ONE[..one])?, cuda.upload(sets)?);
        let (a, scratch, one, sets) = (a.output(), scratch.output(), one.input(), sets.input());
        on_cuda::moments::input(cuda, a, scratch, on_x.input(), one, sets, width, 1, &grouped)
    };
    moment(18, 4, &[0, 1], 3)?;
    refused("a moment of more than a 1 behind the taps", moment(32, 4, &[0, 1], 4).is_err())?;
    refused("a moment of more groups than there are", moment(27, 4, &[0, 1, 1], 3).is_err())?;
    refused("a moment that is too short", moment(17, 4, &[0, 1], 3).is_err())?;
    refused("less than what is behind the taps", moment(18, 3, &[0, 1], 3).is_err())?;
    let moment = |len: usize, rows: &[u32], width: usize, scratch: usize| {
        let (mut g, mut scratch, rows) = (cuda.alloc(len)?, cuda.alloc(scratch)?, cuda.upload(rows)?);
        let (g, scratch, rows) = (g.output(), scratch.output(), Some(rows.input()));
        on_cuda::moments::output(cuda, g, scratch, on_dz.input(), rows, width, 1, &grouped)
    };
    moment(8, &[0, 2, 3, 5], 2, 8)?;
    refused("a moment of more rows than a group has", moment(16, &[0, 2, 3, 5], 4, 16).is_err())?;
    refused("a moment without rows", moment(0, &[], 2, 0).is_err())?;
    refused("a moment that is too long", moment(9, &[0, 2, 3, 5], 2, 8).is_err())?;
    refused("a moment without scratch", moment(8, &[0, 2, 3, 5], 2, 7).is_err())
}

pub fn activations(device: &Device, kind: Activation, len: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let mut a = values(len, 1);
    a.iter_mut().step_by(5).for_each(|a| *a *= 9.0);
    let [start, dy, at, dyt] = [2, 3, 4, 5].map(|seed| values(len, seed));
    let ([on_a, on_dy], [on_at, on_dyt]) =
        ([cuda.upload(&a)?, cuda.upload(&dy)?], [cuda.upload(&at)?, cuda.upload(&dyt)?]);

    fn value<T: Number>(kind: Activation, a: &[T]) -> Vec<T> {
        a.iter().map(|&a| layers::activation(kind, a).0).collect()
    }
    fn back<T: Number>(kind: Activation, a: &[T], dy: &[T]) -> Vec<T> {
        a.iter().zip(dy).map(|(&a, &dy)| layers::activation(kind, a).1 * dy).collect()
    }
    let y = writes(cuda, len, |y| on_cuda::activation::forward(cuda, y, on_a.input(), kind))?;
    close("y", &y, &value(kind, &wide(&a)), &value(kind, &a))?;
    let in_place = adds(cuda, &a, |y| on_cuda::activation::forward_in_place(cuda, y, kind))?;
    same_bits("y in place", &in_place, &y)?;

    let (exact, plain) = (back::<f64>(kind, &wide(&a), &wide(&dy)), back(kind, &a, &dy));
    let dx = adds(cuda, &dy, |d| on_cuda::activation::backward_in_place(cuda, d, on_a.input(), kind))?;
    close("dx", &dx, &exact, &plain)?;
    let sum = adds(cuda, &start, |dx| {
        on_cuda::activation::add_backward(cuda, dx, on_dy.input(), on_a.input(), kind)
    })?;
    close("dx added", &sum, &plus(&wide(&start), &exact), &plus(&start, &plain))?;

    let exact = slopes(&back::<Dual<f64>>(kind, &dual(&a, &at), &dual(&dy, &dyt)));
    let plain = slopes(&back::<Dual<f32>>(kind, &dual(&a, &at), &dual(&dy, &dyt)));
    let dxt = writes(cuda, dyt.len(), |dxt| {
        let (dyt, dy) = (on_dyt.input(), on_dy.input());
        on_cuda::activation::tangent_backward(cuda, dxt, dyt, dy, on_at.input(), on_a.input(), kind)
    })?;
    close("dx'", &dxt, &exact, &plain)?;
    let sum = adds(cuda, &start, |dxt| {
        let (dyt, dy) = (on_dyt.input(), on_dy.input());
        on_cuda::activation::add_tangent_backward(cuda, dxt, dyt, dy, on_at.input(), on_a.input(), kind)
    })?;
    close("dx' added", &sum, &plus(&wide(&start), &exact), &plus(&start, &plain))
}

fn pointwise(device: &Device, positions: usize, c: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let len = positions * c;
    let ([x, y], [scale, shift]) = ([values(len, 1), values(len, 2)], [values(c, 3), values(c, 4)]);
    let (on_x, on_scale, on_shift) = (cuda.upload(&x)?, cuda.upload(&scale)?, cuda.upload(&shift)?);
    let each = |f: &dyn Fn(usize) -> f32| (0..len).map(f).collect::<Vec<f32>>();
    let sum = adds(cuda, &y, |y| on_cuda::pointwise::add(cuda, y, on_x.input()))?;
    same_bits("sum", &sum, &each(&|i| y[i] + x[i]))?;
    let both = adds(cuda, &x, |y| {
        on_cuda::pointwise::scale_shift_in_place(cuda, y, on_scale.input(), on_shift.input())
    })?;
    same_bits("scale and shift", &both, &each(&|i| x[i] * scale[i % c] + shift[i % c]))?;
    let scaled = adds(cuda, &x, |y| on_cuda::pointwise::scale_in_place(cuda, y, on_scale.input()))?;
    same_bits("scale", &scaled, &each(&|i| x[i] * scale[i % c]))?;
    let added = adds(cuda, &y, |y| on_cuda::pointwise::add_scaled(cuda, y, on_x.input(), on_scale.input()))?;
    same_bits("scale added", &added, &each(&|i| y[i] + x[i] * scale[i % c]))
}

fn moves(device: &Device, n: usize, c: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (from, to) = (Shape::new(1, 5, c), Shape::new(1, 6, c));
    let (x, token) = (values(n * from.len(), 1), values(c, 2));
    let (on_x, on_token) = (cuda.upload(&x)?, cuda.upload(&token)?);
    let whole = |shape: Shape, first: usize| Strided { first, stride: shape.len() };
    let found = writes(cuda, n * to.len(), |mut y| {
        on_cuda::shape::copy(cuda, y.output(), on_x.input(), n, from.len(), whole(to, c), whole(from, 0))?;
        on_cuda::shape::copy(cuda, y, on_token.input(), n, c, whole(to, 0), Strided { first: 0, stride: 0 })
    })?;
    let expected: Vec<f32> =
        x.chunks_exact(from.len()).flat_map(|x| token.iter().chain(x)).copied().collect();
    same_bits("class token", &found, &expected)?;

    let (mut dx, on_dy) = (values(n * from.len(), 3), cuda.upload(&found)?);
    let back = adds(cuda, &dx, |dx| {
        on_cuda::shape::add(cuda, dx, on_dy.input(), n, from.len(), whole(from, 0), whole(to, c))
    })?;
    for (dx, dy) in dx.chunks_exact_mut(from.len()).zip(found.chunks_exact(to.len())) {
        dx.iter_mut().zip(&dy[c..]).for_each(|(dx, dy)| *dx += dy);
    }
    same_bits("its adjoint", &back, &dx)?;

    let wide = Shape::new(1, 5, 2 * c + 1);
    let mut joined = values(n * wide.len(), 4);
    let (rows, channels) = (n * wide.positions(), |c: usize, first: usize| Strided { first, stride: c });
    let found = adds(cuda, &joined, |y| {
        on_cuda::shape::copy(cuda, y, on_x.input(), rows, c, channels(wide.c, c), channels(c, 0))
    })?;
    for (y, x) in joined.chunks_exact_mut(wide.c).zip(x.chunks_exact(c)) {
        y[c..2 * c].copy_from_slice(x);
    }
    same_bits("channels side by side", &found, &joined)
}

fn reordered(device: &Device, n: usize, bands: Bands, c: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let len = n * bands.rows * bands.columns * c;
    let (x, start) = (values(len, 1), values(len, 2));
    let on_x = cuda.upload(&x)?;
    for back in [false, true] {
        let mut y = vec![0.0; len];
        let found =
            writes(cuda, len, |y| on_cuda::shape::bands(cuda, y, on_x.input(), n, bands, c, back, false))?;
        ops::cpu::shape::bands(&mut y, &x, bands, c, back, false);
        same_bits("y", &found, &y)?;
        let mut sum = start.clone();
        let found =
            adds(cuda, &start, |y| on_cuda::shape::bands(cuda, y, on_x.input(), n, bands, c, back, true))?;
        ops::cpu::shape::bands(&mut sum, &x, bands, c, back, true);
        same_bits("added", &found, &sum)?;
    }
    Ok(())
}

fn shortcuts(device: &Device, n: usize, from: Shape, stride: usize, c: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let to = Shape::new(from.h.div_ceil(stride), from.w.div_ceil(stride), c);
    let (x, dy) = (values(n * from.len(), 1), values(n * to.len(), 2));
    let (on_x, on_dy) = (cuda.upload(&x)?, cuda.upload(&dy)?);
    let (mut y, mut dx) = (vec![0.0; dy.len()], values(x.len(), 3));
    let found =
        writes(cuda, y.len(), |y| on_cuda::shape::shortcut(cuda, y, on_x.input(), n, from, to, stride))?;
    ops::cpu::shape::shortcut(&mut y, &x, n, from, to, stride);
    same_bits("y", &found, &y)?;
    let found = adds(cuda, &dx, |dx| {
        on_cuda::shape::shortcut_backward(cuda, dx, on_dy.input(), n, from, to, stride)
    })?;
    ops::cpu::shape::shortcut_adjoint(&mut dx, &dy, n, from, to, stride);
    same_bits("dx", &found, &dx)
}
