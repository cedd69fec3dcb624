//! Blocks of units: their values, gradient, products with the curvature, and solves.

use std::sync::Arc;

use scrubjay::block::Block;
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::data::Samples;
use scrubjay::net::UnitId;
use scrubjay::session::fits;
use scrubjay::solve::{BlockVector, Limits, Negative, Report, Vector, conjugate_gradient, minres};

use crate::device::DeviceObject;
use crate::entry::entry;
use crate::handle::{Handle, NewHandle, Object};
use crate::model::{Model, count, some};
use crate::raw::{In, Info, Options, Out, Text, versioned};
use crate::samples::SamplesObject;
use crate::status::{Failure, Outcome};
use crate::tensor::{self, Tensor};

/// `sj_block`.
pub struct BlockObject {
    block: Block,
    model: Arc<Model>,
}

impl Object for BlockObject {
    const NAME: &'static str = "block";
}

impl BlockObject {
    /// A vector of the block that the caller gives, in the order kept here.
    fn kept(&self, tensor: &In<Tensor>, what: &'static str) -> Outcome<Vec<f64>> {
        let stored = tensor::vector(tensor, what, Some(self.block.len()))?;
        match stored.iter().position(|value| !value.is_finite()) {
            Some(i) => Err(Failure::argument(format!("{what}: element {i} is {}", stored[i]))),
            None => Ok(self.block.from_stored(&self.model.network, &stored)),
        }
    }

    /// Writes a vector of the block to a place of the caller's, in PyTorch's order.
    fn give<T: Copy + Into<f64>>(&self, target: &tensor::Target, kept: &[T]) -> Outcome {
        target.write(&self.block.to_stored(&self.model.network, kept))
    }
}

/// `sj_curvature`.
pub struct CurvatureObject {
    /// Before what it borrows, so that it ends first.
    curvature: Curvature<'static>,
    block: Arc<BlockObject>,
    _device: Arc<DeviceObject>,
    _samples: Arc<SamplesObject>,
}

impl Object for CurvatureObject {
    const NAME: &'static str = "curvature";
}

impl CurvatureObject {
    fn new(
        device: Arc<DeviceObject>,
        block: Arc<BlockObject>,
        samples: Arc<SamplesObject>,
        kind: Kind,
        memory: usize,
    ) -> Outcome<CurvatureObject> {
        /// A reference that lives as long as the object it is kept beside.
        fn lasting<T>(object: &T) -> &'static T {
            // SAFETY: the callers below pass what is within an `Arc` that is kept beside the curvature and ends after it. What
            // an `Arc` holds is never moved, and is not changed here.
            unsafe { &*std::ptr::from_ref(object) }
        }
        let curvature = Curvature::new(
            lasting(&device.device),
            lasting(&block.model.network),
            lasting(&block.block),
            lasting::<Samples>(&samples.samples),
            kind,
            memory,
        )?;
        Ok(CurvatureObject { curvature, block, _device: device, _samples: samples })
    }
}

versioned! {
    /// `sj_curvature_options`.
    CurvatureOptions as "sj_curvature_options" {
        kind: Text = Text::NONE,
        memory: u64 = 4 << 30,
    }
}

versioned! {
    /// `sj_solve_options`.
    SolveOptions as "sj_solve_options" {
        solver: Text = Text::NONE,
        negative: Text = Text::NONE,
        damping: f64 = 0.0,
        tolerance: f64 = 1e-5,
        products: u64 = 0,
    }
}

versioned! {
    /// `sj_solve_report`.
    SolveReport as "sj_solve_report" {
        damping: f64 = 0.0,
        products: u64 = 0,
        residual: f64 = 0.0,
        converged: u64 = 0,
        negative_curvature: f64 = 0.0,
        raised: u64 = 0,
    }
}

/// The solvers that can be asked for.
enum Method {
    Minres,
    Cg(Negative),
}

impl SolveOptions {
    fn method(&self) -> Outcome<Method> {
        let negative = match self.negative.find("negative")? {
            None => None,
            Some("refuse") => Some(Negative::Refuse),
            Some("raise") => Some(Negative::Raise),
            Some("truncate") => Some(Negative::Truncate),
            Some(other) => {
                return Err(Failure::argument(format!(
                    "negative is refuse, raise or truncate, not `{other}`"
                )));
            }
        };
        match (self.solver.find("solver")?, negative) {
            (None | Some("minres"), None) => Ok(Method::Minres),
            (None | Some("minres"), Some(_)) => Err(Failure::argument("negative is for the solver cg")),
            (Some("cg"), negative) => Ok(Method::Cg(negative.unwrap_or(Negative::Refuse))),
            (Some(other), _) => Err(Failure::argument(format!("the solver is minres or cg, not `{other}`"))),
        }
    }

    fn limits(&self, p: usize) -> Outcome<(f64, Limits)> {
        for (value, what) in [(self.damping, "damping"), (self.tolerance, "tolerance")] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Failure::argument(format!("{what} is a number of at least 0, not {value}")));
            }
        }
        let products = some(self.products, "products")?.unwrap_or(10 * p + 100);
        Ok((self.damping, Limits { tolerance: self.tolerance, products }))
    }
}

impl From<Report> for SolveReport {
    fn from(report: Report) -> SolveReport {
        SolveReport {
            damping: report.damping,
            products: report.products as u64,
            residual: report.residual,
            converged: report.converged.into(),
            negative_curvature: report.negative_curvature,
            raised: report.raised as u64,
            ..SolveReport::EMPTY
        }
    }
}

