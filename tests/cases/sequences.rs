//! Cases of layer norm, losses and attention on CUDA.
use libtest_mimic::Failed;
use scrubjay::device::Device;
use scrubjay::device::cuda::Buffer;
use scrubjay::loss::{LogitProduct, Loss, softmax};
use scrubjay::ops::cuda::{self as on_cuda, Out};
use scrubjay::ops::{Shape, Windows};

use super::checks::{adds, close, dual, plus, same_bits, slopes, values, wide, writes};
use super::dual::{Dual, Number};
use super::{attention, cuda, layers};

const LOSS: Loss = Loss::CrossEntropy { smoothing: 0.0 };

pub fn layer_norms(device: &Device, n: usize, c: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (len, eps) = (n * c, 1e-5);
    let [x, tx, dy, dyt, start] = [1, 2, 3, 4, 5].map(|seed| values(len, seed));
    let (gamma, beta) = (values(c, 6), values(c, 7));
    let [on_x, on_tx, on_dy, on_dyt] =
        [cuda.upload(&x)?, cuda.upload(&tx)?, cuda.upload(&dy)?, cuda.upload(&dyt)?];
    let (on_gamma, on_beta) = (cuda.upload(&gamma)?, cuda.upload(&beta)?);

    fn forward<T: Number>(x: &[T], gamma: &[f32], beta: &[f32], eps: f32) -> Vec<T> {
        let (gamma, beta) = (wide::<T>(gamma), wide::<T>(beta));
        let rows = x.chunks_exact(gamma.len()).map(|x| layers::normalise(x, eps).0);
        rows.flat_map(|hat| (0..hat.len()).map(|i| hat[i] * gamma[i] + beta[i]).collect::<Vec<T>>()).collect()
    }
    fn backward<T: Number>(dy: &[T], x: &[T], gamma: &[f32], eps: f32) -> Vec<T> {
        let gamma = wide::<T>(gamma);
        let rows = dy.chunks_exact(gamma.len()).zip(x.chunks_exact(gamma.len()));
        let row = |(dy, x): (&[T], &[T])| {
            let (hat, r) = layers::normalise(x, eps);
            let u: Vec<T> = dy.iter().zip(&gamma).map(|(&dy, &gamma)| dy * gamma).collect();
            layers::normalise_backward(&u, &hat, r)
        };
        rows.flat_map(row).collect()
    }
    let mut saved = cuda.alloc(2 * n)?;
    on_cuda::layer_norm::forward(
        cuda,
        cuda.alloc::<f32>(len)?.output(),
        saved.output(),
        on_x.input(),
        on_gamma.input(),
        on_beta.input(),
        eps,
    )?;
    let y = writes(cuda, len, |y| {
        let mut saved = cuda.alloc(2 * n)?;
        let (gamma, beta) = (on_gamma.input(), on_beta.input());
        on_cuda::layer_norm::forward(cuda, y, saved.output(), on_x.input(), gamma, beta, eps)
    })?;
    close("y", &y, &forward(&wide(&x), &gamma, &beta, eps), &forward(&x, &gamma, &beta, eps))?;

    let (x_in, tx_in, saved, gamma_in) = (on_x.input(), on_tx.input(), saved.input(), on_gamma.input());
    let t = writes(cuda, len, |t| on_cuda::layer_norm::tangent(cuda, t, tx_in, x_in, saved, gamma_in))?;
    let exact = slopes(&forward::<Dual<f64>>(&dual(&x, &tx), &gamma, &beta, eps));
    close("t", &t, &exact, &slopes(&forward::<Dual<f32>>(&dual(&x, &tx), &gamma, &beta, eps)))?;

    let dx = adds(cuda, &start, |dx| {
        on_cuda::layer_norm::backward(cuda, dx, on_dy.input(), x_in, saved, gamma_in)
    })?;
    let exact = plus(&wide(&start), &backward::<f64>(&wide(&dy), &wide(&x), &gamma, eps));
    close("dx", &dx, &exact, &plus(&start, &backward(&dy, &x, &gamma, eps)))?;

    let dxt = adds(cuda, &start, |dxt| {
        let (dyt, dy) = (on_dyt.input(), on_dy.input());
        on_cuda::layer_norm::tangent_backward(cuda, dxt, dyt, dy, tx_in, x_in, saved, gamma_in)
    })?;
    let exact = slopes(&backward::<Dual<f64>>(&dual(&dy, &dyt), &dual(&x, &tx), &gamma, eps));
    let plain = slopes(&backward::<Dual<f32>>(&dual(&dy, &dyt), &dual(&x, &tx), &gamma, eps));
    close("dx'", &dxt, &plus(&wide(&start), &exact), &plus(&start, &plain))?;

    /// dγ, then dβ.
    fn parameters<T: Number>(dy: &[f32], x: &[f32], c: usize, eps: f32) -> Vec<T> {
        let mut sums = vec![T::of(0.0); 2 * c];
        for (dy, x) in dy.chunks_exact(c).zip(x.chunks_exact(c)) {
            let (dy, hat) = (wide::<T>(dy), layers::normalise(&wide::<T>(x), eps).0);
            for i in 0..c {
                sums[i] = sums[i] + dy[i] * hat[i];
                sums[c + i] = sums[c + i] + dy[i];
            }
        }
        sums
    }
    let start = [gamma, beta].concat();
    let found = adds(cuda, &start, |out| {
        let (dgamma, dbeta) = out.split_at(c);
        let mut parts = cuda.alloc(on_cuda::layer_norm::gradient_parts(n, c))?;
        let (parts, dy) = (parts.output(), on_dy.input());
        on_cuda::layer_norm::parameter_gradient(cuda, dgamma, dbeta, parts, dy, x_in, saved)
    })?;
    let (exact, plain) = (parameters::<f64>(&dy, &x, c, eps), parameters::<f32>(&dy, &x, c, eps));
    close("dγ, dβ", &found, &plus(&wide(&start), &exact), &plus(&start, &plain))
}

