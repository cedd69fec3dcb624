//! The blocks of timm's EfficientNets and MobileNets, which share one set of names.
//!
//! ```text
//! conv_stem bn1 | blocks.{s}.{i}.{[conv_pw bn1] conv_dw bn [se.{conv_reduce conv_expand}] conv_pwl, or conv_pw, bn} |
//!     conv_head [bn2] | classifier
//! ```
//!
//! The blocks of EfficientNetV2 with a full filter have `conv` alone, or `conv_exp` and `conv_pwl`. Filters are padded on all
//! sides alike, in networks whose names begin with `tf_` as TensorFlow pads, which no tensor tells.

use super::parts::{Normed, conv, squeeze, weight};
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, NodeId};

/// What tensors do not tell.
pub(super) struct Blocks<'a> {
    /// The number of blocks of each stage, and the stride of its first.
    pub stages: &'a [(usize, usize)],
    /// The nonlinearity of a stage.
    pub activation: &'a dyn Fn(usize) -> Activation,
    /// Within a squeeze, and at its end.
    pub squeeze: [Activation; 2],
    pub eps: f32,
    /// Whether filters are padded as TensorFlow pads.
    pub same: bool,
    /// Whether a block of one filter adds its input, where that has the output's shape.
    pub skips: bool,
}

/// The fact that [`tensorflow`] keeps.
pub(super) const SAME: &str = "filters are padded as TensorFlow pads them, by the size of the image";

/// Whether a network is padded as TensorFlow pads: as `pad_type` says, or a name that begins with `tf_`.
///
/// # Errors
/// Where `pad_type` is another.
pub(super) fn tensorflow(b: &Builder, reading: &mut Reading) -> Result<bool> {
    let named = reading.arch.as_ref().is_some_and(|arch| arch.starts_with("tf_"));
    let same = match reading.word("pad_type")?.as_deref() {
        None => named,
        Some("same") => true,
        Some("") => false,
        Some(other) => {
            let reason = format!("\"pad_type\": \"{other}\" is not known here; there are \"same\" and \"\"");
            return Err(Error::config(format!("config.json: {reason}")));
        }
    };
    if same && !b.has("conv_stem.weight") {
        return Err(Error::config("only networks of timm's names are padded as TensorFlow pads"));
    }
    if same {
        reading.facts.config.push(SAME.into());
    }
    Ok(same)
}

/// The eps of norms in timm: TensorFlow's in a network that is padded so.
pub(super) fn usual_eps(same: bool) -> f32 {
    if same { 1e-3 } else { 1e-5 }
}

/// The number of blocks in each stage.
pub(super) fn depths(b: &Builder) -> Vec<usize> {
    let any = |s: usize, i: usize| {
        ["conv_dw", "conv", "conv_exp"].iter().any(|part| b.has(&format!("blocks.{s}.{i}.{part}.weight")))
    };
    let depth = |s: usize| (0..).take_while(|&i| any(s, i)).count();
    (0..).map(depth).take_while(|&depth| depth > 0).collect()
}

impl Blocks<'_> {
    /// The stem and all stages.
    ///
    /// # Errors
    /// Where there are other numbers of blocks.
    pub fn compose(&self, b: &mut Builder, x: NodeId, activation: Activation) -> Result<NodeId> {
        let (found, known) = (depths(b), self.stages.iter().map(|stage| stage.0).collect::<Vec<_>>());
        if found != known {
            return Err(Error::config(format!(
                "has stages of {found:?} blocks, and {known:?} were published; strides of others cannot be told"
            )));
        }
        let x = Normed { conv: "conv_stem", norm: "bn1", stride: 2, eps: self.eps, same: self.same }
            .compose(b, x)?;
        let mut x = b.activation(x, activation);
        for (s, &(depth, stride)) in self.stages.iter().enumerate() {
            for i in 0..depth {
                let stride = if i == 0 { stride } else { 1 };
                x = self.block(b, x, &format!("blocks.{s}.{i}"), stride, (self.activation)(s))?;
            }
        }
        Ok(x)
    }

    fn block(
        &self,
        b: &mut Builder,
        x: NodeId,
        name: &str,
        stride: usize,
        kind: Activation,
    ) -> Result<NodeId> {
        let mut norms = 0;
        let mut normed = |b: &mut Builder, x: NodeId, part: &str, stride: usize| {
            norms += 1;
            let [conv, norm] = [format!("{name}.{part}"), format!("{name}.bn{norms}")];
            Normed { conv: &conv, norm: &norm, stride, eps: self.eps, same: self.same }.compose(b, x)
        };
        if b.has(&format!("{name}.conv.weight")) {
            let y = normed(b, x, "conv", stride)?;
            let y = b.activation(y, kind);
            return if self.skips && stride == 1 && b.shape(x) == b.shape(y) { b.add(y, x) } else { Ok(y) };
        }
        // Where the last filter is named `conv_pwl`, `conv_pw` is the expansion, and otherwise itself the last.
        let expands = b.has(&format!("{name}.conv_pwl.weight"));
        let full = b.has(&format!("{name}.conv_exp.weight"));
        let mut y = x;
        if full {
            y = normed(b, y, "conv_exp", stride)?;
        } else {
            if expands {
                y = normed(b, y, "conv_pw", 1)?;
                y = b.activation(y, kind);
            }
            y = normed(b, y, "conv_dw", stride)?;
        }
        y = b.activation(y, kind);
        if b.has(&format!("{name}.se.conv_reduce.weight")) {
            let names = [format!("{name}.se.conv_reduce"), format!("{name}.se.conv_expand")];
            y = squeeze(b, y, [&names[0], &names[1]], self.squeeze)?;
        }
        y = normed(b, y, if expands { "conv_pwl" } else { "conv_pw" }, 1)?;
        match stride == 1 && b.shape(x) == b.shape(y) {
            true => b.add(y, x),
            false => Ok(y),
        }
    }
}

/// The last filter, with its norm before the means, or without one behind them.
pub(super) fn last(b: &mut Builder, x: NodeId, activation: Activation, eps: f32) -> Result<NodeId> {
    if b.has("bn2.weight") {
        let x = Normed { conv: "conv_head", norm: "bn2", stride: 1, eps, same: false }.compose(b, x)?;
        let x = b.activation(x, activation);
        return Ok(b.global_pool(x));
    }
    let x = b.global_pool(x);
    let x = match b.side(&weight("conv_head"), 2)? {
        1 => conv(b, x, "conv_head", 1)?,
        side => {
            return Err(Error::config(format!(
                "`conv_head` has filters of {side}x{side}, and 1x1 were published"
            )));
        }
    };
    Ok(b.activation(x, activation))
}
