//! Update: the step's length, and the noise of a certificate (MATH.md, Eq. 13 and 15).

use std::sync::atomic::AtomicBool;

use crate::block::Block;
use crate::data::Inputs;
use crate::device::Device;
use crate::error::{Error, Result, check_stop};
use crate::names::names;
use crate::net::{LayerId, Network, evaluate};
use crate::ops::philox::{Stream, Use};

/// How long the step is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// As the formula says.
    One,
    /// Scaled until the mean loss of the forgotten samples is this.
    To(f64),
    /// As the formula says, but halved until the mean loss of the forgotten samples is no more than this.
    AtMost(f64),
}

/// The scale that was found.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Scaled {
    /// The factor on the step.
    pub scale: f64,
    /// The target of the forgotten samples' mean loss, if there was one.
    pub target: Option<f64>,
    /// The forgotten samples' mean loss at that scale.
    #[serde(deserialize_with = "crate::names::number")]
    pub loss: f64,
    /// Whether it is within 2 % of the target (or there was none).
    pub reached: bool,
}

/// The smallest and largest factor on the step that calibration tries, its relative tolerance on the loss, and its
/// number of bisections.
const SMALLEST_SCALE: f64 = 1e-9;
const LARGEST_SCALE: f64 = 1e5;
const TOLERANCE: f64 = 0.02;
const BISECTIONS: usize = 14;

/// Adds `step` `[p]`, scaled, to the block; `net` has the result.
///
/// Calibration doubles the factor from 1 (or halves it) until two factors enclose the target, then bisects. Where the
/// loss is at the target before any step, the factor is 1.
///
/// # Errors
/// Where a pass fails, or the user stops; `net` is then at an intermediate length.
pub fn update(
    device: &Device,
    net: &mut Network,
    block: &Block,
    step: &[f64],
    forget: &dyn Inputs,
    length: Length,
    stop: &AtomicBool,
) -> Result<Scaled> {
    let start = block.values(net);
    let loss_at = |net: &mut Network, scale: f64| -> Result<f64> {
        check_stop(stop)?;
        let moved: Vec<f32> =
            start.iter().zip(step).map(|(w, s)| (f64::from(*w) + scale * s) as f32).collect();
        block.assign(net, &moved);
        Ok(evaluate(device, net, forget)?.mean_loss())
    };
    let (target, shortest) = match length {
        Length::To(target) => (target, None),
        Length::One => (f64::INFINITY, Some(1.0)),
        Length::AtMost(most) => (most, Some(SMALLEST_SCALE)),
    };
    if let Some(shortest) = shortest {
        let mut scale = 1.0;
        let mut loss = loss_at(net, scale)?;
        // A loss that is not a number is far too long a step.
        while (loss > target || loss.is_nan()) && scale > shortest {
            scale *= 0.5;
            loss = loss_at(net, scale)?;
        }
        return Ok(Scaled { scale, target: None, loss, reached: true });
    }
    let close = |loss: f64| (loss - target).abs() <= TOLERANCE * target;
    if loss_at(net, 0.0)? >= target {
        let loss = loss_at(net, 1.0)?;
        return Ok(Scaled { scale: 1.0, target: Some(target), loss, reached: true });
    }
    let (mut low, mut high) = (0.0, 1.0);
    let mut loss = loss_at(net, high)?;
    while loss < target && !close(loss) && high < LARGEST_SCALE {
        (low, high) = (high, 2.0 * high);
        loss = loss_at(net, high)?;
    }
    if loss < target && !close(loss) {
        return Ok(Scaled { scale: high, target: Some(target), loss, reached: false });
    }
    let (mut scale, mut bisections) = (high, 0);
    while !close(loss) && bisections < BISECTIONS && scale > SMALLEST_SCALE {
        scale = 0.5 * (low + high);
        loss = loss_at(net, scale)?;
        // A loss that is not a number is far too long a step.
        if loss < target {
            low = scale
        } else {
            high = scale
        }
        bisections += usize::from(low > 0.0); // halving until then
    }
    Ok(Scaled { scale, target: Some(target), loss, reached: close(loss) })
}

/// The units whose parameters get the certificate's noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseUnits {
    /// None.
    None,
    /// Those outside the block (Algorithm 1 of the paper).
    Outside,
    /// Those of the block (as the published code does).
    Inside,
    /// Every unit.
    All,
}

names!(NoiseUnits {
    None = "none": "no unit",
    Outside = "outside": "those outside the block",
    Inside = "inside": "those of the block",
    All = "all": "every unit",
});

/// The (ε, δ) certificate of one removal. It holds only under strong convexity and valid constants.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Certificate {
    /// ε of this removal.
    pub epsilon: f64,
    /// δ of this removal.
    pub delta: f64,
    /// γ = 2 M L² m² / (λ³ n²).
    pub gamma: f64,
    /// σ = (γ/ε) √(2 ln(1.25/δ)), the noise's standard deviation.
    pub sigma: f64,
}

/// Refuses ε and δ for which there is no certificate.
///
/// # Errors
/// Where ε is not above 0, or δ is not between 0 and 1.
pub fn check_privacy(epsilon: f64, delta: f64) -> Result<()> {
    if epsilon.is_nan() || epsilon <= 0.0 || delta.is_nan() || delta <= 0.0 || delta >= 1.0 {
        return Err(Error::config(format!(
            "a certificate needs --epsilon above 0 and --delta between 0 and 1, not {epsilon} and {delta}"
        )));
    }
    Ok(())
}

