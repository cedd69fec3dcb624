//! Graph files: every network that is read from its tensors is written as a list of nodes and read back the same, and a list
//! that makes no network is refused by the node that is wrong.

use std::path::Path;

use crate::families::{Folder, RECORDED, config, images, logits, state};
use crate::torch::State;
use scrubjay::checkpoint::{Checkpoint, save};
use scrubjay::net::Shape;
use scrubjay::zoo::{self, Model};
use serde_json::{Value, json};

/// A model, written as a graph and read again.
fn through_a_graph(model: &Model) -> scrubjay::Result<Model> {
    let folder = tempfile::tempdir().unwrap();
    save(&folder.path().join("model.safetensors"), &model.network)?;
    std::fs::write(folder.path().join("config.json"), zoo::graph_config(model)?).unwrap();
    let image = model.network.vocabulary().is_none().then(|| model.network.input());
    zoo::load(&Checkpoint::open(folder.path())?, None, image)
}

#[test]
fn every_recorded_network_is_the_same_after_it_was_written_as_a_graph() {
    for (name, _) in RECORDED {
        let model = Folder::new(&state(name), &config(name)).load(Some(images(name).shape())).unwrap();
        let back = through_a_graph(&model).unwrap();
        assert_eq!(back.family, "graph");
        assert!(back.network == model.network, "{name}");
        assert!(back.facts.assumed.is_empty(), "{name}: {:?}", back.facts);
        assert_eq!(zoo::graph_config(&back).unwrap(), zoo::graph_config(&model).unwrap(), "{name}");
    }
    let nets = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nets");
    for (name, config) in [
        ("small_cnn", Value::Null),
        ("resnet50_w8_bottleneck", Value::Null),
        ("vitmini_32", json!({"architecture": "vit_mini", "num_heads": 4})),
    ] {
        let image = images(name).shape();
        let model = Folder::new(&state(name), &config).load(Some(image)).unwrap();
        assert!(through_a_graph(&model).unwrap().network == model.network, "{name}");
    }
    for (name, file) in [("bert", "bert_tiny"), ("distilbert", "distilbert_tiny")] {
        assert!(nets.join(format!("{file}.safetensors")).exists());
        let spec = format!("{name}:30-16-2-4-12");
        let made = zoo::create(&spec, scrubjay::data::InputKind::Text { tokens: 9 }, 3, 5).unwrap();
        let (facts, inputs) = Default::default();
        let model = Model { network: made.network, family: "bert", inputs, facts };
        assert!(through_a_graph(&model).unwrap().network == model.network, "{name}");
    }
}

#[test]
fn a_model_that_normalises_its_images_and_config_with_mean_and_loss_are_kept() {
    let plain = state("osnet_tiny");
    let mut state = plain.clone();
    state.insert("normalize.mean".into(), (vec![1, 3, 1, 1], vec![0.25, 0.5, 0.75]));
    state.insert("normalize.std".into(), (vec![1, 3, 1, 1], vec![0.5, 0.25, 0.125]));
    let model =
        Folder::new(&state, &json!({"label_smoothing": 0.125})).load(Some(images("osnet_tiny").shape()));
    let (model, samples) = (model.unwrap(), images("osnet_tiny"));
    let back = through_a_graph(&model).unwrap();
    assert!(back.network == model.network);
    assert_eq!(logits(&back.network, &samples), logits(&model.network, &samples));
    let config = json!({"mean": [0.1, 0.2, 0.3], "std": [0.7, 0.8, 0.9]});
    let model = Folder::new(&plain, &config).load(None).unwrap();
    assert_eq!(through_a_graph(&model).unwrap().inputs.mean, Some(vec![0.1, 0.2, 0.3]));
}

/// Two filters and a matrix.
fn tensors() -> State {
    let tensor = |shape: &[usize]| (shape.to_vec(), vec![0.5; shape.iter().product()]);
    [("a.weight", tensor(&[4, 3, 3, 3])), ("a.bias", tensor(&[4])), ("fc.weight", tensor(&[2, 4]))]
        .map(|(name, tensor)| (name.to_string(), tensor))
        .into()
}

fn load(nodes: Value) -> scrubjay::Result<Model> {
    let config = json!({"architecture": "graph", "input_size": [3, 8, 8], "nodes": nodes});
    Folder::new(&tensors(), &config).load(None)
}

