//! The engine against the oracle on tiny networks of every operation, the oracle against closed forms and differences,
//! and both against the recorded networks where SCRUBJAY_GOLDEN points at them.

#[path = "reference/attention.rs"]
mod attention;
#[path = "cases/nets.rs"]
mod cases;
#[path = "reference/dual.rs"]
mod dual;
#[path = "reference/embedding.rs"]
mod embedding;
#[path = "reference/gate.rs"]
mod gate;
#[path = "reference/group_norm.rs"]
mod group_norm;
#[path = "reference/layers.rs"]
mod layers;
#[path = "reference/loss.rs"]
mod loss;
#[path = "reference/net.rs"]
mod oracle;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use cases::{CASES, Case, Random};
use dual::Number;
use libtest_mimic::{Failed, Trial};
use oracle::{Matrix, Params, batch_loss, batch_slope, constants, of_block, product, run, slope, to_params};
use scrubjay::block::Block;
use scrubjay::checkpoint::Checkpoint;
use scrubjay::curvature::{Curvature, Kind};
use scrubjay::data::tensors::{self, Tensor, TensorFile, Values};
use scrubjay::data::{InputKind, Samples};
use scrubjay::device::Device;
use scrubjay::net::{Network, Param, Shape, TrainPass, UnitId};
use scrubjay::observe::observe;
use scrubjay::solve::{Limits, minres};
use scrubjay::train::Optimizer;
use scrubjay::zoo;
use serde_json::{Value, json};

type Outcome = Result<(), Failed>;

const KINDS: [(Kind, Matrix); 3] =
    [(Kind::Hessian, Matrix::Hessian), (Kind::Ggn, Matrix::Ggn), (Kind::Fisher, Matrix::Fisher)];

