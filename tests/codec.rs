//! The dependence measure against its definition and against recorded values: every case of `tests/data/codec.json`
//! (a part of the recorded set, with its data), and the whole set where SCRUBJAY_GOLDEN points at it.

#[path = "cases/codec.rs"]
mod cases;
#[path = "cases/codec_commands.rs"]
mod commands;
#[path = "cases/known.rs"]
mod known;
#[path = "reference/codec.rs"]
mod reference;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use cases::Kind;
use libtest_mimic::{Failed, Trial};
use scrubjay::codec::{self, Columns, FociOptions, Measure, Standardize, StatisticOptions, Stopped, Ties};
use scrubjay::data::tensors::TensorFile;
use scrubjay::device::{Choice, Device};
use scrubjay::ops::philox::{Stream, Use};
use serde_json::Value;

/// Every case.
pub fn trials() -> Vec<Trial> {
    let mut trials = oracle();
    trials.extend(properties());
    trials.extend(commands::trials());
    trials.extend(known::trials());
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/codec.json");
    trials.extend(recorded("codec/recorded", &stored));
    match std::env::var_os("SCRUBJAY_GOLDEN").map(|at| PathBuf::from(at).join("codec.json")) {
        Some(path) => trials.extend(recorded("codec/golden", &path)),
        None => trials.push(
            Trial::test("codec/golden (SCRUBJAY_GOLDEN is not set)", || Ok(())).with_ignored_flag(true),
        ),
    }
    trials
}

/// The CPU, opened once.
#[allow(clippy::unwrap_used)] // a CPU that cannot be opened fails every test
fn cpu() -> &'static Device {
    static CPU: LazyLock<Device> = LazyLock::new(|| Device::cpu().unwrap());
    &CPU
}

fn check(holds: bool, message: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(message().into()) }
}

/// Equal to 1e-12, or both undefined.
fn same(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * b.abs().max(1.0),
        (a, b) => a.is_none() && b.is_none(),
    }
}

// --- against the definition

fn oracle() -> Vec<Trial> {
    let mut trials = Vec::new();
    for case in cases::CASES {
        for seed in 0..2 {
            let name = |what: &str| format!("codec/{what}/{},seed={seed}", case.name);
            trials.push(Trial::test(name("statistic"), move || statistic_is_its_definition(case, seed)));
            trials.push(Trial::test(name("foci"), move || every_step_is_its_definition(case, seed)));
            trials.push(Trial::test(name("foci_first"), move || {
                every_first_step_is_its_definition(case, seed)
            }));
        }
    }
    trials
}

fn statistic_is_its_definition(case: &cases::Case, seed: u64) -> Result<(), Failed> {
    let (y, columns) = cases::data(case, seed);
    let (n, p) = (y.len(), columns.len());
    let flat = columns.concat();
    let data = Columns::from_columns_f64(&flat, n, p)?;
    let take = |at: &[usize]| -> Vec<Vec<f64>> { at.iter().map(|&j| columns[j].clone()).collect() };
    let all: Vec<usize> = (0..p).collect();
    for (z, x) in [
        (vec![0], vec![]),
        (vec![p - 1], vec![]),
        (vec![1], vec![0]),
        (vec![0], vec![p - 1]),
        (all.clone(), vec![]),
        (vec![0], all[1..].to_vec()),
    ] {
        let options = StatisticOptions::default();
        let got = codec::statistic(cpu(), &y, &data, &z, &x, &options)?.value;
        let expected = reference::mean(&y, &take(&z), &take(&x));
        check(same(got, expected), || format!("z={z:?} x={x:?}: {got:?}, expected {expected:?}"))?;
        let got =
            codec::statistic(cpu(), &y, &data, &z, &x, &StatisticOptions { ties: Ties::First, ..options })?;
        let exact = reference::first(&y, &take(&z), &take(&x));
        let found = (got.numerator, got.denominator);
        check(found == (Some(exact.0), Some(exact.1)), || {
            format!("z={z:?} x={x:?} first: {found:?}, expected {exact:?}")
        })?;
    }
    let nearest = codec::nearest(&data)?;
    check(nearest == reference::nearest(&columns), || "neighbours differ".into())
}

