//! Networks that take an image as patches.

use super::super::init::Init;
use super::super::{mixer, swin, vit};
use super::plan::{Plan, Spec};
use crate::error::{Error, Result};

/// The first of these that the name is of.
pub(super) fn declare(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    for plan in [vision_transformer, swin, mixer] {
        if let Some(plan) = plan(init, spec)? {
            return Ok(Some(plan));
        }
    }
    Ok(None)
}

impl Spec<'_> {
    /// Rows and columns of patches.
    fn patches(&self, side: usize) -> Result<(usize, usize)> {
        let (h, w) = (self.image.h, self.image.w);
        match h.is_multiple_of(side) && w.is_multiple_of(side) && h.min(w) >= side {
            true => Ok((h / side, w / side)),
            false => Err(Error::config(format!(
                "`{}`: patches of {side}x{side} do not divide images of {h}x{w}",
                self.text
            ))),
        }
    }

    fn misfits(&self, expected: &str) -> Error {
        Error::config(format!("`{}`: {expected} were expected", self.text))
    }
}

/// timm's ViTs: `vit_tiny_patch16`, small, base and large, or `vit:{channels}-{blocks}-{heads}-{side of a patch}`.
fn vision_transformer(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    let named = spec.name.strip_prefix("vit_").and_then(|rest| rest.split_once("_patch"));
    let patch =
        named.and_then(|(_, patch)| patch.parse::<usize>().ok()).filter(|patch| (1..=64).contains(patch));
    let [width, blocks, heads, patch] = match (spec.name, spec.sizes, named.zip(patch)) {
        ("vit", &[width, blocks, heads, patch], _) => [width, blocks, heads, patch],
        ("vit", _, _) => return Err(spec.misfits("channels, blocks, heads and the side of a patch")),
        (_, [], Some((("tiny", _), patch))) => [192, 12, 3, patch],
        (_, [], Some((("small", _), patch))) => [384, 12, 6, patch],
        (_, [], Some((("base", _), patch))) => [768, 12, 12, patch],
        (_, [], Some((("large", _), patch))) => [1024, 24, 16, patch],
        _ => return Ok(None),
    };
    if !width.is_multiple_of(heads) {
        return Err(spec.misfits("channels that the number of heads divides"));
    }
    let (down, right) = spec.patches(patch)?;
    init.layer("patch_embed.proj", &[width, spec.image.c, patch, patch], true);
    init.tensor_of("cls_token", &[1, 1, width]);
    init.tensor_of("pos_embed", &[1, down * right + 1, width]);
    for i in 0..blocks {
        let part = |part: &str| format!("blocks.{i}.{part}");
        init.norm(&part("norm1"), width);
        init.layer(&part("attn.qkv"), &[3 * width, width], true);
        init.layer(&part("attn.proj"), &[width, width], true);
        init.norm(&part("norm2"), width);
        init.layer(&part("mlp.fc1"), &[4 * width, width], true);
        init.layer(&part("mlp.fc2"), &[width, 4 * width], true);
    }
    init.norm("norm", width);
    init.layer("head", &[spec.classes, width], true);
    Ok(Some(spec.plan(&vit::FAMILY).under_its_family().with("num_heads", heads)))
}

/// torchvision's Swin transformers of windows of 7 by 7.
fn swin(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    let (blocks, width, heads) = match spec.name {
        "swin_t" => ([2, 2, 6, 2], 96, 3),
        "swin_s" => ([2, 2, 18, 2], 96, 3),
        "swin_b" => ([2, 2, 18, 2], 128, 4),
        _ => return Ok(None),
    };
    let first = spec.size(width)?;
    if !first.is_multiple_of(heads) {
        return Err(spec.misfits(&format!("channels that {heads} heads divide")));
    }
    if !spec.image.h.is_multiple_of(224) || !spec.image.w.is_multiple_of(224) {
        return Err(
            spec.misfits("images of multiples of 224 pixels, which windows of 7x7 divide at every stage,")
        );
    }
    init.layer("features.0.0", &[first, spec.image.c, 4, 4], true);
    init.norm("features.0.2", first);
    for (stage, blocks) in blocks.into_iter().enumerate() {
        let width = first << stage;
        if stage > 0 {
            let part = |part: &str| format!("features.{}.{part}", 2 * stage);
            init.norm(&part("norm"), 2 * width);
            init.layer(&part("reduction"), &[width, 2 * width], false);
        }
        for i in 0..blocks {
            let part = |part: &str| format!("features.{}.{i}.{part}", 2 * stage + 1);
            init.norm(&part("norm1"), width);
            init.tensor_of(&part("attn.relative_position_bias_table"), &[13 * 13, heads << stage]);
            init.layer(&part("attn.qkv"), &[3 * width, width], true);
            init.layer(&part("attn.proj"), &[width, width], true);
            init.norm(&part("norm2"), width);
            init.layer(&part("mlp.0"), &[4 * width, width], true);
            init.layer(&part("mlp.3"), &[width, 4 * width], true);
        }
    }
    init.norm("norm", first << 3);
    init.layer("head", &[spec.classes, first << 3], true);
    Ok(Some(spec.plan(&swin::FAMILY)))
}

/// timm's MLP-Mixers: `mixer_s16` and `mixer_b16`, or `mixer:{channels}-{blocks}-{side of a patch}`.
fn mixer(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    let [width, blocks, patch] = match (spec.name, spec.sizes) {
        ("mixer", &[width, blocks, patch]) => [width, blocks, patch],
        ("mixer", _) => return Err(spec.misfits("channels, blocks and the side of a patch")),
        ("mixer_s16", []) => [512, 8, 16],
        ("mixer_b16", []) => [768, 12, 16],
        _ => return Ok(None),
    };
    let (down, right) = spec.patches(patch)?;
    let tokens = down * right;
    init.layer("stem.proj", &[width, spec.image.c, patch, patch], true);
    for i in 0..blocks {
        let part = |part: &str| format!("blocks.{i}.{part}");
        init.norm(&part("norm1"), width);
        init.layer(&part("mlp_tokens.fc1"), &[(width / 2).max(1), tokens], true);
        init.layer(&part("mlp_tokens.fc2"), &[tokens, (width / 2).max(1)], true);
        init.norm(&part("norm2"), width);
        init.layer(&part("mlp_channels.fc1"), &[4 * width, width], true);
        init.layer(&part("mlp_channels.fc2"), &[width, 4 * width], true);
    }
    init.norm("norm", width);
    init.layer("head", &[spec.classes, width], true);
    Ok(Some(spec.plan(&mixer::FAMILY)))
}