/// Recorded networks, and the config of those whose tensors do not tell everything.
const GOLDEN: [(&str, &str); 9] = [
    ("logistic_regressor", ""),
    ("logistic2nn", ""),
    ("small_cnn", ""),
    ("resnet18_w16_32", ""),
    ("resnet50_w8_bottleneck", ""),
    ("vgg11_bn_w8_32", ""),
    ("osnet_x0_25_64x32", ""),
    ("vitmini_32", r#"{"architecture": "vit_mini", "num_classes": 5, "num_heads": 4}"#),
    (
        "distilbert_tiny",
        r#"{"model_type": "distilbert", "num_labels": 5, "n_heads": 4, "activation": "gelu"}"#,
    ),
];

/// Networks of the families that `scripts/families.py` recorded, in the same way.
const FAMILIES: [(&str, &str); 45] = [
    ("preact_cifar", ""),
    ("preact_bottleneck_cifar", ""),
    ("wrn_meliketoy", ""),
    ("wrn_xternalz", ""),
    ("resnext_tiny", ""),
    ("densenet_tiny", ""),
    ("densenet_cifar", ""),
    ("alexnet_tiny", ""),
    ("vgg_kuangliu", ""),
    ("vgg_dropout", ""),
    ("vgg_face", ""),
    ("mobilenet_v2_tiny", ""),
    ("mobilenet_v3_small_tiny", ""),
    ("mobilenet_v3_large_tiny", ""),
    ("efficientnet_tiny", ""),
    ("efficientnet_v2_tiny", ""),
    ("mobilenet_v2_timm", ""),
    ("mobilenet_v3_small_timm", ""),
    ("mobilenet_v3_large_timm", ""),
    ("efficientnet_timm", ""),
    ("regnet_y_timm", ""),
    ("osnet_tiny", ""),
    ("osnet_ibn_tiny", ""),
    ("osnet_ain_tiny", ""),
    ("mlfn_tiny", ""),
    ("regnet_y_tiny", ""),
    ("regnet_x_tiny", ""),
    ("convnext_tiny_torchvision", ""),
    ("convnext_tiny_timm", ""),
    ("convnext_tiny_hugging_face", r#"{"model_type": "convnext", "layer_norm_eps": 1e-3}"#),
    ("deit_distilled_tiny", r#"{"num_heads": 3}"#),
    ("vit_layer_scale_tiny", r#"{"num_heads": 3}"#),
    ("vit_registers_tiny", r#"{"num_heads": 3}"#),
    ("deit_distilled_hugging_face", r#"{"model_type": "deit", "num_attention_heads": 3}"#),
    ("dinov2_hugging_face", r#"{"model_type": "dinov2", "num_attention_heads": 3}"#),
    ("swin_torchvision", ""),
    ("tf_efficientnet_timm", r#"{"architecture": "tf_efficientnet_b0"}"#),
    ("tf_efficientnet_v2_timm", r#"{"architecture": "tf_efficientnetv2_b0"}"#),
    ("tf_mobilenet_v3_timm", r#"{"architecture": "tf_mobilenetv3_small_100"}"#),
    ("efficientnet_v2_timm", ""),
    ("clip_hugging_face", r#"{"model_type": "clip", "vision_config": {"num_attention_heads": 3}}"#),
    ("clip_timm", r#"{"architecture": "vit_base_patch32_clip_quickgelu_224", "num_heads": 3}"#),
    ("mixer_timm", ""),
    ("swin_timm", ""),
    ("swin_hugging_face", r#"{"model_type": "swin", "num_heads": [2, 4], "layer_norm_eps": 1e-3}"#),
];

/// Those of which `tests/data/nets` has a part.
const STORED: [&str; 4] = ["small_cnn", "resnet50_w8_bottleneck", "vitmini_32", "distilbert_tiny"];

/// A network that is recorded in `tests/data/nets` alone.
const BERT: (&str, &str) =
    ("bert_tiny", r#"{"model_type": "bert", "num_attention_heads": 4, "hidden_act": "gelu_new"}"#);

/// Every case.
pub fn trials() -> Vec<Trial> {
    let mut trials = vec![];
    for case in &CASES {
        for seed in 0..3 {
            let mut trial = |what: &str, test: fn(&Case, u64) -> Outcome| {
                let name = format!("net/{}/{what},seed={seed}", case.name);
                trials.push(Trial::test(name, move || test(case, seed)));
            };
            trial("oracle_gradient_is_the_slope_of_the_loss", differences_of_the_loss);
            trial("oracle_product_is_the_slope_of_the_gradient", differences_of_the_gradient);
            trial("freezing_keeps_the_function", freezing);
            trial("forward", forward);
            trial("gradient", gradient);
            trial("products", products);
            trial("symmetry_and_linearity", symmetry);
            trial("threads_and_memory_leave_no_trace", threads);
            trial("training_gradient", training);
        }
    }
    trials.push(Trial::test("net/softmax/closed_form", closed_form));
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nets");
    let whole = std::env::var_os("SCRUBJAY_GOLDEN").map(|at| PathBuf::from(at).join("models"));
    recorded(&mut trials, "recorded", stored.clone(), BERT.0, BERT.1);
    for (name, config) in FAMILIES {
        recorded(&mut trials, "family", stored.clone(), name, config);
    }
    for (name, config) in GOLDEN {
        if STORED.contains(&name) {
            let folder = stored.clone();
            recorded(&mut trials, "recorded", folder, name, config);
        }
        match whole.clone() {
            Some(folder) => recorded(&mut trials, "golden", folder, name, config),
            None => {
                let name = format!("net/golden/{name} (SCRUBJAY_GOLDEN is not set)");
                trials.push(Trial::test(name, || Ok(())).with_ignored_flag(true));
            }
        }
    }
    trials
}

/// A recorded network through the library and through the program.
fn recorded(trials: &mut Vec<Trial>, set: &str, folder: PathBuf, name: &'static str, config: &'static str) {
    let of_library = folder.clone();
    let test = move || golden(&of_library, name, config);
    trials.push(Trial::test(format!("net/{set}/{name}"), test));
    let test = move || through_the_program(&folder, name, config);
    trials.push(Trial::test(format!("net/{set}/{name},through_the_program"), test));
}

fn size(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths");
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let size = norm(&mut b.iter().copied());
    let off = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    if off == 0.0 { 0.0 } else { off / size }
}

fn within(what: &str, off: f64, bound: f64) -> Outcome {
    // Written so that NaN fails.
    if off <= bound { Ok(()) } else { Err(format!("{what}: off by {off:.3e}, allowed {bound:.3e}").into()) }
}

/// The tolerance rule: at most twice the error of a plain f32 loop, plus 8 ulps.
fn close(what: &str, out: &[f64], plain: &[f64], reference: &[f64]) -> Outcome {
    let bound = 2.0 * distance(plain, reference) + 8.0 * f64::from(f32::EPSILON);
    within(what, distance(out, reference), bound)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn numbers<T: Number>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.value()).collect()
}

fn vector(random: &mut Random, p: usize) -> Vec<f32> {
    (0..p).map(|_| random.next() as f32).collect()
}

/// Every unit; every third of them backwards; the last layer; the first unit alone.
fn blocks(net: &Network) -> Result<Vec<Block>, Failed> {
    let d = net.units().len() as u32;
    let last = d - net.layers[net.layers.len() - 1].outputs as u32;
    let some = [(0..d).collect::<Vec<_>>(), (0..d).rev().step_by(3).collect(), (last..d).collect(), vec![0]];
    Ok(some
        .iter()
        .map(|units| Block::of(net, &units.iter().map(|&unit| UnitId(unit)).collect::<Vec<_>>()))
        .collect::<scrubjay::Result<Vec<_>>>()?)
}

fn frozen(case: &Case, seed: u64, n: usize) -> Result<(Network, Samples, Random), Failed> {
    let net = case.network(seed)?.freeze();
    let mut random = Random(seed ^ 0x5eed);
    let samples = random.samples(&net, n);
    Ok((net, samples, random))
}

// --- the oracle

fn moved(net: &Network, direction: &Params<f64>, step: f64) -> Params<f64> {
    let mut params = constants::<f64>(net);
    params.iter_mut().flatten().zip(direction.iter().flatten()).for_each(|(p, d)| *p += step * d);
    params
}

fn mean_loss(net: &Network, params: &Params<f64>, samples: &Samples) -> f64 {
    let losses = run(net, params, &samples.x, samples.y.words(), &slope(net.loss)).losses;
    losses.iter().sum::<f64>() / losses.len() as f64
}

/// A direction that moves everything that is trained, embeddings and norms included.
fn any_direction(net: &Network, random: &mut Random) -> Params<f64> {
    let direction =
        |p: &Param| p.value.iter().map(|_| if p.trained { random.next() } else { 0.0 }).collect::<Vec<f64>>();
    net.params.iter().map(direction).collect()
}

const STEP: f64 = 1e-6;

fn differences_of_the_loss(case: &Case, seed: u64) -> Outcome {
    let net = case.network(seed)?;
    let mut random = Random(seed + 7);
    let samples = random.samples(&net, 3);
    let direction = any_direction(&net, &mut random);
    let along: f64 = {
        let gradient =
            run(&net, &constants::<f64>(&net), &samples.x, samples.y.words(), &slope(net.loss)).gradient;
        gradient.iter().flatten().zip(direction.iter().flatten()).map(|(g, d)| g * d).sum()
    };
    let loss = |step: f64| mean_loss(&net, &moved(&net, &direction, step), &samples);
    within("gradient", ((loss(STEP) - loss(-STEP)) / (2.0 * STEP) - along).abs(), 1e-8 * (1.0 + along.abs()))
}

fn differences_of_the_gradient(case: &Case, seed: u64) -> Outcome {
    let net = case.network(seed)?;
    let mut random = Random(seed + 7);
    let samples = random.samples(&net, 3);
    let direction = any_direction(&net, &mut random);
    let hv = product::<f64>(&net, &direction, &samples.x, samples.y.words(), Matrix::Hessian);
    let gradient = |step| {
        run(&net, &moved(&net, &direction, step), &samples.x, samples.y.words(), &slope(net.loss))
            .gradient
            .concat()
    };
    let (up, down) = (gradient(STEP), gradient(-STEP));
    let slopes: Vec<f64> = up.iter().zip(&down).map(|(u, d)| (u - d) / (2.0 * STEP)).collect();
    within("Hv", distance(&slopes, &hv.concat()), 1e-7)
}

/// The Hessian of softmax regression is the mean of (diag(p) − ppᵀ) ⊗ x̃x̃ᵀ, x̃ the input and a one.
fn closed_form() -> Outcome {
    let (net, samples, mut random) = frozen(&CASES[0], 5, 4)?;
    let block = Block::all(&net)?;
    let v = vector(&mut random, block.len());
    let (classes, inner) = (net.classes(), net.input().len() + 1);
    let mut expected = vec![0.0; block.len()];
    for image in samples.x.chunks_exact(inner - 1) {
        let x: Vec<f64> = wide(image).into_iter().chain([1.0]).collect();
        let row = |values: &[f32], o: usize| -> f64 {
            x.iter().zip(&values[o * inner..(o + 1) * inner]).map(|(x, &v)| x * f64::from(v)).sum()
        };
        let values = block.values(&net);
        let exp: Vec<f64> = (0..classes).map(|o| row(&values, o).exp()).collect();
        let p: Vec<f64> = exp.iter().map(|e| e / exp.iter().sum::<f64>()).collect();
        let t: Vec<f64> = (0..classes).map(|o| row(&v, o)).collect();
        let mean: f64 = p.iter().zip(&t).map(|(p, t)| p * t).sum();
        for o in 0..classes {
            for (i, x) in x.iter().enumerate() {
                expected[o * inner + i] += p[o] * (t[o] - mean) * x / samples.y.len() as f64;
            }
        }
    }
    for matrix in [Matrix::Hessian, Matrix::Ggn] {
        let hv = product::<f64>(&net, &to_params(&net, &block, &v), &samples.x, samples.y.words(), matrix);
        within("Hv", distance(&of_block(&net, &block, &hv), &expected), 1e-12)?;
    }
    Ok(())
}

// --- the engine

/// Freezing rounds scale and shift to f32, no more.
fn freezing(case: &Case, seed: u64) -> Outcome {
    let net = case.network(seed)?;
    let samples = Random(seed).samples(&net, 3);
    let outcome =
        |net: &Network| run(net, &constants::<f64>(net), &samples.x, samples.y.words(), &slope(net.loss));
    let (train, frozen) = (outcome(&net), outcome(&net.freeze()));
    within("logits", distance(&frozen.logits, &train.logits), 1e-6)?;
    within("activations", distance(&frozen.activations, &train.activations), 1e-6)
}

fn forward(case: &Case, seed: u64) -> Outcome {
    let (net, samples, _) = frozen(case, seed, 5)?;
    let trace = observe(&Device::cpu()?, &net, &samples)?;
    let reference = run(&net, &constants::<f64>(&net), &samples.x, samples.y.words(), &slope(net.loss));
    let plain = run(&net, &constants::<f32>(&net), &samples.x, samples.y.words(), &slope(net.loss));
    close("logits", &wide(&trace.logits), &numbers(&plain.logits), &reference.logits)?;
    close("losses", &wide(&trace.losses), &numbers(&plain.losses), &reference.losses)?;
    close("activations", &wide(&trace.activations), &numbers(&plain.activations), &reference.activations)
}

fn gradient(case: &Case, seed: u64) -> Outcome {
    let (net, samples, _) = frozen(case, seed, 5)?;
    let device = Device::cpu()?;
    let reference =
        run(&net, &constants::<f64>(&net), &samples.x, samples.y.words(), &slope(net.loss)).gradient;
    let plain = run(&net, &constants::<f32>(&net), &samples.x, samples.y.words(), &slope(net.loss)).gradient;
    for block in blocks(&net)? {
        let expected = of_block(&net, &block, &reference);
        let plain = of_block(&net, &block, &plain);
        let what = format!("gradient of {} units", block.units().len());
        close(&what, &block.gradient(&device, &net, &samples)?, &plain, &expected)?;
    }
    Ok(())
}

fn products(case: &Case, seed: u64) -> Outcome {
    let (net, samples, mut random) = frozen(case, seed, 5)?;
    let device = Device::cpu()?;
    for block in blocks(&net)? {
        let v = vector(&mut random, block.len());
        let direction = to_params(&net, &block, &v);
        for (kind, matrix) in KINDS {
            let curvature = Curvature::new(&device, &net, &block, &samples, kind, usize::MAX)?;
            let mut hv = vec![f64::NAN; block.len()];
            curvature.apply(&mut hv, &v)?;
            let reference = product::<f64>(&net, &direction, &samples.x, samples.y.words(), matrix);
            let plain = product::<f32>(&net, &direction, &samples.x, samples.y.words(), matrix);
            let what = format!("{kind:?} product of {} units", block.units().len());
            let expected = of_block(&net, &block, &reference);
            close(&what, &hv, &of_block(&net, &block, &plain), &expected)?;
        }
    }
    Ok(())
}

/// u·Hv = v·Hu, and H(u + v) = Hu + Hv, to what f32 passes leave.
fn symmetry(case: &Case, seed: u64) -> Outcome {
    let (net, samples, mut random) = frozen(case, seed, 6)?;
    let device = Device::cpu()?;
    let block = &blocks(&net)?[1];
    let (u, v) = (vector(&mut random, block.len()), vector(&mut random, block.len()));
    let both: Vec<f32> = u.iter().zip(&v).map(|(u, v)| u + v).collect();
    let dot = |a: &[f32], b: &[f64]| a.iter().zip(b).map(|(&a, b)| f64::from(a) * b).sum::<f64>();
    for (kind, _) in KINDS {
        let curvature = Curvature::new(&device, &net, block, &samples, kind, usize::MAX)?;
        let product = |v: &[f32]| -> scrubjay::Result<Vec<f64>> {
            let mut hv = vec![f64::NAN; v.len()];
            curvature.apply(&mut hv, v)?;
            Ok(hv)
        };
        let (hu, hv, sum) = (product(&u)?, product(&v)?, product(&both)?);
        let scale = size(&wide(&u)) * size(&hv) + size(&wide(&v)) * size(&hu);
        within("symmetry", (dot(&u, &hv) - dot(&v, &hu)).abs(), 1e-5 * scale)?;
        let off: Vec<f64> = sum.iter().zip(&hu).zip(&hv).map(|((s, u), v)| s - u - v).collect();
        within("linearity", size(&off), 1e-5 * (size(&hu) + size(&hv)))?;
    }
    Ok(())
}

fn threads(case: &Case, seed: u64) -> Outcome {
    let (net, samples, mut random) = frozen(case, seed, 300)?;
    let block = &blocks(&net)?[1];
    let v = vector(&mut random, block.len());
    let mut seen: Option<(Vec<u32>, Vec<u64>)> = None;
    for (threads, memory) in [(1, usize::MAX), (2, usize::MAX), (1, 0), (3, 1 << 16)] {
        let device = Device::on_cpu(threads, "a test")?;
        let trace = observe(&device, &net, &samples)?;
        let mut bits: Vec<u64> = vec![];
        bits.extend(block.gradient(&device, &net, &samples)?.iter().map(|v| v.to_bits()));
        for (kind, _) in KINDS {
            let mut hv = vec![f64::NAN; block.len()];
            Curvature::new(&device, &net, block, &samples, kind, memory)?.apply(&mut hv, &v)?;
            bits.extend(hv.iter().map(|v| v.to_bits()));
        }
        let values = trace.logits.iter().chain(&trace.losses).chain(&trace.activations);
        let now = (values.map(|v| v.to_bits()).collect(), bits);
        if seen.get_or_insert_with(|| now.clone()) != &now {
            return Err(format!("{threads} threads with {memory} bytes give other bits").into());
        }
    }
    Ok(())
}

/// The gradient of every trained parameter, norms' affines, embeddings and class tokens included, against dual numbers:
/// a batch in train form, along random directions of one parameter at a time.
fn training(case: &Case, seed: u64) -> Outcome {
    const DIRECTIONS: usize = 5;
    let net = case.network(seed)?;
    let mut random = Random(seed ^ 0x7a1e);
    let samples = random.samples(&net, 7);
    let device = Device::cpu()?;
    let mut moved = net.clone();
    let mut pass = TrainPass::new(&device, &mut moved, 7, Optimizer::Sgd)?;
    let loss = pass.step(&samples)?.loss;
    let gradients = pass.gradients()?;
    let expected = batch_loss(&net, &constants::<f64>(&net), &samples.x, samples.y.words());
    within("loss", (loss - expected).abs(), 1e-6 * expected)?;
    let whole = size(&gradients.iter().flat_map(|g| wide(g)).collect::<Vec<_>>());
    for (i, param) in net.params.iter().enumerate().filter(|(_, param)| param.trained) {
        let (mut engine, mut reference, mut plain, mut longest) = (vec![], vec![], vec![], 0.0f64);
        for _ in 0..DIRECTIONS {
            let mut direction: Params<f64> = net.params.iter().map(|p| vec![0.0; p.value.len()]).collect();
            direction[i].iter_mut().for_each(|d| *d = random.next());
            engine.push(gradients[i].iter().zip(&direction[i]).map(|(&g, d)| f64::from(g) * d).sum());
            reference.push(batch_slope::<f64>(&net, &direction, &samples.x, samples.y.words()));
            plain.push(batch_slope::<f32>(&net, &direction, &samples.x, samples.y.words()).value());
            longest = longest.max(size(&direction[i]));
        }
        let what = format!("training gradient of {}", param.name);
        // A bias before a norm that takes it off again has no gradient but rounding.
        if size(&reference) < 1e-9 * whole {
            within(&what, size(&engine), 16.0 * f64::from(f32::EPSILON) * whole * longest)?;
        } else {
            close(&what, &engine, &plain, &reference)?;
        }
    }
    Ok(())
}

// --- recorded networks

/// (c, h, w) to (h, w, c).
fn channels_last(x: &[f32], shape: Shape) -> Vec<f32> {
    let image = |image: &[f32]| {
        let at = |i: usize| image[i % shape.c * shape.positions() + i / shape.c];
        (0..shape.len()).map(at).collect::<Vec<_>>()
    };
    x.chunks_exact(shape.len()).flat_map(image).collect()
}

/// The recorded activations, uses averaged and in module order, `[n, d]`.
fn recorded_activations(taps: &[f64], info: &Value, n: usize) -> Option<Vec<f64>> {
    let uses = info["taps_exec"].as_array()?;
    let mut columns: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut width = 0;
    for tap in uses {
        columns.entry(tap["layer"].as_str()?).or_default().push(width);
        width += tap["channels"].as_u64()? as usize;
    }
    let mut out = vec![];
    for row in taps.chunks_exact(width).take(n) {
        for layer in info["layers_module_order"].as_array()? {
            let first = columns.get(layer["layer"].as_str()?)?;
            for channel in 0..layer["out"].as_u64()? as usize {
                out.push(first.iter().map(|at| row[at + channel]).sum::<f64>() / first.len() as f64);
            }
        }
    }
    Some(out)
}

/// Reads the network through the registry, from a copy of its own tensors alone.
fn network(file: &TensorFile, config: &str, kind: InputKind) -> Result<Network, Failed> {
    let folder = tempfile::tempdir()?;
    write_model(folder.path(), file, config)?;
    Ok(zoo::load_as(&Checkpoint::open(folder.path())?, &Default::default(), Some(kind))?.network)
}

/// The recorded images or texts, with their labels.
fn recorded_samples(file: &TensorFile) -> Result<Samples, Failed> {
    let y = file.labels("golden.label")?.into();
    if file.has("golden.x") {
        let sides = file.shape("golden.x")?;
        let shape = Shape::new(sides[2], sides[3], sides[1]);
        return Ok(Samples {
            kind: shape.into(),
            x: channels_last(&file.f32("golden.x")?, shape),
            y,
            stream: None,
        });
    }
    let tokens = file.shape("golden.input_ids")?[1];
    let [ids, mask] = ["golden.input_ids", "golden.attention_mask"].map(|name| file.labels(name));
    let (ids, mask) = (ids?, mask?);
    let rows = ids.chunks_exact(tokens).zip(mask.chunks_exact(tokens));
    let x = rows.flat_map(|(ids, mask)| ids.iter().chain(mask)).map(|&word| f32::from_bits(word)).collect();
    Ok(Samples { kind: InputKind::Text { tokens }, x, y, stream: None })
}

/// Writes the network's own tensors, and its config where it has one, to a folder.
fn write_model(folder: &Path, file: &TensorFile, config: &str) -> Outcome {
    let names: Vec<String> = file.names().into_iter().filter(|name| !name.starts_with("golden.")).collect();
    let names: Vec<String> = names
        .into_iter()
        .filter(|name| !["num_batches_tracked", "_index"].iter().any(|end| name.ends_with(end)))
        .collect();
    let values = names.iter().map(|name| file.f32(name)).collect::<scrubjay::Result<Vec<_>>>()?;
    let mut own = vec![];
    for (name, values) in names.iter().zip(&values) {
        own.push(Tensor { name, shape: file.shape(name)?.to_vec(), values: Values::F32(values) });
    }
    tensors::write(&folder.join("model.safetensors"), &own, HashMap::new())?;
    if !config.is_empty() {
        std::fs::write(folder.join("config.json"), config)?;
    }
    Ok(())
}

/// Norm and signed sum Σ g_i cos(i) of a parameter's values (in PyTorch's order) against those recorded.
fn check(what: &str, checks: &Value, param: &str, values: &[f64], norm_off: f64, sum_off: f64) -> Outcome {
    let (norm, dotcos) = (checks[param]["norm"].as_f64(), checks[param]["dotcos"].as_f64());
    let (norm, dotcos) = norm.zip(dotcos).ok_or_else(|| format!("no check of {what} of {param}"))?;
    let cosines: f64 = values.iter().enumerate().map(|(i, v)| v * (i as f64).cos()).sum();
    within(&format!("{what} of {param}"), (size(values) - norm).abs(), norm_off)?;
    within(&format!("order of {what} of {param}"), (cosines - dotcos).abs(), sum_off)
}

/// A parameter's values in PyTorch's order.
fn in_file(param: &Param, values: &[f64]) -> Vec<f64> {
    (0..values.len()).map(|i| values[param.order.kept(i)]).collect()
}

/// At most twice the recorded error of PyTorch's own f32 run, plus 8 ulps.
fn bound(info: &Value, what: &str) -> Result<f64, Failed> {
    let plain = info["f32_relerr"][what].as_f64().ok_or_else(|| format!("no f32 error of {what}"))?;
    Ok(2.0 * plain + 8.0 * f64::from(f32::EPSILON))
}

/// Oracle and engine against what PyTorch recorded in f64.
fn golden(folder: &Path, name: &str, config: &str) -> Outcome {
    let file = TensorFile::open(&folder.join(format!("{name}.safetensors")))?;
    let info: Value = serde_json::from_slice(&std::fs::read(folder.join(format!("{name}.json")))?)?;
    let samples = recorded_samples(&file)?;
    let shape = samples.shape();
    let train = network(&file, config, samples.kind)?;
    let net = train.freeze();
    let mut units = vec![];
    for unit in info["selection"].as_array().ok_or("no selection")? {
        let layer = net.layer_named(unit[0].as_str().ok_or("no layer")?)?;
        units.push(net.units().find(layer, unit[1].as_u64().ok_or("no row")? as usize)?);
    }
    let block = Block::of(&net, &units)?;
    let v = block.from_stored(&net, &file.f32("golden.v_P")?);
    let recorded = |tensor: &str| file.f64(&format!("golden.{tensor}"));
    // Block vectors are recorded in PyTorch's order; both sides are compared in it.
    let stored = |values: &[f64]| -> Vec<f64> { in_stored_order(&net, &block, values) };
    let taps = recorded_activations(&recorded("taps_channel_mean_exec_per_sample")?, &info, samples.y.len());
    let taps = taps.ok_or("taps are not described")?;

    // The oracle on the train form, which knows nothing of freezing.
    let outcome = run(&train, &constants::<f64>(&train), &samples.x, samples.y.words(), &slope(train.loss));
    within("oracle logits", distance(&outcome.logits, &recorded("logits")?), 1e-9)?;
    within("oracle losses", distance(&outcome.losses, &recorded("sample_losses")?), 1e-9)?;
    within("oracle activations", distance(&outcome.activations, &taps), 1e-9)?;
    let gradient = stored(&of_block(&train, &block, &outcome.gradient));
    within("oracle gradient", distance(&gradient, &recorded("g_P")?), 1e-9)?;
    for (i, param) in train.params.iter().enumerate().filter(|(_, param)| param.trained) {
        // A bias before a norm that takes it off again has no gradient but rounding.
        let values = in_file(param, &outcome.gradient[i]);
        let (norm_off, sum_off) = (1e-9 * size(&values) + 1e-14, 1e-8 * size(&values) + 1e-13);
        check("oracle gradient", &info["grad_checks"], &param.name, &values, norm_off, sum_off)?;
    }
    let direction = to_params(&train, &block, &v);
    let hv = product::<f64>(&train, &direction, &samples.x, samples.y.words(), Matrix::Hessian);
    within("oracle Hv", distance(&stored(&of_block(&train, &block, &hv)), &recorded("Hv_P")?), 1e-8)?;
    for (i, param) in train.params.iter().enumerate().filter(|(_, param)| param.trained) {
        let values = in_file(param, &hv[i]);
        let (norm_off, sum_off) = (1e-8 * size(&values) + 1e-12, 1e-7 * size(&values) + 1e-11);
        check("oracle Hv", &info["Hv_full_checks"], &param.name, &values, norm_off, sum_off)?;
    }

    // The engine.
    let device = Device::cpu()?;
    let bound = |what: &str| bound(&info, what);
    let trace = observe(&device, &net, &samples)?;
    within("logits", distance(&wide(&trace.logits), &recorded("logits")?), bound("logits")?)?;
    within("losses", distance(&wide(&trace.losses), &recorded("sample_losses")?), bound("loss")?)?;
    within("activations", distance(&wide(&trace.activations), &taps), bound("taps")?)?;
    let curvature = Curvature::new(&device, &net, &block, &samples, Kind::Hessian, usize::MAX)?;
    let mut hv = vec![f64::NAN; block.len()];
    curvature.apply(&mut hv, &v)?;
    within("gradient", distance(&stored(curvature.gradient()), &recorded("g_P")?), bound("grad")?)?;
    within("Hv", distance(&stored(&hv), &recorded("Hv_P")?), bound("Hv_P")?)?;
    if file.has("golden.pert.x") {
        let x = file.f32("golden.pert.x")?;
        let copies = x.len() / shape.len();
        // All copies are of the first input.
        let x = channels_last(&x, shape);
        let losses = recorded("pert.losses")?;
        let y = vec![samples.y.words()[0]; copies].into();
        let trace = observe(&device, &net, &Samples { kind: shape.into(), x, y, stream: None })?;
        within("perturbed losses", distance(&wide(&trace.losses), &losses), bound("loss")?.max(1e-6))?;
        let acts = distance(&wide(&trace.activations), &recorded("pert.acts")?);
        within("perturbed activations", acts, bound("taps")?)?;
    }
    if file.has("golden.H_P") {
        for damping in [0.01, 1.0] {
            solve(&curvature, &recorded("H_P")?, &recorded("g_P")?, &stored, damping)?;
        }
    }
    Ok(())
}

/// The commands `observe` and `curvature` on files, against the same records.
fn through_the_program(folder: &Path, name: &str, config: &str) -> Outcome {
    let file = TensorFile::open(&folder.join(format!("{name}.safetensors")))?;
    let info: Value = serde_json::from_slice(&std::fs::read(folder.join(format!("{name}.json")))?)?;
    let recorded = |tensor: &str| file.f64(&format!("golden.{tensor}"));
    let bound = |what: &str| bound(&info, what);
    let room = tempfile::tempdir()?;
    write_model(room.path(), &file, config)?;
    let at = |name: &str| room.path().join(name).to_string_lossy().into_owned();
    let run = |command: &str, options: &[&str]| -> Result<TensorFile, Failed> {
        let mut program = Command::new(env!("CARGO_BIN_EXE_scrubjay"));
        let files = ["--input", &at("in.safetensors"), "--out", &at("out.safetensors")];
        program.args([command, "--device", "cpu", "--model", &at("")]).args(files).args(options);
        let done = program.output()?;
        match done.status.code() {
            Some(0) => Ok(TensorFile::open(Path::new(&at("out.safetensors")))?),
            code => Err(format!("{command}: {code:?} {}", String::from_utf8_lossy(&done.stderr)).into()),
        }
    };
    let input = |set: &str, y: &[i64], v: &[f32]| -> Outcome {
        let named = |name: &str| format!("golden.{set}{name}");
        let mut all = vec![
            Tensor { name: "y", shape: vec![y.len()], values: Values::I64(y) },
            Tensor { name: "v", shape: vec![v.len()], values: Values::F32(v) },
        ];
        let (x, ids, mask);
        if file.has(&named("x")) {
            x = file.f32(&named("x"))?;
            let shape = file.shape(&named("x"))?.to_vec();
            all.push(Tensor { name: "x", shape, values: Values::F32(&x) });
        } else {
            (ids, mask) = (file.integers(&named("input_ids"))?, file.integers(&named("attention_mask"))?);
            let shape = || file.shape(&named("input_ids")).map(<[usize]>::to_vec);
            all.push(Tensor { name: "input_ids", shape: shape()?, values: Values::I64(&ids) });
            all.push(Tensor { name: "attention_mask", shape: shape()?, values: Values::I64(&mask) });
        }
        Ok(tensors::write(Path::new(&at("in.safetensors")), &all, HashMap::new())?)
    };
    let labels: Vec<i64> = file.labels("golden.label")?.into_iter().map(i64::from).collect();
    let v = file.f32("golden.v_P")?;

    input("", &labels, &v)?;
    let out = run("observe", &[])?;
    within("logits", distance(&out.f64("logits")?, &recorded("logits")?), bound("logits")?)?;
    within("losses", distance(&out.f64("loss")?, &recorded("sample_losses")?), bound("loss")?)?;
    let taps = recorded_activations(&recorded("taps_channel_mean_exec_per_sample")?, &info, labels.len());
    let taps = taps.ok_or("taps are not described")?;
    within("activations", distance(&out.f64("activations")?, &taps), bound("taps")?)?;
    let units: Vec<Value> = serde_json::from_str(&out.metadata()["units"])?;
    let order = info["layers_module_order"].as_array().ok_or("no layers")?;
    if units.len() != order.len()
        || units.iter().zip(order).any(|(unit, layer)| unit["layer"] != layer["layer"])
    {
        return Err(format!("columns of {units:?}").into());
    }

    std::fs::write(at("block.json"), info["selection"].to_string())?;
    let block = at("block.json");
    let out = run("curvature", &["--block", &block])?;
    within("gradient", distance(&out.f64("gradient")?, &recorded("g_P")?), bound("grad")?)?;
    within("Hv", distance(&out.f64("hv")?, &recorded("Hv_P")?), bound("Hv_P")?)?;
    if file.has("golden.H_P") {
        for damping in ["0.01", "1.0"] {
            let out = run("curvature", &["--block", &block, "--solve", "--damping", damping])?;
            let (h, g, step) = (recorded("H_P")?, recorded("g_P")?, out.f64("step")?);
            let lambda: f64 = damping.parse()?;
            let row = |h: &[f64]| h.iter().zip(&step).map(|(h, s)| h * s).sum::<f64>();
            let back: Vec<f64> =
                h.chunks_exact(g.len()).zip(&step).map(|(h, s)| row(h) + lambda * s).collect();
            // The step is written in f32.
            let written = f64::from(f32::EPSILON) * size(&h) * size(&step) / size(&g);
            within(&format!("residual at damping {damping}"), distance(&back, &g), 1e-4 + written)?;
        }
    }

    // The same v among all units: every parameter's part of Hv.
    let chosen = info["selection"].as_array().ok_or("no selection")?;
    let (mut all, mut wide_v, mut parts) = (vec![], vec![], vec![]);
    for unit in &units {
        let layer = unit["layer"].as_str().ok_or("no layer")?;
        let weight = file.shape(&format!("{layer}.weight"))?;
        let (rows, fan_in) = (weight[0], weight[1..].iter().product::<usize>());
        let bias = file.has(&format!("{layer}.bias"));
        let len = fan_in + usize::from(bias);
        parts.push((layer, wide_v.len(), rows, fan_in, len));
        for row in 0..rows {
            all.push(json!([layer, row]));
            wide_v.extend(vec![0.0; len]);
        }
    }
    let mut taken = 0;
    for unit in chosen {
        let part = parts.iter().find(|(layer, ..)| unit[0] == *layer).ok_or("a layer that is not there")?;
        let (_, first, _, _, len) = *part;
        let start = first + unit[1].as_u64().ok_or("no row")? as usize * len;
        wide_v[start..start + len].copy_from_slice(&v[taken..taken + len]);
        taken += len;
    }
    std::fs::write(at("block.json"), Value::from(all).to_string())?;
    input("", &labels, &wide_v)?;
    let hv = run("curvature", &["--block", &block])?.f64("hv")?;
    let off = bound("Hv_P")? * size(&hv);
    for (layer, first, rows, fan_in, len) in parts {
        let row = |row: usize| &hv[first + row * len..first + (row + 1) * len];
        let weight: Vec<f64> = (0..rows).flat_map(|i| row(i)[..fan_in].to_vec()).collect();
        let bias: Vec<f64> = (0..rows).flat_map(|i| row(i)[fan_in..].to_vec()).collect();
        for (end, values) in [("weight", weight), ("bias", bias)].iter().filter(|(_, v)| !v.is_empty()) {
            let sum_off = off * (values.len() as f64).sqrt();
            check("Hv", &info["Hv_full_checks"], &format!("{layer}.{end}"), values, off, sum_off)?;
        }
    }

    if file.has("golden.pert.x") {
        let copies = file.shape("golden.pert.x")?[0];
        input("pert.", &vec![labels[0]; copies], &v)?;
        let out = run("observe", &[])?;
        let losses = distance(&out.f64("loss")?, &recorded("pert.losses")?);
        within("perturbed losses", losses, bound("loss")?.max(1e-6))?;
        let off = distance(&out.f64("activations")?, &recorded("pert.acts")?);
        within("perturbed activations", off, bound("taps")?)?;
    }
    Ok(())
}

/// A step is judged by its residual under the recorded matrix.
fn solve(
    curvature: &Curvature,
    h: &[f64],
    g: &[f64],
    stored: &dyn Fn(&[f64]) -> Vec<f64>,
    damping: f64,
) -> Outcome {
    let p = g.len();
    let mut room = vec![0.0; p];
    let limits = Limits { tolerance: 1e-5, products: 10 * p };
    let mut product = |hv: &mut Vec<f64>, v: &Vec<f64>| curvature.apply_wide(hv, v, &mut room);
    let (step, _) = minres(&mut product, &curvature.gradient().to_vec(), damping, limits)?;
    let step = stored(&step);
    let row = |i: usize| h[i * p..(i + 1) * p].iter().zip(&step).map(|(h, s)| h * s).sum::<f64>();
    let back: Vec<f64> = (0..p).map(|i| row(i) + damping * step[i]).collect();
    within(&format!("residual of the step at damping {damping}"), distance(&back, g), 1e-4)
}

/// A block's vector in PyTorch's order.
fn in_stored_order(net: &Network, block: &Block, values: &[f64]) -> Vec<f64> {
    let mut out = values.to_vec();
    for (i, &unit) in block.units().iter().enumerate() {
        let (layer, _) = net.units().locate(unit);
        let layer = net.layer(layer);
        let (order, start) = (net.params[layer.weight.index()].order, block.range(i).start);
        for j in 0..layer.fan_in {
            out[start + j] = values[start + order.kept(j)];
        }
    }
    out
}
