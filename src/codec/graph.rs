//! The dependence graph of all columns: FOCI of each column on all others estimates its Markov blanket (Azadkia and
//! Chatterjee 2021, §4). Being in a blanket is mutual in the limit; in a sample one side may miss the other, so an edge
//! says whether both columns name each other.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde_json::{Value, json};

use super::columns::Columns;
use super::cpu;
use super::foci::{Foci, Stopped, foci_memory, run};
use super::memory::MemoryEstimate;
use super::options::FociOptions;
use super::watch::Watch;
use crate::communicator::Communicator;
use crate::device::{Cuda, Device};
use crate::error::{Error, Result};

/// Up to this number of rows the blankets are found side by side; above it each uses all threads, so that only one keeps
/// its lists in memory.
const ROWS_SIDE_BY_SIDE: usize = 2000;

/// The blankets of all columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// By column: FOCI of it on all others, with columns numbered as in `x`; none where the search ended before it was
    /// complete.
    pub blankets: Vec<Option<Foci>>,
}

impl Graph {
    /// Pairs a < b of columns of which at least one is in the other's blanket, ascending, and whether both are.
    pub fn edges(&self) -> Vec<(usize, usize, bool)> {
        let holds =
            |a: usize, b: usize| self.blankets[a].as_ref().is_some_and(|found| found.order.contains(&b));
        let p = self.blankets.len();
        (0..p)
            .flat_map(|a| (a + 1..p).map(move |b| (a, b)))
            .filter_map(|(a, b)| match (holds(a, b), holds(b, a)) {
                (false, false) => None,
                (one, other) => Some((a, b, one && other)),
            })
            .collect()
    }

    /// The graph as JSON: the names of the columns, the blanket of each, and the edges.
    pub fn json(&self, names: &[String]) -> Value {
        let blanket = |(j, blanket): (usize, &Option<Foci>)| match blanket {
            None => json!({"column": j, "stopped": Stopped::Interrupted.name()}),
            Some(Foci { order, conditional, cumulative, stopped, .. }) => json!({
                "column": j, "order": order, "conditional": conditional,
                "cumulative": cumulative, "stopped": stopped.name(),
            }),
        };
        let blankets: Vec<Value> = self.blankets.iter().enumerate().map(blanket).collect();
        json!({"names": names, "blankets": blankets, "edges": self.edges()})
    }

    /// The graph in Graphviz's language; an edge is dashed where only one of the two columns has the other in its blanket.
    pub fn dot(&self, names: &[String]) -> String {
        let quoted = |j: usize| {
            let name = names.get(j).map_or_else(|| j.to_string(), Clone::clone);
            format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
        };
        let nodes = (0..self.blankets.len()).map(|j| format!("  {};\n", quoted(j)));
        let edges = self.edges().into_iter().map(|(a, b, both)| {
            format!("  {} -- {}{};\n", quoted(a), quoted(b), if both { "" } else { " [style=dashed]" })
        });
        format!("graph dependence {{\n{}}}\n", nodes.chain(edges).collect::<String>())
    }
}

/// The memory of [`graph`] for `n` rows and `p` columns; on CUDA in the device's memory, as much of it as is free now.
///
/// # Errors
/// Where the device does not report its free memory.
pub fn graph_memory(device: &Device, n: usize, p: usize, options: &FociOptions) -> Result<MemoryEstimate> {
    if device.cuda().is_some() {
        return foci_memory(device, n, p.saturating_sub(1), options);
    }
    let threads = device.threads();
    let (at_once, threads) = if n <= ROWS_SIDE_BY_SIDE { (threads.min(p), 1) } else { (1, threads) };
    let one = cpu::estimate(n, p, options, threads);
    let columns = n.saturating_mul(p).saturating_mul(size_of::<f64>());
    Ok(MemoryEstimate {
        bytes: columns.saturating_add(at_once.saturating_mul(one.bytes.saturating_add(columns))),
        bytes_per_chosen: at_once.saturating_mul(one.bytes_per_chosen),
        method: one.method,
    })
}

/// The blankets of the columns of `x` `[n, p]`; `each` is called after every one. Those in `known`, by column, are not
/// searched again. `options` are those of [`foci`](super::foci()), without initial columns and groups;
/// [`super::Watch::stop`] ends the search and keeps the blankets that are complete. On CUDA one blanket is found after the
/// other.
///
/// # Errors
/// As [`foci`](super::foci()), and fewer than 2 columns, initial columns or groups; the first error of `each`.
pub fn graph(
    device: &Device,
    x: &Columns,
    options: &FociOptions,
    known: &BTreeMap<usize, Foci>,
    each: &(dyn Fn(usize, &Foci) -> Result<()> + Sync),
) -> Result<Graph> {
    device.shared(|device| device.scope(|| blankets(device.cuda(), device.ranks(), x, options, known, each)))
}

