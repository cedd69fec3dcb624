//! Every kernel against plain loops: through the emulated driver under four orders of threads, and, as `cuda/..`, on a
//! GPU where there is one (`SCRUBJAY_GPU=required`: no GPU is a failure). One self-contained binary; see `scripts/gpu`.
//!
//! Whole numbers and bits are exact. Every case runs twice and must give the same bits; outputs begin as NaN, and the
//! emulated driver checks guard words around every buffer.
//!
//! `SCRUBJAY_TESTS` is `full` (every case under every order, twice each), `quick` (the small cases under one order) or
//! not set: every case under one random order, twice, and under the order of the index; where copies are asynchronous,
//! under all four. Cases of seconds each run under the random one alone.

#[path = "reference/attention.rs"]
mod attention;
#[path = "cases/attention_tiles.rs"]
mod attention_tiles;
#[path = "reference/batch_norm.rs"]
mod batch_norm;
#[path = "cases/checks.rs"]
mod checks;
#[path = "cases/columns.rs"]
mod columns;
#[path = "reference/conv.rs"]
mod conv;
#[path = "cases/convs.rs"]
mod convs;
#[path = "reference/dual.rs"]
mod dual;
#[path = "cases/elements.rs"]
mod elements;
#[path = "reference/embedding.rs"]
mod embedding;
#[path = "reference/gate.rs"]
mod gate;
#[path = "cases/golden.rs"]
mod golden;
#[path = "reference/group_norm.rs"]
mod group_norm;
#[path = "cases/layers.rs"]
mod layer_cases;
#[path = "reference/layers.rs"]
mod layers;
#[path = "reference/loss.rs"]
mod loss;
#[path = "cases/losses.rs"]
mod losses;
#[path = "reference/nearest.rs"]
mod nearest;
#[path = "cases/nets.rs"]
mod nets;
#[path = "cases/network_ops.rs"]
mod network_ops;
#[path = "cases/networks.rs"]
mod networks;
#[path = "reference/optimizer.rs"]
mod optimizer;
#[path = "reference/net.rs"]
mod oracle;
#[path = "reference/perturb.rs"]
mod perturb;
#[path = "reference/ptx.rs"]
mod ptx;
#[path = "reference/rank.rs"]
mod rank;
#[path = "cases/sequences.rs"]
mod sequences;
#[path = "cases/sm90.rs"]
mod sm90;
#[path = "reference/statistic.rs"]
mod statistic;
#[path = "reference/tokens.rs"]
mod tokens;
#[path = "cases/trace.rs"]
mod trace;
#[path = "cases/training.rs"]
mod training;
#[path = "cases/vectors.rs"]
mod vectors;
#[path = "reference/xi.rs"]
mod xi;

use columns::Kind;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use scrubjay::codec::{Columns, FociOptions, Ties, foci, graph, interval, p_value, statistic};
use scrubjay::device::{Choice, Cuda, Device};
use scrubjay::ops;
use scrubjay::ops::cuda::nearest::Tied;
use scrubjay::ops::philox::{Stream, Use};

type Case = Box<dyn Fn(&Device) -> Result<(), Failed> + Send + Sync>;

/// How much of the tables runs through the emulator.
#[derive(Clone, Copy, PartialEq)]
enum Extent {
    Quick,
    Short,
    Full,
}

static EXTENT: LazyLock<Extent> = LazyLock::new(|| match std::env::var("SCRUBJAY_TESTS").as_deref() {
    Ok("full") => Extent::Full,
    Ok("quick") => Extent::Quick,
    Err(_) => Extent::Short,
    Ok(other) => panic!("SCRUBJAY_TESTS={other}: expected full or quick"),
});

/// Small cases alone, of one kind of columns: the thread sanitizer is a hundred times slower.
fn few() -> bool {
    cfg!(scrubjay_sanitize = "thread") || *EXTENT == Extent::Quick
}

/// Large cases as well: under a sanitizer one would take minutes and shows nothing more.
fn large() -> bool {
    !few() && !cfg!(scrubjay_sanitize = "address")
}

/// The order of threads under which every case runs, twice: at random.
const MAIN_SEED: u64 = 2;
/// Kernels with asynchronous copies: a seed also decides when these are done.
const PIPELINES: [&str; 5] = ["copy_async", "conv", "moments", "sm90", "attention_tiles"];
/// Cases of seconds each, made of kernels that smaller ones try under more orders.
const LONG: [&str; 8] =
    ["resnet20", "cnn:8-16", "select/", "scrub/", "foci/n=", "n=5000", "n=4700", "n=1700"];

/// The orders of threads under which a case runs.
fn seeds(name: &str) -> &'static [u64] {
    let pipeline = PIPELINES.iter().any(|kernel| name.starts_with(kernel));
    let long = LONG.iter().any(|part| name.contains(part));
    match *EXTENT {
        Extent::Quick => &[MAIN_SEED],
        _ if cfg!(scrubjay_sanitize = "thread") => &[0, MAIN_SEED],
        Extent::Short if long || cfg!(scrubjay_sanitize = "address") => &[MAIN_SEED],
        Extent::Short if !pipeline => &[0, MAIN_SEED],
        Extent::Short | Extent::Full => &[0, 1, 2, 3],
    }
}

