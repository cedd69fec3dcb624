//! What a model and a set of samples are: what `inspect` prints, as values, as JSON and as text.

mod set;

use std::fmt::Write;

use serde::Serialize;

pub use set::{ClassCount, SetInspection, write_image};

use crate::data::InputKind;
use crate::error::Result;
use crate::net::{Network, Selected, Shape, plan};
use crate::ops::Precision;
use crate::zoo::Facts;

/// The numbers of noisy copies and retained samples that the bytes are for: the defaults of `scrub`.
const COPIES: usize = 1000;
const RETAINED: usize = 1024;

/// A layer with units.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerInspection {
    /// Its name.
    pub layer: String,
    /// Rows of its weights.
    pub units: usize,
    /// Parameters of all of them.
    pub parameters: usize,
}

/// A model: what is known of it and from where, its layers, and the memory that scrubbing it needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelInspection {
    /// The family that it was taken for.
    pub family: String,
    /// Read off the names and shapes of its tensors.
    pub read_off_tensors: Vec<String>,
    /// Read off its config.
    pub read_off_config: Vec<String>,
    /// Chosen by the caller.
    pub chosen: Vec<String>,
    /// Neither read nor chosen.
    pub assumed: Vec<String>,
    /// Keys of the config that were not read and are not known to change the function.
    pub config_keys_not_read: Vec<String>,
    /// Of images: channels, height and width.
    pub input: Option<[usize; 3]>,
    /// Of texts: tokens at most.
    pub tokens: Option<usize>,
    /// Of texts: different tokens.
    pub vocabulary: Option<usize>,
    /// Logits.
    pub classes: usize,
    /// Numbers in all.
    pub parameters: usize,
    /// Those in units, which scrubbing may touch.
    pub scrubbable: usize,
    /// Rows of all weights.
    pub units: usize,
    /// The layers with units.
    pub layers: Vec<LayerInspection>,
    /// Bytes of observing 1,000 noisy copies, with their activations.
    pub observe_bytes: usize,
    /// Bytes of a product with every unit selected, each worker.
    pub products_bytes: usize,
    /// Bytes that products keep of 1,024 retained samples.
    pub kept_bytes: usize,
    /// Images that a product takes at once.
    pub chunk: usize,
    /// The program of Hessian products; with a precision, that of the pass over noisy copies. A line an instruction.
    pub program: Vec<String>,
    /// Images that the pass over noisy copies takes at once, and its bytes.
    #[serde(skip)]
    observe: (usize, usize),
    /// Whether the program is that of the pass over noisy copies.
    #[serde(skip)]
    perturbation: bool,
}

impl ModelInspection {
    /// Inspects a frozen network; values of its parameters play no part. With a `precision`, the pass over noisy copies is in it.
    ///
    /// # Errors
    /// Where the network has no plan.
    pub fn of(
        net: &Network,
        family: &str,
        facts: &Facts,
        precision: Option<Precision>,
    ) -> Result<ModelInspection> {
        let forward = plan::Plan::perturbation(net, COPIES, precision.unwrap_or_default())?;
        let all = vec![Selected::All; net.layers.len()];
        let products = plan::Plan::new(net, all, plan::Purpose::Hessian, RETAINED)?;
        let (input, tokens) = match net.kind() {
            InputKind::Image(Shape { h, w, c }) => (Some([c, h, w]), None),
            InputKind::Text { tokens } => (None, Some(tokens)),
        };
        let layers: Vec<LayerInspection> = net
            .layers
            .iter()
            .map(|layer| LayerInspection {
                layer: layer.name.clone(),
                units: layer.outputs,
                parameters: layer.outputs * layer.unit_len(),
            })
            .collect();
        let Facts { tensors, config, chosen, assumed, unread } = facts.clone();
        Ok(ModelInspection {
            family: family.into(),
            read_off_tensors: tensors,
            read_off_config: config,
            chosen,
            assumed,
            config_keys_not_read: unread,
            input,
            tokens,
            vocabulary: net.vocabulary(),
            classes: net.classes(),
            parameters: net.parameters(),
            scrubbable: layers.iter().map(|layer| layer.parameters).sum(),
            units: net.units().len(),
            layers,
            observe_bytes: forward.bytes() + activations(net.units().len()),
            products_bytes: products.bytes(),
            kept_bytes: products.kept_bytes() * RETAINED.div_ceil(products.chunk),
            chunk: products.chunk,
            program: if precision.is_some() { &forward } else { &products }.text(net),
            observe: (forward.chunk, forward.bytes()),
            perturbation: precision.is_some(),
        })
    }

