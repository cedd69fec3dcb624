//! ONNX files: the ONNX project's own tests of operators, recorded as small classifiers by `scripts/onnx-nodes.py`, give the
//! recorded logits; what was changed is written in place; damaged and hostile files are refused in one line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::Samples;
use scrubjay::data::tensors::TensorFile;
use scrubjay::device::Device;
use scrubjay::net::{Network, Shape};
use scrubjay::observe::observe;
use scrubjay::zoo::{self, Model};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx")
}

/// The recorded models, by name.
fn recorded() -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".onnx").map(String::from)).collect()
}

fn open(path: &Path) -> scrubjay::Result<Model> {
    zoo::load(&Checkpoint::open(path)?, None, None)
}

/// Recorded images, as the engine has them.
fn images(file: &TensorFile, name: &str) -> Samples {
    let (sides, x) = (file.shape(name).unwrap().to_vec(), file.f32(name).unwrap());
    let [n, c, h, w] = match sides[..] {
        [n, c, h, w] => [n, c, h, w],
        _ => [sides[0], sides[1], 1, 1],
    };
    let at = |i: usize, at: usize, k: usize| x[(i * c + k) * h * w + at];
    let x = (0..n).flat_map(|i| (0..h * w).flat_map(move |p| (0..c).map(move |k| (i, p, k))));
    Samples {
        kind: Shape::new(h, w, c).into(),
        x: x.map(|(i, p, k)| at(i, p, k)).collect(),
        y: vec![0; n].into(),
        stream: None,
    }
}

fn logits(net: &Network, samples: &Samples) -> Vec<f32> {
    observe(&Device::cpu().unwrap(), &net.freeze(), samples).unwrap().logits
}

#[test]
fn the_tests_of_the_onnx_project_give_their_outputs() {
    let nodes = TensorFile::open(&folder().join("nodes.safetensors")).unwrap();
    let names = recorded();
    assert!(names.len() > 30);
    for name in &names {
        let net = open(&folder().join(format!("{name}.onnx"))).unwrap().network;
        let samples = images(&nodes, &format!("{name}.x"));
        let (found, expected) = (logits(&net, &samples), nodes.f64(&format!("{name}.logits")).unwrap());
        let size = expected.iter().map(|v| v * v).sum::<f64>().sqrt();
        let off = found.iter().zip(&expected).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum::<f64>().sqrt();
        assert!(off <= 1e-5 * size, "{name}: off by {:e}", off / size);
    }
}

#[test]
fn what_was_changed_is_written_in_place_and_nothing_else() {
    for name in recorded() {
        let (path, out) = (folder().join(format!("{name}.onnx")), tempfile::tempdir().unwrap());
        let before = open(&path).unwrap().network;
        let mut after = before.clone();
        let params: Vec<_> =
            after.layers.iter().flat_map(|layer| [Some(layer.weight), layer.bias]).flatten().collect();
        for param in &params {
            let values = &mut after.params[param.index()].value;
            let last = values.len() - 1;
            values[last] += 0.25;
        }
        let patched = Checkpoint::open(&path).unwrap().write_patched(&before, &after, out.path()).unwrap();
        assert_eq!((patched.changed, patched.vanished), (params.len(), 0), "{name}");
        let written = out.path().join(format!("{name}.onnx"));
        assert!(open(&written).unwrap().network == after, "{name}");
        let (old, new) = (std::fs::read(&path).unwrap(), std::fs::read(&written).unwrap());
        let differ = old.iter().zip(&new).filter(|(a, b)| a != b).count();
        assert!(old.len() == new.len() && differ <= 4 * params.len(), "{name}: {differ} bytes");
    }
}

/// One field of a message: its number and its bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        all.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    all.push(length as u8);
    all.extend_from_slice(bytes);
    all
}

