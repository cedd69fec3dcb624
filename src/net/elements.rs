//! The element types of a program's values. A value is of 16 bits where every instruction that uses it accepts that, and so
//! are all that an instruction takes as of one type with it; else it is f32. The purpose and the precision decide, and the
//! device does not.
//!
//! So the residual stream of a transformer is f32, because layer norm reads f32: what is added to it is of its type. That of
//! a residual network is of 16 bits. Images, tokens and logits are f32.

use super::instruction::{Operands, Value};

/// Which of `count` values need not be f32, given the operands of every instruction and the values that are f32 in any case.
pub(super) fn narrow(count: usize, all: &[Operands], wide: &[Value]) -> Vec<bool> {
    let mut narrow = vec![true; count];
    wide.iter().for_each(|value| narrow[value.index()] = false);
    for operands in all {
        let any = |value: &Value| operands.alike.iter().flatten().any(|other| other == value);
        let only = operands.values.iter().filter(|(value, ..)| !any(value));
        only.for_each(|(value, ..)| narrow[value.index()] = false);
    }
    // One f32 makes all of its group f32, until none has both.
    let mixed = |group: &&Vec<Value>, narrow: &[bool]| {
        let count = group.iter().filter(|value| narrow[value.index()]).count();
        count > 0 && count < group.len()
    };
    while let Some(group) = all.iter().flat_map(|all| &all.alike).find(|group| mixed(group, &narrow)) {
        group.iter().for_each(|value| narrow[value.index()] = false);
    }
    narrow
}

#[cfg(test)]
mod tests {
    use super::super::everything::{everything, some_rows};
    use super::super::program::{Program, Purpose};
    use super::super::{Network, Selected};
    use crate::data::InputKind;
    use crate::ops::{Precision, Shape};
    use crate::zoo;

    fn lines(net: &Network, precision: Precision) -> Vec<String> {
        let rows = vec![Selected::None; net.layers.len()];
        Program::new(net, &rows, Purpose::Forward, precision).unwrap().text(net)
    }

    #[test]
    fn a_residual_network_has_all_but_image_and_logits_in_16_bits() {
        let image = InputKind::Image(Shape::new(16, 16, 3));
        let net = zoo::create("resnet20", image, 4, 3).unwrap().network.freeze();
        let rows = vec![Selected::None; net.layers.len()];
        let floats = |precision| Program::new(&net, &rows, Purpose::Forward, precision).unwrap().work;
        let (full, half) = (floats(Precision::F32), floats(Precision::Bf16));
        assert!(10 * half < 6 * full, "{half} and {full}");
        let lines = lines(&net, Precision::Bf16);
        assert_eq!(lines[1], "  y1:bf16 = affine conv1 (y0) scale-shift relu");
        let last = net.nodes.len() - 1;
        assert_eq!(lines[lines.len() - 1], format!("  y{last} = affine linear (y{}:bf16)", last - 1));
        for line in &lines[2..lines.len() - 1] {
            let (outputs, rest) = line.split_once(" = ").unwrap();
            let read = rest.split(['(', ')']).nth(1).unwrap();
            let mut values = outputs.split(", ").chain(read.split(", "));
            assert!(values.all(|value| value.ends_with(":bf16")), "{line}");
        }
    }

    #[test]
    fn what_layer_norm_reads_and_what_is_added_to_it_is_f32() {
        let net = everything().unwrap().freeze();
        let lines = lines(&net, Precision::F16);
        let of = |what: &str| lines.iter().find(|line| line.contains(what)).unwrap().trim().to_string();
        let (outputs, read) = of("= layer-norm")
            .split_once(" = layer-norm norm.weight norm.bias ")
            .map_or_else(|| panic!("{lines:#?}"), |(outputs, read)| (outputs.to_string(), read.to_string()));
        assert!(
            outputs.contains(":f16, ") && !outputs.ends_with(":f16") && !read.contains(":f16"),
            "{outputs} {read}"
        );
        // The attention is added to what layer norm read, and so are its inputs of the same type.
        let query = of("affine query");
        assert!(query.ends_with(":f16)") && !query.split(" = ").next().unwrap().contains(":f16"), "{query}");
        assert!(!of("= attention").contains(":f16") && !of("= sum").is_empty());
        assert!(of("= group-norm").split('(').nth(1).is_some_and(|read| !read.contains(":f16")));
        // What group norm reads is f32 too, and all that is pooled or added on the way there.
        assert!(of("affine conv1").starts_with("y1 = "));
    }

    #[test]
    fn only_a_forward_pass_in_bf16_or_f16_has_values_of_16_bits() {
        let net = everything().unwrap().freeze();
        let of = |purpose, precision| {
            let text =
                Program::new(&net, &some_rows(&net), purpose, precision).unwrap().text(&net).join("\n");
            text.contains(":bf16") || text.contains(":f16")
        };
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16, Precision::F16] {
            let lowered = matches!(precision, Precision::Bf16 | Precision::F16);
            assert_eq!(of(Purpose::Forward, precision), lowered);
            assert!(!of(Purpose::Gradient, precision) && !of(Purpose::Hessian, precision));
        }
    }
}