/// Refuses a strong convexity λ for which there is no certificate.
///
/// # Errors
/// Where it is not a number above 0.
pub fn check_convexity(lambda: f64) -> Result<()> {
    if lambda.is_nan() || lambda <= 0.0 || lambda.is_infinite() {
        return Err(Error::config(
            "a certificate needs damping or weight decay above 0: its bound divides by their cube",
        ));
    }
    Ok(())
}

/// M and L of the formula.
const HESSIAN_LIPSCHITZ: f64 = 0.25;
const LIPSCHITZ: f64 = 1.0;

impl Certificate {
    /// The certificate of removing `m` of `n` samples at strong convexity `lambda` (Sekhari et al. 2021).
    ///
    /// # Errors
    /// Where ε or δ is not above 0, δ not below 1, or λ is 0 (there is then no bound).
    pub fn new(epsilon: f64, delta: f64, lambda: f64, n: usize, m: usize) -> Result<Certificate> {
        check_privacy(epsilon, delta)?;
        check_convexity(lambda)?;
        let share = m as f64 / n as f64;
        let gamma = 2.0 * HESSIAN_LIPSCHITZ * LIPSCHITZ * LIPSCHITZ * share * share / lambda.powi(3);
        Ok(Certificate { epsilon, delta, gamma, sigma: gamma / epsilon * (2.0 * (1.25 / delta).ln()).sqrt() })
    }

    /// Adds its noise to the parameters of units inside or outside the block; `removal` keys it.
    pub fn add_noise(&self, net: &mut Network, block: &Block, units: NoiseUnits, seed: u64, removal: u32) {
        let mut inside = vec![false; net.units().len()];
        block.units().iter().for_each(|unit| inside[unit.index()] = true);
        let mut stream = Stream::new(seed, Use::Certificate, removal);
        for l in 0..net.layers.len() {
            let layer = LayerId(l as u32);
            let columns = net.units().of_layer(layer);
            for row in 0..columns.len() {
                let wanted = match units {
                    NoiseUnits::None => false,
                    NoiseUnits::Inside => inside[columns.start + row],
                    NoiseUnits::Outside => !inside[columns.start + row],
                    NoiseUnits::All => true,
                };
                if !wanted {
                    continue;
                }
                let (weights, bias) = net.unit_row_mut(layer, row);
                for value in weights.iter_mut().chain(bias) {
                    *value += self.sigma as f32 * stream.normal();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Samples;
    use crate::net::Shape;
    use crate::zoo;

    /// A network, a sample, all units, and the gradient.
    fn small() -> (Device, Network, Samples, Block, Vec<f64>) {
        let device = Device::cpu().unwrap();
        let shape = Shape::new(1, 1, 3);
        let net = zoo::create("mlp:4", shape, 2, 1).unwrap().network.freeze();
        let one = Samples { kind: shape.into(), x: vec![1.0, -0.5, 0.25], y: vec![0].into(), stream: None };
        let block = Block::all(&net).unwrap();
        let uphill = block.gradient(&device, &net, &one).unwrap();
        (device, net, one, block, uphill)
    }

    #[test]
    fn a_step_that_is_far_too_long_or_short_finds_its_scale() {
        let (device, net, one, block, uphill) = small();
        for factor in [1e-3, 1.0, 1e6] {
            let step: Vec<f64> = uphill.iter().map(|g| factor * g).collect();
            let found = update(
                &device,
                &mut net.clone(),
                &block,
                &step,
                &one,
                Length::To(2.0),
                &AtomicBool::new(false),
            )
            .unwrap();
            assert!(found.reached && (found.loss / 2.0 - 1.0).abs() <= TOLERANCE, "{factor:e}: {found:?}");
        }
    }

    #[test]
    fn the_formula_s_own_length_is_halved_where_it_goes_too_far() {
        let (device, net, one, block, uphill) = small();
        for (factor, whole) in [(1e-3, true), (1e3, false)] {
            let step: Vec<f64> = uphill.iter().map(|g| factor * g).collect();
            let stop = AtomicBool::new(false);
            let found = update(&device, &mut net.clone(), &block, &step, &one, Length::AtMost(2.0), &stop);
            let found = found.unwrap();
            assert_eq!(found.scale == 1.0, whole, "{factor:e}: {found:?}");
            assert!(found.reached && found.loss <= 2.0, "{factor:e}: {found:?}");
        }
    }

    #[test]
    fn the_certificate_follows_the_formula_and_refuses_what_has_no_bound() {
        let c = Certificate::new(0.1, 0.01, 0.01, 1000, 1).unwrap();
        assert!((c.gamma - 0.5 * 1e-6 / 1e-6).abs() < 1e-12, "{}", c.gamma);
        assert!((c.sigma - c.gamma / 0.1 * (2.0 * 125f64.ln()).sqrt()).abs() < 1e-12);
        for (epsilon, delta, lambda) in
            [(0.0, 0.1, 1.0), (1.0, 1.0, 1.0), (1.0, 0.1, 0.0), (f64::NAN, 0.1, 1.0)]
        {
            assert!(Certificate::new(epsilon, delta, lambda, 10, 1).is_err());
        }
    }
}
