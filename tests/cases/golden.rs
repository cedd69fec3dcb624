//! What every PTX form gives on a GPU for fixed inputs, kept as `tests/data/ptx-*.json`, which the emulated forms must
//! reproduce. `scripts/gpu` records them; until it has, these cases are ignored, and say so.
//!
//! Bits are exact but for sums. A tensor core adds k products and a sum in an order of its own and cuts off what it
//! aligns, so that each of the k + 1 terms may lose 2⁻²³ of the largest magnitude on the way, which is no more than
//! |d| + Σ |a b|: sums may differ by (k + 1) 2⁻²³ (|d| + Σ |a b|).

use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};
use scrubjay::device::{Cuda, Device};
use scrubjay::ops;
use serde_json::{Value, json};

use super::{all_equal, cuda, equal, ptx, twice};

/// What a form gives, in words, for inputs in words.
type Run = fn(&Cuda, &[Vec<u32>]) -> scrubjay::Result<Vec<u32>>;

/// A form on its inputs.
struct Form {
    name: &'static str,
    inputs: Vec<Vec<u32>>,
    run: Run,
    /// How far each result, which is an f32, may be off; else all bits are exact.
    allowed: Option<Vec<f64>>,
}

/// The names, which are also those of the files.
pub const FORMS: [&str; 6] = ["copy_async", "ldmatrix", "halves", "mma_tf32", "mma_bf16", "mma_f16"];

fn form(name: &'static str) -> Form {
    let words = |len: u32| (0..len).map(|i| (i + 1).wrapping_mul(0x9e37_79b9)).collect::<Vec<u32>>();
    // Magnitudes from 2⁻⁶ to 2⁶, of both signs, with all their bits.
    let value = |i: usize, which: usize| {
        let x = ((i * (2 * which + 37) + which) as f32 * 0.618_034).fract() - 0.5;
        (x * 2f32.powi((i * 7 % 13) as i32 - 5)).to_bits()
    };
    let values = |len: usize, which: usize| (0..len).map(|i| value(i, which)).collect::<Vec<u32>>();
    let exact = |inputs, run| Form { name, inputs, run, allowed: None };
    match name {
        "copy_async" => exact(vec![words(16 * 7), vec![1, 0, 1, 1, 0, 0, 1]], |cuda, inputs| {
            let out = ops::cuda::ptx::copy_async(cuda, &cuda.upload(&inputs[0])?, &cuda.upload(&inputs[1])?)?;
            cuda.download(&out)
        }),
        "ldmatrix" => exact(vec![words(128)], |cuda, inputs| {
            cuda.download(&ops::cuda::ptx::ldmatrix(cuda, &cuda.upload(&inputs[0])?)?)
        }),
        "halves" => {
            let mut x = values(64, 3);
            x[..6].copy_from_slice(
                &[-0.0, 1.0 + 2f32.powi(-8), 65519.996, -65520.0, 3.0 * 2f32.powi(-25), f32::INFINITY]
                    .map(f32::to_bits),
            );
            exact(vec![x], |cuda, inputs| {
                cuda.download(&ops::cuda::ptx::halves(cuda, &cuda.upload(&floats(&inputs[0]))?)?)
            })
        }
        "mma_tf32" => {
            let inputs = vec![values(128, 0), values(128, 1), values(64, 2)];
            let rounded = |bits: &[u32]| floats(bits).into_iter().map(ptx::tf32).collect::<Vec<f64>>();
            let allowed = Some(allowed(&inputs[0], &rounded(&inputs[1]), &rounded(&inputs[2])));
            let run = |cuda: &Cuda, inputs: &[Vec<u32>]| {
                let mut sum = cuda.upload(&floats(&inputs[0]))?;
                let [a, b] = [1, 2].map(|i| cuda.upload(&floats(&inputs[i])));
                ops::cuda::ptx::mma_tf32(cuda, &mut sum, &a?, &b?)?;
                Ok(bits(&cuda.download(&sum)?))
            };
            Form { name, inputs, run, allowed }
        }
        _ => {
            let bf16 = name == "mma_bf16";
            let half = |bits: u32| match bf16 {
                true => bits >> 16,
                false => ptx::to_f16(ptx::f16(f32::from_bits(bits))),
            };
            let wide =
                |half: u32| if bf16 { f64::from(f32::from_bits(half << 16)) } else { ptx::of_f16(half) };
            let halves =
                |which: usize, len: usize| values(len, which).into_iter().map(half).collect::<Vec<u32>>();
            let (a, b) = (halves(1, 256), halves(2, 128));
            let pack =
                |halves: &[u32]| halves.chunks(2).map(|pair| pair[0] | pair[1] << 16).collect::<Vec<u32>>();
            let inputs = vec![values(128, 0), pack(&a), pack(&b)];
            let all = |halves: &[u32]| halves.iter().map(|&half| wide(half)).collect::<Vec<f64>>();
            let allowed = Some(allowed(&inputs[0], &all(&a), &all(&b)));
            let run: Run = match bf16 {
                true => |cuda, inputs| multiplied(cuda, inputs, ops::cuda::ptx::mma_bf16),
                false => |cuda, inputs| multiplied(cuda, inputs, ops::cuda::ptx::mma_f16),
            };
            Form { name, inputs, run, allowed }
        }
    }
}

