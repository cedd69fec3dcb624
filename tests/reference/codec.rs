//! The oracle of the dependence measure: its definition as plain f64 loops, O(n²) for every neighbour set, one candidate
//! at a time. It is never made faster.

/// What the measure needs of Y: R and L by row.
pub struct Ranks {
    pub r: Vec<u64>,
    pub l: Vec<u64>,
}

/// R_i = #{j : Y_j ≤ Y_i}, L_i = #{j : Y_j ≥ Y_i}.
pub fn ranks(y: &[f64]) -> Ranks {
    let count = |test: &dyn Fn(f64, f64) -> bool| -> Vec<u64> {
        y.iter().map(|&own| y.iter().filter(|&&other| test(other, own)).count() as u64).collect()
    };
    Ranks { r: count(&|other, own| other <= own), l: count(&|other, own| other >= own) }
}

/// R_i = 1 + the position of row i in a stable ascending sort, L_i = n + 1 − R_i.
pub fn ranks_by_position(y: &[f64]) -> Ranks {
    let n = y.len() as u64;
    let before = |i: usize| (0..y.len()).filter(|&j| y[j] < y[i] || (y[j] == y[i] && j < i)).count() as u64;
    let r: Vec<u64> = (0..y.len()).map(|i| 1 + before(i)).collect();
    Ranks { l: r.iter().map(|r| n + 1 - r).collect(), r }
}

/// All rows at the smallest distance from each row, ascending.
pub fn nearest(columns: &[Vec<f64>]) -> Vec<Vec<usize>> {
    let n = columns[0].len();
    let distance = |i: usize, j: usize| {
        let mut sum = 0.0;
        for column in columns {
            sum += (column[i] - column[j]) * (column[i] - column[j]);
        }
        sum
    };
    let all = |i: usize| {
        let others: Vec<usize> = (0..n).filter(|&j| j != i).collect();
        let least = others.iter().map(|&j| distance(i, j)).fold(f64::INFINITY, f64::min);
        others.into_iter().filter(|&j| distance(i, j) == least).collect()
    };
    (0..n).map(all).collect()
}

/// min(R_i, R_j) averaged over the tied neighbours of every row.
fn means(ranks: &Ranks, nearest: &[Vec<usize>]) -> Vec<f64> {
    let mean = |(i, tied): (usize, &Vec<usize>)| {
        let sum: u64 = tied.iter().map(|&j| ranks.r[i].min(ranks.r[j])).sum();
        sum as f64 / tied.len() as f64
    };
    nearest.iter().enumerate().map(mean).collect()
}

/// T(Y, Z | X) with the mean over ties; none where it is 0/0 (to rounding).
pub fn mean(y: &[f64], z: &[Vec<f64>], x: &[Vec<f64>]) -> Option<f64> {
    let ranks = ranks(y);
    let n = y.len() as f64;
    let both: Vec<Vec<f64>> = x.iter().chain(z).cloned().collect();
    let m = means(&ranks, &nearest(&both));
    let (mut numerator, mut denominator) = (0.0, 0.0);
    if x.is_empty() {
        for (m, &l) in m.iter().zip(&ranks.l) {
            let l = l as f64;
            numerator += n * m - l * l;
            denominator += l * (n - l);
        }
    } else {
        let given = means(&ranks, &nearest(x));
        for i in 0..y.len() {
            numerator += m[i] - given[i];
            denominator += ranks.r[i] as f64 - given[i];
        }
    }
    (denominator.abs() > 1e-9).then(|| numerator / denominator)
}

/// Numerator and denominator of T(Y, Z | X) with the first of the tied neighbours and ranks by position.
pub fn first(y: &[f64], z: &[Vec<f64>], x: &[Vec<f64>]) -> (i128, i128) {
    let ranks = ranks_by_position(y);
    let n = y.len() as i128;
    let both: Vec<Vec<f64>> = x.iter().chain(z).cloned().collect();
    let m = nearest(&both);
    let least = |i: usize, nearest: &[Vec<usize>]| i128::from(ranks.r[i].min(ranks.r[nearest[i][0]]));
    let (mut numerator, mut denominator) = (0, 0);
    if x.is_empty() {
        for i in 0..y.len() {
            let l = i128::from(ranks.l[i]);
            numerator += n * least(i, &m) - l * l;
            denominator += l * (n - l);
        }
    } else {
        let given = nearest(x);
        for i in 0..y.len() {
            numerator += least(i, &m) - least(i, &given);
            denominator += i128::from(ranks.r[i]) - least(i, &given);
        }
    }
    (numerator, denominator)
}

/// T of every candidate given the chosen columns, with the mean over ties.
pub fn step(y: &[f64], columns: &[Vec<f64>], chosen: &[usize]) -> Vec<Option<f64>> {
    let x: Vec<Vec<f64>> = chosen.iter().map(|&j| columns[j].clone()).collect();
    columns.iter().map(|z| mean(y, std::slice::from_ref(z), &x)).collect()
}