fn every_step_is_its_definition(case: &cases::Case, seed: u64) -> Result<(), Failed> {
    let (y, columns) = cases::data(case, seed);
    let flat = columns.concat();
    let data = Columns::from_columns_f64(&flat, y.len(), columns.len())?;
    let all = codec::foci(cpu(), &y, &data, &FociOptions { all: true, ..Default::default() })?;
    check(all.order.len() == columns.len(), || format!("{:?} is not all", all.order))?;
    for (step, &chosen) in all.order.iter().enumerate() {
        let t = reference::step(&y, &columns, &all.order[..step]);
        check(same(all.conditional[step], t[chosen]), || {
            format!("step {step}: {:?}, expected {:?}", all.conditional[step], t[chosen])
        })?;
        let left = (0..columns.len()).filter(|j| !all.order[..step].contains(j));
        if let Some(best) = t[chosen] {
            for j in left {
                let other = t[j].unwrap_or(f64::NAN);
                let worse = if j < chosen { other < best + 1e-12 } else { other <= best + 1e-12 };
                check(worse, || format!("step {step}: column {j} has {other}, chosen {chosen} has {best}"))?;
            }
        }
        let so_far: Vec<_> = all.order[..=step].iter().map(|&j| columns[j].clone()).collect();
        let cumulative = reference::mean(&y, &so_far, &[]);
        check(same(all.cumulative[step], cumulative), || {
            format!("step {step}: cumulative {:?}, expected {cumulative:?}", all.cumulative[step])
        })?;
    }
    let plain = codec::foci(cpu(), &y, &data, &FociOptions::default())?;
    let k = plain.order.len();
    check(plain.order == all.order[..k], || format!("{:?} does not begin {:?}", plain.order, all.order))?;
    check(plain.conditional.iter().all(|t| t.is_some_and(|t| t > 0.0)), || format!("{plain:?}"))?;
    let next = all.conditional.get(k).copied();
    let reason = match next {
        None => Stopped::Exhausted,
        Some(None) => Stopped::Undefined,
        Some(Some(_)) => Stopped::NotPositive,
    };
    check(plain.stopped == reason, || format!("stopped {:?}, expected {reason:?}", plain.stopped))
}

fn every_first_step_is_its_definition(case: &cases::Case, seed: u64) -> Result<(), Failed> {
    let (y, columns) = cases::data(case, seed);
    let flat = columns.concat();
    let data = Columns::from_columns_f64(&flat, y.len(), columns.len())?;
    let options = FociOptions { all: true, ties: Ties::First, ..Default::default() };
    let all = codec::foci(cpu(), &y, &data, &options)?;
    for (step, &chosen) in all.order.iter().enumerate() {
        let given: Vec<_> = all.order[..step].iter().map(|&j| columns[j].clone()).collect();
        let (numerator, denominator) = reference::first(&y, std::slice::from_ref(&columns[chosen]), &given);
        let expected = (denominator != 0).then(|| numerator as f64 / denominator as f64);
        check(same(all.conditional[step], expected), || {
            format!("step {step}: {:?}, expected {expected:?}", all.conditional[step])
        })?;
    }
    Ok(())
}

// --- against recorded values

/// The data of a recorded case.
struct Recorded {
    y: Vec<f64>,
    x: Vec<f64>, // [n, p]
    n: usize,
    p: usize,
    narrow: bool, // f32
}