/// A model of nodes (operator, inputs, output, attributes) over tensors (name, sides, raw values).
fn model(nodes: &[(&str, &[&str], &str, Vec<u8>)], tensors: &[(&str, &[u8], Vec<u8>)]) -> Vec<u8> {
    let mut graph = vec![];
    for (op, inputs, output, attributes) in nodes {
        let mut node: Vec<u8> = inputs.iter().flat_map(|input| field(1, input.as_bytes())).collect();
        node.extend(field(2, output.as_bytes()));
        node.extend(field(4, op.as_bytes()));
        node.extend(attributes);
        graph.extend(field(1, &node));
    }
    for (name, sides, values) in tensors {
        let mut tensor = field(1, sides);
        tensor.extend([2 << 3, 1]);
        tensor.extend(field(8, name.as_bytes()));
        tensor.extend(values);
        graph.extend(field(5, &tensor));
    }
    // x: floats [1, 3, 4, 4]
    let sides: Vec<u8> = [1, 3, 4, 4].iter().flat_map(|side| field(1, &[1 << 3, *side])).collect();
    let kind = field(1, &[vec![1 << 3, 1], field(2, &sides)].concat());
    graph.extend(field(11, &[field(1, b"x"), field(2, &kind)].concat()));
    graph.extend(field(12, &field(1, b"y")));
    [vec![1 << 3, 8], field(7, &graph), field(8, &[2 << 3, 17])].concat()
}

/// A tensor's values as raw bytes.
fn raw(count: usize) -> Vec<u8> {
    let values: Vec<u8> = (0..count).flat_map(|i| (i as f32 * 0.1 - 1.0).to_le_bytes()).collect();
    field(9, &values)
}

fn of(bytes: &[u8]) -> scrubjay::Result<Model> {
    zoo::load(&Checkpoint::in_memory("m.onnx", bytes.to_vec(), None, &[])?, None, None)
}

/// Means, flattened, and a matrix.
fn small() -> Vec<u8> {
    model(
        &[
            ("GlobalAveragePool", &["x"], "p", vec![]),
            ("Flatten", &["p"], "f", vec![]),
            ("MatMul", &["f", "w"], "z", vec![]),
            ("Add", &["b", "z"], "y", vec![]),
        ],
        &[("w", &[3, 2], raw(6)), ("b", &[2], raw(2))],
    )
}

#[test]
fn a_product_and_a_sum_are_one_layer_and_its_file_has_the_values_in_place() {
    let found = of(&small()).unwrap();
    assert_eq!((found.family, found.network.layers.len(), found.network.classes()), ("graph", 1, 2));
    assert!(found.network.layers[0].bias.is_some());
    assert_eq!(found.network.weight(scrubjay::net::LayerId(0))[..3], [-1.0, -0.8, -0.6]);
    // Ending in a softmax it is the same, and in a sigmoid its loss is over labels.
    for (end, words, several) in [("Softmax", "softmax", false), ("Sigmoid", "sigmoid", true)] {
        let ended = model(
            &[
                ("GlobalAveragePool", &["x"], "p", vec![]),
                ("Flatten", &["p"], "f", vec![]),
                ("MatMul", &["f", "w"], "z", vec![]),
                (end, &["z"], "y", vec![]),
            ],
            &[("w", &[3, 2], raw(6))],
        );
        let found = of(&ended).unwrap();
        assert!(found.facts.tensors.iter().any(|fact| fact.contains(words)), "{:?}", found.facts);
        assert_eq!(found.network.loss == scrubjay::loss::Loss::BinaryCrossEntropy, several);
    }
}

/// Whole numbers as an attribute.
fn numbers(name: &str, values: &[u8]) -> Vec<u8> {
    field(5, &[field(1, name.as_bytes()), field(8, values), vec![0xa0, 1, 7]].concat())
}

#[test]
fn a_layer_over_tokens_gives_what_plain_loops_give() {
    // Rows and columns as 16 tokens of 3 channels: over tokens, over channels, and back to the head.
    let nodes: [(&str, &[&str], &str, Vec<u8>); 11] = [
        ("Flatten", &["x"], "f", vec![]),
        ("Constant", &[], "sides", numbers("value_ints", &[1, 3, 16])),
        ("Reshape", &["f", "sides"], "r", vec![]),
        ("MatMul", &["r", "over"], "m", vec![]),
        ("Add", &["m", "beside"], "h", vec![]),
        ("Relu", &["h"], "a", vec![]),
        ("Add", &["r", "a"], "s", vec![]),
        ("Transpose", &["s"], "t", numbers("perm", &[0, 2, 1])),
        ("Add", &["t", "b"], "u", vec![]),
        ("ReduceMean", &["u"], "p", [numbers("axes", &[1]), whole("keepdims", 0)].concat()),
        ("MatMul", &["p", "w"], "y", vec![]),
    ];
    let tensors: [(&str, &[u8], Vec<u8>); 4] = [
        ("over", &[16, 16], raw(256)),
        ("beside", &[16], raw(16)),
        ("b", &[3], raw(3)),
        ("w", &[3, 2], raw(6)),
    ];
    let found = of(&model(&nodes, &tensors)).unwrap();
    assert_eq!(found.network.layers.len(), 2);
    let x: Vec<f32> = (0..48).map(|i| (i * i % 7) as f32 * 0.01 - 0.03).collect();
    let samples = Samples { kind: Shape::new(4, 4, 3).into(), x: x.clone(), y: vec![0].into(), stream: None };
    let value = |i: usize| f64::from(i as f32 * 0.1 - 1.0);
    let mut expected = [0.0; 2];
    for c in 0..3 {
        let of = |token: usize| f64::from(x[3 * token + c]);
        let mean: f64 = (0..16)
            .map(|to| {
                let sum: f64 = (0..16).map(|from| of(from) * value(16 * from + to)).sum();
                of(to) + (sum + value(to)).max(0.0) + value(c)
            })
            .sum::<f64>()
            / 16.0;
        expected.iter_mut().enumerate().for_each(|(o, sum)| *sum += mean * value(2 * c + o));
    }
    for (found, expected) in logits(&found.network, &samples).iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-4, "{found} {expected}");
    }
}

