//! Rows in memory.

use std::collections::{HashMap, HashSet};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

/// The rows of a file.
#[derive(Debug, Default)]
pub struct Records {
    /// The names of the columns, each once.
    pub columns: Vec<String>,
    /// Of each row its place in the file, in words, and a cell for every column; null where it has none.
    pub rows: Vec<(String, Vec<Value>)>,
    /// The names of classes of columns that have their numbers.
    pub classes: Vec<(String, Vec<String>)>,
}

/// A JSON object's keys and values in their order, each key once.
pub struct Object(pub Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Object, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object such as {\"text\": \"..\", \"label\": 0}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut pairs: Vec<(String, Value)> = vec![];
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    pairs.push((key, value));
                }
                let mut keys = HashSet::with_capacity(pairs.len());
                match pairs.iter().find(|(key, _)| !keys.insert(key.as_str())) {
                    None => Ok(Object(pairs)),
                    Some((key, _)) => Err(A::Error::custom(format!("the key `{key}` is there twice"))),
                }
            }
        }
        from.deserialize_map(Pairs)
    }
}

/// Rows of any keys may have this many cells,
const CELLS: usize = 1 << 24;
/// and more where so large a part of them has a value: a file of a megabyte with other keys in every row would fill the
/// memory.
const FILLED: usize = 64;

/// Objects as rows of all keys.
///
/// # Errors
/// Where nearly all cells would be empty, in words.
pub fn of_objects(objects: Vec<(String, Object)>) -> Result<Records, String> {
    let filled: usize = objects.iter().map(|(_, Object(pairs))| pairs.len()).sum();
    let keys: HashSet<&str> =
        objects.iter().flat_map(|(_, Object(pairs))| pairs).map(|(key, _)| key.as_str()).collect();
    let (n, keys) = (objects.len(), keys.len());
    if n.saturating_mul(keys) > filled.saturating_mul(FILLED).max(CELLS) {
        return Err(format!(
            "has {n} objects of {keys} different keys, and most objects lack most of them; a key names a column, so give all objects the same ones"
        ));
    }
    let (mut columns, mut places): (Vec<String>, HashMap<String, usize>) = Default::default();
    let mut rows = vec![];
    for (place, Object(pairs)) in objects {
        let mut cells = vec![Value::Null; columns.len()];
        for (key, value) in pairs {
            match places.get(&key) {
                Some(&at) => cells[at] = value,
                None => {
                    places.insert(key.clone(), columns.len());
                    columns.push(key);
                    cells.push(value);
                }
            }
        }
        rows.push((place, cells));
    }
    rows.iter_mut().for_each(|(_, cells)| cells.resize(columns.len(), Value::Null));
    Ok(Records { columns, rows, classes: vec![] })
}