fn recorded(prefix: &str, path: &Path) -> Vec<Trial> {
    let text = std::fs::read_to_string(path);
    let parsed = text
        .map_err(|e| e.to_string())
        .and_then(|text| serde_json::from_str::<Value>(&text).map_err(|e| e.to_string()));
    let golden = match parsed {
        Ok(golden) => golden,
        Err(reason) => {
            let message = format!("{}: {reason}", path.display());
            return vec![Trial::test(prefix.to_string(), move || Err(message.into()))];
        }
    };
    let tensors = Arc::new(TensorFile::open(&path.with_extension("safetensors")).ok());
    let mut trials = Vec::new();
    for case in golden["cases"].as_array().cloned().unwrap_or_default() {
        let tensors = Arc::clone(&tensors);
        let name = format!("{prefix}/{}", case["id"].as_str().unwrap_or("?"));
        trials.push(Trial::test(name, move || {
            let data = load(&case, tensors.as_ref().as_ref())?;
            let ops = case["ops"].as_array().ok_or("no ops")?;
            ops.iter().try_for_each(|op| recorded_op(&case, op, &data))
        }));
    }
    for case in golden["nn"].as_array().cloned().unwrap_or_default() {
        let tensors = Arc::clone(&tensors);
        let name = format!("{prefix}/{}", case["id"].as_str().unwrap_or("?"));
        trials.push(Trial::test(name, move || recorded_neighbours(&case, tensors.as_ref().as_ref())));
    }
    trials
}

fn numbers(value: &Value, tensors: Option<&TensorFile>) -> Result<Vec<f64>, Failed> {
    match value {
        Value::Array(values) => Ok(values.iter().filter_map(Value::as_f64).collect()),
        Value::String(name) => Ok(tensors.ok_or("no tensors beside the json")?.f64(name)?),
        other => Err(format!("{other} is no data").into()),
    }
}

fn size(value: &Value) -> usize {
    value.as_u64().unwrap_or(0) as usize
}

fn list(value: &Value) -> Vec<usize> {
    value.as_array().map(|v| v.iter().map(size).collect()).unwrap_or_default()
}

fn load(case: &Value, tensors: Option<&TensorFile>) -> Result<Recorded, Failed> {
    let data = Recorded {
        y: numbers(&case["Y"], tensors)?,
        x: numbers(&case["X"], tensors)?,
        n: size(&case["n"]),
        p: size(&case["p"]),
        narrow: case["dtype"] == "f32",
    };
    check(data.n >= 2 && data.y.len() == data.n && data.x.len() == data.n * data.p, || "sizes".into())?;
    Ok(data)
}

fn recorded_op(case: &Value, op: &Value, data: &Recorded) -> Result<(), Failed> {
    let narrow: Vec<f32> = data.x.iter().map(|&x| x as f32).collect();
    let matrix = match data.narrow {
        true => Columns::from_rows_f32(&narrow, data.n, data.p, data.p)?,
        false => Columns::from_rows_f64(&data.x, data.n, data.p, data.p)?,
    };
    let first = StatisticOptions { ties: Ties::First, ..Default::default() };
    match op["fn"].as_str() {
        Some("codec2" | "codec3") => {
            let (z, x) = (list(&op["z"]), list(&op["x"]));
            let found = codec::statistic(cpu(), &data.y, &matrix, &z, &x, &first)?;
            let expected = (op["num"].as_i64().map(i128::from), op["den"].as_i64().map(i128::from));
            check((found.numerator, found.denominator) == expected && expected.0.is_some(), || {
                format!("z={z:?} x={x:?}: {found:?}, expected {expected:?}")
            })?;
            let mean = codec::statistic(cpu(), &data.y, &matrix, &z, &x, &StatisticOptions::default())?.value;
            let expected = op["paper_mean_ties_value"].as_f64(); // "nan" is none
            check(same(mean, expected), || format!("z={z:?} x={x:?}: mean {mean:?}, expected {expected:?}"))
        }
        Some("foci" | "cheap_foci") => {
            let order = list(&op["order"]);
            let values: Vec<f64> = op["values"]
                .as_array()
                .map(|v| v.iter().filter_map(Value::as_f64).collect())
                .unwrap_or_default();
            let all = op["early_stop"] == false;
            let cheap = op["fn"] == "cheap_foci";
            let options = FociOptions {
                all,
                max_features: cheap.then_some(1),
                ties: Ties::First,
                ..Default::default()
            };
            let found = codec::foci(cpu(), &data.y, &matrix, &options)?;
            // the reference keeps a first column of T ≤ 0; FOCI returns nothing
            let expected = if values[0] <= 0.0 && !all { Vec::new() } else { order.clone() };
            check(found.order == expected, || format!("order {:?}, expected {expected:?}", found.order))?;
            for (&found, &value) in found.conditional.iter().zip(&values) {
                check(same(found, Some(value)), || format!("T {found:?}, expected {value}"))?;
            }
            if case["group"] == "grid" || case["group"] == "vignette" {
                let mean =
                    codec::foci(cpu(), &data.y, &matrix, &FociOptions { ties: Ties::Mean, ..options })?;
                let alike = mean.order == found.order && mean.conditional == found.conditional;
                check(alike, || {
                    format!("without ties {:?}, but by the first {:?}", mean.order, found.order)
                })?;
            }
            Ok(())
        }
        other => Err(format!("unknown op {other:?}").into()),
    }
}