#[test]
fn nodes_that_make_no_network_are_refused_by_name() {
    let conv = |change: Value| {
        let mut node =
            json!({"name": "c", "op": "conv", "inputs": ["image"], "weight": "a.weight", "bias": "a.bias"});
        change.as_object().unwrap().iter().for_each(|(key, value)| node[key] = value.clone());
        node
    };
    let pool = json!({"name": "p", "op": "global_pool", "inputs": ["c"]});
    let head = json!({"name": "fc", "op": "linear", "inputs": ["p"], "weight": "fc.weight"});
    let model = load(json!([conv(json!({})), pool, head])).unwrap();
    assert_eq!((model.network.classes(), model.network.layers.len()), (2, 2));
    for (first, words) in [
        (json!({"inputs": ["p"]}), &["`c` (conv)", "`p`", "cycle"][..]),
        (json!({"inputs": ["nobody"]}), &["`c`", "`nobody`", "no node"]),
        (json!({"inputs": ["image", "image"]}), &["`c`", "reads 2 nodes"]),
        (json!({"inputs": 3}), &["`c`", "inputs"]),
        (json!({"name": 3}), &["node 0", "name"]),
        (json!({"op": "deconv"}), &["`c`", "`deconv`", "`conv`"]),
        (json!({"pads": [1, 1, 1, 1]}), &["`c`", "`pads`", "`padding`"]),
        (json!({"stride": 0}), &["`c`", "stride", "is 0"]),
        (json!({"stride": -1}), &["`c`", "-1"]),
        (json!({"dilation": 18446744073709551615u64}), &["`c`", "dilation"]),
        (json!({"padding": [18446744073709551615u64, 0]}), &["`c`", "filter fits"]),
        (json!({"dilation": 4}), &["`c`", "filter fits"]),
        (json!({"groups": 2}), &["`c`", "groups"]),
        (json!({"weight": "b.weight"}), &["`c`", "`b.weight`"]),
        (json!({"weight": "fc.weight"}), &["`c`", "`fc.weight`", "4 axes"]),
        (json!({"bias": "fc.weight"}), &["`fc.weight`", "[2, 4]", "`c`"]),
        (json!({"bias": null}), &["`a.bias`", "no place"]),
    ] {
        let error = load(json!([conv(first.clone()), pool, head])).err();
        let error = error.unwrap_or_else(|| panic!("accepted: {first}")).to_string();
        words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
    }
    let more = |node: Value, words: &[&str]| {
        let error = load(json!([conv(json!({})), node, pool, head])).err().unwrap().to_string();
        words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
    };
    more(
        json!({"name": "r", "op": "activation", "function": "relu", "inputs": ["c"]}),
        &["`r`", "no node reads"],
    );
    more(
        json!({"name": "r", "op": "activation", "function": "mish", "inputs": ["c"]}),
        &["`r`", "mish", "relu"],
    );
    more(json!({"name": "r", "op": "activation", "function": "relu", "inputs": ["p"]}), &["`r`", "later"]);
    more(
        json!({"name": "c", "op": "activation", "function": "relu", "inputs": ["c"]}),
        &["`c`", "earlier node"],
    );
    more(json!({"name": "r", "op": "add", "inputs": ["c", "image"]}), &["`r` (add)", "expected"]);
    more(
        json!({"name": "r", "op": "max_pool", "size": 2, "padding": 2, "inputs": ["c"]}),
        &["`r`", "less than"],
    );
    more(
        json!({"name": "r", "op": "adaptive_pool", "height": 1048576, "width": 1048576, "inputs": ["c"]}),
        &["`r`", "too many"],
    );
    assert!(load(json!([])).err().unwrap().to_string().contains("empty"));
    let flat = json!([
        {"name": "f", "op": "flatten", "inputs": ["image"]},
        {"name": "n", "op": "scale", "factor": 2.0, "inputs": ["f"]},
    ]);
    assert!(load(flat).err().unwrap().to_string().contains("only linear and activation"));
}

#[test]
fn a_transposed_matrix_is_the_same_layer() {
    let mut state = State::new();
    let values: Vec<f32> = (0..48).map(|i| (i as f32 * 0.37).sin()).collect();
    state.insert("m".into(), (vec![12, 4], values.clone()));
    let transposed = |values: &[f32]| (0..48).map(|i| values[i % 12 * 4 + i / 12]).collect::<Vec<f32>>();
    let nodes = |transposed: bool| {
        json!({"architecture": "graph", "input_size": [3, 2, 2], "nodes": [
            {"name": "f", "op": "flatten", "inputs": ["image"]},
            {"name": "y", "op": "linear", "weight": "m", "transposed": transposed, "inputs": ["f"]}]})
    };
    let one = Folder::new(&state, &nodes(true)).load(None).unwrap().network;
    let back = through_a_graph(&Model {
        network: one.clone(),
        family: "",
        inputs: Default::default(),
        facts: Default::default(),
    });
    assert!(back.unwrap().network == one);
    state.insert("m".into(), (vec![4, 12], transposed(&values)));
    let other = Folder::new(&state, &nodes(false)).load(None).unwrap().network;
    assert_eq!((&one.params[0].value, one.layers.len()), (&other.params[0].value, 1));
    assert_eq!(one.params[0].order.to_stored(&one.params[0].value), values);
    // Its file changes where the same value is.
    let folder = Folder::new(&[("m".to_string(), (vec![12, 4], values))].into(), &nodes(true));
    let (mut after, out) = (one.clone(), tempfile::tempdir().unwrap());
    after.params[0].value[5] += 1.0;
    Checkpoint::open(folder.0.path()).unwrap().write_patched(&one, &after, out.path()).unwrap();
    let read = zoo::load(&Checkpoint::open(out.path()).unwrap(), None, Some(Shape::new(2, 2, 3))).unwrap();
    assert!(read.network == after);
}
