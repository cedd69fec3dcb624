//! FOCI: the time of one greedy step with |S| columns chosen, and of whole selections (medians). Correct first: values
//! of a small case against the definition. `cargo bench --bench foci`.

#[path = "../tests/cases/codec.rs"]
#[allow(dead_code)] // the tests use all of it
mod cases;
#[path = "../tests/reference/codec.rs"]
#[allow(dead_code)]
mod reference;

use std::time::Instant;

use cases::Kind;
use scrubjay::codec::{FociOptions, Matrix, foci, foci_each};
use scrubjay::device::Device;

const N: usize = 1000;

fn main() -> scrubjay::Result<()> {
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(()); // cargo test --benches: nothing to test here that tests/codec.rs does not
    }
    let device = Device::cpu()?;
    device.scope(|| {
        check()?;
        println!("{:<44} {:>10} {:>10} {:>10}  {}", "case", "median ms", "least", "most", device.threads());
        for p in [1000, 27_560] {
            let (y, x) = normal(N, p);
            let data = Matrix::rows_f32(&x, N, p, p)?;
            steps(&y, &data)?;
        }
        for p in [100, 1000] {
            let (y, x) = planted(N, p);
            let data = Matrix::rows_f32(&x, N, p, p)?;
            whole(&format!("foci/n={N},p={p}"), &y, &data, &FociOptions::default())?;
        }
        let (y, x) = planted(200, 4876);
        let data = Matrix::rows_f32(&x, 200, 4876, 4876)?;
        let six = FociOptions { max_features: Some(6), ..Default::default() };
        whole("foci/n=200,p=4876,at most 6 (one voter)", &y, &data, &six)?;
        let (y, columns) = (cases::column(Kind::Normal, N, 1, u32::MAX), discrete(1000));
        let data = Matrix::columns_f64(&columns, N, 1000)?;
        let four = FociOptions { max_features: Some(4), all: true, ..Default::default() };
        whole(&format!("foci/n={N},p=1000,binary, 4 steps"), &y, &data, &four)
    })
}

/// Y is the first column of noise, so every step goes on (`all`) and |S| is known.
fn steps(y: &[f64], data: &Matrix) -> scrubjay::Result<()> {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); 9];
    let runs = if data.p() > 10_000 { 3 } else { 9 };
    for _ in 0..runs {
        let mut last = Instant::now();
        let options = FociOptions { all: true, max_features: Some(9), ..Default::default() };
        foci_each(y, data, &options, &mut |steps, _| {
            times[steps - 1].push(last.elapsed().as_secs_f64() * 1e3);
            last = Instant::now();
        })?;
    }
    for chosen in [0, 1, 2, 4, 8] {
        print_line(&format!("step/n={},p={},|S|={chosen}", data.n(), data.p()), &mut times[chosen]);
    }
    Ok(())
}

fn whole(name: &str, y: &[f64], data: &Matrix, options: &FociOptions) -> scrubjay::Result<()> {
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..9 {
        let start = Instant::now();
        found = foci(y, data, options)?.order.len();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    print_line(&format!("{name} ({found} found)"), &mut times);
    Ok(())
}

fn print_line(name: &str, times: &mut [f64]) {
    times.sort_by(f64::total_cmp);
    println!(
        "{name:<44} {:>10.2} {:>10.2} {:>10.2}",
        times[times.len() / 2],
        times[0],
        times[times.len() - 1]
    );
}

fn check() -> scrubjay::Result<()> {
    let (y, x) = planted(150, 24);
    let data = Matrix::rows_f32(&x, 150, 24, 24)?;
    let found = foci(&y, &data, &FociOptions { all: true, max_features: Some(5), ..Default::default() })?;
    let columns: Vec<_> = (0..24).map(|j| data.column(j)).collect();
    for (step, &chosen) in found.order.iter().enumerate() {
        let t = reference::step(&y, &columns, &found.order[..step]);
        let differs = |a: Option<f64>| a.zip(t[chosen]).is_none_or(|(a, b)| (a - b).abs() > 1e-12);
        assert!(!differs(found.conditional[step]), "{:?} is not {:?}", found.conditional[step], t[chosen]);
    }
    Ok(())
}

/// Independent normal columns, row-major, and a Y of its own.
fn normal(n: usize, p: usize) -> (Vec<f64>, Vec<f32>) {
    let mut x = vec![0.0; n * p];
    for j in 0..p {
        let column = cases::column(Kind::Normal, n, 7, j as u32);
        column.iter().enumerate().for_each(|(i, &value)| x[i * p + j] = value as f32);
    }
    (cases::column(Kind::Normal, n, 7, u32::MAX), x)
}

/// Y depends on four of the columns.
fn planted(n: usize, p: usize) -> (Vec<f64>, Vec<f32>) {
    let (noise, x) = normal(n, p);
    let at = |i: usize, j: usize| f64::from(x[i * p + j * p / 5]);
    let y = (0..n).map(|i| at(i, 1) * at(i, 2) + at(i, 3).sin() + at(i, 4) + 0.1 * noise[i]).collect();
    (y, x)
}

fn discrete(p: usize) -> Vec<f64> {
    (0..p).flat_map(|j| cases::column(Kind::Binary, N, 3, j as u32)).collect()
}
