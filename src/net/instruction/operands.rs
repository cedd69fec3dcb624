//! The values and parameters of an instruction: which it reads, writes and adds to, and how long each has to be.

use crate::error::{Error, Result};
use crate::net::{LayerId, Network, NodeId, ParamId};
use crate::ops::Geometry;

/// A value that instructions compute: this many values an image, of the element type that the program gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(in crate::net) id: u32,
    /// How many an image has.
    pub len: usize,
}

impl Value {
    /// Its number in the program.
    pub fn index(self) -> usize {
        self.id as usize
    }
}

/// One use of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LayerUse {
    /// The layer.
    pub layer: LayerId,
    /// Where it reads and writes.
    pub geometry: Geometry,
}

/// How an instruction uses a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It reads it.
    Read,
    /// It writes it, all of it or, as part of several instructions, some.
    Write,
    /// It adds to it.
    Add,
}

/// How much of a parameter an instruction uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Extent {
    /// All of it.
    Whole,
    /// Its first floats.
    Start,
}

/// The operands of an instruction, and the lengths that it expects.
#[derive(Default)]
pub(crate) struct Operands {
    pub(in crate::net) values: Vec<(Value, usize, Access)>,
    pub(in crate::net) params: Vec<(ParamId, usize, Extent)>,
    pub(in crate::net) layers: Vec<LayerUse>,
    /// Of these, and of the layers below, the gradient is added to.
    pub(in crate::net) gradients: Vec<ParamId>,
    pub(in crate::net) layer_gradients: Vec<LayerId>,
    scales: Vec<(NodeId, usize)>,
    /// Operands of any element type, those of a group of the same one. All others are f32.
    pub(in crate::net) alike: Vec<Vec<Value>>,
}

impl Operands {
    /// A value that is read, of `len` floats an image.
    pub fn read(&mut self, value: Value, len: usize) {
        self.values.push((value, len, Access::Read));
    }

    /// A value that is written. It may be one that is read, where the operation works in place.
    pub fn write(&mut self, value: Value, len: usize) {
        self.values.push((value, len, Access::Write));
    }

    /// A value that is added to.
    pub fn add(&mut self, value: Value, len: usize) {
        self.values.push((value, len, Access::Add));
    }

    /// Of the values that are met, some that may be of any element type, all of the same.
    pub fn alike(&mut self, values: impl IntoIterator<Item = Value>) {
        self.alike.push(values.into_iter().collect());
    }

    /// A parameter of `len` floats.
    pub fn param(&mut self, param: ParamId, len: usize) {
        self.params.push((param, len, Extent::Whole));
    }

    /// The first `len` floats of a parameter.
    pub fn param_start(&mut self, param: ParamId, len: usize) {
        self.params.push((param, len, Extent::Start));
    }

    /// The gradient of a parameter of `len` floats, which is added to.
    pub fn gradient(&mut self, param: ParamId, len: usize) {
        self.param(param, len);
        self.gradients.push(param);
    }

    /// That of its first `len` floats.
    pub fn gradient_start(&mut self, param: ParamId, len: usize) {
        self.param_start(param, len);
        self.gradients.push(param);
    }

    /// That of the weights of a layer.
    pub fn layer_gradient(&mut self, at: LayerUse) {
        self.layer(at);
        self.layer_gradients.push(at.layer);
    }

    /// The weights of a layer.
    pub fn layer(&mut self, at: LayerUse) {
        self.layers.push(at);
    }

    /// The frozen scale of a node, for values of `len` floats an image.
    pub fn scale(&mut self, node: NodeId, len: usize) {
        self.scales.push((node, len));
    }

    /// Refuses operands of another length than the instruction expects.
    ///
    /// # Errors
    /// Where there are such; the message has `text`.
    pub fn check(&self, net: &Network, text: &dyn Fn() -> String) -> Result<()> {
        let expect = |what: &str, expected: usize, found: usize| match expected == found {
            true => Ok(()),
            false => {
                Err(Error::shape("program", format!("{expected} {what}"), format!("{found} in {}", text())))
            }
        };
        for &(value, len, _) in &self.values {
            expect("floats an image", len, value.len)?;
        }
        for &(param, len, extent) in &self.params {
            let found = net.value(param).len();
            match extent {
                Extent::Whole => expect("parameters", len, found)?,
                Extent::Start => expect("parameters", len, found.min(len))?,
            }
        }
        for at in &self.layers {
            let layer = net.layer(at.layer);
            expect("outputs", layer.outputs, at.geometry.output.c)?;
            expect("weights a row", layer.fan_in, at.geometry.fan_in())?;
        }
        for &(node, len) in &self.scales {
            let channels = net.nodes[node.index()].op.scale().map_or(0, |affine| affine.scale.len());
            expect("floats of whole channels", len, len.checked_div(channels).unwrap_or(0) * channels)?;
        }
        Ok(())
    }
}
