//! Group norm, gates, embeddings, attention behind a mask, activations at their kinks: on the CPU and on CUDA, against the
//! oracle as closely as a plain loop in f32.

use libtest_mimic::Failed;

use scrubjay::device::{Cuda, Device};
use scrubjay::ops::cpu;
use scrubjay::ops::cuda::{self as on_cuda, In, Out};
use scrubjay::ops::{Activation, Shape};

use super::checks::{adds, close, dual, plus, same_bits, slopes, values, wide, writes};
use super::dual::{Dual, Number};
use super::sequences::attentions;
use super::{Case, cuda, embedding, few, gate, group_norm, large, layers};

/// Every case, with its name.
pub fn cases() -> Vec<(String, Case)> {
    let mut cases: Vec<(String, Case)> = vec![];
    // one group; a channel a group; fewer values than threads; a width that does not divide their number, and one above it
    for (n, h, w, c, groups) in [
        (1, 1, 1, 1, 1),
        (2, 1, 1, 31, 1),
        (3, 1, 1, 32, 32),
        (1, 3, 11, 33, 11),
        (2, 9, 11, 9, 3),
        (1, 2, 3, 300, 1),
        (2, 14, 14, 64, 8),
    ] {
        if large() || h < 14 {
            let name = format!("group_norm/n={n},h={h},w={w},c={c},groups={groups}");
            let norm = Norm { n, shape: Shape::new(h, w, c), groups, eps: 1e-5 };
            cases.push((name, Box::new(move |d| norm.derives(d))));
        }
    }
    for (n, positions, c) in [(1, 1, 1), (2, 31, 3), (3, 1, 32), (2, 9, 33), (33, 8, 31), (2, 300, 65)] {
        if large() || positions < 300 {
            let name = format!("gate/n={n},positions={positions},c={c}");
            cases.push((name, Box::new(move |d| gates(d, n, positions, c))));
        }
    }
    for (n, c, rows) in [(1, 1, 1), (31, 3, 7), (32, 32, 100), (33, 33, 2), (257, 5, 30), (700, 40, 300)] {
        if large() || n < 700 {
            let name = format!("embedding/n={n},c={c},rows={rows}");
            cases.push((name, Box::new(move |d| embeddings(d, n, c, rows))));
        }
    }
    for (n, t, heads, width) in
        [(1, 1, 1, 1), (3, 5, 2, 3), (2, 31, 1, 32), (2, 33, 2, 5), (1, 130, 1, 16), (1, 515, 1, 2)]
    {
        if large() || t < if few() { 33 } else { 130 } {
            let name = format!("attention/masked,n={n},t={t},heads={heads},width={width}");
            cases.push((name, Box::new(move |d| attentions(d, n, t, heads, width, Some(&mask(n, t))))));
        }
    }
    if large() {
        let late: Vec<u32> = (0..260).map(|key| u32::from(key > 257)).collect(); // none of the first part
        cases.push((
            "attention/masked,late".into(),
            Box::new(move |d| attentions(d, 1, 260, 1, 2, Some(&late))),
        ));
    }
    cases.push(("attention/masked,all".into(), Box::new(|d| attentions(d, 2, 33, 2, 3, Some(&[0; 66])))));
    cases.push(("attention/masked,none".into(), Box::new(keeps_bits)));
    for kind in Activation::ALL {
        let name = format!("activation/{},kinks", kind.name());
        cases.push((name, Box::new(move |d| kinks(d, kind))));
    }
    cases.push(("layers/shapes".into(), Box::new(refuses)));
    cases
}

/// Like [`values`], and the first 16 equal.
fn with_constants(len: usize, seed: usize) -> Vec<f32> {
    let mut values = values(len, seed);
    values.iter_mut().take(16).for_each(|x| *x = 0.75);
    values
}

/// A group norm's shapes.
#[derive(Clone, Copy)]
struct Norm {
    n: usize,
    shape: Shape,
    groups: usize,
    eps: f32,
}