fn recorded_neighbours(case: &Value, tensors: Option<&TensorFile>) -> Result<(), Failed> {
    let (n, d) = (size(&case["n"]), size(&case["d"]));
    let x = numbers(&case["X"], tensors)?;
    let expected = numbers(&case["idx"], tensors)?;
    let found = codec::nearest(&Columns::from_rows_f64(&x, n, d, d)?)?;
    for (i, (found, &expected)) in found.iter().zip(&expected).enumerate() {
        check(found[0] == expected as usize, || format!("row {i}: {found:?}, expected {expected}"))?;
    }
    check(found.len() == n, || "rows".into())
}

// --- invariances

/// What holds of every Y and its columns.
type Property = fn(&[f64], &[Vec<f64>]) -> Result<(), Failed>;

/// A property of T and FOCI, tried on 256 random data sets; a failure names the one that it was seen on.
fn property(name: &str, holds: Property) -> Trial {
    Trial::test(format!("codec/property/{name}"), move || {
        for seed in 0..256 {
            let mut stream = Stream::new(seed, Use::Choice, 100);
            let n = 2 + stream.below(58);
            let kinds: [Kind; 3] = std::array::from_fn(|_| {
                [Kind::Normal, Kind::Rounded(2.0), Kind::Binary, Kind::HalfZero][stream.below(4)]
            });
            let columns: Vec<_> = (0..3).map(|j| cases::column(kinds[j], n, seed, j as u32)).collect();
            holds(&cases::column(kinds[2], n, seed, 9), &columns).map_err(|failed| {
                format!("n={n},{kinds:?},seed={seed}: {}", failed.message().unwrap_or_default())
            })?;
        }
        Ok(())
    })
}

/// Fails where the two differ.
fn equal<T: PartialEq + std::fmt::Debug>(a: T, b: T) -> Result<(), Failed> {
    check(a == b, || format!("{a:?} is not {b:?}"))
}

fn t(y: &[f64], columns: &[Vec<f64>], z: &[usize], x: &[usize]) -> Result<Option<f64>, Failed> {
    let flat = columns.concat();
    let data = Columns::from_columns_f64(&flat, y.len(), columns.len())?;
    Ok(codec::statistic(cpu(), y, &data, z, x, &StatisticOptions::default())?.value)
}

fn measured(
    y: &[f64],
    columns: &[Vec<f64>],
    z: &[usize],
    x: &[usize],
    options: &StatisticOptions,
) -> Result<Option<f64>, Failed> {
    let flat = columns.concat();
    let data = Columns::from_columns_f64(&flat, y.len(), columns.len())?;
    Ok(codec::statistic(cpu(), y, &data, z, x, options)?.value)
}

