//! Units: which column of the activations owns which parameters. The one place that knows the map.

use super::ids::{LayerId, UnitId};
use crate::error::{Error, Result};

/// The units of a network in column order: layers in module order, rows within a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    /// `first[l]` is layer `l`'s first unit; one more entry at the end, so the last is `d`.
    first: Vec<u32>,
}

impl Units {
    /// The units of layers with this many each.
    pub(super) fn of(outputs: impl Iterator<Item = usize>) -> Units {
        let mut first = vec![0];
        for outputs in outputs {
            first.push(first[first.len() - 1] + outputs as u32);
        }
        Units { first }
    }

    /// `d`.
    pub fn len(&self) -> usize {
        self.first[self.first.len() - 1] as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The columns of a layer.
    pub fn of_layer(&self, layer: LayerId) -> std::ops::Range<usize> {
        self.first[layer.index()] as usize..self.first[layer.index() + 1] as usize
    }

    /// The layer and row of a unit.
    ///
    /// # Panics
    /// Where the unit is not one of this network.
    pub fn locate(&self, unit: UnitId) -> (LayerId, usize) {
        assert!(unit.index() < self.len(), "unit {} of {}", unit.0, self.len());
        let layer = self.first.partition_point(|&first| first <= unit.0) - 1;
        (LayerId(layer as u32), (unit.0 - self.first[layer]) as usize)
    }

    /// The unit of a layer's row.
    ///
    /// # Errors
    /// Where the layer has no such row.
    pub fn find(&self, layer: LayerId, row: usize) -> Result<UnitId> {
        let columns = self.of_layer(layer);
        if row >= columns.len() {
            return Err(Error::config(format!("row {row} of a layer with {} units", columns.len())));
        }
        Ok(UnitId((columns.start + row) as u32))
    }
}
