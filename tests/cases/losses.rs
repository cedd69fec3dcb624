//! Losses at the logits with label smoothing and of several labels, on the CPU and on CUDA, held to the oracle's derivatives;
//! and tokens replaced at random. The kernels are those of `loss.cu`, `binary_loss.cu` and `tokens.cu`.

use libtest_mimic::Failed;

use scrubjay::device::Device;
use scrubjay::loss::{LogitProduct, Loss, labels_right, right};
use scrubjay::ops::cuda as on_cuda;
use scrubjay::ops::tokens::{Replacement, Tokens, replace_tokens, replace_tokens_on};

use super::checks::{close, same_bits, values, wide, writes};
use super::dual::Dual;
use super::{Case, all_equal, cuda, large, loss as oracle, tokens, twice};

const LOSSES: [(&str, Loss); 3] = [
    ("cross_entropy", Loss::CrossEntropy { smoothing: 0.0 }),
    ("smoothed", Loss::CrossEntropy { smoothing: 0.1 }),
    ("binary", Loss::BinaryCrossEntropy),
];

/// Every case, with its name.
pub fn cases() -> Vec<(String, Case)> {
    let mut cases: Vec<(String, Case)> = vec![];
    for (name, loss) in LOSSES {
        for (n, classes) in [(1, 1), (1, 2), (8, 10), (5, 31), (4, 32), (7, 33), (3, 257)] {
            if large() || classes < 257 {
                let name = format!("losses/{name},n={n},classes={classes}");
                cases.push((name, Box::new(move |d| agrees(d, loss, n, classes))));
            }
        }
    }
    cases.push(("losses/no_labels".into(), Box::new(not_labels)));
    cases.push(("losses/shapes".into(), Box::new(refuses)));
    for (copies, t, count) in [(1, 3, 1), (31, 5, 1), (33, 12, 3), (3, 31, 40), (9, 33, 5), (5, 130, 2)] {
        let name = format!("tokens/copies={copies},t={t},count={count}");
        cases.push((name, Box::new(move |d| replaces(d, copies, t, count))));
    }
    cases.push(("tokens/shapes".into(), Box::new(refuses_tokens)));
    cases
}

/// Logits of rows that are unsure, right, very sure and wrong, and labels.
fn rows(loss: Loss, n: usize, classes: usize) -> (Vec<f32>, Vec<u32>) {
    let width = loss.label_width(classes);
    let label = |at: usize| match loss {
        Loss::CrossEntropy { .. } => at * at * 7 % classes,
        Loss::BinaryCrossEntropy => at * at / 3 % 2,
    };
    let labels: Vec<u32> = (0..n * width).map(|at| label(at) as u32).collect();
    let mut z = values(n * classes, 1);
    for (i, (z, y)) in z.chunks_exact_mut(classes).zip(labels.chunks_exact(width)).enumerate() {
        let lift = [0.0, 30.0, 90.0, -40.0][i % 4];
        match loss {
            Loss::CrossEntropy { .. } => z[y[0] as usize] += lift,
            Loss::BinaryCrossEntropy => {
                z.iter_mut().zip(y).for_each(|(z, &y)| *z += if y == 1 { lift } else { -lift })
            }
        }
    }
    (z, labels)
}

/// Every row by itself: the small ones count.
fn close_rows(what: &str, found: &[f32], exact: &[f64], width: usize) -> Result<(), Failed> {
    for (i, (found, exact)) in found.chunks(width).zip(exact.chunks(width)).enumerate() {
        let plain: Vec<f32> = exact.iter().map(|&v| v as f32).collect();
        close(&format!("{what} {i}"), found, exact, &plain)?;
    }
    all_equal(&format!("the length of {what}"), &[found.len()], &[exact.len()])
}

/// What a row of logits, its tangent and its labels give.
type PerRow<'a> = &'a dyn Fn(&[f64], &[f64], &[u32]) -> Vec<f64>;

