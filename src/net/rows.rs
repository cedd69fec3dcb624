//! Rows of layers: those for which a pass computes derivatives, and a value for each.

use super::Network;

/// Which rows of a layer have a tangent and a gradient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selected {
    /// None: the layer is fixed.
    #[default]
    None,
    /// All of them.
    All,
    /// These, ascending.
    Some(Vec<u32>),
}

impl Selected {
    /// How many of a layer's `outputs` rows these are.
    pub fn count(&self, outputs: usize) -> usize {
        match self {
            Selected::None => 0,
            Selected::All => outputs,
            Selected::Some(rows) => rows.len(),
        }
    }

    /// The rows as an operation takes them: `None` means all.
    pub(super) fn subset(&self) -> Option<&[u32]> {
        match self {
            Selected::Some(rows) => Some(rows),
            Selected::None | Selected::All => None,
        }
    }
}

/// One value for each selected row of each layer: a direction v, or a gradient.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RowValues {
    /// Per layer `[rows, fan_in]`; empty where no row is selected.
    pub weight: Vec<Vec<f32>>,
    /// Per layer `[rows]`; empty where the layer has no bias.
    pub bias: Vec<Vec<f32>>,
    /// In training, per parameter; empty for those of a layer. Outside training there are none.
    pub other: Vec<Vec<f32>>,
}

impl RowValues {
    /// Zeros for the selected rows.
    pub fn zeros(net: &Network, rows: &[Selected]) -> RowValues {
        let count = |l: usize| rows[l].count(net.layers[l].outputs);
        let each = |len: &dyn Fn(usize) -> usize| (0..net.layers.len()).map(|l| vec![0.0; len(l)]).collect();
        RowValues {
            weight: each(&|l| count(l) * net.layers[l].fan_in),
            bias: each(&|l| if net.layers[l].bias.is_some() { count(l) } else { 0 }),
            other: vec![],
        }
    }

    /// Zeros for every parameter that training changes.
    pub fn zeros_of_training(net: &Network) -> RowValues {
        let mut zeros = RowValues::zeros(net, &vec![Selected::All; net.layers.len()]);
        zeros.other = net.params.iter().map(|param| vec![0.0; param.value.len()]).collect();
        for layer in &net.layers {
            let of_layer = [Some(layer.weight), layer.bias].into_iter().flatten();
            of_layer.for_each(|param| zeros.other[param.index()] = vec![]);
        }
        zeros
    }

    /// Sets everything to zero.
    pub fn clear(&mut self) {
        self.all().for_each(|values| values.fill(0.0));
    }

    /// Adds `other`'s values.
    pub fn add(&mut self, other: &RowValues) {
        let theirs = other.weight.iter().chain(&other.bias).chain(&other.other);
        for (mine, theirs) in self.all().zip(theirs) {
            mine.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.weight.iter().chain(&self.bias).chain(&self.other).map(Vec::len).sum()
    }

    /// All values, one vector after the other.
    pub fn flat(&self) -> Vec<f32> {
        let parts: Vec<&[f32]> =
            self.weight.iter().chain(&self.bias).chain(&self.other).map(Vec::as_slice).collect();
        parts.concat()
    }

    /// Sets all values to those that [`RowValues::flat`] gave.
    pub fn set(&mut self, flat: &[f32]) {
        let mut rest = flat;
        for values in self.all() {
            let (part, others) = rest.split_at(values.len());
            values.copy_from_slice(part);
            rest = others;
        }
    }

    /// Every vector of values.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Vec<f32>> {
        self.weight.iter_mut().chain(&mut self.bias).chain(&mut self.other)
    }
}
