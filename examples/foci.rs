//! FOCI: which columns tell about another one, best first, without a model of how they do.
//!
//! Y = x₀ · sign(x₁) + a little of x₂ among ten columns of noise: no single column is correlated with Y but the third.
//!
//!     cargo run --release --example foci

use scrubjay::codec::{Columns, FociOptions, StatisticOptions, foci, statistic};
use scrubjay::ops::philox::{Stream, Use};
use scrubjay::{Device, Result};

fn main() -> Result<()> {
    let device = Device::cpu()?;
    let (n, p) = (2000, 10);
    let mut stream = Stream::new(1, Use::Choice, 0);
    let x: Vec<f64> = (0..n * p).map(|_| f64::from(stream.normal())).collect();
    let column = |j: usize| &x[j * n..(j + 1) * n];
    let y: Vec<f64> = (0..n).map(|i| column(0)[i] * column(1)[i].signum() + 0.2 * column(2)[i]).collect();

    let columns = Columns::from_columns_f64(&x, n, p)?;
    let found = foci(&device, &y, &columns, &FociOptions::default())?;
    for (column, t) in found.order.iter().zip(&found.cumulative) {
        println!("column {column}: T = {:.3} with those before it", t.unwrap_or(f64::NAN));
    }

    // Alone, a column of the pair tells little.
    let alone = statistic(&device, &y, &columns, &[1], &[], &StatisticOptions::default())?;
    println!("column 1 alone: {:.3}", alone.value.unwrap_or(f64::NAN));
    Ok(())
}