#[test]
fn a_group_norm_of_several_steps_and_a_difference_give_what_plain_loops_give() {
    let nodes: [(&str, &[&str], &str, Vec<u8>); 10] = [
        ("Constant", &[], "groups", numbers("value_ints", &[1, 1, 48])),
        ("Constant", &[], "image", numbers("value_ints", &[1, 3, 4, 4])),
        ("Reshape", &["x", "groups"], "r", vec![]),
        ("InstanceNormalization", &["r", "ones", "zeros"], "i", vec![]),
        ("Reshape", &["i", "image"], "n", vec![]),
        ("Mul", &["n", "scale"], "s", vec![]),
        ("Add", &["s", "shift"], "g", vec![]),
        ("Sub", &["x", "g"], "d", vec![]),
        ("GlobalAveragePool", &["d"], "p", vec![]),
        ("Conv", &["p", "k"], "c", vec![]),
    ];
    let end = [("Flatten", &["c"][..], "y", vec![])];
    let one = |value: f32| field(9, &value.to_le_bytes());
    let tensors: [(&str, &[u8], Vec<u8>); 5] = [
        ("ones", &[1], one(1.0)),
        ("zeros", &[1], one(0.0)),
        ("scale", &[3, 1, 1], raw(3)),
        ("shift", &[3, 1, 1], field(9, &[0; 12])),
        ("k", &[2, 3, 1, 1], raw(6)),
    ];
    let network = of(&model(&[&nodes[..], &end[..]].concat(), &tensors)).unwrap().network;
    let x: Vec<f32> = (0..48).map(|i| (i * i % 7) as f32 - 2.0).collect();
    let samples = Samples { kind: Shape::new(4, 4, 3).into(), x: x.clone(), y: vec![0].into(), stream: None };
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / 48.0;
    let var = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / 48.0;
    let value = |i: usize| f64::from(i as f32 * 0.1 - 1.0);
    for (o, found) in logits(&network, &samples).into_iter().enumerate() {
        let of = |c: usize| {
            let left = |x: f64| x - value(c) * (x - mean) / (var + 1e-5).sqrt();
            (0..16).map(|token| left(x[3 * token + c].into())).sum::<f64>() / 16.0 * value(3 * o + c)
        };
        let expected: f64 = (0..3).map(of).sum();
        assert!((f64::from(found) - expected).abs() < 1e-5, "{found} {expected}");
    }
}

/// A whole number as an attribute.
fn whole(name: &str, value: u8) -> Vec<u8> {
    field(5, &[field(1, name.as_bytes()), vec![3 << 3, value, 0xa0, 1, 2]].concat())
}

