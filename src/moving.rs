//! The parameters that a hold changes: every parameter of a network in training form, or the rows of some units of the frozen network, outside
//! which nothing changes, running statistics included.

use std::borrow::Cow;

use crate::block::Block;
use crate::data::Inputs;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::net::{Network, State, Tilt, TrainPass};
use crate::ops::cpu::optimizer;
use crate::ops::optimizer::{Memory, Optimizer, Update};

/// The norm to which longer gradients are shortened.
const LONGEST: f64 = 1.0;

/// What moves, with what the optimizer remembers of it.
pub enum Moving<'a> {
    /// Every parameter; batch norm is in training form.
    All(TrainPass<'a>),
    /// The rows of a block.
    Rows {
        /// Where it runs.
        device: &'a Device,
        /// The network, frozen.
        net: &'a mut Network,
        /// The block.
        block: &'a Block,
        /// Its values `[p]`.
        values: Vec<f32>,
        /// What is remembered of them.
        memory: Memory<Vec<f32>>,
    },
}

impl<'a> Moving<'a> {
    /// Every parameter of a network in train form, in batches of at most this many samples.
    ///
    /// # Errors
    /// As [`TrainPass::new`].
    pub fn all(device: &'a Device, net: &'a mut Network, batch: usize) -> Result<Moving<'a>> {
        TrainPass::new(device, net, batch, Optimizer::Sgd).map(Moving::All)
    }

    /// The rows of a block of a frozen network.
    pub fn rows(device: &'a Device, net: &'a mut Network, block: &'a Block) -> Moving<'a> {
        let values = block.values(net);
        let memory = Memory::Sgd(vec![0.0; values.len()]);
        Moving::Rows { device, net, block, values, memory }
    }

    /// One step on a mini-batch of a tilted loss.
    ///
    /// # Errors
    /// Where a pass fails, or loss or gradient are not finite.
    pub fn step(&mut self, batch: &dyn Inputs, tilt: Tilt, update: &Update) -> Result<()> {
        let diverges = || Error::config(format!("the hold diverges in its mini-batch {}", update.step));
        match self {
            Moving::All(pass) => {
                let loss = pass.tilted_step(batch, tilt)?.loss;
                if !loss.is_finite() {
                    return Err(diverges());
                }
                pass.clip(LONGEST)?;
                pass.update(update)
            }
            Moving::Rows { device, net, block, values, memory } => {
                let mut gradient = block.tilted_gradient(device, net, batch, tilt)?;
                let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
                if !norm.is_finite() {
                    return Err(diverges());
                }
                gradient.iter_mut().for_each(|g| *g *= (LONGEST / norm).min(1.0));
                let narrow: Vec<f32> = gradient.iter().map(|&g| g as f32).collect();
                optimizer::update(values, memory, &narrow, update);
                block.assign(net, values);
                Ok(())
            }
        }
    }

    /// Where it is: values, and what the optimizer remembers.
    ///
    /// # Errors
    /// On CUDA, where the device fails.
    pub fn state(&mut self) -> Result<State<'_>> {
        match self {
            Moving::All(pass) => pass.state(),
            Moving::Rows { values, memory, .. } => {
                let memory = memory.parts().map(|part| Cow::Borrowed(part.as_slice())).collect();
                Ok(State { values: vec![values], memory })
            }
        }
    }

    /// Goes on from what [`Moving::state`] gave; of every parameter the network has the values already.
    ///
    /// # Errors
    /// Where it is of another network.
    pub fn go_on(&mut self, kept: (&[f32], &[f32])) -> Result<()> {
        match self {
            Moving::All(pass) => pass.remember(kept.1),
            Moving::Rows { net, block, values, memory, .. } => {
                if (kept.0.len(), kept.1.len()) != (values.len(), values.len()) {
                    let found = format!("{} and {}", kept.0.len(), kept.1.len());
                    return Err(Error::shape("hold", format!("twice {} values", values.len()), found));
                }
                values.copy_from_slice(kept.0);
                *memory = Memory::Sgd(kept.1.to_vec());
                block.assign(net, values);
                Ok(())
            }
        }
    }

    /// Ends; of every parameter, brings the last values to the network.
    ///
    /// # Errors
    /// On CUDA, where the device fails.
    pub fn end(self) -> Result<()> {
        match self {
            Moving::All(mut pass) => pass.network().map(|_| ()),
            Moving::Rows { .. } => Ok(()),
        }
    }
}
