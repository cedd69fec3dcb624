//! Solve (H + λI) x = b on the block, by products alone (MATH.md, Eq. 12): conjugate gradient where the matrix is positive,
//! MINRES where it may be indefinite. Vectors are f64, on the host or on a GPU; a product may be f32-grade.
//!
//! Neither solver trusts its own recurrence: the residual that a report states is b − (H + λI)x, computed at the end,
//! and where it misses the tolerance the solve goes on from there.

mod minres;
mod secant;
mod vector;

pub use minres::minres;
pub use secant::Secant;
pub use vector::{BlockVector, CudaVector, Vector};

use crate::error::{Error, Result};
use crate::names::names;

/// A symmetric matrix, as `product(out, v)`: out = H v.
pub type Product<'a, V = Vec<f64>> = dyn FnMut(&mut V, &V) -> Result<()> + 'a;

/// A positive definite matrix near (H + λI)⁻¹, as `precondition(out, v)`.
pub type Preconditioner<'a, V = Vec<f64>> = dyn Fn(&mut V, &V) -> Result<()> + 'a;

/// How long to go on, and how far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// ‖b − (H + λI)x‖ / ‖b‖ to reach.
    pub tolerance: f64,
    /// Products to spend at most.
    pub products: usize,
}

/// What conjugate gradient does where the curvature along its direction is not positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negative {
    /// Stop with [`Error::NegativeCurvature`].
    Refuse,
    /// Multiply λ by 10 (from at least 1e-4 of the curvature seen) and begin again; the report says so.
    Raise,
    /// Return what there is; the report says so.
    Truncate,
}

/// The solvers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solver {
    /// Conjugate gradient.
    Cg,
    /// Conjugate gradient, preconditioned.
    PreconditionedCg,
    /// MINRES.
    Minres,
    /// K-FAC's inverses.
    Kfac,
    /// Sherman and Morrison's formula on a secant.
    ShermanMorrison,
    /// None: the gradient itself.
    None,
}

names!(Solver {
    Cg = "cg",
    PreconditionedCg = "preconditioned cg",
    Minres = "minres",
    Kfac = "kfac",
    ShermanMorrison = "sherman-morrison",
    None = "none",
});

/// What an iterative solver did.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Report {
    /// Which one.
    pub solver: Solver,
    /// λ that was used in the end.
    pub damping: f64,
    /// Products spent.
    pub products: usize,
    /// ‖b − (H + λI)x‖ / ‖b‖.
    pub residual: f64,
    /// Whether the residual is within the tolerance.
    pub converged: bool,
    /// The most negative curvature met, vᵀ(H + λI)v / vᵀv; 0 where none was.
    pub negative_curvature: f64,
    /// How often λ was raised.
    pub raised: usize,
}

