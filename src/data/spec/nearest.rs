//! Names that are like another, for errors.

/// The known names that are most like another, for an error.
pub fn nearest(name: &str, known: &[String]) -> String {
    let mut all: Vec<&str> = known.iter().map(String::as_str).filter(|known| !known.is_empty()).collect();
    all.sort_unstable();
    all.dedup();
    let (count, few) = (all.len(), 5);
    all.truncate(100_000); // enough to find one that is like it
    all.sort_by_cached_key(|known| distance(name, known));
    let some: Vec<String> = all.iter().take(few).map(|name| format!("`{name}`")).collect();
    match count {
        0 => String::new(),
        count if count <= few => format!("; there are {}", some.join(", ")),
        count => format!("; nearest of {count}: {}", some.join(", ")),
    }
}

/// How many letters have to be put in, taken out or changed to make one word the other (Levenshtein), of their first 40.
fn distance(one: &str, other: &str) -> usize {
    let letters = |word: &str| word.chars().flat_map(char::to_lowercase).take(40).collect::<Vec<char>>();
    let (one, other) = (letters(one), letters(other));
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let changed = corner + usize::from(a != b);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_changed_letters() {
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("A", "a")), (3, 3, 0));
        let known = ["spam", "ham", "", "eggs", "spam", "toast", "tea", "jam"].map(String::from);
        assert_eq!(nearest("Ham", &known), "; nearest of 6: `ham`, `jam`, `spam`, `tea`, `eggs`");
        assert_eq!(
            (nearest("x", &known[..2]), nearest("x", &[])),
            ("; there are `ham`, `spam`".into(), String::new())
        );
    }
}