/// Dependence gives 1 / (1 + B), also given X and on discrete data; without it few p-values are small. Y = X0 + X1 does
/// not depend on X2 given X0 and X1 however strongly X2 follows X0.
fn p_values() -> Result<(), Failed> {
    let n = 240;
    let (mut small, mut small_given) = (0, 0);
    for seed in 0..60 {
        let mut columns: Vec<_> = (0..3).map(|j| cases::column(Kind::Normal, n, seed, j)).collect();
        columns[2] = (0..n).map(|i| columns[0][i] + 0.5 * columns[2][i]).collect();
        let noise = cases::column(Kind::Normal, n, seed, 9);
        let y: Vec<f64> = (0..n).map(|i| columns[0][i] + 0.3 * noise[i]).collect();
        let flat = columns.concat();
        let data = Columns::from_columns_f64(&flat, n, 3)?;
        let options = StatisticOptions { seed, ..Default::default() };
        let p = |y: &[f64], z: usize, x: &[usize]| codec::p_value(cpu(), y, &data, &[z], x, &options, 39);
        small += usize::from(p(&noise, 1, &[])? <= Some(0.1));
        small_given += usize::from(p(&y, 2, &[0])? <= Some(0.1));
        if seed < 5 {
            let sum: Vec<f64> = (0..n).map(|i| columns[0][i] + columns[1][i]).collect();
            for options in [options, StatisticOptions { measure: Measure::Xi, ..options }] {
                let found = codec::p_value(cpu(), &y, &data, &[0], &[], &options, 39)?;
                check(found == Some(0.025), || format!("seed {seed}: {found:?}"))?;
            }
            let found = p(&sum, 1, &[0])?;
            check(found == Some(0.025), || format!("seed {seed}, given X: {found:?}"))?;
        }
    }
    // 60 tests at 0.1: 6 expected, 15 or more with probability below 0.001
    check(small < 15 && small_given < 15, || format!("{small} and {small_given} of 60 below 0.1"))?;
    let data = [0.0; 20];
    let data = Columns::from_columns_f64(&data, 20, 1)?;
    let undefined = codec::p_value(cpu(), &[1.0; 20], &data, &[0], &[], &StatisticOptions::default(), 9)?;
    check(undefined.is_none(), || format!("constant Y: {undefined:?}"))?;
    let xi = StatisticOptions { measure: Measure::Xi, ..Default::default() };
    check(codec::statistic(cpu(), &[1.0; 20], &data, &[0], &[0], &xi).is_err(), || "ξ given X".into())
}

/// Independent columns: the limit is 0, and intervals of 90 % hold it about so often.
fn intervals() -> Result<(), Failed> {
    let n = 300;
    for measure in [Measure::Codec, Measure::Xi] {
        let mut held = 0;
        for seed in 0..50 {
            let (x, y) = (cases::column(Kind::Normal, n, seed, 0), cases::column(Kind::Normal, n, seed, 1));
            let data = Columns::from_columns_f64(&x, n, 1)?;
            let options = StatisticOptions { measure, seed, ..Default::default() };
            let found =
                codec::interval(cpu(), &y, &data, &[0], &[], &options, 0.9, 200)?.ok_or("undefined")?;
            check(found.low < found.high && found.m == 45, || format!("{found:?}"))?;
            held += usize::from(found.low <= 0.0 && 0.0 <= found.high);
        }
        check((38..=50).contains(&held), || format!("{held} of 50 hold 0"))?;
    }
    Ok(())
}

