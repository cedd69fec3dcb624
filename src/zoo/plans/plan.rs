//! What a plan is, and what a description asks for.

use serde_json::{Value, json};

use super::super::choices::Choices;
use super::super::family::Family;
use super::super::init::Init;
use super::super::reading::Reading;
use crate::error::{Error, Result};
use crate::net::{Network, Shape};

/// A network's tensors, declared, and what composes them.
pub(in crate::zoo) struct Plan {
    /// The architecture's name in a config: the published one, or the family's where the sizes are others.
    architecture: String,
    pub(super) family: &'static Family,
    /// What else its config says.
    config: Vec<(&'static str, Value)>,
}

/// What a description asks for.
pub(super) struct Spec<'a> {
    /// All of it.
    pub text: &'a str,
    /// What stands before the colon.
    pub name: &'a str,
    /// The numbers behind it.
    pub sizes: &'a [usize],
    pub image: Shape,
    pub classes: usize,
}

impl Spec<'_> {
    /// The one number behind the colon, or the published one.
    pub fn size(&self, published: usize) -> Result<usize> {
        match *self.sizes {
            [] => Ok(published),
            [size] => Ok(size),
            _ => Err(Error::config(format!(
                "`{}` has {} numbers, where one was expected",
                self.text,
                self.sizes.len()
            ))),
        }
    }

    /// The side of a stem's filters, and what a config says of it: for small images that of CIFAR, which keeps them.
    pub fn stem(&self) -> (usize, &'static str) {
        if self.is_small() { (3, "stride1") } else { (7, "stride2+pool") }
    }

    /// Whether images are as small as CIFAR's.
    pub fn is_small(&self) -> bool {
        self.image.h.max(self.image.w) < 64
    }

    /// The plan of a family, under the published name where no other sizes were asked for.
    pub fn plan(&self, family: &'static Family) -> Plan {
        let architecture = if self.sizes.is_empty() { self.name } else { family.name };
        Plan { architecture: architecture.into(), family, config: vec![] }
    }
}

impl Plan {
    /// The same, where the published name says less than the sizes.
    pub fn under_its_family(mut self) -> Plan {
        self.architecture = self.family.name.into();
        self
    }

    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Plan {
        self.config.push((key, value.into()));
        self
    }

    /// The network of the declared tensors, in train form, and its config.
    pub fn network(self, init: &mut Init, image: Shape, classes: usize) -> Result<(Network, Value)> {
        let mut config = json!({
            "architecture": self.architecture,
            "num_classes": classes,
            "input_size": [image.c, image.h, image.w],
        });
        for (key, value) in self.config {
            config[key] = value;
        }
        let names = init.names();
        let mut reading = Reading::new(&config, &Choices::default(), &names);
        reading.arch = Some(self.architecture.to_ascii_lowercase());
        let network = self.family.network(init, image.into(), &mut reading)?;
        Ok((network, config))
    }
}