impl Norm {
    fn y<T: Number>(self, x: &[T], gamma: &[f32], beta: &[f32]) -> Vec<T> {
        let (gamma, beta) = (wide(gamma), wide(beta));
        let images = x.chunks_exact(self.shape.len());
        images
            .flat_map(|x| group_norm::forward(x, &gamma, &beta, self.shape, self.groups, self.eps))
            .collect()
    }

    fn dx<T: Number>(self, dy: &[T], x: &[T], gamma: &[f32]) -> Vec<T> {
        let gamma = wide(gamma);
        let images = dy.chunks_exact(self.shape.len()).zip(x.chunks_exact(self.shape.len()));
        let image = |(dy, x)| group_norm::backward(dy, x, &gamma, self.shape, self.groups, self.eps);
        images.flat_map(image).collect()
    }

    /// dγ, then dβ, of γ and β.
    fn parameters<T: Number>(self, dy: &[f32], x: &[f32], start: &[f32]) -> Vec<T> {
        let c = self.shape.c;
        let mut sums = wide::<T>(start);
        for (dy, x) in dy.chunks_exact(self.shape.len()).zip(x.chunks_exact(self.shape.len())) {
            let hat = group_norm::standard(&wide::<T>(x), self.shape, self.groups, self.eps);
            for (i, dy) in wide::<T>(dy).into_iter().enumerate() {
                sums[i % c] = sums[i % c] + dy * hat[i];
                sums[c + i % c] = sums[c + i % c] + dy;
            }
        }
        sums
    }

    fn derives(self, device: &Device) -> Result<(), Failed> {
        use cpu::group_norm as host;
        use on_cuda::group_norm as on;
        let Norm { n, shape, groups, eps } = self;
        let (cuda, len, c) = (cuda(device)?, n * shape.len(), shape.c);
        let x = with_constants(len, 1);
        let [tx, dy, dyt, start] = [2, 3, 4, 5].map(|seed| values(len, seed));
        let (gamma, beta) = (values(c, 6), values(c, 7));
        let [on_x, on_tx, on_dy, on_dyt] =
            [cuda.upload(&x)?, cuda.upload(&tx)?, cuda.upload(&dy)?, cuda.upload(&dyt)?];
        let (on_gamma, on_beta) = (cuda.upload(&gamma)?, cuda.upload(&beta)?);

        let (exact, plain) = (self.y(&wide(&x), &gamma, &beta), self.y(&x, &gamma, &beta));
        let (mut y, mut saved) = (vec![f32::NAN; len], vec![f32::NAN; 2 * n * groups]);
        host::forward(&mut y, &mut saved, &x, &gamma, &beta, n, shape, groups, eps);
        close("y of the CPU", &y, &exact, &plain)?;
        let forward = |y: Out<'_, f32>, saved: Out<'_, f32>| {
            on::forward(
                cuda,
                y,
                saved,
                on_x.input(),
                on_gamma.input(),
                on_beta.input(),
                n,
                shape,
                groups,
                eps,
            )
        };
        close("y", &writes(cuda, len, |y| forward(y, cuda.alloc(saved.len())?.output()))?, &exact, &plain)?;
        let mut on_saved = cuda.alloc(saved.len())?;
        forward(cuda.alloc(len)?.output(), on_saved.output())?;
        let of_device: Vec<f64> = saved.iter().map(|&s| f64::from(s)).collect();
        close("saved", &cuda.download(&on_saved)?, &of_device, &saved)?;

        let [x_in, tx_in, saved_in, gamma_in] =
            [on_x.input(), on_tx.input(), on_saved.input(), on_gamma.input()];
        let exact = slopes(&self.y::<Dual<f64>>(&dual(&x, &tx), &gamma, &beta));
        let plain = slopes(&self.y::<Dual<f32>>(&dual(&x, &tx), &gamma, &beta));
        let mut t = vec![f32::NAN; len];
        host::tangent(&mut t, &tx, &x, &saved, &gamma, n, shape, groups);
        close("t of the CPU", &t, &exact, &plain)?;
        let t =
            writes(cuda, len, |t| on::tangent(cuda, t, tx_in, x_in, saved_in, gamma_in, n, shape, groups))?;
        close("t", &t, &exact, &plain)?;

        let exact = plus(&wide(&start), &self.dx::<f64>(&wide(&dy), &wide(&x), &gamma));
        let plain = plus(&start, &self.dx(&dy, &x, &gamma));
        let mut dx = start.clone();
        host::backward(&mut dx, &dy, &x, &saved, &gamma, n, shape, groups);
        close("dx of the CPU", &dx, &exact, &plain)?;
        let dx = adds(cuda, &start, |dx| {
            on::backward(cuda, dx, on_dy.input(), x_in, saved_in, gamma_in, n, shape, groups)
        })?;
        close("dx", &dx, &exact, &plain)?;

        let exact = slopes(&self.dx::<Dual<f64>>(&dual(&dy, &dyt), &dual(&x, &tx), &gamma));
        let plain = slopes(&self.dx::<Dual<f32>>(&dual(&dy, &dyt), &dual(&x, &tx), &gamma));
        let (exact, plain) = (plus(&wide(&start), &exact), plus(&start, &plain));
        let mut dxt = start.clone();
        host::tangent_backward(&mut dxt, &dyt, &dy, &tx, &x, &saved, &gamma, n, shape, groups);
        close("dx' of the CPU", &dxt, &exact, &plain)?;
        let dxt = adds(cuda, &start, |dxt| {
            let (dyt, dy) = (on_dyt.input(), on_dy.input());
            on::tangent_backward(cuda, dxt, dyt, dy, tx_in, x_in, saved_in, gamma_in, n, shape, groups)
        })?;
        close("dx'", &dxt, &exact, &plain)?;

        let start = [gamma, beta].concat();
        let (exact, plain) = (self.parameters(&dy, &x, &start), self.parameters(&dy, &x, &start));
        let mut both = start.clone();
        let (dgamma, dbeta) = both.split_at_mut(c);
        host::parameter_gradient(dgamma, dbeta, &dy, &x, &saved, n, shape, groups);
        close("parameters of the CPU", &both, &exact, &plain)?;
        let both = adds(cuda, &start, |out| {
            let (dgamma, dbeta) = out.split_at(c);
            let mut parts = cuda.alloc(on::gradient_parts(n, shape))?;
            let (parts, dy) = (parts.output(), on_dy.input());
            on::parameter_gradient(cuda, dgamma, dbeta, parts, dy, x_in, saved_in, n, shape, groups)
        })?;
        close("parameters", &both, &exact, &plain)
    }
}