type Multiply = fn(
    &Cuda,
    &mut scrubjay::device::cuda::Buffer<f32>,
    &scrubjay::device::cuda::Buffer<u32>,
    &scrubjay::device::cuda::Buffer<u32>,
) -> scrubjay::Result<()>;

fn multiplied(cuda: &Cuda, inputs: &[Vec<u32>], multiply: Multiply) -> scrubjay::Result<Vec<u32>> {
    let mut sum = cuda.upload(&floats(&inputs[0]))?;
    multiply(cuda, &mut sum, &cuda.upload(&inputs[1])?, &cuda.upload(&inputs[2])?)?;
    Ok(bits(&cuda.download(&sum)?))
}

fn floats(bits: &[u32]) -> Vec<f32> {
    bits.iter().map(|&bits| f32::from_bits(bits)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// (k + 1) 2⁻²³ (|d| + Σ |a b|) of each sum.
fn allowed(d: &[u32], a: &[f64], b: &[f64]) -> Vec<f64> {
    let sizes = |values: &[f64]| values.iter().map(|value| value.abs()).collect::<Vec<f64>>();
    let d: Vec<f32> = floats(d).into_iter().map(f32::abs).collect();
    let unit = (b.len() / 8 + 1) as f64 * 2f64.powi(-23);
    ptx::mma(&d, &sizes(a), &sizes(b)).into_iter().map(|size| unit * f64::from(size)).collect()
}

impl Form {
    /// What a device gives.
    fn results(&self, device: &Device) -> Result<Vec<u32>, Failed> {
        let cuda = cuda(device)?;
        twice(|| Ok((self.run)(cuda, &self.inputs)?))
    }

    fn record(&self, device: &Device, results: &[u32]) -> Value {
        json!({"form": self.name, "device": device.why(), "inputs": self.inputs, "results": results})
    }

    fn compare(&self, found: &[u32], golden: &Value) -> Result<(), Failed> {
        let words = |value: &Value| -> Option<Vec<u32>> {
            value.as_array()?.iter().map(|word| word.as_u64()?.try_into().ok()).collect()
        };
        let inputs: Option<Vec<Vec<u32>>> =
            golden["inputs"].as_array().and_then(|inputs| inputs.iter().map(words).collect());
        equal("the inputs of the record; record it again", &inputs.as_ref(), &Some(&self.inputs))?;
        let expected = words(&golden["results"]).ok_or("no results")?;
        let Some(allowed) = &self.allowed else { return all_equal(self.name, found, &expected) };
        equal("the number of sums", &(found.len(), allowed.len()), &(expected.len(), expected.len()))?;
        for (i, (found, expected)) in floats(found).into_iter().zip(floats(&expected)).enumerate() {
            let off = (f64::from(found) - f64::from(expected)).abs();
            if off.is_nan() || off > allowed[i] {
                return Err(format!("{}[{i}]: {found:e}, on a GPU {expected:e}", self.name).into());
            }
        }
        Ok(())
    }
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("ptx-{name}.json"))
}

/// The emulated forms against what was recorded.
pub fn recorded(seeds: &[u64]) -> Vec<Trial> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut trials = vec![];
    for (seed, name) in seeds.iter().flat_map(|&seed| FORMS.map(|name| (seed, name))) {
        let path = file(&folder, name);
        let there = path.is_file();
        let trial = Trial::test(format!("golden/{name}/seed={seed}"), move || {
            let text = std::fs::read(&path)?;
            let (form, device) = (form(name), Device::emulated(seed)?);
            form.compare(&form.results(&device)?, &serde_json::from_slice(&text)?)
        });
        trials.push(match there {
            true => trial,
            false => trial.with_ignored_flag(true).with_kind("not recorded on a GPU yet; see scripts/gpu"),
        });
    }
    trials
}

/// A device's results against the emulator's, written to the folder that `SCRUBJAY_PTX_GOLDEN` names where the device is
/// a GPU.
pub fn compares(device: &Device, name: &'static str) -> Result<(), Failed> {
    let (form, emulated) = (form(name), Device::emulated(0)?);
    let found = form.results(device)?;
    let is_gpu = !device.why().starts_with("emulated");
    if let Some(folder) = std::env::var_os("SCRUBJAY_PTX_GOLDEN").filter(|_| is_gpu) {
        let text = serde_json::to_string(&form.record(device, &found))?;
        std::fs::write(file(Path::new(&folder), name), text + "\n")?;
    }
    let record = form.record(device, &found);
    equal("a record of under 64 KiB", &(record.to_string().len() < 64 << 10), &true)?;
    form.compare(&form.results(&emulated)?, &record)?;
    // What is compared can fail: by another result, by a sum that is off by more than its allowed, by other inputs.
    let mut other = found.clone();
    other[5] = match &form.allowed {
        Some(allowed) => (f64::from(f32::from_bits(found[5])) + 3.0 * allowed[5]) as f32,
        None => f32::from_bits(found[5] ^ 1),
    }
    .to_bits();
    equal("another result", &form.compare(&other, &record).is_err(), &true)?;
    let mut inputs = record.clone();
    inputs["inputs"][0][3] = json!(1);
    equal("other inputs", &form.compare(&found, &inputs).is_err(), &true)
}
