//! The Bullseye network: which of six vectors tell about Y given others, judged against the graph they were drawn from.
//!
//! Yang, Ghassami, Raginsky, Kiyavash and Rosenbaum (UAI 2020) made it, and L-CODEC (Mehta et al., CVPR 2022) is measured
//! on it. Radii follow a Bayesian network, each its parents' mean and uniform noise:
//!
//! ```text
//! R1 → R2    R1 → R3 → R4    R2, R4 → R5    R3, R5 → Y    R4, Y → R6
//! ```
//!
//! X_j `[3]` has length R_j and any direction, so that a line of Y meets shells of X_j. Parents, children and the
//! children's other parents of Y are X3 to X6: its Markov blanket, which leaves X1 and X2 nothing to tell.
//!
//! Every statement "Y depends on X_j given X_S" (6 of j, 32 of S) is measured on the coordinates, a group of 3 columns to
//! a vector, and on the radii, which a learned map of each vector would find at best.
//!
//!     cargo run --release --example bullseye [-- SEED]

use scrubjay::codec::{Columns, Foci, FociOptions, StatisticOptions, foci, p_value, statistic};
use scrubjay::device::Device;
use scrubjay::ops::philox::{Stream, Use};

const N: usize = 5000;
/// The half width of the noise of a radius.
const NOISE: f64 = 0.075;
const PERMUTATIONS: u32 = 49;
/// A p-value from which on a dependence is not seen.
const LEVEL: f64 = 0.05;

const VECTORS: usize = 6;
const Y: usize = VECTORS; // its number among the nodes
/// The parents of X1 to X6 and of Y.
const PARENTS: [&[usize]; VECTORS + 1] = [&[], &[0], &[0], &[2], &[1, 3], &[3, Y], &[2, 4]];
/// An order in which parents come first.
const ORDER: [usize; VECTORS + 1] = [0, 1, 2, 3, 4, Y, 5];
const BLANKET: [usize; 4] = [2, 3, 4, 5];

fn main() -> anyhow::Result<()> {
    let seed = std::env::args().nth(1).map_or(Ok(1), |seed| seed.parse())?;
    let device = Device::cpu()?;
    let (y, radii, coordinates) = draw(seed);
    println!("{N} rows, {PERMUTATIONS} permutations, seed {seed}");
    measure(&device, "coordinates", &y, &coordinates, 3, seed)?;
    Ok(measure(&device, "radii", &y, &radii, 1, seed)?)
}

/// Y `[n]`, the radii `[6, n]` and the coordinates `[18, n]`.
fn draw(seed: u64) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let mut stream = Stream::new(seed, Use::Choice, 0);
    let (mut y, mut radii, mut coordinates) =
        (vec![0.0; N], vec![0.0; VECTORS * N], vec![0.0; 3 * VECTORS * N]);
    for i in 0..N {
        let mut r = [0.0; VECTORS + 1];
        for node in ORDER {
            let parents = PARENTS[node];
            r[node] = match parents.len() {
                0 => 0.25 + 0.25 * stream.uniform() + if stream.uniform() < 0.5 { 0.5 } else { 0.0 },
                count => {
                    let mean = parents.iter().map(|&parent| r[parent]).sum::<f64>() / count as f64;
                    mean + NOISE * (2.0 * stream.uniform() - 1.0)
                }
            };
        }
        y[i] = r[Y];
        for j in 0..VECTORS {
            radii[j * N + i] = r[j];
            let point: [f64; 3] = std::array::from_fn(|_| f64::from(stream.normal()));
            let norm = point.iter().map(|v| v * v).sum::<f64>().sqrt();
            for (axis, value) in point.iter().enumerate() {
                coordinates[(3 * j + axis) * N + i] = r[j] * value / norm;
            }
        }
    }
    (y, radii, coordinates)
}

/// A statement that Y depends on a vector given others, and what was measured.
struct Statement {
    given: usize, // how many
    holds: bool,
    t: f64,
    p: f64,
}

