//! Tests of the steps of FOCI on CUDA.

use super::*;
use crate::codec::neighbours;
use crate::ops::philox::{Stream, Use};

/// Columns without ties, with many, with ties only, and with values beyond f32; some of them twice.
fn columns(n: usize, p: usize, seed: u64) -> Vec<f64> {
    let mut stream = Stream::new(seed, Use::Choice, 0);
    let mut values: Vec<f64> = (0..p * n)
        .map(|at| match at / n % 7 {
            1 | 3 => stream.below(4) as f64,
            4 => f64::from(stream.normal()) * if at % 3 == 0 { 1e200 } else { 1.0 },
            5 => 1e6 + 0.03125 + 1e-3 * f64::from(stream.normal()),
            6 => 0.25,
            _ => f64::from(stream.normal()),
        })
        .collect();
    values.copy_within(0..2 * n, (p - 2) * n);
    values
}

const TIES: [Ties; 3] = [Ties::Mean, Ties::First, Ties::Random { seed: 3, draws: 2 }];

#[test]
fn panels_give_what_kept_distances_give() {
    let (n, p) = (70, 10);
    let values = columns(n, p, 2);
    let y: Vec<f64> = (0..n).map(|i| (values[i] * values[n + i]).round()).collect();
    let x = Columns::from_columns_f64(&values, n, p).unwrap();
    let cuda = Cuda::emulated(2);
    for ties in TIES {
        let ranks = Ranks::new(&y, ties).unwrap();
        let mut kept = Steps::of_width(&cuda, Table::Host(x), &ranks, ties, n).unwrap();
        let panels =
            [1, 32, 69].map(|width| Steps::of_width(&cuda, Table::Host(x), &ranks, ties, width).unwrap());
        kept.first().unwrap();
        let mut chosen: Vec<Vec<f64>> = Vec::new();
        for mut steps in panels {
            steps.first().unwrap();
            assert!(steps.all().unwrap() == kept.all().unwrap(), "{ties:?}");
        }
        for j in [1, 0, 5] {
            chosen.push(x.column(j));
            kept.chosen.push(Chosen::Candidate(j));
            kept.measure().unwrap();
            for width in [1, 32, 69] {
                let mut steps = Steps::of_width(&cuda, Table::Host(x), &ranks, ties, width).unwrap();
                chosen.iter().for_each(|column| steps.given(column).unwrap());
                steps.measure().unwrap();
                assert!(steps.all().unwrap() == kept.all().unwrap(), "{ties:?} {j} {width}");
                assert!(steps.best().unwrap() == kept.best().unwrap(), "{ties:?} {j} {width}");
            }
        }
    }
}

#[test]
fn pruned_steps_give_what_dense_ones_and_the_cpu_give() {
    let sizes = [(70, 34), (33, 9), (34, 65)];
    let orders = [[1, 0, 4], [6, 3, 2], [4, 1, 5]];
    for (seed, ((n, p), (ties, order))) in sizes.into_iter().zip(TIES.into_iter().zip(orders)).enumerate() {
        let values = columns(n, p, seed as u64);
        let y: Vec<f64> = (0..n).map(|i| (values[i] * values[n + i]).round()).collect();
        let x = Columns::from_columns_f64(&values, n, p).unwrap();
        let cuda = Cuda::emulated(seed as u64);
        let ranks = Ranks::new(&y, ties).unwrap();
        let (dense, short, long) = (Method::Dense, Method::Pruned(32), Method::Pruned(64));
        let ways = [(n, dense), (n, short), (1, long), (32, short), (69, short)];
        let begin = |(width, search): (usize, Method)| {
            let mut steps = Steps::of_width(&cuda, Table::Host(x), &ranks, ties, width.min(n)).unwrap();
            steps.forced = Some(search);
            steps.list_bytes = 24 * 32 * size_of::<u64>(); // of 24 rows, or of 12
            steps
        };
        let mut all = ways.map(begin);
        let mut chosen: Vec<Vec<f64>> = Vec::new();
        for j in order {
            chosen.push(x.column(j));
            let together = |j| neighbours::sum(&[&chosen[..], &[x.column(j)]].concat(), &ranks, ties);
            let expected: Vec<Sum> = (0..p).map(together).collect();
            for steps in &mut all {
                steps.given(&x.column(j)).unwrap();
                steps.measure().unwrap();
                let way = (steps.width, steps.forced);
                assert!(steps.all().unwrap() == expected, "{n} {ties:?} {j} {way:?}");
            }
        }
    }
}

#[test]
fn a_list_is_walked_as_far_as_the_best_and_left_only_where_it_ends() {
    let (n, p) = (200, 33);
    let line: Vec<f64> = (0..n).map(|i| i as f64).collect();
    let x = line.repeat(p);
    let x = Columns::from_columns_f64(&x, n, p).unwrap();
    let cuda = Cuda::emulated(2);
    let ranks = Ranks::new(&line, Ties::Mean).unwrap();
    let step = |column: &[f64], len| {
        let mut steps = Steps::of_width(&cuda, Table::Host(x), &ranks, Ties::Mean, n).unwrap();
        steps.forced = Some(Method::Pruned(len));
        steps.given(column).unwrap();
        steps.measure().unwrap();
        steps
    };
    let searches = 2 * n as u64;
    // the nearest are 2 away, the fifth of a list 9 or more in the chosen column alone
    let tallied = step(&line, 32).tallied().unwrap().unwrap();
    assert_eq!(tallied, Tallied { looked: 4 * searches, again: 0 });
    // all rows are alike in the chosen column: the nearest of most are not in the list, and it cannot tell
    let mut steps = step(&vec![0.0; n], 32);
    let everything = searches * (32 + n as u64 - 1);
    let mut again = step(&vec![0.0; n], 32);
    let tallied = again.tallied().unwrap();
    assert_eq!(tallied, Some(Tallied { looked: everything, again: searches }));
    steps.forced = None;
    assert_eq!(steps.method().unwrap(), Method::Dense);
    // a list of all others has no end beyond which to look
    let tallied = step(&vec![0.0; n], 256).tallied().unwrap();
    assert_eq!(tallied, Some(Tallied { looked: searches * 200, again: 0 }));
}