impl Report {
    fn new(solver: Solver, damping: f64) -> Report {
        Report {
            solver,
            damping,
            products: 0,
            residual: 1.0,
            converged: false,
            negative_curvature: 0.0,
            raised: 0,
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// out = (H + λI) v; counts.
fn damped<V: Vector>(product: &mut Product<V>, out: &mut V, v: &V, report: &mut Report) -> Result<()> {
    product(out, v)?;
    report.products += 1;
    out.add(report.damping, v)?;
    match out.dot(out)?.is_finite() {
        true => Ok(()),
        false => Err(Error::Solve { reason: format!("product {} is not finite", report.products) }),
    }
}

/// Solves by conjugate gradient, preconditioned where a preconditioner is given, from 0, or from `start` `[p]` scaled so
/// that it is nearest to the solution in the norm of H + λI.
///
/// # Errors
/// Where a product fails or is not finite, or the curvature is negative and `negative` refuses it.
pub fn conjugate_gradient<V: Vector>(
    product: &mut Product<V>,
    b: &V,
    start: Option<&V>,
    precondition: Option<&Preconditioner<V>>,
    damping: f64,
    negative: Negative,
    limits: Limits,
) -> Result<(V, Report)> {
    let solver = if precondition.is_some() { Solver::PreconditionedCg } else { Solver::Cg };
    let mut report = Report::new(solver, damping);
    let scale = b.norm()?;
    let mut x = b.zeros()?;
    if scale == 0.0 {
        (report.residual, report.converged) = (0.0, true);
        return Ok((x, report));
    }
    let (mut r, mut moved) = (b.copy()?, b.zeros()?);
    if let Some(start) = start {
        damped(product, &mut moved, start, &mut report)?;
        let (along, curvature) = (b.dot(start)?, start.dot(&moved)?);
        // Where the curvature is not positive along it, or it leads away, 0 is the better start.
        if along > 0.0 && curvature > 0.0 {
            x.add(along / curvature, start)?;
            r.add(-along / curvature, &moved)?;
        }
    }
    let mut z = b.zeros()?; // the preconditioned residual
    let again = |z: &mut V, r: &V| match precondition {
        Some(precondition) => precondition(z, r),
        None => z.set(r),
    };
    again(&mut z, &r)?;
    let mut direction = z.copy()?;
    let mut rz = r.dot(&z)?;
    while r.norm()? > limits.tolerance * scale && report.products < limits.products {
        damped(product, &mut moved, &direction, &mut report)?;
        let curvature = direction.dot(&moved)?;
        let relative = curvature / direction.dot(&direction)?;
        if relative <= 0.0 {
            report.negative_curvature = report.negative_curvature.min(relative);
            match negative {
                Negative::Refuse => {
                    let remedy = "use MINRES, the Gauss-Newton matrix, or a larger damping".to_string();
                    return Err(Error::NegativeCurvature {
                        curvature: relative,
                        products: report.products,
                        remedy,
                    });
                }
                Negative::Truncate => break,
                Negative::Raise => {
                    report.damping = (10.0 * report.damping).max(1e-4 * relative.abs()).max(1e-12);
                    report.raised += 1;
                    x = b.zeros()?;
                    r.set(b)?;
                    again(&mut z, &r)?;
                    direction.set(&z)?;
                    rz = r.dot(&z)?;
                    continue;
                }
            }
        }
        let step = rz / curvature;
        x.add(step, &direction)?;
        r.add(-step, &moved)?;
        again(&mut z, &r)?;
        let next = r.dot(&z)?;
        direction.mix(&z, next / rz)?;
        rz = next;
    }
    residual(product, b, &x, &mut r, scale, &mut report)?;
    report.converged = report.residual <= limits.tolerance * (1.0 + 1e-9);
    Ok((x, report))
}

/// r = b − (H + λI) x, and its relative norm to the report.
fn residual<V: Vector>(
    product: &mut Product<V>,
    b: &V,
    x: &V,
    r: &mut V,
    scale: f64,
    report: &mut Report,
) -> Result<()> {
    damped(product, r, x, report)?;
    r.mix(b, -1.0)?;
    report.residual = r.norm()? / scale;
    Ok(())
}

/// An estimate of the largest eigenvalue by `steps` power iterations from `start` (from ones where that is 0): a lower
/// bound, usually within a few per cent.
///
/// # Errors
/// Where a product fails or is not finite.
pub fn largest_eigenvalue<V: Vector>(product: &mut Product<V>, start: &V, steps: usize) -> Result<f64> {
    let mut report = Report::new(Solver::None, 0.0);
    let mut v = match start.norm()? > 0.0 {
        true => start.copy()?,
        false => start.like(&vec![1.0; start.dimension()])?,
    };
    let mut out = v.zeros()?;
    let mut value = 0.0;
    for _ in 0..steps {
        let scale = v.norm()?;
        if scale == 0.0 {
            break;
        }
        v.divide(scale)?;
        damped(product, &mut out, &v, &mut report)?;
        value = v.dot(&out)?;
        std::mem::swap(&mut v, &mut out);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A symmetric matrix Q diag(values) Qᵀ with a fixed rotation.
    fn matrix(values: &[f64]) -> Vec<Vec<f64>> {
        let n = values.len();
        let mut a: Vec<Vec<f64>> =
            (0..n).map(|i| (0..n).map(|j| if i == j { values[i] } else { 0.0 }).collect()).collect();
        for (i, j) in (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))) {
            let (s, c) = (0.7 + 0.3 * i as f64 + 0.1 * j as f64).sin_cos();
            for row in &mut a {
                (row[i], row[j]) = (c * row[i] - s * row[j], s * row[i] + c * row[j]);
            }
            for k in 0..n {
                (a[i][k], a[j][k]) = (c * a[i][k] - s * a[j][k], s * a[i][k] + c * a[j][k]);
            }
        }
        a
    }

    fn times(a: &[Vec<f64>]) -> impl FnMut(&mut Vec<f64>, &Vec<f64>) -> Result<()> + '_ {
        move |out, v| {
            out.iter_mut().zip(a).for_each(|(out, row)| *out = dot(row, v));
            Ok(())
        }
    }

    fn b(n: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 7 % 5) as f64) - 1.5).collect()
    }

    const TIGHT: Limits = Limits { tolerance: 1e-10, products: 200 };

    #[test]
    fn both_solve_positive_systems_and_their_residual_is_true() {
        let a = matrix(&[0.5, 1.0, 2.0, 10.0, 30.0, 100.0]);
        for damping in [0.0, 0.1] {
            let (x, report) =
                conjugate_gradient(&mut times(&a), &b(6), None, None, damping, Negative::Refuse, TIGHT)
                    .unwrap();
            assert!(report.converged && report.residual < 1e-10, "{report:?}");
            let (y, report) = minres(&mut times(&a), &b(6), damping, TIGHT).unwrap();
            assert!(report.converged, "{report:?}");
            assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-8));
            // From near the solution, whatever its length, it is there at once; from one that leads away, as from 0.
            let near: Vec<f64> = x.iter().map(|x| 7.0 * x).collect();
            let away: Vec<f64> = x.iter().map(|x| -x).collect();
            let from = |start: &Vec<f64>| {
                conjugate_gradient(&mut times(&a), &b(6), Some(start), None, damping, Negative::Refuse, TIGHT)
                    .unwrap()
            };
            let (z, report) = from(&near);
            assert!(
                report.products == 2 && x.iter().zip(&z).all(|(x, z)| (x - z).abs() < 1e-8),
                "{report:?}"
            );
            assert_eq!(from(&away).0, x);
        }
    }

    #[test]
    fn a_preconditioner_near_the_inverse_saves_products() {
        let values: Vec<f64> = (0..12).map(|i| 2.0f64.powi(i)).collect();
        let a = matrix(&values);
        let inverse = matrix(&values.iter().map(|v| 1.0 / (v + 0.3)).collect::<Vec<_>>());
        let near = |out: &mut Vec<f64>, v: &Vec<f64>| {
            out.iter_mut().zip(&inverse).for_each(|(out, row)| *out = dot(row, v));
            Ok(())
        };
        let solve = |with: Option<&Preconditioner>| {
            conjugate_gradient(&mut times(&a), &b(12), None, with, 0.1, Negative::Refuse, TIGHT).unwrap()
        };
        let ((x, plain), (y, preconditioned)) = (solve(None), solve(Some(&near)));
        assert!(plain.converged && preconditioned.converged, "{plain:?} {preconditioned:?}");
        assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-8));
        assert!(2 * preconditioned.products < plain.products + 2, "{plain:?} {preconditioned:?}");
    }

    #[test]
    fn indefinite_systems_are_minres_s_and_conjugate_gradient_follows_its_rule() {
        let a = matrix(&[-3.0, -0.5, 0.2, 1.0, 4.0]);
        let (_, report) = minres(&mut times(&a), &b(5), 0.0, TIGHT).unwrap();
        assert!(report.converged && report.negative_curvature < 0.0, "{report:?}");
        let run = |negative| conjugate_gradient(&mut times(&a), &b(5), None, None, 0.0, negative, TIGHT);
        assert!(matches!(run(Negative::Refuse), Err(Error::NegativeCurvature { .. })));
        let (_, report) = run(Negative::Truncate).unwrap();
        assert!(!report.converged && report.negative_curvature < 0.0, "{report:?}");
        let (_, report) = run(Negative::Raise).unwrap();
        assert!(report.converged && report.raised > 0 && report.damping > 0.0, "{report:?}");
    }

    #[test]
    fn singular_zero_and_scalar_systems_end() {
        let a = matrix(&[0.0, 1.0, 2.0]);
        let (_, report) = minres(&mut times(&a), &b(3), 0.0, TIGHT).unwrap();
        assert!(report.residual <= 1.0 && report.products <= TIGHT.products);
        let (x, report) = minres(&mut times(&a), &vec![0.0; 3], 0.0, TIGHT).unwrap();
        assert!(x == [0.0; 3] && report.converged && report.products == 0);
        let one = vec![vec![4.0]];
        let (x, _) =
            conjugate_gradient(&mut times(&one), &vec![2.0], None, None, 0.0, Negative::Refuse, TIGHT)
                .unwrap();
        assert_eq!(x, [0.5]);
        let (x, _) = minres(&mut times(&one), &vec![2.0], 0.0, TIGHT).unwrap();
        assert!((x[0] - 0.5).abs() < 1e-15);
    }

    #[test]
    fn limits_hold_and_broken_products_are_errors() {
        let a = matrix(&[1.0, 1e3, 1e6, 1e9]);
        let few = Limits { tolerance: 1e-14, products: 2 };
        let (_, report) =
            conjugate_gradient(&mut times(&a), &b(4), None, None, 0.0, Negative::Refuse, few).unwrap();
        assert!(!report.converged && report.products == 3, "{report:?}"); // two, and the true residual
        let mut broken = |out: &mut Vec<f64>, _: &Vec<f64>| {
            out.fill(f64::NAN);
            Ok(())
        };
        assert!(matches!(minres(&mut broken, &b(4), 0.0, few), Err(Error::Solve { .. })));
    }

    #[test]
    fn the_largest_eigenvalue_is_found() {
        let a = matrix(&[0.5, 1.0, 2.0, 30.0]);
        let value = largest_eigenvalue(&mut times(&a), &b(4), 20).unwrap();
        assert!((value - 30.0).abs() < 1e-6, "{value}");
    }

    #[test]
    fn a_gpu_solves_as_the_host_does_and_allocates_nothing_between_products() {
        let values: Vec<f64> = (0..70).map(|i| 0.5 + f64::from(i % 13)).collect();
        let (definite, mut indefinite) = (matrix(&values), values.clone());
        indefinite.iter_mut().step_by(5).for_each(|v| *v = -*v);
        let indefinite = matrix(&indefinite);
        for seed in 0..4 {
            let cuda = crate::device::Cuda::emulated(seed);
            let right = CudaVector::new(&cuda, &b(70)).unwrap();
            let mut allocations = vec![];
            let mut product = |a: &[Vec<f64>], out: &mut CudaVector, v: &CudaVector| {
                allocations.push(cuda.counts().allocations);
                let mut host = vec![0.0; 70];
                times(a)(&mut host, &v.values()?)?;
                cuda.write(out.output(), &host)
            };
            let near = |x: &CudaVector, y: &[f64]| {
                let x = x.values().unwrap();
                assert!(x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-9), "{x:?} {y:?}");
            };
            let negative = Negative::Refuse;
            let mut on_gpu = |out: &mut CudaVector, v: &CudaVector| product(&definite, out, v);
            let (x, report) =
                conjugate_gradient(&mut on_gpu, &right, Some(&right), None, 0.1, negative, TIGHT).unwrap();
            let host =
                conjugate_gradient(&mut times(&definite), &b(70), Some(&b(70)), None, 0.1, negative, TIGHT);
            let (y, expected) = host.unwrap();
            near(&x, &y);
            assert_eq!((report.products, report.converged), (expected.products, true));
            assert!(allocations.len() > 4 && allocations[3..].iter().all(|n| *n == allocations[3]));
            let mut on_gpu = |out: &mut CudaVector, v: &CudaVector| {
                let mut host = vec![0.0; 70];
                times(&indefinite)(&mut host, &v.values()?)?;
                cuda.write(out.output(), &host)
            };
            let (x, report) = minres(&mut on_gpu, &right, 0.1, TIGHT).unwrap();
            let (y, expected) = minres(&mut times(&indefinite), &b(70), 0.1, TIGHT).unwrap();
            near(&x, &y);
            assert!(report.converged && expected.converged, "{report:?} {expected:?}");
            let found = largest_eigenvalue(&mut on_gpu, &right, 20).unwrap();
            let expected = largest_eigenvalue(&mut times(&indefinite), &b(70), 20).unwrap();
            assert!((found - expected).abs() < 1e-9 * expected.abs());
        }
    }
}