fn blankets(
    cuda: Option<&Cuda>,
    among: &Communicator,
    x: &Columns,
    options: &FociOptions,
    known: &BTreeMap<usize, Foci>,
    each: &(dyn Fn(usize, &Foci) -> Result<()> + Sync),
) -> Result<Graph> {
    if x.p() < 2 || !options.initial.is_empty() || !options.groups.is_empty() {
        return Err(Error::config(
            "a graph needs 2 columns at least, and knows no groups and no initial columns",
        ));
    }
    let unknown = |j: usize, found: &Foci| j >= x.p() || found.order.iter().any(|&k| k >= x.p() || k == j);
    if let Some((j, _)) = known.iter().find(|(j, found)| unknown(**j, found)) {
        return Err(Error::config(format!(
            "the known blanket of column {j} names a column that is not there"
        )));
    }
    let columns: Vec<f64> = (0..x.p()).flat_map(|j| x.column(j)).collect();
    let n = x.n();
    let one = |j: usize| {
        if let Some(known) = known.get(&j) {
            return Ok(Some(known.clone()));
        }
        let y = &columns[j * n..(j + 1) * n];
        let others = [&columns[..j * n], &columns[(j + 1) * n..]].concat();
        let others = Columns::from_columns_f64(&others, n, x.p() - 1)?;
        let alone = Communicator::alone();
        let mut found = run(cuda, &alone, y, &others, options, &mut |_, _| ())?;
        found.order.iter_mut().for_each(|other| *other += usize::from(*other >= j));
        if found.stopped == Stopped::Interrupted {
            return Ok(None);
        }
        if among.size() == 1 {
            each(j, &found)?;
        }
        Ok(Some(found))
    };
    let side_by_side = n <= ROWS_SIDE_BY_SIDE && cuda.is_none();
    let some = |columns: Vec<usize>| match side_by_side {
        true => columns.into_par_iter().map(one).collect::<Result<Vec<_>>>(),
        false => columns.into_iter().map(one).collect(),
    };
    if among.size() == 1 {
        return Ok(Graph { blankets: some((0..x.p()).collect())? });
    }
    let turn = among.size() * if side_by_side { rayon::current_num_threads() } else { 1 };
    let mut blankets = vec![];
    while blankets.len() < x.p() {
        let first = blankets.len();
        let count = turn.min(x.p() - first);
        let own = some(among.own(count).map(|at| first + at).collect());
        if among.any(options.watch.is_some_and(Watch::stopped))? {
            options.watch.iter().for_each(|watch| watch.stop());
        }
        let found = among.share(count, own)?;
        among.first(|| {
            let fresh = (first..).zip(&found).filter(|(j, _)| !known.contains_key(j));
            fresh
                .filter_map(|(j, found)| Some((j, found.as_ref()?)))
                .try_for_each(|(j, found)| each(j, found))
        })?;
        blankets.extend(found);
    }
    Ok(Graph { blankets })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::philox::{Stream, Use};

    #[test]
    fn a_chain_is_found_and_drawn() {
        let n = 400;
        let mut stream = Stream::new(2, Use::Choice, 0);
        let mut normals = || (0..n).map(|_| f64::from(stream.normal())).collect::<Vec<f64>>();
        let (a, noise, other) = (normals(), normals(), normals());
        let b: Vec<f64> = a.iter().zip(&noise).map(|(a, e)| a + 0.1 * e).collect();
        let columns = [a, b, other].concat();
        let x = Columns::from_columns_f64(&columns, n, 3).unwrap();
        let options = FociOptions { max_features: Some(1), ..Default::default() };
        let none = BTreeMap::new();
        let device = Device::cpu().unwrap();
        let found = graph(&device, &x, &options, &none, &|_, _| Ok(())).unwrap();
        assert!(found.edges().contains(&(0, 1, true)));
        let shared = Communicator::in_threads(2, |ranks| {
            let (leads, looked) = (ranks.leads(), std::sync::Mutex::new(vec![]));
            let device = Device::on_cpu(1, "a test")?.among(ranks)?;
            let found = graph(&device, &x, &options, &none, &|j, _| {
                looked.lock().unwrap().push(j);
                Ok(())
            })?;
            assert_eq!(looked.into_inner().unwrap(), if leads { vec![0, 1, 2] } else { vec![] });
            Ok(found.json(&["a".into(), "b".into(), "c".into()]))
        });
        let expected = found.json(&["a".into(), "b".into(), "c".into()]);
        shared.into_iter().for_each(|shared| assert_eq!(shared.unwrap(), expected));
        let dot = found.dot(&["a".into(), "b \"c\"".into(), "d".into()]);
        assert!(
            dot.starts_with("graph dependence {\n  \"a\";\n") && dot.contains("\"a\" -- \"b \\\"c\\\"\";")
        );
        let watch = Watch::default();
        watch.stop();
        let stopped =
            graph(&device, &x, &FociOptions { watch: Some(&watch), ..options }, &none, &|_, _| Ok(()))
                .unwrap();
        assert!(stopped.blankets.iter().all(Option::is_none) && stopped.edges().is_empty());
        let known = BTreeMap::from([(1, found.blankets[1].clone().unwrap())]);
        let looked = |j, _: &Foci| if j == 1 { Err(Error::config("looked at twice")) } else { Ok(()) };
        assert_eq!(graph(&device, &x, &options, &known, &looked).unwrap(), found);
    }
}