fn agrees(device: &Device, loss: Loss, n: usize, classes: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (z, labels) = rows(loss, n, classes);
    let (t, len, width) = (values(n * classes, 2), n * classes, loss.label_width(classes));
    let (on_z, on_t, on_labels) = (cuda.upload(&z)?, cuda.upload(&t)?, cuda.upload(&labels)?);
    let (z_in, t_in, y_in) = (on_z.input(), on_t.input(), on_labels.input());
    let exact = |f: PerRow| -> Vec<f64> {
        let rows = z.chunks_exact(classes).zip(t.chunks_exact(classes)).zip(labels.chunks_exact(width));
        rows.flat_map(|((z, t), y)| f(&wide(z), &wide(t), y)).collect()
    };

    let want = exact(&|z, _, y| vec![oracle::value(loss, z, y)]);
    let mut on_cpu = vec![f32::NAN; n];
    loss.values(&mut on_cpu, &z, &labels, classes)?;
    close_rows("the CPU's loss", &on_cpu, &want, 1)?;
    let losses = writes(cuda, n, |out| on_cuda::loss::values(cuda, out, z_in, y_in, loss))?;
    close_rows("loss", &losses, &want, 1)?;

    let want = exact(&|z, _, y| oracle::gradient(loss, z, y));
    let mut on_cpu = vec![f32::NAN; len];
    loss.gradient(&mut on_cpu, &z, &labels, classes)?;
    close_rows("the CPU's gradient", &on_cpu, &want, classes)?;
    let d = writes(cuda, len, |d| on_cuda::loss::gradient(cuda, d, z_in, y_in, n, loss))?;
    close_rows("gradient", &d, &want, classes)?;

    for (matrix, name) in [(LogitProduct::Curvature, "curvature"), (LogitProduct::Fisher, "fisher")] {
        let want = exact(&|z, t, y| match matrix {
            LogitProduct::Curvature => {
                let along = |(&value, &slope): (&f64, &f64)| Dual { value, slope };
                oracle::curvature(loss, &z.iter().zip(t).map(along).collect::<Vec<_>>(), y)
            }
            LogitProduct::Fisher => {
                let d = oracle::gradient(loss, z, y);
                let along: f64 = d.iter().zip(t).map(|(d, t)| d * t).sum();
                d.iter().map(|d| d * along).collect()
            }
        });
        // Of softmax p (t − Σ p t) is a difference of near numbers where a row is sure; and where d·t cancels.
        let width = match (matrix, loss) {
            (LogitProduct::Curvature, Loss::BinaryCrossEntropy) => classes,
            _ => len,
        };
        let mut on_cpu = vec![f32::NAN; len];
        loss.product(matrix, &mut on_cpu, &t, &z, &labels, classes)?;
        close_rows(&format!("the CPU's {name}"), &on_cpu, &want, width)?;
        let back =
            writes(cuda, len, |back| on_cuda::loss::product(cuda, back, t_in, z_in, y_in, n, matrix, loss))?;
        close_rows(name, &back, &want, width)?;
    }

    for (seed, first) in [(7, 0), (1 << 40 | 3, 100)] {
        let d = writes(cuda, len, |d| on_cuda::loss::draw(cuda, d, z_in, n, seed, first, loss))?;
        let mut want = vec![f32::NAN; len];
        loss.draw(&mut want, &z, classes, seed, first)?;
        close_rows("draw", &d, &wide(&want), classes)?; // of the same class or signs
    }
    predicts(device, loss, &z, &labels, classes)
}

/// Predictions are the CPU's, and so is how many are right.
fn predicts(device: &Device, loss: Loss, z: &[f32], labels: &[u32], classes: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (n, width) = (z.len() / classes, loss.label_width(classes));
    let on_z = cuda.upload(z)?;
    let found = twice(|| {
        let mut predicted = cuda.upload(&vec![u32::MAX; labels.len()])?;
        on_cuda::loss::predict(cuda, predicted.output(), on_z.input(), loss)?;
        Ok(cuda.download(&predicted)?)
    })?;
    let mut want = vec![u32::MAX; labels.len()];
    loss.predict(&mut want, z, classes)?;
    all_equal("predicted", &found, &want)?;

    let losses: Vec<f32> = (0..n).map(|i| (i * 7 % 31) as f32).collect(); // whose sum is exact
    let (on_losses, on_predicted, on_labels) =
        (cuda.upload(&losses)?, cuda.upload(&found)?, cuda.upload(labels)?);
    let scores = twice(|| {
        let mut out = cuda.upload(&[f64::NAN; 2])?;
        on_cuda::loss::score(cuda, out.output(), on_losses.input(), on_predicted.input(), on_labels.input())?;
        Ok(cuda.download(&out)?)
    })?;
    let rows = found.chunks(width).zip(labels.chunks(width));
    let count = rows.filter(|(predicted, labels)| predicted.iter().zip(*labels).all(|(a, b)| a == b)).count();
    all_equal("scores", &scores, &[losses.iter().map(|&l| f64::from(l)).sum(), count as f64])?;
    all_equal("right", &[right(&found, labels, width)], &[count])?;
    let each = (0..labels.len()).filter(|&i| found[i] == labels[i]).count();
    all_equal("labels right", &[labels_right(&found, labels)], &[each])
}

/// A label out of range gives NaN in its row, or for its label, and nothing elsewhere.
fn not_labels(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let on_z = cuda.upload(&values(6, 1))?;
    for (loss, labels) in
        [(Loss::default(), &[1, 3][..]), (Loss::BinaryCrossEntropy, &[1, 0, 1, 0, 2, 0][..])]
    {
        let on_labels = cuda.upload(labels)?;
        let found =
            writes(cuda, 2, |out| on_cuda::loss::values(cuda, out, on_z.input(), on_labels.input(), loss))?;
        let nan: Vec<bool> = found.iter().map(|v| v.is_nan()).collect();
        all_equal("losses that are NaN", &nan, &[false, true])?;
    }
    let on_labels = cuda.upload(&[1u32, 0, 1, 0, 2, 0])?;
    let d = writes(cuda, 6, |d| {
        on_cuda::loss::gradient(cuda, d, on_z.input(), on_labels.input(), 2, Loss::BinaryCrossEntropy)
    })?;
    let nan: Vec<bool> = d.iter().map(|v| v.is_nan()).collect();
    all_equal("slopes that are NaN", &nan, &[false, false, false, false, true, false])
}

