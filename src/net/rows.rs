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

    /// Those of training, without the parameters for which `with` is false.
    pub fn zeros_of(net: &Network, with: impl Fn(&Among) -> bool) -> RowValues {
        let mut zeros = RowValues::zeros(net, &vec![Selected::None; net.layers.len()]);
        zeros.other = vec![vec![]; net.params.len()];
        let places = Among::all(net).into_iter().filter(with);
        places.for_each(|among| *zeros.of_mut(among) = vec![0.0; net.params[among.param()].value.len()]);
        zeros
    }

    /// The values of a parameter.
    pub fn of(&self, among: Among) -> &[f32] {
        match among {
            Among::Weights { layer, .. } => &self.weight[layer],
            Among::Biases { layer, .. } => &self.bias[layer],
            Among::Others { param } => &self.other[param],
        }
    }

    /// The values of a parameter, to change.
    pub fn of_mut(&mut self, among: Among) -> &mut Vec<f32> {
        match among {
            Among::Weights { layer, .. } => &mut self.weight[layer],
            Among::Biases { layer, .. } => &mut self.bias[layer],
            Among::Others { param } => &mut self.other[param],
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

    /// Every vector of values.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Vec<f32>> {
        self.weight.iter_mut().chain(&mut self.bias).chain(&mut self.other)
    }
}

/// Where the values of a parameter are among those of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Among {
    /// Those of a layer's weight.
    Weights { param: usize, layer: usize },
    /// Those of its bias.
    Biases { param: usize, layer: usize },
    /// Those of no layer.
    Others { param: usize },
}

impl Among {
    /// Of every parameter, in their order.
    pub fn all(net: &Network) -> Vec<Among> {
        let mut all: Vec<Among> = (0..net.params.len()).map(|param| Among::Others { param }).collect();
        for (l, layer) in net.layers.iter().enumerate() {
            let param = layer.weight.index();
            all[param] = Among::Weights { param, layer: l };
            if let Some(bias) = layer.bias {
                all[bias.index()] = Among::Biases { param: bias.index(), layer: l };
            }
        }
        all
    }

    /// The number of the parameter.
    pub fn param(self) -> usize {
        match self {
            Among::Weights { param, .. } | Among::Biases { param, .. } | Among::Others { param } => param,
        }
    }
}