/// What a row of logits, its tangent and its label give.
type PerRow<'a> = &'a dyn Fn(&[f32], &[f32], usize) -> Vec<f64>;

pub fn losses(device: &Device, n: usize, classes: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let labels: Vec<u32> = (0..n).map(|i| (i * i * 7 % classes) as u32).collect();
    let mut z = values(n * classes, 1);
    for (i, (z, &label)) in z.chunks_exact_mut(classes).zip(&labels).enumerate() {
        z[label as usize] += [0.0, 30.0, 90.0, -40.0][i % 4]; // unsure, right, very sure, wrong
    }
    let (t, weights) = (values(n * classes, 2), values(n, 3));
    let (on_z, on_t, on_labels) = (cuda.upload(&z)?, cuda.upload(&t)?, cuda.upload(&labels)?);
    let rows = |f: PerRow| -> Vec<f64> {
        let rows = z.chunks_exact(classes).zip(t.chunks_exact(classes)).zip(&labels);
        rows.flat_map(|((z, t), &label)| f(z, t, label as usize)).collect()
    };
    let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();

    let found = writes(cuda, n, |l| on_cuda::loss::values(cuda, l, on_z.input(), on_labels.input(), LOSS))?;
    let exact = rows(&|z, _, label| vec![layers::loss(&wide::<f64>(z), label)]);
    for (i, (&found, &exact)) in found.iter().zip(&exact).enumerate() {
        close(&format!("loss {i}"), &[found], &[exact], &narrow(&[exact]))?; // each by itself: small ones count
    }
    let gradient = |z: &[f32], label: usize| {
        let mut d = layers::slope(&wide::<f64>(z), label);
        d[label] = 0.0;
        d[label] = -d.iter().sum::<f64>();
        d
    };
    let found = writes(cuda, n * classes, |d| {
        on_cuda::loss::gradient(cuda, d, on_z.input(), on_labels.input(), n, LOSS)
    })?;
    let exact = rows(&|z, _, label| gradient(z, label));
    for i in 0..n {
        let row = i * classes..(i + 1) * classes;
        close(&format!("gradient {i}"), &found[row.clone()], &exact[row.clone()], &narrow(&exact[row]))?;
    }
    let on_weights = cuda.upload(&weights)?;
    let weighed = adds(cuda, &found, |d| on_cuda::loss::weigh(cuda, d, on_weights.input()))?;
    let expected: Vec<f32> = found.iter().enumerate().map(|(i, d)| d * weights[i / classes]).collect();
    same_bits("weighed", &weighed, &expected)?;

    let product = |matrix| {
        let (t, z, labels) = (on_t.input(), on_z.input(), on_labels.input());
        writes(cuda, n * classes, |back| on_cuda::loss::product(cuda, back, t, z, labels, n, matrix, LOSS))
    };
    let back = product(LogitProduct::Curvature)?;
    let exact = rows(&|z, t, _| {
        let p = layers::softmax(&wide::<f64>(z));
        let mean: f64 = p.iter().zip(t).map(|(p, &t)| p * f64::from(t)).sum();
        p.iter().zip(t).map(|(p, &t)| p * (f64::from(t) - mean)).collect()
    });
    close("curvature", &back, &exact, &narrow(&exact))?;
    let back = product(LogitProduct::Fisher)?;
    let exact = rows(&|z, t, label| {
        let d = gradient(z, label);
        let along: f64 = d.iter().zip(t).map(|(d, &t)| d * f64::from(t)).sum();
        d.iter().map(|d| d * along).collect()
    });
    close("fisher", &back, &exact, &narrow(&exact))?;

    for (seed, first) in [(7, 0), (1 << 40 | 3, 100)] {
        let d =
            writes(cuda, n * classes, |d| on_cuda::loss::draw(cuda, d, on_z.input(), n, seed, first, LOSS))?;
        let mut expected = vec![0.0; n * classes];
        softmax::draw(&mut expected, &z, classes, seed, first);
        for i in 0..n {
            let row = i * classes..(i + 1) * classes;
            let expected = &expected[row.clone()];
            close(&format!("draw {i}"), &d[row], &wide(expected), expected)?; // of the same class
        }
    }

    let mut predicted = cuda.alloc(n)?;
    on_cuda::loss::predict(cuda, predicted.output(), on_z.input(), LOSS)?;
    let expected: Vec<u32> = z.chunks_exact(classes).map(softmax::largest).collect();
    super::all_equal("predicted", &cuda.download(&predicted)?, &expected)
}