    /// The text that `inspect` prints; with its program, where that is asked for.
    pub fn text(&self, program: bool) -> String {
        let mut out = String::new();
        let mut line = |text: String| {
            let _ = writeln!(out, "{text}"); // a string takes everything
        };
        for (source, facts) in [
            ("tensors", &self.read_off_tensors),
            ("config", &self.read_off_config),
            ("options", &self.chosen),
            ("assumed", &self.assumed),
            ("not read", &self.config_keys_not_read),
        ] {
            facts.iter().for_each(|fact| line(format!("{source:<11} {fact}")));
        }
        line(format!("family      {}", self.family));
        if let Some([c, h, w]) = self.input {
            line(format!("input       {c} x {h} x {w} (channels, height, width)"));
        }
        if let Some(tokens) = self.tokens {
            let vocabulary = self.vocabulary.unwrap_or(0);
            line(format!("input       texts of up to {tokens} tokens, of {vocabulary} different ones"));
        }
        line(format!("classes     {}", self.classes));
        line(format!(
            "parameters  {} ({} of them in units, the part that scrubbing may touch)",
            self.parameters, self.scrubbable
        ));
        line(format!("units       {}", self.units));
        self.layers_text().into_iter().for_each(&mut line);
        self.bytes_text().into_iter().for_each(&mut line);
        if program {
            let what = match self.perturbation {
                true => "of the pass over noisy copies; a value that is not f32 has its type behind it",
                false => "forward and backward once, the rest for every product",
            };
            line(format!("\nprogram ({what})"));
            self.program.iter().for_each(|step| line(format!("  {step}")));
        }
        out
    }

    fn layers_text(&self) -> Vec<String> {
        let width = self.layers.iter().map(|layer| layer.layer.len()).max().unwrap_or(5).max(5);
        let mut lines =
            vec![format!("\n{:<width$}  {:>7}  {:>12}  {:>15}", "layer", "units", "parameters", "columns")];
        let mut start = 0;
        for LayerInspection { layer, units, parameters } in &self.layers {
            let columns = format!("{start}-{}", start + units - 1);
            lines.push(format!("{layer:<width$}  {units:>7}  {parameters:>12}  {columns:>15}"));
            start += units;
        }
        lines
    }

    fn bytes_text(&self) -> [String; 5] {
        let (chunk, forward) = self.observe;
        [
            "\nbytes for a scrub (per worker where not said otherwise)".into(),
            format!("  {:>12}  observing {COPIES} copies, {chunk} at once", bytes(forward)),
            format!("  {:>12}  their activations, in all", bytes(activations(self.units))),
            format!(
                "  {:>12}  products with every unit selected, {} images at once",
                bytes(self.products_bytes),
                self.chunk
            ),
            format!(
                "  {:>12}  what these keep of {RETAINED} retained samples, in all (recomputed where it does not fit)",
                bytes(self.kept_bytes)
            ),
        ]
    }
}

/// Bytes of the activations of all copies.
fn activations(units: usize) -> usize {
    4 * COPIES * units
}

/// A number of bytes with its unit.
pub fn bytes(n: usize) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (0..units.len()).rev().find(|&i| n >= 1 << (10 * i)).unwrap_or(0);
    match power {
        0 => format!("{n} B"),
        _ => format!("{:.1} {}", n as f64 / (1u64 << (10 * power)) as f64, units[power]),
    }
}
