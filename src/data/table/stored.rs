//! One column in memory: numbers as f64, and whole numbers beyond 2⁵³ exactly.
//!
//! An f64 has every whole number up to 2⁵³ and only some beyond. A column of whole numbers with one beyond keeps all of
//! them as integers. When it is used, the least is subtracted, which changes neither ranks nor distances, and the
//! differences become f64. Where two different ones would become equal, the column is refused.

use super::options::TableOptions;

/// The values of a column.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    /// `[n]`, NaN where it is no finite number; codes of a categorical column.
    pub values: Vec<f64>,
    /// The same as integers, where f64 has not all of them.
    exact: Exact,
    /// The first missing one.
    pub missing: Option<Unusable>,
    /// The first that is neither a finite number nor missing.
    pub unusable: Option<Unusable>,
    /// Of a column that becomes one of zeros and ones per category, how many; else 0.
    pub categories: usize,
}

/// A cell that is not a finite number.
#[derive(Clone, Debug)]
pub(super) struct Unusable {
    pub place: String,
    pub cell: String,
}

/// The whole numbers of a column.
#[derive(Clone, Debug, Default)]
enum Exact {
    /// No value is a whole number beyond 2⁵³.
    #[default]
    NotNeeded,
    /// All of them; 0 where the value is NaN.
    Kept(Vec<i128>),
    /// Some are not whole.
    Impossible,
}

/// The largest magnitude up to which f64 has every whole number.
const EXACT: f64 = (1u64 << 53) as f64;
/// Integers are kept below this magnitude, so that differences fit.
const LIMIT: u128 = 1 << 126;

/// Two different integers that are equal as f64.
pub(super) struct Collision(pub i128, pub i128);

/// Numbers as a file has them.
pub(super) enum Numbers {
    Floats(Vec<f64>),
    /// Of 64 bits, at least one beyond 2⁵³.
    Integers(Vec<i128>),
}

impl Numbers {
    /// From integers; as floats where f64 has all of them.
    pub fn of_integers(values: Vec<i128>) -> Numbers {
        match values.iter().all(|value| value.unsigned_abs() <= EXACT as u128) {
            true => Numbers::Floats(values.into_iter().map(|value| value as f64).collect()),
            false => Numbers::Integers(values),
        }
    }

    /// The same table `[n, p]`, row-major where it was column-major.
    pub fn transposed(self, n: usize, p: usize) -> Numbers {
        let from = (0..n * p).map(|at| at % p * n + at / p);
        match self {
            Numbers::Floats(values) => Numbers::Floats(from.map(|at| values[at]).collect()),
            Numbers::Integers(values) => Numbers::Integers(from.map(|at| values[at]).collect()),
        }
    }

    /// Column `j` of a table `[n, p]`.
    pub fn column(&self, n: usize, p: usize, j: usize) -> Stored {
        let at = (0..n).map(|i| i * p + j);
        match self {
            Numbers::Floats(values) => Stored::numbers(at.map(|at| values[at]).collect()),
            Numbers::Integers(values) => Stored::integers(at.map(|at| values[at])),
        }
    }
}

impl Stored {
    /// A column of floats; the place of a bad one is its row.
    pub fn numbers(mut values: Vec<f64>) -> Stored {
        let place = |values: &[f64], test: fn(&f64) -> bool| {
            let at = values.iter().position(test)?;
            Some(Unusable { place: format!("row {at}"), cell: values[at].to_string() })
        };
        let missing = place(&values, |x| x.is_nan());
        let unusable = place(&values, |x| x.is_infinite());
        values.iter_mut().filter(|x| x.is_infinite()).for_each(|x| *x = f64::NAN);
        Stored { values, missing, unusable, ..Stored::default() }
    }

    /// A column of integers.
    pub fn integers(values: impl Iterator<Item = i128>) -> Stored {
        let mut column = Stored::default();
        values.for_each(|value| column.push_number(value as f64, Some(value)));
        column
    }

    /// Appends a cell of text, whose number is `value` where it is one.
    pub fn push(&mut self, cell: &str, value: Option<f64>, place: &str, options: &TableOptions) {
        match value.filter(|value| value.is_finite() && (options.na.is_empty() || !options.is_missing(cell)))
        {
            Some(value) => self.push_number(value, whole(cell, value)),
            None => self.push_unusable(options.is_missing(cell), place, cell),
        }
    }

    /// Appends a missing value, or one that is no number.
    pub fn push_unusable(&mut self, missing: bool, place: &str, cell: &str) {
        let first = if missing { &mut self.missing } else { &mut self.unusable };
        first.get_or_insert_with(|| Unusable { place: place.into(), cell: cell.into() });
        self.values.push(f64::NAN);
        if let Exact::Kept(kept) = &mut self.exact {
            kept.push(0);
        }
    }

    /// Appends a finite number, with its integer where it is whole.
    pub fn push_number(&mut self, value: f64, whole: Option<i128>) {
        let whole = whole.filter(|whole| whole.unsigned_abs() < LIMIT);
        match (&mut self.exact, whole) {
            (Exact::Kept(kept), Some(whole)) => kept.push(whole),
            (Exact::Kept(_), None) => self.exact = Exact::Impossible,
            (Exact::NotNeeded, Some(large)) if large.unsigned_abs() > EXACT as u128 => {
                self.exact = match self.values.iter().all(|value| value.is_nan() || value.fract() == 0.0) {
                    true => Exact::Kept(self.values.iter().map(|&v| v as i128).chain([large]).collect()),
                    false => Exact::Impossible,
                };
            }
            (Exact::NotNeeded | Exact::Impossible, _) => {}
        }
        self.values.push(value);
    }

