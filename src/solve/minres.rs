//! MINRES, for symmetric systems that may be indefinite.

use super::{Limits, Product, Report, Solver, Vector, damped, residual};
use crate::error::{Error, Result};

/// Floats of Lanczos vectors that MINRES keeps at most (256 MiB).
const BASIS: usize = 1 << 25;

/// Solves the symmetric system as it is, indefinite or not, by MINRES (Paige & Saunders 1975), begun again from the
/// true residual until that is within the tolerance or the products are spent. Each Lanczos vector is made orthogonal
/// to all before it (to as many as 256 MiB, or the device, hold): without that, an ill-conditioned block takes several times p products.
///
/// # Errors
/// Where a product fails or is not finite.
pub fn minres<V: Vector>(
    product: &mut Product<V>,
    b: &V,
    damping: f64,
    limits: Limits,
) -> Result<(V, Report)> {
    let mut report = Report::new(Solver::Minres, damping);
    let scale = b.norm()?;
    let mut x = b.zeros()?;
    if scale == 0.0 {
        (report.residual, report.converged) = (0.0, true);
        return Ok((x, report));
    }
    let mut r = b.copy()?;
    let (mut last, mut size) = (f64::INFINITY, 0.0);
    loop {
        // A quarter of the tolerance by the recurrence, since the true residual is a little larger.
        minres_once(
            product,
            &mut x,
            &r,
            0.25 * limits.tolerance * scale,
            limits.products,
            &mut size,
            &mut report,
        )?;
        residual(product, b, &x, &mut r, scale, &mut report)?;
        report.converged = report.residual <= limits.tolerance;
        // Another round must pay: f32-grade products have a floor.
        if report.converged || report.products >= limits.products || report.residual > 0.5 * last {
            return Ok((x, report));
        }
        last = report.residual;
    }
}

/// Adds to `x` the MINRES solution of (H + λI) d = r; `size` is the largest entry of a tridiagonal matrix seen so far.
fn minres_once<V: Vector>(
    product: &mut Product<V>,
    x: &mut V,
    r: &V,
    target: f64,
    products: usize,
    size: &mut f64,
    report: &mut Report,
) -> Result<()> {
    let n = r.dimension();
    let mut beta = r.norm()?;
    let mut eta = beta;
    // Lanczos vectors and search directions: those before last, last, and now.
    let (mut v0, mut v, mut next) = (r.zeros()?, r.copy()?, r.zeros()?);
    v.divide(beta)?;
    let (mut w0, mut w1, mut w) = (r.zeros()?, r.zeros()?, r.zeros()?);
    let (mut c0, mut c1, mut s0, mut s1) = (1.0, 1.0, 0.0, 0.0);
    let (mut basis, mut full): (Vec<V>, bool) = (vec![], false);
    while eta.abs() > target && report.products < products {
        damped(product, &mut next, &v, report)?;
        let alpha = v.dot(&next)?;
        report.negative_curvature = report.negative_curvature.min(alpha);
        next.add(-alpha, &v)?;
        next.add(-beta, &v0)?;
        if !full && (basis.len() + 1) * n <= BASIS {
            match v.copy() {
                Err(Error::Memory { .. }) => full = true,
                copy => basis.push(copy?),
            }
        }
        for earlier in &basis {
            let along = earlier.dot(&next)?;
            next.add(-along, earlier)?;
        }
        let after = next.norm()?;
        // The two earlier rotations on the new column of the tridiagonal matrix, then a new one.
        let diagonal = c1 * alpha - c0 * s1 * beta;
        let above = s1 * alpha + c0 * c1 * beta;
        let top = s0 * beta;
        let pivot = diagonal.hypot(after);
        *size = size.max(alpha.abs()).max(after);
        if pivot <= 1e-14 * *size {
            break; // the matrix is singular along what is left of r
        }
        w.set(&v)?;
        w.add(-top, &w0)?;
        w.add(-above, &w1)?;
        w.divide(pivot)?;
        (c0, s0) = (c1, s1);
        (c1, s1) = (diagonal / pivot, after / pivot);
        x.add(c1 * eta, &w)?;
        eta *= -s1;
        if after <= f64::EPSILON * alpha.abs().max(beta) {
            break; // an invariant subspace: solved within it
        }
        next.divide(after)?;
        std::mem::swap(&mut v0, &mut v);
        std::mem::swap(&mut v, &mut next);
        std::mem::swap(&mut w0, &mut w1);
        std::mem::swap(&mut w1, &mut w);
        beta = after;
    }
    Ok(())
}