/// All four passes of attention, behind a mask `[n, t]` where there is one.
pub fn attentions(
    device: &Device,
    n: usize,
    t: usize,
    heads: usize,
    width: usize,
    mask: Option<&[u32]>,
) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let on_mask = mask.map(|mask| cuda.upload(mask)).transpose()?;
    let keys = || on_mask.as_ref().map(Buffer::input);
    let shape = Shape::new(1, t, heads * width);
    let (outer, inner, squares) = (n * shape.len(), 3 * n * shape.len(), n * heads * t * t);
    let ([x, tx, start], [dy, dyt]) =
        ([1, 2, 3].map(|seed| values(inner, seed)), [4, 5].map(|seed| values(outer, seed)));
    let [on_x, on_tx, on_dy, on_dyt] =
        [cuda.upload(&x)?, cuda.upload(&tx)?, cuda.upload(&dy)?, cuda.upload(&dyt)?];

    let forward = Attend { shape, heads, mask };
    let mut saved = cuda.alloc(squares)?;
    let mut other = cuda.alloc(outer)?;
    on_cuda::attention::forward(
        cuda,
        other.output(),
        Some(saved.output()),
        on_x.input(),
        n,
        shape,
        heads,
        keys(),
        None,
    )?;
    let kept = |i: usize| mask.is_none_or(|mask| mask[i / (heads * t * t) * t + i % t] != 0);
    if let Some(i) = cuda.download(&saved)?.iter().enumerate().position(|(i, &p)| p != 0.0 && !kept(i)) {
        return Err(format!("masked key {i} has weight").into());
    }
    let y = writes(cuda, outer, |y| {
        let mut saved = cuda.alloc(squares)?;
        on_cuda::attention::forward(
            cuda,
            y,
            Some(saved.output()),
            on_x.input(),
            n,
            shape,
            heads,
            keys(),
            None,
        )
    })?;
    close("y", &y, &forward.y(&wide(&x)), &forward.y(&x))?;

    let (x_in, tx_in, saved) = (on_x.input(), on_tx.input(), saved.input());
    let ty =
        writes(cuda, outer, |ty| on_cuda::attention::tangent(cuda, ty, tx_in, x_in, saved, n, shape, heads))?;
    let exact = slopes(&forward.y::<Dual<f64>>(&dual(&x, &tx)));
    close("y'", &ty, &exact, &slopes(&forward.y::<Dual<f32>>(&dual(&x, &tx))))?;

    let dx = adds(cuda, &start, |dx| {
        let mut scratch = cuda.alloc(squares)?;
        on_cuda::attention::backward(
            cuda,
            dx,
            None,
            scratch.output(),
            on_dy.input(),
            x_in,
            saved,
            n,
            shape,
            heads,
        )
    })?;
    let exact = plus(&wide(&start), &forward.dx::<f64>(&wide(&dy), &wide(&x)));
    close("dx", &dx, &exact, &plus(&start, &forward.dx(&dy, &x)))?;

    let dxt = adds(cuda, &start, |dxt| {
        let mut scratch = cuda.alloc(3 * squares)?;
        let (scratch, dyt, dy) = (scratch.output(), on_dyt.input(), on_dy.input());
        on_cuda::attention::tangent_backward(cuda, dxt, scratch, dyt, dy, tx_in, x_in, saved, n, shape, heads)
    })?;
    let exact = slopes(&forward.dx::<Dual<f64>>(&dual(&dy, &dyt), &dual(&x, &tx)));
    let plain = slopes(&forward.dx::<Dual<f32>>(&dual(&dy, &dyt), &dual(&x, &tx)));
    close("dx'", &dxt, &plus(&wide(&start), &exact), &plus(&start, &plain))
}