thread_local!(static RUNS_TWICE: Cell<bool> = const { Cell::new(true) });

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = golden::recorded(seeds("golden"));
    for seed in 0..4 {
        let cases = cases().into_iter().filter(|(name, _)| seeds(name).contains(&seed));
        trials.extend(cases.map(|(name, case)| {
            Trial::test(format!("{name}/seed={seed}"), move || {
                RUNS_TWICE.set(*EXTENT == Extent::Full || seed == MAIN_SEED);
                case(&Device::emulated(seed)?)
            })
        }));
    }
    let required = std::env::var("SCRUBJAY_GPU").is_ok_and(|value| value == "required");
    let missing = Device::open(Choice::Cuda, 0).err().map(|error| error.to_string());
    trials.extend(cases().into_iter().map(|(name, case)| {
        let trial = Trial::test(format!("cuda/{name}"), move || on_gpu(&case));
        match &missing {
            Some(reason) if !required => trial.with_ignored_flag(true).with_kind(reason.as_str()),
            _ => trial,
        }
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

/// Runs a case on a GPU that was opened for another one, if that went well: opening loads every kernel.
fn on_gpu(case: &Case) -> Result<(), Failed> {
    static IDLE: Mutex<Vec<Device>> = Mutex::new(vec![]);
    let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = idle().pop();
    let device = opened.map_or_else(|| Device::open(Choice::Cuda, 0), Ok)?;
    RUNS_TWICE.set(true);
    case(&device)?;
    idle().push(device);
    Ok(())
}

fn cases() -> Vec<(String, Case)> {
    let mut cases: Vec<(String, Case)> = Vec::new();
    let mut add = |name: String, case: Case| cases.push((name, case));
    for rows in [1, 2, 3, 4, 31] {
        add(format!("copy_async/rows={rows}"), Box::new(move |d| copies(d, rows)));
    }
    add("ldmatrix".into(), Box::new(loads));
    add("mma_tf32".into(), Box::new(multiplies_tf32));
    add("mma_bf16".into(), Box::new(multiplies_bf16));
    add("mma_f16".into(), Box::new(multiplies_f16));
    add("halves".into(), Box::new(rounds));
    for bf16 in [false, true] {
        let name = format!("peak/{}", if bf16 { "bf16" } else { "tf32" });
        add(name, Box::new(move |d| multiplies_ones(d, bf16)));
    }
    for name in golden::FORMS {
        add(format!("forms/{name}"), Box::new(move |d| golden::compares(d, name)));
    }
    for (copies, len) in [(1, 1), (3, 31), (2, 32), (5, 33), (4, 3 * 32 * 32)] {
        add(format!("perturb/copies={copies},len={len}"), Box::new(move |d| perturbs(d, copies, len)));
    }
    for kind in Kind::ALL.into_iter().filter(|&kind| !few() || kind == Kind::Ties) {
        for n in [1, 31, 32, 33, 257, 1000] {
            if n < 1000 || large() && kind == Kind::Ties {
                add(format!("rank/n={n},{}", kind.name()), Box::new(move |d| ranks(d, kind, n)));
            }
        }
        for n in [1, 2, 31, 33, 257] {
            add(format!("xi/n={n},{}", kind.name()), Box::new(move |d| apart(d, kind, n)));
        }
        for (n, p) in [(2, 1), (31, 3), (32, 1), (33, 7), (127, 8), (128, 1), (129, 9), (700, 3)] {
            if few() && p > 7 {
                continue; // minutes each
            }
            if n < 700 || large() && matches!(kind, Kind::Normal | Kind::Ties) {
                let (name, kind_) = (kind.name(), kind);
                add(format!("nearest_sorted/n={n},p={p},{name}"), Box::new(move |d| sorted(d, kind_, p, n)));
                add(format!("nearest/n={n},p={p},{name}"), Box::new(move |d| greedy(d, kind_, p, n)));
            }
        }
    }
    for kind in Kind::ALL.into_iter().filter(|&kind| !few() || kind == Kind::Ties) {
        for (n, p) in [(2, 1), (32, 3), (33, 33), (34, 40), (67, 3)] {
            if few() && n > 33 {
                continue;
            }
            let name = kind.name();
            add(format!("pruned/n={n},p={p},{name}"), Box::new(move |d| prunes(d, kind, p, n, 0..n)));
        }
    }
    if large() {
        add("pruned/n=1700,p=3,normal".into(), Box::new(|d| prunes(d, Kind::Normal, 3, 1700, 1690..1700)));
        add("pruned/n=700,p=34,ties".into(), Box::new(|d| prunes(d, Kind::Ties, 65, 700, 0..10)));
        add("list/n=4700".into(), Box::new(|d| lists(d, 4700)));
        add("foci/n=150,p=40".into(), Box::new(|d| selects_pruned(d, 40, 150)));
        add("nearest_sorted/n=5000,p=2,normal".into(), Box::new(|d| sorted(d, Kind::Normal, 2, 5000)));
        add("foci/n=300,p=12".into(), Box::new(|d| selects(d, 12, 300)));
        add("xi/n=9000,normal".into(), Box::new(|d| apart(d, Kind::Normal, 9000)));
        add("xi/wide".into(), Box::new(sums_wide));
    }
    for n in [2, 33, 513] {
        add(format!("list/n={n}"), Box::new(move |d| lists(d, n)));
    }
    for p in [1, 32, 33, 255, 257].into_iter().filter(|&p| !few() || p < 255) {
        add(format!("best/p={p}"), Box::new(move |d| largest(d, p)));
    }
    for n in [1, 31, 32, 33, 1000] {
        add(format!("statistic/n={n}"), Box::new(move |d| sums(d, 3, n)));
    }
    if !few() {
        // the thread sanitizer does not see how Rust's threads wait for each other
        add("foci/n=40,p=6".into(), Box::new(|d| selects(d, 6, 40)));
        add("xi/commands".into(), Box::new(correlates));
    }
    add("record/replay".into(), Box::new(replays));
    add("shapes".into(), Box::new(refuses));
    cases.extend(sm90::cases());
    cases.extend(attention_tiles::cases());
    cases.extend(network_ops::cases());
    cases.extend(layer_cases::cases());
    cases.extend(losses::cases());
    cases.extend(trace::cases());
    cases.extend(training::cases());
    cases.extend(vectors::cases());
    cases
}

fn cuda(device: &Device) -> Result<&Cuda, Failed> {
    device.cuda().ok_or_else(|| "the device is no CUDA device".into())
}

/// What `work` gives, and a second time where this order of threads is to be repeated.
fn twice<T: PartialEq>(work: impl Fn() -> Result<T, Failed>) -> Result<T, Failed> {
    let first = work()?;
    if RUNS_TWICE.get() {
        equal("a second run", &work()?, &first)?;
    }
    Ok(first)
}

fn equal<T: PartialEq>(what: &str, found: &T, expected: &T) -> Result<(), Failed> {
    if found == expected { Ok(()) } else { Err(format!("{what} differs").into()) }
}

fn all_equal<T: PartialEq + std::fmt::Debug>(what: &str, found: &[T], expected: &[T]) -> Result<(), Failed> {
    if found.len() != expected.len() {
        return Err(format!("{what}: {} values, expected {}", found.len(), expected.len()).into());
    }
    match (0..found.len()).find(|&i| found[i] != expected[i]) {
        Some(i) => Err(format!("{what}[{i}]: {:?}, expected {:?}", found[i], expected[i]).into()),
        None => Ok(()),
    }
}

fn copies(device: &Device, rows: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let values: Vec<u32> = (0..16 * rows as u32).map(|i| i.wrapping_mul(0x9e37_79b9) | 1).collect();
    let keep: Vec<u32> = (0..rows as u32).map(|r| u32::from(r % 3 != 1)).collect();
    let found = twice(|| {
        let out = ops::cuda::ptx::copy_async(cuda, &cuda.upload(&values)?, &cuda.upload(&keep)?)?;
        Ok(cuda.download(&out)?)
    })?;
    let expected: Vec<u32> = values.iter().enumerate().map(|(i, v)| v * keep[i / 16]).collect();
    all_equal("copies", &found, &expected)
}

fn loads(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let words: Vec<u32> = (0..128u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
    let found = twice(|| Ok(cuda.download(&ops::cuda::ptx::ldmatrix(cuda, &cuda.upload(&words)?)?)?))?;
    all_equal("words", &found, &ptx::ldmatrix(&words))
}

/// Whole numbers, so that sums are exact in any order.
fn whole(len: usize, factor: usize) -> Vec<f32> {
    (0..len).map(|i| (i * factor % 31) as f32 - 15.0).collect()
}

fn multiplies_tf32(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let multiply = |d: &[f32], a: &[f32], b: &[f32]| {
        let found = twice(|| {
            let mut sum = cuda.upload(d)?;
            ops::cuda::ptx::mma_tf32(cuda, &mut sum, &cuda.upload(a)?, &cuda.upload(b)?)?;
            Ok(cuda.download(&sum)?)
        })?;
        let rounded = |x: &[f32]| x.iter().map(|&x| ptx::tf32(x)).collect::<Vec<f64>>();
        all_equal("d", &found, &ptx::mma(d, &rounded(a), &rounded(b)))
    };
    multiply(&whole(128, 7), &whole(128, 11), &whole(64, 13))?;
    // times the identity: what rounding to tf32 makes of values with all their bits, and of ties
    let identity: Vec<f32> = (0..64).map(|at| f32::from(u8::from(at / 8 == at % 8))).collect();
    let value = |i: usize| 1.0 + (i as f32 * 0.37).sin() + f32::from(u8::from(i.is_multiple_of(2))) / 2048.0;
    let mut values: Vec<f32> = (0..128).map(value).collect();
    values[..4].copy_from_slice(&[
        1.0 + 0.5f32.powi(11),
        -1.0 - 0.5f32.powi(11),
        1.0 + 1.5 * 0.5f32.powi(10),
        0.0,
    ]);
    multiply(&[0.0; 128], &values, &identity)
}

fn multiplies_bf16(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (d, a, b) = (whole(128, 7), whole(256, 11), whole(128, 13));
    let pack = |x: &[f32]| -> Vec<u32> {
        x.chunks(2).map(|pair| pair[0].to_bits() >> 16 | pair[1].to_bits() & 0xffff_0000).collect()
    };
    let found = twice(|| {
        let mut sum = cuda.upload(&d)?;
        ops::cuda::ptx::mma_bf16(cuda, &mut sum, &cuda.upload(&pack(&a))?, &cuda.upload(&pack(&b))?)?;
        Ok(cuda.download(&sum)?)
    })?;
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    all_equal("d", &found, &ptx::mma(&d, &wide(&a), &wide(&b)))
}

fn multiplies_f16(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (mut d, mut a, b) = (whole(128, 7), whole(256, 11), whole(128, 13));
    d[..8].fill(0.0);
    a[..16].fill(0.0);
    a[5] = 0.5f32.powi(24); // a subnormal, alone in its row
    let pack = |x: &[f32]| -> Vec<u32> {
        let bits = |x: f32| ptx::to_f16(f64::from(x));
        x.chunks(2).map(|pair| bits(pair[0]) | bits(pair[1]) << 16).collect()
    };
    let found = twice(|| {
        let mut sum = cuda.upload(&d)?;
        ops::cuda::ptx::mma_f16(cuda, &mut sum, &cuda.upload(&pack(&a))?, &cuda.upload(&pack(&b))?)?;
        Ok(cuda.download(&sum)?)
    })?;
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    all_equal("d", &found, &ptx::mma(&d, &wide(&a), &wide(&b)))
}

/// What the bench times: whole numbers, exact.
fn multiplies_ones(device: &Device, bf16: bool) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (len, steps) = (2 * scrubjay::device::cuda::tiles::PEAK_THREADS as usize, 3);
    let found = twice(|| {
        let mut out = cuda.upload(&vec![f32::NAN; len])?;
        ops::cuda::ptx::peak(cuda, &mut out, steps, bf16)?;
        Ok(cuda.download(&out)?)
    })?;
    // Each term of a sum is a 1, and two operations.
    let ones = ops::cuda::ptx::peak_flops(len, steps, bf16) / 2.0;
    all_equal("sums", &found, &vec![(ones / len as f64) as f32; len])
}

/// Ties, numbers that round up to the next power of two, subnormals, what is too large, zeros of both signs.
fn rounds(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let two = |power: i32| 2f32.powi(power);
    let mut x = vec![
        0.0,
        -0.0,
        1.0 + two(-8),
        1.0 + 3.0 * two(-8),
        -1.0 - two(-11),
        1.0 + 3.0 * two(-11),
        2.0 - two(-12),
        65504.0,
        65519.996,
        -65520.0,
        two(-14) - two(-26),
        two(-24),
        two(-25),
        1.5 * two(-25),
        -3.0 * two(-25),
        two(-130),
        f32::MAX,
        f32::INFINITY,
        1023.5 * two(-24),
        -two(-15) * 1.3,
    ];
    x.extend((x.len()..64).map(|i| (i as f32 * 0.37).sin() * two(i as i32 - 40)));
    let found = twice(|| Ok(cuda.download(&ops::cuda::ptx::halves(cuda, &cuda.upload(&x)?)?)?))?;
    let halves =
        |words: &[u32]| words.iter().flat_map(|word| [word & 0xffff, word >> 16]).collect::<Vec<u32>>();
    let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<u64>>();
    let bf16 = halves(&found[..32]).into_iter().map(|half| f64::from(f32::from_bits(half << 16))).collect();
    let f16 = halves(&found[32..]).into_iter().map(ptx::of_f16).collect();
    all_equal("bf16", &bits(bf16), &bits(x.iter().map(|&x| ptx::bf16(x)).collect()))?;
    all_equal("f16", &bits(f16), &bits(x.iter().map(|&x| ptx::f16(x)).collect()))
}

fn perturbs(device: &Device, copies: usize, len: usize) -> Result<(), Failed> {
    let (seed, index, first, sigma) = (0x1234_5678_9abc_def0, 77, 5, 0.1);
    let image: Vec<f32> = (0..len).map(|i| (i as f32 - 7.0) * 0.37).collect();
    let run = |device: &Device| -> Result<Vec<u32>, Failed> {
        let mut out = vec![f32::NAN; copies * len];
        ops::perturb::perturb(device, &mut out, &image, seed, index, first, sigma)?;
        Ok(out.iter().map(|v| v.to_bits()).collect())
    };
    let found = twice(|| run(device))?;
    all_equal("the CPU's bits", &found, &run(&Device::cpu()?)?)?;
    for (at, &bits) in found.iter().enumerate() {
        let (copy, element) = (first + (at / len) as u32, (at % len) as u32);
        let base = f64::from(image[at % len]);
        let want = base + f64::from(sigma) * perturb::normal(seed, index, copy, element);
        // the normal is good to 2e-6, the sum to half an ulp
        let error = (f64::from(f32::from_bits(bits)) - want).abs();
        if error.is_nan() || error > 2e-7 + f64::from(f32::EPSILON) * want.abs() {
            return Err(format!("copy {copy}, element {element}: {} for {want}", f32::from_bits(bits)).into());
        }
    }
    Ok(())
}

fn ranks(device: &Device, kind: Kind, n: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let values = kind.columns(1, n, 11);
    let (upper, lower, position) = twice(|| {
        let ranks = ops::cuda::rank::rank(cuda, &cuda.upload(&values)?)?;
        Ok((cuda.download(&ranks.upper)?, cuda.download(&ranks.lower)?, cuda.download(&ranks.position)?))
    })?;
    let expected = rank::rank(&values);
    all_equal("upper", &upper, &expected.0)?;
    all_equal("lower", &lower, &expected.1)?;
    all_equal("position", &position, &expected.2)
}

/// Ranks of another column of the same kind, but for the constant one.
fn ranks_of_y(kind: Kind, n: usize) -> Vec<u32> {
    let y = if kind == Kind::Constant { Kind::Ties } else { kind };
    rank::rank(&y.columns(1, n, 23)).0
}

fn sorted(device: &Device, kind: Kind, p: usize, n: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (columns, rank) = (kind.columns(p, n, 5), ranks_of_y(kind, n));
    for tied in [Tied::All, Tied::First] {
        let (sum, count) = twice(|| {
            let (columns, rank) = (cuda.upload(&columns)?, cuda.upload(&rank)?);
            let near = ops::cuda::nearest::nearest_sorted(cuda, &columns, &rank, tied)?;
            Ok((cuda.download(&near.sum)?, cuda.download(&near.count)?))
        })?;
        let expected = nearest::nearest(&columns, &[], &rank, tied);
        all_equal("count", &count, &expected.1)?;
        all_equal("sum", &sum, &expected.0)?;
    }
    Ok(())
}

fn greedy(device: &Device, kind: Kind, p: usize, n: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (columns, rank) = (kind.columns(p, n, 5), ranks_of_y(kind, n));
    let chosen = kind.columns(2, n, 6);
    for tied in [Tied::All, Tied::First, Tied::Random { seed: 3 << 32 | 7, draws: 3 }] {
        // all rows at once, the chosen columns one by one; and the last rows alone, all chosen columns anew
        for range in [0..n, n / 3..n].into_iter().skip(usize::from(few())) {
            let (sum, count) = twice(|| {
                let mut distance = cuda.alloc::<f64>(n * range.len())?;
                let each = if range.start == 0 { n } else { 2 * n };
                for (at, some) in chosen.chunks(each).enumerate() {
                    let some = cuda.upload(some)?;
                    ops::cuda::nearest::distance(
                        cuda,
                        &mut distance,
                        some.input(),
                        n,
                        0..n,
                        range.clone(),
                        at == 0,
                    )?;
                }
                let columns = ops::cuda::nearest::Candidates::new(cuda, cuda.upload(&columns)?, n)?;
                let rank = cuda.upload(&rank)?;
                let near =
                    ops::cuda::nearest::nearest(cuda, &columns, &distance, range.clone(), &rank, tied)?;
                Ok((cuda.download(&near.sum)?, cuda.download(&near.count)?))
            })?;
            let chosen = chosen.chunks(n).collect::<Vec<_>>();
            let expected = nearest::nearest(&columns, &chosen, &rank, tied);
            let rows = |i: &usize| range.contains(&(i % n));
            let some: Vec<usize> = (0..p * n).filter(rows).collect();
            all_equal("count", &count, &some.iter().map(|&i| expected.1[i]).collect::<Vec<_>>())?;
            all_equal("sum", &sum, &some.iter().map(|&i| expected.0[i]).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// Lists that end before the rows do, and lists of all, give what plain loops give.
fn prunes(device: &Device, kind: Kind, p: usize, n: usize, rows: Range<usize>) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (columns, rank) = (kind.columns(p, n, 5), ranks_of_y(kind, n));
    let chosen = kind.columns(2, n, 6);
    for tied in [Tied::All, Tied::First, Tied::Random { seed: 3 << 32 | 7, draws: 3 }] {
        let expected = nearest::nearest(&columns, &chosen.chunks(n).collect::<Vec<_>>(), &rank, tied);
        for (len, range) in [(32, rows.clone()), (128, rows.start + rows.len() / 3..rows.end)] {
            let (sum, count, tallied) = twice(|| {
                let mut distance = cuda.alloc::<f64>(n * range.len())?;
                let some = cuda.upload(&chosen)?;
                ops::cuda::nearest::distance(
                    cuda,
                    &mut distance,
                    some.input(),
                    n,
                    range.clone(),
                    0..n,
                    true,
                )?;
                let columns = ops::cuda::nearest::Candidates::new(cuda, cuda.upload(&columns)?, n)?;
                let (rank, distance) = (cuda.upload(&rank)?, distance.input());
                let lists = ops::cuda::nearest::lists(cuda, distance, n, range.clone(), len)?;
                let mut tally = ops::cuda::nearest::Tally::new(cuda)?;
                let near =
                    ops::cuda::nearest::pruned(cuda, &mut tally, &columns, distance, &lists, &rank, tied)?;
                Ok((cuda.download(&near.sum)?, cuda.download(&near.count)?, tally.read(cuda)?))
            })?;
            let some: Vec<usize> = (0..p * n).filter(|i| range.contains(&(i % n))).collect();
            all_equal("count", &count, &some.iter().map(|&i| expected.1[i]).collect::<Vec<_>>())?;
            all_equal("sum", &sum, &some.iter().map(|&i| expected.0[i]).collect::<Vec<_>>())?;
            let searches = (range.len() * p.div_ceil(32)) as u64;
            equal(
                "searches of whole lists that start again",
                &(n <= len as usize + 1 && tallied.again > 0),
                &false,
            )?;
            equal("more of them than there are", &(tallied.again > searches), &false)?;
        }
    }
    Ok(())
}

/// Lists are the nearest in order: where distances fall along the row and fill the room again and again, and where the
/// last entry of a list is the last that comes.
fn lists(device: &Device, n: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    for len in [32, 512, 2048].into_iter().filter(|&len| !few() || len == 32) {
        let falling: Vec<f64> = (0..n).map(|i| (n - i) as f64).collect();
        let mut rising: Vec<f64> = (0..n).map(|i| i as f64).collect();
        rising[n - 1] = f64::from(len) - 0.5;
        let last = n - n.min(3)..n;
        let (normal, ties) = (Kind::Normal.columns(1, n, 8), Kind::Ties.columns(1, n, 8));
        for (column, rows) in [(falling, last.clone()), (normal, last.clone()), (ties, last), (rising, 0..1)]
        {
            let found = twice(|| {
                let mut distance = cuda.alloc::<f64>(n * rows.len())?;
                let column = cuda.upload(&column)?;
                ops::cuda::nearest::distance(
                    cuda,
                    &mut distance,
                    column.input(),
                    n,
                    rows.clone(),
                    0..n,
                    true,
                )?;
                let lists = ops::cuda::nearest::lists(cuda, distance.input(), n, rows.clone(), len)?;
                Ok(cuda.download(lists.entries())?)
            })?;
            let list = |i: usize| {
                let entry = |j: usize| (column[i] - column[j]).powi(2).to_bits() >> 32 << 32 | j as u64;
                let mut all: Vec<u64> = (0..n).filter(|&j| j != i).map(entry).collect();
                all.sort_unstable();
                all.resize(len.max(n as u32) as usize, u64::MAX - 1);
                all.truncate(len as usize);
                all
            };
            all_equal("entries", &found, &rows.clone().flat_map(list).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// A selection whose steps are pruned by the rule is the CPU's.
fn selects_pruned(device: &Device, p: usize, n: usize) -> Result<(), Failed> {
    let mut columns = Kind::Normal.columns(p, n, 3);
    columns[n..2 * n].copy_from_slice(&Kind::Ties.columns(1, n, 4));
    columns.copy_within(0..n, 5 * n);
    let noise = Kind::Normal.columns(1, n, 9);
    let y: Vec<f64> =
        (0..n).map(|i| columns[i] + 0.5 * columns[2 * n + i] + columns[n + i] + 0.1 * noise[i]).collect();
    let x = Columns::from_columns_f64(&columns, n, p)?;
    let cpu = Device::cpu()?;
    for ties in [Ties::Mean, Ties::First, Ties::Random { seed: 5, draws: 2 }] {
        let initial = &[3, 6, 1];
        let options =
            FociOptions { ties, initial, all: true, max_features: Some(3), ..FociOptions::default() };
        let (found, launched) = cuda(device)?.listen(|| foci(device, &y, &x, &options))?;
        let expected = foci(&cpu, &y, &x, &options)?;
        if found != expected {
            return Err(format!("{found:?}\nexpected {expected:?}").into());
        }
        let pruned = launched.iter().any(|kernel| kernel.symbol == "pruned_f64");
        equal("whether a step was pruned", &pruned, &true)?;
    }
    Ok(())
}

fn sums(device: &Device, p: usize, n: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let count: Vec<u32> = (0..p * n).map(|i| [1, 3, 7, u32::MAX, 1 << 30][i % 5]).collect();
    let sum: Vec<u64> =
        (0..p * n).map(|i| u64::from(count[i]) * ((i % 97) as u64) + (i % 3) as u64).collect();
    // in two parts of rows, and all columns but the last, then it
    let part = |rows: Range<usize>, columns: Range<usize>| {
        let at: Vec<usize> = columns.flat_map(|j| rows.clone().map(move |i| j * n + i)).collect();
        let sum = at.iter().map(|&at| sum[at]).collect::<Vec<_>>();
        let count = at.iter().map(|&at| count[at]).collect::<Vec<_>>();
        scrubjay::Result::Ok(ops::cuda::nearest::Nearest {
            sum: cuda.upload(&sum)?,
            count: cuda.upload(&count)?,
        })
    };
    let found = twice(|| {
        let mut sums = ops::cuda::statistic::Sums::new(cuda, p)?;
        for rows in [0..n.div_ceil(3), n.div_ceil(3)..n].into_iter().filter(|rows| !rows.is_empty()) {
            for columns in [0..p - 1, p - 1..p] {
                sums.add(cuda, columns.start, &part(rows.clone(), columns)?, rows.len())?;
            }
        }
        Ok(sums.all(cuda)?)
    })?;
    let found: Vec<(u64, u128)> = found.iter().map(|sum| (sum.whole, sum.fraction)).collect();
    let expected: Vec<_> =
        sum.chunks(n).zip(count.chunks(n)).map(|(s, c)| statistic::statistic(s, c)).collect();
    all_equal("A", &found, &expected)
}

/// The best of sums that differ in their whole part, in 2⁻³², or in less, which does not count.
fn largest(device: &Device, p: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    for seed in if few() { vec![0] } else { vec![0, 1, 3] } {
        let mut stream = Stream::new(seed, Use::Choice, p as u32);
        // s/c with c = 2³² - 1 is s·(2⁻³² + 2⁻⁶⁴): many fall on the same 2⁻³² or round up to the next whole number
        let count = vec![u32::MAX; 2 * p];
        let whole = [0, 5, 6][stream.below(3)] * u64::from(u32::MAX);
        let sum: Vec<u64> =
            (0..p).map(|_| whole + [0, 1, 2, u64::from(u32::MAX) - 1][stream.below(4)] + 1).collect();
        let left: Vec<u32> =
            (0..p).map(|at| u32::from(seed != 3 && (at == 0 || stream.below(3) > 0))).collect();
        let found = twice(|| {
            let twice: Vec<u64> = sum.iter().flat_map(|&sum| [sum, sum]).collect();
            let near = ops::cuda::nearest::Nearest { sum: cuda.upload(&twice)?, count: cuda.upload(&count)? };
            let mut sums = ops::cuda::statistic::Sums::new(cuda, p)?;
            sums.add(cuda, 0, &near, 2)?;
            Ok(sums.best(cuda, &cuda.upload(&left)?)?)
        })?;
        let key = |&at: &usize| {
            let (whole, fraction) = statistic::statistic(&[sum[at]; 2], &[count[at]; 2]);
            let fixed = (u128::from(whole) << 64) + fraction;
            (std::cmp::Reverse((fixed + (1 << 31)) >> 32), at)
        };
        let expected = (0..p).filter(|&at| left[at] > 0).min_by_key(key);
        equal("the column", &found.map(|(at, _)| at), &expected)?;
        if let Some((at, a)) = found {
            let expected = statistic::statistic(&[sum[at]; 2], &[count[at]; 2]);
            equal("its A", &(a.whole, a.fraction), &expected)?;
        }
    }
    // Three thirds are 2⁻⁶⁴ short of 1, and rounded the same: the first of equal sums.
    let found = twice(|| {
        let (sum, count) = (cuda.upload(&[1, 1, 1, 1, 0, 0])?, cuda.upload(&[3, 3, 3, 1, 1, 1])?);
        let mut sums = ops::cuda::statistic::Sums::new(cuda, 2)?;
        sums.add(cuda, 0, &ops::cuda::nearest::Nearest { sum, count }, 3)?;
        Ok(sums.best(cuda, &cuda.upload(&[1, 1])?)?)
    })?;
    equal("the column of three thirds", &found.map(|(at, _)| at), &Some(0))
}

fn selects(device: &Device, p: usize, n: usize) -> Result<(), Failed> {
    let normal = Kind::Normal.columns(p, n, 3);
    let mut columns = normal.clone();
    columns[n..2 * n].copy_from_slice(&Kind::Ties.columns(1, n, 4));
    columns[2 * n..3 * n].fill(0.5); // a unit that never fires
    let noise = Kind::Normal.columns(1, n, 9);
    let y: Vec<f64> = (0..n).map(|i| (normal[i] + columns[n + i] * 0.5).sin() + 0.1 * noise[i]).collect();
    let x = Columns::from_columns_f64(&columns, n, p)?;
    let (data, random) = (&x, Ties::Random { seed: 5, draws: 2 });
    let cpu = Device::cpu()?;
    for (ties, all, initial) in [
        (Ties::Mean, false, &[][..]),
        (Ties::Mean, true, &[]),
        (Ties::First, false, &[]),
        (random, true, &[]),
        (Ties::Mean, true, &[4, 1]),
        (random, false, &[2]),
    ] {
        let options = FociOptions { ties, all, initial, max_features: Some(5), ..FociOptions::default() };
        let found = twice(|| Ok(foci(device, &y, &x, &options)?))?;
        let expected = foci(&cpu, &y, &x, &options)?;
        if found != expected || found.order.is_empty() {
            return Err(format!("{found:?}\nexpected {expected:?}").into());
        }
        // T of columns that are given, which are near in several columns or sorted in one
        let measure = scrubjay::codec::StatisticOptions { ties, ..Default::default() };
        for (z, x) in [(&[0][..], &[][..]), (&[1], &[]), (&[1, 0], &[]), (&[1], &[0]), (&[5], &[2, 1])] {
            let found = statistic(device, &y, data, z, x, &measure)?;
            equal("T", &found, &statistic(&cpu, &y, data, z, x, &measure)?)?;
        }
    }
    let groups = [vec![0, 3], vec![1], vec![5, 4, 2]];
    for (ties, groups, initial) in [(Ties::Mean, &groups[..], &[][..]), (random, &groups[..2], &[2])] {
        let options = FociOptions { ties, groups, initial, all: true, ..FociOptions::default() };
        let found = twice(|| Ok(foci(device, &y, &x, &options)?))?;
        equal("groups", &found, &foci(&cpu, &y, &x, &options)?)?;
    }
    let measure = scrubjay::codec::StatisticOptions::default();
    for (z, x) in [(&[1][..], &[][..]), (&[1, 0], &[]), (&[1], &[0, 3])] {
        let found = p_value(device, &y, data, z, x, &measure, 5)?;
        equal("a p-value", &found, &p_value(&cpu, &y, data, z, x, &measure, 5)?)?;
        let found = interval(device, &y, data, z, x, &measure, 0.9, 4)?;
        equal("an interval", &found, &interval(&cpu, &y, data, z, x, &measure, 0.9, 4)?)?;
    }
    let few = Columns::from_columns_f64(&columns[..4 * n], n, 4)?;
    let (options, known) = (FociOptions { max_features: Some(2), ..Default::default() }, BTreeMap::new());
    let found = graph(device, &few, &options, &known, &|_, _| Ok(()))?;
    equal("a graph", &found, &graph(&cpu, &few, &options, &known, &|_, _| Ok(()))?)?;
    Ok(())
}

/// The order of a column, and the sums of ξ along it and over its runs of equal values.
fn apart(device: &Device, kind: Kind, n: usize) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (x, rank) = (kind.columns(1, n, 5), ranks_of_y(kind, n));
    let (on_x, on_rank) = (cuda.upload(&x)?, cuda.upload(&rank)?);
    let order = twice(|| Ok(ops::cuda::xi::order(cuda, &on_x)?))?;
    let mut expected: Vec<u32> = (0..n as u32).collect();
    let value = |i: u32| x[i as usize] + 0.0; // of one zero
    expected.sort_by(|&a, &b| value(a).total_cmp(&value(b)));
    all_equal("the order", &order, &expected)?;
    let orders: Vec<u32> = [&order[..], &(0..n as u32).rev().collect::<Vec<_>>(), &order].concat();
    let on_orders = cuda.upload(&orders)?;
    let found = twice(|| Ok(ops::cuda::xi::along(cuda, &on_rank, &on_orders)?))?;
    let expected: Vec<u64> = orders.chunks_exact(n).map(|order| xi::along(&rank, order)).collect();
    all_equal("along orders", &found, &expected)?;

    let mut runs: Vec<u32> = (0..n)
        .filter(|&at| at == 0 || x[order[at] as usize] != x[order[at - 1] as usize])
        .map(|at| at as u32)
        .collect();
    runs.push(n as u32);
    let run = |two: &[u32]| {
        let rows = &order[two[0] as usize..two[1] as usize];
        let mut ranks: Vec<u32> = rows.iter().map(|&i| rank[i as usize]).collect();
        ranks.sort_unstable();
        ranks
    };
    let sorted: Vec<u32> = runs.windows(2).flat_map(run).collect();
    all_equal("runs", &sums_of_runs(device, &sorted, &runs)?, &xi::runs(&sorted, &runs))
}

fn sums_of_runs(device: &Device, ranks: &[u32], runs: &[u32]) -> Result<Vec<(u128, u128)>, Failed> {
    let cuda = cuda(device)?;
    let (ranks, runs) = (cuda.upload(ranks)?, cuda.upload(runs)?);
    let found = twice(|| Ok(ops::cuda::xi::runs(cuda, &ranks, &runs)?))?;
    Ok(found.iter().map(|run| (run.within, run.between)).collect())
}

/// Sums beyond 64 bits: 2¹⁸ ranks of 0, then as many of 2³⁰, and once more in a run of their own.
fn sums_wide(device: &Device) -> Result<(), Failed> {
    let (half, top) = (1 << 18, 1 << 30);
    let ranks: Vec<u32> = (0..3 * half).map(|at| if at < half { 0 } else { top }).collect();
    let pairs = 1 << (2 * 18 + 30);
    let found = sums_of_runs(device, &ranks, &[0, 2 * half, 3 * half])?;
    all_equal("wide runs", &found, &[(pairs, 0), (0, pairs)])
}

/// ξ, its p-value and its interval are the CPU's to the last bit.
fn correlates(device: &Device) -> Result<(), Failed> {
    let (n, measure) = (60, scrubjay::codec::Measure::Xi);
    let kinds = [Kind::Normal, Kind::Ties, Kind::Constant, Kind::Zeros, Kind::Huge];
    let columns: Vec<f64> = kinds.iter().flat_map(|kind| kind.columns(1, n, 8)).collect();
    let data = Columns::from_columns_f64(&columns, n, kinds.len())?;
    let cpu = Device::cpu()?;
    for y in [Kind::Normal.columns(1, n, 2), Kind::Ties.columns(1, n, 3), vec![1.0; n]] {
        for ties in [Ties::Mean, Ties::First, Ties::Random { seed: 1 << 35 | 5, draws: 3 }] {
            let options = scrubjay::codec::StatisticOptions {
                measure,
                ties,
                noise: 0.0,
                seed: 4,
                ..Default::default()
            };
            for z in 0..kinds.len() {
                let found = twice(|| Ok(statistic(device, &y, &data, &[z], &[], &options)?))?;
                equal("ξ", &found, &statistic(&cpu, &y, &data, &[z], &[], &options)?)?;
            }
            let z = if ties == Ties::Mean { 0 } else { 1 };
            let found = p_value(device, &y, &data, &[z], &[], &options, 9)?;
            equal("a p-value", &found, &p_value(&cpu, &y, &data, &[z], &[], &options, 9)?)?;
            let found = interval(device, &y, &data, &[1], &[], &options, 0.9, 4)?;
            equal("an interval", &found, &interval(&cpu, &y, &data, &[1], &[], &options, 0.9, 4)?)?;
        }
    }
    Ok(())
}

fn replays(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let x = [1.0f64, 4.0, 6.0];
    let (mut distance, column) = (cuda.upload(&[0.0; 9])?, cuda.upload(&x)?);
    let before = cuda.event()?;
    let recording = cuda
        .record(|| ops::cuda::nearest::distance(cuda, &mut distance, column.input(), 3, 0..3, 0..3, false))?;
    all_equal("before", &cuda.download(&distance)?, &[0.0; 9])?;
    for times in 1..3 {
        cuda.replay(&recording)?;
        let expected: Vec<f64> =
            (0..9).map(|at| f64::from(times) * (x[at / 3] - x[at % 3]).powi(2)).collect();
        all_equal("after", &cuda.download(&distance)?, &expected)?;
    }
    let elapsed = cuda.event()?.since(&before)?;
    drop(column);
    let other = cuda.upload(&x)?; // in the same place
    if cuda.replay(&recording).is_ok() {
        return Err("a recording ran without its buffers".into());
    }
    cuda.replay(&cuda.record(|| {
        ops::cuda::nearest::distance(cuda, &mut distance, other.input(), 3, 0..3, 0..3, false)
    })?)?;
    if elapsed.is_zero() { Err("no time passed".into()) } else { Ok(()) }
}

fn refuses(device: &Device) -> Result<(), Failed> {
    let cuda = cuda(device)?;
    let (six, four, rank) = (cuda.upload(&[0.0; 6])?, cuda.upload(&[0.0; 4])?, cuda.upload(&[1u32, 2, 3])?);
    let refused =
        |what: &str, ok: bool| if ok { Ok(()) } else { Err(Failed::from(format!("{what} was taken"))) };
    refused("a ragged matrix", ops::cuda::nearest::nearest_sorted(cuda, &four, &rank, Tied::All).is_err())?;
    let random = Tied::Random { seed: 0, draws: 1 };
    refused(
        "random ties when sorted",
        ops::cuda::nearest::nearest_sorted(cuda, &six, &rank, random).is_err(),
    )?;
    let columns = || ops::cuda::nearest::Candidates::new(cuda, cuda.upload(&[0.0; 6])?, 3);
    let near = |rows| ops::cuda::nearest::nearest(cuda, &columns()?, &four, rows, &rank, Tied::All);
    refused("too few distances", near(0..2).is_err())?;
    refused("no rows", near(1..1).is_err())?;
    refused("rows that are not there", near(3..4).is_err())?;
    let listed = |rows: Range<usize>, len| ops::cuda::nearest::lists(cuda, six.input(), 3, rows, len);
    refused("a list of 33", listed(0..1, 33).is_err())?;
    refused("a list of 16", listed(0..1, 16).is_err())?;
    refused("a list too long", listed(0..1, 4096).is_err())?;
    refused("lists of rows that are not there", listed(2..4, 32).is_err())?;
    let lists = listed(0..1, 32)?;
    let mut tally = ops::cuda::nearest::Tally::new(cuda)?;
    let mut pruned = |columns: &ops::cuda::nearest::Candidates, distance, rank| {
        ops::cuda::nearest::pruned(cuda, &mut tally, columns, distance, &lists, rank, Tied::All).is_err()
    };
    refused("lists without distances", pruned(&columns()?, six.input().part(0..2), &rank))?;
    refused(
        "lists of other rows",
        pruned(
            &ops::cuda::nearest::Candidates::new(cuda, cuda.upload(&[0.0; 6])?, 2)?,
            six.input(),
            &cuda.upload(&[1u32, 2])?,
        ),
    )?;
    refused("half a column", ops::cuda::nearest::Candidates::new(cuda, cuda.upload(&[0.0; 6])?, 4).is_err())?;
    let sums = ops::cuda::statistic::Sums::new(cuda, 2)?;
    refused("a mask too short", sums.best(cuda, &cuda.upload(&[1u32])?).is_err())?;
    refused("no values", ops::cuda::rank::rank(cuda, &cuda.upload(&[])?).is_err())?;
    let mut distance = cuda.upload(&[0.0; 6])?;
    let mut distance =
        |n, rows| ops::cuda::nearest::distance(cuda, &mut distance, six.input(), n, 0..n, rows, true);
    refused("too many rows", distance(3, 0..3).is_err())?;
    refused("half a chosen column", distance(4, 0..1).is_err())?;
    let perturb = |out: usize, image: usize| {
        ops::perturb::perturb(device, &mut vec![0.0; out], &vec![0.0; image], 0, 0, 0, 1.0).is_err()
    };
    refused("half a copy", perturb(5, 2))?;
    refused("an empty image", perturb(0, 0))?;
    refused("half an order", ops::cuda::xi::along(cuda, &rank, &cuda.upload(&[0u32; 4])?).is_err())?;
    refused("runs without an end", ops::cuda::xi::runs(cuda, &rank, &cuda.upload(&[0u32])?).is_err())?;
    refused("no column", ops::cuda::xi::order(cuda, &cuda.upload(&[])?).is_err())?;
    // Runs that end before they begin are empty.
    all_equal("runs", &sums_of_runs(device, &[1, 2, 3], &[2, 0, 3, 1])?, &[(0, 0), (4, 0), (0, 0)])
}