    /// The values of the rows to keep, none of which is missing: relative to the least where they are large integers.
    pub fn kept(&self, keep: &[bool]) -> Result<Vec<f64>, Collision> {
        let Exact::Kept(exact) = &self.exact else {
            return Ok(of_rows(&self.values, keep));
        };
        let exact = of_rows(exact, keep);
        let least = exact.iter().copied().min().unwrap_or(0);
        let mut sorted = exact.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let same = |pair: &&[i128]| (pair[0] - least) as f64 == (pair[1] - least) as f64;
        match sorted.windows(2).find(same) {
            Some(pair) => Err(Collision(pair[0], pair[1])),
            None => Ok(exact.iter().map(|value| (value - least) as f64).collect()),
        }
    }

    /// Replaces numbers by those of their categories, ascending.
    pub fn categorise(&mut self, onehot: bool) {
        let categories = match &self.exact {
            Exact::Kept(exact) => {
                let known = |of: &[f64]| of.iter().map(|value| !value.is_nan()).collect::<Vec<_>>();
                let mut distinct = of_rows(exact, &known(&self.values));
                distinct.sort_unstable();
                distinct.dedup();
                for (value, exact) in self.values.iter_mut().zip(exact).filter(|(value, _)| !value.is_nan()) {
                    *value = distinct.partition_point(|x| x < exact) as f64;
                }
                distinct.len()
            }
            Exact::NotNeeded | Exact::Impossible => {
                let mut distinct: Vec<f64> = self.values.iter().copied().filter(|x| !x.is_nan()).collect();
                distinct.sort_unstable_by(f64::total_cmp);
                distinct.dedup_by(|a, b| a == b);
                for value in self.values.iter_mut().filter(|value| !value.is_nan()) {
                    *value = distinct.partition_point(|x| x < value) as f64;
                }
                distinct.len()
            }
        };
        self.exact = Exact::NotNeeded;
        self.categories = if onehot { categories } else { 0 };
    }

    /// Bytes of the values.
    pub fn bytes(&self) -> usize {
        let exact = match &self.exact {
            Exact::Kept(kept) => size_of_val(&kept[..]),
            Exact::NotNeeded | Exact::Impossible => 0,
        };
        size_of::<Stored>() + size_of_val(&self.values[..]) + exact
    }
}

fn of_rows<T: Copy>(values: &[T], keep: &[bool]) -> Vec<T> {
    values.iter().zip(keep).filter(|(_, keep)| **keep).map(|(&value, _)| value).collect()
}

/// The integer that a cell with this value stands for; 12.0 and 1e3 are whole too.
fn whole(cell: &str, value: f64) -> Option<i128> {
    let near = || (value.fract() == 0.0 && value.abs() < LIMIT as f64).then_some(value as i128);
    if value.abs() < EXACT {
        return near();
    }
    let digits = match cell.split_once(['.', ',']) {
        Some((digits, zeros)) if zeros.bytes().all(|digit| digit == b'0') => digits,
        _ => cell,
    };
    digits.parse().ok().or_else(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(cells: &[&str]) -> Stored {
        let mut column = Stored::default();
        cells
            .iter()
            .for_each(|cell| column.push(cell, cell.parse().ok(), "line 1", &TableOptions::default()));
        column
    }

    #[test]
    fn integers_beyond_2_to_the_53_stay_different() {
        let all = [true; 4];
        let found =
            column(&["9007199254740993", "9007199254740992", "9007199254740995.0", "9007199254740994"]);
        assert_eq!(found.kept(&all).ok(), Some(vec![1.0, 0.0, 3.0, 2.0]));
        let mut small_first = column(&["5", "", "-9223372036854775808", "18446744073709551615"]);
        assert!(small_first.kept(&[true, false, true, true]).is_ok());
        small_first.categorise(false);
        assert_eq!(small_first.values[2..], [0.0, 2.0]);
        let far = column(&["0", "18446744073709551614", "18446744073709551615"]);
        let Err(Collision(a, b)) = far.kept(&[true; 3]) else { panic!("equal as f64, and not refused") };
        assert_eq!((a, b), (18446744073709551614, 18446744073709551615));
        assert_eq!(far.kept(&[true, true, false]).ok(), Some(vec![0.0, 18446744073709551614.0]));
    }

    #[test]
    fn numbers_that_f64_has_are_as_they_were() {
        assert_eq!(
            column(&["1.5", "9007199254740993"]).kept(&[true; 2]).ok(),
            Some(vec![1.5, 9007199254740992.0])
        );
        assert_eq!(
            column(&["7", "9007199254740992"]).kept(&[true; 2]).ok(),
            Some(vec![7.0, 9007199254740992.0])
        );
        let huge = format!("1{}", "0".repeat(60));
        assert_eq!(column(&[&huge, "1"]).kept(&[true; 2]).ok(), Some(vec![1e60, 1.0]));
    }
}