fn refuses(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (six, two) = (cuda.upload(&[0.0f32; 6])?, cuda.upload(&[0.0f32; 2])?);
    let (wide, narrow) = (cuda.upload(&[0u32; 6])?, cuda.upload(&[0u32; 2])?);
    let (mut d, mut l) = (cuda.alloc(6)?, cuda.alloc(2)?);
    let (mut p, mut s) = (cuda.alloc::<u32>(2)?, cuda.alloc::<f64>(2)?);
    let (z, y, binary, plain) = (six.input(), wide.input(), Loss::BinaryCrossEntropy, Loss::default());
    let fisher = LogitProduct::Fisher;
    let taken = [
        on_cuda::loss::values(cuda, l.output(), z, narrow.input(), binary).is_ok(),
        on_cuda::loss::values(cuda, l.output(), z, y, plain).is_ok(),
        on_cuda::loss::gradient(cuda, d.output(), z, narrow.input(), 2, binary).is_ok(),
        on_cuda::loss::gradient(cuda, d.output(), two.input(), y, 2, binary).is_ok(),
        on_cuda::loss::gradient(cuda, d.output(), z, y, 4, binary).is_ok(),
        on_cuda::loss::product(cuda, d.output(), two.input(), z, y, 2, fisher, binary).is_ok(),
        on_cuda::loss::product(cuda, d.output(), z, z, narrow.input(), 2, fisher, binary).is_ok(),
        on_cuda::loss::draw(cuda, d.output(), two.input(), 2, 1, 0, binary).is_ok(),
        on_cuda::loss::predict(cuda, p.output(), z, binary).is_ok(),
        on_cuda::loss::score(cuda, s.output(), two.input(), y, narrow.input()).is_ok(),
        on_cuda::loss::score(cuda, s.output(), z, narrow.input(), narrow.input()).is_ok(),
    ];
    match taken.iter().position(|&taken| taken) {
        Some(at) => Err(format!("case {at} was taken").into()),
        None => Ok(()),
    }
}

/// Ids of which some are ordinary and some are not, attended but for the last quarter and a gap.
fn sequence(t: usize) -> (Vec<u32>, Vec<u32>) {
    let ids = (0..t as u32).map(|at| if at % 5 == 3 { 900 + at } else { 20 + at * 7 % 50 }).collect();
    let mask = (0..t).map(|at| u32::from((at < t - t / 4) && at % 11 != 6)).collect();
    (ids, mask)
}

fn replaces(device: &Device, copies: usize, t: usize, count: u32) -> Result<(), Failed> {
    let (ids, mask) = sequence(t);
    let (seed, index, first) = (0x1234_5678_9abc_def0, 77, 5);
    for ordinary in [20..70, 69..71, 0..u32::MAX] {
        let replacement = Replacement { count, ordinary: ordinary.clone(), seed };
        let run = |device: &Device| {
            let mut out = vec![u32::MAX; copies * 2 * t];
            replace_tokens(device, &mut out, Tokens { ids: &ids, mask: &mask }, &replacement, index, first)?;
            Ok::<_, Failed>(out)
        };
        let found = twice(|| run(device))?;
        all_equal("the CPU's ids", &found, &run(&Device::cpu()?)?)?;
        if ordinary.len() > 100 {
            continue; // a list of all is too long for the oracle
        }
        for (j, copy) in found.chunks_exact(2 * t).enumerate() {
            let copy_number = first + j as u32;
            let want =
                tokens::replaced(&ids, &mask, count as usize, ordinary.clone(), seed, index, copy_number);
            all_equal("ids", &copy[..t], &want)?;
            all_equal("mask", &copy[t..], &mask)?;
        }
    }
    Ok(())
}

fn refuses_tokens(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (row, slots) = (cuda.upload(&[1u32; 8])?, cuda.upload(&[1u32, 2])?);
    let mut out = cuda.alloc::<u32>(16)?;
    let replacement = |ordinary| Replacement { count: 1, ordinary, seed: 1 };
    let mut go = |len: usize, row_len: usize, ordinary, first| {
        let (row, out) = (row.input().part(0..row_len), out.output().split_at(len).0);
        replace_tokens_on(cuda, out, row, slots.input(), &replacement(ordinary), 0, first).is_ok()
    };
    all_equal("taken", &[go(16, 8, 3..9, 0)], &[true])?;
    let taken = [
        go(15, 8, 3..9, 0),
        go(16, 0, 3..9, 0),
        go(16, 2, 3..9, 0),
        go(16, 8, 3..4, 0),
        go(16, 8, 3..9, u32::MAX),
    ];
    all_equal("taken", &taken, &[false; 5])?;
    // A slot beyond the row writes nothing: the copy stays as it is, and the guard words after it too.
    let beyond = cuda.upload(&[8u32, 9])?;
    let found = writes(cuda, 16, |out| {
        replace_tokens_on(cuda, out.bits(), row.input(), beyond.input(), &replacement(3..9), 0, 0)
    })?;
    same_bits("copies", &found, &[f32::from_bits(1); 16])
}