fn gates(device: &Device, n: usize, positions: usize, c: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (len, gates) = (n * positions * c, n * c);
    let [x, tx, dy, dyt, start] = [1, 2, 3, 4, 5].map(|seed| values(len, seed));
    let [g, tg, start_g] = [6, 7, 8].map(|seed| values(gates, seed));
    let [on_x, on_tx, on_dy, on_dyt] =
        [cuda.upload(&x)?, cuda.upload(&tx)?, cuda.upload(&dy)?, cuda.upload(&dyt)?];
    let (on_g, on_tg) = (cuda.upload(&g)?, cuda.upload(&tg)?);

    /// The sum of products, from the first of them or from `start`: on both devices, with the same bits.
    fn products(
        cuda: &Cuda,
        start: Option<&[f32]>,
        host: &[(&[f32], &[f32])],
        device: &[(In<'_, f32>, In<'_, f32>)],
        c: usize,
    ) -> Result<Vec<f32>, Failed> {
        let begin = start.map_or_else(|| vec![f32::NAN; host[0].0.len()], <[f32]>::to_vec);
        let mut expected = begin.clone();
        for (i, (x, gate)) in host.iter().enumerate() {
            cpu::gate::apply(&mut expected, x, gate, c, i > 0 || start.is_some());
        }
        let found = adds(cuda, &begin, |mut y| {
            device.iter().enumerate().try_for_each(|(i, &(x, gate))| {
                on_cuda::gate::apply(cuda, y.output(), x, gate, c, i > 0 || start.is_some())
            })
        })?;
        same_bits("the CPU's product", &found, &expected)?;
        Ok(found)
    }
    let (g_in, tg_in) = (on_g.input(), on_tg.input());
    let y = products(cuda, None, &[(&x, &g)], &[(on_x.input(), g_in)], c)?;
    close("y", &y, &gate::forward(&wide(&x), &wide(&g), positions, c), &gate::forward(&x, &g, positions, c))?;
    let pairs = [(on_tx.input(), g_in), (on_x.input(), tg_in)];
    let t = products(cuda, None, &[(&tx, &g), (&x, &tg)], &pairs, c)?;
    let exact = slopes(&gate::forward::<Dual<f64>>(&dual(&x, &tx), &dual(&g, &tg), positions, c));
    close(
        "t",
        &t,
        &exact,
        &slopes(&gate::forward::<Dual<f32>>(&dual(&x, &tx), &dual(&g, &tg), positions, c)),
    )?;

    let (exact, exact_g) = gate::backward::<f64>(&wide(&dy), &wide(&x), &wide(&g), positions, c);
    let (plain, plain_g) = gate::backward(&dy, &x, &g, positions, c);
    let dx = products(cuda, Some(&start), &[(&dy, &g)], &[(on_dy.input(), g_in)], c)?;
    close("dx", &dx, &plus(&wide(&start), &exact), &plus(&start, &plain))?;
    let both = |exact: &[f64], plain: &[f32], host: &[[&[f32]; 2]], on: &[[In<'_, f32>; 2]]| {
        let (exact, plain) = (plus(&wide(&start_g), exact), plus(&start_g, plain));
        let mut dg = start_g.clone();
        host.iter().for_each(|[dy, x]| cpu::gate::gradient(&mut dg, dy, x, c));
        close("gate's gradient of the CPU", &dg, &exact, &plain)?;
        let dg = adds(cuda, &start_g, |mut dg| {
            on.iter().try_for_each(|[dy, x]| on_cuda::gate::gradient(cuda, dg.output(), *dy, *x, c))
        })?;
        close("gate's gradient", &dg, &exact, &plain)
    };
    both(&exact_g, &plain_g, &[[&dy, &x]], &[[on_dy.input(), on_x.input()]])?;

    let (d, x_, g_) = (dual(&dy, &dyt), dual(&x, &tx), dual(&g, &tg));
    let (exact, exact_g) = gate::backward::<Dual<f64>>(&d, &x_, &g_, positions, c);
    let (d, x_, g_) = (dual(&dy, &dyt), dual(&x, &tx), dual(&g, &tg));
    let (plain, plain_g) = gate::backward::<Dual<f32>>(&d, &x_, &g_, positions, c);
    let pairs = [(on_dyt.input(), g_in), (on_dy.input(), tg_in)];
    let dxt = products(cuda, Some(&start), &[(&dyt, &g), (&dy, &tg)], &pairs, c)?;
    close("dx'", &dxt, &plus(&wide(&start), &slopes(&exact)), &plus(&start, &slopes(&plain)))?;
    let on = [[on_dyt.input(), on_x.input()], [on_dy.input(), on_tx.input()]];
    both(&slopes(&exact_g), &slopes(&plain_g), &[[&dyt, &x], [&dy, &tx]], &on)
}

/// Token 0 in every second place, as padding is, the others spread.
fn embeddings(device: &Device, n: usize, c: usize, rows: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let token = |i: usize| if i % 2 == 1 { 0 } else { (i * 7919 % rows) as u32 };
    let tokens: Vec<u32> = (0..n).map(token).collect();
    let (table, dy, start) = (values(rows * c, 1), values(n * c, 2), values(rows * c, 3));
    let (on_table, on_dy, on_tokens) = (cuda.upload(&table)?, cuda.upload(&dy)?, cuda.upload(&tokens)?);
    let expected = embedding::forward(&tokens, &table, c);
    let mut y = vec![f32::NAN; n * c];
    cpu::embedding::forward(&mut y, &tokens, &table, c);
    same_bits("y of the CPU", &y, &expected)?;
    let y = writes(cuda, n * c, |y| {
        on_cuda::embedding::forward(cuda, y, on_tokens.input(), on_table.input(), c)
    })?;
    same_bits("y", &y, &expected)?;

    let (mut exact, mut plain) = (wide::<f64>(&start), start.clone());
    embedding::backward(&mut exact, &wide(&dy), &tokens, c);
    embedding::backward(&mut plain, &dy, &tokens, c);
    let mut dtable = start.clone();
    cpu::embedding::gradient(&mut dtable, &dy, &tokens, c);
    close("table's gradient of the CPU", &dtable, &exact, &plain)?;
    let dtable = adds(cuda, &start, |dtable| {
        let mut order = cuda.alloc(n)?;
        on_cuda::embedding::gradient(cuda, dtable, order.output(), on_dy.input(), on_tokens.input(), c)
    })?;
    close("table's gradient", &dtable, &exact, &plain)?;

    // A token that the host did not refuse reads nothing, and is left out.
    let on_beyond = cuda.upload(&vec![rows as u32; n])?;
    let y = writes(cuda, n * c, |y| {
        on_cuda::embedding::forward(cuda, y, on_beyond.input(), on_table.input(), c)
    })?;
    if !y.iter().all(|y| y.is_nan()) {
        return Err("a token beyond the table has a row".into());
    }
    let dtable = adds(cuda, &start, |dtable| {
        let mut order = cuda.alloc(n)?;
        on_cuda::embedding::gradient(cuda, dtable, order.output(), on_dy.input(), on_beyond.input(), c)
    })?;
    same_bits("table's gradient of no token", &dtable, &start)
}

/// Sequences that end early, one that has gaps, and one without any token.
fn mask(n: usize, t: usize) -> Vec<u32> {
    let key = |image: usize, i: usize| match image % 3 {
        0 => i < t.div_ceil(2),
        1 => !i.is_multiple_of(3),
        _ => false,
    };
    (0..n * t).map(|at| u32::from(key(at / t, at % t))).collect()
}

/// A mask that keeps all keys changes no bit.
fn keeps_bits(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (n, heads, shape) = (2, 2, Shape::new(1, 33, 6));
    let x = values(3 * n * shape.len(), 1);
    let (on_x, on_mask) = (cuda.upload(&x)?, cuda.upload(&vec![1; n * shape.positions()])?);
    let run = |mask: Option<In<'_, u32>>| {
        writes(cuda, n * shape.len(), |y| {
            let mut saved = cuda.alloc(n * heads * 33 * 33)?;
            on_cuda::attention::forward(
                cuda,
                y,
                Some(saved.output()),
                on_x.input(),
                n,
                shape,
                heads,
                mask,
                None,
            )
        })
    };
    same_bits("y", &run(Some(on_mask.input()))?, &run(None)?)?;
    let host = |mask: Option<&[u32]>| {
        let (mut y, mut saved) = (vec![f32::NAN; n * shape.len()], vec![f32::NAN; n * heads * 33 * 33]);
        cpu::attention::forward(&mut y, &mut saved, &x, n, shape, heads, mask, None);
        y
    };
    same_bits("y of the CPU", &host(Some(&vec![1; n * shape.positions()])), &host(None))
}