#[test]
fn zeros_that_the_graph_adds_are_the_padding_of_the_convolution() {
    let net = |pads: Option<&[u8]>, own: &[u8]| {
        let pad = |pads: &[u8]| {
            // Given in reverse, as exporters do.
            let back: Vec<u8> = pads.iter().rev().copied().collect();
            vec![
                ("Constant", &[][..], "back", numbers("value_ints", &back)),
                ("Constant", &[][..], "last", numbers("value_ints", &[(pads.len() - 1) as u8])),
                ("Constant", &[][..], "end", minus("value_ints", 9)),
                ("Constant", &[][..], "axis", numbers("value_ints", &[0])),
                ("Constant", &[][..], "step", minus("value_ints", 1)),
                ("Slice", &["back", "last", "end", "axis", "step"][..], "pads", vec![]),
                ("Pad", &["x", "pads"][..], "padded", vec![]),
            ]
        };
        let mut nodes = pads.map_or(vec![], pad);
        let from: &[&str] = if pads.is_some() { &["padded", "k"] } else { &["x", "k"] };
        nodes.push(("Conv", from, "n", numbers("pads", own)));
        nodes.push(("GlobalAveragePool", &["n"][..], "p", vec![]));
        nodes.push(("Flatten", &["p"][..], "f", vec![]));
        nodes.push(("MatMul", &["f", "w"][..], "y", vec![]));
        of(&model(&nodes, &[("w", &[3, 2], raw(6)), ("k", &[3, 3, 2, 2], raw(36))]))
    };
    let (by_graph, by_conv) = (net(Some(&[0, 0, 0, 1, 0, 0, 2, 1]), &[1, 0, 0, 0]), net(None, &[1, 1, 2, 1]));
    assert!(by_graph.unwrap().network == by_conv.unwrap().network);
    let error = net(Some(&[0, 1, 0, 1, 0, 0, 2, 1]), &[0; 4]).err().unwrap().to_string();
    assert!(error.contains("(Pad)") && error.contains("zeros around an image"), "{error}");
}

/// One whole number below 0, in a list.
fn minus(name: &str, value: u8) -> Vec<u8> {
    let number = [vec![(0x80 - value) | 0x80], vec![0xff; 8], vec![1]].concat();
    field(5, &[field(1, name.as_bytes()), field(8, &number), vec![0xa0, 1, 7]].concat())
}

#[test]
fn a_filter_is_padded_more_below_and_to_the_right() {
    let mean = |pads: [u8; 4]| {
        let pads = field(5, &[field(1, b"pads"), field(8, &pads), vec![0xa0, 1, 7]].concat());
        let nodes: [(&str, &[&str], &str, Vec<u8>); 4] = [
            ("Conv", &["x", "k"], "n", pads),
            ("GlobalAveragePool", &["n"], "p", vec![]),
            ("Flatten", &["p"], "f", vec![]),
            ("MatMul", &["f", "w"], "y", vec![]),
        ];
        let net =
            of(&model(&nodes, &[("w", &[3, 2], raw(6)), ("k", &[3, 3, 1, 1], raw(9))])).unwrap().network;
        let x = (0..48).map(|i| (i % 7) as f32 - 1.0).collect();
        let samples = Samples { kind: Shape::new(4, 4, 3).into(), x, y: vec![0].into(), stream: None };
        logits(&net, &samples)
    };
    // 16 of the 5 x 6 positions of the output are not 0.
    for (padded, plain) in mean([0, 0, 1, 2]).iter().zip(mean([0; 4])) {
        assert!((padded * 30.0 - plain * 16.0).abs() < 1e-4, "{padded} {plain}");
    }
}

#[test]
fn what_is_not_known_is_refused_with_its_node() {
    let refused = |nodes: &[(&str, &[&str], &str, Vec<u8>)], words: &[&str]| {
        let mut all = nodes.to_vec();
        all.extend([
            ("GlobalAveragePool", &["n"] as &[&str], "p", vec![]),
            ("Flatten", &["p"], "f", vec![]),
            ("MatMul", &["f", "w"], "y", vec![]),
        ]);
        let error = of(&model(&all, &[("w", &[3, 2], raw(6)), ("k", &[3, 3, 1, 1], raw(9))])).err();
        let error = error.unwrap_or_else(|| panic!("accepted, where {words:?} was expected")).to_string();
        words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
        assert!(!error.contains('\n'), "{error}");
    };
    let int = |name: &str, value: u8| {
        field(5, &[field(1, name.as_bytes()), vec![3 << 3, value, 0xa0, 1, 2]].concat())
    };
    let ints = |name: &str, values: &[u8]| {
        field(5, &[field(1, name.as_bytes()), field(8, values), vec![0xa0, 1, 7]].concat())
    };
    let conv = |attributes: Vec<u8>| [("Conv", &["x", "k"] as &[&str], "n", attributes)];
    refused(&[("Einsum", &["x"], "n", vec![])], &["`n` (Einsum)", "operator"]);
    refused(&[("Mish", &["x"], "n", vec![])], &["`n` (Mish)"]);
    refused(&[("LeakyRelu", &["x"], "n", vec![])], &["`n` (LeakyRelu)", "function of one value"]);
    refused(&conv(int("group", 2)), &["`n` (Conv)", "2 groups"]);
    refused(&conv(int("speed", 2)), &["`n` (Conv)", "`speed`"]);
    refused(&conv(ints("strides", &[1, 2])), &["`n` (Conv)", "strides [1, 2]"]);
    refused(&conv(ints("strides", &[0, 0])), &["`n` (Conv)", "strides"]);
    refused(&conv(ints("pads", &[1, 1, 0])), &["`n` (Conv)", "pads"]);
    refused(&conv(ints("kernel_shape", &[3, 3])), &["`n` (Conv)", "kernel_shape"]);
    refused(&[("Conv", &["x", "w"], "n", vec![])], &["`n` (Conv)", "[3, 2]"]);
    refused(&[("Conv", &["x", "x"], "n", vec![])], &["`n` (Conv)", "`x`"]);
    refused(&[("Relu", &["nobody"], "n", vec![])], &["`n` (Relu)", "`nobody`"]);
    refused(&[("Softmax", &["x"], "n", vec![])], &["`n` (Softmax)"]);
    refused(&[("Mul", &["x", "k"], "n", vec![])], &["`n` (Mul)"]);
    let swapped = ints("perm", &[0, 2, 1, 3]);
    refused(&[("Transpose", &["x"], "n", swapped)], &["`p` (GlobalAveragePool)", "batch, channels"]);
}