/// Attention within the windows of `images`, forward and backward: outputs, adjoints, and the gradient of the table.
pub fn windows(
    device: &Device,
    images: usize,
    at: Windows,
    heads: usize,
    width: usize,
) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (n, t, c) = (images * at.count(), at.tokens(), heads * width);
    let (shape, squares) = (Shape::new(1, t, c), n * heads * t * t);
    let ([x, start], dy) = ([1, 2].map(|seed| values(n * t * 3 * c, seed)), values(n * t * c, 3));
    let [table, table_start] = [4, 5].map(|seed| values(at.offsets() * heads, seed));
    let [on_x, on_dy, on_table] = [cuda.upload(&x)?, cuda.upload(&dy)?, cuda.upload(&table)?];

    let mut saved = cuda.alloc(squares)?;
    let y = writes(cuda, n * t * c, |y| {
        let mut saved = cuda.alloc(squares)?;
        let (saved, x, windows) = (Some(saved.output()), on_x.input(), Some((at, on_table.input())));
        on_cuda::attention::forward(cuda, y, saved, x, n, shape, heads, None, windows)
    })?;
    let all = Shape::new(at.count(), t, c);
    fn forward<T: Number>(x: &[f32], all: Shape, heads: usize, table: &[f32], at: Windows) -> Vec<T> {
        let (x, table) = (wide::<T>(x), wide::<T>(table));
        let images = x.chunks_exact(3 * all.len());
        images.flat_map(|x| attention::windowed(x, all, heads, &table, at, &|p| p)).collect()
    }
    close("y", &y, &forward(&x, all, heads, &table, at), &forward(&x, all, heads, &table, at))?;

    let mut other = cuda.alloc(n * t * c)?;
    let (out, kept, windows) = (other.output(), Some(saved.output()), Some((at, on_table.input())));
    on_cuda::attention::forward(cuda, out, kept, on_x.input(), n, shape, heads, None, windows)?;
    let backward = |dx: Out<'_, f32>, dtable: Out<'_, f32>| {
        let mut scratch = cuda.alloc(squares)?;
        let (scratch, dtable) = (scratch.output(), Some((at, dtable)));
        let (dy, x, saved) = (on_dy.input(), on_x.input(), saved.input());
        on_cuda::attention::backward(cuda, dx, dtable, scratch, dy, x, saved, n, shape, heads)
    };
    let dx = adds(cuda, &start, |dx| backward(dx, cuda.upload(&table_start)?.output()))?;
    let dtable = adds(cuda, &table_start, |dtable| backward(cuda.upload(&start)?.output(), dtable))?;

    /// The adjoints of the input and of the table, added to what they begin with.
    fn adjoints<T: Number>(
        [start, table_start]: [&[f32]; 2],
        [dy, x]: [&[f32]; 2],
        all: Shape,
        heads: usize,
        table: &[f32],
        at: Windows,
    ) -> [Vec<T>; 2] {
        let [mut dx, mut dtable, dy, x, table] = [start, table_start, dy, x, table].map(wide::<T>);
        let images = dx.chunks_exact_mut(3 * all.len()).zip(dy.chunks_exact(all.len()));
        for ((dx, dy), x) in images.zip(x.chunks_exact(3 * all.len())) {
            attention::windowed_backward([dx, &mut dtable], dy, x, all, heads, &table, at);
        }
        [dx, dtable]
    }
    let (starts, values) = ([start.as_slice(), table_start.as_slice()], [dy.as_slice(), x.as_slice()]);
    let exact: [Vec<f64>; 2] = adjoints(starts, values, all, heads, &table, at);
    let plain: [Vec<f32>; 2] = adjoints(starts, values, all, heads, &table, at);
    close("dx", &dx, &exact[0], &plain[0])?;
    close("the table's gradient", &dtable, &exact[1], &plain[1])
}

/// The oracle's attention over many images.
#[derive(Clone, Copy)]
struct Attend<'a> {
    shape: Shape,
    heads: usize,
    mask: Option<&'a [u32]>,
}

impl<'a> Attend<'a> {
    /// Image i's part of the mask.
    fn keys(self, i: usize) -> Option<&'a [u32]> {
        let t = self.shape.positions();
        self.mask.map(|mask| &mask[i * t..(i + 1) * t])
    }

    fn y<T: Number>(self, x: &[T]) -> Vec<T> {
        let images = x.chunks_exact(3 * self.shape.len()).enumerate();
        images
            .flat_map(|(i, x)| attention::attention(x, self.shape, self.heads, self.keys(i), &|p| p))
            .collect()
    }

    fn dx<T: Number>(self, dy: &[T], x: &[T]) -> Vec<T> {
        let mut dx = vec![T::of(0.0); x.len()];
        let images = dx.chunks_exact_mut(3 * self.shape.len()).zip(x.chunks_exact(3 * self.shape.len()));
        for (i, ((dx, x), dy)) in images.zip(dy.chunks_exact(self.shape.len())).enumerate() {
            attention::attention_backward(dx, dy, x, self.shape, self.heads, self.keys(i));
        }
        dx
    }
}
