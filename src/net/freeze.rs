//! Freezing: batch norm, residual and activation move into the epilogue of the layer before them, in that order and
//! only where nothing else reads what stands between. What cannot move stays a node. A frozen network keeps the nodes of its
//! train form, so that it can be trained again.

use super::{Affine, Epilogue, Network, Node, NodeId, Op, ScaledBy};
use crate::device::Shared;

impl Network {
    /// The network in train form, with the parameters that it has now. Of a network in train form it is itself.
    pub fn thaw(&self) -> Network {
        let nodes = self.trained_as.as_deref().unwrap_or(&self.nodes).to_vec();
        Network { nodes, trained_as: None, ..self.clone() }
    }

    /// The same function with batch norm at its running statistics. Freezing a frozen network changes nothing.
    pub fn freeze(&self) -> Network {
        let uses = self.uses();
        let trained_as = self.trained_as.clone().unwrap_or_else(|| self.nodes.as_slice().into());
        let mut frozen = Network { nodes: vec![], trained_as: Some(trained_as), ..self.clone() };
        let mut moved: Vec<NodeId> = vec![]; // where the output of each old node is now
        let mut old_of: Vec<usize> = vec![]; // whose output each new node gives
        for (i, node) in self.nodes.iter().enumerate() {
            let inputs: Vec<NodeId> = node.inputs.iter().map(|input| moved[input.index()]).collect();
            // An epilogue can grow where the new node's output is read by nobody but this node.
            let growing = |input: &NodeId| uses[old_of[input.index()]] == 1;
            let op = match &node.op {
                Op::BatchNorm { gamma, beta, mean, var, eps } => {
                    let [gamma, beta, mean, var] = [gamma, beta, mean, var].map(|p| self.value(*p));
                    let scale: Shared = gamma.iter().zip(var).map(|(g, v)| g / (v + eps).sqrt()).collect();
                    let shift =
                        beta.iter().zip(mean).zip(scale.iter()).map(|((b, m), s)| b - m * s).collect();
                    Op::Scale(Affine { scale, shift }, ScaledBy::Norm)
                }
                other => other.clone(),
            };
            let host = match &op {
                Op::Scale(..) => {
                    inputs.first().filter(|x| growing(x) && frozen.grows(x, |e| e == &Epilogue::default()))
                }
                Op::Activation(_) => {
                    inputs.first().filter(|x| growing(x) && frozen.grows(x, |e| e.activation.is_none()))
                }
                // The later summand takes the earlier one as its residual: that one is then already there.
                Op::Add if inputs[0] != inputs[1] => inputs
                    .iter()
                    .max()
                    .filter(|x| growing(x) && frozen.grows(x, |e| !e.residual && e.activation.is_none())),
                _ => None,
            };
            let Some(&host) = host else {
                frozen.nodes.push(Node { op, inputs, shape: node.shape });
                moved.push(NodeId(frozen.nodes.len() as u32 - 1));
                old_of.push(i);
                continue;
            };
            let target = &mut frozen.nodes[host.index()];
            if let Op::Linear(_, epilogue) | Op::Conv(_, _, epilogue) = &mut target.op {
                match op {
                    Op::Scale(affine, _) => epilogue.affine = Some(affine),
                    Op::Activation(activation) => epilogue.activation = Some(activation),
                    _ => {
                        epilogue.residual = true;
                        target.inputs.extend(inputs.iter().find(|&&x| x != host));
                    }
                }
            }
            moved.push(host);
            old_of[host.index()] = i;
        }
        frozen
    }

    /// How many nodes read each node; the logits are read by the loss.
    fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        uses[self.nodes.len() - 1] = 1;
        for input in self.nodes.iter().flat_map(|node| &node.inputs) {
            uses[input.index()] += 1;
        }
        uses
    }

    fn grows(&self, node: &NodeId, fits: impl Fn(&Epilogue) -> bool) -> bool {
        self.nodes[node.index()].op.epilogue().is_some_and(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Activation, Builder, Conv, Epilogue, Network, Op, Role, Shape, Source};
    use crate::error::Result;

    struct Ones;
    impl Source for Ones {
        fn tensor(&mut self, _: &str, shape: &[usize], _: Role) -> Result<Vec<f32>> {
            Ok(vec![1.0; shape.iter().product()])
        }
        fn shape(&self, name: &str) -> Option<&[usize]> {
            (name == "fc.bias").then_some(&[])
        }
    }

    /// conv, bn, relu, then a block conv, bn, + input, relu; global pool, fc.
    fn residual() -> Result<Network> {
        let mut ones = Ones;
        let (mut b, x) = Builder::new(&mut ones, Shape::new(4, 4, 2));
        let x = b.conv(x, "conv1", 3, Conv::square(3, 1, 1))?;
        let x = b.batch_norm(x, "bn1")?;
        let x = b.relu(x);
        let y = b.conv(x, "conv2", 3, Conv::square(3, 1, 1))?;
        let y = b.batch_norm(y, "bn2")?;
        let y = b.add(y, x)?;
        let y = b.relu(y);
        let y = b.global_pool(y);
        let y = b.linear(y, "fc", 5)?;
        b.finish(y)
    }

    #[test]
    fn norm_residual_and_activation_move_into_the_layer_before_them() {
        let frozen = residual().unwrap().freeze();
        assert_eq!(frozen.nodes.len(), 5); // image, two convolutions, pool, fc
        let Op::Conv(_, _, epilogue) = &frozen.nodes[2].op else { panic!("{:?}", frozen.nodes[2]) };
        assert!(epilogue.affine.is_some() && epilogue.residual);
        assert_eq!(epilogue.activation, Some(Activation::Relu));
        assert_eq!(frozen.nodes[2].inputs.iter().map(|x| x.0).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(frozen.nodes[4].op.epilogue(), Some(&Epilogue::default()));
        assert_eq!(frozen.freeze(), frozen);
        let net = residual().unwrap();
        assert_eq!((frozen.thaw(), net.thaw()), (net.clone(), net));
    }

    #[test]
    fn what_was_changed_while_frozen_is_there_in_train_form() {
        let mut frozen = residual().unwrap().freeze();
        let bias = frozen.params.iter().position(|param| param.name == "fc.bias").unwrap();
        frozen.params[bias].value[1] = 7.0;
        assert_eq!(frozen.thaw().params[bias].value[1], 7.0);
        assert_eq!(frozen.thaw().freeze(), frozen);
    }

    #[test]
    fn what_others_read_stays_a_node() {
        let mut ones = Ones;
        let (mut b, x) = Builder::new(&mut ones, Shape::new(1, 1, 2));
        let z = b.linear(x, "fc", 2).unwrap();
        let a = b.relu(z);
        let y = b.add(a, z).unwrap(); // z is read twice
        let frozen = b.finish(y).unwrap().freeze();
        assert_eq!(frozen.nodes.len(), 4);
        assert_eq!(frozen.nodes[1].op.epilogue(), Some(&Epilogue::default()));
    }

    #[test]
    fn stored_order_comes_back() {
        let net = residual().unwrap();
        let order = net.params[0].order;
        let stored: Vec<f32> = (0..net.params[0].value.len()).map(|i| i as f32).collect();
        let kept = order.from_stored(&stored);
        assert_eq!(kept[1], 9.0); // [o, c, r·s] -> [o, r·s, c]
        assert_eq!(order.to_stored(&kept), stored);
    }
}