#[test]
fn damaged_and_hostile_files_are_refused_in_one_line() {
    let good = small();
    assert!(of(&good).is_ok());
    for end in 0..good.len() {
        let error = of(&good[..end]).err().unwrap_or_else(|| panic!("accepted {end} bytes")).to_string();
        assert!(!error.contains('\n'), "{error}");
    }
    // Every byte changed in three ways: read as some network, or refused; never a panic.
    for at in 0..good.len() {
        for change in [0xff, 0x80, 0x01] {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            if let Err(error) = of(&bytes) {
                assert!(error.to_string().len() < 2000);
            }
        }
    }
    // Sides whose product is beyond all memory, and values in a file elsewhere.
    let huge =
        field(1, &[0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    let bytes = model(&[("MatMul", &["x", "w"], "y", vec![])], &[("w", &[1], [huge, vec![]].concat())]);
    assert!(of(&bytes).is_err());
    let outside = |file: &str| {
        let entry = field(13, &[field(1, b"location"), field(2, file.as_bytes())].concat());
        model(&[("MatMul", &["x", "w"], "y", vec![])], &[("w", &[3, 2], entry)])
    };
    let folder = tempfile::tempdir().unwrap();
    for file in ["../secret", "/etc/passwd", "a/b", ".."] {
        let path = folder.path().join("m.onnx");
        std::fs::write(&path, outside(file)).unwrap();
        let error = open(&path).err().unwrap().to_string();
        assert!(error.contains(file) && error.contains("beside the model"), "{error}");
    }
}

#[test]
fn values_in_a_file_beside_the_model_are_read_and_changed_there() {
    let entry =
        |key: &str, value: &str| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let outside = [entry("location", "m.data"), entry("offset", "8"), entry("length", "24")].concat();
    let bytes = model(
        &[
            ("GlobalAveragePool", &["x"], "p", vec![]),
            ("Flatten", &["p"], "f", vec![]),
            ("MatMul", &["f", "w"], "y", vec![]),
        ],
        &[("w", &[3, 2], outside)],
    );
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, &bytes).unwrap();
    assert!(open(&path).err().unwrap().to_string().contains("m.data"));
    let data: Vec<u8> = (0..40).map(|i| if i % 4 == 3 { 0x3f } else { i as u8 }).collect();
    std::fs::write(folder.path().join("m.data"), &data).unwrap();
    let before = open(&path).unwrap().network;
    let mut after = before.clone();
    after.params[0].value[0] = 2.0;
    let patched = Checkpoint::open(&path).unwrap().write_patched(&before, &after, out.path()).unwrap();
    assert_eq!((patched.changed, patched.files.len()), (1, 2));
    assert_eq!(std::fs::read(out.path().join("m.onnx")).unwrap(), bytes);
    let new = std::fs::read(out.path().join("m.data")).unwrap();
    assert_eq!((&new[..8], &new[8..12], &new[12..]), (&data[..8], &2.0f32.to_le_bytes()[..], &data[12..]));
    std::fs::write(folder.path().join("m.data"), &data[..20]).unwrap();
    assert!(open(&path).err().unwrap().to_string().contains("needs 24 bytes from byte 8"));
}