/// Arguments at the kinks, a rounding beside them, and far from them.
fn kinks(device: &Device, kind: Activation) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let mut a = vec![];
    for kink in [-3.0f32, 0.0, 3.0, 6.0] {
        let step = f32::EPSILON * kink.abs().max(1.0);
        a.extend([kink, kink - step, kink + step, kink]);
    }
    a.extend([-0.0, -30.0, 30.0, -100.0, 100.0, 1e-20]);
    let (len, on_a) = (a.len(), cuda.upload(&a)?);
    let ones = vec![1.0; len];
    let on_ones = cuda.upload(&ones)?;
    let y = writes(cuda, len, |y| on_cuda::activation::forward(cuda, y, on_a.input(), kind))?;
    let slope =
        writes(cuda, len, |d| on_cuda::activation::backward(cuda, d, on_ones.input(), on_a.input(), kind))?;
    // f'(a) dy' + f''(a) a' dy with dy' = 0, a' = 1, dy = 1
    let curve = adds(cuda, &vec![0.0; len], |d| {
        let zeros = cuda.upload(&vec![0.0; len])?;
        let (zeros, ones) = (zeros.input(), on_ones.input());
        on_cuda::activation::add_tangent_backward(cuda, d, zeros, ones, ones, on_a.input(), kind)
    })?;
    // One at a time: the wrong piece at one kink is a small part of a norm over all.
    for (i, &a) in a.iter().enumerate() {
        let (exact, exact_slope) = layers::activation(kind, Dual { value: f64::from(a), slope: 1.0 });
        let (plain, plain_slope) = layers::activation(kind, Dual { value: a, slope: 1.0 });
        for (what, found, exact, plain) in [
            ("value", y[i], exact.value, plain.value),
            ("slope", slope[i], exact_slope.value, plain_slope.value),
            ("curve", curve[i], exact_slope.slope, plain_slope.slope),
        ] {
            near_one(&format!("{what} of {} at {a:e}", kind.name()), found, exact, plain)?;
        }
    }
    Ok(())
}