fn properties() -> Vec<Trial> {
    vec![
        property("monotone_maps_of_y_change_nothing", |y, columns| {
            let mapped: Vec<f64> = y.iter().map(|y| y.powi(3) + 2.0 * y).collect();
            equal(t(y, columns, &[0], &[])?, t(&mapped, columns, &[0], &[])?)?;
            equal(t(y, columns, &[0], &[1])?, t(&mapped, columns, &[0], &[1])?)?;
            Ok(())
        }),
        property("the_order_of_rows_changes_nothing", |y, columns| {
            let turn = |v: &[f64]| v.iter().rev().copied().collect::<Vec<_>>();
            let turned: Vec<_> = columns.iter().map(|c| turn(c)).collect();
            equal(t(y, columns, &[0, 2], &[])?, t(&turn(y), &turned, &[0, 2], &[])?)?;
            equal(t(y, columns, &[0], &[1])?, t(&turn(y), &turned, &[0], &[1])?)?;
            Ok(())
        }),
        property("a_column_tells_nothing_beyond_itself", |y, columns| {
            let again = t(y, columns, &[0], &[0])?;
            check(again.is_none_or(|t| t == 0.0), || format!("{again:?}"))
        }),
        Trial::test("codec/property/near_0_and_near_1", || {
            let x = cases::column(Kind::Normal, 2000, 5, 0);
            let other = cases::column(Kind::Normal, 2000, 5, 1);
            let y: Vec<f64> = x.iter().map(|x| (3.0 * x).sin()).collect();
            let columns = [x, other];
            let tells = t(&y, &columns, &[0], &[])?.unwrap_or(0.0);
            let silent = t(&y, &columns, &[1], &[])?.unwrap_or(1.0);
            let beyond = t(&y, &columns, &[0], &[1])?.unwrap_or(0.0);
            check(tells > 0.97 && silent.abs() < 0.06 && beyond > 0.8, || {
                format!("{tells} {silent} {beyond}")
            })
        }),
        Trial::test("codec/property/special_data_is_as_stated", || {
            let y = cases::column(Kind::Normal, 50, 5, 0);
            let dead = [vec![3.0; 50], y.clone()];
            let constant = t(&y, &dead, &[0], &[])?;
            check(same(constant, Some(-1.0 / 49.0)), || format!("constant column: {constant:?}"))?;
            let constant_y = t(&[1.0; 50], &dead, &[1], &[])?;
            check(constant_y.is_none(), || format!("constant Y: {constant_y:?}"))?;
            let two = t(&[1.0, 2.0], &[vec![5.0, 9.0]], &[0], &[])?;
            check(two == Some(-1.0), || format!("n = 2: {two:?}"))?;
            let one = t(&[1.0], &[vec![5.0]], &[0], &[]);
            check(one.is_err(), || format!("n = 1: {one:?}"))?;
            let flat = dead.concat();
            let found = codec::foci(
                cpu(),
                &[1.0; 50],
                &Columns::from_columns_f64(&flat, 50, 2)?,
                &FociOptions::default(),
            )?;
            let nothing = found.order.is_empty() && found.stopped == Stopped::Undefined;
            check(nothing && found.first_step.is_empty(), || format!("{found:?}"))
        }),
        property("scaling_and_bounding_undo_shifts_and_scales", |y, columns| {
            let map = |map: fn(f64) -> f64| -> Vec<Vec<f64>> {
                columns.iter().map(|c| c.iter().map(|&x| map(x)).collect()).collect()
            };
            for standardize in [Standardize::Scale, Standardize::Bounded] {
                let options = StatisticOptions { standardize, ..Default::default() };
                // a power of two goes through every rounding
                let a = measured(y, columns, &[0], &[1], &options)?;
                equal(a, measured(y, &map(|x| 4.0 * x), &[0], &[1], &options)?)?;
                // a shift does not: it can part rows that are equally near, but not change the order of others
                if one_nearest(&columns[0]) {
                    let a = measured(y, columns, &[0], &[], &options)?;
                    equal(a, measured(y, &map(|x| 4.0 * x - 8.0), &[0], &[], &options)?)?;
                }
            }
            Ok(())
        }),
        property("random_ties_tend_to_their_mean", |y, columns| {
            let ties = Ties::Random { seed: 3, draws: 2000 };
            for measure in [Measure::Codec, Measure::Xi] {
                let mean =
                    measured(y, columns, &[2], &[], &StatisticOptions { measure, ..Default::default() })?;
                let random = measured(
                    y,
                    columns,
                    &[2],
                    &[],
                    &StatisticOptions { measure, ties, ..Default::default() },
                )?;
                equal(mean.is_some(), random.is_some())?;
                let near = mean.zip(random).is_none_or(|(a, b)| (a - b).abs() < 0.15);
                check(near, || format!("{measure:?}: {mean:?} {random:?}"))?;
            }
            Ok(())
        }),
        property("xi_knows_the_order_of_x_alone", |y, columns| {
            let options = StatisticOptions { measure: Measure::Xi, ..Default::default() };
            let mapped = [columns[0].iter().map(|x| x.powi(3) + x).collect::<Vec<f64>>()];
            equal(measured(y, columns, &[0], &[], &options)?, measured(y, &mapped, &[0], &[], &options)?)
        }),
        property("groups_and_initial_columns_are_their_definition", |y, columns| {
            let flat = columns.concat();
            let data = Columns::from_columns_f64(&flat, y.len(), 3)?;
            let (initial, groups) = ([1], [vec![2, 0]]);
            let options = FociOptions { all: true, initial: &initial, ..Default::default() };
            let known = codec::foci(cpu(), y, &data, &options)?;
            equal(known.order.len(), 2)?;
            check(!known.order.contains(&1), || "a given column was chosen".into())?;
            let given = t(y, columns, &known.order[..1], &[1])?;
            check(same(known.conditional[0], given), || format!("{known:?}, expected {given:?}"))?;
            let together = FociOptions { groups: &groups, ..options };
            let found = codec::foci(cpu(), y, &data, &together)?;
            equal(&found.order[..], &[0])?;
            equal(found.conditional[0], t(y, columns, &[2, 0], &[1])?)?;
            let twice = [vec![0], vec![1, 0]];
            let twice = FociOptions { groups: &twice, ..Default::default() };
            check(codec::foci(cpu(), y, &data, &twice).is_err(), || "a column in two groups".into())?;
            Ok(())
        }),
        Trial::test("codec/property/a_stopped_search_keeps_whole_steps", || {
            let (y, columns) = cases::data(&cases::CASES[3], 1);
            let flat = columns.concat();
            let data = Columns::from_columns_f64(&flat, y.len(), columns.len())?;
            let whole = codec::foci(cpu(), &y, &data, &FociOptions { all: true, ..Default::default() })?;
            for steps in 0..3 {
                let watch = codec::Watch::default();
                let options = FociOptions { all: true, watch: Some(&watch), ..Default::default() };
                if steps == 0 {
                    watch.stop();
                }
                let found = codec::foci_each(cpu(), &y, &data, &options, &mut |done, _| {
                    if done == steps {
                        watch.stop();
                    }
                })?;
                let begins = found.order == whole.order[..steps] && found.stopped == Stopped::Interrupted;
                check(begins, || format!("{found:?}"))?;
            }
            Ok(())
        }),
        Trial::test("codec/property/p_values_tell_dependence_from_none", p_values),
        Trial::test("codec/property/intervals_hold_the_limit", intervals),
        Trial::test("codec/property/threads_change_nothing", || {
            let (y, columns) = cases::data(&cases::CASES[3], 1);
            let flat = columns.concat();
            let data = Columns::from_columns_f64(&flat, y.len(), columns.len())?;
            let by = |threads: usize| -> scrubjay::Result<codec::Foci> {
                let device = Device::open(Choice::Cpu, threads)?;
                codec::foci(&device, &y, &data, &FociOptions { all: true, ..Default::default() })
            };
            let (one, three) = (by(1)?, by(3)?);
            check(one == three, || format!("{one:?} is not {three:?}"))
        }),
    ]
}

/// Whether every row of a column has one nearest row, by more than rounding.
fn one_nearest(column: &[f64]) -> bool {
    let mut sorted = column.to_vec();
    sorted.sort_by(f64::total_cmp);
    let gaps: Vec<f64> = sorted.windows(2).map(|two| two[1] - two[0]).collect();
    let apart = |a: f64, b: f64| (a - b).abs() > 1e-9;
    gaps.iter().all(|&gap| apart(gap, 0.0)) && gaps.windows(2).all(|two| apart(two[0], two[1]))
}
