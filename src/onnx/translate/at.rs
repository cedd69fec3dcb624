//! A node of an ONNX graph while it is translated: its inputs, and its attributes, all of which must be read.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::super::message::{Attribute, Node};
use crate::error::{Error, Result};

/// The node.
pub(super) struct At<'a> {
    pub node: &'a Node,
    read: RefCell<BTreeSet<&'static str>>,
}

/// The order that a transpose gives; none of another node.
pub(super) fn order(node: &Node) -> Option<Vec<i64>> {
    match node.attributes.get("perm") {
        Some(Attribute::Ints(order)) if node.op == "Transpose" => Some(order.clone()),
        _ => None,
    }
}

impl<'a> At<'a> {
    pub fn new(node: &'a Node) -> At<'a> {
        At { node, read: RefCell::default() }
    }

    /// The name of its first output.
    pub fn output(&self) -> &'a str {
        self.node.outputs.first().map_or("", String::as_str)
    }

    /// The name of input `i`, where it has one.
    pub fn optional(&self, i: usize) -> Option<&'a str> {
        self.node.inputs.get(i).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The name of input `i`.
    pub fn input(&self, i: usize) -> Result<&'a str> {
        self.optional(i).ok_or_else(|| Error::config(format!("has no input {i}")))
    }

    fn attribute(&self, name: &'static str) -> Option<&'a Attribute> {
        self.read.borrow_mut().insert(name);
        self.node.attributes.get(name)
    }

    fn another<T>(name: &str) -> Result<T> {
        Err(Error::config(format!("its attribute `{name}` is of another kind than the operator's")))
    }

    /// A whole number.
    pub fn int(&self, name: &'static str) -> Result<Option<i64>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Int(number)) => Ok(Some(*number)),
            Some(_) => At::another(name),
        }
    }

    /// Whole numbers.
    pub fn ints(&self, name: &'static str) -> Result<Option<Vec<i64>>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Ints(numbers)) => Ok(Some(numbers.clone())),
            Some(_) => At::another(name),
        }
    }

    /// A number.
    pub fn float(&self, name: &'static str) -> Result<Option<f32>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Float(number)) => Ok(Some(*number)),
            Some(_) => At::another(name),
        }
    }

    /// Numbers.
    pub fn floats(&self, name: &'static str) -> Result<Option<Vec<f32>>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Floats(numbers)) => Ok(Some(numbers.clone())),
            Some(_) => At::another(name),
        }
    }

    /// A word.
    pub fn word(&self, name: &'static str) -> Result<Option<&'a str>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Text(word)) => Ok(Some(word)),
            Some(_) => At::another(name),
        }
    }

    /// Whether it has a tensor of that name.
    pub fn has_tensor(&self, name: &'static str) -> bool {
        matches!(self.attribute(name), Some(Attribute::Tensor(_)))
    }

    /// Reads a number of which only one value is what a network has here.
    pub fn only(&self, name: &'static str, expected: i64) -> Result<()> {
        match self.int(name)? {
            Some(found) if found != expected => {
                Err(Error::config(format!("has {name} = {found}, and only {expected} is known here")))
            }
            _ => Ok(()),
        }
    }

    /// Passes over an attribute that does not change what is computed here.
    pub fn pass(&self, name: &'static str) {
        self.attribute(name);
    }

    /// Refuses an attribute that was not read.
    pub fn check_all_read(&self) -> Result<()> {
        let read = self.read.borrow();
        match self.node.attributes.keys().find(|name| !read.contains(name.as_str())) {
            None => Ok(()),
            Some(name) => Err(Error::config(format!("its attribute `{name}` is not known here"))),
        }
    }
}