/// Prints how well T and its p-value tell the statements that hold, and the blanket that FOCI finds; a vector is `width`
/// columns.
fn measure(
    device: &Device,
    name: &str,
    y: &[f64],
    columns: &[f64],
    width: usize,
    seed: u64,
) -> scrubjay::Result<()> {
    let data = Columns::from_columns_f64(columns, N, VECTORS * width)?;
    let of = |vector: usize| width * vector..width * (vector + 1);
    let mut statements = Vec::new();
    for j in 0..VECTORS {
        for mask in (0..1usize << VECTORS).filter(|mask| mask >> j & 1 == 0) {
            let given: Vec<usize> = (0..VECTORS).filter(|v| mask >> v & 1 == 1).collect();
            let z: Vec<usize> = of(j).collect();
            let x: Vec<usize> = given.iter().flat_map(|&v| of(v)).collect();
            let options = StatisticOptions { seed, ..Default::default() };
            statements.push(Statement {
                given: given.len(),
                holds: connected(j, &given),
                t: statistic(device, y, &data, &z, &x, &options)?.value.unwrap_or(0.0), // undefined: nothing left to tell
                p: p_value(device, y, &data, &z, &x, &options, PERMUTATIONS)?.unwrap_or(1.0),
            });
        }
    }
    let count = |holds: bool| statements.iter().filter(|one| one.holds == holds).count();
    println!("\n{name}, {width} per vector: {} dependences, {} independences", count(true), count(false));
    println!("{:<22} {:>14} {:>14} {:>15}", "", "area under ROC", "true positives", "false positives");
    print_roc("T > 0", &statements, &|one| one.t, &|one| one.t > 0.0);
    print_roc(&format!("p ≤ {LEVEL}"), &statements, &|one| -one.p, &|one| one.p <= LEVEL);

    println!("{:<22} {:>14} {:>14}", "vectors given", "mean T: depends", "does not");
    for given in 0..VECTORS {
        let mean = |holds: bool| {
            let t: Vec<f64> =
                statements.iter().filter(|s| s.given == given && s.holds == holds).map(|s| s.t).collect();
            match t.len() {
                0 => "-".to_string(),
                count => format!("{:.3}", t.iter().sum::<f64>() / count as f64),
            }
        };
        println!("{given:<22} {:>14} {:>14}", mean(true), mean(false));
    }

    let groups: Vec<Vec<usize>> = (0..VECTORS).map(|v| of(v).collect()).collect();
    print_blanket(&foci(device, y, &data, &FociOptions { groups: &groups, ..Default::default() })?);
    Ok(())
}

/// One line of the ROC table: the area under the curve of `score`, and where `positive` lies on it.
fn print_roc(
    name: &str,
    statements: &[Statement],
    score: &dyn Fn(&Statement) -> f64,
    positive: &dyn Fn(&Statement) -> bool,
) {
    let (holding, others): (Vec<_>, Vec<_>) = statements.iter().partition(|one| one.holds);
    let rate = |of: &[&Statement]| of.iter().filter(|one| positive(one)).count() as f64 / of.len() as f64;
    // The chance that a dependence scores higher than an independence; half where they tie.
    let wins = |a: f64, b: f64| if a > b { 1.0 } else { 0.5 * f64::from(u8::from(a == b)) };
    let pairs = holding.iter().flat_map(|a| others.iter().map(|b| wins(score(a), score(b))));
    let area = pairs.sum::<f64>() / (holding.len() * others.len()) as f64;
    println!("{name:<22} {area:>14.2} {:>13.0}% {:>14.0}%", 100.0 * rate(&holding), 100.0 * rate(&others));
}

fn print_blanket(found: &Foci) {
    let hits = found.order.iter().filter(|j| BLANKET.contains(j)).count() as f64;
    let names: Vec<String> = found.order.iter().map(|j| format!("X{}", j + 1)).collect();
    println!(
        "FOCI finds {}: precision {:.2}, recall {:.2}",
        if names.is_empty() { "nothing".to_string() } else { names.join(" ") },
        hits / found.order.len().max(1) as f64,
        hits / BLANKET.len() as f64
    );
}

/// Whether Y and X_j are d-connected given `given`: joined in the moral graph of the ancestors, `given` taken out
/// (Lauritzen et al., Networks 1990).
fn connected(j: usize, given: &[usize]) -> bool {
    let mut ancestors: Vec<usize> = [&[j, Y], given].concat();
    for node in ORDER.into_iter().rev() {
        if ancestors.contains(&node) {
            ancestors.extend(PARENTS[node]);
        }
    }
    let family = |node: usize| [PARENTS[node], &[node]].concat();
    let mut reached = vec![Y];
    let mut next = 0;
    while let Some(&from) = reached.get(next) {
        let families = ancestors.iter().map(|&node| family(node)).filter(|family| family.contains(&from));
        for node in families.flatten().collect::<Vec<_>>() {
            if !given.contains(&node) && !reached.contains(&node) {
                reached.push(node);
            }
        }
        next += 1;
    }
    reached.contains(&j)
}