/// Fails unless a value is at most twice as far off as a plain f32 loop, and 1e-6 more; pieces differ by far more.
fn near_one(what: &str, found: f32, exact: f64, plain: f32) -> Result<(), Failed> {
    let (off, allowed) = ((f64::from(found) - exact).abs(), 2.0 * (f64::from(plain) - exact).abs());
    match off <= allowed + 1e-6 * (1.0 + exact.abs()) {
        true => Ok(()),
        false => Err(format!("{what}: {found:e}, expected {exact:e}").into()),
    }
}

fn refuses(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let refused =
        |what: &str, ok: bool| if ok { Ok(()) } else { Err(Failed::from(format!("{what} was taken"))) };
    let (x, token) = (cuda.upload(&[0.0; 12])?, cuda.upload(&[0u32; 6])?);
    let mut y = cuda.alloc(12)?;
    let mut norm = |c: usize, groups: usize, saved: usize| {
        let (gamma, mut saved) = (cuda.upload(&vec![1.0; c])?, cuda.alloc(saved)?);
        let (y, saved, gamma, shape) = (y.output(), saved.output(), gamma.input(), Shape::new(1, 3, 4));
        on_cuda::group_norm::forward(cuda, y, saved, x.input(), gamma, gamma, 1, shape, groups, 1e-5)
    };
    norm(4, 2, 4)?;
    refused("channels that groups do not share out", norm(4, 3, 6).is_err())?;
    refused("no group", norm(4, 0, 0).is_err())?;
    refused("fewer parameters than channels", norm(3, 2, 4).is_err())?;
    refused("less than a pair of saved values a group", norm(4, 2, 3).is_err())?;
    let mut gate = |len: usize, c: usize| {
        on_cuda::gate::apply(cuda, y.output(), x.input(), x.input().part(0..len), c, false)
    };
    gate(4, 2)?;
    refused("a gate of more channels than it has", gate(4, 3).is_err())?;
    refused("a gate that does not share out the map", gate(8, 2).is_err())?;
    refused("a gate of no channels", gate(4, 0).is_err())?;
    refused("a gate of no values", gate(0, 2).is_err())?;
    let mut embed = |tokens: usize, c: usize, table: usize| {
        let (tokens, table) = (token.input().part(0..tokens), x.input().part(0..table));
        on_cuda::embedding::forward(cuda, y.output(), tokens, table, c)
    };
    embed(6, 2, 4)?;
    refused("fewer tokens than rows", embed(5, 2, 4).is_err())?;
    refused("a table of half a row", embed(6, 2, 5).is_err())?;
    refused("rows of nothing", embed(6, 0, 4).is_err())?;
    let mut attend = |mask: usize| {
        let (mut saved, shape) = (cuda.alloc(4)?, Shape::new(1, 2, 2));
        let mask = Some(token.input().part(0..mask));
        let (y, _) = y.output().split_at(4);
        on_cuda::attention::forward(cuda, y, Some(saved.output()), x.input(), 1, shape, 1, mask, None)
    };
    attend(2)?;
    refused("a mask of too few keys", attend(1).is_err())
}