entry! {
    /// A block of units.
    fn sj_block_new(model: Handle<Model>, units: In<u32>, number: u64, block: NewHandle<BlockObject>) {
        block.open()?;
        let model = model.get()?;
        let made = match (units.is_null(), number) {
            (true, 0) => Block::all(&model.network)?,
            (false, 0) => return Err(Failure::argument("no units; NULL stands for all of them")),
            _ => {
                let units = units.list(count(number, "units")?, "list of units")?;
                Block::of(&model.network, &units.iter().map(|&unit| UnitId(unit)).collect::<Vec<_>>())?
            }
        };
        block.put(BlockObject { block: made, model })
    }

    /// p.
    fn sj_block_get_size(block: Handle<BlockObject>, parameters: Out<u64>) {
        let (block, place) = (block.get()?, parameters.open("number of parameters")?);
        place.write(block.block.len() as u64);
        Ok(())
    }

    /// The parameters.
    fn sj_block_get_values(block: Handle<BlockObject>, values: In<Tensor>) {
        let block = block.get()?;
        let target = tensor::target(&values, "values", &[block.block.len()])?;
        block.give(&target, &block.block.values(&block.model.network))
    }

    /// The mean gradient of the loss.
    fn sj_block_get_gradient(
        device: Handle<DeviceObject>,
        block: Handle<BlockObject>,
        samples: Handle<SamplesObject>,
        gradient: In<Tensor>,
    ) {
        let (device, block, samples) = (device.get()?, block.get()?, samples.get()?);
        let target = tensor::target(&gradient, "gradient", &[block.block.len()])?;
        let net = &block.model.network;
        fits(net, &samples.samples, "the samples")?;
        block.give(&target, &block.block.gradient(&device.device, net, &*samples.samples)?)
    }

    /// Ends a handle.
    fn sj_block_free(block: Handle<BlockObject>) {
        block.free()
    }

    /// Fills in the defaults.
    fn sj_curvature_options_init(options: Info<CurvatureOptions>, struct_size: usize) {
        options.init(struct_size)
    }

    /// Fills in the defaults.
    fn sj_solve_options_init(options: Info<SolveOptions>, struct_size: usize) {
        options.init(struct_size)
    }

    /// The curvature of the mean loss on a block.
    fn sj_curvature_new(
        device: Handle<DeviceObject>,
        block: Handle<BlockObject>,
        samples: Handle<SamplesObject>,
        options: Options<CurvatureOptions>,
        curvature: NewHandle<CurvatureObject>,
    ) {
        curvature.open()?;
        let (device, block, samples, options) = (device.get()?, block.get()?, samples.get()?, options.get()?);
        let kind = options.kind.named::<Kind>("kind")?.unwrap_or(Kind::Hessian);
        fits(&block.model.network, &samples.samples, "the samples")?;
        curvature.put(CurvatureObject::new(device, block, samples, kind, count(options.memory, "memory")?)?)
    }

    /// The gradient over the same samples.
    fn sj_curvature_get_gradient(curvature: Handle<CurvatureObject>, gradient: In<Tensor>) {
        let curvature = curvature.get()?;
        let target = tensor::target(&gradient, "gradient", &[curvature.block.block.len()])?;
        curvature.block.give(&target, curvature.curvature.gradient())
    }

    /// hv = H v.
    fn sj_curvature_product(curvature: Handle<CurvatureObject>, v: In<Tensor>, hv: In<Tensor>) {
        let curvature = curvature.get()?;
        let block = &curvature.block;
        let p = block.block.len();
        let target = tensor::target(&hv, "hv", &[p])?;
        let wide = block.kept(&v, "v")?;
        let (mut out, mut narrow) = (vec![0.0; p], vec![0.0f32; p]);
        if tensor::is_f32(&v, "v")? {
            narrow.iter_mut().zip(&wide).for_each(|(to, &from)| *to = from as f32);
            curvature.curvature.apply(&mut out, &narrow)?;
        } else {
            curvature.curvature.apply_wide(&mut out, &wide, &mut narrow)?;
        }
        block.give(&target, &out)
    }

    /// x = (H + λI)⁻¹ b.
    fn sj_curvature_solve(
        curvature: Handle<CurvatureObject>,
        b: In<Tensor>,
        x: In<Tensor>,
        options: Options<SolveOptions>,
        report: Info<SolveReport>,
    ) {
        let (object, options) = (curvature.get()?, options.get()?);
        let (block, curvature) = (&object.block, &object.curvature);
        let p = block.block.len();
        let target = tensor::target(&x, "x", &[p])?;
        if !report.is_null() {
            report.check()?;
        }
        let (method, (damping, limits)) = (options.method()?, options.limits(p)?);
        let right = match b.is_null() {
            true => curvature.gradient().to_vec(),
            false => block.kept(&b, "b")?,
        };
        let right = curvature.block_vector(&right)?;
        let mut product = |out: &mut BlockVector, v: &BlockVector| curvature.product(out, v);
        let (found, spent) = match method {
            Method::Minres => minres(&mut product, &right, damping, limits)?,
            Method::Cg(negative) => {
                conjugate_gradient(&mut product, &right, None, None, damping, negative, limits)?
            }
        };
        block.give(&target, &found.values()?)?;
        if report.is_null() { Ok(()) } else { report.put(spent.into()) }
    }

    /// Ends a handle.
    fn sj_curvature_free(curvature: Handle<CurvatureObject>) {
        curvature.free()
    }
}
